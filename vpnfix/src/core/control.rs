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
    /// It may enter no tunnel, even where the routes say so: a loop (the IKE peer), a cloud's service address, the
    /// connection of the operator. The others may come home into a tunnel that only the hijacker keeps them from.
    pub never_in_tunnel: bool,
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

/// Every control target of the host (design §4).
#[must_use]
pub fn controls(
    snapshot: &Snapshot,
    tunnels: &[Tunnel],
    destinations: &[Destination],
    neighbours: &Neighbours,
    hijackers: &[Rule],
) -> Vec<Control> {
    let mut controls = Controls::default();
    for (name, address) in SERVICES {
        if let Ok(address) = address.parse() {
            controls.never_in_tunnel(name, Question::plain(address));
        }
    }
    for tunnel in tunnels {
        if let Some(peer) = tunnel.outer_peer {
            controls.never_in_tunnel(format!("IKE peer of {}", tunnel.name), Question::plain(peer));
        }
    }
    for gateway in default_gateways(snapshot) {
        controls.never_in_tunnel("default gateway", Question::plain(gateway));
    }
    let inside = |address: IpAddr| tunnels.iter().any(|tunnel| tunnel.inside.iter().any(|own| own.local == address));
    for connection in neighbours.connections.iter().filter(|connection| !inside(connection.local)) {
        let question = Question { source: Some(connection.local), ..Question::plain(connection.peer) };
        controls.never_in_tunnel("TCP connection", question);
    }
    for resolver in &neighbours.resolvers {
        controls.add("name server", Question::plain(*resolver));
    }
    controls.add("internet", Question::plain(OFF_LINK));
    for (name, question) in of_rules(snapshot, destinations, hijackers) {
        controls.add(name, question);
    }
    controls.0
}

/// Controls, each question once.
#[derive(Default)]
struct Controls(Vec<Control>);

impl Controls {
    fn add(&mut self, name: impl Into<String>, question: Question) {
        self.push(name.into(), question, false);
    }

    fn never_in_tunnel(&mut self, name: impl Into<String>, question: Question) {
        self.push(name.into(), question, true);
    }

    fn push(&mut self, name: String, question: Question, never_in_tunnel: bool) {
        let known = self.0.iter().any(|control| control.question == question);
        if !known && !question.destination.is_loopback() {
            self.0.push(Control { name, question, never_in_tunnel });
        }
    }
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

/// Compares a control before and after. It is spoiled if it became unreachable, if it now enters a tunnel that it was not
/// in, or if it left its way for another than the one it has without the hijackers. Coming home is fine, into a tunnel
/// too, but for those that no tunnel may have.
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
    let home = home(snapshot, hijackers, control);
    let is_tunnel = tunnels.iter().any(|tunnel| Some(tunnel.ifindex) == is);
    let may_come_home = is.is_some() && home.contains(&is) && !(is_tunnel && control.never_in_tunnel);
    if may_come_home {
        return None;
    }
    Some(Spoiled {
        name: control.name.clone(),
        destination: control.question.destination,
        expected: name_of(was),
        found: name_of(is),
    })
}

/// The devices that the control would leave by if the hijackers were not there.
fn home(snapshot: &Snapshot, hijackers: &[Rule], control: &Control) -> Vec<Option<u32>> {
    let mut without = snapshot.clone();
    without.rules.retain(|rule| !hijackers.contains(rule));
    match walk::walk(&without, &[], &Flow::from(&control.question)) {
        walk::End::Route { route, .. } => route.nexthops.iter().map(|nexthop| nexthop.ifindex).collect(),
        _ => Vec::new(),
    }
}

/// Which controls would be drawn into a tunnel that they may not enter if these rules stood?
#[must_use]
pub fn drawn_into_tunnel<'a>(
    snapshot: &Snapshot,
    tunnels: &[Tunnel],
    hijackers: &[Rule],
    controls: &'a [Control],
    rules: &[Rule],
) -> Vec<&'a Control> {
    let entered = |end: &walk::End<'_>| tunnels.iter().find(|tunnel| end.leaves_by(tunnel.ifindex)).map(|t| t.ifindex);
    controls
        .iter()
        .filter(|control| {
            let flow = Flow::from(&control.question);
            let Some(tunnel) = entered(&walk::walk(snapshot, rules, &flow)) else { return false };
            let was_in = entered(&walk::walk(snapshot, &[], &flow)).is_some();
            !was_in && (control.never_in_tunnel || !home(snapshot, hijackers, control).contains(&Some(tunnel)))
        })
        .collect()
}
