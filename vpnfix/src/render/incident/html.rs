//! The report as one page for a browser: no script, nothing from elsewhere. `maud` escapes every text.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::blocks::{Block, Grid, blocks, subject, told};
use super::plot::{self, Size};
use super::{clean, sign};
use crate::core::bundle::comparison::Change;
use crate::core::bundle::timeline::Timeline;
use crate::core::report::incident::{Fact, IncidentReport, Tone};

/// Nothing is fetched, whatever a text might hold: the page says so itself.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";
const STYLE: &str = include_str!("style.css");

/// The report as one self-contained page.
#[must_use]
pub fn html(report: &IncidentReport) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { "vpnfix: " (clean(&report.headline.text)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    header class=(tone(report.headline.tone)) {
                        p.kind { "Incident report" }
                        h1 { (clean(&report.headline.text)) }
                        p.subject { (clean(&subject(report))) }
                    }
                    @for block in blocks(report) { (self::block(&block)) }
                }
            }
        }
    };
    page.into_string()
}

fn block(block: &Block<'_>) -> Markup {
    match block {
        Block::Heading(title) => html! { h2 { (title) } },
        Block::Paragraph(tone, text) => html! { p class=(self::tone(*tone)) { (coded(&clean(text))) } },
        Block::Facts(facts) => html! { div.facts { @for fact in *facts { (self::fact(fact)) } } },
        Block::Table(grid) => table(grid),
        Block::Plain(title, text) => html! { h3 { (clean(title)) } pre { (clean(text).trim_end()) } },
        Block::Plot(timeline) => figure(timeline),
    }
}

/// Our own words between backquotes as code.
fn coded(text: &str) -> Markup {
    html! {
        @for (index, part) in text.split('`').enumerate() {
            @if index % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

fn tone(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "good",
        Tone::Bad => "bad",
        Tone::Doubtful => "doubtful",
        Tone::Plain => "plain",
    }
}

fn fact(fact: &Fact) -> Markup {
    html! {
        section.fact {
            h2 { (fact.topic.title()) }
            ul {
                @for line in &fact.lines {
                    @let (text, command) = told(line);
                    li class=(tone(line.tone)) {
                        (coded(&clean(&text)))
                        @if let Some(command) = command { code { (clean(command)) } }
                    }
                }
            }
        }
    }
}

fn change(change: Change) -> &'static str {
    match change {
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Changed => "changed",
        Change::Counted => "counted",
        Change::Same => "same",
        Change::Alone => "alone",
    }
}

/// On a narrow screen each row is a block, with the column's name before each cell.
fn table(grid: &Grid) -> Markup {
    html! {
        @if !grid.title.is_empty() { h3 { (clean(&grid.title)) } }
        table {
            thead { tr { @for name in &grid.head { th scope="col" { (name) } } } }
            tbody {
                @for row in &grid.rows {
                    tr class={ (change(row.change)) " " (tone(row.tone)) } {
                        @for (index, (cell, name)) in row.cells.iter().zip(&grid.head).enumerate() {
                            td data-name=(name) {
                                @if index == 0 && sign(row.change) != " " {
                                    span.sign title=(change(row.change)) { (sign(row.change)) }
                                }
                                (clean(cell))
                            }
                        }
                    }
                }
            }
        }
        @if let Some(rest) = &grid.rest { p.rest { "… " (clean(rest)) } }
    }
}

fn figure(timeline: &Timeline) -> Markup {
    let series = plot::series(timeline);
    let drawn = |size| plot::svg(timeline, size).unwrap_or_default();
    html! {
        figure {
            div.wide { (PreEscaped(drawn(Size::Wide))) }
            div.narrow { (PreEscaped(drawn(Size::Narrow))) }
            figcaption {
                "Packets a second by device"
                @for one in &series {
                    span.key { span.swatch style={ "background:var(--" (one.color.name()) ")" } {} (clean(&one.label())) }
                }
                @if !timeline.marks.is_empty() {
                    span.key { span.swatch.line {} "the change" }
                }
                @if !timeline.bgp.is_empty() {
                    span.key { span.swatch style="background:var(--up)" {} "BGP up" }
                    span.key { span.swatch style="background:var(--down)" {} "BGP not up" }
                }
            }
        }
    }
}
