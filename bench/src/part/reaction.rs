//! From the hijack to the cure: how long `vpnfix watch --fix` takes, and what leaks meanwhile; beside a shell loop that looks
//! once a second.

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use super::{Bench, Findings};
use crate::{
    load::{self, Family},
    process::{self, Running, wait_until},
    results::{Cell, Goal, Table},
    rules::Listener,
    sample::Samples,
    scene::{self, PEER, PHYSICAL},
    watching::{Scheduling, Watching},
};

/// How often the two ways of scheduling take turns. Each turn has a watch of its own, which would cut a flood of lines: it
/// tells of 200 changes of state at once, and a trial has four.
const TURNS: usize = 20;
/// Between two datagrams of the sender.
const PACE: Duration = Duration::from_micros(100);
/// Between two trials: an incident is over when it has been written down and who is there has been looked at anew, which
/// no host goes through right before a hijack.
const REST: Duration = Duration::from_millis(50);
/// How long a cure may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The hijacker's priority.
const HIJACKER: u32 = 220;
/// What a careful operator's loop does: looks once a second, and adds the usual rules.
const LOOP: &str = "\
while sleep 1; do
  ip route get 10.20.1.9 | grep -q 'dev vti1' || ip rule add to 10.20.0.0/16 lookup main priority 100
done";

/// What was measured of one of the two.
#[derive(Default)]
struct Reaction {
    /// From the kernel's notification of the hijacking rule to that of the first and of the last rule of the cure, in milliseconds.
    first: Samples,
    last: Samples,
    leaked: Samples,
    woken_by: BTreeMap<String, usize>,
}

/// Measures both.
pub fn measure(bench: &Bench) -> Result<Findings> {
    let (trials, loops) = if bench.quick { (TURNS, 1) } else { (500, 30) };
    scene::healthy()?;
    // The table is there before the rule to it, as with strongSwan's second connection.
    process::ip_batch(["route add default via 192.168.12.1 dev ens5 proto static table 220"])?;
    let ([ordinary, real_time, looping], rate) = with_traffic(|| {
        // In turns, so that both meet the same machine.
        let mut reactions = [Reaction::default(), Reaction::default()];
        for _turn in 0..TURNS {
            for (reaction, scheduling) in reactions.iter_mut().zip([Scheduling::Ordinary, Scheduling::RealTime]) {
                by_watch(bench, scheduling, trials / TURNS, reaction)?;
            }
        }
        let [ordinary, real_time] = reactions;
        Ok([ordinary, real_time, by_loop(loops)?])
    })?;
    Ok(findings(&ordinary, &real_time, &looping, rate))
}

/// Runs something beside a sender; gives its datagrams a second with what came of it.
fn with_traffic<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let over = AtomicBool::new(false);
    let sent = AtomicU64::new(0);
    thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<()> {
            let socket = load::socket(Family::V4)?;
            let peer = format!("{PEER}:9").parse().context("the peer's address")?;
            for to in [peer, Family::V4.watched(1)].iter().cycle() {
                if over.load(Ordering::Relaxed) {
                    return Ok(());
                }
                socket.send_to(b"vpnfix bench", to).with_context(|| format!("send a datagram to {to}"))?;
                sent.fetch_add(1, Ordering::Relaxed);
                thread::sleep(PACE);
            }
            Ok(())
        });
        let begun = Instant::now();
        let done = work();
        let rate = sent.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
        over.store(true, Ordering::Relaxed);
        sender.join().map_err(|_panic| anyhow!("the sender panicked"))??;
        Ok((done?, rate))
    })
}

fn by_watch(bench: &Bench, scheduling: Scheduling, trials: usize, reaction: &mut Reaction) -> Result<()> {
    let watching = Watching::start(bench, scheduling)?;
    let listener = Listener::open()?;
    for trial in 0..trials {
        let before = scene::packets(PHYSICAL)?;
        let hijacked = hijack(&listener)?;
        let line = watching.wait_for("a repair", is_repair)?;
        if line["outcome"] != "applied" {
            bail!("trial {trial}: {line}");
        }
        let rules = line["rules"].as_array().map_or(0, Vec::len);
        let mut cured = Vec::new();
        while cured.len() < rules {
            let added = listener.next(PATIENCE)?.with_context(|| format!("trial {trial}: no rule came: {line}"))?;
            cured.extend(added.ours.then_some(added.at));
        }
        reaction.leaked.push((scene::packets(PHYSICAL)? - before) as f64);
        reaction.note(hijacked, &cured);
        *reaction.woken_by.entry(line["woken_by"].as_str().unwrap_or("?").to_owned()).or_default() += 1;
        process::ip_batch([format!("rule del priority {HIJACKER}")])?;
        process::output("ip", &["rule", "flush", "protocol", "118"])?;
        watching.wait_state("healthy")?;
        thread::sleep(REST);
        listener.clear()?;
    }
    watching.stop()?;
    Ok(())
}

/// A repair's first line. Further ones tell how its confirmation ended: the hijack was over before.
fn is_repair(line: &Value) -> bool {
    line["type"] == "repair" && line["outcome"] != "overtaken" && line["outcome"] != "confirmed"
}

/// Adds the hijacking rule; when the kernel told of it.
fn hijack(listener: &Listener) -> Result<Instant> {
    process::ip_batch([format!("rule add from all lookup 220 priority {HIJACKER}")])?;
    loop {
        let added = listener.next(PATIENCE)?.context("the hijacking rule was not told of")?;
        if added.priority == HIJACKER {
            return Ok(added.at);
        }
    }
}

fn by_loop(trials: usize) -> Result<Reaction> {
    let listener = Listener::open()?;
    let mut reaction = Reaction::default();
    let mut shell = Command::new("sh");
    shell.args(["-c", LOOP]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _loop = Running::start(&mut shell)?;
    for trial in 0..trials {
        // At any moment of its second.
        thread::sleep(Duration::from_millis(trial as u64 * 1000 / trials as u64));
        let before = scene::packets(PHYSICAL)?;
        let hijacked = hijack(&listener)?;
        let cured = listener.next(PATIENCE)?.context("the shell loop added no rule")?;
        // Half of the traffic goes to the peer, which this rule does not cure.
        reaction.leaked.push((scene::packets(PHYSICAL)? - before) as f64);
        reaction.note(hijacked, &[cured.at]);
        process::ip_batch([format!("rule del priority {HIJACKER}"), format!("rule del priority {}", cured.priority)])?;
        wait_until("the cure is taken back", PATIENCE, Duration::from_millis(1), || {
            Ok(!process::output("ip", &["rule"])?.contains("10.20.0.0/16"))
        })?;
        listener.clear()?;
    }
    Ok(reaction)
}

impl Reaction {
    fn note(&mut self, hijacked: Instant, cured: &[Instant]) {
        let after = |at: Option<&Instant>| at.map_or(f64::NAN, |at| at.duration_since(hijacked).as_secs_f64() * 1e3);
        self.first.push(after(cured.iter().min()));
        self.last.push(after(cured.iter().max()));
    }
}

fn findings(ordinary: &Reaction, real_time: &Reaction, looping: &Reaction, rate: f64) -> Findings {
    let columns = ["", "median", "99 of 100", "longest", "quartiles", "trials"];
    let mut table = Table::new("From the hijacking rule to the cure", &columns);
    let mut row = |name: &str, samples: &Samples| {
        let quantile = |share| Cell::from(samples.quantile(share));
        let count = samples.spread().map(|spread| spread.count as f64);
        table.row(name, vec![quantile(0.5), quantile(0.99), quantile(1.0), Cell::from(samples), Cell::from(count)]);
    };
    for (name, reaction) in [("`watch --fix`", ordinary), ("`watch --fix`, real-time", real_time)] {
        row(&format!("{name}: first rule, ms"), &reaction.first);
        row(&format!("{name}: last rule, ms"), &reaction.last);
        row(&format!("{name}: packets leaked"), &reaction.leaked);
    }
    row("shell loop, each second: its rule, ms", &looping.last);
    row("shell loop, each second: packets leaked", &looping.leaked);
    let goal = |name: &str, share, limit, samples: &Samples| {
        let of = if share == 0.5 { "in the median" } else { "in 99 of 100 cases" };
        let goal = format!("{name}: the last rule stands within {limit:.0} ms, {of}");
        Goal::at_most(goal, samples.quantile(share), limit, " ms")
    };
    let woken: Vec<String> = ordinary.woken_by.iter().map(|(by, count)| format!("{by} {count} times")).collect();
    Findings {
        tables: vec![table],
        goals: vec![
            goal("`watch --fix`", 0.5, 1.0, &ordinary.last),
            goal("`watch --fix`", 0.99, 10.0, &ordinary.last),
            goal("`watch --fix`, real-time", 0.5, 1.0, &real_time.last),
            goal("`watch --fix`, real-time", 0.99, 10.0, &real_time.last),
        ],
        notes: vec![
            format!(
                "A sender makes {rate:.0} datagrams a second, half to the tunnel's peer, half to a learned prefix; what leaks is what the \
                 wrong device was handed until the cure was told of. Times are those of the kernel's notifications, as a third process \
                 hears them."
            ),
            format!("`watch` was woken by: {}.", woken.join(", ")),
        ],
    }
}
