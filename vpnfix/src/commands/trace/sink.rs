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
            Self::File { output, file, name } => {
                let text = output.rendered(line, render::trace::text)?;
                file.write(text.as_bytes()).map_err(|error| Failure::of(&format!("write to {name}"), &error))?;
                Ok(Printed::Written)
            }
        }
    }
}
