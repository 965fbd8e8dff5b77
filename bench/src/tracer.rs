//! The programs that are compared: each is started as its users start it, and waited for until it traces.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    floor::Floor,
    load::{self, Family},
    part::Bench,
    process::{self, Running, wait_until},
    scene::TUNNEL,
    statistics::{self, Kept},
};

/// How long one may take to be ready; bpftrace compiles first.
const PATIENCE: Duration = Duration::from_secs(30);
/// A tracer rests if it takes no more than a fiftieth of so long.
const REST: Duration = Duration::from_millis(100);
/// Between two looks whether it is ready.
const PAUSE: Duration = Duration::from_micros(500);

/// What traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracer {
    /// Empty programs at the same hooks.
    Floor,
    /// `vpnfix watch`: counts by key.
    Watch,
    /// `vpnfix trace`: counts by key and by flow, with all hooks.
    Trace,
    /// bpftrace, counting by table.
    BpftraceCount,
    /// bpftrace, printing a line a lookup.
    BpftracePrint,
    /// `perf trace`, printing a line a lookup.
    PerfTrace,
    /// `perf record`.
    PerfRecord,
    /// `trace-cmd record`.
    TraceCmd,
}

impl Tracer {
    /// All.
    pub const ALL: [Self; 8] = [
        Self::Floor,
        Self::Watch,
        Self::Trace,
        Self::BpftraceCount,
        Self::BpftracePrint,
        Self::PerfTrace,
        Self::PerfRecord,
        Self::TraceCmd,
    ];

    /// As it is named in tables.
    pub fn told(self) -> &'static str {
        match self {
            Self::Floor => "empty programs",
            Self::Watch => "`vpnfix watch`",
            Self::Trace => "`vpnfix trace`",
            Self::BpftraceCount => "bpftrace, count by table",
            Self::BpftracePrint => "bpftrace, print each",
            Self::PerfTrace => "`perf trace`",
            Self::PerfRecord => "`perf record`",
            Self::TraceCmd => "`trace-cmd record`",
        }
    }

    /// Does it tell watched traffic from other?
    pub fn is_vpnfix(self) -> bool {
        matches!(self, Self::Watch | Self::Trace)
    }

    /// Does it run as BPF programs, which the kernel keeps statistics of?
    pub fn is_bpf(self) -> bool {
        !matches!(self, Self::PerfTrace | Self::PerfRecord | Self::TraceCmd)
    }

    /// Starts it and waits until it traces. The statistics are off afterwards.
    pub fn start(self, bench: &Bench, family: Family) -> Result<Session> {
        if self == Self::Floor {
            let nothing = Duration::ZERO;
            return Ok(Session {
                floor: Some(Floor::lay()?),
                running: None,
                _event: None,
                ready_after: nothing,
                ready_cost: nothing,
            });
        }
        let command = self.command(bench, family)?;
        self.run(bench, family, command).with_context(|| format!("run {}", self.told()))
    }

    fn run(self, bench: &Bench, family: Family, mut command: Command) -> Result<Session> {
        // trace-cmd switches this on when it records.
        let switch = match family {
            Family::V4 => "/sys/kernel/tracing/events/fib/enable",
            Family::V6 => "/sys/kernel/tracing/events/fib6/enable",
        };
        let ready_file = bench.scratch().join("ready");
        if self == Self::Trace {
            // One that was killed may have left it.
            let _absent = fs::remove_file(&ready_file);
        }
        let event = (self == Self::TraceCmd).then(|| EventSwitch::off(switch)).transpose()?;
        let errors = bench.scratch().join("errors");
        command.stdin(Stdio::null());
        command.stdout(if self == Self::Watch { Stdio::piped() } else { Stdio::null() });
        command.stderr(File::create(&errors).context("create a file for errors")?);
        let begun = Instant::now();
        let mut running = Running::start(&mut command)?;
        let ready = match self {
            Self::Watch => wait_for_line(&mut running),
            Self::Trace => wait_while_running(&mut running, || Ok(ready_file.exists())),
            Self::TraceCmd => {
                wait_while_running(&mut running, || Ok(fs::read_to_string(switch).is_ok_and(|on| on.trim() == "1")))
            }
            Self::PerfTrace | Self::PerfRecord => wait_for_perf(&mut running, bench.processors),
            _ => wait_for_run(&mut running),
        };
        let (ready_after, ready_cost) = (begun.elapsed(), process::cpu_time(running.pid()));
        ready.with_context(|| fs::read_to_string(&errors).unwrap_or_default().trim().to_owned())?;
        Ok(Session { floor: None, running: Some(running), _event: event, ready_after, ready_cost })
    }

    fn command(self, bench: &Bench, family: Family) -> Result<Command> {
        let (group, event, destination) = match family {
            Family::V4 => ("fib", "fib_table_lookup", "ntop(args->dst)"),
            Family::V6 => ("fib6", "fib6_table_lookup", "ntop(args->dst)"),
        };
        let probe = format!("tracepoint:{group}:{event}");
        Ok(match self {
            Self::Floor => bail!("nothing is started for the floor"),
            Self::Watch => {
                let mut command = bench.vpnfix();
                command.args(["--tunnel", TUNNEL, "--format", "json", "watch", "--incidents"]);
                command.arg(bench.scratch().join("incidents"));
                command
            }
            Self::Trace => {
                let mut command = bench.vpnfix();
                command.args(["--tunnel", TUNNEL, "trace", "--plain", "--ready-file"]);
                command.arg(bench.scratch().join("ready"));
                command
            }
            Self::BpftraceCount => {
                let mut command = bench.tools.command("bpftrace")?;
                command.args(["-e", &format!("{probe} {{ @[args->tb_id] = count(); }}")]);
                command
            }
            Self::BpftracePrint => {
                let mut command = bench.tools.command("bpftrace")?;
                command.args(["-e", &format!("{probe} {{ printf(\"%d %s\\n\", args->tb_id, {destination}); }}")]);
                command
            }
            Self::PerfTrace => {
                let mut command = bench.tools.command("perf")?;
                command.args(["trace", "--all-cpus", "--event", &format!("{group}:{event}"), "--output", "/dev/null"]);
                command
            }
            Self::PerfRecord => {
                let mut command = bench.tools.command("perf")?;
                command.args(["record", "--all-cpus", "--event", &format!("{group}:{event}"), "--output"]);
                command.arg(bench.scratch().join("perf.data"));
                command
            }
            Self::TraceCmd => {
                let mut command = bench.tools.command("trace-cmd")?;
                command.args(["record", "-e", &format!("{group}:{event}"), "-o"]);
                command.arg(bench.scratch().join("trace.dat"));
                command
            }
        })
    }
}

/// A tracing event that trace-cmd switches on, and leaves on where it comes to a bad end: it is off before and after.
struct EventSwitch(&'static str);

impl EventSwitch {
    fn off(path: &'static str) -> Result<Self> {
        fs::write(path, "0").with_context(|| format!("write {path}"))?;
        Ok(Self(path))
    }
}

impl Drop for EventSwitch {
    fn drop(&mut self) {
        if let Err(error) = fs::write(self.0, "0") {
            eprintln!("bench: {} stays on: {error}", self.0);
        }
    }
}

/// A tracer that traces.
pub struct Session {
    floor: Option<Floor>,
    running: Option<Running>,
    _event: Option<EventSwitch>,
    /// From its start until it traced.
    pub ready_after: Duration,
    /// Processor time that it had taken by then.
    pub ready_cost: Duration,
}

impl Session {
    /// The process that holds the programs.
    pub fn pid(&self) -> u32 {
        self.running.as_ref().map_or_else(std::process::id, Running::pid)
    }

    /// Waits until its processes rest: what it does right after its start is not to be put down to traffic.
    pub fn settle(&self) -> Result<()> {
        if self.running.is_none() {
            return Ok(());
        }
        let mut last = process::cpu_time(self.pid());
        wait_until("it rests", PATIENCE, Duration::ZERO, || {
            thread::sleep(REST);
            let before = std::mem::replace(&mut last, process::cpu_time(self.pid()));
            Ok(last.saturating_sub(before) < REST / 50)
        })
    }

    /// Ends it; how long that took.
    pub fn stop(mut self) -> Result<Duration> {
        self.floor.take();
        let Some(mut running) = self.running.take() else { return Ok(Duration::ZERO) };
        running.check()?;
        running.stop()
    }
}

fn wait_while_running(running: &mut Running, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
    wait_until("it traces", PATIENCE, PAUSE, || {
        running.check()?;
        ready()
    })
}

/// Its first line says that all is attached; what follows is read and thrown away.
fn wait_for_line(running: &mut Running) -> Result<()> {
    let mut output = BufReader::new(running.stdout().context("no pipe from its standard output")?);
    let mut first = String::new();
    output.read_line(&mut first).context("read its first line")?;
    if !first.contains("\"start\"") {
        bail!("it did not start: {first}");
    }
    thread::spawn(move || {
        let mut buffer = [0; 65536];
        while output.read(&mut buffer).is_ok_and(|read| read > 0) {}
    });
    Ok(())
}

/// bpftrace does not say when it is attached: a lookup is made until its program has run.
fn wait_for_run(running: &mut Running) -> Result<()> {
    let _statistics = Kept::on()?;
    let sockets = [load::socket(Family::V4)?, load::socket(Family::V6)?];
    let pid = running.pid();
    wait_while_running(running, || {
        for (socket, family) in sockets.iter().zip(Family::ALL) {
            socket.send_to(b"vpnfix bench", family.other(0)).context("send a datagram")?;
        }
        Ok(statistics::of_process(pid).is_ok_and(|runs| runs.values().any(|runs| runs.count > 0)))
    })
}

/// perf opens an event for each processor, and then maps their buffers.
fn wait_for_perf(running: &mut Running, processors: usize) -> Result<()> {
    let pid = running.pid();
    wait_while_running(running, || {
        let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Ok(false) };
        let is_event = |target: std::path::PathBuf| target.to_string_lossy().contains("[perf_event]");
        let events = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).filter(|to| is_event(to.clone()));
        Ok(events.count() >= processors)
    })?;
    thread::sleep(Duration::from_millis(100));
    Ok(())
}
