//! Routes.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Family;

/// One route of one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Family.
    pub family: Family,
    /// Destination prefix; `0.0.0.0/0` or `::/0` for a default route.
    pub destination: IpNet,
    /// Source prefix of an IPv6 source-specific route.
    pub source: Option<IpNet>,
    /// Table.
    pub table: u32,
    /// What it does with a packet.
    pub kind: RouteKind,
    /// Who installed it (`RTPROT_*`).
    pub protocol: u8,
    /// Scope (`RT_SCOPE_*`).
    pub scope: u8,
    /// Type of service that it is for, 0 for any.
    pub tos: u8,
    /// Metric (`RTA_PRIORITY`), the smaller wins.
    pub metric: u32,
    /// Source address that it prefers (`src`).
    pub preferred_source: Option<IpAddr>,
    /// Where it goes: none for unreachable and the like, several for multipath.
    pub nexthops: Vec<Nexthop>,
    /// Id of the nexthop object that it uses.
    pub nexthop_object: Option<u32>,
    /// Preference among IPv6 routes of equal metric.
    #[serde(default)]
    pub preference: Preference,
}

/// Preference of an IPv6 route among those of equal metric (`RTA_PREF`, RFC 4191).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preference {
    /// Low.
    Low,
    /// Medium: all that say nothing.
    #[default]
    Medium,
    /// High.
    High,
}

/// One nexthop of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nexthop {
    /// Index of the output interface.
    pub ifindex: Option<u32>,
    /// Gateway, if it is not on-link. May be of the other family.
    pub gateway: Option<IpAddr>,
    /// Weight among several (1 is the least).
    pub weight: u16,
    /// `RTNH_F_DEAD`: the device is down.
    pub dead: bool,
    /// `RTNH_F_LINKDOWN`: the carrier is down.
    pub linkdown: bool,
}

/// Type of a route (`RTN_*`, `include/uapi/linux/rtnetlink.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RouteKind {
    /// A gateway or a directly reachable destination.
    Unicast,
    /// Accepted here.
    Local,
    /// Accepted here as broadcast, sent as broadcast.
    Broadcast,
    /// Accepted here as broadcast, sent as unicast.
    Anycast,
    /// A multicast group.
    Multicast,
    /// Dropped in silence.
    Blackhole,
    /// Refused: destination unreachable.
    Unreachable,
    /// Refused: administratively prohibited.
    Prohibit,
    /// The lookup goes on with the next rule.
    Throw,
    /// Another type, by its number.
    Other(u8),
}

impl RouteKind {
    /// The name that `ip route` uses.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Unicast => "unicast".into(),
            Self::Local => "local".into(),
            Self::Broadcast => "broadcast".into(),
            Self::Anycast => "anycast".into(),
            Self::Multicast => "multicast".into(),
            Self::Blackhole => "blackhole".into(),
            Self::Unreachable => "unreachable".into(),
            Self::Prohibit => "prohibit".into(),
            Self::Throw => "throw".into(),
            Self::Other(number) => number.to_string(),
        }
    }
}

impl Route {
    /// Does it refuse the packet (`fib_props`, `net/ipv4/fib_semantics.c`)? A `throw` route does not.
    #[must_use]
    pub fn refuses(&self) -> bool {
        matches!(self.kind, RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit)
    }

    /// Does it leave by this device (any of its nexthops)?
    #[must_use]
    pub fn leaves_by(&self, ifindex: u32) -> bool {
        self.nexthops.iter().any(|nexthop| nexthop.ifindex == Some(ifindex))
    }
}

/// The name of a route protocol number (`/etc/iproute2/rt_protos`), the number where it has none.
#[must_use]
pub fn protocol_name(protocol: u8) -> String {
    let name = match protocol {
        0 => "unspec",
        1 => "redirect",
        2 => "kernel",
        3 => "boot",
        4 => "static",
        9 => "ra",
        11 => "zebra",
        12 => "bird",
        16 => "dhcp",
        18 => "keepalived",
        42 => "babel",
        118 => "vpnfix",
        186 => "bgp",
        187 => "isis",
        188 => "ospf",
        189 => "rip",
        192 => "eigrp",
        number => return number.to_string(),
    };
    name.into()
}

/// Prints the route's selector and kind, as `ip route` would begin its line.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind != RouteKind::Unicast {
            write!(f, "{} ", self.kind.name())?;
        }
        if self.destination.prefix_len() == 0 { write!(f, "default") } else { write!(f, "{}", self.destination) }
    }
}
