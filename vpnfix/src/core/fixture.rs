//! Hosts for unit tests: the incident's gateway, and pieces to change it with.

use super::model::{
    Address, Answer, Arrival, DeviceSettings, Family, Link, LinkCounters, LinkKind, Nexthop, Preference, Question,
    Reply, Route, RouteKind, Rule, SaLimits, SaMode, SaReplay, SaUsage, SecurityAssociation, Snapshot, TABLE_DEFAULT,
    TABLE_LOCAL, TABLE_MAIN,
};
use super::walk::{self, End, Fib, Flow};

/// Index of the loopback device.
pub const LO: u32 = 1;
/// Index of the physical device.
pub const ENS5: u32 = 2;
/// Index of the first tunnel.
pub const VTI1: u32 = 3;
/// Index of a LAN's device.
pub const LAN: u32 = 4;

/// A device that is up.
pub fn link(index: u32, name: &str, kind: LinkKind) -> Link {
    Link {
        index,
        name: name.into(),
        kind,
        up: true,
        carrier: true,
        mtu: Some(1500),
        master: None,
        group: 0,
        counters: LinkCounters::default(),
        settings: DeviceSettings::default(),
    }
}

/// A unicast route of protocol static; one of table local is a local one.
pub fn route(table: u32, destination: &str, ifindex: u32) -> Route {
    let destination: ipnet::IpNet = destination.parse().expect("a prefix");
    Route {
        family: Family::of(destination.addr()),
        destination,
        source: None,
        table,
        kind: if table == TABLE_LOCAL { RouteKind::Local } else { RouteKind::Unicast },
        protocol: 4,
        scope: 0,
        tos: 0,
        metric: 0,
        preferred_source: None,
        nexthops: vec![Nexthop { ifindex: Some(ifindex), ..Nexthop::default() }],
        nexthop_object: None,
        preference: Preference::Medium,
    }
}

/// The same by a gateway.
pub fn via(route: Route, gateway: &str) -> Route {
    let mut route = route;
    for nexthop in &mut route.nexthops {
        nexthop.gateway = gateway.parse().ok();
    }
    route
}

/// The kernel's three rules of a family, and the one that sends everything into table 220.
pub fn hijacked_rules() -> Vec<Rule> {
    let mut rules = healthy_rules();
    rules.insert(1, Rule::lookup(Family::V4, 220, 220));
    rules
}

/// The kernel's three rules.
pub fn healthy_rules() -> Vec<Rule> {
    vec![
        Rule::lookup(Family::V4, 0, TABLE_LOCAL),
        Rule::lookup(Family::V4, 32766, TABLE_MAIN),
        Rule::lookup(Family::V4, 32767, TABLE_DEFAULT),
    ]
}

/// The gateway of the incident, hijacked, with one tunnel and a prefix behind it.
pub fn gateway() -> Snapshot {
    let vti = LinkKind::Vti {
        v6: false,
        local: "192.168.12.49".parse().ok(),
        remote: "203.0.113.10".parse().ok(),
        input_key: 1,
        output_key: 1,
    };
    Snapshot {
        links: vec![
            link(LO, "lo", LinkKind::Loopback),
            link(ENS5, "ens5", LinkKind::Plain),
            link(VTI1, "vti1", vti),
            link(LAN, "lan0", LinkKind::Plain),
        ],
        addresses: vec![address(VTI1, "169.254.55.54", 30), address(ENS5, "192.168.12.49", 24)],
        rules: hijacked_rules(),
        routes: vec![
            via(route(220, "0.0.0.0/0", ENS5), "192.168.12.1"),
            via(route(TABLE_MAIN, "0.0.0.0/0", ENS5), "192.168.12.1"),
            route(TABLE_MAIN, "192.168.12.0/24", ENS5),
            route(TABLE_MAIN, "169.254.55.52/30", VTI1),
            via(route(TABLE_MAIN, "10.20.0.0/16", VTI1), "169.254.55.53"),
            route(TABLE_LOCAL, "169.254.55.54/32", VTI1),
            route(TABLE_LOCAL, "169.254.55.55/32", VTI1),
            route(TABLE_LOCAL, "192.168.12.49/32", ENS5),
        ],
        ..Snapshot::default()
    }
}

/// An address of a device.
pub fn address(ifindex: u32, local: &str, prefix_length: u8) -> Address {
    Address { ifindex, local: local.parse().expect("an address"), peer: None, prefix_length, scope: 0 }
}

/// What a kernel with this state would answer, as far as the engine knows.
pub fn answer(snapshot: &Snapshot, question: &Question) -> Answer {
    let flow = Flow::from(question);
    let fib = Fib::new(snapshot);
    let end = walk::walk(&fib, &fib.policy(flow.family()), &flow);
    let (reply, entry) = match end {
        End::Route { table, route, nexthops, .. } => {
            let nexthop = nexthops.first().copied().cloned().unwrap_or_default();
            let arrival = Arrival {
                table,
                ifindex: nexthop.ifindex.unwrap_or(0),
                gateway: nexthop.gateway,
                source: question.source,
                local: route.kind == RouteKind::Local,
            };
            (Reply::Arrives(arrival), Some(route.clone()))
        }
        End::AssumedOnLink(ifindex) => {
            let arrival = Arrival { table: 0, ifindex, gateway: None, source: question.source, local: false };
            (Reply::Arrives(arrival), None)
        }
        End::RefusedByRoute { route, .. } => (Reply::Refused(113), Some(route.clone())),
        End::RefusedByRule(_) | End::NoRoute | End::Undecided { .. } => (Reply::Refused(101), None),
    };
    Answer { question: question.clone(), reply, entry }
}

/// A tunnel's security association from one outer address to another.
pub fn association(if_id: u32, source: &str, destination: &str) -> SecurityAssociation {
    SecurityAssociation {
        family: Family::V4,
        source: source.parse().expect("an address"),
        destination: destination.parse().expect("an address"),
        spi: 0xc0de_cafe,
        protocol: 50,
        reqid: 1,
        mode: SaMode::Tunnel,
        mark: None,
        if_id,
        direction: None,
        encapsulation: None,
        usage: SaUsage::default(),
        soft_limits: SaLimits::default(),
        hard_limits: SaLimits::default(),
        replay: SaReplay::default(),
    }
}
