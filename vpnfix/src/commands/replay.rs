//! `vpnfix replay`.

use std::fs::File;
use std::io::{self, Read as _};
use std::ops::ControlFlow;
use std::path::Path;

use super::cli::ReplayArgs;
use super::failure::Failure;
use super::output::Printed;
use super::settings::Settings;
use crate::core::recording::{self, LIMIT_MAX, RecordingError, Unplayed};
use crate::core::report::Outcome;
use crate::render;

/// More than a recording of the largest limit can have: its closing frame comes on top.
const SIZE_MAX: u64 = LIMIT_MAX + (64 << 20);

/// Tells a recorded trace again.
///
/// # Errors
/// The file cannot be read, or is no recording, or not a whole one; what could be judged of it was told by then.
pub fn run(settings: &Settings, args: &ReplayArgs) -> Result<Outcome, Failure> {
    let what = format!("replay {}", args.file.display());
    let bytes = read(&args.file).map_err(|error| Failure::of(&what, &error))?;
    let mut failed = None;
    let mut tell = |line: &_| match settings.output.line(line, render::trace::text) {
        Ok(Printed::Written) => ControlFlow::Continue(()),
        Ok(Printed::ReaderGone) => ControlFlow::Break(()),
        Err(failure) => {
            failed = Some(failure);
            ControlFlow::Break(())
        }
    };
    let replayed = recording::replay(&bytes, &mut tell);
    if let Some(failure) = failed {
        return Err(failure);
    }
    let Some(replayed) = replayed.map_err(|error| unplayed(&what, &error))? else { return Ok(Outcome::Ok) };
    if replayed.left_out.is_any() {
        tracing::warn!(
            "the recording had reached its limit: {} records and {} changes of what they are judged by are not in it; \
             the counts hold for all",
            replayed.left_out.records,
            replayed.left_out.bases
        );
    }
    Ok(replayed.summary.outcome)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(SIZE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SIZE_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than any recording"));
    }
    Ok(bytes)
}

fn unplayed(what: &str, error: &Unplayed) -> Failure {
    let failure = Failure::unable(format!("{what}: {error}"));
    match error.error {
        RecordingError::Foreign { is_lines: false } => failure.hint("`vpnfix trace --record FILE` makes one"),
        _ => failure,
    }
}
