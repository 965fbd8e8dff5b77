//! `diagnose` as text.

use std::fmt::Write as _;

use super::{Palette, counted, table_name};
use crate::core::finding::{Confidence, Finding, Reason, Severity, Variant};
use crate::core::model::Family;
use crate::core::report::diagnose::{DiagnoseReport, HostVerdict, MainFirstReport, PlanReport};

/// The report as a person reads it.
#[must_use]
pub fn text(report: &DiagnoseReport, palette: Palette) -> String {
    let mut out = String::new();
    head(&mut out, report, palette);
    tunnels(&mut out, report, palette);
    verdict(&mut out, report, palette);
    for group in grouped(&report.findings) {
        cause(&mut out, report, &group, palette);
    }
    if let Some(plan) = &report.plan
        && !(plan.steps.is_empty() && plan.left_out.is_empty())
    {
        heading(&mut out, "What would repair it", palette);
        self::plan(&mut out, plan, palette);
        if !plan.steps.is_empty() {
            out.push_str("  `vpnfix fix` does this, and proves it on live packets; `vpnfix undo` takes it back.\n");
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
    for tunnel in &report.tunnels {
        let state = if tunnel.up { palette.good("up") } else { palette.bad("down") };
        let addresses = match (tunnel.local, tunnel.peer, tunnel.prefix) {
            (Some(local), Some(peer), Some(prefix)) => format!("{local}, peer {peer}, inside prefix {prefix}"),
            (Some(local), None, Some(prefix)) => format!("{local}, inside prefix {prefix}"),
            _ => "no address".into(),
        };
        let _ = writeln!(out, "  {:width$}  {} {state}  {addresses}", tunnel.name, tunnel.kind);
    }
}

fn verdict(out: &mut String, report: &DiagnoseReport, palette: Palette) {
    let all = report.destinations.len() as u64;
    let wrong = report.destinations.iter().filter(|destination| !destination.right).count() as u64;
    let line = match report.verdict {
        HostVerdict::Healthy => {
            palette.good(format!("HEALTHY: {} of the tunnels, all on their way into them", counted(all, "destination")))
        }
        HostVerdict::Misrouted => palette.bad(format!("MISROUTED: {wrong} of {} wrong", counted(all, "destination"))),
        HostVerdict::Unknown if report.tunnels.is_empty() => palette
            .doubtful("UNKNOWN: no tunnel here (no link of kind vti, vti6 or xfrm); name the device with --tunnel DEV"),
        HostVerdict::Unknown => {
            palette.doubtful("UNKNOWN: nothing of what was asked about is routed through a tunnel here")
        }
    };
    let _ = writeln!(out, "\n{line}");
    for destination in &report.destinations {
        let mark = if destination.right { palette.good("ok   ") } else { palette.bad("wrong") };
        let _ = writeln!(
            out,
            "  {mark}  {:<20} belongs to {}",
            destination.prefix.to_string(),
            destination.tunnels.join(" and ")
        );
    }
}

/// Findings of the same cause: same reason, same rule, same wrong way.
fn grouped(findings: &[Finding]) -> Vec<Vec<&Finding>> {
    let mut groups: Vec<Vec<&Finding>> = Vec::new();
    for finding in findings {
        let same = |group: &&mut Vec<&Finding>| {
            group.first().is_some_and(|other| {
                other.reason == finding.reason
                    && other.rule == finding.rule
                    && other.actual.device == finding.actual.device
                    && other.actual.table == finding.actual.table
            })
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(finding),
            None => groups.push(vec![finding]),
        }
    }
    groups
}

fn cause(out: &mut String, report: &DiagnoseReport, group: &[&Finding], palette: Palette) {
    let Some(first) = group.first() else { return };
    heading(out, &sentence(first, group.len()), palette);
    for finding in group {
        let _ = writeln!(out, "  {}", destination_line(report, finding));
    }
    let actual = &first.actual;
    if let (Some(route), Some(protocol)) = (&actual.route, &actual.route_protocol) {
        let via = actual.gateway.map_or_else(String::new, |gateway| format!(" via {gateway}"));
        let dev = actual.device.as_ref().map_or_else(String::new, |device| format!(" dev {device}"));
        let table = actual.table.map_or_else(String::new, |table| format!(" in table {}", table_name(table)));
        let _ = writeln!(out, "  route: {route}{via}{dev}{table}, protocol {protocol}");
    }
    if let Some(rule) = &first.rule {
        let _ = writeln!(out, "  rule:  {}: {}", rule.priority, rule.text);
    }
    if first.owner.confidence > Confidence::Unknown {
        let sure = match first.owner.confidence {
            Confidence::Certain => "certain",
            Confidence::Likely => "likely",
            Confidence::Possible | Confidence::Unknown => "possible",
        };
        let _ = writeln!(out, "  owner: {} ({sure}: {})", first.owner.name, first.owner.evidence.join("; "));
    }
    if first.right_when_bound && !first.variants.contains(&Variant::BoundToTunnel) {
        let _ = writeln!(
            out,
            "  {}",
            palette.faint(format!("bound to the device it goes right, so `ping -I {}` hides this", first.tunnel))
        );
    }
}

/// One sentence that says what is wrong.
fn sentence(finding: &Finding, count: usize) -> String {
    let (what, it) =
        if count == 1 { ("A destination".to_string(), "it") } else { (format!("{count} destinations"), "them") };
    let device = finding.actual.device.as_deref().unwrap_or("nothing");
    match finding.reason {
        Reason::HijackedByRule => {
            format!("{what} of a tunnel: a policy rule sends {it} out of {device} before table main is asked")
        }
        Reason::ShadowedByRoute => format!("{what} of a tunnel: a better route of the same table leads to {device}"),
        Reason::UnreachableRule => format!("{what} of a tunnel: a policy rule refuses {it}"),
        Reason::UnreachableRoute => format!("{what} of a tunnel: a route refuses {it}"),
        Reason::NoRoute => format!("{what} of a tunnel: no route at all"),
        Reason::TunnelDown => format!("{what} of a tunnel whose interface is down: out of {device}"),
        Reason::ReversePath => "Packets that come in by the tunnel: source validation drops them".into(),
        Reason::Unexplained => format!("{what} of a tunnel: the kernel's answer cannot be explained from its rules"),
    }
}

fn destination_line(report: &DiagnoseReport, finding: &Finding) -> String {
    let destination = report.destinations.iter().find(|destination| destination.prefix == finding.prefix);
    let tunnels = destination.map_or_else(|| finding.tunnel.clone(), |destination| destination.tunnels.join(" and "));
    let goes = match (&finding.actual.device, &finding.actual.error) {
        (Some(device), _) => {
            let source = finding.actual.source.map_or_else(String::new, |source| format!(", source {source}"));
            let clear = if finding.severity == Severity::Critical { ", in the clear" } else { "" };
            format!("leaves by {device}{clear}{source}")
        }
        (None, Some(error)) => format!("fails: {error}"),
        (None, None) => "fails".into(),
    };
    format!("{} ({}) belongs to {tunnels}, {goes}", finding.destination, finding.prefix)
}

/// The steps, one command a line, each with its reason.
pub(super) fn plan(out: &mut String, plan: &PlanReport, palette: Palette) {
    for step in &plan.steps {
        let _ = writeln!(out, "  {}  {}", step.apply, palette.faint(format!("# {}", step.why)));
    }
    for left in &plan.left_out {
        let _ = writeln!(out, "  {} {}: {}", palette.doubtful("not repaired"), left.prefix, left.why);
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
        let _ = writeln!(out, "  {}\n  where: {}\n  how:   {}", cure.what, cure.place, cure.how);
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
        let _ = writeln!(out, "  {note}");
    }
}
