//! The report for a terminal.

use std::fmt::Write as _;

use super::blocks::{Block, Grid, blocks, subject, told};
use super::{clean, sign};
use crate::core::bundle::comparison::Change;
use crate::core::bundle::timeline::{Side, Timeline};
use crate::core::report::incident::{Fact, IncidentReport, Tone};
use crate::render::{Palette, wrapped};

/// Columns of the plot.
const PLOT: usize = 60;

/// The report as a person reads it.
#[must_use]
pub fn text(report: &IncidentReport, palette: Palette) -> String {
    let mut out = String::new();
    paragraph(&mut out, &report.headline.text, "", |line| toned(line, report.headline.tone, palette));
    paragraph(&mut out, &subject(report), "", |line| palette.faint(line));
    for block in blocks(report) {
        match block {
            Block::Heading(title) => {
                let _ = writeln!(out, "\n{}", palette.strong(title));
            }
            Block::Paragraph(tone, text) => {
                out.push('\n');
                paragraph(&mut out, &text, "", |line| toned(line, tone, palette));
            }
            Block::Facts(facts) => facts.iter().for_each(|fact| self::fact(&mut out, fact, palette)),
            Block::Table(grid) => table(&mut out, &grid, palette),
            Block::Plain(title, text) => {
                let _ = writeln!(out, "  {}", palette.strong(clean(&title)));
                for line in clean(&text).lines() {
                    let _ = writeln!(out, "    {line}");
                }
            }
            Block::Plot(timeline) => plot(&mut out, timeline, palette),
        }
    }
    out.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn toned(text: &str, tone: Tone, palette: Palette) -> String {
    match tone {
        Tone::Good => palette.good(text),
        Tone::Bad => palette.bad(text),
        Tone::Doubtful => palette.doubtful(text),
        Tone::Plain => text.into(),
    }
}

fn paragraph(out: &mut String, text: &str, indent: &str, paint: impl Fn(&str) -> String) {
    for line in wrapped(&clean(text).replace('\n', " "), indent, indent) {
        let _ = writeln!(out, "{}", paint(&line));
    }
}

fn fact(out: &mut String, fact: &Fact, palette: Palette) {
    let _ = writeln!(out, "\n{}", palette.strong(fact.topic.title()));
    for line in &fact.lines {
        let (text, command) = told(line);
        paragraph(out, text.trim_end(), "  ", |text| toned(text, line.tone, palette));
        for line in command.map(clean).iter().flat_map(|command| command.lines()) {
            let _ = writeln!(out, "      {line}");
        }
    }
}

fn table(out: &mut String, grid: &Grid, palette: Palette) {
    if !grid.title.is_empty() {
        let _ = writeln!(out, "  {}", palette.strong(clean(&grid.title)));
    }
    for row in &grid.rows {
        let mut cells = row.cells.iter().map(|cell| clean(cell).replace('\n', " "));
        let first = cells.next().unwrap_or_default();
        let sign = sign(row.change);
        let first = match row.change {
            Change::Added => palette.good(format!("{sign} {first}")),
            Change::Removed => palette.bad(format!("{sign} {first}")),
            Change::Changed => palette.doubtful(format!("{sign} {first}")),
            _ => toned(&format!("{sign} {first}"), row.tone, palette),
        };
        let _ = writeln!(out, "  {first}");
        for (cell, name) in cells.zip(grid.head.iter().skip(1)) {
            // Of rules and routes there is nothing to tell but that they are there.
            if cell == "there" || cell == "—" {
                continue;
            }
            let name = format!("      {}: ", name.to_lowercase());
            for line in wrapped(&cell, &name, "          ") {
                let _ = writeln!(out, "{line}");
            }
        }
    }
    if let Some(rest) = &grid.rest {
        let _ = writeln!(out, "  {}", palette.faint(format!("… {rest}")));
    }
}

/// One line for each side: how many packets a second left in each part of the time.
fn plot(out: &mut String, timeline: &Timeline, palette: Palette) {
    let length = timeline.length_ms.max(1);
    let begins = std::iter::once(0).chain(timeline.samples.iter().map(|sample| sample.at_ms));
    let steps: Vec<_> = begins.zip(&timeline.samples).collect();
    let rate = |column: usize, side: Side| {
        let at = u64::try_from(u128::from(length) * (2 * column as u128 + 1) / (2 * PLOT as u128)).unwrap_or(0);
        let (begin, sample) = steps.iter().find(|(_, sample)| sample.at_ms > at)?;
        let packets =
            sample.egress.iter().filter(|egress| egress.side == side).map(|egress| u128::from(egress.packets));
        Some(packets.sum::<u128>() * 1000 / u128::from(sample.at_ms.saturating_sub(*begin).max(1)))
    };
    let rates = |side| (0..PLOT).map(|column| rate(column, side).unwrap_or(0)).collect::<Vec<u128>>();
    let lines = [("misrouted", rates(Side::Misrouted), Tone::Bad), ("right", rates(Side::Right), Tone::Good)];
    let most = lines.iter().flat_map(|(_, rates, _)| rates).copied().max().unwrap_or(0).max(1);
    for (name, rates, tone) in lines {
        let drawn: String = rates.iter().map(|rate| level(*rate, most)).collect();
        let _ = writeln!(out, "  {name:>9} |{}|", toned(&drawn, tone, palette));
    }
    let _ = writeln!(out, "            0{:>width$}", super::blocks::seconds(timeline.length_ms), width = PLOT);
}

/// A sign for a part of the most.
fn level(rate: u128, most: u128) -> char {
    const LEVELS: [char; 6] = [' ', '.', ':', '+', '*', '#'];
    let level = (rate * (LEVELS.len() as u128 - 1)).div_ceil(most);
    usize::try_from(level).ok().and_then(|level| LEVELS.get(level)).copied().unwrap_or('#')
}
