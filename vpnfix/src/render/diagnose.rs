//! `diagnose` as text.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::{Palette, counted, table_name, wrapped};
use crate::core::finding::{Confidence, Finding, Severity, few};
use crate::core::model::Family;
use crate::core::report::cause::Cause;
use crate::core::report::diagnose::{
    DestinationReport, DiagnoseReport, HostVerdict, JudgedBy, MainFirstReport, PlanReport,
};

/// So many lines of one kind are shown; the documents have all.
const MOST_LINES: usize = 10;
/// Where the rest is.
const ELSEWHERE: &str = "see --format json";

/// The report as a person reads it.
#[must_use]
pub fn text(report: &DiagnoseReport, palette: Palette) -> String {
    let mut out = String::new();
    head(&mut out, report, palette);
    tunnels(&mut out, report, palette);
    verdict(&mut out, report, palette);
    let findings: HashMap<&str, &Finding> =
        report.findings.iter().map(|finding| (finding.id.as_str(), finding)).collect();
    for cause in &report.causes {
        self::cause(&mut out, cause, &findings, palette);
    }
    if let Some(plan) = &report.plan
        && !(plan.steps.is_empty() && plan.left_out.is_empty())
    {
        heading(&mut out, "What would repair it", palette);
        steps(&mut out, plan, MOST_LINES, palette);
        left_out(&mut out, plan, palette);
        if !plan.steps.is_empty() {
            lines(
                &mut out,
                "`vpnfix fix` does this, and proves it on live packets; `vpnfix undo` takes it back.",
                "  ",
                "  ",
            );
        }
    }
    cure(&mut out, &report.cure, palette);
    notes(&mut out, report.notes.iter().map(|note| note.text.as_str()), palette);
    out
}

fn head(out: &mut String, report: &DiagnoseReport, palette: Palette) {
    let place = match &report.netns.name {
        Some(name) => format!("namespace {name} of {}", report.host.hostname),
        None => report.host.hostname.clone(),
    };
    let line = format!("vpnfix {} on {place}, kernel {}", report.version, report.host.kernel);
    let _ = writeln!(out, "{}", palette.faint(line));
}

/// A heading with an empty line before it.
pub(super) fn heading(out: &mut String, text: &str, palette: Palette) {
    let _ = writeln!(out, "\n{}", palette.strong(text));
}

fn tunnels(out: &mut String, report: &DiagnoseReport, palette: Palette) {
    if report.tunnels.is_empty() {
        return;
    }
    heading(out, "Tunnels", palette);
    let width = report.tunnels.iter().map(|tunnel| tunnel.name.len()).max().unwrap_or(0);
    for tunnel in report.tunnels.iter().take(MOST_LINES) {
        let state = if tunnel.up { palette.good("up") } else { palette.bad("down") };
        let addresses = match (tunnel.local, tunnel.peer, tunnel.prefix) {
            (Some(local), Some(peer), Some(prefix)) => format!("{local}, peer {peer}, inside prefix {prefix}"),
            (Some(local), None, Some(prefix)) => format!("{local}, inside prefix {prefix}"),
            _ => "no address".into(),
        };
        let text = format!("{:width$}  {} {state}  {addresses}", tunnel.name, tunnel.kind);
        lines(out, &text, "  ", "    ");
    }
    more(out, report.tunnels.len().saturating_sub(MOST_LINES), palette);
}

/// How much is not shown.
fn more(out: &mut String, count: usize, palette: Palette) {
    if count > 0 {
        let _ = writeln!(out, "  {}", palette.faint(format!("… and {count} more, {ELSEWHERE}")));
    }
}

fn verdict(out: &mut String, report: &DiagnoseReport, palette: Palette) {
    let all = report.destinations.len() as u64;
    let wrong = report.destinations.iter().filter(|destination| !destination.right).count() as u64;
    let line = match report.verdict {
        HostVerdict::Healthy => {
            palette.good(format!("HEALTHY: {} of the tunnels, all on their way into them", counted(all, "destination")))
        }
        HostVerdict::Misrouted if wrong == 0 => palette
            .bad(format!("FAULTY: {}, all routed right, and yet something is wrong", counted(all, "destination"))),
        HostVerdict::Misrouted => palette.bad(format!("MISROUTED: {wrong} of {} wrong", counted(all, "destination"))),
        HostVerdict::Unknown if report.tunnels.is_empty() => palette
            .doubtful("UNKNOWN: no tunnel here (no link of kind vti, vti6 or xfrm); name the device with --tunnel DEV"),
        HostVerdict::Unknown => {
            palette.doubtful("UNKNOWN: nothing of what was asked about is routed through a tunnel here")
        }
    };
    let _ = writeln!(out, "\n{line}");
    destinations(out, report, palette);
}

/// The wrong ones first; of each kind so many that both are seen.
fn destinations(out: &mut String, report: &DiagnoseReport, palette: Palette) {
    let (right, wrong): (Vec<_>, Vec<_>) = report.destinations.iter().partition(|destination| destination.right);
    let shown = |of: &[&DestinationReport], others: usize| {
        let room = if of.len() + others <= MOST_LINES {
            MOST_LINES
        } else {
            MOST_LINES.saturating_sub(others.min(MOST_LINES / 2))
        };
        room.min(of.len())
    };
    let (most_wrong, most_right) = (shown(&wrong, right.len()), shown(&right, wrong.len()));
    let width = report.destinations.iter().map(|destination| destination.prefix.to_string().len()).max().unwrap_or(0);
    for destination in wrong.iter().take(most_wrong).chain(right.iter().take(most_right)) {
        let mark = if destination.right { palette.good("ok   ") } else { palette.bad("wrong") };
        let unasked =
            if destination.judged_by == JudgedBy::Engine { " (by the rules; the kernel was not asked)" } else { "" };
        let _ = writeln!(
            out,
            "  {mark}  {:<width$}  belongs to {}{unasked}",
            destination.prefix.to_string(),
            destination.tunnels.join(" and ")
        );
    }
    let rest = [(wrong.len() - most_wrong, "wrong"), (right.len() - most_right, "right")];
    let rest: Vec<String> =
        rest.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} more {what}")).collect();
    if !rest.is_empty() {
        let _ = writeln!(out, "  {}", palette.faint(format!("… and {}, {ELSEWHERE}", rest.join(", "))));
    }
}

fn cause(out: &mut String, cause: &Cause, findings: &HashMap<&str, &Finding>, palette: Palette) {
    out.push('\n');
    for line in wrapped(&cause.sentence, "", "") {
        let _ = writeln!(out, "{}", palette.strong(line));
    }
    let found: Vec<&Finding> = cause.findings.iter().filter_map(|id| findings.get(id.as_str()).copied()).collect();
    for finding in found.iter().take(MOST_LINES / 2) {
        lines(out, &destination_line(finding), "  ", "    ");
    }
    more(out, found.len().saturating_sub(MOST_LINES / 2), palette);
    if let Some(first) = found.first() {
        route(out, first);
    }
    if let Some(rule) = &cause.rule {
        lines(out, &format!("rule:  {}: {}", rule.priority, rule.text), "  ", BEHIND);
    }
    if cause.owner.confidence > Confidence::Unknown {
        let sure = match cause.owner.confidence {
            Confidence::Certain => "certain",
            Confidence::Likely => "likely",
            Confidence::Possible | Confidence::Unknown => "possible",
        };
        lines(out, &format!("owner: {} ({sure}: {})", cause.owner.name, cause.owner.evidence.join("; ")), "  ", BEHIND);
    }
    for remark in &cause.remarks {
        for line in wrapped(remark, "  ", "  ") {
            let _ = writeln!(out, "{}", palette.faint(line));
        }
    }
    let cured = &cause.cured_by;
    let rules = counted(cured.steps.len() as u64, "rule");
    match (cured.steps.is_empty(), &cured.advice) {
        (false, _) if cured.left_out.is_empty() => {
            lines(out, &format!("cure:  the plan below ({rules})"), "  ", BEHIND)
        }
        (false, _) => {
            let left = few(&cured.left_out, 3);
            lines(out, &format!("cure:  the plan below ({rules}), but not for {left}"), "  ", BEHIND);
        }
        (true, Some(advice)) => lines(out, &format!("cure:  {advice}"), "  ", BEHIND),
        (true, None) => {}
    }
}

/// Where the text behind a word (`route:`) begins.
const BEHIND: &str = "         ";

/// A text in lines that fit the screen, with these indents.
fn lines(out: &mut String, text: &str, first: &str, further: &str) {
    for line in wrapped(text, first, further) {
        let _ = writeln!(out, "{line}");
    }
}

fn route(out: &mut String, finding: &Finding) {
    let actual = &finding.actual;
    if let (Some(route), Some(protocol)) = (&actual.route, &actual.route_protocol) {
        let via = actual.gateway.map_or_else(String::new, |gateway| format!(" via {gateway}"));
        let dev = actual.device.as_ref().map_or_else(String::new, |device| format!(" dev {device}"));
        let table = actual.table.map_or_else(String::new, |table| format!(" in table {}", table_name(table)));
        lines(out, &format!("route: {route}{via}{dev}{table}, protocol {protocol}"), "  ", BEHIND);
    }
}

fn destination_line(finding: &Finding) -> String {
    let goes = match (&finding.actual.device, &finding.actual.error) {
        (Some(device), _) => {
            let source = finding.actual.source.map_or_else(String::new, |source| format!(", source {source}"));
            let clear = if finding.severity == Severity::Critical { ", in the clear" } else { "" };
            format!(", leaves by {device}{clear}{source}")
        }
        (None, Some(error)) => format!(", fails: {error}"),
        (None, None) => String::new(),
    };
    let device = &finding.expected.device;
    let prefix = if finding.prefix.prefix_len() == finding.prefix.max_prefix_len() {
        String::new()
    } else {
        format!(" ({})", finding.prefix)
    };
    format!("{}{prefix} belongs to {device}{goes}", finding.destination)
}

/// The plan: its steps, one command a line, each with its reason, and what it does not cure.
pub(super) fn plan(out: &mut String, plan: &PlanReport, palette: Palette) {
    steps(out, plan, usize::MAX, palette);
    left_out(out, plan, palette);
}

fn steps(out: &mut String, plan: &PlanReport, most: usize, palette: Palette) {
    for step in plan.steps.iter().take(most) {
        let _ = writeln!(out, "  {}  {}", step.apply, palette.faint(format!("# {}", step.why)));
    }
    let rest = plan.steps.len().saturating_sub(most);
    if rest > 0 {
        let _ = writeln!(out, "  {}", palette.faint(format!("… and {rest} more, see `vpnfix fix --dry-run`")));
    }
}

/// What is not cured for the same reason is told in one line.
fn left_out(out: &mut String, plan: &PlanReport, palette: Palette) {
    let mut order: Vec<&str> = Vec::new();
    let mut by_reason: HashMap<&str, Vec<String>> = HashMap::new();
    for left in &plan.left_out {
        let prefixes = by_reason.entry(left.why.as_str()).or_default();
        if prefixes.is_empty() {
            order.push(&left.why);
        }
        prefixes.push(left.prefix.to_string());
    }
    for why in order {
        let prefixes = by_reason.get(why).map(|prefixes| few(prefixes, 3)).unwrap_or_default();
        let text = format!("not repaired {prefixes}: {why}");
        for (index, line) in wrapped(&text, "  ", "    ").into_iter().enumerate() {
            let line =
                if index == 0 { line.replacen("not repaired", &palette.doubtful("not repaired"), 1) } else { line };
            let _ = writeln!(out, "{line}");
        }
    }
    for main_first in &plan.main_first {
        self::main_first(out, main_first, palette);
    }
}

/// Why there is no rule for all, or why there should be none.
fn main_first(out: &mut String, main_first: &MainFirstReport, palette: Palette) {
    let Some(objection) = &main_first.objection else { return };
    let family = match main_first.family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    let lead = if main_first.used {
        palette.bad(format!("warning: main-first does harm here ({family})"))
    } else {
        palette.doubtful(format!("no main-first rule for {family}"))
    };
    let _ = writeln!(out, "  {lead}: {objection}");
}

/// The cure at the root.
pub(super) fn cure(out: &mut String, cures: &[crate::core::finding::Cure], palette: Palette) {
    if cures.is_empty() {
        return;
    }
    heading(out, "The cure at the root", palette);
    for cure in cures {
        lines(out, &cure.what, "  ", "  ");
        lines(out, &format!("where: {}", cure.place), "  ", BEHIND);
        lines(out, &format!("how:   {}", cure.how), "  ", BEHIND);
    }
}

/// What is worth knowing besides.
pub(super) fn notes<'a>(out: &mut String, notes: impl Iterator<Item = &'a str>, palette: Palette) {
    let notes: Vec<&str> = notes.collect();
    if notes.is_empty() {
        return;
    }
    heading(out, "Worth knowing", palette);
    for note in notes {
        for line in wrapped(note, "  ", "    ") {
            let _ = writeln!(out, "{line}");
        }
    }
}
