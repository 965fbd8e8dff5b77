//! The document of `diagnose`.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cause::{self, Cause};
use super::{Outcome, VERSION};
use crate::core::destination::{Class, Destination};
use crate::core::finding::{ControlReport, Cure, Finding, Note, TunnelReport};
use crate::core::judge::Judge;
use crate::core::model::{Family, HostFacts, Netns, Snapshot};
use crate::core::owner::{self, Clues};
use crate::core::plan::{LeftOut, MainFirst, Plan, Strategy};
use crate::core::proof::{CounterExample, Proof};
use crate::core::tunnel::Tunnel;

/// Name of the schema.
pub const SCHEMA: &str = "vpnfix.diagnose/1";

/// Every tunnel destination, where it goes and where it should.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DiagnoseReport {
    /// Always `vpnfix.diagnose/1`.
    pub schema: String,
    /// Version of vpnfix.
    pub version: String,
    /// The exit status in words.
    pub outcome: Outcome,
    /// The host.
    pub host: HostFacts,
    /// The namespace.
    pub netns: Netns,
    /// The whole in one word.
    pub verdict: HostVerdict,
    /// The tunnels.
    pub tunnels: Vec<TunnelReport>,
    /// Every prefix that belongs into a tunnel.
    pub destinations: Vec<DestinationReport>,
    /// What is wrong, worst first.
    pub findings: Vec<Finding>,
    /// The causes of the findings, worst first.
    pub causes: Vec<Cause>,
    /// What must stay out of the tunnels, and where it goes.
    pub controls: Vec<ControlReport>,
    /// The plan that would cure it.
    pub plan: Option<PlanReport>,
    /// The cure at the root.
    pub cure: Vec<Cure>,
    /// What is worth knowing besides.
    pub notes: Vec<Note>,
}

/// The whole in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HostVerdict {
    /// Every destination goes into its tunnel.
    Healthy,
    /// At least one does not, or something else is wrong that a finding names.
    Misrouted,
    /// There is no tunnel, or nothing that belongs into one: nothing to judge.
    Unknown,
}

/// A prefix that belongs into a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DestinationReport {
    /// The prefix.
    #[schemars(with = "String")]
    pub prefix: IpNet,
    /// The address that stands for it.
    pub destination: IpAddr,
    /// Who said where it goes.
    pub judged_by: JudgedBy,
    /// Why it belongs there.
    pub class: DestinationClass,
    /// Names of the tunnels.
    pub tunnels: Vec<String>,
    /// Every question about it went right.
    pub right: bool,
}

/// Who said where a destination goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum JudgedBy {
    /// The kernel, which was asked.
    Kernel,
    /// The engine, from the rules and routes: of many alike the kernel is asked about some.
    Engine,
}

impl From<Judge> for JudgedBy {
    fn from(judge: Judge) -> Self {
        match judge {
            Judge::Kernel => Self::Kernel,
            Judge::Engine => Self::Engine,
        }
    }
}

/// Why a prefix belongs into a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DestinationClass {
    /// The tunnel's inside prefix.
    Inside,
    /// A route sends it there.
    Routed,
    /// The default route does.
    Default,
}

impl From<Class> for DestinationClass {
    fn from(class: Class) -> Self {
        match class {
            Class::Inside => Self::Inside,
            Class::Routed => Self::Routed,
            Class::Default => Self::Default,
        }
    }
}

/// A plan as reports show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanReport {
    /// The strategy.
    pub strategy: Strategy,
    /// What to do, in order.
    pub steps: Vec<StepReport>,
    /// Rules that are there already and do what a step would.
    pub satisfied: Vec<String>,
    /// What it does not cure.
    pub left_out: Vec<LeftOut>,
    /// Whether one rule for all (`main-first`) is harmless here, for each family where the strategy asks for it.
    pub main_first: Vec<MainFirstReport>,
}

/// What was found about the strategy `main-first` for one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MainFirstReport {
    /// The family.
    pub family: Family,
    /// The plan has the rule.
    pub used: bool,
    /// It was shown that the rule changes nothing but what the hijackers had led astray.
    pub proven: bool,
    /// The order of the rules alone shows it: it holds for any routes that main may get.
    pub lasting: bool,
    /// Classes of flows that were walked to show it.
    pub classes: Option<usize>,
    /// Why `auto` does not use it, or why it should not have been asked for.
    pub objection: Option<String>,
    /// A flow that the rule would lead astray.
    pub counter_example: Option<CounterExampleReport>,
}

/// A flow that `main-first` would lead astray.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CounterExampleReport {
    /// The flow.
    pub traffic: String,
    /// What becomes of it now.
    pub now: String,
    /// What would without the hijackers.
    pub without_hijacker: String,
    /// What would with the rule.
    pub with_rule: String,
}

impl From<&MainFirst> for MainFirstReport {
    fn from(main_first: &MainFirst) -> Self {
        let MainFirst { family, used, proof, objection } = main_first.clone();
        let lasting = matches!(proof, Proof::Proven { lasting: true, .. });
        let (classes, counter_example) = match proof {
            Proof::Proven { classes, .. } => (Some(classes), None),
            Proof::Undecided { .. } => (None, None),
            Proof::Refuted(example) => {
                let CounterExample { traffic, now, without_hijacker, with_rule, .. } = *example;
                (None, Some(CounterExampleReport { traffic, now, without_hijacker, with_rule }))
            }
        };
        Self { family, used, proven: classes.is_some(), lasting, classes, objection, counter_example }
    }
}

/// One step of a plan, as `ip` commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StepReport {
    /// The command that does it.
    #[serde(rename = "do")]
    pub apply: String,
    /// The command that takes it back.
    pub undo: String,
    /// Why.
    pub why: String,
}

impl From<&Plan> for PlanReport {
    fn from(plan: &Plan) -> Self {
        let step = |step: &crate::core::plan::Step| StepReport {
            apply: step.rule.add_command(),
            undo: step.rule.delete_command(),
            why: step.why.clone(),
        };
        Self {
            strategy: plan.strategy,
            steps: plan.steps.iter().map(step).collect(),
            satisfied: plan.satisfied.iter().map(ToString::to_string).collect(),
            left_out: plan.left_out.clone(),
            main_first: plan.main_first.iter().map(MainFirstReport::from).collect(),
        }
    }
}

/// What a report on a host is made from.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The host.
    pub snapshot: &'a Snapshot,
    /// Signs of other programs on it.
    pub clues: &'a Clues,
    /// Its tunnels.
    pub tunnels: &'a [Tunnel],
    /// What belongs into them, and whether all went right.
    pub destinations: &'a [Destination],
    /// For each destination: did every question go right?
    pub right: &'a [bool],
    /// For each destination: who answered?
    pub judged_by: &'a [Judge],
    /// What is wrong.
    pub findings: &'a [Finding],
    /// The control targets' ways.
    pub controls: &'a [ControlReport],
    /// What is worth knowing.
    pub notes: &'a [Note],
    /// The plan.
    pub plan: Option<&'a Plan>,
}

impl DiagnoseReport {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts<'_>) -> Self {
        let verdict = match (parts.destinations.is_empty(), parts.findings.is_empty()) {
            (true, _) => HostVerdict::Unknown,
            (false, true) => HostVerdict::Healthy,
            (false, false) => HostVerdict::Misrouted,
        };
        Self {
            schema: SCHEMA.into(),
            version: VERSION.into(),
            outcome: match verdict {
                HostVerdict::Healthy => Outcome::Ok,
                HostVerdict::Misrouted => Outcome::FaultFound,
                HostVerdict::Unknown => Outcome::Unable,
            },
            host: parts.snapshot.host.clone(),
            netns: parts.snapshot.netns.clone(),
            verdict,
            tunnels: parts.tunnels.iter().map(tunnel_report).collect(),
            destinations: destination_reports(parts),
            findings: parts.findings.to_vec(),
            causes: cause::causes(parts.snapshot, parts.destinations, parts.findings, parts.plan),
            controls: parts.controls.to_vec(),
            plan: parts.plan.map(PlanReport::from),
            cure: owner::cures(parts.snapshot, parts.clues, parts.findings),
            notes: parts.notes.to_vec(),
        }
    }
}

fn destination_reports(parts: Parts<'_>) -> Vec<DestinationReport> {
    let links = &parts.snapshot.links;
    let names: HashMap<u32, &str> = links.iter().map(|link| (link.index, link.name.as_str())).collect();
    let name = |index: &u32| names.get(index).map_or_else(|| format!("if{index}"), |name| (*name).to_string());
    let report = |((destination, right), judge): ((&Destination, &bool), &Judge)| DestinationReport {
        prefix: destination.prefix,
        destination: destination.address,
        judged_by: (*judge).into(),
        class: destination.class.into(),
        tunnels: destination.tunnels.iter().map(name).collect(),
        right: *right,
    };
    parts.destinations.iter().zip(parts.right).zip(parts.judged_by).map(report).collect()
}

/// A tunnel as reports show it, with its first inside address (IPv4 before IPv6).
#[must_use]
pub fn tunnel_report(tunnel: &Tunnel) -> TunnelReport {
    let inside = tunnel.inside.iter().min_by_key(|inside| Family::of(inside.local));
    TunnelReport {
        name: tunnel.name.clone(),
        kind: tunnel.kind.clone(),
        ifindex: tunnel.ifindex,
        up: tunnel.up,
        local: inside.map(|inside| inside.local),
        peer: inside.and_then(|inside| inside.peer),
        prefix: inside.map(|inside| inside.prefix),
        binding: tunnel.key,
    }
}
