//! The cure at the root: strongSwan's `install_routes` switched off by a file of our own, read again as the daemon reads
//! it, and the daemon restarted where that was asked for.

use std::time::{Duration, Instant};

use super::FixArgs;
use crate::action::files::{OwnFile, OwnFiles};
use crate::action::restart;
use crate::commands::assess::{Access, Host};
use crate::commands::failure::Failure;
use crate::commands::settings::Settings;
use crate::core::finding::Finding;
use crate::core::own_file::Purpose;
use crate::core::owner::{self, Process, Program};
use crate::core::report::Outcome;
use crate::core::report::cure::{ByHand, CureApplied, CureFile, CureState, DaemonReads, Restart, RestartState};
use crate::core::report::fix::FixReport;
use crate::core::strongswan::cure::{self, CurePlan, DropIn, Obstacle};
use crate::core::strongswan::{self, Configuration, Daemon, State};
use crate::system::clues;

/// How long the daemon may take, once it was restarted, to run again with its routes gone.
const RETURN: Duration = Duration::from_secs(30);
/// Between two looks at it.
const TICK: Duration = Duration::from_millis(250);

/// The cure as planned before anything is changed.
pub(super) struct Cure {
    plan: CurePlan,
    /// The daemons that it is for: those that run here, or all that may.
    daemons: Vec<Daemon>,
    running: Vec<Process>,
    /// The daemon's table.
    table: u32,
}

impl Cure {
    /// Plans it for the daemon that the findings name, for charon where they name none.
    pub(super) fn plan(host: &Host, findings: &[Finding]) -> Self {
        let of_strongswan = |finding: &&Finding| finding.owner.name == Program::StrongSwan.name();
        let table = findings.iter().filter(of_strongswan).find_map(|finding| finding.actual.table);
        let owner = table.and_then(|table| strongswan::daemon_of(&host.clues, table));
        let first = owner.map_or(Daemon::Charon, |settings| settings.daemon);
        let group = cure::group(first);
        let running: Vec<(Daemon, Process)> = strongswan::running_here(&host.clues, group);
        let mut daemons: Vec<Daemon> = running.iter().map(|(daemon, _)| *daemon).collect();
        if daemons.is_empty() {
            daemons = group.to_vec();
        }
        let table = table.unwrap_or_else(|| host.clues.strongswan.settings(first).routing_table.value);
        let plan = cure::plan(&clues::strongswan::ENTRIES, &mut clues::strongswan::files, &daemons);
        Self { plan, daemons, running: running.into_iter().map(|(_, process)| process).collect(), table }
    }

    /// What is told where the repair before it did not come to its end.
    pub(super) fn skip(report: &mut FixReport, why: &str) {
        report.cure_applied = Some(CureApplied::not_done(CureState::Skipped, Some(why.into())));
    }

    /// Writes and checks it, and restarts the daemon if asked for; with `--dry-run` it is only told.
    pub(super) async fn carry_out(
        self,
        report: &mut FixReport,
        access: &Access,
        settings: &Settings,
        args: &FixArgs,
    ) -> Result<(), Failure> {
        let mut applied = self.write(args.dry_run);
        if matches!(applied.state, CureState::Written | CureState::AlreadyOff) {
            applied.check = self.reads(&clues::strongswan::configuration());
        }
        if matches!(applied.state, CureState::Written | CureState::AlreadyOff | CureState::Planned) {
            applied.restart = self.restart(report, access, settings, args, applied.state).await?;
        }
        if applied.state == CureState::Written {
            // What is left for a person to do is another thing now.
            if let Some(host) = Host::read_again(access, settings, &[]).await? {
                report.cure = owner::cures(&host.snapshot, &host.clues, &report.remaining);
            }
        }
        report.outcome = outcome(report, &applied);
        report.cure_applied = Some(applied);
        Ok(())
    }

    fn write(&self, dry_run: bool) -> CureApplied {
        let impossible = |why: String| CureApplied::not_done(CureState::Impossible, Some(why));
        match &self.plan {
            CurePlan::Absent => match self.running.first() {
                Some(process) => impossible(format!("{process} runs here, but its configuration is not found")),
                None => CureApplied::not_done(CureState::NotApplicable, None),
            },
            CurePlan::Blocked(obstacle) => blocked(obstacle),
            CurePlan::Off { .. } => CureApplied::not_done(CureState::AlreadyOff, None),
            CurePlan::DropIn(drop_in) => {
                let entry = clues::strongswan::configuration().files.into_iter().next().unwrap_or_default();
                let elsewhere = |process: &Process| clues::strongswan::reads_other(process.pid, &entry);
                match self.running.iter().find_map(|process| Some((process, elsewhere(process)?))) {
                    Some((process, why)) => impossible(format!("{process} reads another configuration: {why}")),
                    None => self.write_drop_in(drop_in, dry_run),
                }
            }
        }
    }

    fn write_drop_in(&self, drop_in: &DropIn, dry_run: bool) -> CureApplied {
        let DropIn { path, text, include } = drop_in.clone();
        let file = OwnFile { path: (&path).into(), contents: text.clone().into(), mode: 0o644, purpose: Purpose::Cure };
        let files = OwnFiles::of_host();
        let done = if dry_run { files.examine(&[file]) } else { files.put(&[file]) };
        if let Err(error) = done {
            let why = Failure::of("the file", &error).message;
            return CureApplied::not_done(CureState::Impossible, Some(why));
        }
        if !dry_run && cure::off(&clues::strongswan::configuration(), &self.daemons).is_none() {
            let left = match files.remove(|record| record.path.as_os_str() == path.as_str()) {
                Ok(removal) if removal.left.is_empty() => "it was taken away again",
                _ => "it could not be taken away again: `vpnfix undo` does",
            };
            let why = format!("{path} does not switch it off as it should, read again; {left}");
            return CureApplied::not_done(CureState::Impossible, Some(why));
        }
        CureApplied {
            files: vec![CureFile { path, text, include }],
            ..CureApplied::not_done(if dry_run { CureState::Planned } else { CureState::Written }, None)
        }
    }

    fn reads(&self, configuration: &Configuration) -> Vec<DaemonReads> {
        let reads = |daemon: &Daemon| {
            let setting = configuration.settings(*daemon).install_routes;
            let place = setting.place.map(|place| place.to_string());
            DaemonReads { daemon: daemon.name().into(), install_routes: setting.value, place }
        };
        self.daemons.iter().map(reads).collect()
    }

    async fn restart(
        &self,
        report: &mut FixReport,
        access: &Access,
        settings: &Settings,
        args: &FixArgs,
        state: CureState,
    ) -> Result<Restart, Failure> {
        let place = cure::off(&clues::strongswan::configuration(), &self.daemons);
        let due = |process: &&Process| {
            state == CureState::Planned || place.as_ref().is_some_and(|place| strongswan::reads_former(process, place))
        };
        let Some(process) = self.running.iter().find(due) else { return Ok(Restart::default()) };
        let daemon = Some(process.to_string());
        if args.restart && !args.dry_run {
            return self.restart_now(report, access, settings, process).await;
        }
        let (unit, how) = match restart::unit_of(process).await {
            Ok((_, unit)) => (Some(unit.name.clone()), format!("`systemctl restart {}`", unit.name)),
            Err(error) => (None, format!("restart it as it was started ({})", told(&error))),
        };
        let planned = args.restart && unit.is_some();
        let state = if planned { RestartState::Planned } else { RestartState::Due };
        let how = format!("{how}; a reload does not suffice, and a restart takes the tunnels down for a moment");
        Ok(Restart { state, daemon, unit, how: Some(how), evidence: Vec::new() })
    }

    async fn restart_now(
        &self,
        report: &mut FixReport,
        access: &Access,
        settings: &Settings,
        process: &Process,
    ) -> Result<Restart, Failure> {
        let daemon = Some(process.to_string());
        let failed = Restart { state: RestartState::Failed, daemon, ..Restart::default() };
        let unit = match restart::restart(process).await {
            Ok(unit) => unit.name,
            Err(error) => {
                let how = Some("restart it as it was started; a reload does not suffice".into());
                return Ok(Restart { how, evidence: vec![told(&error)], ..failed });
            }
        };
        let deadline = Instant::now() + RETURN;
        loop {
            let host = Host::read_again(access, settings, &[]).await?;
            let back = host.as_ref().map(|host| self.is_back(host, process)).unwrap_or_default();
            if let (true, Some(host)) = (back.complete, &host) {
                report.remaining = host.judge(access)?.findings;
                let evidence = back.evidence;
                return Ok(Restart { state: RestartState::Done, unit: Some(unit), evidence, ..failed });
            }
            if Instant::now() >= deadline {
                let how = Some(format!("see `systemctl status {unit}`"));
                return Ok(Restart { unit: Some(unit), how, evidence: back.evidence, ..failed });
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// Does the daemon run anew, and are its routes gone?
    fn is_back(&self, host: &Host, former: &Process) -> Back {
        let group =
            strongswan::running_here(&host.clues, cure::group(self.daemons.first().copied().unwrap_or(Daemon::Charon)));
        let anew = group.iter().find(|(_, process)| process.name == former.name && process.pid != former.pid);
        let Some((daemon, process)) = anew else {
            return Back { complete: false, evidence: vec![format!("{} does not run again", former.name)] };
        };
        let runs = format!("{process} runs");
        let state = strongswan::state(&host.snapshot, &host.clues, *daemon, self.table);
        match state {
            State::RuleAlone { .. } => {
                Back { complete: true, evidence: vec![runs, format!("table {} has no routes", self.table)] }
            }
            other => Back { complete: false, evidence: vec![runs, other.to_string()] },
        }
    }
}

/// How far a daemon is after its restart.
#[derive(Default)]
struct Back {
    complete: bool,
    evidence: Vec<String>,
}

fn told(error: &restart::RestartError) -> String {
    Failure::of("no restart", error).message
}

fn blocked(obstacle: &Obstacle) -> CureApplied {
    let (why, by_hand) = match obstacle {
        Obstacle::Refused(problem) => {
            let place = problem.line.map_or_else(|| problem.file.clone(), |line| format!("{}:{line}", problem.file));
            let how = "mend it first: no daemon starts with it, so none is restarted".into();
            (problem.to_string(), Some(ByHand { place, how }))
        }
        Obstacle::Incomplete(problem) => (problem.to_string(), None),
        Obstacle::NoPlace { place, edit } => {
            let why = "no include of the configuration reads a file of vpnfix's own so that it holds";
            (why.into(), Some(ByHand { place: place.clone(), how: edit.clone() }))
        }
    };
    CureApplied { by_hand, ..CureApplied::not_done(CureState::Impossible, Some(why)) }
}

/// The outcome of the repair with that of the cure.
fn outcome(report: &FixReport, cure: &CureApplied) -> Outcome {
    let before = report.outcome;
    let cured = cure.restart.state == RestartState::Done && report.remaining.is_empty();
    match (before, cure.state, cure.restart.state) {
        (Outcome::Ok | Outcome::FaultFound, CureState::Impossible, _) if report.applied.is_empty() => Outcome::Unable,
        (Outcome::Ok, CureState::Impossible, _) | (Outcome::Ok | Outcome::FaultFound, _, RestartState::Failed) => {
            Outcome::Unconfirmed
        }
        (Outcome::Ok, CureState::Planned, _) | (Outcome::Ok, _, RestartState::Planned) => Outcome::FaultFound,
        (Outcome::FaultFound, _, RestartState::Done) | (Outcome::FaultFound, CureState::Written, _) => {
            if cured {
                Outcome::Ok
            } else {
                Outcome::Unconfirmed
            }
        }
        (Outcome::Ok, _, RestartState::Done) if !cured => Outcome::Unconfirmed,
        _ => before,
    }
}
