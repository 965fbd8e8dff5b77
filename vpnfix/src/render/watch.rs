//! The lines of `watch` as text.

use super::Palette;
use crate::core::finding::few;
use crate::core::report::watch::{RepairLine, RepairOutcome, StateLine, WatchLine};
use crate::core::watch::{Mode, TunnelState};

/// So many of a list are named.
const NAMED: usize = 4;

/// One line as text.
#[must_use]
pub fn text(line: &WatchLine, palette: Palette) -> String {
    let (time, said) = match line {
        WatchLine::Start(start) => {
            let tunnels = if start.tunnels.is_empty() { "no tunnel yet".into() } else { few(&start.tunnels, NAMED) };
            let mode = match start.mode {
                Mode::Fix => "repairs on detection",
                Mode::Report => "only reports (--fix repairs)",
            };
            (&start.time, format!("watching {tunnels}, {} prefixes; {mode}", start.prefixes))
        }
        WatchLine::State(line) => (&line.time, state(line, palette)),
        WatchLine::Repair(line) => (&line.time, repair(line, palette)),
        WatchLine::TakenAway(line) => {
            let remedy = line.remedy.as_ref().map_or_else(String::new, |remedy| format!(". {remedy}"));
            (&line.time, palette.doubtful(format!("{} deleted a rule of vpnfix's: {}{remedy}", line.by, line.rule)))
        }
        WatchLine::Fight(line) => {
            let said = format!(
                "FIGHT over {}: rules that are needed were deleted {} times, last by {}; nothing more is repaired. {}",
                few(&line.tunnels, NAMED),
                line.times,
                line.by,
                line.remedy
            );
            (&line.time, palette.bad(said))
        }
        WatchLine::Hold(line) if line.held => {
            let said = "held by an undo by hand: nothing is repaired until `vpnfix fix`, or a stop and a start";
            (&line.time, palette.doubtful(said))
        }
        WatchLine::Hold(line) => (&line.time, "the hold is lifted".into()),
        WatchLine::Withdrawn(line) => (&line.time, format!("not needed any more: {}", few(&line.rules, NAMED))),
        WatchLine::Problem(line) => (&line.time, palette.doubtful(&line.what)),
        WatchLine::Reload(line) => {
            let why = line.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
            let said =
                if line.taken { "the configuration was read again" } else { "the configuration stays as it was" };
            (&line.time, format!("{said}{why}"))
        }
        WatchLine::Summary(summary) => {
            let tunnels: Vec<String> =
                summary.tunnels.iter().map(|now| format!("{} {}", now.tunnel, now.state)).collect();
            let said = format!(
                "end: {} incidents, {} repairs; {}",
                summary.incidents,
                summary.repairs,
                if tunnels.is_empty() { "no tunnel".into() } else { few(&tunnels, NAMED) }
            );
            (&summary.time, said)
        }
    };
    format!("{} {said}\n", palette.faint(time))
}

fn state(line: &StateLine, palette: Palette) -> String {
    let transition = &line.transition;
    let to = match transition.to {
        TunnelState::Healthy | TunnelState::Repaired => palette.good(transition.to),
        TunnelState::Misrouted | TunnelState::Fighting | TunnelState::Failed => palette.bad(transition.to),
        TunnelState::Suspected | TunnelState::Unconfirmed => palette.doubtful(transition.to),
        TunnelState::Repairing | TunnelState::Gone => palette.strong(transition.to),
    };
    let untold = match line.untold {
        0 => String::new(),
        untold => format!(" ({untold} changes before were not told)"),
    };
    format!("{} {to}, was {}: {}{untold}", palette.strong(&transition.tunnel), transition.from, line.text)
}

fn repair(line: &RepairLine, palette: Palette) -> String {
    let why = line.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    let took = line
        .seconds
        .map_or_else(String::new, |seconds| format!(" {:.1} ms after the {}", seconds * 1000.0, line.woken_by.name()));
    let leaked = match line.leaked_packets {
        0 => String::new(),
        packets => format!(", after {packets} packets ({} bytes) had left in the clear", line.leaked_bytes),
    };
    match line.outcome {
        RepairOutcome::Applied => palette.strong(format!("repaired{took}{leaked}: {}", few(&line.rules, NAMED))),
        RepairOutcome::Confirmed => palette.good(format!("the repair is confirmed{leaked}")),
        RepairOutcome::Unconfirmed => palette.doubtful(format!("the repair stands, unconfirmed{why}{leaked}")),
        RepairOutcome::RolledBack => palette.bad(format!("the repair was taken back{why}")),
        RepairOutcome::Refused => palette.bad(format!("no repair{why}")),
        RepairOutcome::Overtaken => palette.doubtful(format!("the repair was overtaken{why}")),
    }
}
