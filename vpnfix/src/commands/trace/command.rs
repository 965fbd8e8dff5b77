//! The command that is traced while it runs.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::commands::failure::Failure;
use crate::core::report::trace::CommandReport;
use crate::system::terminal;

/// A command that runs.
pub struct Running {
    child: Child,
    words: Vec<String>,
    pid: u32,
}

impl Running {
    /// Starts it in the namespace that this thread is in. `apart`: what it prints goes to standard error, so that standard
    /// output holds nothing but documents.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(words: &[OsString], apart: bool) -> Result<Option<Self>, Failure> {
        let Some((program, arguments)) = words.split_first() else { return Ok(None) };
        let told: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let what = format!("start {}", told.first().map_or("the command", String::as_str));
        let mut command = Command::new(program);
        command.args(arguments);
        if apart {
            let stderr = nix::unistd::dup(std::io::stderr()).map_err(|error| Failure::of(&what, &error))?;
            command.stdout(Stdio::from(stderr));
        }
        let child = command.spawn().map_err(|error| Failure::of(&what, &error))?;
        let pid = child.id().unwrap_or(0);
        Ok(Some(Self { child, words: told, pid }))
    }

    /// Waits for its end. May be cancelled.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub async fn end(&mut self) -> Result<CommandReport, Failure> {
        let status = self.child.wait().await.map_err(|error| Failure::of("wait for the command", &error))?;
        Ok(self.report(status))
    }

    /// Passes a signal on. Ctrl-C at the terminal reaches the command by itself: it is in the same group of processes.
    pub fn forward(&self, signal: Signal) {
        if signal == Signal::SIGINT && terminal::is_foreground() {
            return;
        }
        self.signal(signal);
    }

    /// Ends it, as the trace ends before it: SIGTERM, and waiting.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub async fn finish(&mut self) -> Result<CommandReport, Failure> {
        self.signal(Signal::SIGTERM);
        self.end().await
    }

    fn signal(&self, signal: Signal) {
        // Not yet waited for, so the number is still its own; without one it has ended.
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    fn report(&self, status: ExitStatus) -> CommandReport {
        CommandReport { words: self.words.clone(), pid: self.pid, status: status.code(), signal: status.signal() }
    }
}
