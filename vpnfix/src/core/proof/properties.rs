//! The proof held against flows drawn at random, on random small hosts. The check below knows nothing of classes,
//! boundaries or scopes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::core::fixture::{link, route};
use crate::core::model::{
    Dscp, Family, FlowLabel, LinkKind, Mark, Ports, Route, RouteKind, RuleAction, Snapshot, TABLE_LOCAL, UidRange,
};

const HIJACKED: u32 = 220;
const OTHER: u32 = 300;
const VRF: u32 = 301;

/// A prefix of a small space (sixteen addresses), or a wider one.
fn prefix(family: Family) -> impl Strategy<Value = IpNet> {
    (0..16_u32, select(vec![0_u8, 8, 28, 28, 29, 30, 31, 32])).prop_map(move |(host, length)| {
        let (address, length) = match family {
            Family::V4 => (v4(host), length),
            Family::V6 => (v6(host), if length == 0 { 0 } else { length + 96 }),
        };
        IpNet::new(address, length).expect("a length of the family").trunc()
    })
}

fn v4(host: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + host).into()
}

fn v6(host: u32) -> IpAddr {
    Ipv6Addr::from_bits((0xfd00 << 112) + u128::from(host)).into()
}

/// An address in the small space, right beside it, or far from it.
fn address(family: Family, number: u32) -> IpAddr {
    match (family, number) {
        (Family::V4, 19..) => Ipv4Addr::new(203, 0, 113, 1).into(),
        (Family::V4, host) => v4(host),
        (Family::V6, 18) => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into(),
        (Family::V6, 19..) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        (Family::V6, host) => v6(host),
    }
}

fn device() -> impl Strategy<Value = u32> {
    select(vec![1_u32, 2, 3, 4, 5, 6])
}

fn device_name() -> impl Strategy<Value = String> {
    select(vec!["lo", "eth0", "tun0", "lan0", "port0", "gone0"]).prop_map(str::to_string)
}

fn action() -> impl Strategy<Value = RuleAction> {
    prop_oneof![
        4 => Just(RuleAction::Lookup(OTHER)),
        3 => Just(RuleAction::Lookup(TABLE_MAIN)),
        1 => Just(RuleAction::Lookup(HIJACKED)),
        1 => Just(RuleAction::Unreachable),
        1 => Just(RuleAction::Nop),
        1 => select(vec![219, 220, 250, 32766]).prop_map(RuleAction::Goto),
    ]
}

/// A rule of others, with few selectors.
fn rule(family: Family) -> impl Strategy<Value = Rule> {
    let prefixes = (weighted(0.3, prefix(family)), weighted(0.3, prefix(family)));
    let devices = (weighted(0.1, device_name()), weighted(0.1, device_name()), prop::bool::weighted(0.1));
    let mark = (0..4_u32, 1..4_u32).prop_map(|(value, mask)| Mark { value, mask });
    let label = (0..4_u32, 1..4_u32).prop_map(|(value, mask)| FlowLabel { value, mask });
    let users = (0..3_u32, 0..3_u32).prop_map(|(start, more)| UidRange { start, end: start + more });
    let ports = || (0..3_u16, 0..3_u16).prop_map(|(start, more)| Ports::Range { start, end: start + more });
    let dscp = (0..4_u8, 1..4_u8).prop_map(|(value, mask)| Dscp { value, mask });
    let numbers = (
        weighted(0.15, mark),
        weighted(0.1, users),
        weighted(0.1, select(vec![6_u8, 17])),
        weighted(0.1, ports()),
        weighted(0.1, ports()),
        weighted(0.05, dscp),
        weighted(0.05, label),
        weighted(0.05, 1..3_u64),
        prop::bool::weighted(0.05),
    );
    let suppress = (weighted(0.1, 0..30_u32), weighted(0.05, 0..2_u32));
    let place = select(vec![50, 100, 219, 220, 221, 250, 1000, 32766, 40000]);
    (place, action(), prefixes, devices, numbers, suppress, prop::bool::weighted(0.1)).prop_map(
        move |(priority, action, (from, to), (iif, oif, l3mdev), numbers, suppress, invert)| {
            let (mark, uid_range, ip_protocol, source_ports, destination_ports, dscp, label, tunnel_id, tos) = numbers;
            let backward = matches!(action, RuleAction::Goto(target) if target <= priority);
            Rule {
                invert,
                from,
                to,
                iif_detached: iif.as_deref() == Some("gone0"),
                oif_detached: oif.as_deref() == Some("gone0"),
                iif,
                oif,
                mark,
                tos: if tos { 0x10 } else { 0 },
                dscp: dscp.filter(|_| !tos),
                flow_label: label.filter(|_| family == Family::V6),
                uid_range,
                ip_protocol,
                source_ports,
                destination_ports,
                tunnel_id,
                l3mdev,
                action: match action {
                    _ if l3mdev => RuleAction::Lookup(0),
                    _ if backward => RuleAction::Nop,
                    action => action,
                },
                suppress_prefix_length: suppress.0,
                suppress_ifgroup: suppress.1,
                ..Rule::lookup(family, priority, 0)
            }
        },
    )
}

fn any_route(family: Family) -> impl Strategy<Value = Route> {
    let table = select(vec![TABLE_MAIN, TABLE_MAIN, TABLE_MAIN, HIJACKED, OTHER, OTHER, VRF, TABLE_LOCAL]);
    let kind = prop_oneof![
        8 => Just(RouteKind::Unicast),
        1 => Just(RouteKind::Throw),
        1 => Just(RouteKind::Unreachable),
    ];
    let source = weighted(0.1, prefix(family));
    let tos = select(vec![0_u8, 0, 0, 0, 0, 0, 0, 0, 0, 0x10]);
    (table, prefix(family), device(), kind, source, tos, 0..2_u32, prop::bool::weighted(0.05)).prop_map(
        move |(table, destination, device, kind, source, tos, metric, dead)| {
            let mut made = Route {
                destination,
                family,
                kind,
                source: source.filter(|_| family == Family::V6),
                metric,
                tos: if family == Family::V4 { tos } else { 0 },
                ..route(table, "0.0.0.0/0", device)
            };
            made.nexthops[0].dead = dead;
            if kind != RouteKind::Unicast {
                made.nexthops.clear();
            }
            made
        },
    )
}

pub(in crate::core) fn host(family: Family) -> impl Strategy<Value = Snapshot> {
    let hijacker = prop_oneof![
        3 => Just(Rule::lookup(family, HIJACKED, HIJACKED)),
        1 => rule(family).prop_map(|rule| Rule { priority: 220, action: RuleAction::Lookup(HIJACKED), l3mdev: false, ..rule }),
        1 => Just(Rule { action: RuleAction::Unreachable, ..Rule::lookup(family, 220, 0) }),
    ];
    let others = prop::collection::vec(rule(family), 0..4);
    let routes = prop::collection::vec(any_route(family), 0..10);
    let with_main = prop::bool::weighted(0.95);
    let of_hijacker = weighted(0.8, prefix(family).prop_map(move |_| walk::everything(family)));
    (hijacker, others, routes, with_main, of_hijacker).prop_map(move |(hijacker, others, mut routes, main, default)| {
        let mut rules = vec![Rule::lookup(family, 0, TABLE_LOCAL), hijacker];
        rules.extend(others);
        rules.extend(main.then(|| Rule::lookup(family, 32766, TABLE_MAIN)));
        rules.sort_by_key(|rule| rule.priority);
        routes.extend(default.map(|destination| Route { destination, family, ..route(HIJACKED, "0.0.0.0/0", 2) }));
        let mut links = vec![
            link(1, "lo", LinkKind::Loopback),
            link(2, "eth0", LinkKind::Plain),
            link(3, "tun0", LinkKind::Plain),
            link(4, "lan0", LinkKind::Plain),
            link(5, "vrf0", LinkKind::Vrf { table: VRF }),
            link(6, "port0", LinkKind::Plain),
        ];
        links[5].master = Some(5);
        links[3].group = 1;
        Snapshot { rules, routes, links, ..Snapshot::default() }
    })
}

/// Numbers that look random (splitmix64): proptest's own would take longer than all the rest.
pub(in crate::core) struct Dice(pub(in crate::core) u64);

impl Dice {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((mixed ^ (mixed >> 31)) % u64::from(limit)).expect("below a small limit")
    }

    fn small(&mut self, limit: u32) -> u8 {
        u8::try_from(self.below(limit)).expect("below a small limit")
    }

    pub(in crate::core) fn flow(&mut self, family: Family) -> Flow {
        let (iif, oif) = match self.below(6) {
            0..3 => (1, None),
            3..5 => (1, Some(1 + self.below(6))),
            _ => (2 + self.below(5), None),
        };
        Flow {
            to: address(family, self.below(20)),
            from: (self.below(3) > 0).then(|| address(family, self.below(20))),
            iif,
            oif,
            mark: self.below(5),
            uid: self.below(6),
            protocol: [1, 6, 17][usize::from(self.small(3))],
            source_port: self.small(6).into(),
            destination_port: self.small(6).into(),
            tos: self.small(255),
            flow_label: self.below(5),
            tunnel_id: self.below(4).into(),
        }
    }
}

/// The statement itself, for one flow; `None` if a walk cannot tell.
fn holds(fib: &Fib<'_>, hijacker: &Rule, rule: &Rule, flow: &Flow) -> Option<bool> {
    let now = fib.policy(rule.family);
    let home = now.without(|rule| rule == hijacker);
    let added = std::slice::from_ref(rule);
    let end = |policy: &Policy<'_>| -> Option<(String, bool)> {
        let walk = walk::retrace(fib, policy, flow);
        let last = walk.steps.last().filter(|(_, outcome)| *outcome == Outcome::Decided).map(|(rule, _)| *rule);
        let made_by = |route: &Route| route.destination.prefix_len() > 0 && last == Some(hijacker);
        let refusing = || last.and_then(Rule::table).map(|table| walk::lookup(fib, table, flow));
        Some(match walk.end {
            End::Undecided { .. } => return None,
            End::Route { route, nexthops, .. } => (format!("{route:?} {nexthops:?}"), made_by(route)),
            End::RefusedByRoute { route, .. } => (format!("{route:?}"), made_by(route)),
            End::RefusedByRule(rule) => (format!("{:?}", rule.action), false),
            End::AssumedOnLink(device) => {
                (format!("on link {device}"), matches!(refusing(), Some(Found::Refused(route)) if made_by(route)))
            }
            End::NoRoute => ("no route".into(), false),
        })
    };
    let (was, of_hijacker) = end(&now)?;
    let (is, _) = end(&now.with(added))?;
    let (home_was, _) = end(&home)?;
    let (home_is, _) = end(&home.with(added))?;
    Some(home_was == home_is && (was == is || (is == home_was && !of_hijacker)))
}

fn check(host: &Snapshot, seed: u64, family: Family) -> Result<(), TestCaseError> {
    let fib = Fib::new(host);
    let rule = Rule { suppress_prefix_length: Some(0), ..Rule::lookup(family, 219, TABLE_MAIN) };
    let Some(hijacker) = host.rules.iter().find(|rule| rule.priority == 220) else { return Ok(()) };
    let mut dice = Dice(seed);
    let proof = prove_main_first(&fib, &[hijacker], &rule);
    match &proof {
        Proof::Proven { classes, .. } => {
            for flow in (0..2000).map(|_| dice.flow(family)) {
                prop_assert_ne!(holds(&fib, hijacker, &rule, &flow), Some(false), "{} classes, {:?}", classes, flow);
            }
        }
        Proof::Refuted(example) => {
            let text = &example.sentence;
            prop_assert_ne!(holds(&fib, hijacker, &rule, &example.flow), Some(true), "{}", text);
        }
        Proof::Undecided { .. } => {}
    }
    // What follows from the order of the rules is what walking every class of every destination shows.
    match (&proof, Trial::new(&fib, &[hijacker], &rule).run(&Scope::whole(&fib, &rule))) {
        (Proof::Refuted(_), wide) => prop_assert!(matches!(wide, Proof::Refuted(_)), "{:?} {:?}", proof, wide),
        (_, Proof::Refuted(wide)) => prop_assert!(false, "{:?}, but {}", proof, wide.sentence),
        (_, Proof::Proven { .. }) => prop_assert!(matches!(proof, Proof::Proven { .. }), "{:?}", proof),
        (_, Proof::Undecided { .. }) => {}
    }

    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn what_is_proven_holds_for_ipv4_flows_and_what_is_refuted_does_not(
        host in host(Family::V4), seed in any::<u64>(),
    ) {
        check(&host, seed, Family::V4)?;
    }

    #[test]
    fn what_is_proven_holds_for_ipv6_flows_and_what_is_refuted_does_not(
        host in host(Family::V6), seed in any::<u64>(),
    ) {
        check(&host, seed, Family::V6)?;
    }
}
