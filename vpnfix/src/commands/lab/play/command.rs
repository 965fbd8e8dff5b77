//! Running a command as the user would, with a deadline, and showing it.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{interrupt, say};

/// No command of the play takes this long, emulated machines included.
const DEADLINE: Duration = Duration::from_secs(300);
/// How long a command may take to end in order when it is broken off.
const END_WITHIN: Duration = Duration::from_secs(5);

/// A finished command.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// A command that does not outlive the thread that starts it, even where that is killed: a play that is gone must leave
/// no ping behind in its namespaces.
pub fn mortal(program: &Path) -> Command {
    let mut command = Command::new(program);
    // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe and allocates nothing.
    unsafe {
        command.pre_exec(|| set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from));
    }
    command
}

/// Runs a program to its end.
pub fn run(program: &Path, arguments: &[String], environment: &[(&str, &Path)]) -> anyhow::Result<Finished> {
    let mut child = mortal(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {}", program.display()))?;
    let stdout = child.stdout.take().map(read_all);
    let stderr = child.stderr.take().map(read_all);
    let status = wait(&mut child)?;
    Ok(Finished { status: status.code(), stdout: collect(stdout), stderr: collect(stderr) })
}

fn read_all(mut pipe: impl Read + Send + 'static) -> JoinHandle<io::Result<String>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    })
}

fn collect(reader: Option<JoinHandle<io::Result<String>>>) -> String {
    // What could not be read cannot be shown; the checks do not rest on it.
    reader.and_then(|reader| reader.join().ok()).and_then(Result::ok).unwrap_or_default()
}

fn wait(child: &mut Child) -> anyhow::Result<ExitStatus> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().context("wait for a command")? {
            return Ok(status);
        }
        if interrupt::came() {
            end(child);
            bail!("interrupted");
        }
        if Instant::now() > deadline {
            end(child);
            bail!("no end after {} s", DEADLINE.as_secs());
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Ends a command in order, or not in order if that takes too long.
pub fn end(child: &mut Child) {
    let deadline = Instant::now() + END_WITHIN;
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    while Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
        thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Shows a command line as one would type it.
pub fn show_line(name: &str, arguments: &[String]) {
    say(&format!("\n    $ {name} {}", arguments.join(" ")));
}

/// Shows what a command wrote.
pub fn show_output(finished: &Finished) {
    for line in finished.stdout.lines().chain(finished.stderr.lines()).filter(|line| !line.trim().is_empty()) {
        say(&format!("      {line}"));
    }
}
