//! A host in network namespaces of this process: the incident's gateway, with devices that throw away what they are given.
//!
//! `ifb` devices stand for the physical one and for the tunnel: without a redirection they drop each packet at once and without a
//! trace, so what is measured is the way of a packet to its device, and nothing behind it.

use std::fs;

use anyhow::{Context, Result, bail};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::process::{self, ip_batch};

/// The device that the hijacker's default route leaves by.
pub const PHYSICAL: &str = "ens5";
/// The tunnel's device.
pub const TUNNEL: &str = "vti1";
/// The tunnel's peer, inside.
pub const PEER: &str = "169.254.55.53";

/// Gives this process mounts of its own, with the tracing file systems that perf, trace-cmd and bpftrace read.
pub fn own_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("unshare the mounts")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("keep the mounts apart")?;
    for (kind, place) in [("tracefs", "/sys/kernel/tracing"), ("debugfs", "/sys/kernel/debug")] {
        // Where it cannot be mounted, the tools that need it say so.
        if let Err(error) = mount(Some(kind), place, Some(kind), MsFlags::empty(), none) {
            eprintln!("bench: {kind} is not mounted: {error}");
        }
    }
    keep_ftrace_enabled();
    Ok(())
}

/// trace-cmd switches the kernel's function tracing on before it records anything. Where a program is attached for good (an
/// LSM's, say) the kernel refuses even to be told what is so already; a file of ours in the place of the switch is told instead.
fn keep_ftrace_enabled() {
    const SWITCH: &str = "/proc/sys/kernel/ftrace_enabled";
    if fs::read_to_string(SWITCH).is_ok_and(|value| value.trim() == "1") && fs::write(SWITCH, "1").is_err() {
        let place = std::env::temp_dir().join(format!("vpnfix-bench-ftrace-{}", std::process::id()));
        let bound = fs::write(&place, "1\n").is_ok()
            && mount(Some(&place), SWITCH, None::<&str>, MsFlags::MS_BIND, None::<&str>).is_ok();
        // The mount keeps the file.
        let removed = fs::remove_file(&place);
        if !bound || removed.is_err() {
            eprintln!("bench: the switch of function tracing cannot be covered; trace-cmd may not work");
        }
    }
}

/// Enters a new network namespace; the one before ends when nothing uses it any more. Threads and programs that are started
/// from now on live in it.
pub fn new_network() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("unshare the network")?;
    ip_batch(["link set lo up"])
}

/// The gateway with one tunnel and what BGP has learned, before strongSwan comes.
pub fn healthy() -> Result<()> {
    new_network()?;
    ip_batch([
        "link add ens5 type ifb",
        "link add vti1 type ifb",
        "link set ens5 addrgenmode none",
        "link set vti1 addrgenmode none",
        "addr add 192.168.12.49/24 dev ens5",
        "addr add 2001:db8:12::49/64 dev ens5 nodad",
        "addr add 169.254.55.54/30 dev vti1",
        "addr add fd00:55::2/126 dev vti1 nodad",
        "link set ens5 up",
        "link set vti1 up",
        "route add default via 192.168.12.1 dev ens5",
        "route add ::/0 via 2001:db8:12::1 dev ens5",
        "route add 10.20.0.0/16 via 169.254.55.53 dev vti1 proto bgp metric 20",
        "route add 2001:db8:20::/48 via fd00:55::1 dev vti1 proto bgp metric 20",
    ])?;
    if !fs::read_to_string("/proc/thread-self/net/dev").is_ok_and(|devices| devices.contains(TUNNEL)) {
        bail!("the devices were not made");
    }
    Ok(())
}

/// What strongSwan adds: table 220 with a default route, and the rule to it, in both families.
pub fn hijack() -> Result<()> {
    ip_batch([
        "route add default via 192.168.12.1 dev ens5 proto static table 220",
        "route add ::/0 via 2001:db8:12::1 dev ens5 proto static table 220",
        "rule add from all lookup 220 priority 220",
    ])?;
    // A batch has no way to say the family of a rule without addresses.
    process::output("ip", &["-6", "rule", "add", "from", "all", "lookup", "220", "priority", "220"])?;
    Ok(())
}

/// How many packets a device was handed in this namespace (`/proc/net/dev`: an `ifb` counts them as received).
pub fn packets(device: &str) -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/dev").context("read /proc/net/dev")?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'));
    let count = line.and_then(|fields| fields.split_whitespace().nth(1)?.parse().ok());
    count.with_context(|| format!("{device} is not in /proc/net/dev"))
}
