//! Signs of other programs on the host, for telling who owns a rule or a route. What cannot be read is no sign, and
//! never an error. All of it is a matter of a few small files: it is read again each second while tracing.

mod names;
mod paths;
mod processes;
pub mod strongswan;
mod units;

use crate::core::owner::Clues;

pub use processes::name as process_name;

/// Looks for them, in the network namespace of the calling thread.
#[must_use]
pub fn gather() -> Clues {
    let here = processes::network_namespace("thread-self");
    let (processes, all_processes) = processes::gather(here);
    Clues {
        pid_files: paths::pid_files(),
        paths: paths::existing(),
        // systemd's units run in the host's own namespace, as far as can be known without asking each.
        units: if here.is_some() && here == processes::network_namespace("1") { units::active() } else { Vec::new() },
        table_names: names::tables(),
        protocol_names: names::protocols(),
        strongswan: strongswan::configuration(),
        processes,
        all_processes,
    }
}

/// What every program's signs name, each once.
fn of_all_programs<'a>(names: impl Fn(crate::core::owner::Signs) -> &'a [&'a str]) -> Vec<&'a str> {
    let programs = crate::core::owner::Program::ALL.into_iter();
    let mut all: Vec<&str> = programs.flat_map(|program| names(program.signs()).iter().copied()).collect();
    all.sort_unstable();
    all.dedup();
    all
}
