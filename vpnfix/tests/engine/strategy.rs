//! Random policies and flows. All values come from small pools, so that selectors, prefixes and priorities really meet.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::select;
use vpnfix::core::model::Family;

use crate::FLOWS;
use crate::ask::Ask;
use crate::kernel::Kernel;
use crate::masked::Masked;
use crate::scene::{Scene, Step};

/// The addresses that a family's cases are made of; they fit those of `scene`.
#[derive(Clone, Copy)]
struct Pool {
    family: Family,
    prefixes: &'static [&'static str],
    /// Destinations.
    to: &'static [&'static str],
    /// The namespace's own addresses.
    own: &'static [&'static str],
    /// Others' addresses.
    foreign: &'static [&'static str],
    /// What rules compare the source with.
    from: &'static [&'static str],
    /// A gateway for each of `d0` to `d3`.
    gateways: [&'static str; 4],
    /// Rules' types of service.
    tos: &'static [u8],
}

const V4: Pool = Pool {
    family: Family::V4,
    prefixes: &[
        "0.0.0.0/0",
        "0.0.0.0/0",
        "0.0.0.0/0",
        "0.0.0.0/1",
        "10.0.0.0/8",
        "10.0.0.0/16",
        "10.0.0.0/24",
        "10.1.0.0/16",
        "10.1.0.0/24",
        "10.1.0.128/25",
        "10.1.0.129/32",
        "10.0.0.7/32",
        "172.16.0.0/12",
        "192.0.2.0/24",
    ],
    to: &[
        "10.0.0.1",
        "10.0.0.7",
        "10.0.0.7",
        "10.0.0.255",
        "10.0.1.9",
        "10.1.0.1",
        "10.1.0.5",
        "10.1.0.129",
        "10.1.0.129",
        "10.200.0.1",
        "172.20.0.9",
        "192.0.2.1",
        "192.0.2.77",
        "203.0.113.9",
        "8.8.8.8",
        "8.8.8.8",
    ],
    own: &["10.0.0.1", "10.0.1.1", "10.1.0.1", "192.0.2.1"],
    foreign: &["10.9.0.5", "10.0.0.77", "8.8.4.4"],
    from: &["10.0.0.0/24", "10.0.0.1", "10.0.0.0/8", "10.9.0.0/16", "10.1.0.1", "0.0.0.0/8", "192.0.2.1"],
    gateways: ["10.0.0.2", "10.0.1.2", "10.1.0.2", "172.16.0.2"],
    tos: &[0x10, 0x08, 0x04, 0x18],
};

const V6: Pool = Pool {
    family: Family::V6,
    prefixes: &[
        "::/0",
        "::/0",
        "::/0",
        "fc00::/7",
        "fd00::/16",
        "fd00::/32",
        "fd00::/64",
        "fd00:1::/32",
        "fd00:1::/64",
        "fd00:1::8000/113",
        "fd00:1::8001/128",
        "fd00::7/128",
        "2001:db8::/32",
    ],
    to: &[
        "fd00::1",
        "fd00::7",
        "fd00::7",
        "fd00:0:0:1::9",
        "fd00:1::1",
        "fd00:1::5",
        "fd00:1::8001",
        "fd00:1::8001",
        "fd00:200::1",
        "2001:db8::1",
        "2001:db8::77",
        "2001:4860::8",
        "2001:4860::8",
        "fe80::9",
    ],
    own: &["fd00::1", "fd00:0:0:1::1", "fd00:1::1", "2001:db8::1"],
    foreign: &["fd09::5", "fd00::77", "2001:4860::4"],
    from: &["fd00::/64", "fd00::1/128", "fd00::/16", "fd09::/16", "fd00:1::1/128", "::/96", "2001:db8::1/128"],
    gateways: ["fd00::2", "fd00:0:0:1::2", "fd00:1::2", "fd00:2::2"],
    tos: &[0x10, 0x08, 0xb8],
};

const PRIORITIES: &[u32] = &[1, 5, 5, 10, 50, 100, 100, 220, 220, 1000, 20000, 32766, 32767];
/// `goto` targets: some stand, some do not.
const TARGETS: &[u32] = &[100, 220, 220, 300, 32766, 32767, 40000];
/// Tables that rules look up. 7000 never has a route.
const TABLES: &[&str] =
    &["220", "220", "220", "220", "main", "main", "main", "100", "100", "100", "local", "default", "7000"];
/// Tables that routes stand in.
const ROUTE_TABLES: &[&str] = &["220", "220", "main", "main", "main", "100", "100", "default"];
const PORTS: &[u16] = &[53, 179, 0x1234, 0x1200, 40000];

/// Scenes of both families.
pub(crate) fn scenes(kernel: Kernel) -> impl Strategy<Value = Scene> {
    prop_oneof![scene(V4, kernel), scene(V6, kernel)]
}

fn scene(pool: Pool, kernel: Kernel) -> BoxedStrategy<Scene> {
    let asks = prop::collection::vec(ask(pool, kernel), 4..=(2 * FLOWS as usize - 4));
    let devices = (vrf(pool, kernel), settings(pool), select(DOWN.to_vec()), any::<bool>());
    let policy = (
        prop::collection::vec(route(pool, kernel), 2..18),
        prop::collection::vec(rule(pool, kernel), 0..8),
        optional(0.12, masked(pool, kernel)),
        optional(0.1, select(vec![2_u32, 150, 32000])),
        optional(0.05, select(vec!["rule del pref 32766", "rule del pref 32767"])),
    );
    (devices, policy, asks)
        .prop_map(move |((vrf, settings, down, is_late), (routes, rules, masked, local, deleted), asks)| {
            let ip = |line: &&str| Step::Ip((*line).to_string());
            let mut steps: Vec<Step> = vrf.iter().map(ip).chain(settings).collect();
            if !is_late {
                steps.extend(down.iter().map(ip));
            }
            let routes = readable(routes);
            steps.extend(objects(pool, &routes));
            steps.extend(routes.into_iter().map(Step::Ip));
            steps.extend(rules.into_iter().map(Step::Ip));
            if let Some(priority) = local {
                steps.push(Step::Ip(format!("rule add pref {priority} lookup local")));
                steps.push(Step::Ip("rule del pref 0".into()));
            }
            steps.extend(deleted.iter().map(ip));
            if is_late {
                steps.extend(down.iter().map(ip));
            }
            steps.extend(masked.map(Step::Rule));
            let is_meant = |ask: &Ask| if vrf.is_empty() { !names_vrf(ask) } else { !is_link_scope(ask) };
            let asks = asks.into_iter().filter(is_meant).collect();
            Scene { family: pool.family, steps, asks }
        })
        .boxed()
}

fn names_vrf(ask: &Ask) -> bool {
    [&ask.iif, &ask.oif].into_iter().any(|name| name.as_deref() == Some("v0"))
}

/// Where there are VRFs they are asked themselves about bound link-local flows, and no rule.
fn is_link_scope(ask: &Ask) -> bool {
    ask.oif.is_some() && matches!(ask.to, IpAddr::V6(to) if to.is_unicast_link_local())
}

/// Nexthop objects: single ones, one that drops, groups.
const OBJECTS: [&str; 7] = [
    "nexthop add id 1 via GATEWAY0 dev d0",
    "nexthop add id 2 via GATEWAY1 dev d1",
    "nexthop add id 3 dev d2",
    "nexthop add id 20 blackhole",
    "nexthop add id 10 group 1/2",
    "nexthop add id 11 group 2,3/3",
    "nexthop add id 21 group 20",
];

/// The objects, where a route uses any.
fn objects(pool: Pool, routes: &[String]) -> Vec<Step> {
    let is_used = routes.iter().any(|route| route.contains("nhid"));
    let line = |line: &&str| line.replace("GATEWAY0", pool.gateways[0]).replace("GATEWAY1", pool.gateways[1]);
    OBJECTS.iter().filter(|_| is_used).map(line).map(Step::Ip).collect()
}

/// Devices that go down and take the carrier from their far end, before the routes are made or after.
const DOWN: [&[&str]; 6] = [&[], &[], &[], &["link set d3 down"], &["link set d1 down"], &["link set d0 down"]];

/// A VRF with one port, where the kernel has them.
fn vrf(pool: Pool, kernel: Kernel) -> BoxedStrategy<Vec<&'static str>> {
    if !kernel.vrf {
        return Just(Vec::new()).boxed();
    }
    let address = if pool.family == Family::V4 {
        "address add 172.16.0.1/12 dev d3"
    } else {
        "address add fd00:2::1/64 dev d3 nodad"
    };
    let lines = vec![
        "link add v0 type vrf table 400",
        "link set v0 up",
        "link set d3 master v0",
        // Enslaving takes IPv6 addresses away; for IPv4 this is refused, and that is meant.
        address,
    ];
    prop_oneof![2 => Just(Vec::new()), 1 => Just(lines)].boxed()
}

fn settings(pool: Pool) -> impl Strategy<Value = Vec<Step>> {
    let ignore: &[&str] = match pool.family {
        Family::V4 => &["ipv4/conf/all/ignore_routes_with_linkdown", "ipv4/conf/d2/ignore_routes_with_linkdown"],
        Family::V6 => &["ipv6/conf/d0/ignore_routes_with_linkdown", "ipv6/conf/d2/ignore_routes_with_linkdown"],
    };
    let compat =
        optional(0.2, Just("ipv4/nexthop_compat_mode".to_string()).prop_map(|file| Step::Set(file, "0".into())));
    let ignore = optional(0.4, select(ignore.to_vec()).prop_map(|file| Step::Set(file.into(), "1".into())));
    (compat, ignore).prop_map(|(compat, ignore)| compat.into_iter().chain(ignore).collect())
}

/// There with this chance, which may be none.
fn optional<T>(chance: f64, value: impl Strategy<Value = T> + 'static) -> BoxedStrategy<Option<T>>
where
    T: std::fmt::Debug + Clone + 'static,
{
    if chance > 0.0 { prop::option::weighted(chance, value).boxed() } else { Just(None).boxed() }
}

/// Words of a command, each there or not.
fn words(parts: Vec<BoxedStrategy<Option<String>>>) -> impl Strategy<Value = String> {
    parts.prop_map(|parts| parts.into_iter().flatten().collect::<Vec<_>>().join(" "))
}

fn maybe<T>(chance: f64, values: &[T], word: impl Fn(T) -> String + 'static) -> BoxedStrategy<Option<String>>
where
    T: Clone + std::fmt::Debug + 'static,
{
    optional(chance, select(values.to_vec()).prop_map(word))
}

fn always<T>(values: &[T], word: impl Fn(T) -> String + 'static) -> BoxedStrategy<Option<String>>
where
    T: Clone + std::fmt::Debug + 'static,
{
    select(values.to_vec()).prop_map(move |value| Some(word(value))).boxed()
}

fn rule(pool: Pool, kernel: Kernel) -> impl Strategy<Value = String> {
    let plain = |word: &'static str| move |value: &'static str| format!("{word} {value}");
    let oif: &[&str] = if kernel.vrf { &["d0", "d1", "d3", "v0", "gone"] } else { &["d0", "d1", "d3", "gone"] };
    let iif: &[&str] =
        if kernel.vrf { &["lo", "lo", "d0", "d3", "v0", "gone"] } else { &["lo", "lo", "d0", "d3", "gone"] };
    words(vec![
        always(PRIORITIES, |priority| format!("rule add pref {priority}")),
        maybe(0.12, &["not"], str::to_string),
        maybe(0.2, pool.from, plain("from")),
        maybe(0.3, pool.prefixes, plain("to")),
        maybe(0.08, iif, plain("iif")),
        maybe(0.08, oif, plain("oif")),
        maybe(0.12, &["0x1", "0x1/0xf", "0x10/0xf0", "0x0/0x1", "0x2"], plain("fwmark")),
        maybe(0.08, pool.tos, |tos| format!("tos {tos:#x}")),
        maybe(0.08, &["0-0", "0-999", "1000-1000", "500-4294967294"], plain("uidrange")),
        maybe(0.08, &["tcp", "udp", "icmp"], plain("ipproto")),
        maybe(0.05, &["53", "179", "1-1023", "4660"], plain("sport")),
        maybe(0.05, &["53", "179", "1024-65534", "4608-4863"], plain("dport")),
        maybe(0.02, &["5"], plain("tun_id")),
        maybe(0.15, &["77", "4", "118"], plain("protocol")),
        action().prop_map(Some).boxed(),
    ])
}

fn action() -> impl Strategy<Value = String> {
    let lookup = || select(TABLES.to_vec()).prop_map(|table| format!("lookup {table}"));
    let suppress = (lookup(), select(vec![0, 0, 8, 16, 24, 32, 64]), any::<bool>());
    let group = (lookup(), select(vec![0, 1, 2]));
    prop_oneof![
        10 => lookup(),
        3 => suppress.prop_map(|(lookup, length, _)| format!("{lookup} suppress_prefixlength {length}")),
        1 => group.prop_map(|(lookup, group)| format!("{lookup} suppress_ifgroup {group}")),
        2 => select(TARGETS.to_vec()).prop_map(|target| format!("goto {target}")),
        3 => select(vec!["nop", "unreachable", "prohibit", "blackhole"]).prop_map(str::to_string),
    ]
}

/// A rule with selectors that this `ip` cannot say, as far as the kernel knows them.
fn masked(pool: Pool, kernel: Kernel) -> impl Strategy<Value = Masked> {
    let pairs = |is_known: bool, values: &'static [(u32, u32)]| {
        optional(if is_known { 0.5 } else { 0.0 }, select(values.to_vec()))
    };
    let dscps: &[(u32, u32)] =
        if kernel.dscp_mask { &[(4, 0x3f), (46, 0x3f), (40, 0x38), (4, 0x07)] } else { &[(4, 0x3f), (46, 0x3f)] };
    let labels: &[(u32, u32)] = &[(0x12345, 0xfffff), (0x12300, 0xfff00)];
    let ports: &[(u32, u32)] = &[(0x1200, 0xff00), (0x30, 0xf0), (1, 1)];
    let v6 = pool.family == Family::V6;
    (
        select(PRIORITIES.to_vec()),
        select(vec![220, 254, 100]),
        prop::bool::weighted(0.2),
        pairs(kernel.dscp, dscps),
        pairs(v6 && kernel.flow_label, labels),
        optional(if kernel.port_mask { 0.3 } else { 0.0 }, select(ports.to_vec())),
        optional(if kernel.port_mask { 0.3 } else { 0.0 }, select(ports.to_vec())),
    )
        .prop_map(|(priority, table, invert, dscp, flow_label, sport, dport)| Masked {
            priority,
            table,
            invert,
            dscp,
            flow_label,
            sport,
            dport,
        })
}

/// A route and what it would be merged by.
#[derive(Clone, Debug)]
struct RouteLine {
    /// Prefix, source, table and metric.
    place: String,
    /// By gateways that it names itself.
    by_gateway: bool,
    line: String,
}

/// IPv6 makes one route of those by gateways of one place, and its lists then leave out what stands between them. Such
/// a policy could not be read back: a second route by a gateway is not added behind another.
fn readable(routes: Vec<RouteLine>) -> Vec<String> {
    let mut last_by_gateway = HashMap::new();
    let mut lines = Vec::new();
    for route in routes {
        let hides = match last_by_gateway.entry(route.place) {
            Entry::Vacant(vacant) => {
                vacant.insert((route.by_gateway, false));
                false
            }
            Entry::Occupied(mut seen) => {
                let (has_gateway, is_parted) = *seen.get();
                seen.insert((has_gateway || route.by_gateway, is_parted || (has_gateway && !route.by_gateway)));
                is_parted && route.by_gateway
            }
        };
        lines.extend(Some(route.line).filter(|_| !hides));
    }
    lines
}

/// `append`, so that several of equal prefix and metric can stand beside each other.
fn route(pool: Pool, kernel: Kernel) -> impl Strategy<Value = RouteLine> {
    let v6 = pool.family == Family::V6;
    let source = if v6 && kernel.source_routes { 0.08 } else { 0.0 };
    (
        select(pool.prefixes.to_vec()),
        optional(source, select(vec!["fd00::/64", "fd00::/16", "fd00::1/128"])),
        way(pool),
        words(vec![
            always(ROUTE_TABLES, |table| format!("table {table}")),
            maybe(if v6 { 0.0 } else { 0.15 }, &["0x10", "0x08", "0x18", "0x20"], |tos| format!("tos {tos}")),
        ]),
        select(vec!["", "metric 10", "metric 10", "metric 20", "metric 30"]),
    )
        .prop_map(move |(prefix, source, (kind, way, preference), rest, metric)| {
            let source = source.map_or(String::new(), |source| format!(" from {source}"));
            // The kernel makes one of IPv6 routes by gateways of one metric, and then tells only the first one's preference.
            let metric = if preference.is_empty() || !way.contains("via") {
                metric.to_string()
            } else {
                format!("metric {}", if preference.contains("high") { 40 } else { 50 })
            };
            RouteLine {
                place: format!("{prefix}{source} {rest} {metric}"),
                by_gateway: way.contains("via"),
                line: format!("route append {kind}{prefix}{source} {rest} {metric} {preference} {way}"),
            }
        })
}

/// Kind, where to, preference.
fn way(pool: Pool) -> BoxedStrategy<(&'static str, String, &'static str)> {
    let v6 = pool.family == Family::V6;
    let preference = move || {
        let some: &[&str] = if v6 { &["", "", "", "pref high", "pref low"] } else { &[""] };
        select(some.to_vec())
    };
    let device = 0..4_usize;
    let single = (device.clone(), prop::bool::weighted(0.5)).prop_map(move |(device, by_gateway)| {
        let gateway = if by_gateway { format!("via {} ", pool.gateways[device]) } else { String::new() };
        format!("{gateway}dev d{device}")
    });
    let foreign =
        device.clone().prop_map(move |device| format!("via {} dev d{device} onlink", pool.gateways[(device + 1) % 4]));
    let several = prop::collection::vec((device, 1..4_u8), 2..4).prop_map(move |hops| {
        let hop = |(device, weight): &(usize, u8)| {
            format!("nexthop via {} dev d{device} weight {weight}", pool.gateways[*device])
        };
        hops.iter().map(hop).collect::<Vec<_>>().join(" ")
    });
    let object = select(vec![1, 2, 3, 10, 11, 20, 21]).prop_map(|id| format!("nhid {id}"));
    let refusing = select(vec!["unreachable ", "prohibit ", "blackhole ", "throw ", "throw "]);
    prop_oneof![
        8 => (single, preference()).prop_map(|(way, preference)| ("", way, preference)),
        2 => foreign.prop_map(|way| ("", way, "")),
        3 => several.prop_map(|way| ("", way, "")),
        2 => (object, preference()).prop_map(|(way, preference)| ("", way, preference)),
        3 => (refusing, preference()).prop_map(|(kind, preference)| (kind, String::new(), preference)),
    ]
    .boxed()
}

fn ask(pool: Pool, kernel: Kernel) -> impl Strategy<Value = Ask> {
    let v6 = pool.family == Family::V6;
    let own = pool.own.to_vec();
    let anyone = [pool.own, pool.foreign].concat();
    let input: &[&str] = if kernel.vrf { &["d0", "d1", "d2", "d3", "v0"] } else { &["d0", "d1", "d2", "d3"] };
    let output: &[&str] =
        if kernel.vrf { &["d0", "d1", "d2", "d3", "v0", "d4"] } else { &["d0", "d1", "d2", "d3", "d4"] };
    // IPv4 sends only from an address of its own.
    let source = optional(0.3, select(if v6 { anyone.clone() } else { own }));
    let way = prop_oneof![
        5 => source.clone().prop_map(|from| (from, None, None)),
        3 => (select(anyone), select(input.to_vec())).prop_map(|(from, iif)| (Some(from), Some(iif), None)),
        2 => (source, select(output.to_vec())).prop_map(|(from, oif)| (from, None, Some(oif))),
    ];
    let selectors = (
        select(vec![0, 0, 0, 1, 2, 0x11, 0x12]),
        optional(0.2, select(vec![0, 1000])),
        optional(0.4, select(vec![6_u8, 17, if v6 { 58 } else { 1 }])),
        optional(0.2, select(PORTS.to_vec())),
        optional(0.3, select(PORTS.to_vec())),
        select(if v6 {
            vec![0, 0, 0, 0x10, 0x08, 0xb8, 0xa0]
        } else {
            vec![0, 0, 0, 0x10, 0x08, 0x30, 0xb8, 0xa0, 0x18]
        }),
        select(if v6 && kernel.flow_label { vec![0, 0, 0x12345, 0x123ff] } else { vec![0] }),
    );
    (select(pool.to.to_vec()), way, selectors).prop_map(
        |(to, (from, iif, oif), (mark, uid, protocol, sport, dport, tos, flow_label))| Ask {
            from: from.map(|from| from.parse().unwrap()),
            iif: iif.map(str::to_string),
            oif: oif.map(str::to_string),
            mark,
            uid,
            protocol,
            sport,
            dport,
            tos,
            flow_label,
            ..Ask::to(to.parse().unwrap())
        },
    )
}
