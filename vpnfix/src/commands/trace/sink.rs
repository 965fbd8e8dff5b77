//! Where the lines go: standard output, or a file.

use crate::commands::cli::TraceArgs;
use crate::commands::failure::Failure;
use crate::commands::output::{Output, Printed};
use crate::core::report::trace::TraceLine;
use crate::render;
use crate::system::rotating::{RotatingFile, Rotation};

/// Where the lines go.
pub enum Sink {
    /// Standard output.
    Standard(Output),
    /// Memory, up to a bound, as JSON Lines.
    Kept(KeptLines),
    /// A file; its name is for errors.
    File {
        /// How lines are made.
        output: Output,
        /// The file.
        file: RotatingFile,
        /// As the user named it.
        name: String,
    },
}

impl Sink {
    /// As the options say.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(output: Output, args: &TraceArgs) -> Result<Self, Failure> {
        let Some(path) = &args.out else { return Ok(Self::Standard(output)) };
        let rotation = args.rotate_size.map(|size| Rotation { size, keep: args.rotate_count });
        let name = path.display().to_string();
        let file = RotatingFile::open(path, rotation).map_err(|error| Failure::of(&format!("open {name}"), &error))?;
        // What is kept in a file is read by programs, or later: no colours.
        Ok(Self::File { output: output.plain(), file, name })
    }

    /// Writes a line.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn line(&mut self, line: &TraceLine) -> Result<Printed, Failure> {
        match self {
            Self::Standard(output) => output.line(line, render::trace::text),
            Self::Kept(kept) => {
                let text = render::line(line).map_err(|error| Failure::of("print a line", &error))?;
                kept.add(&text, matches!(line, TraceLine::Summary(_)));
                Ok(Printed::Written)
            }
            Self::File { output, file, name } => {
                let text = output.rendered(line, render::trace::text)?;
                file.write(text.as_bytes()).map_err(|error| Failure::of(&format!("write to {name}"), &error))?;
                Ok(Printed::Written)
            }
        }
    }
}

/// Lines that are kept up to a bound. The summary, which comes last, is always kept.
#[derive(Debug, Default)]
pub struct KeptLines {
    /// The lines.
    pub text: Vec<u8>,
    /// How many found no room.
    pub left_out: u64,
}

impl KeptLines {
    /// Most bytes before the summary.
    const BYTES: usize = 24 << 20;

    fn add(&mut self, line: &str, always: bool) {
        if always || self.text.len() + line.len() <= Self::BYTES {
            self.text.extend_from_slice(line.as_bytes());
        } else {
            self.left_out += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_counted_and_the_summary_always_finds_it() {
        let mut kept = KeptLines::default();
        let long = "x".repeat(KeptLines::BYTES / 2 + 1);
        kept.add(&long, false);
        kept.add(&long, false);
        assert_eq!((kept.text.len(), kept.left_out), (long.len(), 1));
        kept.add(&long, true);
        assert_eq!((kept.text.len(), kept.left_out), (2 * long.len(), 1));
    }
}
