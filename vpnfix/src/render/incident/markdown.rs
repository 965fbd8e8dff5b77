//! The report for a ticket.

use std::fmt::Write as _;

use super::blocks::{Block, Grid, blocks, subject, told};
use super::{clean, sign};
use crate::core::report::incident::{Fact, IncidentReport, Tone};

/// The report in Markdown, with tables as GitHub, GitLab and Jira's importers read them.
#[must_use]
pub fn markdown(report: &IncidentReport) -> String {
    let mut out = format!("# {}\n\n{}\n", escaped(&report.headline.text), escaped(&subject(report)));
    for block in blocks(report) {
        match block {
            Block::Heading(title) => {
                let _ = writeln!(out, "\n## {title}");
            }
            Block::Paragraph(_, text) => {
                // Our own words: their backquotes are meant.
                let _ = writeln!(out, "\n{}", clean(&text));
            }
            Block::Facts(facts) => facts.iter().for_each(|fact| self::fact(&mut out, fact)),
            Block::Table(grid) => table(&mut out, &grid),
            Block::Plain(title, text) => {
                let _ = writeln!(out, "\n**{}**\n\n{}", escaped(&title), fenced(&text));
            }
            Block::Plot(_) => out.push_str("\nThe plot is in `report.html`.\n"),
        }
    }
    out
}

fn fact(out: &mut String, fact: &Fact) {
    let _ = writeln!(out, "\n**{}**\n", fact.topic.title());
    for line in &fact.lines {
        let sign = match line.tone {
            Tone::Good => "✓ ",
            Tone::Bad => "✗ ",
            Tone::Doubtful => "? ",
            Tone::Plain => "",
        };
        let (text, command) = told(line);
        let command = command.map_or_else(String::new, code);
        let _ = writeln!(out, "- {sign}{}{command}", escaped(&text));
    }
}

fn table(out: &mut String, grid: &Grid) {
    if !grid.title.is_empty() {
        let _ = writeln!(out, "\n**{}**", escaped(&grid.title));
    }
    let marked = grid.head.len() > 1 && grid.rows.iter().any(|row| sign(row.change) != " ");
    let mark = |text: &str| if marked { format!("| {text} ") } else { String::new() };
    let _ = writeln!(out, "\n{}| {} |", mark(""), grid.head.join(" | "));
    let _ = writeln!(out, "{}|{}", if marked { "|---" } else { "" }, "---|".repeat(grid.head.len()));
    for row in &grid.rows {
        let cells: Vec<String> = row.cells.iter().map(|cell| escaped(&cell.replace('\n', " "))).collect();
        let _ = writeln!(out, "{}| {} |", mark(&escaped(sign(row.change))), cells.join(" | "));
    }
    if let Some(rest) = &grid.rest {
        let _ = writeln!(out, "\n… {}", escaped(rest));
    }
}

/// Text in which nothing is markup.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for letter in clean(text).replace('\n', " ").chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' if !out.ends_with('-') => out.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '#' | '|' | '!' | '~' => {
                out.push('\\');
                out.push(letter);
            }
            // Mentions and links would reach out of the ticket.
            '@' => out.push_str("&#64;"),
            letter => out.push(letter),
        }
    }
    out.replace("://", ":\u{200b}//")
}

/// A command as code, whatever backquotes are in it.
fn code(text: &str) -> String {
    let text = clean(text);
    if text.contains('\n') {
        return format!("\n\n{}\n", indented(&fenced(&text)));
    }
    let fence = "`".repeat(longest_run(&text) + 1);
    let pad = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    format!("{fence}{pad}{text}{pad}{fence}")
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

fn fenced(text: &str) -> String {
    let text = clean(text);
    let fence = "`".repeat(longest_run(&text).max(2) + 1);
    format!("{fence}text\n{}\n{fence}", text.trim_end())
}

fn longest_run(text: &str) -> usize {
    text.split(|letter| letter != '`').map(str::len).max().unwrap_or(0)
}
