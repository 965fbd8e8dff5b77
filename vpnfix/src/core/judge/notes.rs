//! What is worth knowing of a host beside what is wrong with it.

use ipnet::IpNet;

use super::Case;
use crate::core::destination::{self, Destination};
use crate::core::finding::{Note, NoteId};
use crate::core::model::rule::table_word;
use crate::core::model::{Family, Ports, RouteKind, Rule, Snapshot, TABLE_LOCAL, TABLE_MAIN};
use crate::core::owner::VPNFIX_PROTOCOL;
use crate::core::tunnel::Tunnel;
use crate::core::walk::{self, End, Fib, Flow};

/// All notes about a host.
pub(super) fn notes(case: Case<'_>) -> Vec<Note> {
    let mut notes = Vec::new();
    for family in Family::ALL {
        for rule in case.fib.snapshot().rules_of(family).filter(|rule| !rule.is_kernel_default()) {
            notes.extend(empty_table(case.fib.snapshot(), rule));
            notes.extend(selective_rule(case, rule));
            notes.extend(helpful_rule(case, rule));
        }
    }
    // All of them, not only those that were asked about.
    let all = destination::destinations(case.fib, case.tunnels);
    notes.extend(case.tunnels.iter().filter_map(|tunnel| lone_tunnel(&all, tunnel)));
    for destination in case.destinations {
        notes.extend(parts_elsewhere(case.fib, destination));
        notes.extend(mixed_multipath(case, destination));
    }
    notes
}

/// A rule to a table without routes fires no hook of the kernel: only the list of rules shows it.
fn empty_table(snapshot: &Snapshot, rule: &Rule) -> Option<Note> {
    let table = rule.table()?;
    let empty = snapshot.table(rule.family, table).next().is_none();
    empty.then(|| Note {
        id: NoteId::RuleToEmptyTable,
        text: format!(
            "{} rule `{rule}` looks up table {}, which has no routes: it decides nothing",
            family_name(rule.family),
            table_word(table)
        ),
    })
}

fn lone_tunnel(destinations: &[Destination], tunnel: &Tunnel) -> Option<Note> {
    if tunnel.inside.is_empty() {
        return Some(Note {
            id: NoteId::TunnelWithoutAddress,
            text: format!("tunnel {} has no address: its inside prefix and its peer are not known", tunnel.name),
        });
    }
    let used = destinations.iter().any(|destination| destination.tunnels.contains(&tunnel.ifindex));
    (!used).then(|| Note {
        id: NoteId::TunnelWithoutDestination,
        text: format!("nothing is routed through tunnel {}, as far as its addresses and the routes say", tunnel.name),
    })
}

/// A rule for some traffic only (an input interface, a source, a mark, a user) may send that traffic elsewhere. Such
/// rules are often meant so; the kernel was asked about ordinary traffic of this host.
fn selective_rule(case: Case<'_>, rule: &Rule) -> Option<Note> {
    let selective = rule.iif.is_some() || rule.from.is_some() || rule.mark.is_some() || rule.uid_range.is_some();
    if !selective || rule.invert || rule.protocol == VPNFIX_PROTOCOL || !rule.unknown_attributes.is_empty() {
        return None;
    }
    let elsewhere: Vec<String> = case
        .destinations
        .iter()
        .filter(|destination| Family::of(destination.address) == rule.family)
        .filter(|destination| {
            let end = walk::walk(case.fib, &case.fib.policy(rule.family), &flow_of(case.fib, rule, destination));
            end.rule() == Some(rule) && !destination.tunnels.iter().any(|tunnel| end.leaves_by(*tunnel))
        })
        .map(|destination| destination.prefix.to_string())
        .collect();
    (!elsewhere.is_empty()).then(|| Note {
        id: NoteId::SomeTrafficElsewhere,
        text: format!(
            "{} rule `{rule}` keeps the traffic that it selects out of the tunnels (to {}); it was not judged",
            family_name(rule.family),
            elsewhere.join(", ")
        ),
    })
}

/// A rule that sends destinations into main before another table is asked: ours of an earlier run, or somebody's own cure.
fn helpful_rule(case: Case<'_>, rule: &Rule) -> Option<Note> {
    let for_a_destination =
        rule.to.is_some_and(|to| case.destinations.iter().any(|destination| to.contains(&destination.prefix)));
    let for_all = rule.same_effect_anywhere(&Rule {
        suppress_prefix_length: Some(0),
        ..Rule::lookup(rule.family, rule.priority, TABLE_MAIN)
    });
    let mut later = case.fib.snapshot().rules_of(rule.family).filter(|other| other.priority > rule.priority);
    let precedes =
        later.any(|other| !other.is_kernel_default() && other.table().is_some_and(|table| table != TABLE_MAIN));
    let helps = rule.table() == Some(TABLE_MAIN) && (for_a_destination || for_all) && precedes;
    helps.then(|| Note {
        id: NoteId::AlreadyThere,
        text: match rule.protocol {
            VPNFIX_PROTOCOL => format!("{} rule `{rule}` is vpnfix's own, of an earlier run", family_name(rule.family)),
            _ => format!("{} rule `{rule}`, made by others, already does what vpnfix would", family_name(rule.family)),
        },
    })
}

/// The flow that a rule selects, to a destination.
fn flow_of(fib: &Fib<'_>, rule: &Rule, destination: &Destination) -> Flow {
    let plain = Flow::plain(destination.address);
    let iif = rule.iif.as_ref().and_then(|name| fib.link_named(name)).map(|link| link.index);
    Flow {
        from: rule.from.and_then(|from| from.hosts().next()),
        iif: iif.unwrap_or(plain.iif),
        mark: rule.mark.map_or(0, |mark| mark.value),
        uid: rule.uid_range.map_or(plain.uid, |uids| uids.start),
        protocol: rule.ip_protocol.unwrap_or(plain.protocol),
        source_port: rule.source_ports.map_or(0, Ports::first),
        destination_port: rule.destination_ports.map_or(0, Ports::first),
        tos: rule.tos,
        ..plain
    }
}

/// More specific routes of other tables, and rules for a part of the prefix, that take that part elsewhere: a
/// policy-based child in strongSwan's table, say.
fn parts_elsewhere(fib: &Fib<'_>, destination: &Destination) -> Vec<Note> {
    let snapshot = fib.snapshot();
    let family = Family::of(destination.address);
    let is_part = |prefix: &IpNet| destination.prefix.contains(prefix) && *prefix != destination.prefix;
    let tables: Vec<u32> = snapshot.rules_of(family).filter_map(Rule::table).collect();
    let of_routes = snapshot.routes.iter().filter(|route| {
        route.family == family
            && tables.contains(&route.table)
            && route.table != destination.table
            && route.table != TABLE_LOCAL
            && route.kind != RouteKind::Throw
    });
    let of_rules = snapshot.rules_of(family).filter(|rule| rule.protocol != VPNFIX_PROTOCOL).filter_map(|rule| rule.to);
    let mut parts: Vec<IpNet> = of_routes.map(|route| route.destination).chain(of_rules).filter(is_part).collect();
    parts.sort_unstable();
    parts.dedup();
    parts.into_iter().filter_map(|part| part_note(fib, destination, part)).collect()
}

fn part_note(fib: &Fib<'_>, destination: &Destination, part: IpNet) -> Option<Note> {
    let address = destination::sample(fib, part)?;
    let flow = Flow::plain(address);
    let end = walk::walk(fib, &fib.policy(flow.family()), &flow);
    if destination.tunnels.iter().any(|tunnel| end.leaves_by(*tunnel)) {
        return None;
    }
    let by = match &end {
        // What holds for the whole prefix is a finding of its own.
        End::Route { route, .. } if !part.contains(&route.destination) => return None,
        End::RefusedByRoute { route, .. } if !part.contains(&route.destination) => return None,
        End::NoRoute | End::AssumedOnLink(_) => return None,
        End::Route { rule, .. }
        | End::RefusedByRoute { rule, .. }
        | End::RefusedByRule(rule)
        | End::Undecided { rule, .. } => format!("rule `{rule}`"),
    };
    Some(Note {
        id: NoteId::PartElsewhere,
        text: format!("{part}, a part of {}, goes elsewhere by {by}; it is taken as meant so", destination.prefix),
    })
}

fn mixed_multipath(case: Case<'_>, destination: &Destination) -> Option<Note> {
    let is_tunnel = |index: &&u32| case.tunnels.iter().any(|tunnel| tunnel.ifindex == **index);
    let beside: Vec<String> = destination
        .tunnels
        .iter()
        .filter(|index| !is_tunnel(index))
        .map(|index| case.fib.snapshot().device_name(*index))
        .collect();
    (!beside.is_empty()).then(|| Note {
        id: NoteId::MixedMultipath,
        text: format!("the route to {} leaves by {} too, outside the tunnels", destination.prefix, beside.join(", ")),
    })
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}
