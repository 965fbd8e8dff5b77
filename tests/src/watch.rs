//! A running `vpnfix watch --format json`, read line by line.

use std::fs;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::command::{binary, prepared};
use crate::scene::Scene;
use crate::traffic;
use crate::wait::DEADLINE;

/// Port of the metrics in the gateway's namespace.
pub const METRICS: u16 = 9779;

/// A watch that runs, everything attached.
pub struct Watch {
    child: Child,
    gateway: String,
    lines: Receiver<String>,
    /// All lines so far.
    pub seen: Vec<Value>,
    stderr: Option<JoinHandle<String>>,
}

/// A watch that has ended.
#[derive(Debug)]
pub struct Watched {
    /// Exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// All lines.
    pub lines: Vec<Value>,
    /// Standard error.
    pub stderr: String,
}

impl Watch {
    /// Starts one that repairs, with its incidents in the scene's run folder and its metrics in the gateway's namespace.
    pub fn fixing(scene: &Scene, further: &[&str]) -> Self {
        Self::start(scene, &[&["--fix"], further].concat(), &[])
    }

    /// Starts one with these options and variables.
    ///
    /// # Panics
    ///
    /// If it does not come to its `start` line.
    pub fn start(scene: &Scene, further: &[&str], variables: &[(&str, &str)]) -> Self {
        let incidents = scene.run_dir().join("incidents");
        let incidents = incidents.to_str().expect("a path in UTF-8");
        let metrics = format!("127.0.0.1:{METRICS}");
        let own = ["watch", "--format", "json", "--incidents", incidents, "--metrics", &metrics];
        let arguments = scene.arguments(&[&own, further].concat());
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command = prepared(&binary(), scene.run_dir(), &words);
        command.envs(variables.iter().copied());
        let mut child = command.spawn().expect("vpnfix could not be started");
        let stdout = child.stdout.take().expect("no standard output");
        let mut stderr = child.stderr.take().expect("no standard error");
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
            // What cannot be read cannot be shown; the test fails for its own reason then.
            let _ = stderr.read_to_string(&mut text);
            text
        });
        let mut watch = Self { child, gateway: scene.gw(), lines, seen: Vec::new(), stderr: Some(stderr) };
        watch.wait_for("the start line", |line| line["type"] == "start");
        watch
    }

    /// Waits for the next line that fits.
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
                    panic!("{what}: not seen (watch ended: {ended})\nlines: {:#?}\nstderr:\n{stderr}", self.seen);
                }
            }
        }
    }

    /// Waits until a tunnel comes to a state.
    #[track_caller]
    pub fn wait_state(&mut self, tunnel: &str, state: &str) -> Value {
        self.wait_for(&format!("{tunnel} {state}"), |line| {
            line["type"] == "state" && line["tunnel"] == tunnel && line["to"] == state
        })
    }

    /// Waits for a repair with this outcome.
    #[track_caller]
    pub fn wait_repair(&mut self, outcome: &str) -> Value {
        self.wait_for(&format!("repair {outcome}"), |line| line["type"] == "repair" && line["outcome"] == outcome)
    }

    /// Its process id.
    ///
    /// # Panics
    ///
    /// If it is none.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id")
    }

    /// Sends it a signal.
    ///
    /// # Panics
    ///
    /// If it is gone.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("the watch is gone");
    }

    /// What is in /proc/PID/status under this name.
    ///
    /// # Panics
    ///
    /// If it is gone.
    pub fn status(&self, name: &str) -> String {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the watch is gone");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name}")).trim().to_owned()
    }

    /// How many descriptors it has open.
    ///
    /// # Panics
    ///
    /// If it is gone.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the watch is gone").count()
    }

    /// Resident memory in kilobytes.
    ///
    /// # Panics
    ///
    /// If it is not told.
    pub fn resident(&self) -> u64 {
        self.status("VmRSS").split_whitespace().next().and_then(|kb| kb.parse().ok()).expect("a number of kB")
    }

    /// An HTTP request's answer, head and body.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn http(&self, request: &str) -> (String, String) {
        let answer = traffic::inside(&self.gateway, || {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, METRICS)).expect("metrics are not served");
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
            stream.write_all(request.as_bytes()).expect("the request could not be sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("no answer");
            answer
        });
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        (head.to_owned(), body.to_owned())
    }

    /// The metrics.
    pub fn metrics(&self) -> String {
        let (head, body) = self.http("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        body
    }

    /// Ends it as systemd does, and reads it to its end.
    ///
    /// # Panics
    ///
    /// If it does not end.
    pub fn stop(mut self) -> Watched {
        self.signal(Signal::SIGTERM);
        let deadline = Instant::now() + DEADLINE;
        while let Ok(text) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.seen.push(parse(&text));
        }
        if Instant::now() >= deadline {
            let _ = self.child.kill();
            panic!("the watch did not end on SIGTERM: {:#?}", self.seen);
        }
        let status = self.child.wait().expect("the watch could not be waited for");
        let stderr = self.stderr.take().and_then(|reader| reader.join().ok()).unwrap_or_default();
        Watched { status: status.code(), lines: std::mem::take(&mut self.seen), stderr }
    }

    /// Ends it as nothing else does.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("no JSON line: {error}: {text}"))
}

impl Watched {
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
        let last = self.lines.last().expect("the watch wrote nothing");
        assert_eq!(last["type"], "summary", "{self:#?}");
        last
    }

    /// The lines of a type.
    pub fn of_type<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.lines.iter().filter(move |line| line["type"] == kind)
    }
}

/// The value of a metric with these labels, as it stands in the text; none if it is not there.
pub fn metric(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}
