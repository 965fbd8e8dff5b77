//! What is so of a host, decided by a person from the host's shape, and what vpnfix is known to tell otherwise.

use std::collections::BTreeMap;
use std::fs;

use serde::Deserialize;
use serde_json::Value;
use vpnfix::core::destination::Destination;
use vpnfix::core::finding::Finding;
use vpnfix::core::model::{Answer, Reply};

use crate::host;
use crate::pipeline::Diagnosis;

/// `truth.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Truth {
    /// `healthy`, `misrouted` or `unknown`.
    verdict: String,
    /// What belongs into which tunnels: `10.20.0.0/16 vti1+vti2`.
    #[serde(default)]
    destinations: BTreeMap<String, Way>,
    /// Words that the report must hold.
    #[serde(default)]
    says: Vec<String>,
    /// Words that it must not hold.
    #[serde(default)]
    never_says: Vec<String>,
    /// A word of the owner's name, in small letters, by the priority of a rule that is not the kernel's.
    #[serde(default)]
    owners: BTreeMap<String, String>,
}

/// Where a destination goes, and why if that is wrong.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Way {
    /// The device that `ip route get` tells, one of several with a multipath route (`vti1+vti2`), or `refused`.
    goes: String,
    /// The table that it tells.
    table: Option<u32>,
    /// Reasons, each with the priority of the rule where one is to blame.
    #[serde(default)]
    because: Vec<String>,
    /// It is wrong, and no rule of a plan may repair it.
    #[serde(default)]
    stays: bool,
}

/// What vpnfix tells wrongly, as [`Truth::differences`] names it, with why.
pub(crate) fn known_gaps() -> BTreeMap<String, String> {
    let file = host::golden().join("gaps.toml");
    toml::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

impl Truth {
    /// Where the diagnosis differs: what, and how. `text` is the report as text.
    pub(crate) fn differences(&self, diagnosis: &Diagnosis, text: &str) -> Vec<(String, String)> {
        let mut differences = Vec::new();
        // Words may stand on either side of a line's end.
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut check = |what: String, told: String, expected: String| {
            if told != expected {
                differences.push((what, format!("told `{told}`, should be `{expected}`")));
            }
        };
        check("verdict".into(), plain(&diagnosis.report.verdict), self.verdict.clone());
        let told: BTreeMap<String, &(Destination, Answer)> =
            diagnosis.plain.iter().map(|one| (key(diagnosis, &one.0), one)).collect();
        for (key, way) in &self.destinations {
            let Some((destination, answer)) = told.get(key) else {
                check(key.clone(), "no destination".into(), way.goes.clone());
                continue;
            };
            let expected = (way.goes.split('+').map(String::from).collect::<Vec<_>>(), way.table);
            let goes = goes(diagnosis, answer);
            if !(expected.0.contains(&goes.0) && expected.1 == goes.1) {
                check(key.clone(), format!("{goes:?}"), format!("{expected:?}"));
            }
            let mut reasons: Vec<String> = findings(diagnosis, destination).map(reason).collect();
            reasons.sort();
            check(format!("{key} because"), reasons.join(", "), way.because.join(", "));
            check(format!("{key} stays"), stays(diagnosis, destination).to_string(), way.stays.to_string());
        }
        for key in told.keys().filter(|key| !self.destinations.contains_key(*key)) {
            check(key.clone(), "a destination".into(), "none".into());
        }
        for words in self.says.iter().filter(|words| !text.contains(*words)) {
            check(format!("says {words}"), "nothing of it".into(), words.clone());
        }
        for words in self.never_says.iter().filter(|words| text.contains(*words)) {
            check(format!("never says {words}"), words.clone(), "nothing of it".into());
        }
        for (rule, owner) in &diagnosis.owners {
            let expected = self.owners.get(&rule.priority.to_string()).map_or("nobody", String::as_str);
            if !owner.to_lowercase().contains(expected) {
                check(format!("owner of rule {}", rule.priority), owner.clone(), expected.into());
            }
        }
        differences.sort();
        differences.dedup_by(|one, other| one.0 == other.0);
        differences
    }
}

fn key(diagnosis: &Diagnosis, destination: &Destination) -> String {
    let mut names: Vec<String> =
        destination.tunnels.iter().map(|index| diagnosis.snapshot.device_name(*index)).collect();
    names.sort();
    format!("{} {}", destination.prefix, names.join("+"))
}

fn goes(diagnosis: &Diagnosis, answer: &Answer) -> (String, Option<u32>) {
    match &answer.reply {
        Reply::Arrives(arrival) => (diagnosis.snapshot.device_name(arrival.ifindex), Some(arrival.table)),
        Reply::Refused(_) => ("refused".into(), None),
    }
}

fn findings<'a>(diagnosis: &'a Diagnosis, destination: &Destination) -> impl Iterator<Item = &'a Finding> {
    let tunnel = destination.tunnels.first().map(|index| diagnosis.snapshot.device_name(*index));
    let (prefix, table) = (destination.prefix, destination.table);
    diagnosis.report.findings.iter().filter(move |finding| {
        finding.prefix == prefix && finding.expected.table == table && Some(&finding.tunnel) == tunnel.as_ref()
    })
}

/// Is it wrong, and left out of the plan?
fn stays(diagnosis: &Diagnosis, destination: &Destination) -> bool {
    let left_out = diagnosis.report.plan.iter().flat_map(|plan| &plan.left_out);
    findings(diagnosis, destination).next().is_some()
        && left_out.into_iter().any(|left| left.prefix == destination.prefix)
}

fn reason(finding: &Finding) -> String {
    let rule = finding.rule.as_ref().map_or_else(String::new, |rule| format!(" {}", rule.priority));
    format!("{}{rule}", plain(&finding.reason))
}

/// A value without fields as JSON spells it.
fn plain(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value).unwrap() {
        Value::String(text) => text,
        other => other.to_string(),
    }
}
