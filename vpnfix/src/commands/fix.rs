//! `vpnfix fix`: plan, apply, confirm on live packets, and roll back if it went otherwise than planned.

use std::time::{Duration, Instant};

use super::assess::{Access, Controls, Host, ask_controls, in_namespace, netlink_failure};
use super::attach;
use super::cli::FixArgs;
use super::failure::Failure;
use super::settings::Settings;
use super::signals::Signals;
use crate::action::apply::{self, ApplyError};
use crate::action::lock::Lock;
use crate::core::confirm::{self, Confirmation, Evidence, Probed};
use crate::core::control;
use crate::core::destination::{self, Destination};
use crate::core::finding::{Finding, Note, NoteId};
use crate::core::judge::Judgement;
use crate::core::live::{self, View, Watch};
use crate::core::model::{Netns, Rule, Snapshot};
use crate::core::observation::Totals;
use crate::core::owner;
use crate::core::plan::{self, Plan};
use crate::core::report::diagnose::PlanReport;
use crate::core::report::fix::{Difference, FixReport, Rollback, SCHEMA};
use crate::core::report::{Outcome, VERSION};
use crate::core::walk::Fib;
use crate::render;
use crate::system::bpf::{self, Request, Tracer};
use crate::system::probe::{Probe, ProbeTarget};

/// What was on its way at the change has left after this.
const SETTLING: Duration = Duration::from_millis(200);
/// How long packets are watched after that before the repair may be called confirmed.
const WATCHING: Duration = Duration::from_millis(1000);
/// How long a peer's answer is waited for beyond that; it is reported, not required.
const ANSWER: Duration = Duration::from_millis(3000);
/// Between two looks at the counts.
const TICK: Duration = Duration::from_millis(100);

/// Repairs, confirms and prints the report.
///
/// # Errors
/// Something lacks that is needed before the first change.
pub fn run(settings: &Settings, args: &FixArgs) -> Result<Outcome, Failure> {
    let report = report(settings, args)?;
    settings.output.report(&report, render::fix::text)?;
    Ok(report.outcome)
}

/// The report alone, for programs that link vpnfix.
///
/// # Errors
/// Something lacks that is needed before the first change.
pub fn report(settings: &Settings, args: &FixArgs) -> Result<FixReport, Failure> {
    in_namespace(settings, async |access| {
        // Taken before the host is read: what is planned from must not change under another vpnfix's hands.
        let _lock = if args.dry_run { None } else { Some(lock(&access.netns)?) };
        let signals = Signals::listen()?;
        let host = Host::read(&access, settings, &[]).await?;
        host.has_destinations("fix")?;
        let judgement = host.judge(&access)?;
        let controls = host.controls(&access, &judgement.findings)?;
        let plan = make_plan(&host, &judgement, &controls, args)?;
        let mut report = blank(&host, &judgement, &plan, args.dry_run);
        if args.dry_run || plan.steps.is_empty() {
            report.outcome = if judgement.findings.is_empty() { Outcome::Ok } else { Outcome::FaultFound };
            report.remaining = judgement.findings;
            return Ok(report);
        }
        let repair = Repair::prepare(settings, &access, host, judgement, controls, plan, args)?;
        repair.run(&mut report, signals).await?;
        Ok(report)
    })
}

/// Takes the lock on a namespace's rules.
///
/// # Errors
/// Another vpnfix holds it, or the run directory cannot be used.
pub fn lock(netns: &Netns) -> Result<Lock, Failure> {
    Lock::take(netns.inode)
        .map_err(|error| Failure::of("lock the namespace's rules", &error).hint_privilege(error.is_privilege()))
}

fn make_plan(host: &Host, judgement: &Judgement, controls: &Controls, args: &FixArgs) -> Result<Plan, Failure> {
    let fib = Fib::new(&host.snapshot);
    let situation = host.situation(&fib, &judgement.findings, controls);
    plan::plan(situation, args.strategy.into(), args.priority).map_err(|error| {
        let failure = Failure::of("plan the repair", &error);
        match error.free_priority() {
            Some(free) => failure.hint(format!("priority {free} is free and early enough")),
            None => failure,
        }
    })
}

fn blank(host: &Host, judgement: &Judgement, plan: &Plan, dry_run: bool) -> FixReport {
    FixReport {
        schema: SCHEMA.into(),
        version: VERSION.into(),
        outcome: Outcome::Unable,
        host: host.snapshot.host.clone(),
        netns: host.snapshot.netns.clone(),
        dry_run,
        before: judgement.findings.clone(),
        plan: PlanReport::from(plan),
        applied: Vec::new(),
        confirmations: Vec::new(),
        remaining: Vec::new(),
        rollback: None,
        cure: owner::cures(&host.snapshot, &host.clues, &judgement.findings),
        notes: judgement.notes.clone(),
    }
}

/// A repair that is ready to start: everything that could fail without a change has succeeded.
struct Repair<'a> {
    access: &'a Access,
    settings: &'a Settings,
    host: Host,
    before: Judgement,
    controls: Controls,
    plan: Plan,
    watches: Vec<Watch>,
    tracer: Tracer,
    probe: Option<Probe>,
    wait: Duration,
}

impl<'a> Repair<'a> {
    fn prepare(
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
    async fn run(mut self, report: &mut FixReport, mut signals: Signals) -> Result<(), Failure> {
        // Attaching takes a while; whoever gave up meanwhile wants no change.
        if tokio::time::timeout(Duration::from_millis(1), signals.came()).await.is_ok() {
            return Err(Failure::unable("fix: interrupted before anything was changed"));
        }
        let added = match apply::apply(&self.access.netlink, &self.plan).await {
            Ok(added) => added,
            Err(error) if error.added.is_empty() => {
                return Err(netlink_failure("apply the plan", &error.source));
            }
            Err(error) => return self.roll_back(report, &error.added, vec![refused_step(&error)]).await,
        };
        report.applied = added.iter().map(Rule::add_command).collect();
        let changed = Instant::now();
        let at_change = attach::totals(&self.tracer);
        let (judgement, differences) = match self.check(&added).await {
            Ok(checked) => checked,
            Err(failure) => {
                let difference = Difference {
                    name: "the check after the change".into(),
                    destination: None,
                    expected: "an answer".into(),
                    found: failure.message,
                };
                return self.roll_back(report, &added, vec![difference]).await;
            }
        };
        if !differences.is_empty() {
            return self.roll_back(report, &added, differences).await;
        }
        // Only now: before, the requests would leave in the clear like everything else.
        if let Some(probe) = &mut self.probe {
            probe.begin();
        }
        report.remaining = judgement.findings.clone();
        // From here on the rules stay, whatever happens, and the report says so.
        report.outcome = Outcome::Unconfirmed;
        let watched_to_the_end = match at_change {
            Ok(at_change) => self.confirm(report, Moment { changed, at_change }, &judgement, signals).await,
            Err(failure) => {
                report.notes.push(after_change(&failure));
                false
            }
        };
        let confirmed = !report.confirmations.is_empty() && report.confirmations.iter().all(Confirmation::confirmed);
        if watched_to_the_end && confirmed && report.remaining.is_empty() {
            report.outcome = Outcome::Ok;
        }
        Ok(())
    }

    /// Reads back and asks the kernel again: are the rules there, do the destinations go right, are the controls as
    /// they were?
    async fn check(&self, added: &[Rule]) -> Result<(Judgement, Vec<Difference>), Failure> {
        let netlink = &self.access.netlink;
        let gone =
            apply::missing(netlink, added).await.map_err(|error| netlink_failure("read back the rules", &error))?;
        let mut differences: Vec<Difference> = gone.iter().map(missing_rule).collect();
        let now = Host::read(self.access, self.settings, &[]).await?;
        let judgement = Host { snapshot: now.snapshot, ..self.host.clone() }.judge(self.access)?;
        differences.extend(self.still_wrong(&judgement).map(not_repaired));
        let after = ask_controls(self.access, &self.controls.targets)?;
        for ((target, before), after) in self.controls.targets.iter().zip(&self.controls.answers).zip(&after) {
            let (fib, tunnels) = (&Fib::new(&self.host.snapshot), &self.host.tunnels);
            let spoiled = control::compare(fib, tunnels, &self.controls.hijackers, target, before, after);
            differences.extend(spoiled.map(|spoiled| Difference {
                name: spoiled.name,
                destination: Some(spoiled.destination),
                expected: spoiled.expected,
                found: spoiled.found,
            }));
        }
        Ok((judgement, differences))
    }

    /// Findings about destinations that the plan said it would repair. What is no rule's to repair (source validation,
    /// two tunnels with one inside prefix) is said, and no reason to take a right route back.
    fn still_wrong<'f>(&self, judgement: &'f Judgement) -> impl Iterator<Item = &'f Finding> {
        judgement.findings.iter().filter(|finding| {
            finding.reason.is_wrong_way()
                && self.promised().any(|(_, destination)| plan::is_of(&self.host.snapshot, finding, destination))
        })
    }

    /// The destinations that the plan promises to repair.
    fn promised(&self) -> impl Iterator<Item = (usize, &Destination)> {
        let destinations = &self.host.destinations;
        self.plan.repairs.iter().filter_map(|index| destinations.get(*index).map(|destination| (*index, destination)))
    }

    /// Watches live packets until every required rung is confirmed, the time is over, or a signal ends it. The report
    /// has what was confirmed so far at any time. False if it did not come to its end.
    async fn confirm(
        &mut self,
        report: &mut FixReport,
        moment: Moment,
        judgement: &Judgement,
        mut signals: Signals,
    ) -> bool {
        tokio::select! {
            biased;
            () = signals.came() => {
                report.notes.push(Note {
                    id: NoteId::AfterChange,
                    text: "the confirmation was interrupted; the rules stay, `vpnfix undo` takes them back".into(),
                });
                false
            }
            watched = self.watch(&mut report.confirmations, &moment, judgement) => {
                report.notes.extend(watched.as_ref().err().map(after_change));
                watched.is_ok()
            }
        }
    }

    async fn watch(
        &mut self,
        confirmations: &mut Vec<Confirmation>,
        moment: &Moment,
        judgement: &Judgement,
    ) -> Result<(), Failure> {
        tokio::time::sleep(SETTLING.saturating_sub(moment.changed.elapsed())).await;
        let settled = attach::totals(&self.tracer)?;
        loop {
            let waited = moment.changed.elapsed();
            *confirmations = self.climb(&moment.at_change, &settled, judgement).await?;
            let all = confirmations.iter().all(Confirmation::confirmed);
            let waiting_helps = confirmations.iter().any(Confirmation::may_still_rise);
            let answered = confirmations.iter().all(|confirmation| !self.awaits_answer(confirmation));
            let enough = waited >= SETTLING + WATCHING && all && (answered || waited >= ANSWER);
            let hopeless = waited >= SETTLING + WATCHING && !all && !waiting_helps;
            if enough || hopeless || waited >= self.wait.max(SETTLING + WATCHING) {
                return Ok(());
            }
            tokio::time::sleep(TICK).await;
            // The ring buffer's events are not needed here, but a full one would count as loss.
            let mut events = Vec::new();
            self.tracer.drain(&mut events).map_err(|error| attach::bpf_failure("read the kernel's events", &error))?;
        }
    }

    fn awaits_answer(&self, confirmation: &Confirmation) -> bool {
        self.probe.is_some()
            && confirmation
                .rungs
                .iter()
                .any(|rung| rung.name == confirm::RungName::PeerAnswered && rung.state == confirm::RungState::NotSeen)
    }

    async fn climb(
        &self,
        at_change: &Totals,
        settled: &Totals,
        judgement: &Judgement,
    ) -> Result<Vec<Confirmation>, Failure> {
        let links = self.access.netlink.links().await.map_err(|error| netlink_failure("read the links", &error))?;
        let rules = self.access.netlink.rules().await.map_err(|error| netlink_failure("read the rules", &error))?;
        let after = Snapshot { links, rules, ..self.host.snapshot.clone() };
        let now = attach::totals(&self.tracer)?;
        let evidence = Evidence {
            view: View { snapshot: &after, watches: &self.watches, knows_outcomes: self.tracer.knows_outcomes() },
            at_change,
            settled,
            now: &now,
            before: &self.host.snapshot,
            after: &after,
            probes: &self.probed(),
        };
        let ladder = |(index, destination): (usize, &Destination)| {
            let watch = self.watches.iter().position(|watch| watch.prefix == destination.prefix)?;
            let right = judgement.right.get(index).copied().unwrap_or(false);
            Some(confirm::confirm(evidence, u32::try_from(watch).ok()?, destination, right))
        };
        Ok(self.promised().filter_map(ladder).collect())
    }

    fn probed(&self) -> Vec<Probed> {
        let results = self.probe.as_ref().map(Probe::poll).unwrap_or_default();
        results
            .into_iter()
            .map(|result| Probed {
                destination: result.destination,
                sent: result.sent,
                answered: result.answered,
                error: result.last_error,
            })
            .collect()
    }

    /// Takes the rules back and says why.
    async fn roll_back(
        &self,
        report: &mut FixReport,
        added: &[Rule],
        differences: Vec<Difference>,
    ) -> Result<(), Failure> {
        let (_, left) = apply::take_back(&self.access.netlink, added).await;
        let standing = apply::missing(&self.access.netlink, added).await;
        let complete = left.is_empty() && standing.is_ok_and(|gone| gone.len() == added.len());
        report.rollback =
            Some(Rollback { differences, complete, left: left.iter().map(apply::LeftBehind::told).collect() });
        report.remaining = self.before.findings.clone();
        report.outcome = if complete { Outcome::RolledBack } else { Outcome::Unconfirmed };
        Ok(())
    }
}

/// When the kernel had acknowledged the last rule, and what was counted by then.
struct Moment {
    changed: Instant,
    at_change: Totals,
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

fn after_change(failure: &Failure) -> Note {
    Note { id: NoteId::AfterChange, text: format!("the rules stay, but the confirmation failed: {}", failure.message) }
}

fn refused_step(error: &ApplyError) -> Difference {
    Difference {
        name: format!("{error}"),
        destination: None,
        expected: "acknowledged by the kernel".into(),
        found: Failure::of("refused", &error.source).message,
    }
}

fn missing_rule(rule: &Rule) -> Difference {
    Difference { name: format!("rule `{rule}`"), destination: None, expected: "there".into(), found: "gone".into() }
}

fn not_repaired(finding: &Finding) -> Difference {
    Difference {
        name: format!("{} of {}", finding.prefix, finding.tunnel),
        destination: Some(finding.destination),
        expected: finding.expected.device.clone(),
        found: finding.actual.device.clone().unwrap_or_else(|| "unreachable".into()),
    }
}
