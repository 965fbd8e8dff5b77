//! The kernel's own statistics of BPF programs: how often each ran, and how long. (Keeping them costs two readings of the clock a
//! run, one of which lies within what is measured.)

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    os::fd::OwnedFd,
};

use anyhow::{Context, Result};
use aya::{
    programs::loaded_programs,
    sys::{Stats, enable_stats},
};

/// What a program did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Runs {
    /// How often it ran.
    pub count: u64,
    /// For how long, all in all, in nanoseconds.
    pub nanoseconds: u64,
}

impl Runs {
    /// Nanoseconds a run.
    pub fn cost(&self) -> f64 {
        self.nanoseconds as f64 / self.count as f64
    }
}

/// Has the kernel keep them while this lives.
pub struct Kept(#[expect(dead_code, reason = "the kernel keeps statistics while it is open")] OwnedFd);

impl Kept {
    /// From now on.
    pub fn on() -> Result<Self> {
        Ok(Self(enable_stats(Stats::RunTime).context("have the kernel keep statistics of BPF programs")?))
    }
}

/// By the programs' names, which the kernel cuts to 15 bytes.
pub type ByProgram = BTreeMap<String, Runs>;

/// What the programs of a process, and of its children, have done so far.
pub fn of_process(pid: u32) -> Result<ByProgram> {
    let ids = program_ids(pid);
    let mut runs = ByProgram::new();
    for program in loaded_programs() {
        // One of another process may go away just now.
        let Ok(program) = program else { continue };
        if ids.contains(&program.id()) {
            let name = program.name_as_str().unwrap_or("?").to_owned();
            let of: &mut Runs = runs.entry(name).or_default();
            of.count += program.run_count();
            of.nanoseconds += u64::try_from(program.run_time().as_nanos()).unwrap_or(u64::MAX);
        }
    }
    Ok(runs)
}

/// What was done from `before` to `after`; what did not run is left out.
pub fn between(before: &ByProgram, after: &ByProgram) -> ByProgram {
    let since = |(name, after): (&String, &Runs)| {
        let before = before.get(name).copied().unwrap_or_default();
        let count = after.count.saturating_sub(before.count);
        let nanoseconds = after.nanoseconds.saturating_sub(before.nanoseconds);
        (count > 0).then(|| (name.clone(), Runs { count, nanoseconds }))
    };
    after.iter().filter_map(since).collect()
}

/// Programs that a process has open.
fn program_ids(pid: u32) -> HashSet<u32> {
    infos(pid).iter().filter(|info| info.contains("prog_type:")).filter_map(|info| field(info, "prog_id:")).collect()
}

/// Bytes that the kernel charges for the maps that a process has open.
pub fn map_memory(pid: u32) -> u64 {
    // A map may be open more than once.
    let maps: BTreeMap<u64, u64> = infos(pid)
        .iter()
        .filter(|info| info.contains("map_type:"))
        .filter_map(|info| Some((field(info, "map_id:")?, field(info, "memlock:")?)))
        .collect();
    maps.values().sum()
}

/// All of `/proc/PID/fdinfo` (`bpf_prog_show_fdinfo` and `bpf_map_show_fdinfo`, kernel/bpf/syscall.c).
fn infos(pid: u32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return Vec::new() };
    entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok()).collect()
}

fn field<T: std::str::FromStr>(info: &str, name: &str) -> Option<T> {
    info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}
