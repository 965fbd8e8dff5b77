//! The lab's hosts, links and addresses: those of the incident.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// Where iproute2 keeps the names of network namespaces (`ip-netns(8)`).
pub const NETNS_DIR: &str = "/run/netns";

/// A host of the lab, each a network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// The customer gateway: the EC2 instance with strongSwan.
    Cgw,
    /// The VPC's router. What it has no route for it drops silently, as a VPC does.
    Rtr,
    /// AWS's endpoint of the first tunnel.
    Aws1,
    /// AWS's endpoint of the second tunnel.
    Aws2,
}

/// All hosts of the lab.
pub const HOSTS: [Host; 4] = [Host::Cgw, Host::Rtr, Host::Aws1, Host::Aws2];

/// The gateway's physical device.
pub const PHYSICAL_DEVICE: &str = "ens5";
/// The gateway's address on its physical device, and the tunnels' outer local address.
pub const CGW_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 12, 49);
/// The router's address on the gateway's link.
pub const ROUTER_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 12, 1);
/// Prefix behind both tunnels, as BGP would have taught it.
pub const REMOTE_PREFIX: &str = "10.20.0.0/16";
/// A host behind the tunnels; both endpoints answer for it.
pub const REMOTE_HOST: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
/// strongSwan's routing table, and the priority of its rule.
pub const HIJACKER_TABLE: u32 = 220;
/// The port of BGP.
pub const BGP_PORT: u16 = 179;

/// One of the two tunnels.
#[derive(Debug)]
pub struct Tunnel {
    /// Name of the tunnel's device, at both ends.
    pub device: &'static str,
    /// VTI key, mark of the policies and reqid.
    pub key: u32,
    /// The host at the far end.
    pub endpoint: Host,
    /// The far end's outer address.
    pub outside: Ipv4Addr,
    /// The router's address on the link to the far end.
    pub outside_router: Ipv4Addr,
    /// The router's device towards the far end.
    pub router_device: &'static str,
    /// The gateway's inside address.
    pub local: Ipv4Addr,
    /// The far end's inside address: the BGP neighbour.
    pub peer: Ipv4Addr,
    /// Hardware address of both ends of the veth pair that stands in where the kernel has no VTI: as both are the same,
    /// the devices need no ARP, which a VTI has none of either.
    pub hardware: &'static str,
    /// SPI of the SA from the gateway to the far end.
    pub spi_out: u32,
    /// SPI of the SA from the far end to the gateway.
    pub spi_in: u32,
}

/// Both tunnels.
pub const TUNNELS: [Tunnel; 2] = [
    Tunnel {
        device: "vti1",
        key: 1,
        endpoint: Host::Aws1,
        outside: Ipv4Addr::new(203, 0, 113, 10),
        outside_router: Ipv4Addr::new(203, 0, 113, 9),
        router_device: "wan1",
        local: Ipv4Addr::new(169, 254, 55, 54),
        peer: Ipv4Addr::new(169, 254, 55, 53),
        hardware: "02:00:00:00:37:01",
        spi_out: 0xc000_0101,
        spi_in: 0xc000_0102,
    },
    Tunnel {
        device: "vti2",
        key: 2,
        endpoint: Host::Aws2,
        outside: Ipv4Addr::new(203, 0, 113, 18),
        outside_router: Ipv4Addr::new(203, 0, 113, 17),
        router_device: "wan2",
        local: Ipv4Addr::new(169, 254, 253, 50),
        peer: Ipv4Addr::new(169, 254, 253, 49),
        hardware: "02:00:00:00:fd:02",
        spi_out: 0xc000_0201,
        spi_in: 0xc000_0202,
    },
];

/// How the tunnels of a lab are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelKind {
    /// VTI devices and static ESP SAs.
    Vti,
    /// A veth pair in each tunnel's place: the kernel has no VTI or no ESP.
    Veth,
}

impl TunnelKind {
    /// The word that stands for it in the lab's state file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Vti => "vti",
            Self::Veth => "veth",
        }
    }

    /// The reverse of [`Self::word`].
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Vti, Self::Veth].into_iter().find(|kind| kind.word() == word)
    }

    /// What vpnfix must be told so that it takes these devices for tunnels, with a leading blank, or nothing.
    pub const fn options(self) -> &'static str {
        match self {
            Self::Vti => "",
            Self::Veth => " --tunnel vti1 --tunnel vti2",
        }
    }
}

/// The names of one lab's namespaces.
#[derive(Debug, Clone)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// Names that begin with `prefix`, which must be fit to be part of a file name.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The prefix itself.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Name of a host's namespace.
    pub fn of(&self, host: Host) -> String {
        let suffix = match host {
            Host::Cgw => "cgw",
            Host::Rtr => "rtr",
            Host::Aws1 => "aws1",
            Host::Aws2 => "aws2",
        };
        format!("{}-{suffix}", self.prefix)
    }

    /// File that names a host's namespace.
    pub fn path(&self, host: Host) -> PathBuf {
        Path::new(NETNS_DIR).join(self.of(host))
    }

    /// The namespaces that are there.
    pub fn present(&self) -> Vec<String> {
        HOSTS.iter().filter(|host| self.path(**host).symlink_metadata().is_ok()).map(|host| self.of(*host)).collect()
    }
}
