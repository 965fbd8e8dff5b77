//! `vpnfix fix`: plan, apply, confirm on live packets, and roll back if it went otherwise than planned.

mod check;
pub(super) mod confirmation;
mod cure;
pub(super) mod repair;

use std::time::Duration;

use super::assess::{Access, Asking, Controls, Host, in_namespace_asking};
use super::attach;
use super::cli::FixArgs;
use super::failure::Failure;
use super::settings::Settings;
use super::signals::Signals;
use super::standing::Standing;
use crate::action::hold;
use crate::action::lock::{self, Lock};
use crate::core::control;
use crate::core::destination;
use crate::core::finding::{Note, NoteId, few};
use crate::core::judge::Judgement;
use crate::core::live::{self, Watch};
use crate::core::model::{Netns, Rule};
use crate::core::owner;
use crate::core::plan::{self, Plan, Strategy, Wanted};
use crate::core::report::diagnose::PlanReport;
use crate::core::report::fix::{FixReport, SCHEMA};
use crate::core::report::{Outcome, VERSION};
use crate::core::walk::Fib;
use crate::render;
use crate::system::bpf::{self, Request, Tracer};
use crate::system::probe::Probe;
use cure::Cure;
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
    report_asking(settings, args, Asking::OnAThread)
}

/// The same, where somebody may ask for routes already.
///
/// # Errors
/// As [`report`].
pub(super) fn report_asking(settings: &Settings, args: &FixArgs, asking: Asking) -> Result<FixReport, Failure> {
    in_namespace_asking(settings, asking, async |access| {
        // Taken before the host is read: what is planned from must not change under another vpnfix's hands.
        let _lock = if args.dry_run { None } else { Some(lock(&access.netns)?) };
        let signals = Signals::listen()?;
        let mut standing = Standing::read(&access).await?;
        let journal_notes = standing.notes(args.dry_run);
        if !args.dry_run {
            standing.take_back_unfinished().await?;
            // Who repairs by hand wants `watch` to keep it repaired.
            hold::lift(&lock::run_directory(), access.netns.inode)
                .map_err(|error| Failure::of("lift the hold", &error))?;
        }
        let host = Host::read(&access, settings, &[]).await?;
        host.has_destinations("fix")?;
        let judgement = host.judge(&access)?;
        let controls = host.controls(&access, &judgement.findings)?;
        let wanted = Wanted { strategy: args.strategy.into(), priority: args.priority, fail_closed: args.fail_closed };
        let plan = make_plan(settings, &host, &judgement, &controls, wanted)?;
        let mut report = blank(&host, &judgement, &plan, args.dry_run);
        report.notes.extend(journal_notes);
        let cure = args.cure.then(|| Cure::plan(&host, &judgement.findings));
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
            if let Some(cure) = cure {
                cure.carry_out(&mut report, &access, settings, args).await?;
            }
            return Ok(report);
        }
        if let Some(why) = refusal {
            let failure = Failure::unable(format!("fix: refused, nothing was changed: {why}"));
            return Err(failure.hint("let vpnfix choose the rules: `--strategy auto`, or `prefixes`"));
        }
        let mut given_up = Signals::listen()?;
        let probe = if args.no_probe { None } else { Some(repair::prepare_probe(&host, &plan)?) };
        let (mut tracer, watches) = attach_to(settings, &access, &host, probe.as_ref())?;
        let repair = Repair { access: &access, host, before: judgement, controls, plan, probe };
        repair.run(&standing, (&mut tracer, watches), args.wait, &mut report, signals).await?;
        let Some(cure) = cure else { return Ok(report) };
        if report.rollback.is_some() {
            Cure::skip(&mut report, "the rules were rolled back");
        } else if tokio::time::timeout(Duration::from_millis(1), given_up.came()).await.is_ok() {
            Cure::skip(&mut report, "the repair was interrupted");
        } else {
            cure.carry_out(&mut report, &access, settings, args).await?;
        }
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

/// The plan for what was found. Where prefixes are to be left alone no rule for all of them is chosen.
///
/// # Errors
/// There is no priority for its rules.
pub(super) fn make_plan(
    settings: &Settings,
    host: &Host,
    judgement: &Judgement,
    controls: &Controls,
    wanted: Wanted,
) -> Result<Plan, Failure> {
    let fib = Fib::new(&host.snapshot);
    let situation = host.situation(&fib, &judgement.findings, controls);
    let strategy = match wanted.strategy {
        Strategy::Auto if !settings.prefixes.leave.is_empty() => Strategy::Prefixes,
        strategy => strategy,
    };
    let wanted = Wanted { strategy, ..wanted };
    plan::plan_as(situation, wanted).map_err(|error| {
        let failure = Failure::of("plan the repair", &error);
        match error.free_priority() {
            Some(free) => failure.hint(format!("priority {free} is free and early enough")),
            None => failure,
        }
    })
}

/// Attaches to the kernel for the confirmation.
fn attach_to(
    settings: &Settings,
    access: &Access,
    host: &Host,
    probe: Option<&Probe>,
) -> Result<(Tracer, Vec<Watch>), Failure> {
    let watches = live::watches(&host.destinations, &[]);
    let tracer = attach::attach(&Request {
        watches: watches.iter().map(|watch| watch.prefix).collect(),
        holes: destination::holes(&Fib::new(&host.snapshot), &host.destinations),
        vrfs: live::vrfs(&watches, &host.tunnels),
        query_thread: Some(access.queries.thread_id()),
        probe: probe.map(|probe| bpf::Probe { thread: probe.thread_id(), icmp_id: probe.icmp_id() }),
        log_level: settings.kernel_log,
        ..attach::request(&access.netns, false)
    })?;
    Ok((tracer, watches))
}

/// What the plan would do to control targets that may not be done to them, as the engine predicts it.
pub(super) fn refusal(host: &Host, controls: &Controls, plan: &Plan) -> Option<String> {
    let fib = Fib::new(&host.snapshot);
    let answered: Vec<_> = controls.targets.iter().zip(&controls.answers).collect();
    let rules: Vec<Rule> = plan.steps.iter().map(|step| step.rule.clone()).collect();
    let harms = control::harms(&fib, &host.tunnels, &controls.hijackers, &answered, &rules);
    (!harms.is_empty()).then(|| few(&harms, MOST_HARMS))
}

/// So many of the control targets that a plan would spoil are named.
const MOST_HARMS: usize = 3;

/// A report of which nothing is done yet.
pub(super) fn blank(host: &Host, judgement: &Judgement, plan: &Plan, dry_run: bool) -> FixReport {
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
        applied_at: Vec::new(),
        confirmations: Vec::new(),
        remaining: Vec::new(),
        rollback: None,
        cure: owner::cures(&host.snapshot, &host.clues, &judgement.findings),
        cure_applied: None,
        notes: judgement.notes.clone(),
    }
}
