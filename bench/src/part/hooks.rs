//! What the hooks cost that are attached for stories alone: packets that come in, packets that are dropped, segments that TCP
//! sends again.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{Bench, Findings};
use crate::{
    floor::Floor,
    load::{self, Family},
    results::{Cell, Table},
    sample::Samples,
    scene,
    statistics::{self, ByProgram, Kept},
    tracer::Tracer,
    tun::Tun,
};

/// An address that is nobody's: what comes in for it is looked up, and dropped.
const NOBODY: Ipv4Addr = Ipv4Addr::new(192, 168, 12, 200);
/// Connections that are tried at once; TCP asks each again after a second.
const CONNECTIONS: u8 = 64;
const UNANSWERED: Duration = Duration::from_millis(1300);
/// The programs, by the kernel's names of them, and the empty ones at the same hooks.
const PROGRAMS: [(&str, Option<&str>); 4] = [
    ("netif_receive_s", Some("empty_receive")),
    ("kfree_skb", Some("empty_drop")),
    ("tcp_retransmit_", None),
    ("inet_sock_set_s", None),
];

/// Nanoseconds a run, by program and by whether the traffic is watched.
type Costs = BTreeMap<(String, bool), Samples>;

/// Measures them.
pub fn measure(bench: &Bench) -> Result<Findings> {
    let (rounds, duration) = if bench.quick { (1, 100) } else { (9, 300) };
    let duration = Duration::from_millis(duration);
    scene::healthy()?;
    scene::hijack()?;
    let mut tun = Tun::open()?;
    let mut costs = Costs::new();
    for _round in 0..rounds {
        let floor = Floor::lay()?;
        note(&mut costs, false, &counted(std::process::id(), || arrive(bench, &mut tun, false, duration))?);
        drop(floor);
        let session = Tracer::Trace.start(bench, Family::V4)?;
        session.settle()?;
        for watched in [false, true] {
            arrive(bench, &mut tun, watched, duration / 10)?;
            note(&mut costs, watched, &counted(session.pid(), || arrive(bench, &mut tun, watched, duration))?);
            note_retransmissions(&mut costs, watched, &counted(session.pid(), || connect(watched))?);
        }
        session.stop()?;
    }
    Ok(Findings { tables: vec![table(&costs)], goals: Vec::new(), notes: vec![NOTE.into()] })
}

const NOTE: &str = "Packets come in by a `tun` device, from a watched prefix or another, for an address that is nobody's: each is received, \
                    looked up, and dropped. TCP's are of connections that nobody answers; they are few, so their times are those of \
                    cold caches.";

/// What the programs of a process do meanwhile.
fn counted(pid: u32, work: impl FnOnce() -> Result<()>) -> Result<ByProgram> {
    let _statistics = Kept::on()?;
    let before = statistics::of_process(pid)?;
    work()?;
    Ok(statistics::between(&before, &statistics::of_process(pid)?))
}

fn arrive(bench: &Bench, tun: &mut Tun, watched: bool, duration: Duration) -> Result<()> {
    load::undisturbed(bench.sending_processor(), || {
        let begun = Instant::now();
        while begun.elapsed() < duration {
            for number in 0..64 {
                let from = if watched { Ipv4Addr::new(10, 20, number, 9) } else { Ipv4Addr::new(198, 18, number, 9) };
                tun.arrive(from, NOBODY)?;
            }
        }
        Ok(())
    })
}

fn connect(watched: bool) -> Result<()> {
    thread::scope(|scope| {
        for number in 0..CONNECTIONS {
            let to: SocketAddr = if watched { Family::V4.watched(number) } else { Family::V4.other(number) };
            // Nobody answers; that is what is wanted.
            scope.spawn(move || TcpStream::connect_timeout(&to, UNANSWERED).is_err());
        }
    });
    Ok(())
}

fn note(costs: &mut Costs, watched: bool, runs: &ByProgram) {
    for name in ["netif_receive_s", "kfree_skb", "empty_receive", "empty_drop"] {
        push(costs, watched, runs, name);
    }
}

fn note_retransmissions(costs: &mut Costs, watched: bool, runs: &ByProgram) {
    for name in ["tcp_retransmit_", "inet_sock_set_s"] {
        push(costs, watched, runs, name);
    }
}

fn push(costs: &mut Costs, watched: bool, runs: &ByProgram, name: &str) {
    if let Some(runs) = runs.get(name) {
        costs.entry((name.to_owned(), watched)).or_default().push(runs.cost());
    }
}

fn table(costs: &Costs) -> Table {
    let mut table = Table::new(
        "`vpnfix trace`: a run of each further program, in nanoseconds by the kernel's statistics",
        &["program", "empty program", "traffic not watched", "all traffic watched"],
    );
    for (program, empty) in PROGRAMS {
        let of = |name: &str, watched| costs.get(&(name.to_owned(), watched)).map_or(Cell::Nothing, Cell::from);
        let empty = empty.map_or(Cell::Nothing, |empty| of(empty, false));
        table.row(format!("`{program}`"), vec![empty, of(program, false), of(program, true)]);
    }
    table
}
