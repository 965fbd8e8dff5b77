//! `persist` and `unpersist` as text.

use std::fmt::Write as _;

use super::diagnose::{heading, notes};
use super::{Palette, wrapped};
use crate::core::persist::name;
use crate::core::report::Outcome;
use crate::core::report::persist::{CommandReport, FileReport, FileState, PersistReport, UnpersistReport};

/// The report as a person reads it.
#[must_use]
pub fn text(report: &PersistReport, palette: Palette) -> String {
    let mut out = String::new();
    let Some(backend) = report.backend else {
        let _ = writeln!(out, "Nothing to persist: vpnfix has no rule here.");
        notes(&mut out, report.notes.iter().map(String::as_str), palette);
        return out;
    };
    let title = if report.dry_run { "What would be persisted (nothing was changed)" } else { "What is persisted" };
    let _ = writeln!(out, "{}", palette.strong(title));
    for rule in &report.rules {
        let _ = writeln!(out, "  {rule}");
    }
    let why = report.why.as_deref().unwrap_or_default();
    lines(&mut out, &format!("kept by {} ({why})", name(backend)));
    for file in &report.files {
        self::file(&mut out, file, report.dry_run, palette);
    }
    commands(&mut out, &report.commands, palette);
    if let Some(effect) = &report.effect {
        heading(&mut out, "When", palette);
        lines(&mut out, effect);
    }
    notes(&mut out, report.notes.iter().map(String::as_str), palette);
    if !report.dry_run {
        let closing = match report.outcome {
            Outcome::Ok => palette.good("PERSISTED: the repair outlives a reboot. `vpnfix unpersist` takes it back."),
            _ => palette.doubtful("PERSISTED IN PART: see above. `vpnfix unpersist` takes it back."),
        };
        let _ = writeln!(out, "\n{closing}");
    }
    out
}

fn file(out: &mut String, file: &FileReport, dry_run: bool, palette: Palette) {
    let state = match (file.state, dry_run) {
        (FileState::Written, true) => "would be written",
        (FileState::Written, false) => "written",
        (FileState::Replaced, true) => "would be replaced",
        (FileState::Replaced, false) => "replaced",
        (FileState::Unchanged, _) => "there already",
    };
    let _ = writeln!(out, "\n{} ({}, {state})", palette.strong(file.path.display()), file.mode);
    for line in file.text.lines() {
        let _ = writeln!(out, "{}", format!("    {line}").trim_end());
    }
}

fn commands(out: &mut String, commands: &[CommandReport], palette: Palette) {
    if commands.is_empty() {
        return;
    }
    heading(out, "Commands", palette);
    for command in commands {
        let _ = writeln!(out, "  {}\n      {}", command.command, command.why);
    }
}

fn lines(out: &mut String, text: &str) {
    for line in wrapped(text, "  ", "  ") {
        let _ = writeln!(out, "{line}");
    }
}

/// The report of `unpersist` as a person reads it.
#[must_use]
pub fn unpersist_text(report: &UnpersistReport, palette: Palette) -> String {
    let mut out = String::new();
    let nothing = report.backend.is_none() && report.removed.is_empty() && report.left.is_empty();
    if nothing {
        out.push_str("Nothing to take back: vpnfix persisted nothing here.\n");
    }
    for path in &report.removed {
        let _ = writeln!(out, "  removed {}", path.display());
    }
    for command in &report.commands {
        let _ = writeln!(out, "  ran {}", command.command);
    }
    for left in &report.left {
        let _ = writeln!(out, "  {} {left}", palette.bad("still there:"));
    }
    notes(&mut out, report.notes.iter().map(String::as_str), palette);
    if !nothing && report.left.is_empty() {
        let _ = writeln!(out, "{}", palette.good("UNPERSISTED: nothing of it is left on disk."));
    }
    out
}
