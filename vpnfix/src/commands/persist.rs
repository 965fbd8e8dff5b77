//! `vpnfix persist` and `vpnfix unpersist`.

use ipnet::IpNet;

use super::assess::{Access, Host, in_namespace};
use super::cli::PersistArgs;
use super::failure::Failure;
use super::fix::lock;
use super::settings::Settings;
use crate::action::files::Put;
use crate::action::persist::{self as action, PersistFailure, Released};
use crate::core::finding::{Note, few};
use crate::core::model::{Rule, Snapshot};
use crate::core::persist::{self, Arrangement, Comparison, Kept, Managers, Wish};
use crate::core::report::persist::{
    CommandReport, ComparisonReport, FileReport, FileState, PersistReport, SCHEMA, UNPERSIST_SCHEMA, UnpersistReport,
};
use crate::core::report::{Outcome, VERSION};
use crate::render;
use crate::system::managers;

/// Persists the rules of vpnfix's that stand now, and prints the report.
///
/// # Errors
/// Nobody here can keep them, or a file may not be written.
pub fn run(settings: &Settings, args: &PersistArgs) -> Result<Outcome, Failure> {
    let report = report(settings, args)?;
    settings.output.report(&report, render::persist::text)?;
    Ok(report.outcome)
}

/// The report alone, for programs that link vpnfix.
///
/// # Errors
/// As [`run`].
pub fn report(settings: &Settings, args: &PersistArgs) -> Result<PersistReport, Failure> {
    in_namespace(settings, async |access| {
        of_the_host("persist")?;
        // The rules that are read here must not change before they are written down.
        let _lock = if args.dry_run { None } else { Some(lock(&access.netns)?) };
        let host = Host::read_for_judging(&access, settings, &[]).await?;
        let before = action::kept().map_err(|error| failure("persist", &error))?;
        let mut report = blank(&host, args.dry_run);
        let rules = persist::to_keep(&host.snapshot.rules, before.as_ref());
        let belongs: Vec<IpNet> = host.destinations.iter().map(|destination| destination.prefix).collect();
        let foreign = persist::foreign(&host.snapshot.rules, &rules, &belongs);
        if !foreign.is_empty() {
            let quoted: Vec<String> = foreign.iter().map(|rule| format!("`{rule}`")).collect();
            report.notes.push(format!("made by others, and not persisted by vpnfix: {}", few(&quoted, 3)));
        }
        if rules.is_empty() {
            report.outcome = Outcome::Ok;
            return Ok(report);
        }
        let managers = managers::gather(&host.snapshot.links);
        let uplinks = persist::uplinks(&host.snapshot, &host.tunnels);
        let wish = Wish { backend: args.backend.backend(), keep_foreign: args.keep_foreign_rules };
        let arrangement = persist::arrange(&rules, &managers, &uplinks, wish).map_err(|error| {
            let hint = error.hint().map(String::from);
            Failure { hint, ..Failure::of("persist", &error) }
        })?;
        report.take_in(&arrangement);
        keep(&mut report, &arrangement, before.as_ref(), args.dry_run)?;
        report.outcome = Outcome::Ok;
        report.comparison = ComparisonReport::from(&comparison(&host.snapshot, &managers)?);
        Ok(report)
    })
}

fn keep(
    report: &mut PersistReport,
    arrangement: &Arrangement,
    before: Option<&Kept>,
    dry_run: bool,
) -> Result<(), Failure> {
    let puts = if dry_run { action::examine(arrangement) } else { action::establish(arrangement, before) };
    let puts = puts.map_err(|error| failure("persist", &error))?;
    let unchanged = puts.iter().all(|put| *put == Put::Unchanged);
    if !dry_run && unchanged && before == Some(&Kept::of(arrangement)) {
        report.commands.clear();
    }
    let state = |put: &Put| match put {
        Put::Written => FileState::Written,
        Put::Replaced => FileState::Replaced,
        Put::Unchanged => FileState::Unchanged,
    };
    report.files = arrangement.files.iter().zip(&puts).map(|(file, put)| FileReport::new(file, state(put))).collect();
    Ok(())
}

fn blank(host: &Host, dry_run: bool) -> PersistReport {
    PersistReport {
        schema: SCHEMA.into(),
        version: VERSION.into(),
        outcome: Outcome::Unable,
        host: host.snapshot.host.clone(),
        netns: host.snapshot.netns.clone(),
        dry_run,
        backend: None,
        why: None,
        interface: None,
        rules: Vec::new(),
        files: Vec::new(),
        commands: Vec::new(),
        effect: None,
        comparison: ComparisonReport::default(),
        notes: Vec::new(),
    }
}

/// Takes back what `persist` wrote, and prints the report.
///
/// # Errors
/// What is persisted cannot be read, or the manager refuses.
pub fn release(settings: &Settings) -> Result<Outcome, Failure> {
    let report = in_namespace(settings, async |access: Access| {
        of_the_host("unpersist")?;
        let _lock = lock(&access.netns)?;
        withdraw()
    })?;
    settings.output.report(&report, render::persist::unpersist_text)?;
    Ok(report.outcome)
}

/// Takes back what `persist` wrote; the caller holds the lock.
///
/// # Errors
/// As [`release`].
pub fn withdraw() -> Result<UnpersistReport, Failure> {
    let kept = action::kept().map_err(|error| failure("unpersist", &error))?;
    let Released { removed, ran, left } =
        action::release(kept.as_ref()).map_err(|error| failure("unpersist", &error))?;
    let now = kept.as_ref().and_then(Kept::now);
    let note = now.map(|now| {
        format!("the rules that the manager made still stand: `{now}` takes them away, and so does a reboot")
    });
    Ok(UnpersistReport {
        schema: UNPERSIST_SCHEMA.into(),
        version: VERSION.into(),
        outcome: if left.is_empty() { Outcome::Ok } else { Outcome::Unconfirmed },
        backend: kept.as_ref().map(|kept| kept.backend),
        rules: kept.iter().flat_map(|kept| &kept.rules).map(ToString::to_string).collect(),
        removed,
        commands: ran.iter().map(CommandReport::from).collect(),
        left,
        notes: note.into_iter().collect(),
    })
}

/// Notes about what is persisted beside what runs, for a diagnosis; none in another namespace than the host's.
#[must_use]
pub fn notes(snapshot: &Snapshot) -> Vec<Note> {
    if managers::in_own_namespace() != Some(true) {
        return Vec::new();
    }
    // A diagnosis needs no privilege, and what is persisted can be read with one only.
    let compared = comparison(snapshot, &managers::glance(&snapshot.links));
    compared.map(|comparison| persist::notes(&comparison)).unwrap_or_default()
}

/// What is persisted beside what runs.
///
/// # Errors
/// What is persisted cannot be read.
pub fn comparison(snapshot: &Snapshot, managers: &Managers) -> Result<Comparison, Failure> {
    let compare = |error: PersistFailure| failure("compare what is persisted", &error);
    let (kept, files) = (action::kept().map_err(compare)?, action::standings().map_err(compare)?);
    let rules: &[Rule] = &snapshot.rules;
    Ok(persist::compare(kept.as_ref(), rules, &files, managers))
}

/// Managers keep the host's own namespace; others vanish at a reboot.
fn of_the_host(command: &str) -> Result<(), Failure> {
    match managers::in_own_namespace() {
        Some(false) => {
            let message =
                format!("{command}: this network namespace is not the host's own, and does not outlive a reboot");
            Err(Failure::unable(message).hint("run it in the host's namespace, without --netns"))
        }
        Some(true) => Ok(()),
        None => {
            Err(Failure::unable(format!("{command}: cannot tell whether this is the host's own network namespace"))
                .hint(super::failure::BE_ROOT))
        }
    }
}

fn failure(command: &str, error: &PersistFailure) -> Failure {
    Failure::of(command, error).hint_privilege(error.is_privilege())
}
