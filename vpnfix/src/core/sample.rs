//! Which destinations the kernel is asked about where there are too many to ask about each.
//!
//! The engine puts every destination into a class: the same tunnels, decided by the same rule in the same way. Of a
//! class the kernel is asked about some members, and about both neighbours wherever two classes meet. Where its answers
//! differ within a class, or from what the engine says, it is asked about all of that class.

use std::collections::HashMap;

use super::destination::{Class, Destination};
use super::model::{Family, Rule};
use super::walk::{self, Doubt, End, Fib, Flow, Policy};

/// So many destinations are all asked about.
const ALL: usize = 512;
/// Of a class of prefixes about so many are asked about, evenly spread.
const OF_A_CLASS: usize = 16;

/// Destinations by what the engine says of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    /// For each destination its class.
    of: Vec<usize>,
    /// For each class what the engine says: into the tunnel or not, nothing where it cannot tell.
    right: Vec<Option<bool>>,
}

/// What makes two destinations one class.
#[derive(PartialEq, Eq, Hash)]
struct Decision<'a> {
    family: Family,
    tunnels: &'a [u32],
    rule: Option<&'a Rule>,
    way: Way,
}

/// Where the engine sees a destination go.
#[derive(PartialEq, Eq, Hash)]
enum Way {
    Tunnel,
    /// To its own table, of which not all routes are known.
    OwnTable,
    Elsewhere(Vec<u32>, Option<u32>),
    Refused,
    Unknown,
}

impl Classes {
    /// Sorts destinations into classes, in time linear in them.
    #[must_use]
    pub fn of(fib: &Fib<'_>, destinations: &[Destination]) -> Self {
        let policies: HashMap<Family, Policy<'_>> =
            Family::ALL.into_iter().map(|family| (family, fib.policy(family))).collect();
        let mut known: HashMap<Decision<'_>, usize> = HashMap::new();
        let mut classes = Self { of: Vec::with_capacity(destinations.len()), right: Vec::new() };
        for destination in destinations {
            let family = Family::of(destination.address);
            let Some(policy) = policies.get(&family) else { continue };
            let flow = Flow { oif: destination.vrf, ..Flow::plain(destination.address) };
            let end = walk::walk(fib, policy, &flow);
            let way = way(destination, &end);
            let right = match way {
                Way::Tunnel | Way::OwnTable => Some(true),
                Way::Elsewhere(..) | Way::Refused => Some(false),
                Way::Unknown => None,
            };
            let decision = Decision { family, tunnels: &destination.tunnels, rule: end.rule(), way };
            let class = *known.entry(decision).or_insert(classes.right.len());
            if class == classes.right.len() {
                classes.right.push(right);
            }
            classes.of.push(class);
        }
        classes
    }

    /// The class of a destination.
    #[must_use]
    pub fn class(&self, destination: usize) -> Option<usize> {
        self.of.get(destination).copied()
    }

    /// Which destinations to ask about first.
    #[must_use]
    pub fn first(&self, destinations: &[Destination]) -> Vec<bool> {
        if destinations.len() <= ALL {
            return vec![true; destinations.len()];
        }
        let mut sizes = vec![0_usize; self.right.len()];
        for class in &self.of {
            if let Some(size) = sizes.get_mut(*class) {
                *size += 1;
            }
        }
        let mut seen = vec![0_usize; self.right.len()];
        let mut previous = None;
        let mut chosen = Vec::with_capacity(destinations.len());
        for (index, destination) in destinations.iter().enumerate() {
            let class = self.of.get(index).copied().unwrap_or_default();
            let (Some(seen), Some(size)) = (seen.get_mut(class), sizes.get(class)) else { continue };
            let step = (size / OF_A_CLASS).max(1);
            let sampled = *seen % step == 0 || *seen + 1 == *size;
            let untold = self.right.get(class).copied().flatten().is_none();
            let meets = previous.is_some_and(|previous| previous != class);
            if meets && let Some(before) = chosen.last_mut() {
                *before = true;
            }
            chosen.push(sampled || untold || meets || destination.class != Class::Routed);
            *seen += 1;
            previous = Some(class);
        }
        chosen
    }

    /// Which further destinations to ask about, by what the kernel's answers about some were (`None`: not asked): all of
    /// a class whose answers differ among themselves or from what the engine says.
    #[must_use]
    pub fn further(&self, answered: &[Option<bool>]) -> Vec<bool> {
        let mut doubtful = vec![false; self.right.len()];
        for (class, answer) in self.of.iter().zip(answered) {
            if let (Some(answer), Some(doubtful)) = (answer, doubtful.get_mut(*class)) {
                *doubtful |= self.right.get(*class).copied().flatten() != Some(*answer);
            }
        }
        let is_doubtful = |class: &usize| doubtful.get(*class).copied().unwrap_or_default();
        self.of.iter().zip(answered).map(|(class, answer)| answer.is_none() && is_doubtful(class)).collect()
    }
}

fn way(destination: &Destination, end: &End<'_>) -> Way {
    match end {
        _ if destination.tunnels.iter().any(|tunnel| end.leaves_by(*tunnel)) => Way::Tunnel,
        End::Route { table, .. } => Way::Elsewhere(end.devices(), Some(*table)),
        End::AssumedOnLink(device) => Way::Elsewhere(vec![*device], None),
        End::RefusedByRule(_) | End::RefusedByRoute { .. } | End::NoRoute => Way::Refused,
        End::Undecided { doubt: Doubt::PartialTable(table), .. } if *table == destination.table => Way::OwnTable,
        End::Undecided { .. } => Way::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::destination::destinations;
    use crate::core::fixture::{VTI1, gateway, healthy_rules, route};
    use crate::core::model::{PartialTable, Snapshot, TABLE_MAIN};
    use crate::core::tunnel::tunnels;

    /// The incident's gateway without its hijacker, with so many prefixes through the tunnel.
    fn crowded(prefixes: u32) -> Snapshot {
        let mut host = gateway();
        host.rules = healthy_rules();
        for number in 0..prefixes {
            let prefix = format!("10.{}.{}.0/24", 100 + number / 256, number % 256);
            host.routes.push(route(TABLE_MAIN, &prefix, VTI1));
        }
        host
    }

    fn chosen(host: &Snapshot) -> (Vec<Destination>, Classes, Vec<bool>) {
        let fib = Fib::new(host);
        let found = destinations(&fib, &tunnels(host, &[]).expect("no device is named"));
        let classes = Classes::of(&fib, &found);
        let first = classes.first(&found);
        (found, classes, first)
    }

    fn count(flags: &[bool]) -> usize {
        flags.iter().filter(|flag| **flag).count()
    }

    #[test]
    fn few_are_all_asked_about() {
        let (found, _, first) = chosen(&crowded(100));
        assert_eq!(count(&first), found.len());
    }

    #[test]
    fn of_many_a_sample_and_each_boundary_is_asked_about() {
        let mut host = crowded(4000);
        // Amid them a part that a rule of others takes.
        let taken: ipnet::IpNet = "10.105.0.0/17".parse().expect("a prefix");
        host.rules.insert(1, Rule { to: Some(taken), ..Rule::lookup(Family::V4, 200, 220) });
        let (found, _, first) = chosen(&host);
        assert!(count(&first) < 60, "{}", count(&first));
        let asked = |prefix: &str| {
            let index = found.iter().position(|destination| destination.prefix.to_string() == prefix);
            index.and_then(|index| first.get(index)).copied().expect("there is such a destination")
        };
        for boundary in ["10.104.255.0/24", "10.105.0.0/24", "10.105.127.0/24", "10.105.128.0/24"] {
            assert!(asked(boundary), "{boundary}");
        }
        assert!(asked("169.254.55.52/30"));
        assert!(!asked("10.105.20.0/24"));
    }

    #[test]
    fn a_class_with_a_surprise_is_asked_about_whole() {
        let (found, classes, first) = chosen(&crowded(4000));
        let mut answers: Vec<Option<bool>> = first.iter().map(|asked| asked.then_some(true)).collect();
        assert_eq!(count(&classes.further(&answers)), 0);
        let routed = found.iter().zip(&first).rposition(|(one, asked)| *asked && one.class == Class::Routed);
        answers[routed.expect("some prefix is asked about")] = Some(false);
        assert_eq!(count(&classes.further(&answers)), found.len() - count(&first));
    }

    #[test]
    fn a_table_known_in_part_is_the_destinations_own() {
        let mut host = crowded(4000);
        host.partial = vec![PartialTable { family: Family::V4, table: TABLE_MAIN }];
        let fib = Fib::new(&host);
        let (found, _, _) = chosen(&crowded(4000));
        let classes = Classes::of(&fib, &found);
        assert!(classes.right.iter().all(|right| *right == Some(true)));
        assert!(count(&classes.first(&found)) < 60);
    }
}
