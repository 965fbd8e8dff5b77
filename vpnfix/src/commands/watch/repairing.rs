//! A repair, by the same steps as `fix`: lock, look again, plan, journal, apply, check; then the confirmation, while the loop
//! goes on.

use std::time::{Duration, Instant};

use super::clues;
use super::judging::Found;
use super::session::{Climb, Session, Woken, now};
use crate::action::lock::{Lock, LockError};
use crate::commands::failure::Failure;
use crate::commands::fix::confirmation::Daemons;
use crate::commands::fix::repair::{Repair, conclude, prepare_probe};
use crate::commands::fix::{blank, refusal};
use crate::commands::standing::Standing;
use crate::core::confirm::Confirmation;
use crate::core::report::Outcome;
use crate::core::report::fix::FixReport;
use crate::core::report::watch::{FightLine, RepairOutcome, WatchLine, WokenBy};
use crate::core::watch::{Event, RepairEnd, TunnelState};

/// Another vpnfix is changing rules: it is looked again after this.
const BUSY: Duration = Duration::from_millis(100);

/// What a repair came to.
enum End {
    /// The rules stand.
    Stands(Box<Climb>, usize, Instant),
    /// Nothing stands; the report has why, where there was a change.
    Nothing(RepairOutcome, String, Option<Box<FixReport>>),
    /// It is to be judged anew first.
    NotNow,
}

impl Session<'_> {
    /// Repairs, if that is still right under the lock. What comes of it is told.
    pub(super) async fn repair(&mut self, found: Found, woken: Woken) {
        let lock = match Lock::take(self.access.netns.inode) {
            Ok(lock) => lock,
            Err(LockError::Held { .. }) => return self.later(woken, BUSY),
            Err(error) => {
                self.teller.problem(Failure::of("lock the namespace's rules", &error).message);
                return self.later(woken, BUSY * 10);
            }
        };
        let end = self.repair_locked(found, woken).await;
        drop(lock);
        match end {
            End::NotNow => {}
            End::Stands(climb, rules, changed) => {
                self.event(Event::RepairEnded(RepairEnd::Applied { rules }));
                let leak = self.count_leaks();
                let seconds = changed.saturating_duration_since(woken.at).as_secs_f64();
                tracing::debug!(seconds, "repaired");
                self.teller.applied(&climb.report, woken.by, seconds, leak);
                self.climb = Some(*climb);
                // Who is there may have changed; the next time it is known at once.
                self.host.clues = crate::system::clues::gather();
            }
            End::Nothing(outcome, why, report) => {
                self.event(Event::RepairEnded(RepairEnd::Failed(why.clone())));
                self.teller.not_repaired(outcome, why, woken.by, report.map(|report| *report));
                self.wake(WokenBy::Timer);
            }
        }
    }

    /// Judges again after a while, as if it had just been woken by the same.
    fn later(&mut self, woken: Woken, pause: Duration) {
        self.woken = Some(woken);
        self.not_before = Instant::now() + pause;
    }

    async fn repair_locked(&mut self, found: Found, woken: Woken) -> End {
        // An undo by hand may have had the lock before us.
        self.check_hold();
        let standing = match Standing::read(self.access).await {
            Ok(standing) => standing,
            Err(failure) => {
                self.teller.problem(failure.message);
                self.later(woken, BUSY * 10);
                return End::NotNow;
            }
        };
        if standing.found.interrupted {
            self.take_back_unfinished(standing, woken).await;
            return End::NotNow;
        }
        if standing.rules != self.host.snapshot.rules {
            // What was planned from has changed under others' hands.
            self.later(woken, Duration::ZERO);
            return End::NotNow;
        }
        let Some((_permit, told)) = self.watcher.begin(now()) else { return End::NotNow };
        tracing::debug!(since_woken = ?woken.at.elapsed(), "a repair begins");
        self.tell_transitions(told);
        self.apply(&standing, found).await
    }

    async fn take_back_unfinished(&mut self, mut standing: Standing<'_>, woken: Woken) {
        let doomed = standing.found.unfinished.clone();
        if let Err(failure) = standing.take_back_unfinished().await {
            self.teller.problem(failure.message);
            self.later(woken, BUSY * 10);
            return;
        }
        for rule in &doomed {
            self.ledger.lose(rule);
        }
        self.later(woken, Duration::ZERO);
    }

    async fn apply(&mut self, standing: &Standing<'_>, found: Found) -> End {
        let Found { judgement, controls, plan } = found;
        let mut report = blank(&self.host, &judgement, &plan, false);
        report.notes.extend(standing.notes(false));
        if let Some(why) = refusal(&self.host, &controls, &plan) {
            return End::Nothing(RepairOutcome::Refused, why, None);
        }
        let host = self.host.clone();
        let mut repair = Repair { access: self.access, host, before: judgement, controls, plan, probe: None };
        let applied = repair.apply(standing, &self.eyes.tracer, &mut report).await;
        let mut stands = match applied {
            Ok(Some(stands)) => stands,
            Ok(None) => {
                let why = report.rollback.as_ref().and_then(|rollback| rollback.differences.first());
                let why = why.map_or_else(String::new, |difference| {
                    format!("{}: expected {}, found {}", difference.name, difference.expected, difference.found)
                });
                return End::Nothing(RepairOutcome::RolledBack, why, Some(Box::new(report)));
            }
            Err(failure) => return End::Nothing(RepairOutcome::Refused, failure.message, None),
        };
        self.ledger.add(&stands.added);
        // Its thread is not started before the change: the repair matters more than its confirmation.
        match self.options.probe.then(|| prepare_probe(&repair.host, &repair.plan)) {
            None => {}
            Some(Ok(mut probe)) => {
                probe.begin();
                repair.probe = Some(probe);
            }
            Some(Err(failure)) => self.teller.problem(failure.message),
        }
        let (rules, changed) = (stands.added.len(), stands.changed);
        match repair.ladder(&mut stands, self.eyes.watches.clone(), self.options.wait, Daemons::NotAsked) {
            Ok(ladder) => {
                let next = ladder.next_look();
                End::Stands(Box::new(Climb { ladder, report, next }), rules, changed)
            }
            Err(failure) => End::Nothing(RepairOutcome::Unconfirmed, failure.message, Some(Box::new(report))),
        }
    }

    /// Looks how far the confirmation has come.
    pub(super) async fn look_at_climb(&mut self) {
        let Some(climb) = self.climb.as_mut().filter(|climb| climb.next <= Instant::now()) else { return };
        match climb.ladder.look(self.access, &self.eyes.tracer).await {
            Ok(look) if look.confirmations.is_empty() && !look.over => climb.next = climb.ladder.next_look(),
            Ok(look) => {
                climb.report.confirmations = look.confirmations;
                climb.next = climb.ladder.next_look();
                if look.over {
                    conclude(&mut climb.report);
                    self.end_of_climb(None);
                }
            }
            Err(failure) => self.end_of_climb(Some((RepairOutcome::Unconfirmed, failure.message))),
        }
    }

    /// Ends a confirmation before its time.
    pub(super) fn finish_climb(&mut self, why: &str) {
        if self.climb.is_some() {
            self.end_of_climb(Some((RepairOutcome::Overtaken, why.into())));
        }
    }

    fn end_of_climb(&mut self, early: Option<(RepairOutcome, String)>) {
        let Some(climb) = self.climb.take() else { return };
        let report = climb.report;
        let required = report.confirmations.iter().all(Confirmation::confirmed) && !report.confirmations.is_empty();
        let (outcome, why) = match early {
            Some((outcome, why)) => (outcome, Some(why)),
            None if required => (RepairOutcome::Confirmed, None),
            None => (RepairOutcome::Unconfirmed, Some(open_rungs(&report))),
        };
        self.teller.confirmations(&report.confirmations);
        match outcome {
            RepairOutcome::Confirmed => {
                self.event(Event::Confirmed("every required rung, on live packets".into()));
            }
            _ => {
                self.event(Event::NotConfirmed(why.clone().unwrap_or_default()));
            }
        }
        let leak = self.count_leaks();
        self.teller.ended(outcome, why, &report, leak);
        debug_assert!(report.outcome != Outcome::Ok || required);
        self.teller.settle(&self.watcher, false);
    }

    /// One loud finding, when it begins.
    pub(super) fn tell_fight(&mut self) {
        let fighting: Vec<String> = self
            .watcher
            .states()
            .filter(|(_, state)| *state == TunnelState::Fighting)
            .map(|(name, _)| name.to_string())
            .collect();
        let was = std::mem::replace(&mut self.teller.fighting, !fighting.is_empty());
        if was || fighting.is_empty() {
            return;
        }
        let (times, by) = self.watcher.losses();
        let by = by.unwrap_or("somebody").to_string();
        let remedy = clues::remedy(&by);
        let time = self.teller.time();
        self.teller.line(WatchLine::Fight(FightLine { time, tunnels: fighting, times, by, remedy }));
    }
}

/// The required rungs that are not confirmed, in words.
fn open_rungs(report: &FixReport) -> String {
    let open = report.confirmations.iter().find_map(|confirmation| {
        let rung = confirmation
            .rungs
            .iter()
            .find(|rung| rung.required && rung.state != crate::core::confirm::RungState::Confirmed)?;
        Some(format!("{}: {}", confirmation.prefix, rung.evidence))
    });
    open.unwrap_or_else(|| "nothing was seen that would confirm it".into())
}
