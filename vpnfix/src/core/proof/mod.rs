//! The proof that asking main first does no harm: that the rule `lookup main suppress_prefixlength 0` before the
//! hijackers
//!
//! - (a) changes no decision at all once the hijackers are gone, and
//! - (b) with the hijackers present makes every decision that it changes what it would be without them, and changes none
//!   that a non-default route of a hijacker's table makes.
//!
//! It is a proof over classes of flows, not a sample: `scope` says which destinations the rule could be wrong for at all,
//! and why it cannot be for the others; `destinations` and `classes` divide what is left so that the rules and routes
//! treat all flows of a class alike; and one flow of each class is walked under the four policies.
//!
//! It holds for the rules, routes and devices of the snapshot, as far as the walk models the kernel. It needs bounded
//! work, and says so where the bound was met.

mod bits;
mod classes;
mod destinations;
mod scope;
mod words;

use super::model::rule::table_word;
use super::model::{Rule, TABLE_MAIN};
use super::walk::{self, Doubt, End, Fib, Flow, Found, Outcome, Policy};
use destinations::Destinations;
use scope::Scope;

/// Rules asked in all walks together, at the most: seconds of work. A host with 20 rules may then have 25,000 classes of
/// flows.
const RULES_ASKED: usize = 2_000_000;
/// Each class is walked under four policies.
const WALKS: usize = 4;
/// Every kind of flow is tried on so many destinations before the next ones are looked at: where the bound is met first,
/// a counter-example that needs a special flow is found all the same.
const TOGETHER: usize = 256;

/// What came of the proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// (a) and (b) hold.
    Proven {
        /// Classes of flows that were walked.
        classes: usize,
        /// The order of the rules alone proves it: it holds for any routes that main may get.
        lasting: bool,
    },
    /// They do not.
    Refuted(Box<CounterExample>),
    /// It cannot be told.
    Undecided {
        /// Why.
        why: String,
    },
}

/// A flow for which (a) or (b) does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterExample {
    /// The flow.
    pub flow: Flow,
    /// What does not hold.
    pub breach: Breach,
    /// The whole in a sentence: `traffic from 10.9.0.99 to 10.9.0.0 would leave by …`.
    pub sentence: String,
    /// The flow in words.
    pub traffic: String,
    /// What decides about it now, in words.
    pub now: String,
    /// What would without the hijackers.
    pub without_hijacker: String,
    /// What would with the rule: beside the hijackers, or without them where that is what does not hold.
    pub with_rule: String,
}

/// What of (a) and (b) does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// (a): the rule changes this decision though no hijacker is there.
    WithoutHijacker,
    /// (b): the rule changes this decision to another than the one without the hijackers.
    NotHome,
    /// (b): the rule takes this decision from a non-default route of a hijacker's table.
    RouteOfHijacker,
}

/// Can the rule be added without harm? `hijackers` are rules of the snapshot; `rule` is the one to be added, main-first at
/// the priority that it would have.
#[must_use]
pub fn prove_main_first(fib: &Fib<'_>, hijackers: &[&Rule], rule: &Rule) -> Proof {
    if !is_main_first(rule) {
        return Proof::Undecided { why: format!("`{rule}` is not the rule that this proof is about") };
    }
    let policy = fib.policy(rule.family).with(std::slice::from_ref(rule));
    match Scope::new(fib, &policy, hijackers, rule) {
        Ok(scope) if scope.is_nothing() => Proof::Proven { classes: 0, lasting: true },
        Ok(scope) => Trial::new(fib, hijackers, rule).run(&scope),
        Err(why) => Proof::Undecided { why },
    }
}

/// Does the proof need main's routes at all? Where no rule of others could be overtaken and the hijackers' tables hold
/// default routes only, it does not: they then need not be fetched.
#[must_use]
pub fn needs_whole_main(fib: &Fib<'_>, hijackers: &[&Rule], rule: &Rule) -> bool {
    let policy = fib.policy(rule.family).with(std::slice::from_ref(rule));
    Scope::new(fib, &policy, hijackers, rule).is_ok_and(|scope| !scope.is_nothing())
}

fn is_main_first(rule: &Rule) -> bool {
    let shape = Rule { suppress_prefix_length: Some(0), ..Rule::lookup(rule.family, rule.priority, TABLE_MAIN) };
    rule.same_effect(&shape)
}

/// The four policies that a flow is walked under.
struct Trial<'t, 'a> {
    fib: &'t Fib<'a>,
    hijackers: &'t [&'t Rule],
    rule: &'t Rule,
    now: Policy<'t>,
    home: Policy<'t>,
    now_with_rule: Policy<'t>,
    home_with_rule: Policy<'t>,
}

impl<'t, 'a: 't> Trial<'t, 'a> {
    fn new(fib: &'t Fib<'a>, hijackers: &'t [&'t Rule], rule: &'t Rule) -> Self {
        let now = fib.policy(rule.family);
        let home = now.without(|rule| hijackers.contains(&rule));
        let added = std::slice::from_ref(rule);
        let (now_with_rule, home_with_rule) = (now.with(added), home.with(added));
        Self { fib, hijackers, rule, now, home, now_with_rule, home_with_rule }
    }

    /// Walks one flow of each class. Those that differ least from ordinary traffic come first, so that the first
    /// counter-example is one that a person understands.
    fn run(&self, scope: &Scope<'_>) -> Proof {
        let table = scope.tables.iter().find(|table| !self.fib.is_whole(self.rule.family, **table));
        if let Some(table) = table {
            return Proof::Undecided { why: format!("only a part of table {} was read", table_word(*table)) };
        }
        let limit = RULES_ASKED / (WALKS * self.now_with_rule.rules().len());
        let destinations = Destinations::new(self.fib, scope, limit);
        let classes = classes::classes(self.fib, scope, &destinations);
        let mut whole = destinations.whole && classes.whole;
        let mut walked = 0;
        let mut doubt = None;
        let some = destinations.addresses.chunks(TOGETHER);
        let pairs =
            some.flat_map(|some| classes.flows.iter().flat_map(move |class| some.iter().map(move |to| (class, to))));
        for (class, to) in pairs {
            if walked == limit {
                whole = false;
                break;
            }
            walked += 1;
            match self.check(&Flow { to: *to, ..class.clone() }) {
                Ok(()) => {}
                Err(Objection::Breach(example)) => return Proof::Refuted(example),
                Err(Objection::Doubt(why)) => doubt = doubt.or(Some(why)),
            }
        }
        match doubt {
            Some(why) => Proof::Undecided { why },
            None if !whole => {
                let why = format!("no harm was found in the first {walked} classes of flows, and there are more");
                Proof::Undecided { why }
            }
            None => Proof::Proven { classes: walked, lasting: false },
        }
    }

    fn check(&self, flow: &Flow) -> Result<(), Objection> {
        let walk = |policy| walk::walk(self.fib, policy, flow);
        let (home, home_with_rule) = (walk(&self.home), walk(&self.home_with_rule));
        let (now, now_with_rule) = (walk(&self.now), walk(&self.now_with_rule));
        let breach = |breach, with_rule: &End<'_>| {
            let told = words::Told { fib: self.fib, hijackers: self.hijackers, flow, breach };
            Err(Objection::Breach(Box::new(told.counter_example(&now, &home, with_rule))))
        };
        if is_decided(&home) && is_decided(&home_with_rule) && !same(&home, &home_with_rule) {
            return breach(Breach::WithoutHijacker, &home_with_rule);
        }
        if is_decided(&now) && is_decided(&now_with_rule) && !same(&now, &now_with_rule) {
            if self.is_route_of_hijacker(flow, &now) {
                return breach(Breach::RouteOfHijacker, &now_with_rule);
            }
            if is_decided(&home) && !same(&now_with_rule, &home) {
                return breach(Breach::NotHome, &now_with_rule);
            }
        }
        match [&home, &home_with_rule, &now, &now_with_rule].into_iter().find_map(doubt) {
            Some((rule, doubt)) => Err(Objection::Doubt(words::doubt(rule, doubt))),
            None => Ok(()),
        }
    }

    /// Does a non-default route of a hijacker's table make this decision?
    fn is_route_of_hijacker(&self, flow: &Flow, now: &End<'_>) -> bool {
        let length = match now {
            End::Route { rule, route, .. } | End::RefusedByRoute { rule, route } if self.hijackers.contains(rule) => {
                route.destination.prefix_len()
            }
            // Behind it stands a route that refuses, or none.
            End::AssumedOnLink(_) => self.length_of_refusal(flow).unwrap_or(0),
            _ => 0,
        };
        length > 0
    }

    /// The prefix length of the hijacker's route that refuses a flow.
    fn length_of_refusal(&self, flow: &Flow) -> Option<u8> {
        let walk = walk::retrace(self.fib, &self.now, flow);
        let (rule, _) = walk.steps.last().filter(|(_, outcome)| *outcome == Outcome::Decided)?;
        let table = rule.table().filter(|_| self.hijackers.contains(rule))?;
        match walk::lookup(self.fib, table, flow) {
            Found::Refused(route) => Some(route.destination.prefix_len()),
            _ => None,
        }
    }
}

enum Objection {
    Breach(Box<CounterExample>),
    Doubt(String),
}

fn is_decided(end: &End<'_>) -> bool {
    !end.is_undecided()
}

fn doubt<'e>(end: &'e End<'_>) -> Option<(&'e Rule, &'e Doubt)> {
    match end {
        End::Undecided { rule, doubt } => Some((rule, doubt)),
        _ => None,
    }
}

/// Is it the same decision, whichever rule led to it? The same route of the same table, or a refusal of the same kind.
/// Two routes that happen to lead to the same gateway are different decisions: that is stricter than it need be, and so
/// on the safe side in (a) and in (b).
fn same(one: &End<'_>, other: &End<'_>) -> bool {
    match (one, other) {
        (
            End::Route { table, route, nexthops, .. },
            End::Route { table: other_table, route: other_route, nexthops: other_nexthops, .. },
        ) => table == other_table && route == other_route && nexthops == other_nexthops,
        (End::RefusedByRoute { route, .. }, End::RefusedByRoute { route: other, .. }) => route == other,
        (End::RefusedByRule(rule), End::RefusedByRule(other)) => rule.action == other.action,
        (End::AssumedOnLink(device), End::AssumedOnLink(other)) => device == other,
        (End::NoRoute, End::NoRoute) => true,
        _ => false,
    }
}

#[cfg(test)]
pub(in crate::core) mod properties;
#[cfg(test)]
mod tests;
