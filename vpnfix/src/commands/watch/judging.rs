//! Judging the host anew, and what follows from it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::session::{Session, Woken, now};
use crate::action::lock::Lock;
use crate::commands::assess::{Controls, netlink_failure};
use crate::commands::failure::Failure;
use crate::commands::fix::make_plan;
use crate::commands::standing::Standing;
use crate::core::judge::Judgement;
use crate::core::model::Rule;
use crate::core::plan::Plan;
use crate::core::report::watch::{WatchLine, WithdrawnLine, WokenBy};
use crate::core::walk::Fib;
use crate::core::watch::{Event, Mode, TunnelState, Want, health};

/// A rule that stands for nothing is taken back after this: what BGP withdraws it often announces again.
pub(super) const GRACE: Duration = Duration::from_secs(60);

/// What was found, with what a repair needs.
pub(super) struct Found {
    pub(super) judgement: Judgement,
    pub(super) controls: Controls,
    pub(super) plan: Plan,
}

impl Session<'_> {
    /// Asks the kernel about everything, and repairs where that is wanted.
    pub(super) async fn judge(&mut self) -> Result<(), Failure> {
        let woken = self.woken.take().unwrap_or(Woken { by: WokenBy::Timer, at: Instant::now() });
        self.woken_now = Some(woken.by);
        let outcome = self.judge_for(woken).await;
        self.woken_now = None;
        outcome
    }

    async fn judge_for(&mut self, woken: Woken) -> Result<(), Failure> {
        self.check_hold();
        if let Some(associations) = &self.surroundings.now.associations {
            self.host.associations = Ok(associations.clone());
        }
        let begun = Instant::now();
        let host = self.host.again(self.access, &self.settings).await?;
        let read = begun.elapsed();
        let judgement = host.judge(self.access)?;
        let asked = begun.elapsed();
        self.host = host;
        // Who deleted the rules that the snapshot lacks has been told by now.
        self.eyes
            .monitor
            .drain(&mut self.eyes.changes)
            .map_err(|error| netlink_failure("listen for changes", &error))?;
        self.take_changes();
        self.adopt();
        if let Err(failure) = self.eyes.follow(&self.host) {
            self.teller.problem(failure.message);
        }
        let found = self.plan(judgement)?;
        tracing::debug!(?read, ?asked, planned = ?begun.elapsed(), waited = ?begun.duration_since(woken.at), "judged");
        let plan = found.as_ref().ok().map(|found| &found.plan);
        let judgement = found.as_ref().map_or_else(|judgement| judgement, |found| &found.judgement);
        let fib = Fib::new(&self.host.snapshot);
        let health = health(&fib, &self.host.tunnels, &self.host.destinations, judgement, plan, &self.ledger);
        let wrong: HashSet<String> =
            health.iter().filter(|health| health.wrong.is_some()).map(|health| health.tunnel.clone()).collect();
        self.teller.judged(self.host.destinations.len(), &judgement.findings);
        self.dismiss(&wrong);
        self.event(Event::Judged(health));
        self.end_needless_climb();
        self.tell_fight();
        if let Ok(found) = found
            && self.watcher.want(now()) == Want::Repair
        {
            self.repair(found, woken).await;
        }
        self.teller.settle(&self.watcher, self.climb.is_some());
        self.note_stale();
        Ok(())
    }

    /// What stands of ours now is answered for; what does not stand any more and was not told of is lost all the same.
    fn adopt(&mut self) {
        let missing = if self.first { Vec::new() } else { self.ledger.missing(&self.host.snapshot.rules) };
        self.first = false;
        for rule in missing {
            self.lost_rule(&rule, "somebody whose notification was lost".into());
        }
        self.ledger.adopt(&self.host.snapshot.rules);
    }

    /// The plan against what is wrong; the judgement alone where nothing is.
    fn plan(&self, judgement: Judgement) -> Result<Result<Found, Judgement>, Failure> {
        if !judgement.findings.iter().any(|finding| finding.reason.is_wrong_way()) {
            return Ok(Err(judgement));
        }
        let surroundings = self.surroundings.now.clone();
        let controls = self.host.controls_among(self.access, &judgement.findings, surroundings)?;
        match make_plan(&self.settings, &self.host, &judgement, &controls, self.options.wanted) {
            Ok(plan) => Ok(Ok(Found { judgement, controls, plan })),
            // No room for a rule, say: it is wrong, and nothing of ours cures it.
            Err(failure) => {
                tracing::debug!("{}", failure.message);
                Ok(Err(judgement))
            }
        }
    }

    /// What was seen to go elsewhere, though the kernel answers rightly about it, does so on purpose: a rule for its mark, a
    /// socket that is bound. It does not wake us again until something changes.
    fn dismiss(&mut self, wrong: &HashSet<String>) {
        for (watch, device) in std::mem::take(&mut self.eyes.unjudged) {
            let tunnel = self.eyes.tunnel_of(&self.host.snapshot, watch);
            if tunnel.is_none_or(|tunnel| !wrong.contains(&tunnel)) {
                self.eyes.dismissed.insert((watch, device));
            }
        }
    }

    /// A confirmation is of no use any more when no rule of ours is needed for any tunnel.
    fn end_needless_climb(&mut self) {
        let steered = |state| matches!(state, TunnelState::Unconfirmed | TunnelState::Repaired);
        if self.climb.is_some() && !self.watcher.states().any(|(_, state)| steered(state)) {
            self.finish_climb("the rules are not needed any more");
        }
    }

    fn prefixes(&self) -> HashSet<IpNet> {
        self.host.destinations.iter().map(|destination| destination.prefix).collect()
    }

    /// Rules for prefixes that are no tunnel's any more.
    fn note_stale(&mut self) {
        let stale: HashSet<Rule> = match self.options.mode {
            Mode::Fix if !self.watcher.is_held() => self.ledger.stale(&self.prefixes()).into_iter().collect(),
            _ => HashSet::new(),
        };
        self.stale = match self.stale.take() {
            _ if stale.is_empty() => None,
            Some((known, since)) if stale == known => Some((known, since)),
            _ => Some((stale, Instant::now())),
        };
    }

    /// Takes back rules that have stood for nothing for long enough.
    pub(super) async fn withdraw_stale(&mut self) {
        if self.stale.as_ref().is_none_or(|(_, since)| *since + GRACE > Instant::now()) || self.climb.is_some() {
            return;
        }
        self.stale = None;
        if let Err(failure) = self.withdraw().await {
            self.teller.problem(failure.message);
            self.wake(WokenBy::Timer);
        }
    }

    async fn withdraw(&mut self) -> Result<(), Failure> {
        let lock = Lock::take(self.access.netns.inode);
        let _lock = lock.map_err(|error| Failure::of("take rules back that are not needed any more", &error))?;
        self.check_hold();
        if self.watcher.is_held() {
            return Ok(());
        }
        let mut standing = Standing::read(self.access).await?;
        let rules = self.ledger.withdraw(&self.prefixes());
        let taken = standing.withdraw(&rules).await;
        for left in taken.told() {
            self.teller.problem(left);
        }
        let rules = taken.removed.iter().map(Rule::delete_command).collect();
        self.teller.line(WatchLine::Withdrawn(WithdrawnLine { time: self.teller.time(), rules }));
        Ok(())
    }
}
