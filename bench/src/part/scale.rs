//! Large hosts: time and memory of `diagnose` and of a plan, and what rules cost each packet of a host.

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{Bench, Findings};
use crate::{
    load::{self, Family, Mix},
    process::{self, ip_batch},
    results::{Cell, Goal, Table},
    sample::Samples,
    scene,
};

/// What is made large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    Tunnels,
    Routes,
    Rules,
}

/// A host of one size, and what its diagnosis and its plan took.
struct Measured {
    axis: Axis,
    size: u32,
    diagnose: Cost,
    plan: Cost,
}

/// What a run took: seconds that passed, and MiB at the most.
#[derive(Default)]
struct Cost {
    seconds: Samples,
    memory: Samples,
}

/// Measures all axes.
pub fn measure(bench: &Bench) -> Result<Findings> {
    let sizes: [(Axis, &[u32]); 3] = if bench.quick {
        [(Axis::Tunnels, &[1, 10, 100]), (Axis::Routes, &[10, 10_000]), (Axis::Rules, &[10, 1000])]
    } else {
        [
            (Axis::Tunnels, &[1, 100, 1000, 10_000]),
            (Axis::Routes, &[10, 10_000, 1_000_000]),
            (Axis::Rules, &[10, 1000, 10_000]),
        ]
    };
    let runs = if bench.quick { 1 } else { 5 };
    let mut all = Vec::new();
    for (axis, sizes) in sizes {
        for size in sizes {
            eprintln!("bench: {} {}", size, axis.told());
            let configuration = build(bench, axis, *size)?;
            let mut measured = Measured { axis, size: *size, diagnose: Cost::default(), plan: Cost::default() };
            for _run in 0..runs {
                for (words, cost) in
                    [(&["diagnose"][..], &mut measured.diagnose), (&["fix", "--dry-run"], &mut measured.plan)]
                {
                    let mut command = bench.vpnfix_with(&configuration);
                    let (seconds, memory) = run(command.args(["--format", "json"]).args(words))?;
                    cost.seconds.push(seconds);
                    cost.memory.push(memory);
                }
            }
            all.push(measured);
        }
    }
    let mut findings = told(&all);
    findings.tables.push(rules_cost(bench)?);
    Ok(findings)
}

impl Axis {
    fn told(self) -> &'static str {
        match self {
            Self::Tunnels => "tunnels",
            Self::Routes => "routes in main",
            Self::Rules => "rules of others",
        }
    }
}

/// Makes the host anew; the configuration names its tunnels.
fn build(bench: &Bench, axis: Axis, size: u32) -> Result<std::path::PathBuf> {
    scene::healthy()?;
    let mut names = vec![scene::TUNNEL.to_owned()];
    match axis {
        Axis::Tunnels => {
            // One is there already.
            let further: Vec<String> = (1..size).map(|number| format!("t{number}")).collect();
            ip_batch(further.iter().map(|name| format!("link add {name} type ifb")))?;
            ip_batch((1..).zip(&further).flat_map(|(number, name)| tunnel(number, name)))?;
            names.extend(further);
        }
        Axis::Routes => ip_batch((0..size).map(|number| {
            let [_, a, b, c] = number.to_be_bytes();
            format!("route add {}.{b}.{c}.0/24 via 192.168.12.1 dev ens5", 20 + u32::from(a))
        }))?,
        Axis::Rules => ip_batch((0..size).map(|number| {
            let [_, _, b, c] = number.to_be_bytes();
            format!("rule add from 172.16.{b}.{c} lookup 1000 priority {}", 1000 + number)
        }))?,
    }
    scene::hijack()?;
    let configuration = bench.scratch().join("scale.toml");
    fs::write(&configuration, format!("tunnels = {names:?}\n")).context("write the configuration")?;
    Ok(configuration)
}

/// A tunnel with an inside prefix and a learned one.
fn tunnel(number: u32, name: &str) -> [String; 4] {
    let [_, _, b, c] = (number * 4).to_be_bytes();
    let [_, _, d, e] = number.to_be_bytes();
    [
        format!("link set {name} addrgenmode none"),
        format!("addr add 169.254.{b}.{}/30 dev {name}", c + 2),
        format!("link set {name} up"),
        format!(
            "route add 10.{}.{e}.0/24 via 169.254.{b}.{} dev {name} proto bgp metric 20",
            100 + u32::from(d),
            c + 1
        ),
    ]
}

/// Runs it to its end; seconds, and MiB of its largest resident size.
fn run(command: &mut Command) -> Result<(f64, f64)> {
    let begun = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let pid = child.context("start vpnfix")?.id();
    let mut status = 0;
    // SAFETY: a structure of plain numbers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both places live through the call; the child is this process's and was not waited for.
    let ended = unsafe { libc::wait4(pid.cast_signed(), &raw mut status, 0, &raw mut usage) };
    let seconds = begun.elapsed().as_secs_f64();
    // Something is wrong on the host, and that is what they say (1).
    if ended != pid.cast_signed() || !libc::WIFEXITED(status) || libc::WEXITSTATUS(status) != 1 {
        bail!("{command:?} ended with status {status:#x}");
    }
    Ok((seconds, usage.ru_maxrss as f64 / 1024.0))
}

fn told(all: &[Measured]) -> Findings {
    let columns = ["", "`diagnose`, s", "its memory, MiB", "`fix --dry-run`, s", "its memory, MiB"];
    let mut table = Table::new("Large hosts, hijacked: from exec to the end", &columns);
    for Measured { axis, size, diagnose, plan } in all {
        let cells = [&diagnose.seconds, &diagnose.memory, &plan.seconds, &plan.memory].map(Cell::from);
        table.row(format!("{size} {}", axis.told()), cells.to_vec());
    }
    let diagnosis = |axis, size| {
        all.iter().find(|one| one.axis == axis && one.size == size).and_then(|one| one.diagnose.seconds.median())
    };
    let more = diagnosis(Axis::Routes, 1_000_000).zip(diagnosis(Axis::Routes, 10)).map(|(many, few)| many - few);
    let mut goals = vec![
        Goal::at_most("`diagnose` of 10,000 tunnels takes at most 2 s", diagnosis(Axis::Tunnels, 10_000), 2.0, " s"),
        Goal::at_most(
            "`diagnose` with 1,000,000 routes in main takes at most 0.5 s more than with ten",
            more,
            0.5,
            " s more",
        ),
    ];
    for (what, of) in
        [("diagnose", (|one| &one.diagnose) as fn(&Measured) -> &Cost), ("fix --dry-run", |one| &one.plan)]
    {
        goals.push(linear(what, all, of));
    }
    Findings { tables: vec![table], goals, notes: Vec::new() }
}

/// Between two sizes of the same axis, time may grow by what the size grows by. Below, it is the start that takes the time.
fn linear(what: &str, all: &[Measured], of: fn(&Measured) -> &Cost) -> Goal {
    let steps = all.windows(2).filter(|pair| pair[0].axis == pair[1].axis);
    let growth = |pair: &[Measured]| {
        let (few, many) = (of(&pair[0]).seconds.median()?, of(&pair[1]).seconds.median()?);
        Some((many / few) / (f64::from(pair[1].size) / f64::from(pair[0].size)))
    };
    let worst =
        steps.filter_map(growth).fold(None, |worst: Option<f64>, growth| Some(worst.unwrap_or(0.0).max(growth)));
    Goal::at_most(
        format!("`{what}`: from one size to the next, time grows by no larger a factor than the size"),
        worst,
        1.0,
        " times the size's factor, at most",
    )
}

/// Each rule before the deciding one is looked at for each packet of the host.
fn rules_cost(bench: &Bench) -> Result<Table> {
    let (rounds, duration) = if bench.quick { (1, 50) } else { (9, 200) };
    let duration = Duration::from_millis(duration);
    let counts: &[u32] = &[0, 1, 10, 100, 1000];
    scene::healthy()?;
    scene::hijack()?;
    let mut costs = vec![Samples::default(); counts.len()];
    for _round in 0..rounds {
        for (count, costs) in counts.iter().zip(&mut costs) {
            let rules = (0..*count).map(|number| {
                let [_, _, b, c] = (number * 4).to_be_bytes();
                format!("rule add to 169.254.{b}.{c}/30 lookup main priority 100 protocol 118")
            });
            ip_batch(rules)?;
            costs.push(load::send(Family::V4, Mix::None, duration, bench.sending_processor())?.cost());
            process::output("ip", &["rule", "flush", "protocol", "118"])?;
        }
    }
    let title =
        "What `inside` rules cost a packet that is not the tunnels', in nanoseconds of the sender's processor time";
    let mut table = Table::new(title, &["rules", "a packet", "added by a rule"]);
    let without = costs.first().and_then(Samples::median);
    for (count, costs) in counts.iter().zip(&costs) {
        let added = costs.median().zip(without).map(|(with, without)| (with - without) / f64::from(*count));
        table.row(count.to_string(), vec![Cell::from(costs), Cell::from(added)]);
    }
    Ok(table)
}
