//! Findings of one cause, with the sentence that says what is wrong and what cures it.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::destination::Destination;
use crate::core::finding::{Finding, NamedRule, Owner, Reason, Severity, Variant};
use crate::core::model::{Family, Snapshot};
use crate::core::plan::Plan;

/// One cause of one or many findings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cause {
    /// Identifier, unique in the report.
    pub id: String,
    /// Why.
    pub reason: Reason,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in one sentence.
    pub sentence: String,
    /// What is known besides, in words.
    pub remarks: Vec<String>,
    /// The rule that decides it.
    pub rule: Option<NamedRule>,
    /// Who put the rule there.
    pub owner: Owner,
    /// Identifiers of the findings, in the report's order.
    pub findings: Vec<String>,
    /// What cures it.
    pub cured_by: CuredBy,
}

/// What cures a cause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CuredBy {
    /// Commands of those steps of the plan that do, in the plan's order.
    pub steps: Vec<String>,
    /// Prefixes of the cause that the plan does not cure.
    #[schemars(with = "Vec<String>")]
    pub left_out: Vec<IpNet>,
    /// What a person can do where the plan does not, in words.
    pub advice: Option<String>,
}

/// What makes findings one cause: the same reason, rule and wrong way, in the same family.
type Key<'a> = (Reason, Family, Option<&'a NamedRule>, Option<&'a str>, Option<u32>, Option<&'a str>, Option<&'a str>);

fn key(finding: &Finding) -> Key<'_> {
    // A loop, a source address, a failing validation are told for each tunnel; control targets in one tunnel together.
    let apart = !finding.reason.is_wrong_way() && finding.reason != Reason::ControlInTunnel;
    let detail = finding.detail.as_deref().filter(|_| apart);
    let advice = finding.advice.as_deref().filter(|_| apart);
    let actual = &finding.actual;
    let family = Family::of(finding.destination);
    (finding.reason, family, finding.rule.as_ref(), actual.device.as_deref(), actual.table, detail, advice)
}

/// The causes of findings, worst first: by severity, and among equals the one with most findings.
#[must_use]
pub fn causes(
    snapshot: &Snapshot,
    destinations: &[Destination],
    findings: &[Finding],
    plan: Option<&Plan>,
) -> Vec<Cause> {
    let mut order: HashMap<Key<'_>, usize> = HashMap::new();
    let mut groups: Vec<Vec<&Finding>> = Vec::new();
    for finding in findings {
        let index = *order.entry(key(finding)).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        if let Some(group) = groups.get_mut(index) {
            group.push(finding);
        }
    }
    let cures = plan.map(|plan| Cures::new(snapshot, destinations, plan));
    let mut causes: Vec<Cause> = groups.iter().filter_map(|group| cause(group, cures.as_ref())).collect();
    causes.sort_by_key(|cause| (cause.severity, std::cmp::Reverse(cause.findings.len()), cause.reason));
    let mut seen: HashMap<String, usize> = HashMap::new();
    for cause in &mut causes {
        let count = seen.entry(cause.id.clone()).or_default();
        *count += 1;
        if *count > 1 {
            cause.id = format!("{}:{count}", cause.id);
        }
    }
    causes
}

fn cause(group: &[&Finding], cures: Option<&Cures<'_>>) -> Option<Cause> {
    let first = *group.first()?;
    let severity = group.iter().map(|finding| finding.severity).min()?;
    let family = match Family::of(first.destination) {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    let by = first.rule.as_ref().map_or_else(|| first.tunnel.clone(), |rule| rule.priority.to_string());
    let device = first.actual.device.as_deref().unwrap_or("none");
    let mut cured_by = cures.map(|cures| cures.of(group)).unwrap_or_default();
    cured_by.advice.clone_from(&first.advice);
    Some(Cause {
        id: format!("{}:{family}:{by}:{device}", first.reason.name()),
        reason: first.reason,
        severity,
        sentence: sentence(first, group.len()),
        remarks: remarks(group),
        rule: first.rule.clone(),
        owner: first.owner.clone(),
        findings: group.iter().map(|finding| finding.id.clone()).collect(),
        cured_by,
    })
}

/// One sentence that says what is wrong with so many destinations, for all of which `finding` stands.
#[must_use]
pub fn sentence(finding: &Finding, count: usize) -> String {
    let (what, it, goes) = match count {
        1 => ("A destination".to_string(), "it", "goes"),
        _ => (format!("{count} destinations"), "them", "go"),
    };
    let device = finding.actual.device.as_deref().unwrap_or("nothing");
    let tunnel = &finding.tunnel;
    match finding.reason {
        Reason::HijackedByRule => {
            format!("{what} of a tunnel: a policy rule sends {it} out of {device} before table main is asked")
        }
        Reason::HijackedFromVrf => format!(
            "{what} of a tunnel in a VRF: a policy rule sends {it} out of {device} before the VRF's own table is asked"
        ),
        Reason::ShadowedByRoute => format!("{what} of a tunnel: a better route of the same table leads to {device}"),
        Reason::ShadowedByHalves => format!(
            "{what} of a tunnel: the two halves of {} have routes of their own in the same table, which lead to {device}",
            finding.prefix
        ),
        Reason::MissingRoute => {
            format!("{what} of a tunnel: the table has no route of its own for {it}, and a wider one leads to {device}")
        }
        Reason::UnreachableRule => format!("{what} of a tunnel: a policy rule refuses {it}"),
        Reason::UnreachableRoute => format!("{what} of a tunnel: a route refuses {it}"),
        Reason::NoRoute => format!("{what} of a tunnel: no route at all"),
        Reason::TunnelDown => match &finding.actual.device {
            Some(device) => format!("{what} of a tunnel whose interface is down: out of {device}"),
            None => format!("{what} of a tunnel whose interface is down: no route any more"),
        },
        Reason::TunnelWithoutCarrier => format!("Tunnel {tunnel} is up, but has no carrier"),
        Reason::DuplicateInside => {
            format!("{what}: two tunnels have the same inside prefix, and packets for one go into the other")
        }
        Reason::PeerIsOwn => format!("{what} of a tunnel: the peer's inside address is this host's own"),
        Reason::OuterLoop => format!("The IKE peer of {tunnel} is routed into {tunnel} itself: a loop"),
        Reason::ControlInTunnel => format!("What works only outside of tunnels is routed into {tunnel}"),
        Reason::WrongSource => {
            format!(
                "{what} of a tunnel: packets {goes} into {tunnel} with a source address that the peer does not know"
            )
        }
        Reason::ReversePath => "Packets that come in by the tunnel: source validation drops them".into(),
        Reason::Unexplained => format!("{what} of a tunnel: the kernel's answer cannot be explained from its rules"),
    }
}

fn remarks(group: &[&Finding]) -> Vec<String> {
    let mut remarks: Vec<String> = Vec::new();
    for detail in group.iter().filter_map(|finding| finding.detail.as_ref()) {
        if !remarks.contains(detail) && remarks.len() < MOST_DETAILS {
            remarks.push(detail.clone());
        }
    }
    if let Some(split) = group.iter().find(|finding| is_hidden_by_binding(finding)) {
        remarks.push(format!("bound to the device it goes right, so `ping -I {}` hides this", split.tunnel));
    }
    let plain = |finding: &&Finding| finding.variants.contains(&Variant::Plain) || finding.variants.is_empty();
    if let Some(partly) = group.iter().find(|finding| finding.reason.is_wrong_way() && !plain(finding)) {
        remarks.push(format!(
            "only some questions go wrong ({}); a plain `ip route get` shows nothing",
            words(&partly.variants)
        ));
    }
    remarks
}

/// So many different details of one cause are told.
const MOST_DETAILS: usize = 5;

/// Does the kernel route a socket right that is bound to the tunnel, while it routes others wrong?
fn is_hidden_by_binding(finding: &Finding) -> bool {
    finding.right_when_bound && finding.reason.is_wrong_way() && !finding.variants.contains(&Variant::BoundToTunnel)
}

fn words(variants: &[Variant]) -> String {
    let word = |variant: &Variant| match variant {
        Variant::Plain => "plain",
        Variant::FromInside => "from the inside address",
        Variant::BgpActive => "TCP to port 179",
        Variant::BgpPassive => "TCP from port 179",
        Variant::BoundToTunnel => "bound to the tunnel",
        Variant::Reverse => "coming in",
        Variant::Selected => "as a rule selects it",
    };
    variants.iter().map(word).collect::<Vec<_>>().join(", ")
}

/// A plan's steps, by what they cure.
struct Cures<'a> {
    plan: &'a Plan,
    repaired: HashSet<(IpNet, u32, String)>,
    by_prefix: JointPrefixMap<IpNet, Vec<usize>>,
    for_all: Vec<usize>,
}

impl<'a> Cures<'a> {
    fn new(snapshot: &Snapshot, destinations: &[Destination], plan: &'a Plan) -> Self {
        let names: HashMap<u32, &str> = snapshot.links.iter().map(|link| (link.index, link.name.as_str())).collect();
        let repaired = plan.repairs.iter().filter_map(|index| destinations.get(*index)).filter_map(|destination| {
            let tunnel = destination.tunnels.first().and_then(|index| names.get(index))?;
            Some((destination.prefix, destination.table, (*tunnel).to_string()))
        });
        let mut by_prefix: JointPrefixMap<IpNet, Vec<usize>> = JointPrefixMap::new();
        let mut for_all = Vec::new();
        for (index, step) in plan.steps.iter().enumerate() {
            match step.rule.to {
                Some(to) => by_prefix.entry(to.trunc()).or_default().push(index),
                None => for_all.push(index),
            }
        }
        Self { plan, repaired: repaired.collect(), by_prefix, for_all }
    }

    fn of(&self, group: &[&Finding]) -> CuredBy {
        let is_repaired = |finding: &Finding| {
            let named = (finding.prefix, finding.expected.table, finding.tunnel.clone());
            finding.reason.is_wrong_way() && self.repaired.contains(&named)
        };
        let (cured, left): (Vec<&Finding>, Vec<&Finding>) =
            group.iter().copied().partition(|finding| is_repaired(finding));
        let mut steps: Vec<usize> = Vec::new();
        for finding in &cured {
            steps.extend(self.by_prefix.cover_values(&finding.prefix).flatten());
            let family = Family::of(finding.destination);
            let alike = |index: &&usize| self.plan.steps.get(**index).is_some_and(|step| step.rule.family == family);
            steps.extend(self.for_all.iter().filter(alike));
        }
        steps.sort_unstable();
        steps.dedup();
        let command = |index: usize| self.plan.steps.get(index).map(|step| step.rule.add_command());
        CuredBy {
            steps: steps.into_iter().filter_map(command).collect(),
            left_out: left.iter().map(|finding| finding.prefix).collect(),
            advice: None,
        }
    }
}
