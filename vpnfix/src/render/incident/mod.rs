//! The report of an incident as Markdown, text and HTML. All three are written from the same blocks, so that they say the
//! same.

mod blocks;
mod html;
mod markdown;
mod plot;
#[cfg(test)]
mod tests;
mod text;

pub use html::html;
pub use markdown::markdown;
pub use text::text;

use crate::core::bundle::comparison::Change;

/// A text that does nothing but stand there: what moves the cursor, colours a terminal or turns the direction of writing
/// is replaced. Reports hold names that others chose.
#[must_use]
pub fn clean(text: &str) -> String {
    let harmless = |letter: char| match letter {
        '\n' => '\n',
        letter if letter.is_control() => '\u{fffd}',
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        letter => letter,
    };
    text.chars().map(harmless).collect()
}

/// What stands before a row of a comparison.
fn sign(change: Change) -> &'static str {
    match change {
        Change::Added => "+",
        Change::Removed => "-",
        Change::Changed => "~",
        Change::Counted => "#",
        Change::Same | Change::Alone => " ",
    }
}
