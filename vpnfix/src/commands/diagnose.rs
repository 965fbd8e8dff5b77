//! `vpnfix diagnose`.

use super::assess::{Access, Host, in_namespace};
use super::cli::DiagnoseArgs;
use super::failure::Failure;
use super::persist;
use super::settings::Settings;
use crate::core::finding::{Note, NoteId};
use crate::core::judge::Judgement;
use crate::core::plan::{self, Strategy};
use crate::core::report::Outcome;
use crate::core::report::diagnose::{DiagnoseReport, Parts};
use crate::core::walk::Fib;
use crate::render;

/// Judges every tunnel destination and prints the report.
///
/// # Errors
/// The host's routing cannot be read.
pub fn run(settings: &Settings, args: &DiagnoseArgs) -> Result<Outcome, Failure> {
    let report = report(settings, args)?;
    settings.output.report(&report, render::diagnose::text)?;
    Ok(report.outcome)
}

/// The report alone, for programs that link vpnfix.
///
/// # Errors
/// The host's routing cannot be read.
pub fn report(settings: &Settings, args: &DiagnoseArgs) -> Result<DiagnoseReport, Failure> {
    in_namespace(settings, async |access| of(&access, settings, args).await)
}

/// The report by ways to the kernel that are open already.
///
/// # Errors
/// The host's routing cannot be read.
pub(super) async fn of(access: &Access, settings: &Settings, args: &DiagnoseArgs) -> Result<DiagnoseReport, Failure> {
    let mut host = Host::read_for_judging(access, settings, &args.to).await?;
    let mut judgement = host.judge(access)?;
    if !host.snapshot.partial.is_empty() && needs_all_routes(&host, &judgement) {
        host = Host::read(access, settings, &args.to).await?;
        judgement = host.judge(access)?;
    }
    let controls = host.controls(access, &judgement.findings)?;
    let fib = Fib::new(&host.snapshot);
    let plan = plan::plan(host.situation(&fib, &judgement.findings, &controls), Strategy::Auto, None);
    let plan = match plan {
        Ok(plan) => Some(plan).filter(|_| !judgement.findings.is_empty()),
        Err(error) => {
            judgement.notes.push(Note { id: NoteId::NoPlan, text: format!("there is no plan: {error}") });
            None
        }
    };
    judgement.notes.extend(persist::notes(&host.snapshot));
    Ok(DiagnoseReport::new(Parts {
        snapshot: &host.snapshot,
        clues: &host.clues,
        tunnels: &host.tunnels,
        destinations: &host.destinations,
        right: &judgement.right,
        judged_by: &judgement.judged_by,
        findings: &judgement.findings,
        controls: &controls.reports(&host.snapshot),
        notes: &judgement.notes,
        plan: plan.as_ref(),
    }))
}

/// Whether a rule for all would do no harm hangs on the rest of main's routes, on some hosts.
fn needs_all_routes(host: &Host, judgement: &Judgement) -> bool {
    plan::needs_whole_main(&Fib::new(&host.snapshot), &judgement.findings, None)
}
