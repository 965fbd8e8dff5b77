//! A running `vpnfix trace --format json`, read line by line.

use std::io::{BufRead, BufReader, Read};
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::command::Run;
use crate::scene::Scene;
use crate::wait::DEADLINE;

/// A trace that runs, everything attached.
pub struct Trace {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<Value>,
    stderr: Option<JoinHandle<String>>,
}

/// A trace that has ended.
#[derive(Debug)]
pub struct Traced {
    /// Exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// All lines.
    pub lines: Vec<Value>,
    /// Standard error.
    pub stderr: String,
}

impl Trace {
    /// Starts a trace of the scene's gateway and waits until it is attached.
    pub fn start(scene: &Scene) -> Self {
        Self::start_with(scene, &[])
    }

    /// The same with further arguments.
    ///
    /// # Panics
    ///
    /// If it does not come to its `start` line.
    pub fn start_with(scene: &Scene, further: &[&str]) -> Self {
        let arguments = scene.arguments(&[&["trace", "--format", "json", "--for", "600s"], further].concat());
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Self::of(Run::start(scene.run_dir(), &words))
    }

    /// A trace with `--format json` that was started just now; waits until it is attached.
    ///
    /// # Panics
    ///
    /// If it does not come to its `start` line.
    pub fn of(mut child: Child) -> Self {
        let stdout = child.stdout.take().expect("trace has no standard output");
        let stderr = child.stderr.take().expect("trace has no standard error");
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            let mut stderr = stderr;
            // What cannot be read cannot be shown; the test fails for its own reason then.
            let _ = stderr.read_to_string(&mut text);
            text
        });
        let mut trace = Self { child, lines, seen: Vec::new(), stderr: Some(stderr) };
        trace.wait_for("the start line", |line| line["type"] == "start");
        trace
    }

    /// Waits for the next line that fits; lines passed over are kept for [`Traced::lines`].
    ///
    /// # Panics
    ///
    /// If none comes.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(text) => {
                    let line = parse(&text);
                    self.seen.push(line.clone());
                    if fits(&line) {
                        return line;
                    }
                }
                Err(error) => {
                    let _ = self.child.kill();
                    let stderr = self.stderr.take().and_then(|reader| reader.join().ok()).unwrap_or_default();
                    let ended = matches!(error, RecvTimeoutError::Disconnected);
                    panic!("{what}: not seen (trace ended: {ended})\nlines: {:#?}\nstderr:\n{stderr}", self.seen);
                }
            }
        }
    }

    /// The lines read so far.
    pub fn seen(&self) -> &[Value] {
        &self.seen
    }

    /// Ends the trace with SIGINT, as Ctrl-C does, and reads it to its end.
    ///
    /// # Panics
    ///
    /// If it does not end.
    pub fn stop(mut self) -> Traced {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(pid), Signal::SIGINT).expect("the trace is gone");
        let deadline = Instant::now() + DEADLINE;
        while let Ok(text) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.seen.push(parse(&text));
        }
        if Instant::now() >= deadline {
            let _ = self.child.kill();
            panic!("the trace did not end on SIGINT");
        }
        let status = self.child.wait().expect("the trace could not be waited for");
        let stderr = self.stderr.take().and_then(|reader| reader.join().ok()).unwrap_or_default();
        Traced { status: status.code(), lines: std::mem::take(&mut self.seen), stderr }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("no JSON line: {error}: {text}"))
}

impl Traced {
    /// Checks the exit status.
    ///
    /// # Panics
    ///
    /// If it is another.
    #[track_caller]
    pub fn ends(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "{self:#?}");
        self
    }

    /// The last line.
    ///
    /// # Panics
    ///
    /// If it is no summary.
    #[track_caller]
    pub fn summary(&self) -> &Value {
        let last = self.lines.last().expect("the trace wrote nothing");
        assert_eq!(last["type"], "summary", "the last line is no summary: {self:#?}");
        last
    }

    /// Sum of the counts in the summary's list `of` (`lookups` or `packets`) of one prefix, over the entries that fit.
    #[track_caller]
    pub fn count(&self, of: &str, prefix: &str, fits: impl Fn(&Value) -> bool) -> u64 {
        let entries = self.summary()[of].as_array().unwrap_or_else(|| panic!("no {of} in {self:#?}"));
        let own = entries.iter().filter(|entry| entry["prefix"] == prefix && fits(entry));
        own.map(|entry| entry["count"].as_u64().unwrap_or_else(|| panic!("no count in {entry}"))).sum()
    }

    /// Final output lookups of one prefix; all tables and devices, without vpnfix's own probes.
    #[track_caller]
    pub fn output_lookups(&self, prefix: &str) -> u64 {
        self.count("lookups", prefix, |e| e["kind"] == "output" && e["final"] == true && e["probe"] == false)
    }

    /// The verdict on a prefix.
    #[track_caller]
    pub fn verdict(&self, prefix: &str) -> String {
        let verdicts = self.summary()["verdicts"].as_array().unwrap_or_else(|| panic!("no verdicts in {self:#?}"));
        let own = verdicts.iter().find(|verdict| verdict["prefix"] == prefix);
        own.and_then(|v| v["verdict"].as_str()).map_or_else(|| "none".to_owned(), str::to_owned)
    }

    /// Checks that nothing was lost.
    ///
    /// # Panics
    ///
    /// If a counter of lost records is not zero.
    #[track_caller]
    pub fn lost_nothing(&self) {
        let lost = self.summary()["lost"].as_object().unwrap_or_else(|| panic!("no lost in {self:#?}"));
        assert!(lost.values().all(|n| n == 0), "records were lost: {lost:#?}");
    }
}
