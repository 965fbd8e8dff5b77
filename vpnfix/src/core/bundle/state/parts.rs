//! What the files of a state hold.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::model::{
    Direction, Family, LinkCounters, LinkKind, Mark, Policy, Route, Rule, SaMode, SecurityAssociation, Snapshot,
};
use crate::core::verify::Neighbour as BgpNeighbour;

/// More routes are not kept; how many there are is told.
pub const MOST_ROUTES: usize = 10_000;

/// When a state was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Taken {
    /// When reading began, RFC 3339, UTC.
    pub began: String,
    /// When it ended.
    pub ended: String,
}

/// A policy rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuleState {
    /// Family.
    pub family: Family,
    /// Priority.
    pub priority: u32,
    /// As `ip rule` shows it, without the priority.
    pub text: String,
    /// Table that it looks up.
    pub table: Option<u32>,
    /// Who made it (`RTPROT_*`; 118 is vpnfix).
    pub protocol: u8,
    /// The command that adds it.
    pub add: String,
}

impl RuleState {
    /// That of a rule.
    #[must_use]
    pub fn of(rule: &Rule) -> Self {
        Self {
            family: rule.family,
            priority: rule.priority,
            text: rule.words(),
            table: rule.table(),
            protocol: rule.protocol,
            add: rule.add_command(),
        }
    }
}

/// Routes, as far as they are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Routes {
    /// How many there are in the tables that were read.
    pub count: usize,
    /// The first of them.
    pub routes: Vec<RouteState>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RouteState {
    /// Family.
    pub family: Family,
    /// Table.
    pub table: u32,
    /// As `ip route` shows it.
    pub text: String,
}

impl Routes {
    /// Those of a snapshot but for table local, whose routes are the host's own addresses.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        let told = |route: &&Route| route.table != crate::core::model::TABLE_LOCAL;
        let state =
            |route: &Route| RouteState { family: route.family, table: route.table, text: route_words(route, snapshot) };
        Self {
            count: snapshot.routes.iter().filter(told).count(),
            routes: snapshot.routes.iter().filter(told).take(MOST_ROUTES).map(state).collect(),
        }
    }
}

/// A route in the words of `ip route`, without its table.
fn route_words(route: &Route, snapshot: &Snapshot) -> String {
    let mut words = vec![route.to_string()];
    for nexthop in &route.nexthops {
        if route.nexthops.len() > 1 {
            words.push("nexthop".into());
        }
        words.extend(nexthop.gateway.map(|gateway| format!("via {gateway}")));
        words.extend(nexthop.ifindex.map(|index| format!("dev {}", snapshot.device_name(index))));
        words.extend(nexthop.dead.then(|| "dead".to_string()));
        words.extend(nexthop.linkdown.then(|| "linkdown".to_string()));
    }
    words.push(format!("proto {}", crate::core::model::route::protocol_name(route.protocol)));
    words.extend(route.preferred_source.map(|source| format!("src {source}")));
    words.extend((route.metric != 0).then(|| format!("metric {}", route.metric)));
    words.join(" ")
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkState {
    /// Name.
    pub name: String,
    /// Index.
    pub index: u32,
    /// The kernel's name of its kind.
    pub kind: String,
    /// Up.
    pub up: bool,
    /// Has a carrier.
    pub carrier: bool,
    /// Largest packet in bytes.
    pub mtu: Option<u32>,
    /// What ties it to its SAs: the output key of a VTI, the id of an XFRM interface.
    pub binding: Option<u32>,
    /// Counters since it was made.
    pub counters: LinkCounters,
}

impl LinkState {
    /// Those of a snapshot.
    #[must_use]
    pub fn all(snapshot: &Snapshot) -> Vec<Self> {
        let state = |link: &crate::core::model::Link| Self {
            name: link.name.clone(),
            index: link.index,
            kind: link.kind.name().into(),
            up: link.up,
            carrier: link.carrier,
            mtu: link.mtu,
            binding: match link.kind {
                LinkKind::Vti { output_key, .. } => Some(output_key),
                LinkKind::Xfrm { if_id } => Some(if_id),
                _ => None,
            },
            counters: link.counters,
        };
        snapshot.links.iter().map(state).collect()
    }
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AddressState {
    /// Name of the interface.
    pub device: String,
    /// The address.
    pub local: IpAddr,
    /// The other end.
    pub peer: Option<IpAddr>,
    /// Length of the prefix.
    pub prefix_length: u8,
}

impl AddressState {
    /// Those of a snapshot.
    #[must_use]
    pub fn all(snapshot: &Snapshot) -> Vec<Self> {
        let state = |address: &crate::core::model::Address| Self {
            device: snapshot.device_name(address.ifindex),
            local: address.local,
            peer: address.peer,
            prefix_length: address.prefix_length,
        };
        snapshot.addresses.iter().map(state).collect()
    }
}

/// A neighbour entry (ARP, neighbour discovery).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NeighbourState {
    /// Name of the interface.
    pub device: String,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Its hardware address, as `ip neigh` shows it.
    pub hardware: Option<String>,
    /// State (`REACHABLE`, `STALE`, `FAILED` …).
    pub state: String,
}

/// A security association. The kernel's message holds keys; they are never decoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AssociationState {
    /// Outer source.
    pub source: IpAddr,
    /// Outer destination.
    pub destination: IpAddr,
    /// Security parameter index.
    pub spi: u32,
    /// IP protocol number: 50 ESP.
    pub protocol: u8,
    /// `tunnel`, `transport`, `beet` or a number.
    pub mode: String,
    /// Ties it to policies.
    pub reqid: u32,
    /// Mark and mask that packets must have.
    pub mark: Option<String>,
    /// Id of its XFRM interface, 0 for none.
    pub if_id: u32,
    /// In UDP (NAT traversal).
    pub in_udp: bool,
    /// Bytes so far.
    pub bytes: u64,
    /// Packets so far.
    pub packets: u64,
    /// When it was added, seconds since 1970.
    pub added: u64,
    /// Packets that came twice, or outside of the window, or failed the integrity check.
    pub refused: u64,
}

impl AssociationState {
    /// That of an association.
    #[must_use]
    pub fn of(association: &SecurityAssociation) -> Self {
        let usage = &association.usage;
        Self {
            source: association.source,
            destination: association.destination,
            spi: association.spi,
            protocol: association.protocol,
            mode: mode(association.mode),
            reqid: association.reqid,
            mark: association.mark.map(mark),
            if_id: association.if_id,
            in_udp: association.encapsulation.is_some(),
            bytes: usage.bytes,
            packets: usage.packets,
            added: usage.added,
            refused: u64::from(usage.outside_window) + u64::from(usage.replayed) + u64::from(usage.failed_integrity),
        }
    }
}

fn mode(mode: SaMode) -> String {
    match mode {
        SaMode::Transport => "transport".into(),
        SaMode::Tunnel => "tunnel".into(),
        SaMode::Beet => "beet".into(),
        SaMode::Other(number) => number.to_string(),
    }
}

fn mark(mark: Mark) -> String {
    format!("{:#x}/{:#x}", mark.value, mark.mask)
}

/// A policy of IPsec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyState {
    /// `in`, `out` or `fwd`.
    pub direction: String,
    /// Packets from here.
    pub source: String,
    /// Packets to here.
    pub destination: String,
    /// Priority, the smallest is asked first.
    pub priority: u32,
    /// Mark and mask.
    pub mark: Option<String>,
    /// Id of its XFRM interface, 0 for none.
    pub if_id: u32,
    /// It drops packets.
    pub blocks: bool,
    /// What it wants: `SOURCE -> DESTINATION, mode, reqid`.
    pub templates: Vec<String>,
}

impl PolicyState {
    /// That of a policy.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        let template = |template: &crate::core::model::Template| {
            let crate::core::model::Template { source, destination, protocol, reqid, .. } = template;
            format!("{source} -> {destination}, protocol {protocol}, {}, reqid {reqid}", mode(template.mode))
        };
        Self {
            direction: match policy.direction {
                Direction::In => "in".into(),
                Direction::Out => "out".into(),
                Direction::Forward => "fwd".into(),
            },
            source: policy.source.to_string(),
            destination: policy.destination.to_string(),
            priority: policy.priority,
            mark: policy.mark.map(mark),
            if_id: policy.if_id,
            blocks: policy.blocks,
            templates: policy.templates.iter().map(template).collect(),
        }
    }
}

/// BGP as a daemon tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BgpState {
    /// Name of the daemon.
    pub daemon: String,
    /// Its neighbours.
    pub neighbours: Vec<BgpNeighbour>,
}
