//! Standard output: reports as text or JSON. A reader that went away is no error.

use std::io::{self, IsTerminal, Write as _};

use serde::Serialize;

use super::cli::{Color, Format, Global};
use super::failure::Failure;
use crate::render::{self, Palette};

/// Where and how reports are printed.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    format: Format,
    palette: Palette,
}

/// Is what goes into this stream coloured?
#[must_use]
pub fn is_colored(color: Color, stream: &impl IsTerminal) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && stream.is_terminal(),
    }
}

/// What printing came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Printed {
    /// It was written.
    Written,
    /// The reader is gone: a stream should end.
    ReaderGone,
}

impl Output {
    /// As the global options say.
    #[must_use]
    pub fn new(global: &Global) -> Self {
        Self { format: global.format, palette: Palette::new(is_colored(global.color, &io::stdout())) }
    }

    /// Prints a whole report.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn report<T: Serialize>(
        &self,
        report: &T,
        text: impl FnOnce(&T, Palette) -> String,
    ) -> Result<Printed, Failure> {
        self.print(match self.format {
            Format::Text | Format::Html | Format::Markdown => text(report, self.palette),
            Format::Json => render::document(report).map_err(|error| Failure::of("print the report", &error))?,
        })
    }

    /// Prints one line of a stream.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn line<T: Serialize>(&self, line: &T, text: impl FnOnce(&T, Palette) -> String) -> Result<Printed, Failure> {
        self.print(self.rendered(line, text)?)
    }

    /// One line of a stream as it would be printed.
    ///
    /// # Errors
    /// A value that JSON cannot hold.
    pub fn rendered<T: Serialize>(
        &self,
        line: &T,
        text: impl FnOnce(&T, Palette) -> String,
    ) -> Result<String, Failure> {
        match self.format {
            Format::Text | Format::Html | Format::Markdown => Ok(text(line, self.palette)),
            Format::Json => render::line(line).map_err(|error| Failure::of("print a line", &error)),
        }
    }

    /// The same without colours.
    #[must_use]
    pub fn plain(self) -> Self {
        Self { palette: Palette::new(false), ..self }
    }

    /// Are documents printed, for programs?
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Are colours used?
    #[must_use]
    pub fn palette(&self) -> Palette {
        self.palette
    }

    /// Prints text as it is.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn print(&self, text: impl AsRef<[u8]>) -> Result<Printed, Failure> {
        print(text)
    }
}

/// Prints text to standard output.
///
/// # Errors
/// Standard output cannot be written.
pub fn print(text: impl AsRef<[u8]>) -> Result<Printed, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_ref()).and_then(|()| out.flush()) {
        Ok(()) => Ok(Printed::Written),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Printed::ReaderGone),
        Err(error) => Err(Failure::of("write to standard output", &error)),
    }
}
