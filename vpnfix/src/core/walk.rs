//! The walk of a packet through the policy rules, as the kernel does it (`net/core/fib_rules.c`, `net/ipv4/fib_rules.c`,
//! `net/ipv4/fib_trie.c`, `net/ipv6/fib6_rules.c`). It names the rule behind a decision and predicts what a plan would
//! change. The truth about routing stays the kernel's own answer.

use std::net::IpAddr;

use ipnet::IpNet;

use super::model::{Family, Link, LinkKind, Question, Route, RouteKind, Rule, RuleAction, Snapshot};

/// The interface index of the loopback device, which the kernel gives as input interface to lookups of its own packets
/// (`LOOPBACK_IFINDEX`, `include/net/flow.h`).
pub const LOOPBACK_INDEX: u32 = 1;

/// What a lookup is asked for. The fields are those of the kernel's `struct flowi`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Destination.
    pub to: IpAddr,
    /// Source, absent while none is chosen.
    pub from: Option<IpAddr>,
    /// Input interface; [`LOOPBACK_INDEX`] for the host's own packets.
    pub iif: u32,
    /// Output interface that the flow is bound to.
    pub oif: Option<u32>,
    /// Firewall mark.
    pub mark: u32,
    /// User.
    pub uid: u32,
    /// IP protocol number, 0 where the kernel did not look.
    pub protocol: u8,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Type of service.
    pub tos: u8,
}

impl From<&Question> for Flow {
    /// The flow that the kernel makes of a question (`inet_rtm_getroute`, `net/ipv4/route.c`): UDP where no protocol is
    /// named, and user 0 for a caller that is root.
    fn from(question: &Question) -> Self {
        Self {
            to: question.destination,
            from: question.source,
            iif: question.input_interface.unwrap_or(LOOPBACK_INDEX),
            oif: question.output_interface,
            mark: question.mark,
            uid: question.uid.unwrap_or(0),
            protocol: question.ip_protocol.unwrap_or(17),
            source_port: question.source_port.unwrap_or(0),
            destination_port: question.destination_port.unwrap_or(0),
            tos: question.tos,
        }
    }
}

impl Flow {
    /// Its family.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.to)
    }
}

/// How a walk ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End<'a> {
    /// This rule's table had this route.
    Route {
        /// The rule.
        rule: &'a Rule,
        /// The route.
        route: &'a Route,
    },
    /// This rule refused (unreachable, prohibit, blackhole).
    RefusedByRule(&'a Rule),
    /// No rule led to a route.
    NoRoute,
    /// This rule cannot be judged: an attribute of a newer kernel, or a selector whose value is not known here.
    Undecided(&'a Rule),
}

impl<'a> End<'a> {
    /// The rule that decided.
    #[must_use]
    pub fn rule(&self) -> Option<&'a Rule> {
        match self {
            Self::Route { rule, .. } | Self::RefusedByRule(rule) | Self::Undecided(rule) => Some(rule),
            Self::NoRoute => None,
        }
    }

    /// Leaves by this device (any nexthop of the route).
    #[must_use]
    pub fn leaves_by(&self, ifindex: u32) -> bool {
        matches!(self, Self::Route { route, .. } if route.leaves_by(ifindex))
    }
}

/// Does a rule's selector match?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// Yes.
    Yes,
    /// No.
    No,
    /// Not to be told from what is known.
    Unknown,
}

/// Walks the rules of the flow's family, with `extra` rules standing in their places beside the snapshot's.
#[must_use]
pub fn walk<'a>(snapshot: &'a Snapshot, extra: &'a [Rule], flow: &Flow) -> End<'a> {
    let rules = ordered(snapshot, extra, flow.family());
    let mut jump_to = None;
    for rule in rules {
        if let Some(target) = jump_to {
            if rule.priority < target {
                continue;
            }
            if rule.priority > target {
                // An unresolved goto does nothing, so the walk would have gone on after it.
                return End::NoRoute;
            }
            jump_to = None;
        }
        match matches(snapshot, rule, flow) {
            Match::No => continue,
            Match::Unknown => return End::Undecided(rule),
            Match::Yes => {}
        }
        match rule.action {
            RuleAction::Lookup(table) => {
                let table = if rule.l3mdev { l3mdev_table(snapshot, flow) } else { Some(table) };
                let Some(table) = table else { continue };
                if let Some(route) = lookup(snapshot, table, flow).filter(|route| !suppressed(snapshot, rule, route)) {
                    return End::Route { rule, route };
                }
            }
            RuleAction::Goto(priority) => {
                let resolved = snapshot.rules_of(flow.family()).any(|other| other.priority == priority);
                jump_to = (resolved && priority > rule.priority).then_some(priority);
            }
            RuleAction::Nop => {}
            RuleAction::Blackhole | RuleAction::Unreachable | RuleAction::Prohibit => {
                return End::RefusedByRule(rule);
            }
            RuleAction::Other(_) => return End::Undecided(rule),
        }
    }
    End::NoRoute
}

/// The rules in the kernel's order. A rule that is added goes behind those of equal priority.
fn ordered<'a>(snapshot: &'a Snapshot, extra: &'a [Rule], family: Family) -> Vec<&'a Rule> {
    let mut rules: Vec<&Rule> = snapshot.rules_of(family).collect();
    rules.extend(extra.iter().filter(|rule| rule.family == family));
    rules.sort_by_key(|rule| rule.priority);
    rules
}

/// Does the rule's selector match the flow (`fib_rule_match`, `fib4_rule_match`, `fib6_rule_match`)?
#[must_use]
pub fn matches(snapshot: &Snapshot, rule: &Rule, flow: &Flow) -> Match {
    if !rule.unknown_attributes.is_empty() || rule.tunnel_id.is_some() {
        return Match::Unknown;
    }
    if selectors_match(snapshot, rule, flow) != rule.invert { Match::Yes } else { Match::No }
}

fn selectors_match(snapshot: &Snapshot, rule: &Rule, flow: &Flow) -> bool {
    let device_matches = |name: &Option<String>, detached: bool, index: Option<u32>| match name {
        None => true,
        Some(_) if detached => false,
        Some(name) => snapshot.link_named(name).map(|link| link.index) == index,
    };
    let in_range = |port: u16, ports: Option<super::model::PortRange>| {
        ports.is_none_or(|range| (range.start..=range.end).contains(&port))
    };
    device_matches(&rule.iif, rule.iif_detached, Some(flow.iif))
        && device_matches(&rule.oif, rule.oif_detached, flow.oif)
        && rule.mark.is_none_or(|mark| (mark.value ^ flow.mark) & mark.mask == 0)
        && rule.uid_range.is_none_or(|uids| (uids.start..=uids.end).contains(&flow.uid))
        && rule.from.is_none_or(|from| flow.from.is_some_and(|address| from.contains(&address)))
        && rule.to.is_none_or(|to| to.contains(&flow.to))
        && (rule.tos == 0 || rule.tos == flow.tos)
        && rule.ip_protocol.is_none_or(|protocol| protocol == flow.protocol)
        && in_range(flow.source_port, rule.source_ports)
        && in_range(flow.destination_port, rule.destination_ports)
        && (!rule.l3mdev || l3mdev_table(snapshot, flow).is_some())
}

/// The table of the VRF that the flow comes from or is bound to (`l3mdev_fib_rule_match`, `net/l3mdev/l3mdev.c`).
fn l3mdev_table(snapshot: &Snapshot, flow: &Flow) -> Option<u32> {
    let of = |index: u32| {
        let link: &Link = snapshot.link(index)?;
        match link.kind {
            LinkKind::Vrf { table } => Some(table),
            _ => snapshot.vrf_table(link),
        }
    };
    flow.oif.and_then(of).or_else(|| of(flow.iif))
}

/// The route that a table has for a flow: the longest prefix with a usable nexthop, then the type of service, then the
/// smallest metric. A `throw` route ends the table's search without a route.
#[must_use]
pub fn lookup<'a>(snapshot: &'a Snapshot, table: u32, flow: &Flow) -> Option<&'a Route> {
    let mut fitting: Vec<&Route> = snapshot
        .table(flow.family(), table)
        .filter(|route| route.destination.contains(&flow.to))
        .filter(|route| route.tos == 0 || route.tos == flow.tos)
        .filter(|route| route.source.is_none_or(|source| flow.from.is_some_and(|from| source.contains(&from))))
        .filter(|route| {
            route.nexthops.is_empty() || route.nexthops.iter().any(|nexthop| usable(snapshot, nexthop, flow))
        })
        .collect();
    fitting.sort_by_key(|route| {
        let source_length = route.source.map_or(0, |source| source.prefix_len());
        (
            std::cmp::Reverse(route.destination.prefix_len()),
            std::cmp::Reverse(source_length),
            std::cmp::Reverse(route.tos),
            route.metric,
        )
    });
    fitting.first().copied().filter(|route| route.kind != RouteKind::Throw)
}

/// A flow bound to a device takes nexthops by that device only; bound to a VRF it takes any of the VRF's table
/// (`l3mdev_update_flow`, `net/l3mdev/l3mdev.c`).
fn usable(snapshot: &Snapshot, nexthop: &super::model::Nexthop, flow: &Flow) -> bool {
    let is_vrf = |index| snapshot.link(index).is_some_and(|link| matches!(link.kind, LinkKind::Vrf { .. }));
    !nexthop.dead && flow.oif.is_none_or(|oif| nexthop.ifindex == Some(oif) || is_vrf(oif))
}

/// Would the rule discard this route (`fib4_rule_suppress`)?
#[must_use]
pub fn suppressed(snapshot: &Snapshot, rule: &Rule, route: &Route) -> bool {
    let by_length =
        rule.suppress_prefix_length.is_some_and(|length| u32::from(route.destination.prefix_len()) <= length);
    let by_group = rule.suppress_ifgroup.is_some_and(|group| {
        let device = route.nexthops.first().and_then(|nexthop| nexthop.ifindex);
        device.and_then(|index| snapshot.link(index)).is_some_and(|link| link.group == group)
    });
    by_length || by_group
}

/// Could a hit in this table that leaves by this device have been discarded by a rule? True if any rule that looks up
/// the table would suppress one of the table's routes by that device. Such a hit is not the end of the walk for certain.
#[must_use]
pub fn hit_may_be_suppressed(snapshot: &Snapshot, family: Family, table: u32, ifindex: u32) -> bool {
    snapshot.rules_of(family).filter(|rule| rule.table() == Some(table) || rule.l3mdev).any(|rule| {
        snapshot.table(family, table).any(|route| route.leaves_by(ifindex) && suppressed(snapshot, rule, route))
    })
}

/// A prefix that holds every address of the family.
#[must_use]
pub fn everything(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(ipnet::Ipv4Net::default()),
        Family::V6 => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fixture::route;
    use crate::core::model::TABLE_MAIN;

    fn hijacked() -> Snapshot {
        Snapshot {
            rules: vec![
                Rule::lookup(Family::V4, 0, 255),
                Rule::lookup(Family::V4, 220, 220),
                Rule::lookup(Family::V4, 32766, TABLE_MAIN),
            ],
            routes: vec![
                route(220, "0.0.0.0/0", 2),
                route(TABLE_MAIN, "0.0.0.0/0", 2),
                route(TABLE_MAIN, "169.254.55.52/30", 3),
            ],
            ..Snapshot::default()
        }
    }

    fn flow(to: &str) -> Flow {
        Flow::from(&Question::plain(to.parse().expect("an address")))
    }

    #[test]
    fn rule_order_beats_prefix_length() {
        let snapshot = hijacked();
        let end = walk(&snapshot, &[], &flow("169.254.55.53"));
        assert_eq!(end.rule().map(|rule| rule.priority), Some(220));
        assert!(end.leaves_by(2));
    }

    #[test]
    fn suppression_lets_the_walk_go_on() {
        let snapshot = hijacked();
        let main_first = Rule { suppress_prefix_length: Some(0), ..Rule::lookup(Family::V4, 100, TABLE_MAIN) };
        let extra = [main_first];
        assert!(walk(&snapshot, &extra, &flow("169.254.55.53")).leaves_by(3));
        let elsewhere = walk(&snapshot, &extra, &flow("8.8.8.8"));
        assert_eq!(elsewhere.rule().map(|rule| rule.priority), Some(220));
    }

    #[test]
    fn hits_by_the_default_route_are_provisional_under_suppression() {
        let mut snapshot = hijacked();
        snapshot.rules.insert(1, Rule { suppress_prefix_length: Some(0), ..Rule::lookup(Family::V4, 100, TABLE_MAIN) });
        assert!(hit_may_be_suppressed(&snapshot, Family::V4, TABLE_MAIN, 2));
        assert!(!hit_may_be_suppressed(&snapshot, Family::V4, TABLE_MAIN, 3));
        assert!(!hit_may_be_suppressed(&snapshot, Family::V4, 220, 2));
    }

    #[test]
    fn refusing_rules_end_the_walk() {
        let mut snapshot = hijacked();
        let unreachable = Rule { action: RuleAction::Unreachable, ..Rule::lookup(Family::V4, 10, 0) };
        snapshot.rules.insert(1, unreachable.clone());
        assert_eq!(walk(&snapshot, &[], &flow("10.0.0.1")), End::RefusedByRule(&unreachable));
    }

    #[test]
    fn what_is_unknown_is_said() {
        let mut snapshot = hijacked();
        snapshot.rules[1].unknown_attributes = vec![25];
        assert!(matches!(walk(&snapshot, &[], &flow("10.0.0.1")), End::Undecided(_)));
    }

    #[test]
    fn goto_skips_the_rules_between() {
        let mut snapshot = hijacked();
        snapshot.rules.insert(1, Rule { action: RuleAction::Goto(32766), ..Rule::lookup(Family::V4, 50, 0) });
        assert!(walk(&snapshot, &[], &flow("169.254.55.53")).leaves_by(3));
    }

    #[test]
    fn a_rule_for_a_source_does_not_match_while_none_is_chosen() {
        let snapshot = Snapshot {
            rules: vec![Rule { from: "10.0.0.0/8".parse().ok(), ..Rule::lookup(Family::V4, 5, 220) }],
            ..hijacked()
        };
        assert_eq!(walk(&snapshot, &[], &flow("10.0.0.1")), End::NoRoute);
    }
}
