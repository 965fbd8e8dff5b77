//! The confirmation of a repair on live lookups and packets.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::repair::Repair;
use crate::commands::assess::netlink_failure;
use crate::commands::attach;
use crate::commands::failure::Failure;
use crate::commands::known::known;
use crate::commands::signals::Signals;
use crate::core::confirm::{self, Confirmation, Evidence, Probed, RungName, Service};
use crate::core::destination::Destination;
use crate::core::finding::{Note, NoteId};
use crate::core::judge::Judgement;
use crate::core::live::View;
use crate::core::model::Snapshot;
use crate::core::observation::Totals;
use crate::core::report::fix::FixReport;
use crate::core::verify::{self, Bgp, Known};
use crate::system::probe::Probe;
use crate::system::{bgp, sockets, xfrm};

/// What was on its way at the change has left after this.
const SETTLING: Duration = Duration::from_millis(200);
/// How long packets are watched after that before the repair may be called confirmed.
const WATCHING: Duration = Duration::from_millis(1000);
/// How long a peer's answer is waited for beyond that; it is reported, not required.
const ANSWER: Duration = Duration::from_millis(3000);
/// Between two looks at the counts.
const TICK: Duration = Duration::from_millis(100);
/// Between two questions to BGP's daemon: each may start a program.
const ASKING: Duration = Duration::from_millis(1500);

/// When the kernel had acknowledged the last rule, and what was counted by then.
pub(super) struct Moment {
    pub(super) changed: Instant,
    pub(super) at_change: Totals,
    /// What the tunnels' SAs had encrypted by then.
    pub(super) encrypted: Known<BTreeMap<u32, u64>>,
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
        let ask = || (known(bgp::neighbours()), Instant::now());
        let mut bgp = ask();
        loop {
            let waited = moment.changed.elapsed();
            if bgp.1.elapsed() >= ASKING {
                bgp = ask();
            }
            let service = self.service(moment, &bgp.0);
            *confirmations = self.climb(&moment.at_change, &settled, judgement, &service).await?;
            let all = confirmations.iter().all(Confirmation::confirmed);
            let waiting_helps = confirmations.iter().any(Confirmation::may_still_rise);
            let answered = confirmations.iter().all(|confirmation| !self.awaits_answer(confirmation));
            // BGP tries again in its own time: as long as it is waited for at all, it is worth the wait.
            let bgp_is_up = !confirmations.iter().any(|confirmation| confirmation.awaits(RungName::BgpEstablished));
            let enough = waited >= SETTLING + WATCHING && all && bgp_is_up && (answered || waited >= ANSWER);
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
        self.probe.is_some() && confirmation.awaits(RungName::PeerAnswered)
    }

    fn service(&self, moment: &Moment, bgp: &Known<Bgp>) -> Service {
        Service {
            encrypted_before: moment.encrypted.clone(),
            encrypted_now: self.encrypted(),
            sockets: known(sockets::tcp()),
            bgp: bgp.clone(),
        }
    }

    /// What the outbound SAs of the tunnels have encrypted so far.
    pub(super) fn encrypted(&self) -> Known<BTreeMap<u32, u64>> {
        let (policies, associations) = (known(xfrm::policies())?, known(xfrm::associations())?);
        Ok(verify::encrypted(&self.host.snapshot, &self.host.tunnels, &policies, &associations))
    }

    async fn climb(
        &self,
        at_change: &Totals,
        settled: &Totals,
        judgement: &Judgement,
        service: &Service,
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
            service,
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
