//! `doctor` as text.

use std::fmt::Write as _;

use super::Palette;
use crate::core::report::Outcome;
use crate::core::report::doctor::{CheckState, DoctorReport, Purpose};

/// The report as a person reads it.
#[must_use]
pub fn text(report: &DoctorReport, palette: Palette) -> String {
    let mut out = String::new();
    let line = format!("vpnfix {} on {}, kernel {}", report.version, report.host.hostname, report.host.kernel);
    let _ = writeln!(out, "{}\n", palette.faint(line));
    let width = report.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    for check in &report.checks {
        let state = match check.state {
            CheckState::Ok => palette.good("ok     "),
            CheckState::Reduced => palette.doubtful("reduced"),
            CheckState::Missing => palette.bad("missing"),
        };
        let _ = writeln!(out, "  {state}  {:width$}  {}", check.name, check.found);
        if let Some(remedy) = &check.remedy {
            let _ = writeln!(out, "           {:width$}  {}", "", palette.faint(remedy));
        }
    }
    let lacking = |purpose: Purpose| {
        report.checks.iter().any(|check| check.state == CheckState::Missing && check.needed_for.contains(&purpose))
    };
    let able = |purpose: Purpose, verb: &str| {
        if lacking(purpose) { palette.bad(format!("cannot {verb}")) } else { palette.good(format!("can {verb}")) }
    };
    let _ = writeln!(
        out,
        "\nvpnfix {}, {}, {}{}",
        able(Purpose::Diagnose, "diagnose"),
        able(Purpose::Trace, "trace"),
        able(Purpose::Fix, "fix"),
        if report.outcome == Outcome::Ok { "" } else { " here" },
    );
    out
}
