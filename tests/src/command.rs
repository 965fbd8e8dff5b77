//! Running the vpnfix binary from outside.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::wait;

/// The binary: `VPNFIX_BIN`, or what cargo built beside the test.
///
/// # Panics
///
/// If there is none.
pub fn binary() -> PathBuf {
    if let Some(path) = env::var_os("VPNFIX_BIN") {
        return PathBuf::from(path);
    }
    let test = env::current_exe().expect("the test does not know its own file");
    let beside =
        test.ancestors().nth(2).map(|folder| folder.join("vpnfix")).expect("the test lies in no target folder");
    assert!(beside.is_file(), "no {}: run `cargo build` first, or set VPNFIX_BIN", beside.display());
    beside
}

/// Copies a program to where anybody may run it. By a process of its own: a descriptor open for writing in this one would go to
/// whatever another test starts just then, and as long as one is open nobody can run the copy (`ETXTBSY`, execve(2)).
///
/// # Panics
///
/// If it cannot be copied.
pub fn copy_program(from: &Path, to: &Path) {
    let done = Command::new("install").args(["-m", "755"]).args([from, to]).status();
    assert!(done.is_ok_and(|status| status.success()), "{} could not be copied", from.display());
}

/// A finished run of vpnfix.
#[derive(Debug)]
pub struct Run {
    /// The arguments, for messages.
    pub arguments: Vec<String>,
    /// Exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Run {
    /// Starts the binary with its own run folder.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn start(run_dir: &Path, arguments: &[&str]) -> Child {
        prepared(&binary(), run_dir, arguments).spawn().expect("vpnfix could not be started")
    }

    /// Runs the binary to its end.
    pub fn new(run_dir: &Path, arguments: &[&str]) -> Self {
        Self::finish(Self::start(run_dir, arguments), arguments)
    }

    /// Runs a prepared command to its end.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn of(mut command: Command, arguments: &[&str]) -> Self {
        Self::finish(command.spawn().expect("vpnfix could not be started"), arguments)
    }

    /// Waits for the end of a started run.
    ///
    /// # Panics
    ///
    /// If it does not come.
    pub fn finish(child: Child, arguments: &[&str]) -> Self {
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
        let reader = thread::spawn(move || child.wait_with_output());
        let deadline = Instant::now() + wait::DEADLINE;
        while !reader.is_finished() {
            if Instant::now() > deadline {
                // Not yet waited for, so the number is still its own. The lab takes itself down on this signal.
                let _ = kill(pid, Signal::SIGTERM);
                panic!("vpnfix {}: no end within {} s", arguments.join(" "), wait::DEADLINE.as_secs());
            }
            thread::sleep(Duration::from_millis(5));
        }
        let output = reader.join().expect("the reader panicked").expect("vpnfix could not be waited for");
        Self {
            arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
            status: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Checks the exit status and shows everything if it is another.
    ///
    /// # Panics
    ///
    /// If it is another.
    #[track_caller]
    pub fn ends(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "{self}");
        self
    }

    /// Checks that standard error is one clear error line: `vpnfix: …`, and at most a second one that says what to do.
    ///
    /// # Panics
    ///
    /// If it is not.
    #[track_caller]
    pub fn tells_an_error(self) -> Self {
        let lines: Vec<&str> = self.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
        assert!(lines.first().is_some_and(|line| line.starts_with("vpnfix: ")), "no clear error line\n{self}");
        assert!(lines.len() <= 2, "more than an error and an advice\n{self}");
        assert!(!self.stderr.contains("panicked"), "{self}");
        self
    }

    /// Standard output as one JSON document.
    ///
    /// # Panics
    ///
    /// If it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON document: {error}\n{self}"))
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { arguments, status, stdout, stderr } = self;
        write!(f, "vpnfix {}\nstatus: {status:?}\nstdout:\n{stdout}\nstderr:\n{stderr}", arguments.join(" "))
    }
}

/// A command with its own run folder, and pipes to read it by.
pub fn prepared(binary: &Path, run_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary);
    command
        .args(arguments)
        .env("VPNFIX_RUN_DIR", run_dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}
