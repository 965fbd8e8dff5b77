//! Is anything lost: all traffic watched, as fast as the processors can send.

use std::{
    fs::File,
    io::Read as _,
    net::Ipv4Addr,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use super::{Bench, Findings};
use crate::{
    load::{self, Burst, Family, Mix},
    process::{Running, wait_until},
    results::{Cell, Goal, Table},
    scene::{self, PHYSICAL, TUNNEL},
};

/// The summary of a trace, and what was sent beside it.
struct Counted {
    sent: u64,
    /// Packets that the device was handed, by its own counter: a queue before it may drop what is sent faster than it takes.
    handed: u64,
    rate: f64,
    summary: Value,
}

/// Measures the highest rate, and very many destinations.
pub fn measure(bench: &Bench) -> Result<Findings> {
    scene::healthy()?;
    scene::hijack()?;
    let duration = Duration::from_secs(if bench.quick { 3 } else { 60 });
    let fast = traced(bench, || fastest(bench, duration))?;
    let destinations = if bench.quick { 30_000 } else { 100_000 };
    let many = traced(bench, || to_many(destinations))?;

    let columns = [
        "",
        "sent",
        "a second",
        "handed to the device",
        "packets counted",
        "lookups counted",
        "lost of what is counted",
        "events not told",
    ];
    let mut table = Table::new("`vpnfix trace`, all traffic watched", &columns);
    table.row(format!("as fast as it goes, {} s", duration.as_secs()), fast.cells());
    table.row(format!("{destinations} destinations"), many.cells());
    let goals = vec![
        fast.exact("at the highest rate packets and lookups are counted exactly"),
        Goal::at_most("at the highest rate no event is lost", Some(fast.loss("events_lost")), 0.0, " events"),
        many.exact(&format!("with {destinations} destinations packets and lookups are counted exactly")),
        Goal::at_least(
            format!("with {destinations} destinations it is counted and said what found no room of its own"),
            Some(many.loss("destinations_uncounted")),
            1.0,
            " times",
        ),
    ];
    Ok(Findings { tables: vec![table], goals, notes: Vec::new() })
}

/// Runs a trace beside some traffic, and reads its summary.
fn traced(bench: &Bench, send: impl FnOnce() -> Result<Burst>) -> Result<Counted> {
    let ready = bench.scratch().join("ready");
    let mut command = bench.vpnfix();
    command.args(["--tunnel", TUNNEL, "--format", "json", "trace", "--ready-file"]).arg(&ready);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(File::create(bench.scratch().join("errors")).context("create a file for errors")?);
    let mut running = Running::start(&mut command)?;
    let mut output = running.stdout().context("no pipe from its standard output")?;
    let reader = thread::spawn(move || {
        let mut text = String::new();
        output.read_to_string(&mut text).map(|_| text)
    });
    wait_until("vpnfix trace is ready", Duration::from_secs(10), Duration::from_millis(1), || {
        running.check()?;
        Ok(ready.exists())
    })?;
    let before = scene::packets(PHYSICAL)?;
    let burst = send()?;
    let handed = settled()? - before;
    running.stop()?;
    let text = reader.join().map_err(|_panic| anyhow!("a reader panicked"))?.context("read the trace")?;
    let last = text.lines().last().context("the trace told nothing")?;
    let summary: Value = serde_json::from_str(last).context("read the trace's summary")?;
    if summary["type"] != "summary" {
        bail!("the trace's last line is no summary: {last}");
    }
    Ok(Counted { sent: burst.packets, handed, rate: burst.rate(), summary })
}

/// What the device was handed, once no queue before it holds any more.
fn settled() -> Result<u64> {
    let mut last = scene::packets(PHYSICAL)?;
    loop {
        thread::sleep(Duration::from_millis(50));
        let now = scene::packets(PHYSICAL)?;
        if now == last {
            return Ok(now);
        }
        last = now;
    }
}

/// All processors send.
fn fastest(bench: &Bench, duration: Duration) -> Result<Burst> {
    let bursts: Vec<Result<Burst>> = thread::scope(|scope| {
        let senders: Vec<_> = (0..bench.processors)
            .map(|processor| scope.spawn(move || load::send_beside_others(Family::V4, Mix::All, duration, processor)))
            .collect();
        senders.into_iter().map(|sender| sender.join().unwrap_or_else(|_| Err(anyhow!("a sender panicked")))).collect()
    });
    bursts.into_iter().try_fold(Burst::default(), |sum, burst| {
        let burst = burst?;
        Ok(Burst { packets: sum.packets + burst.packets, wall: sum.wall.max(burst.wall), cpu: sum.cpu + burst.cpu })
    })
}

/// One datagram to each of so many addresses of the learned prefix (65,536), then again.
fn to_many(destinations: u32) -> Result<Burst> {
    let socket = load::socket(Family::V4)?;
    let begun = Instant::now();
    for number in 0..destinations {
        let [.., high, low] = number.to_be_bytes();
        // What is more than the prefix has goes to its addresses by another port.
        let port = 9 + u16::try_from(number >> 16).context("too many destinations")?;
        socket.send_to(b"vpnfix bench", (Ipv4Addr::new(10, 20, high, low), port)).context("send a datagram")?;
    }
    Ok(Burst { packets: destinations.into(), wall: begun.elapsed(), cpu: Duration::ZERO })
}

impl Counted {
    fn sum(&self, list: &str, fits: impl Fn(&Value) -> bool) -> u64 {
        let entries = self.summary[list].as_array().map_or(&[][..], Vec::as_slice);
        entries.iter().filter(|entry| fits(entry)).filter_map(|entry| entry["count"].as_u64()).sum()
    }

    fn packets(&self) -> u64 {
        self.sum("packets", |_| true)
    }

    /// Hits in the hijacker's table: one for each datagram.
    fn lookups(&self) -> u64 {
        self.sum("lookups", |entry| entry["table"] == 220 && entry["hook"] == "fib_table")
    }

    fn loss(&self, name: &str) -> f64 {
        self.summary["lost"][name].as_f64().unwrap_or(f64::NAN)
    }

    fn exact(&self, goal: &str) -> Goal {
        let (packets, lookups) = (self.packets(), self.lookups());
        let Self { sent, handed, .. } = self;
        let figure = format!("{lookups} lookups of {sent} sent, {packets} packets of {handed} handed to the device");
        Goal { goal: goal.into(), figure, met: Some(packets == *handed && lookups == *sent) }
    }

    fn cells(&self) -> Vec<Cell> {
        let uncounted = self.loss("lookups_uncounted") + self.loss("packets_uncounted");
        [
            self.sent as f64,
            self.rate,
            self.handed as f64,
            self.packets() as f64,
            self.lookups() as f64,
            uncounted,
            self.loss("events_lost"),
        ]
        .map(|value| Cell::from(Some(value)))
        .to_vec()
    }
}
