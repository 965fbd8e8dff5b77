//! Text, JSON, Markdown and HTML, from the same report values.

mod cure;
pub mod diagnose;
pub mod doctor;
pub mod explain;
pub mod fix;
pub mod incident;
pub mod live;
pub mod metrics;
pub mod pcapng;
pub mod persist;
pub mod story;
pub mod trace;
pub mod verify;
pub mod watch;

use std::fmt::Display;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

/// Colours for text, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Palette {
    colored: bool,
}

impl Palette {
    /// With or without colours.
    #[must_use]
    pub fn new(colored: bool) -> Self {
        Self { colored }
    }

    /// Are there colours?
    #[must_use]
    pub fn is_colored(self) -> bool {
        self.colored
    }

    fn paint(self, style: Style, text: impl Display) -> String {
        if self.colored { format!("{style}{text}{style:#}") } else { text.to_string() }
    }

    /// What is right.
    #[must_use]
    pub fn good(self, text: impl Display) -> String {
        self.paint(AnsiColor::Green.on_default(), text)
    }

    /// What is wrong.
    #[must_use]
    pub fn bad(self, text: impl Display) -> String {
        self.paint(AnsiColor::Red.on_default().bold(), text)
    }

    /// What is doubtful.
    #[must_use]
    pub fn doubtful(self, text: impl Display) -> String {
        self.paint(AnsiColor::Yellow.on_default(), text)
    }

    /// What matters less.
    #[must_use]
    pub fn faint(self, text: impl Display) -> String {
        self.paint(Style::new().dimmed(), text)
    }

    /// A heading, a name.
    #[must_use]
    pub fn strong(self, text: impl Display) -> String {
        self.paint(Style::new().bold(), text)
    }
}

/// A report as an indented JSON document with a line feed at its end.
///
/// # Errors
/// A value that JSON cannot hold; the report values have none.
pub fn document<T: Serialize>(report: &T) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string_pretty(report)?;
    text.push('\n');
    Ok(text)
}

/// A value as one line of JSON.
///
/// # Errors
/// A value that JSON cannot hold; the report values have none.
pub fn line<T: Serialize>(value: &T) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string(value)?;
    text.push('\n');
    Ok(text)
}

/// `1 packet`, `2 packets`.
fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Table numbers with their names where they have one that everyone knows.
fn table_name(table: u32) -> String {
    match table {
        crate::core::owner::STRONGSWAN_TABLE => "220 (the number is strongSwan's default)".into(),
        _ => crate::core::model::rule::table_word(table),
    }
}

/// The same in a few words, for columns: `220 (strongSwan)`.
fn short_table_name(table: u32) -> String {
    match table {
        crate::core::owner::STRONGSWAN_TABLE => "220 (strongSwan)".into(),
        crate::core::model::TABLE_MAIN => "254 (main)".into(),
        crate::core::model::TABLE_LOCAL => "255 (local)".into(),
        crate::core::model::TABLE_DEFAULT => "253 (default)".into(),
        number => number.to_string(),
    }
}

/// Width that texts are wrapped to: that of a classic terminal.
const WIDTH: usize = 80;

/// A text in lines of at most [`WIDTH`] columns where its words allow it.
fn wrapped(text: &str, first: &str, further: &str) -> Vec<String> {
    let options = textwrap::Options::new(WIDTH)
        .initial_indent(first)
        .subsequent_indent(further)
        // A prefix or a command that is cut in two can be copied no more.
        .break_words(false)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::wrap(text, options).into_iter().map(std::borrow::Cow::into_owned).collect()
}
