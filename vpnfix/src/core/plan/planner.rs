//! A plan in the making.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;

use super::passing::Passing;
use super::places::Places;
use super::{
    LeftOut, Plan, PlanError, Situation, Step, Strategy, Wanted, inside_rule, is_curable, main_first, prefix_rule,
    why_not,
};
use crate::core::control::{Control, Outlook};
use crate::core::destination::{Class, Destination, may_steer};
use crate::core::finding::Finding;
use crate::core::model::{Family, Rule, TABLE_MAIN};
use crate::core::walk::{self, Flow};

/// What a finding is about: prefix, table and name of the first tunnel.
type About<'a> = (IpNet, u32, &'a str);

/// A destination with its index.
pub(super) type Target<'a> = (usize, &'a Destination);

/// A plan in the making, with what it looks up by.
pub(super) struct Planner<'a> {
    pub(super) plan: Plan,
    pub(super) situation: Situation<'a>,
    pub(super) wanted: Wanted,
    hijackers: &'a [Rule],
    effects: &'a HashSet<Rule>,
    findings: HashMap<About<'a>, Vec<&'a Finding>>,
    /// Controls by their address: a rule for a destination moves no others.
    controls: JointPrefixMap<IpNet, Vec<&'a Control>>,
    /// The host's rules by their effect, wherever they stand.
    standing: HashMap<Rule, Vec<&'a Rule>>,
    planned: HashSet<Rule>,
    used: HashSet<&'a Rule>,
    /// Prefixes that are refused while no tunnel has a route for them.
    pub(super) closed: JointPrefixMap<IpNet, ()>,
    repaired: HashSet<usize>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        situation: Situation<'a>,
        hijackers: &'a [Rule],
        effects: &'a HashSet<Rule>,
        wanted: Wanted,
    ) -> Self {
        let mut findings: HashMap<About<'a>, Vec<&'a Finding>> = HashMap::new();
        for finding in situation.findings {
            let about = (finding.prefix, finding.expected.table, finding.tunnel.as_str());
            findings.entry(about).or_default().push(finding);
        }
        let mut controls: JointPrefixMap<IpNet, Vec<&'a Control>> = JointPrefixMap::new();
        for control in situation.controls {
            controls.entry(IpNet::from(control.question.destination)).or_default().push(control);
        }
        let mut standing: HashMap<Rule, Vec<&'a Rule>> = HashMap::new();
        for rule in &situation.fib.snapshot().rules {
            standing.entry(rule.effect()).or_default().push(rule);
        }
        Self {
            plan: Plan {
                strategy: wanted.strategy,
                steps: Vec::new(),
                satisfied: Vec::new(),
                repairs: Vec::new(),
                left_out: Vec::new(),
                main_first: Vec::new(),
            },
            situation,
            wanted,
            hijackers,
            effects,
            findings,
            controls,
            standing,
            planned: HashSet::new(),
            used: HashSet::new(),
            closed: JointPrefixMap::new(),
            repaired: HashSet::new(),
        }
    }

    /// Where rules can stand before one of others.
    pub(super) fn places(&self, hijacker: &'a Rule) -> Places<'a> {
        let snapshot = self.situation.fib.snapshot();
        Places { snapshot, hijacker, asked: self.wanted.priority, effects: self.effects }
    }

    /// Plans for what the hijackers of one family took of main's.
    pub(super) fn family(&mut self, hijackers: &[&'a Rule]) -> Result<(), PlanError> {
        let Some(first) = hijackers.first().copied() else { return Ok(()) };
        let places = self.places(first);
        let wrong = self.wrong(places.hijacker.family);
        let is_main_first = self.main_first(hijackers, places, &wrong)?.is_some();
        let (inside, routed): (Vec<_>, Vec<_>) =
            wrong.iter().copied().partition(|(_, destination)| destination.class == Class::Inside);
        let strategy = self.plan.strategy;
        if matches!(strategy, Strategy::Auto | Strategy::Inside) {
            let at = places.inside()?;
            for (index, destination) in inside {
                self.place((index, destination), inside_rule(destination, at), "inside prefix");
            }
        }
        let by_prefix = match strategy {
            _ if is_main_first => return Ok(()),
            Strategy::Inside => {
                let why = "strategy inside repairs the tunnels' inside prefixes alone";
                let left = routed.iter().map(|(_, left)| LeftOut { prefix: left.prefix, why: why.into() });
                self.plan.left_out.extend(left);
                return Ok(());
            }
            Strategy::Auto => routed,
            Strategy::Prefixes | Strategy::MainFirst | Strategy::Vrf => wrong,
        };
        if by_prefix.is_empty() {
            return Ok(());
        }
        let at = places.latest()?;
        for (index, destination) in by_prefix {
            self.place((index, destination), prefix_rule(destination, at), "prefix");
        }
        Ok(())
    }

    /// One rule for all, where the strategy has it and it may stand. Says at which priority.
    pub(super) fn main_first(
        &mut self,
        hijackers: &[&Rule],
        places: Places<'_>,
        wrong: &[Target<'a>],
    ) -> Result<Option<u32>, PlanError> {
        let alone = match self.plan.strategy {
            Strategy::Inside | Strategy::Prefixes | Strategy::Vrf => None,
            Strategy::MainFirst => Some(places.latest_alone()?),
            Strategy::Auto => places.latest_alone().ok(),
        };
        let Some(rule) = alone.map(|priority| main_first::rule(places.hijacker.family, priority)) else {
            return Ok(None);
        };
        let (forced, priority) = (self.plan.strategy == Strategy::MainFirst, rule.priority);
        let judged = main_first::consider(self.situation, hijackers, &rule, forced);
        let used = judged.used;
        self.plan.main_first.push(judged);
        if used {
            self.add(rule, format!("main decides before `{}`, but for its default route", places.hijacker));
            wrong.iter().for_each(|(index, _)| self.repairs(*index));
        }
        Ok(used.then_some(priority))
    }

    /// The destinations of a family that a rule hijacks.
    pub(super) fn wrong(&self, family: Family) -> Vec<Target<'a>> {
        let snapshot = self.situation.fib.snapshot();
        let is_wrong = |(_, destination): &(usize, &'a Destination)| {
            Family::of(destination.address) == family
                && destination.table == TABLE_MAIN
                && may_steer(destination)
                && self.findings_of(destination).iter().any(|finding| is_curable(snapshot, finding))
        };
        self.situation.destinations.iter().enumerate().filter(is_wrong).collect()
    }

    /// The destinations of a family that a rule takes out of their VRF.
    pub(super) fn wrong_in_vrfs(&self, family: Family) -> Vec<Target<'a>> {
        let snapshot = self.situation.fib.snapshot();
        let is_wrong = |(_, destination): &Target<'a>| {
            Family::of(destination.address) == family
                && destination.vrf.is_some()
                && self.findings_of(destination).iter().any(|finding| is_curable(snapshot, finding))
        };
        self.situation.destinations.iter().enumerate().filter(is_wrong).collect()
    }

    pub(super) fn findings_of(&self, destination: &Destination) -> &[&'a Finding] {
        let tunnel = destination.tunnels.first().and_then(|index| self.situation.fib.link(*index));
        let about = tunnel.map(|link| (destination.prefix, destination.table, link.name.as_str()));
        about.and_then(|about| self.findings.get(&about)).map_or(&[], Vec::as_slice)
    }

    /// Adds a rule for one destination, unless it would draw a control target into a tunnel.
    pub(super) fn place(&mut self, (index, destination): Target<'_>, rule: Rule, what: &str) {
        let passing = self.passing(destination, &rule);
        let rules: Vec<Rule> = passing.iter().map(|passing| &passing.rule).chain([&rule]).cloned().collect();
        if let Some(why) = self.objection(destination, &rules) {
            self.plan.left_out.push(LeftOut { prefix: destination.prefix, why });
            return;
        }
        self.pass(passing, &rule);
        self.add(rule, format!("{what} {} belongs to {}", destination.prefix, self.names(destination)));
        self.repairs(index);
    }

    /// Adds what goes before a rule of ours, unless that stands already: then it would come too late.
    pub(super) fn pass(&mut self, passing: Vec<Passing<'_>>, ours: &Rule) {
        let comes_too_late = self.standing_before(ours).is_some();
        for Passing { rule, theirs } in passing {
            if !comes_too_late || self.standing_before(&rule).is_some() {
                self.add(rule, format!("what `{theirs}` is for goes on to it"));
            }
        }
    }

    pub(super) fn is_hijacker(&self, rule: &Rule) -> bool {
        self.hijackers.contains(rule)
    }

    /// The devices that a destination belongs to, by name.
    pub(super) fn names(&self, destination: &Destination) -> String {
        let name = |index: &u32| {
            self.situation.fib.link(*index).map_or_else(|| format!("if{index}"), |link| link.name.clone())
        };
        destination.tunnels.iter().map(name).collect::<Vec<_>>().join(" and ")
    }

    /// What rules for a destination would do to a control target that may not be done to it.
    pub(super) fn harm(&self, destination: &Destination, rules: &[Rule]) -> Option<String> {
        let Situation { fib, tunnels, .. } = self.situation;
        let touched = self.controls.children(&destination.prefix).flat_map(|(_, controls)| controls.iter().copied());
        let mut touched = touched.peekable();
        // Most destinations hold none, and the outlook goes through all rules.
        touched.peek()?;
        let outlook = Outlook::new(fib, tunnels, self.hijackers, rules);
        touched.find_map(|control| Some(outlook.harm(control)?.words(control, "the tunnel")))
    }

    /// Why rules for a destination would not do, or would do harm.
    pub(super) fn objection(&self, destination: &Destination, rules: &[Rule]) -> Option<String> {
        if let Some(harm) = self.harm(destination, rules) {
            return Some(harm);
        }
        let fib = self.situation.fib;
        let flow = Flow { oif: destination.vrf, ..Flow::plain(destination.address) };
        let end = walk::walk(fib, &fib.policy(flow.family()).with(rules), &flow);
        let arrives = destination.tunnels.iter().any(|tunnel| end.leaves_by(*tunnel));
        let told = arrives || end.is_undecided();
        (!told).then(|| "table main itself leads elsewhere, so no rule into it helps".into())
    }

    /// Adds a step, unless a rule of the same effect stands where the step's would, or anywhere before the hijacker.
    pub(super) fn add(&mut self, rule: Rule, why: String) {
        let existing = self.standing_before(&rule);
        self.add_unless(existing, rule, why);
    }

    /// A rule of the host that does the same no later.
    fn standing_before(&self, rule: &Rule) -> Option<&'a Rule> {
        let same = self.standing.get(&rule.effect()).map_or(&[][..], Vec::as_slice);
        same.iter().find(|other| other.priority <= rule.priority).copied()
    }

    /// Adds a step, unless this rule does it already.
    pub(super) fn add_unless(&mut self, existing: Option<&'a Rule>, rule: Rule, why: String) {
        match existing {
            Some(existing) if !self.used.insert(existing) => {}
            Some(existing) => self.plan.satisfied.push(existing.clone()),
            // Two tunnels with the same inside prefix need it once.
            None if !self.planned.insert(rule.clone()) => {}
            None => self.plan.steps.push(Step { rule, why }),
        }
    }

    /// A rule of the host that is as told and stands no later than this one would.
    pub(super) fn stands(&self, rule: &Rule, is_as_told: impl Fn(&Rule) -> bool) -> Option<&'a Rule> {
        let rules = self.situation.fib.snapshot().rules_of(rule.family);
        rules.filter(|other| other.priority <= rule.priority).find(|other| is_as_told(other))
    }

    pub(super) fn repairs(&mut self, index: usize) {
        if self.repaired.insert(index) {
            self.plan.repairs.push(index);
        }
    }

    /// Says of each destination with a finding that the plan does not repair why it does not.
    pub(super) fn leave_out_incurable(&mut self) {
        let mut told: HashSet<IpNet> = self.plan.left_out.iter().map(|left| left.prefix).collect();
        for (index, destination) in self.situation.destinations.iter().enumerate() {
            let first = self.findings_of(destination).first().copied();
            let Some(finding) = first.filter(|_| !self.repaired.contains(&index)) else { continue };
            if told.insert(finding.prefix) {
                let why = why_not(self.situation.fib.snapshot(), finding, destination);
                self.plan.left_out.push(LeftOut { prefix: finding.prefix, why: why.into() });
            }
        }
    }
}
