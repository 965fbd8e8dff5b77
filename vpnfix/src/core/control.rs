//! Control targets: addresses whose way a repair must not spoil.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;

use super::destination::{self, Destination};
use super::finding::ControlReport;
use super::model::{
    Answer, Family, LinkKind, Question, Reply, RouteKind, Rule, SecurityAssociation, Snapshot, TABLE_MAIN,
};
use super::owner::VPNFIX_PROTOCOL;
use super::tunnel::Tunnel;
use super::walk::{self, Fib};

mod fate;

pub use fate::{Harm, Outlook, Spoiled, compare, harms};

/// An address to ask about before and after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// What it is.
    pub name: String,
    /// The question that stands for it.
    pub question: Question,
    /// How far a repair may move it.
    pub freedom: Freedom,
}

/// How far a repair may move a control target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freedom {
    /// It may come home, to where it goes without the hijackers, into a tunnel too: a name server behind the VPN.
    MayComeHome,
    /// It may come home, but enter no tunnel, even where the routes say so: a loop (the IKE peer), a cloud's service
    /// address, the connection of the operator.
    NeverInTunnel,
    /// It stays where it is: somebody routed it there on purpose (a policy-based child in the hijacker's table).
    Fixed,
}

/// An established TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TcpConnection {
    /// This end.
    pub local: IpAddr,
    /// The other end.
    pub peer: IpAddr,
}

/// What is known of the host beside its routing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// Name servers in use.
    pub resolvers: Vec<IpAddr>,
    /// Established TCP connections.
    pub connections: Vec<TcpConnection>,
    /// The other ends of security associations, outside.
    pub ike_peers: Vec<IpAddr>,
}

/// The ends of security associations that are not this host's.
#[must_use]
pub fn ike_peers(snapshot: &Snapshot, associations: &[SecurityAssociation]) -> Vec<IpAddr> {
    let own: HashSet<IpAddr> = snapshot.addresses.iter().map(|address| address.local).collect();
    let ends = associations.iter().flat_map(|association| [association.source, association.destination]);
    let mut seen = HashSet::new();
    ends.filter(|end| !own.contains(end) && !end.is_unspecified() && seen.insert(*end)).collect()
}

/// Service addresses of clouds that share 169.254.0.0/16 with the tunnels' inside addresses, and their IPv6 forms.
const SERVICES: [(&str, &str); 9] = [
    ("instance metadata", "169.254.169.254"),
    ("VPC name server", "169.254.169.253"),
    ("time server", "169.254.169.123"),
    ("container credentials", "169.254.170.2"),
    ("pod credentials", "169.254.170.23"),
    ("instance metadata (IPv6)", "fd00:ec2::254"),
    ("VPC name server (IPv6)", "fd00:ec2::253"),
    ("time server (IPv6)", "fd00:ec2::123"),
    ("pod credentials (IPv6)", "fd00:ec2::23"),
];

/// Addresses of the internet that nobody routes specially (RFC 5737, RFC 3849); they are only asked about.
const OFF_LINK: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// Every control target of the host (design §4).
#[must_use]
pub fn controls(
    fib: &Fib<'_>,
    tunnels: &[Tunnel],
    destinations: &[Destination],
    neighbours: &Neighbours,
    hijackers: &[Rule],
) -> Vec<Control> {
    let snapshot = fib.snapshot();
    let mut controls = Controls::default();
    for outside in outside(fib, tunnels) {
        controls.add(Freedom::NeverInTunnel, outside.name, Question::plain(outside.address));
    }
    for peer in &neighbours.ike_peers {
        controls.add(Freedom::NeverInTunnel, "IKE peer", Question::plain(*peer));
    }
    let inside: HashSet<IpAddr> = tunnels.iter().flat_map(|tunnel| &tunnel.inside).map(|inside| inside.local).collect();
    for connection in neighbours.connections.iter().filter(|connection| !inside.contains(&connection.local)) {
        let question = Question { source: Some(connection.local), ..Question::plain(connection.peer) };
        controls.add(Freedom::NeverInTunnel, "TCP connection", question);
    }
    for resolver in &neighbours.resolvers {
        controls.add(Freedom::MayComeHome, "name server", Question::plain(*resolver));
    }
    for address in OFF_LINK {
        controls.add(Freedom::MayComeHome, "internet", Question::plain(address));
    }
    for (name, question) in children(fib, destinations, hijackers) {
        controls.add(Freedom::Fixed, name, question);
    }
    for (name, question) in of_sources(snapshot) {
        controls.add(Freedom::Fixed, name, question);
    }
    for (name, question) in of_vrfs(fib) {
        controls.add(Freedom::MayComeHome, name, question);
    }
    controls.found
}

/// An address that works outside of tunnels only, whatever the routes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outside {
    /// What it is.
    pub kind: OutsideKind,
    /// What it is, in words.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
}

/// What works outside of tunnels only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutsideKind {
    /// A service that the cloud's host answers on the machine's own link.
    Service,
    /// The far end of the tunnel with this index (of the device), outside.
    IkePeer(u32),
    /// The gateway of a default route.
    DefaultGateway,
}

/// All that works outside of tunnels only.
#[must_use]
pub fn outside(fib: &Fib<'_>, tunnels: &[Tunnel]) -> Vec<Outside> {
    let services = SERVICES.iter().filter_map(|(name, address)| {
        Some(Outside { kind: OutsideKind::Service, name: (*name).into(), address: address.parse().ok()? })
    });
    let peers = tunnels.iter().filter_map(|tunnel| {
        let name = format!("IKE peer of {}", tunnel.name);
        Some(Outside { kind: OutsideKind::IkePeer(tunnel.ifindex), name, address: tunnel.outer_peer? })
    });
    let through: HashSet<u32> = tunnels.iter().map(|tunnel| tunnel.ifindex).collect();
    let gateways = default_gateways(fib, through).into_iter().map(|address| Outside {
        kind: OutsideKind::DefaultGateway,
        name: "default gateway".into(),
        address,
    });
    services.chain(peers).chain(gateways).collect()
}

/// Is a machine of this maker (DMI `sys_vendor`) a cloud's, which answers service addresses on its link?
#[must_use]
pub fn is_of_a_cloud(vendor: &str) -> bool {
    const CLOUDS: [&str; 6] =
        ["Amazon EC2", "Google", "Microsoft Corporation", "Alibaba Cloud", "OpenStack Foundation", "DigitalOcean"];
    CLOUDS.contains(&vendor)
}

/// Controls, each question once.
#[derive(Default)]
struct Controls {
    found: Vec<Control>,
    questions: HashSet<Question>,
}

impl Controls {
    fn add(&mut self, freedom: Freedom, name: impl Into<String>, question: Question) {
        if !question.destination.is_loopback() && self.questions.insert(question.clone()) {
            self.found.push(Control { name: name.into(), question, freedom });
        }
    }
}

/// Gateways of main's default routes, but for those that lie behind a tunnel.
fn default_gateways(fib: &Fib<'_>, tunnels: HashSet<u32>) -> Vec<IpAddr> {
    let defaults = Family::ALL.into_iter().flat_map(|family| {
        let everything = walk::everything(family);
        fib.covering(TABLE_MAIN, everything).into_iter().flatten()
    });
    defaults
        .flat_map(|route| &route.nexthops)
        .filter(|nexthop| nexthop.ifindex.is_none_or(|index| !tunnels.contains(&index)))
        .filter_map(|nexthop| nexthop.gateway)
        .collect()
}

/// Non-default routes of the hijackers' tables: policy-based children live there. A route as wide as a tunnel's
/// destination, or wider, is the hijack itself.
fn children(fib: &Fib<'_>, destinations: &[Destination], hijackers: &[Rule]) -> Vec<(String, Question)> {
    let mut tunnels: JointPrefixMap<IpNet, ()> = JointPrefixMap::new();
    for destination in destinations {
        tunnels.insert(destination.prefix.trunc(), ());
        tunnels.insert(IpNet::from(destination.address), ());
    }
    let mut found = Vec::new();
    for rule in hijackers {
        let Some(table) = rule.table() else { continue };
        for route in fib.snapshot().table(rule.family, table) {
            let hijacks = tunnels.children(&route.destination).next().is_some();
            let address = destination::sample(fib, route.destination);
            if let Some(address) = address.filter(|_| !hijacks && route.kind == RouteKind::Unicast) {
                let question = Question { source: route.preferred_source, ..Question::plain(address) };
                found.push((format!("route {} of table {table}", route.destination), question));
            }
        }
    }
    found
}

/// Traffic from the host's addresses that a `from` rule of others is for: secondary network interfaces.
fn of_sources(snapshot: &Snapshot) -> Vec<(String, Question)> {
    let of_rule = |rule: &Rule| {
        let from = rule.from?;
        let own = snapshot.addresses.iter().map(|address| address.local).find(|address| from.contains(address))?;
        let off_link = OFF_LINK.into_iter().find(|address| Family::of(*address) == rule.family)?;
        let question = Question { source: Some(own), ..Question::plain(off_link) };
        Some((format!("traffic from {own} (rule {})", rule.priority), question))
    };
    snapshot.rules.iter().filter(|rule| rule.protocol != VPNFIX_PROTOCOL && !rule.invert).filter_map(of_rule).collect()
}

/// A flow of each VRF, to the first destination that its table leads to.
fn of_vrfs(fib: &Fib<'_>) -> Vec<(String, Question)> {
    let of_vrf = |family: Family, vrf: u32, table: u32, name: &str| {
        let routes = fib.snapshot().table(family, table).filter(|route| route.kind == RouteKind::Unicast);
        let routed = routes.filter(|route| !destination::is_multicast_or_link_local(route.destination));
        let address = routed.filter_map(|route| destination::sample(fib, route.destination)).next()?;
        let question = Question { output_interface: Some(vrf), ..Question::plain(address) };
        Some((format!("traffic of VRF {name}"), question))
    };
    let links = fib.snapshot().links.iter();
    links
        .filter_map(|link| match link.kind {
            LinkKind::Vrf { table } => Some((link, table)),
            _ => None,
        })
        .flat_map(|(link, table)| Family::ALL.map(|family| of_vrf(family, link.index, table, &link.name)))
        .flatten()
        .collect()
}

/// A control as reports show it.
#[must_use]
pub fn report(snapshot: &Snapshot, control: &Control, answer: &Answer) -> ControlReport {
    ControlReport {
        name: control.name.clone(),
        destination: control.question.destination,
        device: device(answer).map(|index| snapshot.device_name(index)),
    }
}

fn device(answer: &Answer) -> Option<u32> {
    match &answer.reply {
        Reply::Arrives(arrival) => Some(arrival.ifindex),
        Reply::Refused(_) => None,
    }
}
