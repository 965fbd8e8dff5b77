//! The independent readers: where the kernel says a packet goes, whether it is answered, what the devices counted.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};

use super::command;
use crate::commands::lab::ip::{Ip, Target};
use crate::commands::lab::layout::{BGP_PORT, HIJACKER_TABLE, Host, Names, PHYSICAL_DEVICE, REMOTE_HOST, TUNNELS};
use crate::commands::lab::netns;

/// How long a TCP connection may take.
const CONNECT_WITHIN: Duration = Duration::from_millis(1500);

/// What the play looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// The address asked about.
    pub address: Ipv4Addr,
    /// For the reader.
    pub what: &'static str,
    /// The tunnels that may carry it.
    pub tunnels: &'static [&'static str],
}

/// Both BGP neighbours, and a host behind the tunnels.
pub const DESTINATIONS: [Destination; 3] = [
    Destination { address: TUNNELS[0].peer, what: "BGP neighbour 1", tunnels: &["vti1"] },
    Destination { address: TUNNELS[1].peer, what: "BGP neighbour 2", tunnels: &["vti2"] },
    Destination { address: REMOTE_HOST, what: "behind the VPN", tunnels: &["vti1"] },
];

/// What the readers said of one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Device that `ip route get` names.
    pub device: String,
    /// Table that it names: `main` where it names none.
    pub table: String,
    /// Whether `ping` had an answer.
    pub ping: bool,
    /// Whether TCP port 179 could be connected to.
    pub tcp: bool,
}

impl Reading {
    /// In what way this is not a reading of traffic that goes by the tunnel and is answered; `None` if it is.
    pub fn not_right(&self, destination: &Destination) -> Option<String> {
        let (device, address) = (&self.device, destination.address);
        if !destination.tunnels.contains(&device.as_str()) {
            let tunnels = destination.tunnels.join(" or ");
            return Some(format!("{address} leaves by {device} (table {}), not by {tunnels}", self.table));
        }
        self.silent().map(|reader| format!("{reader} has no answer from {address}"))
    }

    /// In what way this is not a reading of hijacked traffic that nobody answers; `None` if it is.
    pub fn not_hijacked(&self, destination: &Destination) -> Option<String> {
        let address = destination.address;
        if self.device != PHYSICAL_DEVICE || self.table != HIJACKER_TABLE.to_string() {
            return Some(format!(
                "{address} leaves by {} (table {}), not by {PHYSICAL_DEVICE} (table {HIJACKER_TABLE})",
                self.device, self.table
            ));
        }
        if self.ping {
            return Some(format!("ping has an answer from {address}"));
        }
        self.tcp.then(|| format!("TCP 179 of {address} could be connected to"))
    }

    const fn silent(&self) -> Option<&'static str> {
        match (self.ping, self.tcp) {
            (false, _) => Some("ping"),
            (_, false) => Some("TCP 179"),
            _ => None,
        }
    }
}

/// The readers, set up in the gateway's namespace.
#[derive(Debug)]
pub struct Readers {
    /// iproute2.
    pub ip: Ip,
    /// The `ip` program's file.
    pub ip_file: PathBuf,
    /// The gateway's namespace.
    pub cgw: String,
    /// The file that names it.
    pub cgw_path: PathBuf,
}

impl Readers {
    /// Readers of a lab's gateway.
    pub fn new(ip: &Ip, names: &Names) -> Self {
        Self {
            ip: ip.clone(),
            ip_file: ip.program().clone(),
            cgw: names.of(Host::Cgw),
            cgw_path: names.path(Host::Cgw),
        }
    }

    /// Asks about all destinations, at once: an unanswered ping takes its time.
    pub fn read_all(&self) -> anyhow::Result<Vec<Reading>> {
        thread::scope(|scope| {
            let threads: Vec<_> = DESTINATIONS.iter().map(|d| scope.spawn(|| self.read(d))).collect();
            threads.into_iter().map(|t| t.join().map_err(|_| anyhow!("a reader panicked"))?).collect()
        })
    }

    fn read(&self, destination: &Destination) -> anyhow::Result<Reading> {
        let address = destination.address;
        let (device, table) = self.route(address)?;
        let (ping, tcp) = thread::scope(|scope| {
            let ping = scope.spawn(|| self.ping(address, None));
            let tcp = self.connect(address);
            ping.join().map_err(|_| anyhow!("a reader panicked"))?.and_then(|ping| Ok((ping, tcp?)))
        })?;
        Ok(Reading { device, table, ping, tcp })
    }

    /// `ip route get`: device and table.
    fn route(&self, address: Ipv4Addr) -> anyhow::Result<(String, String)> {
        let answer = self.ip.json(Target::Netns(&self.cgw), &["route", "get", &address.to_string()])?;
        let route = answer.get(0).context("`ip route get` names no route")?;
        let text = |field: &str| route.get(field).and_then(|value| value.as_str()).map(str::to_owned);
        let device = text("dev").context("`ip route get` names no device")?;
        Ok((device, text("table").unwrap_or_else(|| "main".to_owned())))
    }

    /// All rules with all their attributes, IPv4 and IPv6.
    pub fn rules(&self) -> anyhow::Result<String> {
        let mut all = String::new();
        for family in ["-4", "-6"] {
            let arguments = [family, "-n", &self.cgw, "-d", "rule"].map(str::to_owned);
            let finished = command::run(&self.ip_file, &arguments, &[])?;
            if finished.status != Some(0) {
                return Err(anyhow!("`ip {}` failed: {}", arguments.join(" "), finished.stderr.trim()));
            }
            all.push_str(&finished.stdout);
        }
        Ok(all)
    }

    /// The arguments of a ping from inside the gateway, for `ip`.
    pub fn ping_arguments(&self, address: Ipv4Addr, device: Option<&str>) -> Vec<String> {
        let mut words = vec!["netns", "exec", &self.cgw, "ping", "-n", "-c", "2", "-i", "0.3", "-W", "1"];
        if let Some(device) = device {
            words.extend(["-I", device]);
        }
        let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        words.push(address.to_string());
        words
    }

    /// Whether `ping` has an answer.
    pub fn ping(&self, address: Ipv4Addr, device: Option<&str>) -> anyhow::Result<bool> {
        let finished = command::run(&self.ip_file, &self.ping_arguments(address, device), &[])?;
        match finished.status {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => Err(anyhow!("ping {address} could not be run: {}", finished.stderr.trim())),
        }
    }

    /// Whether TCP port 179 can be connected to.
    fn connect(&self, address: Ipv4Addr) -> anyhow::Result<bool> {
        let target = SocketAddr::from((address, BGP_PORT));
        Ok(netns::inside(&self.cgw_path, || TcpStream::connect_timeout(&target, CONNECT_WITHIN).is_ok())?)
    }

    /// Packets that a device has sent, by the kernel's own count.
    pub fn sent(&self, device: &str) -> anyhow::Result<u64> {
        let answer = self.ip.json(Target::Netns(&self.cgw), &["-s", "link", "show", "dev", device])?;
        let packets = answer.pointer("/0/stats64/tx/packets").and_then(serde_json::Value::as_u64);
        packets.with_context(|| format!("`ip -s link` shows no counter of {device}"))
    }
}
