//! The cure at the root as text.

use std::fmt::Write as _;

use super::Palette;
use super::diagnose::heading;
use crate::core::report::cure::{CureApplied, CureState, Restart, RestartState};

/// What became of the cure.
pub(super) fn applied(out: &mut String, cure: &CureApplied, palette: Palette) {
    heading(out, "strongSwan's setting", palette);
    let state = match cure.state {
        CureState::Written => palette.good("written: it installs no routes of its own from its next start on"),
        CureState::AlreadyOff => palette.good("install_routes is off already"),
        CureState::Planned => "would be written".into(),
        CureState::Impossible => palette.bad("not written: no file of vpnfix's own can do it here"),
        CureState::Skipped => palette.doubtful("not written"),
        CureState::NotApplicable => "nothing to write: strongSwan has no configuration on this host".into(),
    };
    let _ = writeln!(out, "  {state}");
    if let Some(why) = &cure.why {
        let _ = writeln!(out, "  because {why}");
    }
    for file in &cure.files {
        let _ = writeln!(out, "  {}", palette.strong(&file.path));
        for line in file.text.lines() {
            let _ = writeln!(out, "    {line}");
        }
    }
    for reads in &cure.check {
        let value = if reads.install_routes { "yes" } else { "no" };
        let place = reads.place.as_ref().map_or_else(|| "its default".into(), |place| format!("at {place}"));
        let _ = writeln!(out, "  {} reads install_routes = {value} ({place})", reads.daemon);
    }
    if let Some(by_hand) = &cure.by_hand {
        let _ = writeln!(out, "  by hand: in {}, {}", by_hand.place, by_hand.how);
    }
    restart(out, &cure.restart, palette);
}

fn restart(out: &mut String, restart: &Restart, palette: Palette) {
    let daemon = restart.daemon.as_deref().unwrap_or("the daemon");
    let unit = restart.unit.as_ref().map_or_else(String::new, |unit| format!(" ({unit})"));
    let line = match restart.state {
        RestartState::NotNeeded => return,
        RestartState::Due => palette.doubtful(format!("{daemon} must be restarted to read it{unit}")),
        RestartState::Planned => format!("{daemon} would be restarted{unit}"),
        RestartState::Done => palette.good(format!("{daemon} was restarted{unit}")),
        RestartState::Failed => palette.bad(format!("{daemon} was not restarted as it should{unit}")),
    };
    let _ = writeln!(out, "  {line}");
    for evidence in &restart.evidence {
        let _ = writeln!(out, "    {evidence}");
    }
    if let Some(how) = &restart.how {
        let _ = writeln!(out, "    {how}");
    }
}
