//! Running another program for its answer: no shell, bounded in time and in what is read.

use std::io::{self, Read as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

/// Between two looks at whether it has ended.
const TICK: Duration = Duration::from_millis(5);

/// A program that gave no answer.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// It could not be started; most often it is not installed.
    #[error("run {name}")]
    Start {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It took too long, and was ended.
    #[error("{name} gave no answer within {} s", .patience.as_secs())]
    TimedOut {
        /// Its name.
        name: String,
        /// So long was waited.
        patience: Duration,
    },
    /// It failed.
    #[error("{name} failed ({status}): {said}")]
    Failed {
        /// Its name.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// The first line of what it said to standard error.
        said: String,
    },
    /// It said more than is read.
    #[error("{name} said more than {most} bytes")]
    TooMuch {
        /// Its name.
        name: String,
        /// So much is read.
        most: usize,
    },
}

/// How much of a program is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Time.
    pub patience: Duration,
    /// Bytes of standard output.
    pub most: usize,
}

/// Runs it, with nothing on its standard input, and gives its standard output. Its environment says no locale and no pager.
///
/// # Errors
/// It cannot be started, fails, or does not keep the bounds; then it is killed.
pub fn output(name: &str, arguments: &[&str], bounds: Bounds) -> Result<String, ProgramError> {
    let mut child = Command::new(name)
        .args(arguments)
        .env("LC_ALL", "C")
        .env("VTYSH_PAGER", "cat")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| ProgramError::Start { name: name.into(), source })?;
    let result = answer(name, &mut child, bounds);
    if result.is_err() {
        // Whatever became of it, it must not stay; killing one that has ended is refused and harmless.
        let _gone = child.kill();
    }
    let _reaped = child.wait();
    result
}

fn answer(name: &str, child: &mut Child, bounds: Bounds) -> Result<String, ProgramError> {
    let deadline = Instant::now() + bounds.patience;
    let timed_out = || ProgramError::TimedOut { name: name.into(), patience: bounds.patience };
    let said = reader(child.stdout.take(), bounds.most + 1);
    let complained = reader(child.stderr.take(), 4096);
    // Its own children may hold the pipe open after it has ended: the time bounds that too.
    let bytes = said.recv_timeout(bounds.patience).map_err(|_late| timed_out())?;
    if bytes.len() > bounds.most {
        return Err(ProgramError::TooMuch { name: name.into(), most: bounds.most });
    }
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => thread::sleep(TICK),
            Ok(None) => return Err(timed_out()),
            Err(source) => return Err(ProgramError::Start { name: name.into(), source }),
        }
    };
    if !status.success() {
        let left = deadline.saturating_duration_since(Instant::now());
        let text = complained.recv_timeout(left).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let line = text.lines().map(str::trim).find(|line| !line.is_empty());
        let said = line.unwrap_or("it did not say why").chars().filter(|c| !c.is_control()).collect();
        return Err(ProgramError::Failed { name: name.into(), status, said });
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads up to so many bytes on a thread of its own: the other pipe must not fill meanwhile.
fn reader(pipe: Option<impl io::Read + Send + 'static>, most: usize) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // What came until an error is what there is.
            let _end = pipe.take(u64::try_from(most).unwrap_or(u64::MAX)).read_to_end(&mut bytes);
        }
        let _gone = sender.send(bytes);
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { patience: Duration::from_secs(20), most: 100 };

    #[test]
    fn its_answer_is_read() {
        assert_eq!(output("printf", &["%s;%s", "a b", "$(id)"], BOUNDS).unwrap(), "a b;$(id)");
        assert!(matches!(output("vpnfix-no-such-program", &[], BOUNDS), Err(ProgramError::Start { .. })));
        let Err(ProgramError::Failed { said, .. }) = output("ls", &["/no/such/file"], BOUNDS) else { panic!() };
        assert!(said.contains("/no/such/file"), "{said}");
    }

    #[test]
    fn neither_time_nor_size_is_without_bounds() {
        let brief = Bounds { patience: Duration::from_millis(50), ..BOUNDS };
        let begun = Instant::now();
        assert!(matches!(output("sleep", &["60"], brief), Err(ProgramError::TimedOut { .. })));
        assert!(matches!(output("yes", &[], BOUNDS), Err(ProgramError::TooMuch { .. })));
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}
