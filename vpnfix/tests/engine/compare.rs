//! The engine's end of a walk beside the kernel's answer.

use vpnfix::core::model::{Answer, Arrival, Family, Nexthop, Reply, Route, RouteKind, Rule, RuleAction, Snapshot};
use vpnfix::core::walk::{self, Doubt, End, Fib, Flow, Walk};

/// Do they agree?
pub(crate) enum Verdict {
    Agree,
    /// The engine says that it cannot tell.
    Undecided(Doubt),
    /// How not.
    Disagree(String),
}

/// Compares, and hands on what the engine did.
pub(crate) fn compare<'a>(snapshot: &'a Snapshot, answer: &Answer) -> (Verdict, Walk<'a>) {
    let fib = Fib::new(snapshot);
    let flow = Flow::from(&answer.question);
    let policy = fib.policy(flow.family());
    let walk = walk::retrace(&fib, &policy, &flow);
    let verdict = match &walk.end {
        End::Undecided { doubt, .. } => Verdict::Undecided(doubt.clone()),
        end => match is_as_told(snapshot, end, answer) {
            Ok(()) => Verdict::Agree,
            Err(what) => Verdict::Disagree(format!("{what}\nengine: {walk:#?}\nkernel: {answer:#?}")),
        },
    };
    (verdict, walk)
}

fn is_as_told(snapshot: &Snapshot, end: &End<'_>, answer: &Answer) -> Result<(), String> {
    match (end, &answer.reply) {
        (End::Route { table, route, nexthops, .. }, Reply::Arrives(arrival)) => {
            same_entry(snapshot, route, *table, arrival.table, answer.entry.as_ref())?;
            arrives(route, nexthops, arrival)
        }
        (End::AssumedOnLink(device), Reply::Arrives(arrival)) => {
            same("entry", &None, &answer.entry)?;
            let expected = (*device, None, false);
            same("device, gateway, local", &expected, &(arrival.ifindex, arrival.gateway, arrival.local))
        }
        (End::NoRoute, Reply::Refused(errno)) => same("errno", &libc::ENETUNREACH, errno),
        (End::RefusedByRule(rule), Reply::Refused(errno)) => same("errno", &errno_of_rule(rule), errno),
        (End::RefusedByRoute { route, .. }, Reply::Refused(errno)) => same("errno", &errno_of_route(route), errno),
        _ => Err("another outcome".into()),
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, ours: &T, theirs: &T) -> Result<(), String> {
    if ours == theirs { Ok(()) } else { Err(format!("{what}: {ours:?} here, {theirs:?} there")) }
}

/// The table and the entry that matched, by all that tells it from others. (Its type of service is not told by all
/// kernels.)
fn same_entry(
    snapshot: &Snapshot,
    ours: &Route,
    table: u32,
    told_table: u32,
    told: Option<&Route>,
) -> Result<(), String> {
    let identity = |route: &Route| {
        (route.destination.trunc(), route.table, route.kind, route.metric, route.nexthop_object, route.source)
    };
    let told = told.ok_or("the kernel names no entry")?;
    // IPv6 keeps what it made of a nexthop object for its next user on this CPU, with the name of the route that it was
    // made for (`rt6_get_pcpu_route`).
    let is_kept = |route: &&Route| route.family == Family::V6 && shares_nexthop(route, ours);
    if ours.nexthop_object.is_some()
        && snapshot.routes.iter().filter(is_kept).any(|kept| identity(kept) == identity(told))
    {
        return same("table of the entry", &told.table, &told_table);
    }
    same("table", &table, &told_table)?;
    same("entry", &identity(ours), &identity(told))
}

fn shares_nexthop(one: &Route, other: &Route) -> bool {
    let place = |nexthop: &Nexthop| (nexthop.ifindex, nexthop.gateway);
    let has = |nexthop: &Nexthop| one.nexthops.iter().any(|own| place(own) == place(nexthop));
    one.nexthop_object.is_some() && other.nexthop_object.is_some() && other.nexthops.iter().any(has)
}

fn arrives(route: &Route, nexthops: &[&Nexthop], arrival: &Arrival) -> Result<(), String> {
    same("local", &(route.kind == RouteKind::Local), &arrival.local)?;
    // What is delivered here is told by the loopback device.
    let is_it = |nexthop: &&Nexthop| (nexthop.ifindex, nexthop.gateway) == (Some(arrival.ifindex), arrival.gateway);
    if route.kind != RouteKind::Unicast || nexthops.iter().any(is_it) { Ok(()) } else { Err("another nexthop".into()) }
}

/// `fib4_rule_action`, `__fib6_rule_action`.
fn errno_of_rule(rule: &Rule) -> i32 {
    match rule.action {
        RuleAction::Unreachable => libc::ENETUNREACH,
        RuleAction::Prohibit => libc::EACCES,
        _ => libc::EINVAL,
    }
}

/// `fib_props`, `fib6_prop`.
fn errno_of_route(route: &Route) -> i32 {
    match route.kind {
        RouteKind::Unreachable => libc::EHOSTUNREACH,
        RouteKind::Prohibit => libc::EACCES,
        _ => libc::EINVAL,
    }
}
