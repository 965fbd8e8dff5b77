//! What vpnfix's own processes take: with no traffic, and beside 100,000 watched lookups a second.

use std::{
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{Bench, Findings};
use crate::{
    load::{self, Family},
    process::{self, Running},
    results::{Cell, Goal, Table},
    sample::Samples,
    scene::{self, TUNNEL},
    tracer::Tracer,
};

/// Datagrams a second; each makes two lookups.
const RATE: u64 = 50_000;
const TICK: Duration = Duration::from_millis(1);
/// The live view is drawn once a second.
const WARM_UP: Duration = Duration::from_millis(1500);
/// What may be taken of a processor beside so many lookups.
const LIMIT: f64 = 10.0;

/// Measures them.
pub fn measure(bench: &Bench) -> Result<Findings> {
    let (rounds, duration) = if bench.quick { (1, 1000) } else { (5, 5000) };
    let duration = Duration::from_millis(duration);
    scene::healthy()?;
    scene::hijack()?;
    let mut rows =
        [("`vpnfix watch`", Some(Tracer::Watch)), ("`vpnfix trace --plain`", Some(Tracer::Trace)), ("live view", None)]
            .map(|(name, tracer)| (name, tracer, Samples::default(), Samples::default()));
    let mut rate = Samples::default();
    for _round in 0..rounds {
        for (_, tracer, idle, busy) in &mut rows {
            match tracer {
                Some(tracer) => {
                    let session = tracer.start(bench, Family::V4)?;
                    session.settle()?;
                    idle.push(share(session.pid(), duration, || at_rest(duration))?);
                    busy.push(share(session.pid(), duration, || paced(duration, &mut rate))?);
                    session.stop()?;
                }
                None => {
                    let view = live_view(bench)?;
                    idle.push(share(view.pid(), duration, || at_rest(duration))?);
                    busy.push(share(view.pid(), duration, || paced(duration, &mut rate))?);
                }
            }
        }
    }
    let mut table = Table::new(
        "Processor time of vpnfix's own processes, in percent of one processor",
        &["", "no traffic", "beside the lookups"],
    );
    let mut goals = Vec::new();
    for (name, _, idle, busy) in &rows {
        table.row(*name, vec![Cell::from(idle), Cell::from(busy)]);
    }
    let [.., (_, _, _, busy)] = &rows;
    let goal = format!("the live view takes at most {LIMIT:.0} % of a processor beside 100,000 lookups a second");
    goals.push(Goal::at_most(goal, busy.median(), LIMIT, " %"));
    let lookups = rate.median().unwrap_or(0.0) * 2.0;
    let notes = vec![format!(
        "The sender made {lookups:.0} watched lookups a second, to 64 destinations. The programs in the kernel are counted to the sender (see above)."
    )];
    Ok(Findings { tables: vec![table], goals, notes })
}

/// Percent of a processor that a process and its children take meanwhile.
fn share(pid: u32, duration: Duration, work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let before = process::cpu_time(pid);
    work()?;
    let used = process::cpu_time(pid).saturating_sub(before);
    Ok(used.as_secs_f64() / duration.as_secs_f64() * 100.0)
}

fn at_rest(duration: Duration) -> Result<()> {
    thread::sleep(duration);
    Ok(())
}

/// Sends in small bursts; notes how many datagrams a second that made.
fn paced(duration: Duration, rate: &mut Samples) -> Result<()> {
    let socket = load::socket(Family::V4)?;
    let begun = Instant::now();
    let mut sent = 0;
    while begun.elapsed() < duration {
        // A sleep that took too long is made up for.
        let due = RATE * u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX) / 1_000_000;
        for number in sent..due {
            let to = Family::V4.watched((number % 64) as u8);
            socket.send_to(b"vpnfix bench", to).with_context(|| format!("send a datagram to {to}"))?;
        }
        sent = due;
        thread::sleep(TICK);
    }
    rate.push(sent as f64 / begun.elapsed().as_secs_f64());
    Ok(())
}

/// The view on a terminal of util-linux's `script`.
fn live_view(bench: &Bench) -> Result<Running> {
    let vpnfix = bench.vpnfix();
    let words = vpnfix.get_args().chain(["--tunnel", TUNNEL, "trace"].map(AsRef::as_ref));
    let words = std::iter::once(vpnfix.get_program()).chain(words).map(|word| format!("'{}'", word.display()));
    let line = format!("stty rows 50 columns 160; exec {}", words.collect::<Vec<_>>().join(" "));
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    command.env("TERM", "xterm-256color").env("VPNFIX_RUN_DIR", bench.scratch().join("run"));
    // Its input stays open, and nothing comes by it: at an end of the input the view would end.
    let view = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()))?;
    thread::sleep(WARM_UP);
    Ok(view)
}
