//! What is asked right after the change: is all as the plan said?

use super::repair::Repair;
use crate::action::apply;
use crate::commands::assess::{Host, ask_controls, netlink_failure};
use crate::commands::failure::Failure;
use crate::core::control;
use crate::core::finding::Finding;
use crate::core::judge::Judgement;
use crate::core::model::Rule;
use crate::core::plan;
use crate::core::report::fix::Difference;
use crate::core::walk::Fib;

impl Repair<'_> {
    /// Reads back and asks the kernel again: are the rules there, do the destinations go right, are the controls as
    /// they were?
    pub(super) async fn check(&self, added: &[Rule]) -> Result<(Judgement, Vec<Difference>), Failure> {
        let netlink = &self.access.netlink;
        let gone =
            apply::missing(netlink, added).await.map_err(|error| netlink_failure("read back the rules", &error))?;
        let mut differences: Vec<Difference> = gone.iter().map(missing_rule).collect();
        let now = Host::read(self.access, self.settings, &[]).await?;
        let judgement = Host { snapshot: now.snapshot, ..self.host.clone() }.judge(self.access)?;
        differences.extend(self.still_wrong(&judgement).map(not_repaired));
        let after = ask_controls(self.access, &self.controls.targets)?;
        for ((target, before), after) in self.controls.targets.iter().zip(&self.controls.answers).zip(&after) {
            let (fib, tunnels) = (&Fib::new(&self.host.snapshot), &self.host.tunnels);
            let spoiled = control::compare(fib, tunnels, &self.controls.hijackers, target, before, after);
            differences.extend(spoiled.map(|spoiled| Difference {
                name: spoiled.name,
                destination: Some(spoiled.destination),
                expected: spoiled.expected,
                found: spoiled.found,
            }));
        }
        Ok((judgement, differences))
    }

    /// Findings about destinations that the plan said it would repair. What is no rule's to repair (source validation,
    /// two tunnels with one inside prefix) is said, and no reason to take a right route back.
    fn still_wrong<'f>(&self, judgement: &'f Judgement) -> impl Iterator<Item = &'f Finding> {
        judgement.findings.iter().filter(|finding| {
            finding.reason.is_wrong_way()
                && self.promised().any(|(_, destination)| plan::is_of(&self.host.snapshot, finding, destination))
        })
    }
}

pub(super) fn missing_rule(rule: &Rule) -> Difference {
    Difference { name: format!("rule `{rule}`"), destination: None, expected: "there".into(), found: "gone".into() }
}

fn not_repaired(finding: &Finding) -> Difference {
    Difference {
        name: format!("{} of {}", finding.prefix, finding.tunnel),
        destination: Some(finding.destination),
        expected: finding.expected.device.clone(),
        found: finding.actual.device.clone().unwrap_or_else(|| "unreachable".into()),
    }
}
