//! What is worth knowing of a host beside what is wrong with it. Most of it is what other people meant: no note may sound
//! like a fault.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;

use super::known::Known;
use super::question::{Asked, Subject};
use super::{cause, family_name};
use crate::core::destination::{self, Class, Destination};
use crate::core::finding::{Note, NoteId, Variant, few};
use crate::core::model::rule::table_word;
use crate::core::model::{Answer, Family, Reply, RouteKind, Rule, TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN};
use crate::core::owner::{self, VPNFIX_PROTOCOL, is_closing};
use crate::core::tunnel::{Inside, Tunnel};
use crate::core::walk::{End, Flow};

/// So many parts of one destination are looked at.
const PARTS: usize = 256;
/// So many prefixes, rules or addresses are named in one note.
const NAMED: usize = 3;

/// All notes about a host.
pub(super) fn notes<'q>(known: &Known<'_>, answered: impl Iterator<Item = (&'q Asked, &'q Answer)>) -> Vec<Note> {
    let mut notes = Vec::new();
    for family in Family::ALL {
        let others = || known.rules(family).iter().copied().filter(|rule| !rule.is_kernel_default());
        notes.extend(others().filter_map(|rule| empty_table(known, rule)));
        notes.extend(others().filter_map(not_understood));
        notes.extend(helpful_rules(known, family));
        notes.extend(in_front_of_ours(known, family));
        notes.extend(kept_closed(known, family));
        let parts = Parts::new(known, family);
        let of_family = |destination: &&Destination| Family::of(destination.address) == family;
        for destination in known.case.destinations.iter().filter(of_family) {
            notes.extend(parts.elsewhere(destination));
        }
    }
    notes.extend(lone_tunnels(known));
    notes.extend(known.case.tunnels.iter().filter_map(swapped_inside));
    notes.extend(known.case.destinations.iter().filter_map(|destination| mixed_multipath(known, destination)));
    notes.extend(sources(known, answered));
    notes
}

/// A rule to a table without routes fires no hook of the kernel: only the list of rules shows it. A rule for marked
/// traffic, say, is its maker's business.
fn empty_table(known: &Known<'_>, rule: &Rule) -> Option<Note> {
    let table = rule.table().filter(|table| *table != TABLE_DEFAULT)?;
    let for_all = rule.same_effect(&Rule { to: rule.to, ..Rule::lookup(rule.family, rule.priority, table) });
    let fib = known.case.fib;
    let empty = fib.is_empty(rule.family, table) && fib.is_whole(rule.family, table);
    (for_all && empty).then(|| Note {
        id: NoteId::RuleToEmptyTable,
        text: format!(
            "{} rule `{rule}` looks up table {}, which has no routes: it decides nothing",
            family_name(rule.family),
            table_word(table)
        ),
    })
}

/// A rule with a selector of a newer kernel: the engine stops there, and the kernel's answers stand alone.
fn not_understood(rule: &Rule) -> Option<Note> {
    (!rule.unknown_attributes.is_empty()).then(|| Note {
        id: NoteId::RuleNotUnderstood,
        text: format!(
            "{} rule `{rule}` has selectors of a newer kernel that this version of vpnfix does not know (attributes {}); \
             what comes after it is known from the kernel's answers alone",
            family_name(rule.family),
            few(&rule.unknown_attributes, NAMED)
        ),
    })
}

/// Tunnels without an address, and those through which nothing is routed.
fn lone_tunnels(known: &Known<'_>) -> Vec<Note> {
    // All destinations, not only those that were asked about.
    let all = destination::destinations(known.case.fib, known.case.tunnels);
    let used: HashSet<u32> = all.iter().flat_map(|destination| destination.tunnels.iter().copied()).collect();
    let note = |tunnel: &Tunnel| match (tunnel.inside.is_empty(), used.contains(&tunnel.ifindex)) {
        (true, _) => Some(Note {
            id: NoteId::TunnelWithoutAddress,
            text: format!("tunnel {} has no address: its inside prefix and its peer are not known", tunnel.name),
        }),
        (false, false) => Some(Note {
            id: NoteId::TunnelWithoutDestination,
            text: format!(
                "nothing is routed through tunnel {}, as far as its addresses and the routes say",
                tunnel.name
            ),
        }),
        (false, true) => None,
    };
    known.case.tunnels.iter().filter_map(note).collect()
}

/// AWS takes the first host of an inside /30 for its own end (the customer gateway's is the second).
fn swapped_inside(tunnel: &Tunnel) -> Option<Note> {
    let is_first = |inside: &&Inside| {
        matches!((inside.prefix, inside.local), (IpNet::V4(prefix), IpAddr::V4(local))
            if prefix.network().is_link_local() && prefix.prefix_len() == 30 && u32::from(local) & 3 == 1)
    };
    let inside = tunnel.inside.iter().find(is_first).filter(|_| tunnel.key.is_some())?;
    Some(Note {
        id: NoteId::SwappedInside,
        text: format!(
            "{} has {}, the first host of {}; AWS keeps that one for its own end. If the other end is AWS's, the two \
             addresses are swapped",
            tunnel.name, inside.local, inside.prefix
        ),
    })
}

/// Rules that send destinations into main before another table is asked: ours of an earlier run, or somebody's own cure.
fn helpful_rules(known: &Known<'_>, family: Family) -> Vec<Note> {
    let mut prefixes: JointPrefixMap<IpNet, ()> = JointPrefixMap::new();
    for destination in known.case.destinations {
        prefixes.insert(destination.prefix.trunc(), ());
    }
    let rules = known.rules(family);
    let decides = |rule: &&&Rule| !rule.is_kernel_default() && rule.table().is_some_and(|table| table != TABLE_MAIN);
    let last = rules.iter().rev().find(decides).map(|rule| rule.priority);
    let helps = |rule: &&&Rule| {
        let for_a_destination = rule.to.is_some_and(|to| prefixes.children(&to).next().is_some());
        let main_first = Rule { suppress_prefix_length: Some(0), ..Rule::lookup(family, rule.priority, TABLE_MAIN) };
        let precedes = last.is_some_and(|last| last > rule.priority);
        rule.table() == Some(TABLE_MAIN) && precedes && (for_a_destination || rule.same_effect_anywhere(&main_first))
    };
    let (own, others): (Vec<&Rule>, Vec<&Rule>) =
        rules.iter().filter(helps).copied().partition(|rule| rule.protocol == VPNFIX_PROTOCOL);
    let note = |rules: Vec<&Rule>, is: &str, are: &str| {
        let quoted: Vec<String> = rules.iter().map(|rule| format!("`{rule}`")).collect();
        let (noun, does) = if rules.len() == 1 { ("rule", is) } else { ("rules", are) };
        (!rules.is_empty()).then(|| Note {
            id: NoteId::AlreadyThere,
            text: format!("{} {noun} {}{does}", family_name(family), few(&quoted, NAMED)),
        })
    };
    let others = note(
        others,
        ", made by others, already does what vpnfix would",
        ", made by others, already do what vpnfix would",
    );
    let own = note(own, " is vpnfix's own, of an earlier run", " are vpnfix's own, of an earlier run");
    others.into_iter().chain(own).collect()
}

/// Rules of others that landed in front of ours. If they take a destination, that is a finding of its own.
fn in_front_of_ours<'a>(known: &Known<'a>, family: Family) -> Option<Note> {
    let rules: Vec<&'a Rule> = owner::in_front_of_ours(known.rules(family));
    let told = |rule: &'a Rule| format!("`{rule}` ({})", known.owner(Some(rule), None).name);
    let told: Vec<String> = rules.into_iter().map(told).collect();
    (!told.is_empty()).then(|| Note {
        id: NoteId::InFrontOfOurs,
        text: format!(
            "in front of vpnfix's own {} rules stands what is asked before them: {}. A rule that is added without a \
             priority lands there; give it one behind them where it is made. If it takes a destination of a tunnel, \
             `vpnfix fix` goes in front of it",
            family_name(family),
            few(&told, NAMED)
        ),
    })
}

/// Prefixes that vpnfix's own rules refuse, although nothing routes them into a tunnel any more: BGP withdrew them, say.
fn kept_closed(known: &Known<'_>, family: Family) -> Option<Note> {
    let destinations: HashSet<IpNet> = known.case.destinations.iter().map(|destination| destination.prefix).collect();
    let closing = known.rules(family).iter().filter(|rule| is_closing(rule)).filter_map(|rule| rule.to);
    let released: Vec<IpNet> = closing.filter(|to| !destinations.contains(to)).collect();
    (!released.is_empty()).then(|| Note {
        id: NoteId::KeptClosed,
        text: format!(
            "no tunnel has a route for {} now, and vpnfix's own rules keep that closed (--fail-closed); `vpnfix undo` \
             releases it",
            few(&released, NAMED)
        ),
    })
}

/// More specific routes of other tables, and rules for a part of a prefix, that take that part elsewhere: a policy-based
/// child in strongSwan's table, say.
struct Parts<'k, 'a> {
    known: &'k Known<'a>,
    tables: BTreeSet<u32>,
    of_rules: JointPrefixMap<IpNet, ()>,
}

impl<'k, 'a> Parts<'k, 'a> {
    fn new(known: &'k Known<'a>, family: Family) -> Self {
        let mut of_rules = JointPrefixMap::new();
        for rule in known.rules(family).iter().filter(|rule| rule.protocol != VPNFIX_PROTOCOL) {
            if let Some(to) = rule.to {
                of_rules.insert(to.trunc(), ());
            }
        }
        let tables = known.rules(family).iter().filter_map(|rule| rule.table());
        Self { known, tables: tables.filter(|table| *table != TABLE_LOCAL).collect(), of_rules }
    }

    /// One note for each rule that takes parts of the destination elsewhere.
    fn elsewhere(&self, destination: &Destination) -> Vec<Note> {
        let other_tables = self.tables.iter().filter(|table| **table != destination.table);
        let of_routes = other_tables.flat_map(|table| self.known.case.fib.within(*table, destination.prefix));
        let of_routes = of_routes.filter(|route| route.kind != RouteKind::Throw).map(|route| route.destination);
        let of_rules = self.of_rules.children(&destination.prefix).map(|(prefix, ())| prefix);
        let parts: BTreeSet<IpNet> =
            of_routes.chain(of_rules).filter(|part| *part != destination.prefix).take(PARTS).collect();
        let mut by_rule: BTreeMap<String, Vec<IpNet>> = BTreeMap::new();
        for part in parts {
            if let Some(rule) = self.taken_by(destination, part) {
                by_rule.entry(rule).or_default().push(part);
            }
        }
        let note = |(rule, parts): (String, Vec<IpNet>)| Note {
            id: NoteId::PartElsewhere,
            text: match parts.as_slice() {
                [part] => format!(
                    "{part}, a part of {}, goes elsewhere by rule `{rule}`; it is taken as meant so",
                    destination.prefix
                ),
                parts => format!(
                    "{}, parts of {}, go elsewhere by rule `{rule}`; they are taken as meant so",
                    few(parts, NAMED),
                    destination.prefix
                ),
            },
        };
        by_rule.into_iter().map(note).collect()
    }

    /// The rule that takes a part elsewhere, in words.
    fn taken_by(&self, destination: &Destination, part: IpNet) -> Option<String> {
        let address = destination::sample(self.known.case.fib, part)?;
        let end = self.known.walk(&Flow { oif: destination.vrf, ..Flow::plain(address) });
        if destination.tunnels.iter().any(|tunnel| end.leaves_by(*tunnel)) {
            return None;
        }
        match &end {
            // What holds for the whole prefix is a finding of its own.
            End::Route { route, .. } | End::RefusedByRoute { route, .. } if !part.contains(&route.destination) => None,
            End::NoRoute | End::AssumedOnLink(_) => None,
            End::Route { rule, .. }
            | End::RefusedByRoute { rule, .. }
            | End::RefusedByRule(rule)
            | End::Undecided { rule, .. } => Some(rule.to_string()),
        }
    }
}

fn mixed_multipath(known: &Known<'_>, destination: &Destination) -> Option<Note> {
    let beside: Vec<String> = destination
        .tunnels
        .iter()
        .filter(|index| known.tunnel(**index).is_none())
        .map(|index| known.name(*index))
        .collect();
    (!beside.is_empty()).then(|| Note {
        id: NoteId::MixedMultipath,
        text: format!("the route to {} leaves by {} too, outside the tunnels", destination.prefix, beside.join(", ")),
    })
}

/// For prefixes behind a tunnel another own address may well be meant as source; it is told unless a route says so.
fn sources<'q>(known: &Known<'_>, answered: impl Iterator<Item = (&'q Asked, &'q Answer)>) -> Vec<Note> {
    let mut others: BTreeMap<(String, IpAddr), Vec<IpNet>> = BTreeMap::new();
    for (asked, answer) in answered {
        let Subject::Destination { index, variant: Variant::Plain } = asked.subject else { continue };
        let Some(destination) = known.case.destinations.get(index) else { continue };
        let (Reply::Arrives(arrival), Some(_)) = (&answer.reply, destination.inside_source) else { continue };
        let Some(tunnel) = known.tunnel(arrival.ifindex) else { continue };
        let chosen = answer.entry.as_ref().is_none_or(|route| route.preferred_source.is_none());
        let Some(source) = arrival.source.filter(|_| chosen && destination.class != Class::Inside) else { continue };
        let own = tunnel.inside.iter().any(|inside| inside.local == source);
        if !own && known.goes_right(destination, &answer.reply) {
            others.entry((tunnel.name.clone(), source)).or_default().push(destination.prefix);
        }
    }
    let note = |((tunnel, source), prefixes): ((String, IpAddr), Vec<IpNet>)| Note {
        id: NoteId::SourceOfOtherDevice,
        text: format!(
            "this host's own packets to {} go into {tunnel} with source {source}, {}: the other side must know the way \
             back to it",
            few(&prefixes, NAMED),
            cause::owner_of(known, source)
        ),
    };
    others.into_iter().map(note).collect()
}
