//! Running another program to its end, within a time, and reading what it prints, within a size.

use std::io::{self, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

/// So much of what a program prints is kept; the rest is read and dropped, so that it does not block.
const LIMIT: u64 = 1024 * 1024;
const POLL: Duration = Duration::from_millis(10);

/// A program that did not do what was asked.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// It cannot be started.
    #[error("run {program}")]
    Start {
        /// Its name.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It said that it failed.
    #[error("{program}: {status}: {said}")]
    Failed {
        /// Its name.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed to standard error, in one line.
        said: String,
    },
    /// It did not end in time, and was ended.
    #[error("{program}: no end within {} s", limit.as_secs())]
    Late {
        /// Its name.
        program: String,
        /// The time that it had.
        limit: Duration,
    },
}

/// Runs a program with its arguments, in the C locale, and gives what it printed to standard output.
///
/// # Errors
/// It cannot be started, fails, or does not end in time.
pub fn output(argv: &[&str], limit: Duration) -> Result<String, ProgramError> {
    let program = argv.first().copied().unwrap_or_default().to_owned();
    let failed = |source| ProgramError::Start { program: program.clone(), source };
    let mut child = Command::new(&program)
        .args(argv.iter().skip(1))
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let printed = child.stdout.take().map(reader);
    let complained = child.stderr.take().map(reader);
    let deadline = Instant::now() + limit;
    let status = loop {
        match child.try_wait().map_err(failed)? {
            Some(status) => break status,
            None if Instant::now() < deadline => thread::sleep(POLL),
            None => {
                // It may have ended just now; waiting for it tells.
                let _ended = child.kill();
                child.wait().map_err(failed)?;
                return Err(ProgramError::Late { program, limit });
            }
        }
    };
    let text =
        |reader: Option<thread::JoinHandle<String>>| reader.and_then(|reader| reader.join().ok()).unwrap_or_default();
    let (printed, complained) = (text(printed), text(complained));
    if status.success() {
        return Ok(printed);
    }
    let said = complained.split_whitespace().collect::<Vec<_>>().join(" ");
    Err(ProgramError::Failed { program, status, said: said.chars().filter(|c| !c.is_control()).take(500).collect() })
}

fn reader(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read until an error is what there is.
        let _read = from.by_ref().take(LIMIT).read_to_end(&mut bytes);
        let _rest = io::copy(&mut from, &mut io::sink());
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_tells_or_fails_or_is_ended() {
        assert_eq!(output(&["echo", "said"], Duration::from_secs(20)).unwrap(), "said\n");
        let failed = output(&["sh", "-c", "echo why >&2; exit 3"], Duration::from_secs(20)).unwrap_err();
        assert!(matches!(&failed, ProgramError::Failed { said, .. } if said == "why"), "{failed}");
        let late = output(&["sleep", "60"], Duration::from_millis(50)).unwrap_err();
        assert!(matches!(late, ProgramError::Late { .. }), "{late}");
        let none = output(&["/no/such/program"], Duration::from_secs(20)).unwrap_err();
        assert!(matches!(none, ProgramError::Start { .. }), "{none}");
    }
}
