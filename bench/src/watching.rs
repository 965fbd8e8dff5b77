//! A `vpnfix watch --fix --format json` and its lines.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{part::Bench, process::Running, scene::TUNNEL};

/// How long a line may take to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// Repairs as often as it is asked to; the guard against storms and fights would end the measurement.
const CONFIGURATION: &str = "\
tunnels = [\"vti1\"]
[watch.limits]
repairs = 10000
window = \"1s\"
pause = \"1ms\"
longest-pause = \"2ms\"
fight-after = 10000
calm = \"1s\"
[watch.incidents]
keep = 0
";

/// How the kernel schedules it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduling {
    /// As everything else.
    Ordinary,
    /// Before everything ordinary (`SCHED_RR`), as a unit with `CPUSchedulingPolicy=rr` is.
    RealTime,
}

impl Scheduling {
    fn applied(self, vpnfix: Command) -> Command {
        if self == Self::Ordinary {
            return vpnfix;
        }
        let mut command = Command::new("chrt");
        command.args(["--rr", "1"]).arg(vpnfix.get_program()).args(vpnfix.get_args());
        for (name, value) in vpnfix.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command
    }
}

/// A watch that repairs.
pub struct Watching {
    running: Running,
    lines: Receiver<Value>,
    errors: PathBuf,
}

impl Watching {
    /// Starts it and waits until it has judged the tunnel healthy.
    pub fn start(bench: &Bench, scheduling: Scheduling) -> Result<Self> {
        let configuration = bench.scratch().join("watch.toml");
        fs::write(&configuration, CONFIGURATION).with_context(|| format!("write {}", configuration.display()))?;
        let errors = bench.scratch().join("errors");
        let mut command = scheduling.applied(bench.vpnfix_with(&configuration));
        command.args(["--format", "json", "watch", "--fix"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(File::create(&errors).context("create a file for errors")?);
        let mut running = Running::start(&mut command)?;
        let output = BufReader::new(running.stdout().context("no pipe from its standard output")?);
        let (sender, lines) = channel();
        thread::spawn(move || {
            let lines = output.lines().map_while(Result::ok);
            for line in lines.filter_map(|line| serde_json::from_str(&line).ok()) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let watching = Self { running, lines, errors };
        watching.wait_for("the start", |line| line["type"] == "start")?;
        watching.wait_state("healthy")?;
        Ok(watching)
    }

    /// Waits for the tunnel to come to a state.
    pub fn wait_state(&self, state: &str) -> Result<Value> {
        self.wait_for(state, |line| line["type"] == "state" && line["tunnel"] == TUNNEL && line["to"] == state)
    }

    /// Waits for a line that fits.
    pub fn wait_for(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            let line = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let line = line.with_context(|| {
                let errors = fs::read_to_string(&self.errors).unwrap_or_default();
                format!("vpnfix watch: {what}: not seen\n{errors}\n{seen:?}")
            })?;
            if fits(&line) {
                return Ok(line);
            }
            seen.push(line);
        }
    }

    /// Ends it.
    pub fn stop(self) -> Result<Duration> {
        self.running.stop()
    }
}
