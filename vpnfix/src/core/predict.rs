//! What the engine expects the kernel to answer, and whether an answer is that.

use std::net::IpAddr;

use super::finding::few;
use super::model::rule::table_word;
use super::model::{Answer, Family, Question, Reply, Route, RouteKind, Rule, Snapshot};
use super::walk::{self, End, Fib, Flow, Policy};

/// What the engine expects of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prediction {
    /// It leaves by one of these devices.
    Leaves {
        /// The table that decides.
        table: u32,
        /// The devices; several where the route has several nexthops.
        devices: Vec<u32>,
        /// The source addresses that the kernel may choose, empty where that cannot be told or one was given.
        sources: Vec<IpAddr>,
    },
    /// It is delivered here.
    Delivered {
        /// The table that decides.
        table: u32,
    },
    /// The destination is taken to be on the link of this device, which the flow is bound to.
    OnLink(u32),
    /// It is refused.
    Refused,
    /// It cannot be told.
    Unknown,
}

/// What the engine expects of a question under these rules.
#[must_use]
pub fn predict(fib: &Fib<'_>, policy: &Policy<'_>, question: &Question) -> Prediction {
    Prediction::of(fib, &walk::walk(fib, policy, &Flow::from(question)), question)
}

impl Prediction {
    /// What a walk's end means for a question.
    #[must_use]
    pub fn of(fib: &Fib<'_>, end: &End<'_>, question: &Question) -> Self {
        match end {
            End::Route { table, route, .. } if route.kind == RouteKind::Local => Self::Delivered { table: *table },
            End::Route { table, route, .. } => {
                let devices = end.devices();
                // For flows bound to a device the VRFs have a say.
                let chosen = question.source.is_none() && question.output_interface.is_none();
                let sources = if chosen { sources(fib, route, &devices) } else { Vec::new() };
                Self::Leaves { table: *table, devices, sources }
            }
            End::AssumedOnLink(device) => Self::OnLink(*device),
            End::RefusedByRule(_) | End::RefusedByRoute { .. } | End::NoRoute => Self::Refused,
            End::Undecided { .. } => Self::Unknown,
        }
    }

    /// Is the answer what was expected: outcome, device, table and source? Nothing speaks against an answer where the
    /// engine cannot tell.
    #[must_use]
    pub fn admits(&self, reply: &Reply) -> bool {
        let source_fits = match (self, reply) {
            (Self::Leaves { sources, .. }, Reply::Arrives(arrival)) => {
                sources.is_empty() || arrival.source.is_none_or(|source| sources.contains(&source))
            }
            _ => true,
        };
        source_fits && self.admits_way(reply)
    }

    /// The same, whatever the source.
    #[must_use]
    pub fn admits_way(&self, reply: &Reply) -> bool {
        let Reply::Arrives(arrival) = reply else { return matches!(self, Self::Refused | Self::Unknown) };
        match self {
            Self::Unknown => true,
            Self::Refused => false,
            Self::OnLink(device) => arrival.ifindex == *device,
            Self::Delivered { table } => arrival.local && arrival.table == *table,
            Self::Leaves { table, devices, .. } => {
                !arrival.local && arrival.table == *table && devices.contains(&arrival.ifindex)
            }
        }
    }

    /// In words, with the names of the devices.
    #[must_use]
    pub fn words(&self, snapshot: &Snapshot) -> String {
        match self {
            Self::Leaves { table, devices, sources } => {
                let names: Vec<String> = devices.iter().map(|index| snapshot.device_name(*index)).collect();
                let source = match sources.as_slice() {
                    [] => String::new(),
                    sources => format!(", source {}", few(sources, 3)),
                };
                format!("{} (table {}{source})", names.join(" or "), table_word(*table))
            }
            Self::Delivered { table } => format!("delivered here (table {})", table_word(*table)),
            Self::OnLink(device) => format!("{} (on its link)", snapshot.device_name(*device)),
            Self::Refused => "unreachable".into(),
            Self::Unknown => "not to be told".into(),
        }
    }
}

/// The kernel's answer in the same words.
#[must_use]
pub fn reply_words(snapshot: &Snapshot, reply: &Reply) -> String {
    match reply {
        Reply::Arrives(arrival) if arrival.local => format!("delivered here (table {})", table_word(arrival.table)),
        Reply::Arrives(arrival) => {
            let source = arrival.source.map_or_else(String::new, |source| format!(", source {source}"));
            format!("{} (table {}{source})", snapshot.device_name(arrival.ifindex), table_word(arrival.table))
        }
        Reply::Refused(_) => "unreachable".into(),
    }
}

/// The source addresses that IPv4 may choose for a route: the one that it names, else one of its device's whose scope is
/// no narrower than the route's (`fib_result_prefsrc`, `inet_select_addr`). A device without such an address borrows one
/// from another, and IPv6 chooses by more than the route (RFC 6724): not to be told.
fn sources(fib: &Fib<'_>, route: &Route, devices: &[u32]) -> Vec<IpAddr> {
    if let Some(preferred) = route.preferred_source {
        return vec![preferred];
    }
    if route.family == Family::V6 {
        return Vec::new();
    }
    let of_device = |device: &u32| {
        let addresses = fib.snapshot().addresses.iter().filter(|address| address.ifindex == *device);
        let fitting = addresses.filter(|address| Family::of(address.local) == Family::V4);
        let fitting = fitting.filter(|address| address.scope <= route.scope);
        fitting.map(|address| address.local).collect::<Vec<_>>()
    };
    let by_device: Vec<Vec<IpAddr>> = devices.iter().map(of_device).collect();
    if by_device.iter().any(Vec::is_empty) {
        return Vec::new();
    }
    by_device.into_iter().flatten().collect()
}

/// A question that the kernel answers otherwise than was predicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surprise {
    /// What was asked about.
    pub destination: IpAddr,
    /// What was expected, in words.
    pub expected: String,
    /// What the kernel says, in words.
    pub found: String,
}

/// What the engine says of a host with some rules in place.
#[derive(Debug)]
pub struct Predictor<'a> {
    fib: &'a Fib<'a>,
    now: [Policy<'a>; 2],
    then: [Policy<'a>; 2],
}

impl<'a> Predictor<'a> {
    /// Predicts what `rules` change on a host that is as `fib` says.
    #[must_use]
    pub fn new(fib: &'a Fib<'a>, rules: &'a [Rule]) -> Self {
        let now = Family::ALL.map(|family| fib.policy(family));
        let then = [now[0].with(rules), now[1].with(rules)];
        Self { fib, now, then }
    }

    /// Does the engine explain this answer, given before the change? Where it does not, its predictions are worth nothing.
    #[must_use]
    pub fn explains(&self, before: &Answer) -> bool {
        predict(self.fib, of_family(&self.now, &before.question), &before.question).admits(&before.reply)
    }

    /// Holds the kernel's answer with the rules in place against the prediction.
    #[must_use]
    pub fn surprise(&self, after: &Answer) -> Option<Surprise> {
        let expected = predict(self.fib, of_family(&self.then, &after.question), &after.question);
        (!expected.admits(&after.reply)).then(|| Surprise {
            destination: after.question.destination,
            expected: expected.words(self.fib.snapshot()),
            found: reply_words(self.fib.snapshot(), &after.reply),
        })
    }
}

fn of_family<'p, 'a>(policies: &'p [Policy<'a>; 2], question: &Question) -> &'p Policy<'a> {
    let [v4, v6] = policies;
    match Family::of(question.destination) {
        Family::V4 => v4,
        Family::V6 => v6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fixture::{VTI1, answer, gateway};
    use crate::core::model::{Arrival, TABLE_MAIN};

    fn main_first() -> Rule {
        Rule { suppress_prefix_length: Some(0), ..Rule::lookup(Family::V4, 219, TABLE_MAIN) }
    }

    fn plain(to: &str) -> Question {
        Question::plain(to.parse().expect("an address"))
    }

    fn by(ifindex: u32, table: u32, source: &str) -> Reply {
        Reply::Arrives(Arrival { table, ifindex, gateway: None, source: source.parse().ok(), local: false })
    }

    #[test]
    fn device_table_and_source_are_predicted() {
        let host = gateway();
        let fib = Fib::new(&host);
        let question = plain("10.20.0.1");
        let policy = fib.policy(Family::V4);
        let rules = [main_first()];
        let expected = predict(&fib, &policy.with(&rules), &question);
        assert!(expected.admits(&by(VTI1, TABLE_MAIN, "169.254.55.54")));
        for other in
            [by(VTI1, TABLE_MAIN, "192.168.12.49"), by(VTI1, 220, "169.254.55.54"), by(2, TABLE_MAIN, "169.254.55.54")]
        {
            assert!(!expected.admits(&other), "{other:?}");
        }
        assert!(!expected.admits(&Reply::Refused(101)));
        assert_eq!(expected.words(&host), "vti1 (table main, source 169.254.55.54)");
    }

    #[test]
    fn a_surprise_says_what_was_expected_and_found() {
        let host = gateway();
        let fib = Fib::new(&host);
        // The kernel answers as if the rule were not there.
        let before = answer(&host, &plain("10.20.0.1"));
        let rules = [main_first()];
        let found = Predictor::new(&fib, &rules).surprise(&before).expect("it is one");
        assert!(found.expected.starts_with("vti1 (table main"), "{found:?}");
        assert!(found.found.starts_with("ens5 (table 220"), "{found:?}");
        assert_eq!(Predictor::new(&fib, &[]).surprise(&before), None);
    }

    #[test]
    fn an_answer_that_the_engine_would_not_give_is_not_explained() {
        let host = gateway();
        let fib = Fib::new(&host);
        let mut before = answer(&host, &plain("10.20.0.1"));
        let predictor = Predictor::new(&fib, &[]);
        assert!(predictor.explains(&before));
        before.reply = by(VTI1, 99, "169.254.55.54");
        assert!(!predictor.explains(&before));
    }

    #[test]
    fn what_a_rule_refuses_is_predicted_too() {
        let host = gateway();
        let fib = Fib::new(&host);
        let closing = Rule {
            to: "10.20.0.0/16".parse().ok(),
            action: crate::core::model::RuleAction::Unreachable,
            ..Rule::lookup(Family::V4, 219, 0)
        };
        let rules = [closing];
        let expected = predict(&fib, &fib.policy(Family::V4).with(&rules), &plain("10.20.0.1"));
        assert_eq!(expected, Prediction::Refused);
        assert!(expected.admits(&Reply::Refused(101)));
    }
}
