//! What is asked right after the change: is all as the plan said?

use std::collections::HashSet;

use super::repair::Repair;
use crate::action::apply;
use crate::commands::assess::{Controls, Host, ask_controls, netlink_failure};
use crate::commands::failure::Failure;
use crate::core::control::{self, Control};
use crate::core::finding::{Finding, Variant};
use crate::core::judge::{Asked, Judgement, Subject};
use crate::core::model::{Answer, Question, Rule};
use crate::core::plan;
use crate::core::predict::{Predictor, Surprise};
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
        let host = Host { snapshot: Host::snapshot(self.access).await?, ..self.host.clone() };
        let (judgement, answers) = host.judge_with_answers(self.access)?;
        differences.extend(self.still_wrong(&judgement).map(not_repaired));
        let fib = Fib::new(&self.host.snapshot);
        let predictor = Predictor::new(&fib, added);
        differences.extend(self.surprising_destinations(&predictor, &answers));
        let after = ask_controls(self.access, &self.controls.targets)?;
        differences.extend(self.spoiled_controls(&fib, &predictor, &after));
        let mut told = HashSet::new();
        differences.retain(|difference| difference.destination.is_none_or(|address| told.insert(address)));
        Ok((judgement, differences))
    }

    /// What the kernel answers about destinations otherwise than was predicted. Source validation is not predicted, nor
    /// what the engine did not explain before the change.
    fn surprising_destinations(&self, predictor: &Predictor<'_>, answers: &[(Asked, Answer)]) -> Vec<Difference> {
        let unexplained: HashSet<&Question> = self.before.unexplained.iter().collect();
        let predicted = |asked: &Asked| {
            let subject = matches!(asked.subject, Subject::Destination { variant, .. } if variant != Variant::Reverse);
            subject && !unexplained.contains(&asked.question)
        };
        let answers = answers.iter().filter(|(asked, _)| predicted(asked));
        answers
            .filter_map(|(_, answer)| predictor.surprise(answer))
            .map(|surprise| unpredicted("routing", surprise))
            .collect()
    }

    /// Control targets that fared ill, or otherwise than was predicted.
    fn spoiled_controls(&self, fib: &Fib<'_>, predictor: &Predictor<'_>, after: &[Answer]) -> Vec<Difference> {
        let Controls { targets, answers, hijackers } = &self.controls;
        let judge = |((target, before), after): ((&Control, &Answer), &Answer)| {
            let spoiled = control::compare(fib, &self.host.tunnels, hijackers, target, before, after);
            let spoiled = spoiled.map(|spoiled| Difference {
                name: spoiled.name,
                destination: Some(spoiled.destination),
                expected: spoiled.expected,
                found: spoiled.found,
            });
            let surprise = || predictor.surprise(after).filter(|_| predictor.explains(before));
            spoiled.or_else(|| surprise().map(|surprise| unpredicted(&target.name, surprise)))
        };
        targets.iter().zip(answers).zip(after).filter_map(judge).collect()
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

fn unpredicted(name: &str, surprise: Surprise) -> Difference {
    Difference {
        name: format!("{name}, as predicted"),
        destination: Some(surprise.destination),
        expected: surprise.expected,
        found: surprise.found,
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
