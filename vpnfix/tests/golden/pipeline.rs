//! From a snapshot and the kernel's answers to the report, in the order of `vpnfix diagnose`.

use vpnfix::core::control;
use vpnfix::core::destination::{self, Destination};
use vpnfix::core::finding::{Note, NoteId};
use vpnfix::core::judge::{self, Case};
use vpnfix::core::model::{Answer, Question, Rule, Snapshot};
use vpnfix::core::owner::{self, Clues};
use vpnfix::core::plan::{self, Situation, Strategy};
use vpnfix::core::report::diagnose::{DiagnoseReport, Parts};
use vpnfix::core::tunnel;
use vpnfix::core::walk::Fib;

use crate::signs::Signs;

/// What vpnfix says of a host.
pub(crate) struct Diagnosis {
    pub(crate) report: DiagnoseReport,
    /// What belongs into the tunnels, with the kernel's answer to the plain question.
    pub(crate) plain: Vec<(Destination, Answer)>,
    /// Every rule that is not the kernel's own, with the name of its owner.
    pub(crate) owners: Vec<(Rule, String)>,
    pub(crate) snapshot: Snapshot,
}

/// Diagnoses. `ask` stands for the kernel.
pub(crate) fn diagnose<E>(
    snapshot: Snapshot,
    signs: &Signs,
    mut ask: impl FnMut(Vec<Question>) -> Result<Vec<Answer>, E>,
) -> Result<Diagnosis, E> {
    let clues = signs.clues();
    let fib = Fib::new(&snapshot);
    let tunnels = tunnel::tunnels(&snapshot, &signs.tunnels).unwrap();
    let destinations = destination::destinations(&fib, &tunnels);
    let case = Case { fib: &fib, tunnels: &tunnels, destinations: &destinations, clues: &clues };
    let mut asked = judge::questions(&destinations, &vec![true; destinations.len()]);
    asked.extend(judge::further_questions(case));
    let answers = ask(asked.iter().map(|asked| asked.question.clone()).collect())?;
    let mut judgement = judge::judge(case, &asked, &answers);

    let hijackers = plan::hijackers(&snapshot, &judgement.findings);
    let controls = control::controls(&fib, &tunnels, &destinations, &signs.neighbours(), &hijackers);
    let ways = ask(controls.iter().map(|control| control.question.clone()).collect())?;
    let situation = Situation {
        fib: &fib,
        tunnels: &tunnels,
        destinations: &destinations,
        findings: &judgement.findings,
        controls: &controls,
    };
    let plan = match plan::plan(situation, Strategy::Auto, None) {
        Ok(plan) => Some(plan).filter(|_| !judgement.findings.is_empty()),
        Err(error) => {
            judgement.notes.push(Note { id: NoteId::NoPlan, text: format!("there is no plan: {error}") });
            None
        }
    };
    let reports: Vec<_> =
        controls.iter().zip(&ways).map(|(control, answer)| control::report(&snapshot, control, answer)).collect();
    let mut report = DiagnoseReport::new(Parts {
        snapshot: &snapshot,
        clues: &clues,
        tunnels: &tunnels,
        destinations: &destinations,
        right: &judgement.right,
        judged_by: &judgement.judged_by,
        findings: &judgement.findings,
        controls: &reports,
        notes: &judgement.notes,
        plan: plan.as_ref(),
    });
    // A release must not change every expectation.
    report.version = "0.0.0".into();
    let plain = |destination: &Destination| {
        let question = Question { output_interface: destination.vrf, ..Question::plain(destination.address) };
        let answer = answers.iter().find(|answer| answer.question == question)?;
        Some((destination.clone(), answer.clone()))
    };
    let plain = destinations.iter().filter_map(plain).collect();
    let owners = owners(&snapshot, &clues);
    Ok(Diagnosis { report, plain, owners, snapshot })
}

fn owners(snapshot: &Snapshot, clues: &Clues) -> Vec<(Rule, String)> {
    let foreign = snapshot.rules.iter().filter(|rule| !rule.is_kernel_default());
    foreign.map(|rule| (rule.clone(), owner::of_rule(snapshot, clues, rule).name)).collect()
}
