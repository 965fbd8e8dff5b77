//! `--fail-closed`: two rules for each prefix, so that its traffic is refused rather than leaves in the clear while its
//! tunnel has no route for it.

use ipnet::IpNet;

use super::places::Places;
use super::planner::{Planner, Target};
use super::{LeftOut, PlanError, Strategy, is_curable, own_rule};
use crate::core::destination::{Class, Destination, may_steer};
use crate::core::finding::Reason;
use crate::core::model::{Family, Rule, RuleAction, TABLE_MAIN};
use crate::core::walk::{self, Flow};

/// The two rules of a prefix.
#[derive(Clone, Debug)]
struct Pair {
    /// Main decides, but only by a route for the prefix itself or a part of it: a wider one leads out of the tunnel.
    lookup: Rule,
    /// What main has no such route for is refused.
    refusal: Rule,
}

impl Pair {
    fn of(prefix: IpNet, (first, second): (u32, u32)) -> Self {
        let family = Family::of(prefix.addr());
        let shorter = prefix.prefix_len().saturating_sub(1);
        let to = Some(prefix);
        Self {
            lookup: Rule { to, suppress_prefix_length: Some(shorter.into()), ..own_rule(family, first) },
            refusal: Rule { to, action: RuleAction::Unreachable, ..own_rule(family, second) },
        }
    }

    /// Does a rule, whoever made it, do what one of the two does?
    fn is_part(&self, rule: &Rule, needed: u32) -> bool {
        self.looks_up_as(rule, needed) || self.refuses_as(rule)
    }

    /// A lookup that discards what must be discarded, and not the prefix's own route.
    fn looks_up_as(&self, rule: &Rule, needed: u32) -> bool {
        let most = self.lookup.suppress_prefix_length.unwrap_or(0);
        rule.to == self.lookup.to
            && rule.suppress_prefix_length.is_some_and(|length| (needed..=most).contains(&length))
            && self.lookup.same_effect_anywhere(&Rule { suppress_prefix_length: Some(most), ..rule.clone() })
    }

    fn refuses_as(&self, rule: &Rule) -> bool {
        rule.to == self.refusal.to
            && matches!(rule.action, RuleAction::Unreachable | RuleAction::Prohibit | RuleAction::Blackhole)
            && self.refusal.same_effect_anywhere(&Rule { action: RuleAction::Unreachable, ..rule.clone() })
    }
}

impl<'a> Planner<'a> {
    /// Closes the prefixes of one family, and repairs what the hijackers took of them.
    pub(super) fn close(&mut self, family: Family, hijackers: &[&'a Rule]) -> Result<(), PlanError> {
        let mut targets = self.to_close(family);
        let Some(before) = self.first_decider(&targets, hijackers) else { return Ok(()) };
        let places = self.places(before);
        let main_first = self.closed_main_first(hijackers, places)?;
        let limit = main_first.unwrap_or(before.priority);
        let latest = places.pair(limit)?;
        let of_inside = match self.wanted.strategy {
            Strategy::Auto | Strategy::Inside => places.inside_pair(limit)?,
            _ => latest,
        };
        // The wider ones first: what lies in them is closed with them.
        targets.sort_by_key(|(_, destination)| destination.prefix.prefix_len());
        for target in targets {
            let place = if target.1.class == Class::Inside { of_inside } else { latest };
            self.close_one(target, place);
        }
        Ok(())
    }

    /// What main sends through a tunnel, or would if the tunnel were up, and nobody meant otherwise.
    fn to_close(&self, family: Family) -> Vec<Target<'a>> {
        let snapshot = self.situation.fib.snapshot();
        let is_meant_for_tunnel = |destination: &Destination| {
            let findings = self.findings_of(destination);
            let wrong = findings.iter().filter(|finding| finding.reason.is_wrong_way());
            wrong.clone().count() == 0
                || wrong.clone().any(|finding| finding.reason == Reason::TunnelDown || is_curable(snapshot, finding))
        };
        let of_strategy = |class: Class| match self.wanted.strategy {
            Strategy::Inside => class == Class::Inside,
            _ => class != Class::Default,
        };
        let all = self.situation.destinations.iter().enumerate();
        all.filter(|(_, destination)| {
            Family::of(destination.address) == family
                && destination.table == TABLE_MAIN
                && of_strategy(destination.class)
                && may_steer(destination)
                && is_meant_for_tunnel(destination)
        })
        .collect()
    }

    /// The first rule that decides for any of them, or would if what the pairs do were not done: they must stand before it,
    /// our own open rules of an earlier run included.
    fn first_decider(&self, targets: &[Target<'a>], hijackers: &[&'a Rule]) -> Option<&'a Rule> {
        let fib = self.situation.fib;
        let decider = |(_, destination): &Target<'a>| {
            let pair = Pair::of(destination.prefix, (0, 0));
            let needed = self.shortest_to_keep_out(destination);
            let flow = Flow::plain(destination.address);
            let policy = fib.policy(flow.family()).without(|rule| pair.is_part(rule, needed));
            let end = walk::walk(fib, &policy, &flow);
            let main = || policy.rules().iter().copied().find(|rule| rule.table() == Some(TABLE_MAIN));
            end.rule().or_else(main)
        };
        let deciders =
            targets.iter().filter_map(decider).chain(hijackers.iter().copied().filter(|_| !targets.is_empty()));
        deciders.min_by_key(|rule| rule.priority)
    }

    /// The longest prefix of main that covers the destination's and leads elsewhere; 0 for the default route.
    fn shortest_to_keep_out(&self, destination: &Destination) -> u32 {
        let covering = self.situation.fib.covering(TABLE_MAIN, destination.prefix).into_iter().flatten();
        let wider = covering.filter(|route| route.destination.prefix_len() < destination.prefix.prefix_len());
        let elsewhere = wider.filter(|route| !destination.tunnels.iter().any(|tunnel| route.leaves_by(*tunnel)));
        elsewhere.map(|route| route.destination.prefix_len().into()).max().unwrap_or(0)
    }

    /// Main first beside the pairs: it steers what BGP learns later, and leaves that open until `fix` runs again.
    fn closed_main_first(&mut self, hijackers: &[&'a Rule], places: Places<'_>) -> Result<Option<u32>, PlanError> {
        if hijackers.is_empty() {
            return Ok(None);
        }
        // Behind the pairs, where one priority is asked for.
        let places = Places { asked: places.asked.map(|asked| asked.saturating_add(2)), ..places };
        let wrong = self.wrong(places.hijacker.family);
        self.main_first(hijackers, places, &wrong)
    }

    fn close_one(&mut self, (index, destination): Target<'a>, place: (u32, u32)) {
        let link_is_up = |tunnel: &u32| self.situation.fib.link(*tunnel).is_some_and(|link| link.up);
        let is_up = destination.tunnels.iter().any(link_is_up);
        if self.closed.cover_values(&destination.prefix).next().is_some() {
            if is_up {
                self.repairs(index);
            }
            return;
        }
        let pair = Pair::of(destination.prefix, place);
        let needed = self.shortest_to_keep_out(destination);
        let passing = self.passing(destination, &pair.lookup);
        let passed = || passing.iter().map(|passing| passing.rule.clone());
        let lookup: Vec<Rule> = passed().chain([pair.lookup.clone()]).collect();
        let objection = if is_up { self.objection(destination, &lookup) } else { self.harm(destination, &lookup) };
        if let Some(why) = objection {
            self.plan.left_out.push(LeftOut { prefix: destination.prefix, why });
            return;
        }
        let (looks_up, refuses) = (
            self.stands(&pair.lookup, |rule| pair.looks_up_as(rule, needed)),
            self.stands(&pair.refusal, |rule| pair.refuses_as(rule)),
        );
        let both: Vec<Rule> = passed().chain([pair.lookup.clone(), pair.refusal.clone()]).collect();
        let names = self.names(destination);
        if looks_up.is_none() {
            self.pass(passing, &pair.lookup);
        }
        self.add_unless(looks_up, pair.lookup.clone(), format!("prefix {} belongs to {names}", destination.prefix));
        match self.harm(destination, &both) {
            Some(why) => {
                let why = format!("it stays open while its tunnel is down: {why}");
                self.plan.left_out.push(LeftOut { prefix: destination.prefix, why });
            }
            None => {
                let why = format!("{} is refused while {names} has no route for it", destination.prefix);
                self.add_unless(refuses, pair.refusal, why);
                self.closed.insert(destination.prefix.trunc(), ());
            }
        }
        if is_up {
            self.repairs(index);
        }
    }
}
