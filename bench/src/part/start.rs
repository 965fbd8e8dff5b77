//! Start and stop beside other tracers, memory, and the binary's size.

use std::{fs, thread, time::Duration};

use anyhow::{Context, Result};

use super::{Bench, Findings};
use crate::{
    load::{self, Family},
    process,
    results::{Cell, Goal, Table},
    sample::Samples,
    scene, statistics,
    tracer::Tracer,
};

/// The programs that are started.
const STARTED: [Tracer; 5] =
    [Tracer::Trace, Tracer::Watch, Tracer::BpftraceCount, Tracer::PerfRecord, Tracer::TraceCmd];
/// Flows that are traced while memory is measured.
const FLOWS: u16 = 10_000;
/// Flows are told once nothing new came for a while.
const SETTLED: Duration = Duration::from_millis(1500);
const MIB: f64 = 1024.0 * 1024.0;

/// Start and end of one program, in milliseconds.
#[derive(Default)]
struct Times {
    start: Samples,
    /// Processor time until the start.
    cost: Samples,
    stop: Samples,
}

/// Measures all of it.
pub fn measure(bench: &Bench) -> Result<Findings> {
    scene::healthy()?;
    scene::hijack()?;
    let (times, unable) = start_and_stop(bench)?;
    let mut findings = Findings { notes: unable, ..Findings::default() };
    tell_times(&times, &mut findings);
    tell_memory(bench, &mut findings)?;
    let size = fs::metadata(bench.binary()).context("look at vpnfix's binary")?.len() as f64 / MIB;
    findings.goals.push(Goal::at_most("the stripped release binary has at most 8 MiB", Some(size), 8.0, " MiB"));
    Ok(findings)
}

fn start_and_stop(bench: &Bench) -> Result<([Times; STARTED.len()], Vec<String>)> {
    let rounds = if bench.quick { 3 } else { 25 };
    let mut times: [Times; STARTED.len()] = Default::default();
    let mut unable = [const { None }; STARTED.len()];
    // The first round brings into memory what all of them read.
    for round in 0..=rounds {
        for ((tracer, times), unable) in STARTED.into_iter().zip(&mut times).zip(&mut unable) {
            if unable.is_some() {
                continue;
            }
            match once(bench, tracer) {
                Ok(_) if round == 0 => {}
                Ok(once) => {
                    let [start, cost, stop] = once.map(|time| time.as_secs_f64() * 1e3);
                    times.start.push(start);
                    times.cost.push(cost);
                    times.stop.push(stop);
                }
                Err(error) if !tracer.is_vpnfix() => {
                    *unable = Some(format!("{}: not measured: {error:#}", tracer.told()))
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok((times, unable.into_iter().flatten().collect()))
}

/// From its start until it traces, processor time until then, and from SIGINT to its end.
fn once(bench: &Bench, tracer: Tracer) -> Result<[Duration; 3]> {
    let session = tracer.start(bench, Family::V4)?;
    let (start, cost) = (session.ready_after, session.ready_cost);
    Ok([start, cost, session.stop()?])
}

fn tell_times(times: &[Times], findings: &mut Findings) {
    let mut table = Table::new(
        "From exec to tracing, and from SIGINT to the end, in milliseconds",
        &["", "start", "start, 95 of 100", "processor time until then", "end", "end, 95 of 100"],
    );
    for (tracer, Times { start, cost, stop }) in STARTED.into_iter().zip(times) {
        let late = |samples: &Samples| Cell::from(samples.quantile(0.95));
        table.row(tracer.told(), vec![Cell::from(start), late(start), Cell::from(cost), Cell::from(stop), late(stop)]);
    }
    findings.tables.push(table);
    let of = |wanted| STARTED.into_iter().zip(times).find(|(tracer, _)| *tracer == wanted).map(|(_, times)| times);
    let started = |tracer| of(tracer)?.start.median();
    for tracer in [Tracer::Trace, Tracer::Watch] {
        let own = started(tracer);
        let told = tracer.told();
        findings.goals.extend([
            Goal::at_most(format!("{told} traces at most 60 ms after exec"), own, 60.0, " ms"),
            Goal::at_least(
                format!("{told} traces at least 5 times sooner than bpftrace"),
                started(Tracer::BpftraceCount).zip(own).map(|(other, own)| other / own),
                5.0,
                " times",
            ),
            Goal::at_most(
                format!("{told} ends at most 50 ms after SIGINT"),
                of(tracer).and_then(|times| times.stop.median()),
                50.0,
                " ms",
            ),
        ]);
    }
}

fn tell_memory(bench: &Bench, findings: &mut Findings) -> Result<()> {
    let mut table = Table::new(
        format!("Memory with {FLOWS} flows traced, in MiB"),
        &["", "resident", "resident, at most", "kernel's maps"],
    );
    let mut goals = Vec::new();
    for tracer in [Tracer::Trace, Tracer::Watch] {
        let session = tracer.start(bench, Family::V4)?;
        send_flows()?;
        thread::sleep(SETTLED);
        let resident = process::memory_mib(session.pid(), "VmRSS");
        let most = process::memory_mib(session.pid(), "VmHWM");
        let maps = statistics::map_memory(session.pid()) as f64 / MIB;
        session.stop()?;
        table.row(tracer.told(), vec![Cell::from(resident), Cell::from(most), Cell::Number(maps)]);
        goals.push(Goal::at_most(
            format!("{} is resident with at most 16 MiB, with {FLOWS} flows traced", tracer.told()),
            resident,
            16.0,
            " MiB",
        ));
    }
    findings.tables.push(table);
    findings.goals.extend(goals);
    Ok(())
}

/// A datagram to each of many addresses in the learned prefix.
fn send_flows() -> Result<()> {
    let socket = load::socket(Family::V4)?;
    for number in 0..FLOWS {
        let [high, low] = number.to_be_bytes();
        let to = (std::net::Ipv4Addr::new(10, 20, high, low), 9);
        socket.send_to(b"vpnfix bench", to).with_context(|| format!("send a datagram to {}", to.0))?;
    }
    Ok(())
}
