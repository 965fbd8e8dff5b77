//! The confirmation of a repair on live lookups and packets.

use std::time::{Duration, Instant};

use super::repair::Repair;
use crate::commands::assess::netlink_failure;
use crate::commands::attach;
use crate::commands::failure::Failure;
use crate::commands::signals::Signals;
use crate::core::confirm::{self, Confirmation, Evidence, Probed};
use crate::core::destination::Destination;
use crate::core::finding::{Note, NoteId};
use crate::core::judge::Judgement;
use crate::core::live::{Others, View};
use crate::core::model::Snapshot;
use crate::core::observation::Totals;
use crate::core::report::fix::FixReport;
use crate::system::probe::Probe;

/// What was on its way at the change has left after this.
const SETTLING: Duration = Duration::from_millis(200);
/// How long packets are watched after that before the repair may be called confirmed.
const WATCHING: Duration = Duration::from_millis(1000);
/// How long a peer's answer is waited for beyond that; it is reported, not required.
const ANSWER: Duration = Duration::from_millis(3000);
/// Between two looks at the counts.
const TICK: Duration = Duration::from_millis(100);

/// When the kernel had acknowledged the last rule, and what was counted by then.
pub(super) struct Moment {
    pub(super) changed: Instant,
    pub(super) at_change: Totals,
}

impl Repair<'_> {
    /// Watches live packets until every required rung is confirmed, the time is over, or a signal ends it. The report
    /// has what was confirmed so far at any time. False if it did not come to its end.
    pub(super) async fn confirm(
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
            view: View {
                snapshot: &after,
                watches: &self.watches,
                knows_outcomes: self.tracer.knows_outcomes(),
                others: &Others::default(),
            },
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
}

pub(super) fn after_change(failure: &Failure) -> Note {
    Note { id: NoteId::AfterChange, text: format!("the rules stay, but the confirmation failed: {}", failure.message) }
}
