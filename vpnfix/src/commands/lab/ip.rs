//! The one way the lab configures networks: iproute2 in batches.
//!
//! A process start costs 0.3 s in an emulated guest, so whole lists of commands go to one `ip -b -` on its standard
//! input. Standard input is also where the SAs' keys stay unseen by other processes.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use super::program::{self, MissingProgram};

/// Why iproute2 did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum IpError {
    /// iproute2 is not installed.
    #[error(transparent)]
    Missing(#[from] MissingProgram),
    /// The program could not be run.
    #[error("run `{command}`")]
    Run {
        /// What was to be run.
        command: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// iproute2 refused a line. A line that holds a key is told without it.
    #[error("`{command}`: {message}")]
    Refused {
        /// The line, as a command.
        command: String,
        /// iproute2's first line on standard error.
        message: String,
    },
    /// iproute2's JSON is not what it should be.
    #[error("read what `{command}` says")]
    Json {
        /// The command.
        command: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// What a batch applies to.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// The namespace that vpnfix was started in; only for making and removing namespaces, and links inside them.
    Host,
    /// A named namespace.
    Netns(&'a str),
    /// A named namespace, IPv6.
    Netns6(&'a str),
}

impl Target<'_> {
    fn options(self) -> Vec<String> {
        match self {
            Self::Host => Vec::new(),
            Self::Netns(name) => vec!["-n".to_owned(), name.to_owned()],
            Self::Netns6(name) => vec!["-6".to_owned(), "-n".to_owned(), name.to_owned()],
        }
    }
}

/// A line of a batch.
struct Line {
    text: String,
    /// How the line is told where the text must not be seen.
    told: Option<String>,
}

/// Commands for one `ip -b -`.
#[derive(Default)]
pub struct Batch {
    lines: Vec<Line>,
}

impl Batch {
    /// Adds a command, without the leading `ip`.
    pub fn line(&mut self, text: impl Into<String>) {
        self.lines.push(Line { text: text.into(), told: None });
    }

    /// Adds a command that holds a key; messages name it as `told`.
    pub fn secret(&mut self, text: String, told: impl Into<String>) {
        self.lines.push(Line { text, told: Some(told.into()) });
    }

    /// What goes to `ip`'s standard input.
    fn input(&self) -> String {
        self.lines.iter().flat_map(|line| [line.text.as_str(), "\n"]).collect()
    }
}

/// iproute2.
#[derive(Debug, Clone)]
pub struct Ip {
    program: PathBuf,
}

impl Ip {
    /// Finds iproute2.
    pub fn find() -> Result<Self, IpError> {
        Ok(Self { program: program::ip()? })
    }

    /// The program's file.
    pub fn program(&self) -> &PathBuf {
        &self.program
    }

    /// Runs a batch; it ends at the first line that is refused.
    pub fn apply(&self, target: Target<'_>, batch: &Batch) -> Result<(), IpError> {
        let output = self.feed(target, &["-b", "-"], batch)?;
        if output.status.success() { Ok(()) } else { Err(refusal(target, batch, &output)) }
    }

    /// Runs every line of a batch, also after one that is refused. For removals, where the caller looks afterwards
    /// at what is still there.
    pub fn apply_all(&self, target: Target<'_>, batch: &Batch) -> Result<(), IpError> {
        self.feed(target, &["-force", "-b", "-"], batch).map(|_| ())
    }

    /// Asks, and reads the JSON answer.
    pub fn json(&self, target: Target<'_>, question: &[&str]) -> Result<serde_json::Value, IpError> {
        let command = told(target, &question.join(" "));
        let run = |source| IpError::Run { command: command.clone(), source };
        let output = Command::new(&self.program)
            .args(target.options())
            .arg("-j")
            .args(question)
            .stdin(Stdio::null())
            .output()
            .map_err(run)?;
        if !output.status.success() {
            return Err(IpError::Refused { message: first_line(&output.stderr), command });
        }
        serde_json::from_slice(&output.stdout).map_err(|source| IpError::Json { command, source })
    }

    fn feed(&self, target: Target<'_>, mode: &[&str], batch: &Batch) -> Result<Output, IpError> {
        let run = |source| IpError::Run { command: told(target, "-b -"), source };
        let mut child = Command::new(&self.program)
            .args(target.options())
            .args(mode)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(run)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A batch is a few KiB, less than a pipe holds. An `ip` that stopped reading says why on standard error.
            let _ = stdin.write_all(batch.input().as_bytes());
        }
        child.wait_with_output().map_err(run)
    }
}

fn told(target: Target<'_>, text: &str) -> String {
    let mut words = vec!["ip".to_owned()];
    words.extend(target.options());
    words.push(text.to_owned());
    words.join(" ")
}

/// Finds the refused line by iproute2's own `Command failed -:NUMBER`.
fn refusal(target: Target<'_>, batch: &Batch, output: &Output) -> IpError {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let line = failed_line(&stderr).and_then(|number| batch.lines.get(number.checked_sub(1)?));
    match line {
        Some(Line { told: Some(hidden), .. }) => {
            IpError::Refused { command: told(target, hidden), message: without_keys(&first_line(&output.stderr)) }
        }
        Some(Line { text, told: None }) => {
            IpError::Refused { command: told(target, text), message: first_line(&output.stderr) }
        }
        None => IpError::Refused { command: told(target, "-b -"), message: without_keys(&first_line(&output.stderr)) },
    }
}

fn failed_line(stderr: &str) -> Option<usize> {
    let tail = stderr.lines().find_map(|line| line.strip_prefix("Command failed -:"))?;
    tail.trim().parse().ok()
}

fn first_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
    line.trim_start_matches("Error: ").trim_end_matches('.').to_owned()
}

/// Blots out everything that could be a key in a message that might quote its line.
fn without_keys(message: &str) -> String {
    let hex = |word: &str| word.chars().filter(char::is_ascii_hexdigit).count() >= 16;
    let words = message.split_whitespace().map(|word| if hex(word) { "(hidden)" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{ExitStatus, Output};

    use super::{Batch, Target, refusal};

    fn refused(batch: &Batch, stderr: &str) -> String {
        let output = Output { status: ExitStatus::from_raw(256), stdout: Vec::new(), stderr: stderr.into() };
        refusal(Target::Netns("x-cgw"), batch, &output).to_string()
    }

    #[test]
    fn the_failing_line_is_named_with_ips_message() {
        let mut batch = Batch::default();
        batch.line("link set lo up");
        batch.line("link add d0 type dummy");
        let told = refused(&batch, "Error: Unknown device type.\nCommand failed -:2\n");
        assert_eq!(told, "`ip -n x-cgw link add d0 type dummy`: Unknown device type");
    }

    #[test]
    fn a_key_is_in_no_message() {
        let key = "0x00112233445566778899aabbccddeeff";
        let mut batch = Batch::default();
        batch.secret(format!("xfrm state add enc aes {key}"), "xfrm state add");
        let told = refused(&batch, &format!("Error: argument \"{key}\" is wrong\nCommand failed -:1\n"));
        assert_eq!(told, "`ip -n x-cgw xfrm state add`: argument (hidden) is wrong");
        let told = refused(&batch, &format!("what is {key}?\n"));
        assert!(!told.contains("aabbccdd"), "{told}");
    }
}
