//! What tracing costs a lookup and a packet: by the sender's processor time, and by the kernel's statistics of the programs.
//!
//! In each round every tracer is started, and the sender runs beside it; right before and right after, it runs without. What is
//! compared lies seconds apart, and the order of the tracers turns with the rounds.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};

use super::{Bench, Findings};
use crate::{
    load::{self, Burst, Family, Mix},
    process,
    results::{Cell, Goal, Table},
    sample::Samples,
    scene,
    statistics::{self, ByProgram, Kept},
    tracer::Tracer,
};

/// A tracer and the traffic beside it.
type Case = (usize, usize);

/// What was measured of one case.
#[derive(Default)]
struct Measured {
    /// Nanoseconds of the sender for a packet, without and with the tracer.
    without: Samples,
    with: Samples,
    /// Their difference, round by round.
    added: Samples,
    /// Loss of throughput in percent, round by round.
    loss: Samples,
    /// Nanoseconds of the tracer's own processes for a packet.
    own: Samples,
    /// Both together.
    together: Samples,
    /// Packets a second.
    rate: Samples,
    /// By program: nanoseconds a run, runs a packet.
    runs: BTreeMap<String, (Samples, Samples)>,
}

/// Measures both families.
pub fn measure(bench: &Bench) -> Result<Findings> {
    let mut findings = Findings::default();
    for family in Family::ALL {
        let (cases, unable) = measure_family(bench, family)?;
        findings.tables.push(sender_table(family, &cases));
        findings.tables.push(program_table(family, &cases));
        findings.goals.extend(goals(family, &cases));
        findings.notes.extend(unable);
    }
    findings.notes.extend(NOTES.map(String::from));
    Ok(findings)
}

const NOTES: [&str; 4] = [
    "A packet of the scene makes two lookups: table 255 (missed), then 220 (hit).",
    "The sender's time is processor time of its thread, on a processor of its own: what else the machine ran does not count, though \
     it costs caches. The loss of throughput is that of a sender that has its processor to itself.",
    "Run times are the kernel's own, and hold what keeping them costs: an empty program's run time is hardly anything else.",
    "`perf`, trace-cmd and bpftrace lose records at such rates; what they lost cost them less.",
];

fn measure_family(bench: &Bench, family: Family) -> Result<(BTreeMap<Case, Measured>, Vec<String>)> {
    let (rounds, duration) = if bench.quick { (2, 60) } else { (11, 250) };
    let duration = Duration::from_millis(duration);
    scene::healthy()?;
    scene::hijack()?;
    let mut cases: BTreeMap<Case, Measured> = BTreeMap::new();
    let mut unable: BTreeMap<usize, String> = BTreeMap::new();
    for round in 0..rounds {
        for turn in 0..Tracer::ALL.len() {
            let number = (round + turn) % Tracer::ALL.len();
            let tracer = Tracer::ALL[number];
            if unable.contains_key(&number) {
                continue;
            }
            match session(bench, family, tracer, duration) {
                Ok(measured) => {
                    measured.into_iter().for_each(|(mix, one)| one.into(cases.entry((number, mix)).or_default()))
                }
                // What is not vpnfix's own may be unable to run here, and that is told.
                Err(error) if !tracer.is_vpnfix() && tracer != Tracer::Floor => {
                    unable.insert(number, format!("{}, {}: not measured: {error:#}", tracer.told(), family.told()));
                }
                Err(error) => return Err(error).with_context(|| tracer.told()),
            }
        }
    }
    Ok((cases, unable.into_values().collect()))
}

/// One measurement of a case.
struct One {
    without: f64,
    with: Burst,
    own: Duration,
    runs: ByProgram,
    counted: u64,
}

impl One {
    fn into(self, measured: &mut Measured) {
        let with = self.with.cost();
        let own = self.own.as_nanos() as f64 / self.with.packets as f64;
        measured.without.push(self.without);
        measured.with.push(with);
        measured.added.push(with - self.without);
        measured.loss.push((1.0 - self.without / with) * 100.0);
        measured.own.push(own);
        measured.together.push(with - self.without + own);
        measured.rate.push(self.with.rate());
        for (name, runs) in self.runs {
            let (cost, often) = measured.runs.entry(name).or_default();
            cost.push(runs.cost());
            often.push(runs.count as f64 / self.counted as f64);
        }
    }
}

/// A tracer's start, traffic beside it, and its end.
fn session(bench: &Bench, family: Family, tracer: Tracer, duration: Duration) -> Result<Vec<(usize, One)>> {
    let send = |mix| load::send(family, mix, duration, bench.sending_processor());
    let before = send(Mix::All)?.cost();
    let running = tracer.start(bench, family)?;
    running.settle()?;
    let mut measured = Vec::new();
    for (number, mix) in Mix::ALL.into_iter().enumerate() {
        if !tracer.is_vpnfix() && mix != Mix::All {
            continue;
        }
        // First sights are told and done with.
        load::send(family, mix, duration / 10, bench.sending_processor())?;
        let own = process::cpu_time(running.pid());
        let with = send(mix)?;
        let own =
            if tracer == Tracer::Floor { Duration::ZERO } else { process::cpu_time(running.pid()).saturating_sub(own) };
        let (runs, counted) = if tracer.is_bpf() {
            let _statistics = Kept::on()?;
            let runs = statistics::of_process(running.pid())?;
            let burst = send(mix)?;
            (statistics::between(&runs, &statistics::of_process(running.pid())?), burst.packets)
        } else {
            (ByProgram::new(), 0)
        };
        measured.push((number, One { without: 0.0, with, own, runs, counted }));
    }
    running.stop()?;
    let without = (before + send(Mix::All)?.cost()) / 2.0;
    Ok(measured.into_iter().map(|(number, one)| (number, One { without, ..one })).collect())
}

fn name((tracer, mix): &Case) -> String {
    let tracer = Tracer::ALL[*tracer];
    if tracer.is_vpnfix() { format!("{}, {}", tracer.told(), Mix::ALL[*mix].told()) } else { tracer.told().into() }
}

fn sender_table(family: Family, cases: &BTreeMap<Case, Measured>) -> Table {
    let title = format!("{}: a packet, in nanoseconds of processor time", family.told());
    let columns =
        ["tracer", "sender without", "sender with", "added", "throughput lost, %", "tracer's own", "added together"];
    let mut table = Table::new(title, &columns);
    for (case, measured) in cases {
        let Measured { without, with, added, loss, own, together, .. } = measured;
        table.row(name(case), [without, with, added, loss, own, together].map(Cell::from).to_vec());
    }
    table
}

fn program_table(family: Family, cases: &BTreeMap<Case, Measured>) -> Table {
    let title = format!("{}: a run of each program, in nanoseconds by the kernel's statistics", family.told());
    let mut table =
        Table::new(title, &["tracer", "program", "a run", "times the empty one", "more than that", "runs a packet"]);
    for (case, measured) in cases {
        // Some run now and then, for what else happens on the machine.
        let counts =
            |(_, (_, often)): &(&String, &(Samples, Samples))| often.median().is_some_and(|often| often >= 0.5);
        for (program, (cost, often)) in measured.runs.iter().filter(counts) {
            let floor = floor(cases, program).or_else(|| floor(cases, lookup_program(family)));
            let median = cost.median();
            let of_floor = |of: fn(f64, f64) -> f64| Cell::from(median.zip(floor).map(|(cost, floor)| of(cost, floor)));
            let cells = vec![
                Cell::Text(format!("`{program}`")),
                Cell::from(cost),
                of_floor(|cost, floor| cost / floor),
                of_floor(|cost, floor| cost - floor),
                Cell::from(often.median()),
            ];
            table.row(name(case), cells);
        }
    }
    table
}

/// The kernel's name of vpnfix's program at a family's lookups, as it cuts it.
fn lookup_program(family: Family) -> &'static str {
    match family {
        Family::V4 => "fib_table_looku",
        Family::V6 => "fib6_table_look",
    }
}

const TRANSMIT_PROGRAM: &str = "net_dev_start_x";

/// The empty program's run time at the hook of this program.
fn floor(cases: &BTreeMap<Case, Measured>, program: &str) -> Option<f64> {
    let empty = match program {
        "fib_table_looku" => "empty_fib",
        "fib6_table_look" => "empty_fib6",
        TRANSMIT_PROGRAM => "empty_xmit",
        _ => return None,
    };
    run_time(cases, Tracer::Floor, Mix::All, empty)
}

fn case(cases: &BTreeMap<Case, Measured>, tracer: Tracer, mix: Mix) -> Option<&Measured> {
    let tracer = Tracer::ALL.iter().position(|of| *of == tracer)?;
    let mix = Mix::ALL.iter().position(|of| *of == mix)?;
    cases.get(&(tracer, mix))
}

fn run_time(cases: &BTreeMap<Case, Measured>, tracer: Tracer, mix: Mix, program: &str) -> Option<f64> {
    case(cases, tracer, mix)?.runs.get(program)?.0.median()
}

fn goals(family: Family, cases: &BTreeMap<Case, Measured>) -> Vec<Goal> {
    let mut goals = Vec::new();
    let told = family.told();
    let median = |tracer, mix, of: fn(&Measured) -> &Samples| of(case(cases, tracer, mix)?).median();
    for (program, what) in [(lookup_program(family), "lookup"), (TRANSMIT_PROGRAM, "packet")] {
        let times = |tracer, mix| Some(run_time(cases, tracer, mix, program)? / floor(cases, program)?);
        for tracer in [Tracer::Watch, Tracer::Trace] {
            let by = tracer.told();
            goals.push(Goal::at_most(
                format!("{told}, {by}: an unmatched {what} takes at most 1.5 times the empty program's run time"),
                times(tracer, Mix::None),
                1.5,
                " times",
            ));
            goals.push(Goal::at_most(
                format!("{told}, {by}: a matched {what} takes at most 4 times the empty program's run time"),
                times(tracer, Mix::All),
                4.0,
                " times",
            ));
        }
    }
    for tracer in [Tracer::Watch, Tracer::Trace] {
        let by = tracer.told();
        for (mix, limit) in [(Mix::None, 2.0), (Mix::All, 10.0)] {
            goals.push(Goal::at_most(
                format!(
                    "{told}, {by}: the sender loses at most {limit:.0} % of its throughput with {} matched",
                    mix.told()
                ),
                median(tracer, mix, |measured| &measured.loss),
                limit,
                " %",
            ));
        }
        let added = median(tracer, Mix::All, |measured| &measured.together);
        let print = median(Tracer::BpftracePrint, Mix::All, |measured| &measured.together);
        goals.push(Goal::at_least(
            format!("{told}, {by}: with 100 % matched it adds at least 10 times less than bpftrace printing"),
            print.zip(added).map(|(print, added)| print / added.max(1.0)),
            10.0,
            " times less",
        ));
        let count = median(Tracer::BpftraceCount, Mix::All, |measured| &measured.together);
        goals.push(Goal::at_most(
            format!("{told}, {by}: with 100 % matched it adds no more than bpftrace counting"),
            added.zip(count).map(|(added, count)| added - count),
            0.0,
            " ns more",
        ));
    }
    goals
}
