//! What belongs into a tunnel, and what never does.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};
use prefix_trie::joint::JointPrefixMap;

use super::model::{Family, Route, RouteKind, TABLE_LOCAL};
use super::tunnel::{Inside, Tunnel};
use super::walk::{self, Doubt, Fib, Flow, Found};

/// A prefix whose traffic should go through a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Why it belongs there.
    pub class: Class,
    /// The prefix.
    pub prefix: IpNet,
    /// An address of it that the kernel is asked about: the peer, or a host that no more specific route takes away.
    pub address: IpAddr,
    /// The other end of the tunnel, if this is its inside prefix and the end is known; then it is [`Self::address`].
    pub peer: Option<IpAddr>,
    /// The tunnel's own address of the family, if it has one.
    pub inside_source: Option<IpAddr>,
    /// Indices of the devices that it may leave by: one tunnel, or all nexthops of a multipath route, tunnels first.
    pub tunnels: Vec<u32>,
    /// The table whose route leads there (main, or the VRF's).
    pub table: u32,
    /// Index of the VRF device whose flows these are.
    pub vrf: Option<u32>,
}

/// Why a prefix belongs into a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// The tunnel's own inside prefix, with the peer in it.
    Inside,
    /// A route of the tunnel's table sends it there: learned by BGP or static.
    Routed,
    /// The default route goes through the tunnel. No policy rule can cure it.
    Default,
}

/// 169.254.0.0/16: shared with the cloud's service addresses, so nothing wider than an exact inside prefix is steered.
const LINK_LOCAL_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16);

/// All destinations of the tunnels, inside prefixes first, then by prefix. The time it takes is linear in tunnels and
/// routes.
#[must_use]
pub fn destinations(fib: &Fib<'_>, tunnels: &[Tunnel]) -> Vec<Destination> {
    let mut found: Vec<Destination> = tunnels
        .iter()
        .flat_map(|tunnel| tunnel.inside.iter().filter_map(|inside| inside_destination(fib, tunnel, inside)))
        .collect();
    let mut known: HashSet<(IpNet, u32)> = found.iter().map(|inside| (inside.prefix, inside.table)).collect();
    let by_device: HashMap<u32, &Tunnel> = tunnels.iter().map(|tunnel| (tunnel.ifindex, tunnel)).collect();
    for route in &fib.snapshot().routes {
        if let Some(destination) = routed_destination(fib, &by_device, route)
            && known.insert((destination.prefix, destination.table))
        {
            found.push(destination);
        }
    }
    take_halves_for_default(&mut found);
    found.sort_by_key(|destination| (destination.class, destination.prefix));
    // Two addresses in one subnet of a tunnel make the same destination twice.
    found.dedup_by(|later, earlier| {
        (later.prefix, later.table, &later.tunnels) == (earlier.prefix, earlier.table, &earlier.tunnels)
    });
    found
}

/// The inside prefix; one with no known peer and more than own addresses in it is asked about by a sample.
fn inside_destination(fib: &Fib<'_>, tunnel: &Tunnel, inside: &Inside) -> Option<Destination> {
    let address = inside.peer.or_else(|| samples(inside.prefix).find(|address| !fib.is_own(*address)))?;
    Some(Destination {
        class: Class::Inside,
        prefix: inside.prefix,
        address,
        peer: inside.peer,
        inside_source: Some(inside.local),
        tunnels: vec![tunnel.ifindex],
        table: tunnel.table,
        vrf: tunnel.vrf,
    })
}

/// A route of the tunnel's table that sends its prefix through a tunnel, if it is the table's choice for that prefix.
fn routed_destination(fib: &Fib<'_>, tunnels: &HashMap<u32, &Tunnel>, route: &Route) -> Option<Destination> {
    if route.kind != RouteKind::Unicast || is_multicast_or_link_local(route.destination) {
        return None;
    }
    let devices: Vec<u32> = route.nexthops.iter().filter_map(|nexthop| nexthop.ifindex).collect();
    let tunnel = |index: &u32| tunnels.get(index).filter(|tunnel| tunnel.table == route.table).copied();
    let first = devices.iter().find_map(tunnel)?;
    let address = chosen_sample(fib, route).or_else(|| shadowed_sample(fib, tunnels, route))?;
    let (mut through, beside): (Vec<u32>, Vec<u32>) = devices.into_iter().partition(|index| tunnel(index).is_some());
    through.extend(beside);
    let mut seen = HashSet::new();
    through.retain(|index| seen.insert(*index));
    let inside_source = route.preferred_source.or_else(|| {
        first.inside.iter().find(|inside| Family::of(inside.local) == route.family).map(|inside| inside.local)
    });
    Some(Destination {
        class: if route.destination.prefix_len() == 0 { Class::Default } else { Class::Routed },
        prefix: route.destination,
        address,
        peer: None,
        inside_source,
        tunnels: through,
        table: route.table,
        vrf: first.vrf,
    })
}

/// An address of a route's prefix for which the table chooses this route, as far as the table is known.
fn chosen_sample(fib: &Fib<'_>, route: &Route) -> Option<IpAddr> {
    samples(route.destination).find(|address| {
        let chosen = match walk::lookup(fib, route.table, &Flow::plain(*address)) {
            Found::Route { route: best, .. } => best == route,
            Found::Unknown(Doubt::PartialTable(_)) => is_best_known(fib, route, *address),
            _ => false,
        };
        chosen && !fib.is_own(*address)
    })
}

/// Of the routes that are known of a table, has none a longer prefix for the address, or a smaller metric?
fn is_best_known(fib: &Fib<'_>, route: &Route, address: IpAddr) -> bool {
    let longest = fib.covering(route.table, IpNet::from(address)).into_iter().next().unwrap_or_default();
    longest.into_iter().min_by_key(|other| other.metric) == Some(route)
}

/// A default route whose two halves lie elsewhere (`0.0.0.0/1` and `128.0.0.0/1`) is never chosen, and yet everything
/// was meant to go through the tunnel. One that gives way to another default route is a backup.
fn shadowed_sample(fib: &Fib<'_>, tunnels: &HashMap<u32, &Tunnel>, route: &Route) -> Option<IpAddr> {
    if route.destination.prefix_len() != 0 {
        return None;
    }
    let own_prefix = fib.covering(route.table, route.destination).into_iter().next()?;
    let best = own_prefix.iter().min_by_key(|other| other.metric)?;
    let enters = |half: &&Route| half.nexthops.iter().any(|hop| hop.ifindex.is_some_and(|i| tunnels.contains_key(&i)));
    let elsewhere = halves(fib, route.table, route.destination)?.iter().any(|half| !enters(half));
    sample(fib, route.destination).filter(|_| *best == route && elsewhere)
}

/// The routes of a table for the two halves of a prefix, if both are there.
#[must_use]
pub fn halves<'a>(fib: &Fib<'a>, table: u32, prefix: IpNet) -> Option<[&'a Route; 2]> {
    let mut halves = subnets(prefix)?.map(|half| {
        let covering = fib.covering(table, half);
        covering.into_iter().flatten().find(|route| route.destination == half && route.kind == RouteKind::Unicast)
    });
    Some([halves[0].take()?, halves[1].take()?])
}

/// The two prefixes that are one bit longer.
fn subnets(prefix: IpNet) -> Option<[IpNet; 2]> {
    let length = prefix.prefix_len().checked_add(1)?;
    let mut both = prefix.subnets(length).ok()?;
    Some([both.next()?, both.next()?])
}

/// A default route may come as its two halves, which leave the true one in its place (OpenVPN's `redirect-gateway def1`):
/// both through tunnels are a default through tunnels.
fn take_halves_for_default(found: &mut [Destination]) {
    for family in Family::ALL {
        let Some(both) = subnets(walk::everything(family)) else { continue };
        let mut tables: HashMap<u32, usize> = HashMap::new();
        for destination in found.iter().filter(|destination| both.contains(&destination.prefix)) {
            *tables.entry(destination.table).or_default() += 1;
        }
        let whole = |destination: &Destination| tables.get(&destination.table).is_some_and(|count| *count == 2);
        for destination in found.iter_mut().filter(|destination| both.contains(&destination.prefix)) {
            if whole(destination) {
                destination.class = Class::Default;
            }
        }
    }
}

/// An address that stands for a prefix, none of the host's own.
#[must_use]
pub fn sample(fib: &Fib<'_>, prefix: IpNet) -> Option<IpAddr> {
    samples(prefix).find(|address| !fib.is_own(*address))
}

/// Multicast and IPv6 link-local prefixes lie on every interface; no rule or route moves them.
pub(super) fn is_multicast_or_link_local(prefix: IpNet) -> bool {
    match prefix.network() {
        IpAddr::V4(v4) => v4.is_multicast(),
        IpAddr::V6(v6) => v6.is_multicast() || v6.is_unicast_link_local(),
    }
}

/// May rules steer this prefix? Inside 169.254.0.0/16 only exact inside prefixes may.
#[must_use]
pub fn may_steer(destination: &Destination) -> bool {
    let IpNet::V4(prefix) = destination.prefix else { return destination.class != Class::Default };
    match destination.class {
        Class::Inside => true,
        Class::Routed => !LINK_LOCAL_V4.contains(&prefix) || prefix.prefix_len() == 32,
        Class::Default => false,
    }
}

/// Addresses of documentation (RFC 5737, RFC 3849) and well-known ones, to stand for prefixes so wide that their own
/// first and last addresses are none of a host (`0.0.0.1`). They are only asked about, never sent to.
const KNOWN_V4: [Ipv4Addr; 5] = [
    Ipv4Addr::new(192, 0, 2, 1),
    Ipv4Addr::new(198, 51, 100, 1),
    Ipv4Addr::new(203, 0, 113, 1),
    Ipv4Addr::new(8, 8, 8, 8),
    Ipv4Addr::new(1, 1, 1, 1),
];
/// The same of IPv6; the last one lies in the upper half of all addresses, where only unique-local ones are.
const KNOWN_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0x2600, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xfd00, 0xdb8, 0, 0, 0, 0, 0, 1),
];
/// Prefixes shorter than this hold addresses that are no host's.
const WIDE: u8 = 8;

/// Candidate addresses to stand for a prefix: its first and last hosts, some in between.
fn samples(prefix: IpNet) -> Box<dyn Iterator<Item = IpAddr>> {
    let (first, last) = (bits(prefix.network()), bits(prefix.broadcast()));
    let family = Family::of(prefix.addr());
    let spread = spread(last - first).map(move |offset| address(family, first.wrapping_add(offset)));
    if prefix.prefix_len() >= WIDE {
        return Box::new(spread);
    }
    let known = KNOWN_V4.into_iter().map(IpAddr::V4).chain(KNOWN_V6.into_iter().map(IpAddr::V6));
    Box::new(known.filter(move |address| prefix.contains(address)).chain(spread.filter(is_a_hosts)))
}

/// May it be the address of a host elsewhere?
fn is_a_hosts(address: &IpAddr) -> bool {
    let special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    let reserved = match address {
        // RFC 1122 3.2.1.3, RFC 1112 4.
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.octets()[0] >= 240,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !special && !reserved
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

fn address(family: Family, bits: u128) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(u32::try_from(bits).unwrap_or(u32::MAX))),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(bits)),
    }
}

/// Offsets into a prefix of `span` + 1 addresses: the first host and the last, then ever finer steps between.
fn spread(span: u128) -> impl Iterator<Item = u128> {
    let ends = if span < 2 { vec![0, span] } else { vec![1, span - 1] };
    let between = (1..=5_u32).flat_map(move |power| {
        let parts = 1_u128 << power;
        (1..parts).step_by(2).map(move |part| span / parts * part + 1)
    });
    ends.into_iter().chain(between.filter(move |offset| *offset <= span))
}

/// More specific prefixes inside the destinations whose traffic is not the tunnels': routes of the same table by other
/// devices, and the host's own addresses and broadcasts. The kernel side leaves their lookups out.
#[must_use]
pub fn holes(fib: &Fib<'_>, destinations: &[Destination]) -> Vec<IpNet> {
    let mut by_prefix: JointPrefixMap<IpNet, Vec<&Destination>> = JointPrefixMap::new();
    for destination in destinations {
        by_prefix.entry(destination.prefix.trunc()).or_default().push(destination);
    }
    let is_hole = |route: &&Route| {
        let covering = by_prefix.cover_values(&route.destination).flatten();
        let mut around = covering.filter(|destination| is_beside(route, destination));
        // A destination of its own is watched as such.
        by_prefix.get(&route.destination).is_none() && around.next().is_some()
    };
    let mut holes: Vec<IpNet> = fib.snapshot().routes.iter().filter(is_hole).map(|route| route.destination).collect();
    holes.sort_unstable();
    holes.dedup();
    holes
}

/// Does a route inside a destination's prefix lead elsewhere?
fn is_beside(route: &Route, destination: &Destination) -> bool {
    let same_table = route.table == destination.table || route.table == TABLE_LOCAL;
    same_table && !destination.tunnels.iter().any(|tunnel| is_tunnels(route, *tunnel))
}

/// Traffic to the route's prefix belongs to the tunnel: it leaves by it, and is not delivered here.
fn is_tunnels(route: &Route, tunnel: u32) -> bool {
    route.kind == RouteKind::Unicast && route.leaves_by(tunnel)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fixture::{link, route};
    use crate::core::model::{LinkKind, Snapshot, TABLE_MAIN};

    fn tunnel() -> Tunnel {
        Tunnel {
            ifindex: 3,
            name: "Tunnel1".into(),
            kind: "vti".into(),
            up: true,
            key: None,
            outer_peer: None,
            table: TABLE_MAIN,
            vrf: None,
            inside: vec![Inside {
                local: "169.254.55.54".parse().expect("an address"),
                peer: "169.254.55.53".parse().ok(),
                prefix: "169.254.55.52/30".parse().expect("a prefix"),
            }],
        }
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            links: vec![
                link(1, "lo", LinkKind::Plain),
                link(2, "ens5", LinkKind::Plain),
                link(3, "Tunnel1", LinkKind::Plain),
                link(4, "lan0", LinkKind::Plain),
            ],
            routes: vec![
                route(TABLE_MAIN, "0.0.0.0/0", 2),
                route(TABLE_MAIN, "169.254.55.52/30", 3),
                route(TABLE_MAIN, "10.0.0.0/8", 3),
                route(TABLE_MAIN, "10.0.0.0/24", 4),
                route(TABLE_LOCAL, "169.254.55.54/32", 3),
                route(TABLE_LOCAL, "169.254.55.55/32", 3),
                route(TABLE_LOCAL, "10.0.0.1/32", 4),
            ],
            ..Snapshot::default()
        }
    }

    #[test]
    fn destinations_are_the_inside_prefix_and_what_main_sends_through_the_tunnel() {
        let found = destinations(&Fib::new(&snapshot()), &[tunnel()]);
        let told: Vec<(Class, String, String)> =
            found.iter().map(|d| (d.class, d.prefix.to_string(), d.address.to_string())).collect();
        assert_eq!(
            told,
            [
                (Class::Inside, "169.254.55.52/30".to_string(), "169.254.55.53".to_string()),
                // 10.0.0.1 lies in the /24 that goes elsewhere, so another address stands for the /8.
                (Class::Routed, "10.0.0.0/8".to_string(), "10.255.255.254".to_string()),
            ]
        );
    }

    #[test]
    fn holes_are_what_goes_elsewhere() {
        let snapshot = snapshot();
        let found = holes(&Fib::new(&snapshot), &destinations(&Fib::new(&snapshot), &[tunnel()]));
        let told: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["10.0.0.0/24", "10.0.0.1/32", "169.254.55.54/32", "169.254.55.55/32"]);
    }

    #[test]
    fn link_local_service_addresses_are_never_steered() {
        let mut wide = destinations(&Fib::new(&snapshot()), &[tunnel()]).remove(1);
        wide.prefix = "169.254.0.0/16".parse().expect("a prefix");
        assert!(!may_steer(&wide));
        wide.prefix = "10.0.0.0/8".parse().expect("a prefix");
        assert!(may_steer(&wide));
    }

    #[test]
    fn a_backup_route_by_the_tunnel_is_not_a_destination() {
        let mut snapshot = snapshot();
        snapshot.routes.push(Route { metric: 10, ..route(TABLE_MAIN, "172.16.0.0/12", 3) });
        snapshot.routes.push(route(TABLE_MAIN, "172.16.0.0/12", 4));
        assert_eq!(destinations(&Fib::new(&snapshot), &[tunnel()]).len(), 2);
    }

    #[test]
    fn both_halves_of_everything_through_a_tunnel_are_a_default() {
        for (family, halves) in [("v4", ["0.0.0.0/1", "128.0.0.0/1"]), ("v6", ["::/1", "8000::/1"])] {
            let mut snapshot = snapshot();
            snapshot.routes.push(route(TABLE_MAIN, halves[0], 3));
            let class_of = |snapshot: &Snapshot, prefix: &str| {
                let found = destinations(&Fib::new(snapshot), &[tunnel()]);
                let found = found.into_iter().find(|destination| destination.prefix.to_string() == prefix);
                found.map(|destination| (destination.class, destination.address.to_string()))
            };
            assert_eq!(class_of(&snapshot, halves[0]).map(|found| found.0), Some(Class::Routed), "{family}: one half");
            snapshot.routes.push(route(TABLE_MAIN, halves[1], 3));
            for half in halves {
                let (class, address) = class_of(&snapshot, half).expect("it is found");
                assert_eq!(class, Class::Default, "{half}");
                assert!(address != "0.0.0.1" && address != "::1", "{half} is stood for by no host's address");
            }
        }
    }

    #[test]
    fn a_default_whose_halves_lie_elsewhere_is_still_one_that_was_meant() {
        let mut snapshot = snapshot();
        snapshot.routes.retain(|route| route.destination.prefix_len() != 0);
        snapshot.routes.push(route(TABLE_MAIN, "0.0.0.0/0", 3));
        let defaults = |snapshot: &Snapshot| {
            let found = destinations(&Fib::new(snapshot), &[tunnel()]);
            found.iter().filter(|destination| destination.class == Class::Default).count()
        };
        assert_eq!(defaults(&snapshot), 1);
        snapshot.routes.extend([route(TABLE_MAIN, "0.0.0.0/1", 2), route(TABLE_MAIN, "128.0.0.0/1", 2)]);
        assert_eq!(defaults(&snapshot), 1);
        // One that gives way to another default was meant as a backup.
        let backup = snapshot.routes.iter_mut().find(|route| route.destination.prefix_len() == 0).expect("a default");
        backup.metric = 10;
        snapshot.routes.push(route(TABLE_MAIN, "0.0.0.0/0", 2));
        assert_eq!(defaults(&snapshot), 0);
    }

    #[test]
    fn ipv6_link_local_and_multicast_prefixes_belong_to_no_tunnel() {
        let mut snapshot = snapshot();
        snapshot.routes.extend([route(TABLE_MAIN, "fe80::/64", 3), route(TABLE_MAIN, "ff00::/8", 3)]);
        assert_eq!(destinations(&Fib::new(&snapshot), &[tunnel()]).len(), 2);
    }
}
