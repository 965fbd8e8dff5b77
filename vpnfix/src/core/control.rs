//! Control targets: addresses whose way a repair must not spoil.

use std::net::{IpAddr, Ipv4Addr};

use super::destination::Destination;
use super::finding::ControlReport;
use super::model::{Answer, Family, Question, Reply, RouteKind, Rule, Snapshot, TABLE_MAIN};
use super::owner::VPNFIX_PROTOCOL;
use super::tunnel::Tunnel;
use super::walk::{self, Flow};

/// An address to ask about before and after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// What it is.
    pub name: String,
    /// The question that stands for it.
    pub question: Question,
}

/// What is known of the host beside its routing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// Name servers in use.
    pub resolvers: Vec<IpAddr>,
    /// Remote ends of established TCP connections.
    pub tcp_peers: Vec<IpAddr>,
}

/// Service addresses of clouds that share 169.254.0.0/16 with the tunnels' inside addresses, and their IPv6 forms.
const SERVICES: [(&str, &str); 7] = [
    ("instance metadata", "169.254.169.254"),
    ("VPC name server", "169.254.169.253"),
    ("time server", "169.254.169.123"),
    ("container credentials", "169.254.170.2"),
    ("instance metadata (IPv6)", "fd00:ec2::254"),
    ("VPC name server (IPv6)", "fd00:ec2::253"),
    ("time server (IPv6)", "fd00:ec2::123"),
];

/// An address of the internet that nobody routes specially; it is only asked about.
const OFF_LINK: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));

/// Every control target of the host (design §4). Addresses that belong into a tunnel are none.
#[must_use]
pub fn controls(
    snapshot: &Snapshot,
    tunnels: &[Tunnel],
    destinations: &[Destination],
    neighbours: &Neighbours,
    hijackers: &[Rule],
) -> Vec<Control> {
    let mut controls = Vec::new();
    let mut add = |name: String, question: Question| {
        let known = controls.iter().any(|control: &Control| control.question == question);
        if !known && !question.destination.is_loopback() {
            controls.push(Control { name, question });
        }
    };
    for (name, address) in SERVICES {
        if let Ok(address) = address.parse() {
            add(name.into(), Question::plain(address));
        }
    }
    for tunnel in tunnels {
        if let Some(peer) = tunnel.outer_peer {
            add(format!("IKE peer of {}", tunnel.name), Question::plain(peer));
        }
    }
    for gateway in default_gateways(snapshot) {
        add("default gateway".into(), Question::plain(gateway));
    }
    for resolver in &neighbours.resolvers {
        add("name server".into(), Question::plain(*resolver));
    }
    add("internet".into(), Question::plain(OFF_LINK));
    for peer in &neighbours.tcp_peers {
        if !belongs_to_tunnel(snapshot, destinations, *peer) {
            add("TCP connection".into(), Question::plain(*peer));
        }
    }
    for (name, question) in of_rules(snapshot, destinations, hijackers) {
        add(name, question);
    }
    controls
}

/// Does the table that should decide send this address into a tunnel?
fn belongs_to_tunnel(snapshot: &Snapshot, destinations: &[Destination], address: IpAddr) -> bool {
    let flow = Flow::from(&Question::plain(address));
    destinations.iter().filter(|destination| destination.prefix.contains(&address)).any(|destination| {
        walk::lookup(snapshot, destination.table, &flow)
            .is_some_and(|route| destination.tunnels.iter().any(|tunnel| route.leaves_by(*tunnel)))
    })
}

fn default_gateways(snapshot: &Snapshot) -> impl Iterator<Item = IpAddr> {
    Family::ALL.into_iter().flat_map(move |family| {
        snapshot
            .table(family, TABLE_MAIN)
            .filter(|route| route.destination.prefix_len() == 0)
            .flat_map(|route| route.nexthops.iter().filter_map(|nexthop| nexthop.gateway))
    })
}

/// What rules of others decide: non-default routes of the hijacker's table (policy-based children), and the sources of
/// `from` rules (secondary interfaces).
fn of_rules(snapshot: &Snapshot, destinations: &[Destination], hijackers: &[Rule]) -> Vec<(String, Question)> {
    let mut found = Vec::new();
    for rule in hijackers {
        let Some(table) = rule.table() else { continue };
        for route in snapshot.table(rule.family, table) {
            let address = route.destination.hosts().next();
            if let Some(address) = address
                && route.destination.prefix_len() != 0
                && route.kind == RouteKind::Unicast
                && !destinations.iter().any(|destination| destination.prefix == route.destination)
            {
                let question = Question { source: route.preferred_source, ..Question::plain(address) };
                found.push((format!("route {} of table {table}", route.destination), question));
            }
        }
    }
    for rule in snapshot.rules.iter().filter(|rule| rule.protocol != VPNFIX_PROTOCOL && !rule.invert) {
        let own = rule.from.and_then(|from| {
            snapshot.addresses.iter().map(|address| address.local).find(|address| from.contains(address))
        });
        if let (Some(source), Family::V4, false) = (own, rule.family, rule.is_kernel_default()) {
            let question = Question { source: Some(source), ..Question::plain(OFF_LINK) };
            found.push((format!("traffic from {source} (rule {})", rule.priority), question));
        }
    }
    found
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

/// A control target that a change spoiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spoiled {
    /// What it is.
    pub name: String,
    /// Its address.
    pub destination: IpAddr,
    /// What was expected, in words.
    pub expected: String,
    /// What was found, in words.
    pub found: String,
}

/// Compares a control before and after. It is spoiled if it now enters a tunnel that it was not in, became unreachable,
/// or left its way for another than the one it has without the hijackers (coming home is fine).
#[must_use]
pub fn compare(
    snapshot: &Snapshot,
    tunnels: &[Tunnel],
    hijackers: &[Rule],
    control: &Control,
    before: &Answer,
    after: &Answer,
) -> Option<Spoiled> {
    let (was, is) = (device(before), device(after));
    if was == is {
        return None;
    }
    let name_of = |index: Option<u32>| index.map_or_else(|| "unreachable".into(), |index| snapshot.device_name(index));
    let spoiled = |expected: String| {
        Some(Spoiled {
            name: control.name.clone(),
            destination: control.question.destination,
            expected,
            found: name_of(is),
        })
    };
    let is_tunnel = |index: Option<u32>| tunnels.iter().any(|tunnel| Some(tunnel.ifindex) == index);
    if is.is_none() || is_tunnel(is) {
        return spoiled(name_of(was));
    }
    let home = home(snapshot, hijackers, control);
    if is == home { None } else { spoiled(format!("{} or {}", name_of(was), name_of(home))) }
}

/// Where the control would go if the hijackers were not there.
fn home(snapshot: &Snapshot, hijackers: &[Rule], control: &Control) -> Option<u32> {
    let mut without = snapshot.clone();
    without.rules.retain(|rule| !hijackers.contains(rule));
    match walk::walk(&without, &[], &Flow::from(&control.question)) {
        walk::End::Route { route, .. } => route.nexthops.first().and_then(|nexthop| nexthop.ifindex),
        _ => None,
    }
}

/// Which controls would enter a tunnel if these rules stood: what must not be added.
#[must_use]
pub fn drawn_into_tunnel<'a>(
    snapshot: &Snapshot,
    tunnels: &[Tunnel],
    controls: &'a [Control],
    rules: &[Rule],
) -> Vec<&'a Control> {
    let enters = |end: &walk::End<'_>| tunnels.iter().any(|tunnel| end.leaves_by(tunnel.ifindex));
    controls
        .iter()
        .filter(|control| {
            let flow = Flow::from(&control.question);
            enters(&walk::walk(snapshot, rules, &flow)) && !enters(&walk::walk(snapshot, &[], &flow))
        })
        .collect()
}
