//! How each tunnel fares, from what the kernel answered.

use std::collections::BTreeMap;

use super::Ledger;
use crate::core::destination::Destination;
use crate::core::finding::{Finding, few};
use crate::core::judge::Judgement;
use crate::core::plan::{self, Plan};
use crate::core::tunnel::Tunnel;
use crate::core::walk::Fib;

/// How a tunnel fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Its name.
    pub tunnel: String,
    /// What is wrong.
    pub wrong: Option<Wrong>,
    /// Rules of ours stand for one of its destinations.
    pub steered: bool,
}

/// What is wrong with a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// In words.
    pub what: String,
    /// The plan cures some of it.
    pub curable: bool,
}

/// So many prefixes of a finding are named.
const NAMED: usize = 3;

/// How each tunnel fares. The plan is the one that the findings lead to; without one nothing is curable.
#[must_use]
pub fn health(
    fib: &Fib<'_>,
    tunnels: &[Tunnel],
    destinations: &[Destination],
    judgement: &Judgement,
    plan: Option<&Plan>,
    ledger: &Ledger,
) -> Vec<Health> {
    let mut wrong: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in judgement.findings.iter().filter(|finding| finding.reason.is_wrong_way()) {
        wrong.entry(finding.tunnel.as_str()).or_default().push(finding);
    }
    let repaired = plan.filter(|plan| !plan.steps.is_empty()).map_or(&[][..], |plan| &plan.repairs[..]);
    let repaired: Vec<&Destination> = repaired.iter().filter_map(|index| destinations.get(*index)).collect();
    let is_curable =
        |finding: &&&Finding| repaired.iter().any(|destination| plan::is_of(fib.snapshot(), finding, destination));
    tunnels
        .iter()
        .map(|tunnel| Health {
            tunnel: tunnel.name.clone(),
            wrong: wrong.get(tunnel.name.as_str()).map(|findings| {
                let curable = findings.iter().find(is_curable);
                let first = curable.or(findings.first());
                Wrong {
                    what: first.map_or_else(String::new, |first| told(first, findings)),
                    curable: curable.is_some(),
                }
            }),
            steered: destinations
                .iter()
                .any(|destination| destination.tunnels.contains(&tunnel.ifindex) && ledger.steers(&destination.prefix)),
        })
        .collect()
}

/// A finding in one line, with the prefixes that have the same cause.
fn told(first: &Finding, all: &[&Finding]) -> String {
    let alike = all.iter().filter(|finding| finding.reason == first.reason && finding.rule == first.rule);
    let mut prefixes: Vec<String> = alike.map(|finding| finding.prefix.to_string()).collect();
    prefixes.dedup();
    let way = match (&first.actual.device, &first.actual.error) {
        (Some(device), _) => format!("leaves by {device}"),
        (None, Some(error)) => format!("is refused ({error})"),
        (None, None) => "goes nowhere".into(),
    };
    let rule =
        first.rule.as_ref().map_or_else(String::new, |rule| format!(", by rule {}: {}", rule.priority, rule.text));
    let owner = if first.owner.name == "unknown" { String::new() } else { format!(" ({})", first.owner.name) };
    format!("{} {way}{rule}{owner}: {}", few(&prefixes, NAMED), first.reason.name())
}
