//! What the checks are made from. Everything was read outside of the core; what could not be read says why.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::destination::Destination;
use crate::core::judge::Judgement;
use crate::core::model::{LinkCounters, Policy, SecurityAssociation, Snapshot};
use crate::core::owner::Clues;
use crate::core::persist::Comparison;
use crate::core::report::cause::Cause;
use crate::core::tunnel::Tunnel;

/// What was found out, or why it is not known, in words.
pub type Known<T> = Result<T, NotKnown>;

/// Why something is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotKnown(pub String);

impl NotKnown {
    /// For this reason.
    #[must_use]
    pub fn because(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// A host and what was measured on it.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Its network state.
    pub snapshot: &'a Snapshot,
    /// Its tunnels.
    pub tunnels: &'a [Tunnel],
    /// What belongs into them.
    pub destinations: &'a [Destination],
    /// What `diagnose` finds.
    pub judgement: &'a Judgement,
    /// The causes of what it finds, worst first.
    pub causes: &'a [Cause],
    /// Signs of other programs.
    pub clues: &'a Clues,
    /// What was measured.
    pub measured: &'a Measured,
}

/// What was measured beside the routing.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Counters at the beginning.
    pub before: Sample,
    /// The same after [`Self::window`], in which vpnfix's own probes were sent.
    pub after: Sample,
    /// Time between the two.
    pub window: Duration,
    /// Policies of IPsec.
    pub policies: Known<Vec<Policy>>,
    /// Switches of IPsec, by interface index.
    pub switches: Known<BTreeMap<u32, Switches>>,
    /// By which device the encrypted packets of a tunnel leave, by the tunnel's interface index.
    pub outer: BTreeMap<u32, OuterPath>,
    /// strongSwan's IKE associations.
    pub ike: Known<Vec<IkeAssociation>>,
    /// BGP as a daemon tells it.
    pub bgp: Known<Bgp>,
    /// TCP sockets of the namespace.
    pub sockets: Known<Vec<TcpSocket>>,
    /// What came of the probes, one entry for each known peer.
    pub reach: Vec<Reach>,
    /// The host beside its network.
    pub machine: Machine,
}

/// Counters at one moment. Only their change means anything: a healthy tunnel counts errors before its SAs come up.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Of the interfaces, by index.
    pub links: BTreeMap<u32, LinkCounters>,
    /// The SAs with theirs.
    pub associations: Known<Vec<SecurityAssociation>>,
    /// `/proc/net/xfrm_stat`.
    pub xfrm: Known<Counters>,
    /// `/proc/net/netstat` and `/proc/net/snmp`, with nstat's names (`TcpExtIPReversePathFilter`).
    pub network: Known<Counters>,
}

/// Counters by the kernel's names; a kernel may know more or fewer.
pub type Counters = BTreeMap<String, u64>;

/// Switches of a device that turn IPsec off on it, as they take effect (`IN_DEV_ORCONF`: the device's own or that of all).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// `disable_policy`: no policy is checked for what comes in.
    pub disable_policy: bool,
    /// `disable_xfrm`: nothing is encrypted that leaves by it.
    pub disable_xfrm: bool,
}

/// The way of a tunnel's encrypted packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OuterPath {
    /// The device that they leave by.
    pub device: String,
    /// Its largest packet in bytes.
    pub mtu: Option<u32>,
}

/// An IKE association of strongSwan's (`list-sas` of vici).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IkeAssociation {
    /// Name of the connection.
    pub name: String,
    /// Outer address here.
    pub local: Option<IpAddr>,
    /// Outer address of the peer.
    pub remote: Option<IpAddr>,
    /// State, as the daemon spells it: `ESTABLISHED`, `CONNECTING`, `DELETING` …
    pub state: String,
    /// IKE version.
    pub version: Option<u32>,
    /// Seconds since it was established.
    pub established: Option<u64>,
    /// One of the two is behind NAT.
    pub behind_nat: bool,
    /// Its child associations: name and state.
    pub children: Vec<(String, String)>,
}

impl IkeAssociation {
    /// Is it up? While it is replaced by a new one, it still is.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.state.as_str(), "ESTABLISHED" | "REKEYING" | "REKEYED" | "PASSIVE")
    }
}

/// BGP as a daemon tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bgp {
    /// Name of the daemon: `FRR`, `BIRD`.
    pub daemon: String,
    /// Its neighbours, those outside of tunnels too.
    pub neighbours: Vec<Neighbour>,
}

/// A BGP neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Neighbour {
    /// Its address.
    pub address: IpAddr,
    /// State of the session.
    pub state: BgpState,
    /// Autonomous system here.
    pub local_as: Option<u32>,
    /// Autonomous system of the neighbour, as configured here.
    pub remote_as: Option<u32>,
    /// Seconds since the session was established.
    pub uptime: Option<u64>,
    /// Prefixes received and accepted.
    pub received: Option<u64>,
    /// Prefixes sent.
    pub sent: Option<u64>,
    /// Hold time in seconds, as agreed.
    pub hold_time: Option<u64>,
    /// The daemon's last error with it.
    pub last_error: Option<String>,
}

/// State of a BGP session (RFC 4271, section 8.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum BgpState {
    /// Does nothing, or waits before it tries again.
    Idle,
    /// Waits for its own connection.
    Connect,
    /// Waits for the neighbour's connection.
    Active,
    /// Has a connection, and sent its OPEN.
    OpenSent,
    /// Got the neighbour's OPEN.
    OpenConfirm,
    /// Is up.
    Established,
    /// Switched off by its configuration.
    Disabled,
    /// A word that vpnfix does not know.
    Unknown,
}

impl BgpState {
    /// From the daemon's word.
    #[must_use]
    pub fn named(word: &str) -> Self {
        match word.to_ascii_lowercase().as_str() {
            "idle" | "clearing" => Self::Idle,
            "connect" => Self::Connect,
            "active" => Self::Active,
            "opensent" => Self::OpenSent,
            "openconfirm" => Self::OpenConfirm,
            "established" => Self::Established,
            "down" | "deleted" => Self::Disabled,
            _ => Self::Unknown,
        }
    }
}

/// A TCP socket of the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSocket {
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
    /// Its state.
    pub state: TcpState,
}

/// State of a TCP socket (`include/net/tcp_states.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TcpState {
    /// A connection.
    Established,
    /// Asked for one, and waits for the answer.
    SynSent,
    /// Was asked for one, and waits for the last acknowledgement.
    SynReceived,
    /// Waits to be asked.
    Listen,
    /// Any other: on its way to its end.
    Closing,
}

/// What came of the probes to one peer, through one tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Interface index of the tunnel.
    pub tunnel: u32,
    /// The peer's inside address.
    pub peer: IpAddr,
    /// The address asked from.
    pub local: IpAddr,
    /// Echo requests.
    pub echoes: Known<Echoes>,
    /// The largest packet that gets through.
    pub path_mtu: Known<PathMtu>,
    /// BGP's port.
    pub bgp_port: Known<Port>,
}

/// What came of echo requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Echoes {
    /// Sent; those that the kernel refused to send do not count.
    pub sent: u64,
    /// Answered.
    pub answered: u64,
    /// From the last answered one to its answer.
    pub round_trip: Option<Duration>,
    /// Why the last one could not be sent.
    pub error: Option<String>,
}

/// The largest packet that gets through a tunnel unfragmented, inside IP header included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathMtu {
    /// Largest packet of the tunnel's device.
    pub device: u32,
    /// The largest that was answered.
    pub largest: u32,
    /// Larger ones were lost without a word: no "too big" came back.
    pub silent: bool,
}

/// What came of a connection to BGP's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Port {
    /// It was accepted (and closed again at once).
    Open,
    /// It was refused: nothing listens there.
    Refused,
    /// No answer.
    Silent,
    /// It could not be asked for.
    Failed(String),
    /// Not tried, because BGP has its own connection: a second one would disturb it (RFC 4724, section 4.2: it stands for a
    /// restart).
    InUse,
}

/// The host beside its network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Now, in seconds since the Unix epoch.
    pub now: u64,
    /// The kernel holds its clock for synchronised; `None` where it does not tell.
    pub clock_synchronised: Option<bool>,
    /// What is persisted beside what runs; `None` in another network namespace than the host's, which no manager keeps.
    pub persistence: Option<Known<Comparison>>,
}
