//! A repair: prepared, applied, and taken back where it went otherwise than planned.

use std::time::{Duration, Instant};

use super::check::missing_rule;
use super::confirmation::{Moment, after_change};
use crate::action::apply::{self, ApplyError, Change, StepError};
use crate::action::audit::Action;
use crate::commands::assess::{Access, Controls, Host, netlink_failure};
use crate::commands::attach;
use crate::commands::cli::FixArgs;
use crate::commands::failure::Failure;
use crate::commands::settings::Settings;
use crate::commands::signals::Signals;
use crate::commands::standing::Standing;
use crate::core::confirm::Confirmation;
use crate::core::destination::{self, Destination};
use crate::core::judge::Judgement;
use crate::core::live::{self, Watch};
use crate::core::model::Rule;
use crate::core::plan::Plan;
use crate::core::report::Outcome;
use crate::core::report::fix::{Difference, FixReport, Rollback};
use crate::core::walk::Fib;
use crate::system::bpf::{self, Request, Tracer};
use crate::system::probe::{Probe, ProbeTarget};

/// A repair that is ready to start: everything that could fail without a change has succeeded.
pub(super) struct Repair<'a> {
    pub(super) access: &'a Access,
    pub(super) settings: &'a Settings,
    pub(super) host: Host,
    pub(super) before: Judgement,
    pub(super) controls: Controls,
    pub(super) plan: Plan,
    pub(super) watches: Vec<Watch>,
    pub(super) tracer: Tracer,
    pub(super) probe: Option<Probe>,
    pub(super) wait: Duration,
}

impl<'a> Repair<'a> {
    pub(super) fn prepare(
        settings: &'a Settings,
        access: &'a Access,
        host: Host,
        before: Judgement,
        controls: Controls,
        plan: Plan,
        args: &FixArgs,
    ) -> Result<Self, Failure> {
        let probe = if args.no_probe { None } else { Some(prepare_probe(&host, &plan)?) };
        let watches = live::watches(&host.destinations, &[]);
        let tracer = attach::attach(&Request {
            watches: watches.iter().map(|watch| watch.prefix).collect(),
            holes: destination::holes(&Fib::new(&host.snapshot), &host.destinations),
            query_thread: Some(access.queries.thread_id()),
            probe: probe.as_ref().map(|probe| bpf::Probe { thread: probe.thread_id(), icmp_id: probe.icmp_id() }),
            log_level: settings.kernel_log,
            ..attach::request(&access.netns)
        })?;
        Ok(Self { access, settings, host, before, controls, plan, watches, tracer, probe, wait: args.wait })
    }

    /// Applies, checks, and confirms or rolls back. What came of it is in the report.
    pub(super) async fn run(
        mut self,
        standing: &Standing<'_>,
        report: &mut FixReport,
        mut signals: Signals,
    ) -> Result<(), Failure> {
        // Attaching takes a while; whoever gave up meanwhile wants no change.
        if tokio::time::timeout(Duration::from_millis(1), signals.came()).await.is_ok() {
            return Err(Failure::unable("fix: interrupted before anything was changed"));
        }
        let mut change = standing.change(&self.plan.steps)?;
        if let Err(error) = change.add(&self.plan.steps).await {
            let untouched = self.roll_back(report, change, vec![refused_step(&error)]).await;
            return if untouched { Err(refused(&error)) } else { Ok(()) };
        }
        let changed = Instant::now();
        let added: Vec<Rule> = self.plan.steps.iter().map(|step| step.rule.clone()).collect();
        report.applied = added.iter().map(Rule::add_command).collect();
        let at_change = attach::totals(&self.tracer);
        let encrypted = self.encrypted();
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
                return Ok(());
            }
        };
        if !differences.is_empty() {
            self.roll_back(report, change, differences).await;
            return Ok(());
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
        let watched_to_the_end = match at_change {
            Ok(at_change) => self.confirm(report, Moment { changed, at_change, encrypted }, &judgement, signals).await,
            Err(failure) => {
                report.notes.push(after_change(&failure));
                false
            }
        };
        let gone = apply::missing(&self.access.netlink, &added).await.unwrap_or_default();
        if !gone.is_empty() {
            self.roll_back(report, change, gone.iter().map(missing_rule).collect()).await;
            return Ok(());
        }
        let confirmed = !report.confirmations.is_empty() && report.confirmations.iter().all(Confirmation::confirmed);
        if watched_to_the_end && confirmed && report.remaining.is_empty() {
            report.outcome = Outcome::Ok;
        }
        Ok(())
    }

    /// The destinations that the plan promises to repair.
    pub(super) fn promised(&self) -> impl Iterator<Item = (usize, &Destination)> {
        let destinations = &self.host.destinations;
        self.plan.repairs.iter().filter_map(|index| destinations.get(*index).map(|destination| (*index, destination)))
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

/// One echo a second to each peer that the plan promises to reach and whose tunnel is up, from the inside address. It
/// starts only when told to.
fn prepare_probe(host: &Host, plan: &Plan) -> Result<Probe, Failure> {
    let is_up = |index: &u32| host.tunnels.iter().any(|tunnel| tunnel.ifindex == *index && tunnel.up);
    let promised = plan.repairs.iter().filter_map(|index| host.destinations.get(*index));
    let targets: Vec<ProbeTarget> = promised
        .filter(|destination| destination.tunnels.iter().any(is_up))
        .filter_map(|destination| {
            Some(ProbeTarget { destination: destination.peer?, source: destination.inside_source })
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
