//! `vpnfix fix`: plan, apply, confirm on live packets, and roll back if it went otherwise than planned.

mod check;
mod confirmation;
mod repair;

use super::assess::{Controls, Host, in_namespace};
use super::cli::FixArgs;
use super::failure::Failure;
use super::settings::Settings;
use super::signals::Signals;
use crate::action::lock::Lock;
use crate::core::control;
use crate::core::finding::{Note, NoteId, few};
use crate::core::judge::Judgement;
use crate::core::model::{Netns, Rule};
use crate::core::owner;
use crate::core::plan::{self, Plan, Wanted};
use crate::core::report::diagnose::PlanReport;
use crate::core::report::fix::{FixReport, SCHEMA};
use crate::core::report::{Outcome, VERSION};
use crate::core::walk::Fib;
use crate::render;
use repair::Repair;

/// Repairs, confirms and prints the report.
///
/// # Errors
/// Something lacks that is needed before the first change.
pub fn run(settings: &Settings, args: &FixArgs) -> Result<Outcome, Failure> {
    let report = report(settings, args)?;
    settings.output.report(&report, render::fix::text)?;
    Ok(report.outcome)
}

/// The report alone, for programs that link vpnfix.
///
/// # Errors
/// Something lacks that is needed before the first change.
pub fn report(settings: &Settings, args: &FixArgs) -> Result<FixReport, Failure> {
    in_namespace(settings, async |access| {
        // Taken before the host is read: what is planned from must not change under another vpnfix's hands.
        let _lock = if args.dry_run { None } else { Some(lock(&access.netns)?) };
        let signals = Signals::listen()?;
        let host = Host::read(&access, settings, &[]).await?;
        host.has_destinations("fix")?;
        let judgement = host.judge(&access)?;
        let controls = host.controls(&access, &judgement.findings)?;
        let plan = make_plan(&host, &judgement, &controls, args)?;
        let mut report = blank(&host, &judgement, &plan, args.dry_run);
        let refusal = refusal(&host, &controls, &plan);
        if args.dry_run || plan.steps.is_empty() {
            let nothing_to_do = judgement.findings.is_empty() && plan.steps.is_empty();
            report.outcome = if nothing_to_do { Outcome::Ok } else { Outcome::FaultFound };
            report.notes.extend(
                refusal.map(|why| Note {
                    id: NoteId::WouldBeRefused,
                    text: format!("`fix` will refuse this plan: {why}"),
                }),
            );
            report.remaining = judgement.findings;
            return Ok(report);
        }
        if let Some(why) = refusal {
            let failure = Failure::unable(format!("fix: refused, nothing was changed: {why}"));
            return Err(failure.hint("let vpnfix choose the rules: `--strategy auto`, or `prefixes`"));
        }
        let repair = Repair::prepare(settings, &access, host, judgement, controls, plan, args)?;
        repair.run(&mut report, signals).await?;
        Ok(report)
    })
}

/// Takes the lock on a namespace's rules.
///
/// # Errors
/// Another vpnfix holds it, or the run directory cannot be used.
pub fn lock(netns: &Netns) -> Result<Lock, Failure> {
    Lock::take(netns.inode)
        .map_err(|error| Failure::of("lock the namespace's rules", &error).hint_privilege(error.is_privilege()))
}

fn make_plan(host: &Host, judgement: &Judgement, controls: &Controls, args: &FixArgs) -> Result<Plan, Failure> {
    let fib = Fib::new(&host.snapshot);
    let situation = host.situation(&fib, &judgement.findings, controls);
    let wanted = Wanted { strategy: args.strategy.into(), priority: args.priority, fail_closed: args.fail_closed };
    plan::plan_as(situation, wanted).map_err(|error| {
        let failure = Failure::of("plan the repair", &error);
        match error.free_priority() {
            Some(free) => failure.hint(format!("priority {free} is free and early enough")),
            None => failure,
        }
    })
}

/// What the plan would do to control targets that may not be done to them, as the engine predicts it.
fn refusal(host: &Host, controls: &Controls, plan: &Plan) -> Option<String> {
    let fib = Fib::new(&host.snapshot);
    let answered: Vec<_> = controls.targets.iter().zip(&controls.answers).collect();
    let rules: Vec<Rule> = plan.steps.iter().map(|step| step.rule.clone()).collect();
    let harms = control::harms(&fib, &host.tunnels, &controls.hijackers, &answered, &rules);
    (!harms.is_empty()).then(|| few(&harms, MOST_HARMS))
}

/// So many of the control targets that a plan would spoil are named.
const MOST_HARMS: usize = 3;

fn blank(host: &Host, judgement: &Judgement, plan: &Plan, dry_run: bool) -> FixReport {
    FixReport {
        schema: SCHEMA.into(),
        version: VERSION.into(),
        outcome: Outcome::Unable,
        host: host.snapshot.host.clone(),
        netns: host.snapshot.netns.clone(),
        dry_run,
        before: judgement.findings.clone(),
        plan: PlanReport::from(plan),
        applied: Vec::new(),
        confirmations: Vec::new(),
        remaining: Vec::new(),
        rollback: None,
        cure: owner::cures(&host.snapshot, &host.clues, &judgement.findings),
        notes: judgement.notes.clone(),
    }
}
