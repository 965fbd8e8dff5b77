//! Running processes of the programs that matter, by /proc.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use nix::unistd::{SysconfVar, sysconf};

use super::of_all_programs;
use crate::core::owner::{Process, Whereabouts};

/// Inode number of the first process id namespace (`PROC_PID_INIT_INO` in `include/linux/proc_ns.h`).
const FIRST_PID_NAMESPACE: u64 = 0xefff_fffc;

/// The inode number of the network namespace of a process or a thread, by its name in /proc.
pub(super) fn network_namespace(process: &str) -> Option<u64> {
    namespace(process, "net").ok()
}

fn namespace(process: &str, kind: &str) -> io::Result<u64> {
    fs::metadata(format!("/proc/{process}/ns/{kind}")).map(|metadata| metadata.ino())
}

/// The processes by name, with where they run seen from the namespace `here`, and whether all of the host's could be
/// seen.
pub(super) fn gather(here: Option<u64>) -> (Vec<Process>, bool) {
    let names = of_all_programs(|signs| signs.processes);
    let boot = fs::read_to_string("/proc/stat").ok().and_then(|stat| boot_time(&stat));
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut processes: Vec<Process> = pids.filter_map(|pid| process(pid, &names, here, boot)).collect();
    processes.sort_by_key(|process| process.pid);
    // Another process id namespace hides the rest of the host, as /proc mounted with `hidepid` does.
    let first = namespace("self", "pid").is_ok_and(|inode| inode == FIRST_PID_NAMESPACE);
    (processes, first && name(1).is_some())
}

/// The name of a process, if it lives and may be looked at.
#[must_use]
pub fn name(pid: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|comm| comm.trim_end().to_string())
}

fn process(pid: u32, names: &[&str], here: Option<u64>, boot: Option<u64>) -> Option<Process> {
    let name = name(pid).filter(|name| names.contains(&name.as_str()))?;
    let whereabouts = match (namespace(&pid.to_string(), "net"), here) {
        (Ok(inode), Some(here)) if inode == here => Whereabouts::Here,
        (Ok(_), Some(_)) => Whereabouts::Elsewhere,
        // It has ended meanwhile.
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => return None,
        (Err(_), _) | (_, None) => Whereabouts::Unknown,
    };
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    let started = stat.and_then(|stat| start_time(&stat, boot?));
    Some(Process { name, pid, whereabouts, started })
}

/// When the host was booted, in seconds since the Unix epoch (`btime`, proc_stat(5)).
fn boot_time(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// When a process was started, in seconds since the Unix epoch: field 22 of proc_pid_stat(5), in ticks since boot. The
/// second field is the name in brackets, which may hold spaces and brackets itself.
fn start_time(stat: &str, boot: u64) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u64::try_from(ticks).ok())?;
    boot.checked_add(ticks.checked_div(per_second)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_found_behind_any_name() {
        // From proc_pid_stat(5): 22 is starttime; 250 ticks are 2 seconds at 100 a second.
        let stat = "812 (a) b (c) S 1 812 812 0 -1 4194560 5 0 0 0 1 2 0 0 20 0 17 0 250 1 2 3";
        assert_eq!(start_time(stat, 1_700_000_000), Some(1_700_000_002));
        assert_eq!(start_time("812 (charon) S 1", 1_700_000_000), None);
        assert_eq!(start_time("nonsense", 1_700_000_000), None);
    }

    #[test]
    fn the_boot_is_found_among_the_counters() {
        assert_eq!(boot_time("cpu 1 2 3\nintr 5\nbtime 1700000000\nprocesses 9\n"), Some(1_700_000_000));
        assert_eq!(boot_time("cpu 1 2 3\n"), None);
    }

    #[test]
    fn this_test_runs_here() {
        let me = std::process::id();
        let name = name(me).unwrap();
        let here = network_namespace("thread-self");
        let boot = boot_time(&fs::read_to_string("/proc/stat").unwrap());
        let found = process(me, &[name.as_str()], here, boot).unwrap();
        assert_eq!((found.pid, found.whereabouts), (me, Whereabouts::Here));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let started = found.started.unwrap();
        // A day for a test run, two seconds for the rounding of the boot's time.
        assert!(started <= now + 2 && started + 86_400 > now, "{started} {now}");
        assert_eq!(process(me, &["charon"], here, boot), None);
        let elsewhere = process(me, &[name.as_str()], Some(1), boot).unwrap();
        assert_eq!(elsewhere.whereabouts, Whereabouts::Elsewhere);
    }
}
