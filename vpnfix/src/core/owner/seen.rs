//! What the fingerprints look at: the host's network state and the signs on it, with the questions they share.

use super::{Candidate, Clues, Kind, Process, Program, Whereabouts};
use crate::core::model::{Family, Link, LinkKind, Mark, Route, Rule, Snapshot, TABLE_MAIN};

/// A host as the fingerprints see it.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) clues: &'a Clues,
}

impl<'a> Seen<'a> {
    /// Adds what on this host speaks for the program: its processes, units, sockets, and the name of a table.
    pub(super) fn on_host(&self, candidate: Candidate) -> Candidate {
        let signs = candidate.program.signs();
        let processes = self.clues.processes.iter().filter(|process| signs.processes.contains(&process.name.as_str()));
        let mut candidate = processes.fold(candidate, |candidate, process| match process.whereabouts {
            Whereabouts::Here => candidate.with(Kind::Host, format!("process {process} runs")),
            Whereabouts::Unknown => candidate.with(Kind::Told, unclear(process)),
            Whereabouts::Elsewhere => candidate,
        });
        let unit = |unit: &&String| signs.units.iter().any(|begin| unit.starts_with(begin));
        if let Some(unit) = self.clues.units.iter().find(unit) {
            candidate = candidate.with(Kind::Host, format!("unit {unit} is active"));
        }
        if let Some(path) = self.clues.paths.iter().find(|path| signs.paths.contains(&path.as_str())) {
            candidate = candidate.with(Kind::Host, format!("{path} exists"));
        }
        candidate
    }

    /// Is anything on this host a sign of the program?
    pub(super) fn is_there(&self, program: Program) -> bool {
        !self.on_host(Candidate::of(program)).evidence.is_empty()
    }

    /// Does this host have the device, and how is it called?
    pub(super) fn link(&self, fits: impl Fn(&Link) -> bool) -> Option<&'a Link> {
        self.snapshot.links.iter().find(|link| fits(link))
    }

    /// The routes of a table, of both families.
    pub(super) fn routes(&self, table: u32) -> impl Iterator<Item = &'a Route> {
        self.snapshot.routes.iter().filter(move |route| route.table == table)
    }

    /// The device that a route leaves by, the first of several.
    pub(super) fn device(&self, route: &Route) -> Option<&'a Link> {
        route.nexthops.iter().find_map(|nexthop| self.snapshot.link(nexthop.ifindex?))
    }

    /// A device that a table's routes leave by.
    pub(super) fn table_device(&self, table: u32, fits: impl Fn(&Link) -> bool) -> Option<&'a Link> {
        self.routes(table).find_map(|route| self.device(route).filter(|link| fits(link)))
    }

    /// A rule of the family that fits.
    pub(super) fn rule(&self, family: Family, fits: impl Fn(&Rule) -> bool) -> Option<&'a Rule> {
        self.snapshot.rules.iter().filter(|rule| rule.family == family).find(|rule| fits(rule))
    }

    /// The halves of everything, which outdo a default route without replacing it, as they leave by one device. The
    /// route is one of them; is the other there, too?
    pub(super) fn is_half_of_all(&self, route: &Route) -> bool {
        let other = |other: &&Route| {
            other.family == route.family
                && other.table == route.table
                && other.destination.prefix_len() == 1
                && other.destination != route.destination
                && self.device(other).map(|link| link.index) == self.device(route).map(|link| link.index)
        };
        route.destination.prefix_len() == 1 && self.snapshot.routes.iter().any(|route| other(&route))
    }

    /// The table that a rule sends all into that does not bear the mark of the same number: how WireGuard's users keep
    /// its own packets out of it. `ip rule` and NetworkManager give such rules no protocol.
    pub(super) fn marked_away(rule: &Rule) -> Option<u32> {
        let (table, mark) = (rule.table()?, rule.mark?.value);
        (table == mark && rule.protocol == 0 && rule.same_effect(&unmarked(rule, table))).then_some(table)
    }

    /// For `lookup main suppress_prefixlength 0`, with nothing else: the rule of the kind of [`Self::marked_away`] that
    /// it was made for. Made one after the other, they stand side by side.
    pub(super) fn companion(&self, rule: &Rule) -> Option<&'a Rule> {
        if rule.protocol != 0 || !rule.same_effect(&specific_of_main(rule)) {
            return None;
        }
        self.rule(rule.family, |other| {
            other.priority.abs_diff(rule.priority) == 1 && Self::marked_away(other).is_some()
        })
    }
}

fn unclear(process: &Process) -> String {
    format!("process {process} runs, in a network namespace that may not be looked at")
}

/// The rule as it would be with nothing but `not fwmark NUMBER lookup NUMBER`.
fn unmarked(rule: &Rule, number: u32) -> Rule {
    Rule {
        invert: true,
        mark: Some(Mark { value: number, mask: u32::MAX }),
        ..Rule::lookup(rule.family, rule.priority, number)
    }
}

/// The rule as it would be with nothing but `lookup main suppress_prefixlength 0`.
pub(super) fn specific_of_main(rule: &Rule) -> Rule {
    Rule { suppress_prefix_length: Some(0), ..Rule::lookup(rule.family, rule.priority, TABLE_MAIN) }
}

/// The rule as it would be with nothing but `lookup TABLE`.
pub(super) fn plain(rule: &Rule, table: u32) -> Rule {
    Rule::lookup(rule.family, rule.priority, table)
}

/// Is it a device of this kind, by the kernel's name of it?
pub(super) fn is_kind(link: &Link, kind: &str) -> bool {
    matches!(&link.kind, LinkKind::Other(name) if name == kind)
}

/// `from` an address or a prefix, and nothing else, into a table.
pub(super) fn is_only_from(rule: &Rule) -> bool {
    rule.from.is_some()
        && rule.table().is_some_and(|table| Rule { from: None, ..rule.clone() }.same_effect(&plain(rule, table)))
}

/// The program that is a candidate for the rules which lead to a table, for the table's routes.
pub(super) fn by_table(program: Program, table: u32, rule: &Rule) -> Candidate {
    Candidate::of(program)
        .with(Kind::Number, format!("table {table} is asked by rule `{rule}`"))
        .with(Kind::Shape, format!("that rule is as {} makes it", program.name()))
}
