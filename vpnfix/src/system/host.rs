//! The host and this process: kernel, name, privileges, resolvers, TCP peers, clocks.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use nix::sys::utsname::uname;
use nix::time::{ClockId, clock_gettime};
use thiserror::Error;

use crate::core::control::TcpConnection;
use crate::core::model::HostFacts;
use crate::core::story::WallClock;

/// A file of the host that cannot be read.
#[derive(Debug, Error)]
#[error("read {path}")]
pub struct HostError {
    path: &'static str,
    #[source]
    source: io::Error,
}

fn read(path: &'static str) -> Result<String, HostError> {
    // These files hold what others wrote; one odd byte must not hide the rest.
    fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .map_err(|source| HostError { path, source })
}

/// Where the kernel shows the machine's maker (`drivers/firmware/dmi-id.c`); not on every machine.
const VENDOR: &str = "/sys/class/dmi/id/sys_vendor";

/// Kernel release and host name (`uname`), empty where the kernel does not tell, and the machine's maker.
#[must_use]
pub fn facts() -> HostFacts {
    let vendor = read(VENDOR).ok().map(|text| text.trim().to_owned()).filter(|vendor| !vendor.is_empty());
    let Ok(names) = uname() else { return HostFacts { vendor, ..HostFacts::default() } };
    HostFacts {
        vendor,
        kernel: names.release().to_string_lossy().into_owned(),
        hostname: names.nodename().to_string_lossy().into_owned(),
    }
}

/// A capability that vpnfix has a use for (capabilities(7)), with its bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Capability {
    /// Changing rules and routes, reading XFRM state.
    NetAdmin = 12,
    /// Sending the probe.
    NetRaw = 13,
    /// Entering another network namespace.
    SysAdmin = 21,
    /// Reading kernel symbols.
    Syslog = 34,
    /// Loading tracing programs.
    Perfmon = 38,
    /// Loading BPF programs.
    Bpf = 39,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::NetAdmin, Self::NetRaw, Self::SysAdmin, Self::Syslog, Self::Perfmon, Self::Bpf];

    /// The name in capabilities(7).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::NetRaw => "CAP_NET_RAW",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::Syslog => "CAP_SYSLOG",
            Self::Perfmon => "CAP_PERFMON",
            Self::Bpf => "CAP_BPF",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The effective capabilities of the calling thread, as far as vpnfix has a use for them.
///
/// # Errors
/// If /proc cannot be read.
pub fn capabilities() -> Result<BTreeSet<Capability>, HostError> {
    let path = "/proc/thread-self/status";
    let status = read(path)?;
    parse_capabilities(&status)
        .ok_or_else(|| HostError { path, source: io::Error::new(io::ErrorKind::InvalidData, "no CapEff line") })
}

fn parse_capabilities(status: &str) -> Option<BTreeSet<Capability>> {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    Some(Capability::ALL.into_iter().filter(|capability| mask & (1 << *capability as u8) != 0).collect())
}

/// Is the effective user root?
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// May this process write into a directory (access(2))?
#[must_use]
pub fn may_write(directory: &std::path::Path) -> bool {
    nix::unistd::access(directory, nix::unistd::AccessFlags::W_OK).is_ok()
}

/// The name servers of /etc/resolv.conf; none if there is no such file.
///
/// # Errors
/// If it is there and cannot be read.
pub fn resolvers() -> Result<Vec<IpAddr>, HostError> {
    match read("/etc/resolv.conf") {
        Ok(text) => Ok(parse_resolvers(&text)),
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// resolv.conf(5); lines that make no sense are passed over, as the resolver does.
fn parse_resolvers(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = (words.next() == Some("nameserver")).then(|| words.next()).flatten()?;
        // A link-local server may have its interface behind a percent sign.
        address.split('%').next()?.parse().ok()
    };
    text.lines().filter_map(server).collect()
}

/// All established TCP connections in the calling thread's network namespace. IPv4 addresses mapped into IPv6 are told
/// as IPv4.
///
/// # Errors
/// If /proc cannot be read. A kernel without IPv6 has no IPv6 ones.
pub fn established() -> Result<BTreeSet<TcpConnection>, HostError> {
    let mut connections = parse_connections(&read("/proc/thread-self/net/tcp")?);
    match read("/proc/thread-self/net/tcp6") {
        Ok(table) => connections.extend(parse_connections(&table)),
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(connections)
}

/// A table of `/proc/net/tcp` or `tcp6` (proc(5)): slot, local, remote, state …; state 01 is established.
fn parse_connections(table: &str) -> BTreeSet<TcpConnection> {
    let connection = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (local, remote) = (words.next()?, words.next()?);
        if words.next()? != "01" {
            return None;
        }
        let address = |end: &str| parse_address(end.split(':').next()?);
        Some(TcpConnection { local: address(local)?, peer: address(remote)? })
    };
    table.lines().filter_map(connection).collect()
}

/// The kernel prints an address as 32-bit words in host byte order of what lies in memory in network byte order.
pub(super) fn parse_address(hexadecimal: &str) -> Option<IpAddr> {
    let word = |index: usize| {
        let digits = hexadecimal.get(index * 8..index * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    match hexadecimal.len() {
        8 => word(0).map(|octets| Ipv4Addr::from(octets).into()),
        32 => {
            let mut octets = [0; 16];
            for (index, chunk) in octets.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(index)?);
            }
            Some(Ipv6Addr::from(octets).to_canonical())
        }
        _ => None,
    }
}

/// The kernel's name for the time since it was booted, a UUID: what dies with the kernel is gone under another one
/// (`drivers/char/random.c`).
///
/// # Errors
/// If /proc cannot be read.
pub fn boot_id() -> Result<String, HostError> {
    let path = "/proc/sys/kernel/random/boot_id";
    let id = read(path)?.trim().to_owned();
    if id.is_empty() {
        return Err(HostError { path, source: io::Error::new(io::ErrorKind::InvalidData, "it is empty") });
    }
    Ok(id)
}

/// The user who logged in, also behind sudo (`/proc/self/loginuid`, kept by the kernel's audit); `None` for what no login
/// started, and where the kernel does not keep it.
#[must_use]
pub fn login_uid() -> Option<u32> {
    read("/proc/self/loginuid").ok()?.trim().parse().ok().filter(|uid| *uid != u32::MAX)
}

/// The real user of this process.
#[must_use]
pub fn uid() -> u32 {
    nix::unistd::getuid().as_raw()
}

/// Now, in seconds since the Unix epoch.
#[must_use]
pub fn unix_time() -> u64 {
    nanoseconds(ClockId::CLOCK_REALTIME) / 1_000_000_000
}

/// Now by `CLOCK_MONOTONIC`, in nanoseconds: the clock of `bpf_ktime_get_ns`.
#[must_use]
pub fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::CLOCK_MONOTONIC)
}

/// What to add to a `CLOCK_MONOTONIC` time to get the time since the Unix epoch, as of now: setting the clock changes it.
#[must_use]
pub fn wall_clock_offset() -> Duration {
    let monotonic = monotonic_ns();
    Duration::from_nanos(nanoseconds(ClockId::CLOCK_REALTIME).saturating_sub(monotonic))
}

/// The relation of the two clocks as of now, to tell `CLOCK_MONOTONIC` times by.
#[must_use]
pub fn wall_clock() -> WallClock {
    WallClock { offset_ns: i64::try_from(wall_clock_offset().as_nanos()).unwrap_or(0) }
}

fn nanoseconds(clock: ClockId) -> u64 {
    // Both clocks exist on every Linux, so reading them does not fail.
    clock_gettime(clock).map_or(0, |time| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec()).unwrap_or(0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_mask() {
        let status = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t0000008000003000\nCapBnd:\t000001ffffffffff\n";
        let found = parse_capabilities(status).unwrap();
        assert_eq!(found, BTreeSet::from([Capability::NetAdmin, Capability::NetRaw, Capability::Bpf]));
        assert_eq!(parse_capabilities("CapEff:\tnonsense\n"), None);
        assert_eq!(parse_capabilities(""), None);
    }

    #[test]
    fn resolvers_are_found_among_all_else() {
        let text = "# comment\nnameserver 169.254.169.253\n search x\n\tnameserver fe80::1%eth0 # local\nnameserver\nnameserver x\n";
        let expected: Vec<IpAddr> = vec!["169.254.169.253".parse().unwrap(), "fe80::1".parse().unwrap()];
        assert_eq!(parse_resolvers(text), expected);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn only_established_connections_are_told() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n\
            1: 3137FEA9:0016 3537FEA9:C001 01 00000000:00000000\n\
            2: 3137FEA9:0016 0501A8C0:C001 06 00000000:00000000\n\
            3: broken\n\
            4: 0 0:0 01\n";
        let ends =
            |local: &str, peer: &str| TcpConnection { local: local.parse().unwrap(), peer: peer.parse().unwrap() };
        assert_eq!(parse_connections(table), BTreeSet::from([ends("169.254.55.49", "169.254.55.53")]));
        let table6 = "0: B80D0120000000000000000002000000:0 B80D0120000000000000000001000000:0016 01\n\
            1: 0000000000000000FFFF0000020200C0:0 0000000000000000FFFF0000010200C0:0016 01\n";
        let expected = [ends("2001:db8::2", "2001:db8::1"), ends("192.0.2.2", "192.0.2.1")];
        assert_eq!(parse_connections(table6), BTreeSet::from(expected));
        assert_eq!(parse_address("ééééé"), None);
    }

    #[test]
    fn clocks_and_facts_are_there() {
        let first = monotonic_ns();
        assert!(first > 0 && monotonic_ns() >= first);
        assert!(wall_clock_offset() > Duration::ZERO);
        assert!(!facts().kernel.is_empty());
    }
}
