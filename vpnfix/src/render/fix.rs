//! `fix` and `undo` as text.

use std::fmt::Write as _;

use super::Palette;
use super::cure::applied;
use super::diagnose::{cure, heading, notes, plan};
use crate::core::confirm::{Confirmation, RungName, RungState};
use crate::core::report::Outcome;
use crate::core::report::fix::{FixReport, Rollback, UndoReport};

/// The report as a person reads it.
#[must_use]
pub fn text(report: &FixReport, palette: Palette) -> String {
    let mut out = String::new();
    if report.before.is_empty() && report.plan.steps.is_empty() {
        let _ = writeln!(out, "{}", palette.good("Nothing to fix: every destination goes into its tunnel."));
        if let Some(cure) = &report.cure_applied {
            applied(&mut out, cure, palette);
        }
        notes(&mut out, report.notes.iter().map(|note| note.text.as_str()), palette);
        return out;
    }
    let title = match (report.dry_run, &report.rollback) {
        (true, _) => "What would be done (nothing was changed)",
        (false, Some(_)) => "What was planned",
        (false, None) => "What was done",
    };
    let _ = writeln!(out, "{}", palette.strong(title));
    if report.plan.steps.is_empty() {
        out.push_str("  nothing: no rule can repair this\n");
    }
    plan(&mut out, &report.plan, palette);
    if let Some(rollback) = &report.rollback {
        self::rollback(&mut out, rollback, palette);
    }
    if !report.confirmations.is_empty() {
        heading(&mut out, "Confirmation", palette);
        for confirmation in &report.confirmations {
            ladder(&mut out, confirmation, palette);
        }
    }
    if !report.remaining.is_empty() && !report.dry_run {
        heading(&mut out, "Still wrong", palette);
        for finding in &report.remaining {
            let how = match (&finding.actual.device, &finding.detail) {
                (_, Some(detail)) if !finding.reason.is_wrong_way() => detail.clone(),
                (Some(device), _) => format!("leaves by {device}"),
                (None, _) => finding.actual.error.clone().unwrap_or_else(|| "is refused".into()),
            };
            let _ = writeln!(out, "  {} belongs to {}: {how}", finding.prefix, finding.expected.device);
        }
    }
    if let Some(cure) = &report.cure_applied {
        applied(&mut out, cure, palette);
    }
    cure(&mut out, &report.cure, palette);
    notes(&mut out, report.notes.iter().map(|note| note.text.as_str()), palette);
    if !report.dry_run {
        let _ = writeln!(out, "\n{}", closing(report.outcome, palette));
    }
    out
}

fn closing(outcome: Outcome, palette: Palette) -> String {
    match outcome {
        Outcome::Ok => palette.good("REPAIRED and confirmed on live packets. `vpnfix undo` takes it back."),
        Outcome::Unconfirmed => palette.doubtful(
            "CHANGED, the rules stay, but not everything is repaired and confirmed (see above). \
             `vpnfix undo` takes them back.",
        ),
        Outcome::RolledBack => palette.bad("ROLLED BACK: the rules are as they were."),
        Outcome::FaultFound => palette.bad("NOT REPAIRED: nothing was changed."),
        Outcome::Usage | Outcome::Unable => palette.bad("NOT DONE."),
    }
}

fn ladder(out: &mut String, confirmation: &Confirmation, palette: Palette) {
    let _ = writeln!(out, "  {} into {}", palette.strong(confirmation.prefix), confirmation.tunnels.join(" and "));
    for rung in &confirmation.rungs {
        if rung.state == RungState::NotApplicable {
            continue;
        }
        let state = match rung.state {
            RungState::Confirmed => palette.good("confirmed"),
            RungState::Failed => palette.bad("failed   "),
            RungState::NotSeen if rung.required => palette.doubtful("not seen "),
            RungState::NotSeen | RungState::NotApplicable => palette.faint("not seen "),
        };
        let _ = writeln!(out, "    {state}  {}: {}", rung_name(rung.name), rung.evidence);
    }
}

pub(super) fn rung_name(name: RungName) -> &'static str {
    match name {
        RungName::KernelAnswer => "the kernel's answer",
        RungName::LiveLookup => "live lookups",
        RungName::PacketOnTunnel => "packets",
        RungName::SaBytes => "IPsec",
        RungName::PeerAnswered => "the peer",
        RungName::BgpConnection => "BGP's connection",
        RungName::BgpEstablished => "BGP",
    }
}

fn rollback(out: &mut String, rollback: &Rollback, palette: Palette) {
    heading(out, "Rolled back, because", palette);
    for difference in &rollback.differences {
        let address = difference.destination.map_or_else(String::new, |address| format!(" ({address})"));
        let _ = writeln!(
            out,
            "  {}{address}: expected {}, found {}",
            difference.name, difference.expected, difference.found
        );
    }
    for left in &rollback.left {
        let _ = writeln!(out, "  {} {left}", palette.bad("could not be taken back:"));
    }
}

/// The report of `undo` as a person reads it.
#[must_use]
pub fn undo_text(report: &UndoReport, palette: Palette) -> String {
    let mut out = String::new();
    if report.removed.is_empty() && report.left.is_empty() && report.files.is_empty() {
        out.push_str("Nothing to undo: vpnfix has no rule here, and no file of its own.\n");
    }
    for command in &report.removed {
        let _ = writeln!(out, "  {command}");
    }
    for file in &report.files {
        let _ = writeln!(out, "  rm {file}");
    }
    for left in &report.left {
        let _ = writeln!(out, "  {} {left}", palette.bad("still there:"));
    }
    if !report.removed.is_empty() && report.left.is_empty() {
        let _ = writeln!(out, "{}", palette.good("UNDONE: vpnfix's rules are gone."));
    }
    notes(&mut out, report.notes.iter().map(|note| note.text.as_str()), palette);
    out
}
