//! A repair: prepared, applied, and taken back where it went otherwise than planned.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::check::missing_rule;
use super::confirmation::{Daemons, Ladder, Moment, after_change, encrypted};
use crate::action::apply::{self, ApplyError, Change, StepError};
use crate::action::audit::Action;
use crate::commands::assess::{Access, Controls, Host, netlink_failure};
use crate::commands::attach;
use crate::commands::failure::Failure;
use crate::commands::signals::Signals;
use crate::commands::standing::Standing;
use crate::core::confirm::Confirmation;
use crate::core::destination::Destination;
use crate::core::judge::Judgement;
use crate::core::live::Watch;
use crate::core::model::Rule;
use crate::core::observation::Totals;
use crate::core::plan::Plan;
use crate::core::report::Outcome;
use crate::core::report::fix::{Difference, FixReport, Rollback};
use crate::core::verify::Known;
use crate::system::bpf::Tracer;
use crate::system::host;
use crate::system::probe::{Probe, ProbeTarget};

/// A repair that is ready to start: everything that could fail without a change has succeeded, but for the probe of `watch`,
/// which comes behind the change.
pub(in crate::commands) struct Repair<'a> {
    pub(in crate::commands) access: &'a Access,
    pub(in crate::commands) host: Host,
    pub(in crate::commands) before: Judgement,
    pub(in crate::commands) controls: Controls,
    pub(in crate::commands) plan: Plan,
    pub(in crate::commands) probe: Option<Probe>,
}

/// Rules that were added, checked and written down as such.
pub(in crate::commands) struct Stands<'s> {
    change: Change<'s>,
    /// The rules.
    pub(in crate::commands) added: Vec<Rule>,
    /// When the kernel had acknowledged the last of them, and what was counted by then.
    pub(in crate::commands) changed: Instant,
    at_change: Result<Totals, Failure>,
    encrypted: Known<BTreeMap<u32, u64>>,
    /// What the kernel answers now.
    pub(in crate::commands) judgement: Judgement,
}

impl Repair<'_> {
    /// Adds the rules, checks them, and takes them back where something is not as the plan said. What came of it is in the
    /// report; nothing is given back where nothing stands.
    ///
    /// # Errors
    /// The first step failed, and nothing was changed.
    pub(in crate::commands) async fn apply<'s>(
        &mut self,
        standing: &'s Standing<'_>,
        tracer: &Tracer,
        report: &mut FixReport,
    ) -> Result<Option<Stands<'s>>, Failure> {
        let mut change = standing.change(&self.plan.steps)?;
        if let Err(error) = change.add(&self.plan.steps).await {
            let untouched = self.roll_back(report, change, vec![refused_step(&error)]).await;
            return if untouched { Err(refused(&error)) } else { Ok(None) };
        }
        let changed = Instant::now();
        let added: Vec<Rule> = self.plan.steps.iter().map(|step| step.rule.clone()).collect();
        report.applied = added.iter().map(Rule::add_command).collect();
        let clock = host::wall_clock();
        report.applied_at = change.added_at().iter().map(|time| clock.tell(*time)).collect();
        let at_change = attach::totals(tracer);
        let encrypted = encrypted(&self.host);
        let (judgement, differences) = match self.check(&added).await {
            Ok(checked) => checked,
            Err(failure) => {
                let difference = Difference {
                    name: "the check after the change".into(),
                    destination: None,
                    expected: "an answer".into(),
                    found: failure.message,
                };
                self.roll_back(report, change, vec![difference]).await;
                return Ok(None);
            }
        };
        if !differences.is_empty() {
            self.roll_back(report, change, differences).await;
            return Ok(None);
        }
        report
            .notes
            .extend(change.keep().err().map(|error| after_change(&Failure::of("keep the undo journal", &error))));
        // Only now: before, the requests would leave in the clear like everything else.
        if let Some(probe) = &mut self.probe {
            probe.begin();
        }
        report.remaining = judgement.findings.clone();
        // From here on the rules stay, whatever happens, and the report says so.
        report.outcome = Outcome::Unconfirmed;
        Ok(Some(Stands { change, added, changed, at_change, encrypted, judgement }))
    }

    /// The ladder that is climbed after the change.
    ///
    /// # Errors
    /// What was counted at the change could not be read.
    pub(in crate::commands) fn ladder(
        &mut self,
        stands: &mut Stands<'_>,
        watches: Vec<Watch>,
        wait: Duration,
        daemons: Daemons,
    ) -> Result<Ladder, Failure> {
        let nothing = Err(Failure::unable("the counts at the change are used up"));
        let at_change = std::mem::replace(&mut stands.at_change, nothing)?;
        Ok(Ladder {
            host: self.host.clone(),
            plan: self.plan.clone(),
            right: stands.judgement.right.clone(),
            watches,
            moment: Moment { changed: stands.changed, at_change, encrypted: stands.encrypted.clone() },
            settled: None,
            probe: self.probe.take(),
            wait,
            daemons,
        })
    }

    /// Applies, checks, and confirms or rolls back. What came of it is in the report.
    pub(super) async fn run(
        mut self,
        standing: &Standing<'_>,
        (tracer, watches): (&mut Tracer, Vec<Watch>),
        wait: Duration,
        report: &mut FixReport,
        mut signals: Signals,
    ) -> Result<(), Failure> {
        // Attaching takes a while; whoever gave up meanwhile wants no change.
        if tokio::time::timeout(Duration::from_millis(1), signals.came()).await.is_ok() {
            return Err(Failure::unable("fix: interrupted before anything was changed"));
        }
        let Some(mut stands) = self.apply(standing, tracer, report).await? else { return Ok(()) };
        let watched_to_the_end = match self.ladder(&mut stands, watches, wait, Daemons::Asked(None)) {
            Ok(mut ladder) => ladder.climb_all(self.access, tracer, report, signals).await,
            Err(failure) => {
                report.notes.push(after_change(&failure));
                false
            }
        };
        let gone = apply::missing(&self.access.netlink, &stands.added).await.unwrap_or_default();
        if !gone.is_empty() {
            self.roll_back(report, stands.change, gone.iter().map(missing_rule).collect()).await;
            return Ok(());
        }
        if watched_to_the_end {
            conclude(report);
        }
        Ok(())
    }

    /// The destinations that the plan promises to repair.
    pub(super) fn promised(&self) -> impl Iterator<Item = (usize, &Destination)> {
        promised(&self.host, &self.plan)
    }

    /// Takes the rules back and says why. True if none of them stood.
    async fn roll_back(&self, report: &mut FixReport, mut change: Change<'_>, differences: Vec<Difference>) -> bool {
        let why = differences.first().map_or_else(String::new, |difference| {
            format!("{}: expected {}, found {}", difference.name, difference.expected, difference.found)
        });
        let taken = change.take_back(Action::RollBack, &why).await;
        let complete = taken.complete();
        report.rollback = Some(Rollback { differences, complete, left: taken.told() });
        report.remaining = self.before.findings.clone();
        report.outcome = if complete { Outcome::RolledBack } else { Outcome::Unconfirmed };
        change.end(&taken);
        complete && taken.removed.is_empty()
    }
}

/// The destinations that a plan promises to repair, with their numbers.
pub(super) fn promised<'a>(host: &'a Host, plan: &'a Plan) -> impl Iterator<Item = (usize, &'a Destination)> {
    let of = |index: &usize| host.destinations.get(*index).map(|destination| (*index, destination));
    plan.repairs.iter().filter_map(of)
}

/// A repair that was watched to the end is done where all that is required is confirmed and nothing is left.
pub(in crate::commands) fn conclude(report: &mut FixReport) {
    let confirmed = !report.confirmations.is_empty() && report.confirmations.iter().all(Confirmation::confirmed);
    if confirmed && report.remaining.is_empty() {
        report.outcome = Outcome::Ok;
    }
}

/// One echo a second to each peer that the plan promises to reach and whose tunnel is up, from the inside address. It
/// starts only when told to.
pub(in crate::commands) fn prepare_probe(host: &Host, plan: &Plan) -> Result<Probe, Failure> {
    let is_up = |index: &u32| host.tunnels.iter().any(|tunnel| tunnel.ifindex == *index && tunnel.up);
    let promised = plan.repairs.iter().filter_map(|index| host.destinations.get(*index));
    let targets: Vec<ProbeTarget> = promised
        .filter(|destination| destination.tunnels.iter().any(is_up))
        .filter_map(|destination| {
            let vrf = destination.vrf.map(|index| host.snapshot.device_name(index));
            Some(ProbeTarget { destination: destination.peer?, source: destination.inside_source, vrf })
        })
        .collect();
    Probe::prepare(&targets)
        .map_err(|error| Failure::of("prepare the echo requests", &error).hint_privilege(error.is_privilege()))
}

fn refused_step(error: &ApplyError) -> Difference {
    Difference {
        name: format!("{error}"),
        destination: None,
        expected: "acknowledged by the kernel".into(),
        found: Failure::of("refused", &error.source).message,
    }
}

/// The failure of a plan of which nothing stands.
fn refused(error: &ApplyError) -> Failure {
    match &error.source {
        StepError::Netlink(source) => netlink_failure("apply the plan", source),
        StepError::Journal(source) => Failure::of("apply the plan", source),
    }
}
