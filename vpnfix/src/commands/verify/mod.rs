//! `vpnfix verify`: the whole VPN as a check list. It changes nothing.

mod measure;
mod reach;

use std::time::Instant;

use super::assess::{Access, Host, in_namespace};
use super::cli::VerifyArgs;
use super::failure::Failure;
use super::settings::Settings;
use crate::core::plan::{self, Strategy};
use crate::core::report::Outcome;
use crate::core::report::cause;
use crate::core::report::verify::VerifyReport;
use crate::core::verify::{Facts, State};
use crate::core::walk::Fib;
use crate::render;

/// Checks, and prints the list; with `--wait` again and again until nothing fails or the time is over.
///
/// # Errors
/// The host's routing cannot be read.
pub fn run(settings: &Settings, args: &VerifyArgs, quiet: bool) -> Result<Outcome, Failure> {
    let report = in_namespace(settings, async |access| {
        let begun = Instant::now();
        loop {
            let report = report(&access, settings, args).await?;
            let waits = args.wait.is_some_and(|wait| begun.elapsed() < wait);
            if report.outcome == Outcome::Ok || !waits {
                return Ok(report);
            }
            if !quiet {
                eprintln!("vpnfix: verify: {}", progress(&report, begun));
            }
            tokio::time::sleep(args.sample).await;
        }
    })?;
    settings.output.report(&report, render::verify::text)?;
    Ok(report.outcome)
}

/// One line that says what is waited for.
fn progress(report: &VerifyReport, begun: Instant) -> String {
    let first = report.checks.iter().find(|check| check.state == State::Failed);
    let what =
        first.map_or_else(|| "nothing to judge yet".into(), |check| format!("{}: {}", check.label(), check.found));
    let more = match report.counts.failed {
        0 | 1 => String::new(),
        failed => format!(" (and {} more)", failed - 1),
    };
    format!("after {} s: {what}{more}", begun.elapsed().as_secs())
}

/// One round of everything.
pub(super) async fn report(access: &Access, settings: &Settings, args: &VerifyArgs) -> Result<VerifyReport, Failure> {
    let host = Host::read_for_judging(access, settings, &[]).await?;
    let measured = measure::measure(access, &host, args).await?;
    // The routes are judged after the time of the measurement, as they are when it is told.
    let host = Host::read_for_judging(access, settings, &[]).await?;
    let judgement = host.judge(access)?;
    let controls = host.controls(access, &judgement.findings)?;
    let fib = Fib::new(&host.snapshot);
    let plan = plan::plan(host.situation(&fib, &judgement.findings, &controls), Strategy::Auto, None).ok();
    let causes = cause::causes(&host.snapshot, &host.destinations, &judgement.findings, plan.as_ref());
    Ok(VerifyReport::new(&Facts {
        snapshot: &host.snapshot,
        tunnels: &host.tunnels,
        destinations: &host.destinations,
        judgement: &judgement,
        causes: &causes,
        clues: &host.clues,
        measured: &measured,
    }))
}
