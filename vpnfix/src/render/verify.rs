//! `verify` as text: one check list, failed checks first.

use std::fmt::Write as _;

use super::diagnose::{heading, notes};
use super::{Palette, counted, wrapped};
use crate::core::report::verify::{VerifyReport, VpnVerdict};
use crate::core::verify::{Area, Check, State};

/// Behind the state's word.
const BEHIND: &str = "           ";

/// The report as a person reads it.
#[must_use]
pub fn text(report: &VerifyReport, palette: Palette) -> String {
    let mut out = String::new();
    let place = match &report.netns.name {
        Some(name) => format!("namespace {name} of {}", report.host.hostname),
        None => report.host.hostname.clone(),
    };
    let line = format!("vpnfix {} on {place}, kernel {}", report.version, report.host.kernel);
    let _ = writeln!(out, "{}", palette.faint(line));
    let failed: Vec<&Check> = report.checks.iter().filter(|check| check.state == State::Failed).collect();
    if !failed.is_empty() {
        heading(&mut out, "What is wrong, the cause first", palette);
        failed.iter().for_each(|failed| check(&mut out, failed, true, palette));
    }
    let mut area: Option<Area> = None;
    let mut rest: Vec<&Check> = report.checks.iter().filter(|check| check.state != State::Failed).collect();
    rest.sort_by_key(|check| check.area);
    for other in rest {
        if area != Some(other.area) {
            heading(&mut out, other.area.title(), palette);
            area = Some(other.area);
        }
        check(&mut out, other, false, palette);
    }
    notes(&mut out, report.notes.iter().map(|note| note.text.as_str()), palette);
    let _ = writeln!(out, "\n{}", verdict(report, palette));
    out
}

/// `failed   routing: destinations hijacked-by-rule`, and below it what was found, what it follows from, and what to do.
fn check(out: &mut String, check: &Check, with_area: bool, palette: Palette) {
    let word = match check.state {
        State::Failed => palette.bad("failed "),
        State::Warning => palette.doubtful("warning"),
        State::Ok => palette.good("ok     "),
        State::Skipped => palette.faint("skipped"),
    };
    let area = if with_area { format!("{}: ", check.area.title()) } else { String::new() };
    let first = format!("  {word}  {area}{}", check.label());
    // One line where the whole fits; the state's colours take no room on the screen.
    let short = format!("  {:7}  {area}{}: {}", "", check.label(), check.found);
    if short.chars().count() <= super::WIDTH && check.advice.is_none() && check.consequence_of.is_none() {
        let _ = writeln!(out, "{first}: {}", check.found);
        return;
    }
    let _ = writeln!(out, "{first}");
    for line in wrapped(&check.found, BEHIND, BEHIND) {
        let _ = writeln!(out, "{line}");
    }
    if let Some(cause) = &check.consequence_of {
        for line in wrapped(&format!("most likely a consequence of: {cause}"), BEHIND, BEHIND) {
            let _ = writeln!(out, "{}", palette.doubtful(line));
        }
    }
    // What to do about a consequence is to do something about its cause.
    let wanted = !matches!(check.state, State::Ok | State::Skipped) && check.consequence_of.is_none();
    if let Some(advice) = check.advice.as_ref().filter(|_| wanted) {
        for line in wrapped(&format!("-> {advice}"), BEHIND, "              ") {
            let _ = writeln!(out, "{}", palette.strong(line));
        }
    }
}

fn verdict(report: &VerifyReport, palette: Palette) -> String {
    let counts = report.counts;
    let parts = [
        (counts.failed, "failed"),
        (counts.warning, if counts.warning == 1 { "warning" } else { "warnings" }),
        (counts.ok, "ok"),
        (counts.skipped, "skipped"),
    ];
    let all: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    let all = all.join(", ");
    match report.verdict {
        VpnVerdict::Healthy => palette.good(format!("HEALTHY: {all}")),
        VpnVerdict::Faulty => {
            let first = report.checks.first().map(Check::label).unwrap_or_default();
            palette.bad(format!("FAULTY: {all}; begin with {first}"))
        }
        VpnVerdict::Unknown => palette.doubtful(format!(
            "UNKNOWN: nothing of a VPN is to be judged here ({}); name the device with --tunnel DEV",
            counted(report.tunnels.len() as u64, "tunnel")
        )),
    }
}

#[cfg(test)]
mod tests;
