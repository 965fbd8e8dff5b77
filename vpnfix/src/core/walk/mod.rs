//! The walk of a packet through the policy rules, as the kernel does it (`net/core/fib_rules.c` and what it calls). It
//! names the rule behind a decision and predicts what a plan would change. The truth about routing stays the kernel's
//! own answer.
//!
//! Not modelled, because a snapshot cannot know it: neighbour entries (IPv6 passes over a gateway that does not answer
//! while the host does not forward), which of several nexthops a flow's hash chooses, that IPv4 ignores a gateway which was
//! delivered here when its route was added (`fib_check_nh_v4_gw`), and the table that holds local and main together until a
//! namespace gets its first rule of others (`fib_unmerge`). IPv6 makes one route of those by gateways
//! that have prefix and metric in common; it then tells the preference of the first alone, and leaves out of its lists what
//! stands between them (`fib6_dump_node`, `net/ipv6/ip6_fib.c`). Nor what comes before the rules: IPv4
//! refuses to send from addresses that are not its own, drops what fails source validation or comes in where it does not
//! forward, and asks no rule for multicast on the link (224.0.0.0/24) and broadcast of sockets that are bound to a device
//! (`ip_route_output_key_hash_rcu`); IPv6 asks the VRF itself for link-local and multicast destinations of its sockets
//! (`l3mdev_link_scope_lookup`).

mod doubt;
mod fib;
mod flow;
mod selector;
mod table;

use ipnet::IpNet;

use super::model::{Family, Nexthop, Route, RouteKind, Rule, RuleAction, Snapshot};
use fib::Bound;

pub use doubt::Doubt;
pub use fib::{Fib, Policy};
pub use flow::{Flow, LOOPBACK_INDEX};
pub use selector::{Match, Mismatch};
pub use table::Found;

/// How a walk ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End<'a> {
    /// This rule's table had this route.
    Route {
        /// The rule.
        rule: &'a Rule,
        /// The table.
        table: u32,
        /// The route.
        route: &'a Route,
        /// Its nexthops that may be taken; empty for what is delivered here.
        nexthops: Vec<&'a Nexthop>,
    },
    /// This rule refused (unreachable, prohibit, blackhole).
    RefusedByRule(&'a Rule),
    /// This rule's table had a route that refuses.
    RefusedByRoute {
        /// The rule.
        rule: &'a Rule,
        /// The route.
        route: &'a Route,
    },
    /// No route, or a refusal; but the flow is bound to this device, and IPv4 then takes the destination to be on its link
    /// (`ip_route_output_key_hash_rcu`, `net/ipv4/route.c`).
    AssumedOnLink(u32),
    /// No rule led to a route.
    NoRoute,
    /// It cannot be told what this rule does.
    Undecided {
        /// The rule.
        rule: &'a Rule,
        /// Why.
        doubt: Doubt,
    },
}

impl<'a> End<'a> {
    /// The rule that decided.
    #[must_use]
    pub fn rule(&self) -> Option<&'a Rule> {
        match self {
            Self::Route { rule, .. }
            | Self::RefusedByRule(rule)
            | Self::RefusedByRoute { rule, .. }
            | Self::Undecided { rule, .. } => Some(rule),
            Self::NoRoute | Self::AssumedOnLink(_) => None,
        }
    }

    /// May leave by this device (any nexthop that may be taken).
    #[must_use]
    pub fn leaves_by(&self, ifindex: u32) -> bool {
        self.devices().contains(&ifindex)
    }

    /// The devices that it may leave by.
    #[must_use]
    pub fn devices(&self) -> Vec<u32> {
        match self {
            Self::Route { nexthops, .. } => nexthops.iter().filter_map(|nexthop| nexthop.ifindex).collect(),
            Self::AssumedOnLink(device) => vec![*device],
            _ => Vec::new(),
        }
    }

    /// Cannot be told.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        matches!(self, Self::Undecided { .. })
    }
}

/// What one rule did to a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// It stands between a `goto` and its target, and was not asked.
    JumpedOver,
    /// It does not match.
    NoMatch(Mismatch),
    /// It matches and does nothing: a `nop`, or a `goto` whose target does not exist.
    Nothing,
    /// It matches, and the walk goes on at the first rule of this priority.
    Jumped(u32),
    /// Its table has no route for the flow.
    NoRoute {
        /// The table.
        table: u32,
        /// The table has no routes at all.
        empty: bool,
    },
    /// Its table has a `throw` route: on to the next rule.
    Thrown(&'a Route),
    /// Its table has this route, and the rule discards it.
    Suppressed(&'a Route),
    /// It decided; how, is told by the walk's end.
    Decided,
    /// It cannot be told.
    Unknown(Doubt),
}

/// A walk, rule by rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk<'a> {
    /// The rules up to the one that decided, each with what it did.
    pub steps: Vec<(&'a Rule, Outcome<'a>)>,
    /// How it ended.
    pub end: End<'a>,
}

/// Where a flow goes, by these rules.
#[must_use]
pub fn walk<'p, 'a: 'p>(fib: &Fib<'a>, policy: &Policy<'p>, flow: &Flow) -> End<'p> {
    run(fib, policy, flow, |_, _| {})
}

/// The same, with all that happens on the way.
#[must_use]
pub fn retrace<'p, 'a: 'p>(fib: &Fib<'a>, policy: &Policy<'p>, flow: &Flow) -> Walk<'p> {
    let mut steps = Vec::new();
    let end = run(fib, policy, flow, |rule, outcome| steps.push((rule, outcome)));
    Walk { steps, end }
}

fn run<'p, 'a: 'p>(
    fib: &Fib<'a>,
    policy: &Policy<'p>,
    flow: &Flow,
    mut told: impl FnMut(&'p Rule, Outcome<'p>),
) -> End<'p> {
    let bound = fib.bound(flow);
    if is_bound_to_nothing(fib, flow) {
        return End::NoRoute;
    }
    let mut jump_to = None;
    for rule in policy.rules().iter().copied() {
        if jump_to.is_some_and(|target| rule.priority < target) {
            told(rule, Outcome::JumpedOver);
            continue;
        }
        jump_to = None;
        match step(fib, policy, rule, flow, bound) {
            Step::On(outcome) => {
                if let Outcome::Jumped(target) = outcome {
                    jump_to = Some(target);
                }
                told(rule, outcome);
            }
            Step::End(end) => {
                let outcome = match &end {
                    End::Undecided { doubt, .. } => Outcome::Unknown(doubt.clone()),
                    _ => Outcome::Decided,
                };
                told(rule, outcome);
                return on_link(flow, bound, end);
            }
        }
    }
    on_link(flow, bound, End::NoRoute)
}

/// IPv4 asks no rule for a socket that is bound to a device which is down (`ip_route_output_key_hash_rcu`).
fn is_bound_to_nothing(fib: &Fib<'_>, flow: &Flow) -> bool {
    let is_up = |index: u32| fib.link(index).is_none_or(|link| link.up);
    flow.family() == Family::V4 && flow.iif == LOOPBACK_INDEX && !flow.oif.is_none_or(is_up)
}

/// A lookup that fails is not the end for an IPv4 flow that is bound to a device outside of VRFs.
fn on_link<'a>(flow: &Flow, bound: Bound, end: End<'a>) -> End<'a> {
    let failed = matches!(end, End::NoRoute | End::RefusedByRule(_) | End::RefusedByRoute { .. });
    match bound.device {
        Some(device) if failed && bound.vrf.is_none() && flow.family() == Family::V4 => End::AssumedOnLink(device),
        _ => end,
    }
}

enum Step<'a> {
    On(Outcome<'a>),
    End(End<'a>),
}

fn step<'p, 'a: 'p>(fib: &Fib<'a>, policy: &Policy<'p>, rule: &'p Rule, flow: &Flow, bound: Bound) -> Step<'p> {
    match selector::matches(fib, rule, flow, bound) {
        Match::No(mismatch) => return Step::On(Outcome::NoMatch(mismatch)),
        Match::Unknown(doubt) => return Step::End(End::Undecided { rule, doubt }),
        Match::Yes => {}
    }
    match rule.action {
        RuleAction::Lookup(table) => {
            let of_vrf = || bound.vrf.and_then(|vrf| fib.vrf_table(vrf));
            let table = if rule.l3mdev { of_vrf().unwrap_or(0) } else { table };
            look_up(fib, rule, table, flow, bound)
        }
        RuleAction::Goto(target) => {
            let resolved = policy.rules().iter().any(|other| other.priority == target);
            let forward = resolved && target > rule.priority;
            Step::On(if forward { Outcome::Jumped(target) } else { Outcome::Nothing })
        }
        RuleAction::Nop => Step::On(Outcome::Nothing),
        RuleAction::Blackhole | RuleAction::Unreachable | RuleAction::Prohibit => Step::End(End::RefusedByRule(rule)),
        RuleAction::Other(number) => Step::End(End::Undecided { rule, doubt: Doubt::Action(number) }),
    }
}

fn look_up<'p, 'a: 'p>(fib: &Fib<'a>, rule: &'p Rule, table: u32, flow: &Flow, bound: Bound) -> Step<'p> {
    match table::lookup(fib, table, flow, bound) {
        Found::Route { route, nexthops } => match is_suppressed(fib, rule, route, &nexthops) {
            Some(true) => Step::On(Outcome::Suppressed(route)),
            Some(false) => Step::End(End::Route { rule, table, route, nexthops }),
            None => Step::End(End::Undecided { rule, doubt: Doubt::Suppression }),
        },
        Found::Refused(route) => Step::End(End::RefusedByRoute { rule, route }),
        Found::Thrown(route) => Step::On(Outcome::Thrown(route)),
        Found::Nothing => Step::On(Outcome::NoRoute { table, empty: fib.is_empty(flow.family(), table) }),
        Found::Unknown(doubt) => Step::End(End::Undecided { rule, doubt }),
    }
}

/// Does the rule's selector match the flow?
#[must_use]
pub fn matches(fib: &Fib<'_>, rule: &Rule, flow: &Flow) -> Match {
    selector::matches(fib, rule, flow, fib.bound(flow))
}

/// What one table says to a flow, whatever the rules.
#[must_use]
pub fn lookup<'a>(fib: &Fib<'a>, table: u32, flow: &Flow) -> Found<'a> {
    table::lookup(fib, table, flow, fib.bound(flow))
}

/// Would the rule discard this route? IPv4 compares the group of the first nexthop's device, IPv6 that of the chosen one's;
/// none where that cannot be told.
fn is_suppressed(fib: &Fib<'_>, rule: &Rule, route: &Route, choices: &[&Nexthop]) -> Option<bool> {
    let in_group = |nexthop: &Nexthop| {
        let link = nexthop.ifindex.and_then(|index| fib.link(index));
        link.is_some_and(|link| rule.suppress_ifgroup == Some(link.group))
    };
    if route.family == Family::V4 {
        return Some(suppressed_by_length(rule, route) || route.nexthops.first().is_some_and(in_group));
    }
    if fib.may_be_kept_for_another(route, rule.suppress_prefix_length) {
        return None;
    }
    if suppressed_by_length(rule, route) {
        return Some(true);
    }
    let discarded = choices.iter().filter(|nexthop| in_group(nexthop)).count();
    (discarded == 0 || discarded == choices.len()).then_some(discarded > 0)
}

/// Would the rule discard this route for its length? A route that refuses is an error of the lookup, which `fib_rules_lookup`
/// (`net/core/fib_rules.c`) does not suppress. The kernel compares signed numbers: what is negative for it suppresses nothing.
#[must_use]
pub fn suppressed_by_length(rule: &Rule, route: &Route) -> bool {
    let length = rule.suppress_prefix_length.and_then(|length| i32::try_from(length).ok());
    !route.refuses() && length.is_some_and(|length| i32::from(route.destination.prefix_len()) <= length)
}

/// Does the lookup go on behind this rule for certain, though its table has this route? Which nexthop's group suppresses a route
/// of several is not relied on: to look at too much is safe.
#[must_use]
pub fn passes_on(rule: &Rule, route: &Route) -> bool {
    route.kind == RouteKind::Throw || suppressed_by_length(rule, route)
}

/// Would the rule discard this route (`fib4_rule_suppress`, `fib6_rule_suppress`)? A route that refuses is never
/// discarded; the group is that of the first nexthop's device.
#[must_use]
pub fn suppressed(snapshot: &Snapshot, rule: &Rule, route: &Route) -> bool {
    let by_group = rule.suppress_ifgroup.is_some_and(|group| {
        let device = route.nexthops.first().and_then(|nexthop| nexthop.ifindex);
        device.and_then(|index| snapshot.link(index)).is_some_and(|link| link.group == group)
    });
    suppressed_by_length(rule, route) || (!route.refuses() && by_group)
}

/// Could a hit in this table that leaves by this device have been discarded by a rule? True if any rule that looks up
/// the table would suppress one of the table's routes by that device for a destination that both are for. Such a hit is
/// not the end of the walk for certain.
#[must_use]
pub fn hit_may_be_suppressed(snapshot: &Snapshot, family: Family, table: u32, ifindex: u32) -> bool {
    snapshot.rules_of(family).filter(|rule| rule.table() == Some(table) || rule.l3mdev).any(|rule| {
        snapshot
            .table(family, table)
            .any(|route| route.leaves_by(ifindex) && may_meet(rule, route) && suppressed(snapshot, rule, route))
    })
}

/// Is there a destination that the rule matches and the route covers?
fn may_meet(rule: &Rule, route: &Route) -> bool {
    let (covered, inverted) = (route.destination, rule.invert);
    inverted || rule.to.is_none_or(|to| to.contains(&covered) || covered.contains(&to))
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
mod tests;
