//! The confirmation of a repair on live lookups and packets.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::repair::promised;
use crate::commands::assess::{Access, Host, netlink_failure};
use crate::commands::attach;
use crate::commands::failure::Failure;
use crate::commands::known::known;
use crate::commands::signals::Signals;
use crate::core::confirm::{self, Confirmation, Evidence, Probed, RungName, Service};
use crate::core::destination::Destination;
use crate::core::finding::{Note, NoteId};
use crate::core::live::{Others, View, Watch};
use crate::core::model::Snapshot;
use crate::core::observation::Totals;
use crate::core::plan::Plan;
use crate::core::report::fix::FixReport;
use crate::core::verify::{self, Bgp, Known, NotKnown};
use crate::system::bpf::Tracer;
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

/// The confirmation of a change, looked at again and again.
pub(in crate::commands) struct Ladder {
    pub(super) host: Host,
    pub(super) plan: Plan,
    /// For each destination: does the kernel answer rightly?
    pub(super) right: Vec<bool>,
    pub(super) watches: Vec<Watch>,
    pub(super) moment: Moment,
    /// What was counted when the change had settled.
    pub(super) settled: Option<Totals>,
    pub(super) probe: Option<Probe>,
    pub(super) wait: Duration,
    pub(super) daemons: Daemons,
}

/// What one look at the ladder shows.
pub(in crate::commands) struct Look {
    /// The ladder of each destination; none before the change has settled.
    pub(in crate::commands) confirmations: Vec<Confirmation>,
    /// Looking on is of no use: all is confirmed, nothing more can be, or the time is over.
    pub(in crate::commands) over: bool,
}

impl Ladder {
    /// Watches live packets until every required rung is confirmed, the time is over, or a signal ends it. The report
    /// has what was confirmed so far at any time. False if it did not come to its end.
    pub(super) async fn climb_all(
        &mut self,
        access: &Access,
        tracer: &mut Tracer,
        report: &mut FixReport,
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
            watched = self.watch(access, tracer, &mut report.confirmations) => {
                report.notes.extend(watched.as_ref().err().map(after_change));
                watched.is_ok()
            }
        }
    }

    async fn watch(
        &mut self,
        access: &Access,
        tracer: &mut Tracer,
        confirmations: &mut Vec<Confirmation>,
    ) -> Result<(), Failure> {
        tokio::time::sleep(SETTLING.saturating_sub(self.moment.changed.elapsed())).await;
        loop {
            let look = self.look(access, tracer).await?;
            *confirmations = look.confirmations;
            if look.over {
                return Ok(());
            }
            tokio::time::sleep(TICK).await;
            // The ring buffer's events are not needed here, but a full one would count as loss.
            let mut events = Vec::new();
            tracer.drain(&mut events).map_err(|error| attach::bpf_failure("read the kernel's events", &error))?;
        }
    }

    /// When to look again.
    pub(in crate::commands) fn next_look(&self) -> Instant {
        let settled = self.moment.changed + SETTLING;
        settled.max(Instant::now() + TICK)
    }

    /// Looks how far up the ladder things have come.
    ///
    /// # Errors
    /// Netlink, or the kernel's counts.
    pub(in crate::commands) async fn look(&mut self, access: &Access, tracer: &Tracer) -> Result<Look, Failure> {
        let waited = self.moment.changed.elapsed();
        if waited < SETTLING {
            return Ok(Look { confirmations: Vec::new(), over: false });
        }
        let settled = match self.settled.take() {
            Some(settled) => settled,
            None => attach::totals(tracer)?,
        };
        let service = self.service();
        let confirmations = self.climb(access, tracer, &settled, &service).await;
        self.settled = Some(settled);
        let confirmations = confirmations?;
        let all = confirmations.iter().all(Confirmation::confirmed);
        let waiting_helps = confirmations.iter().any(Confirmation::may_still_rise);
        let answered = confirmations.iter().all(|confirmation| !self.awaits_answer(confirmation));
        // BGP tries again in its own time: as long as it is waited for at all, it is worth the wait.
        let bgp_is_up = !confirmations.iter().any(|confirmation| confirmation.awaits(RungName::BgpEstablished));
        let enough = waited >= SETTLING + WATCHING && all && bgp_is_up && (answered || waited >= ANSWER);
        let hopeless = waited >= SETTLING + WATCHING && !all && !waiting_helps;
        let over = enough || hopeless || waited >= self.wait.max(SETTLING + WATCHING);
        Ok(Look { confirmations, over })
    }

    fn awaits_answer(&self, confirmation: &Confirmation) -> bool {
        self.probe.is_some() && confirmation.awaits(RungName::PeerAnswered)
    }

    fn service(&mut self) -> Service {
        Service {
            // Asked first, for that takes its time: a session that the daemon calls up has its connection among the sockets.
            bgp: self.daemons.bgp(),
            encrypted_before: self.moment.encrypted.clone(),
            encrypted_now: encrypted(&self.host),
            sockets: known(sockets::tcp()),
        }
    }

    async fn climb(
        &self,
        access: &Access,
        tracer: &Tracer,
        settled: &Totals,
        service: &Service,
    ) -> Result<Vec<Confirmation>, Failure> {
        let links = access.netlink.links().await.map_err(|error| netlink_failure("read the links", &error))?;
        let rules = access.netlink.rules().await.map_err(|error| netlink_failure("read the rules", &error))?;
        let after = Snapshot { links, rules, ..self.host.snapshot.clone() };
        let now = attach::totals(tracer)?;
        let evidence = Evidence {
            view: View {
                snapshot: &after,
                watches: &self.watches,
                knows_outcomes: tracer.knows_outcomes(),
                others: &Others::default(),
            },
            at_change: &self.moment.at_change,
            settled,
            now: &now,
            before: &self.host.snapshot,
            after: &after,
            probes: &self.probed(),
            service,
        };
        let ladder = |(index, destination): (usize, &Destination)| {
            let watch = self.watches.iter().position(|watch| watch.prefix == destination.prefix)?;
            let right = self.right.get(index).copied().unwrap_or(false);
            Some(confirm::confirm(evidence, u32::try_from(watch).ok()?, destination, right))
        };
        Ok(promised(&self.host, &self.plan).filter_map(ladder).collect())
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

/// What the outbound SAs of the tunnels have encrypted so far.
pub(super) fn encrypted(host: &Host) -> Known<BTreeMap<u32, u64>> {
    let (policies, associations) = (known(xfrm::policies())?, known(xfrm::associations())?);
    Ok(verify::encrypted(&host.snapshot, &host.tunnels, &policies, &associations))
}

/// BGP's daemon, if it may be asked. That may start a program and wait for it, which a loop that must react at once cannot.
pub(in crate::commands) enum Daemons {
    /// It is not.
    NotAsked,
    /// It is, from time to time; its last answer.
    Asked(Option<(Known<Bgp>, Instant)>),
}

impl Daemons {
    fn bgp(&mut self) -> Known<Bgp> {
        let Self::Asked(last) = self else {
            return Err(NotKnown("its daemon is not asked while vpnfix watches".into()));
        };
        let answer = last.take().filter(|(_, asked)| asked.elapsed() < ASKING);
        let (bgp, asked) = answer.unwrap_or_else(|| (known(bgp::neighbours()), Instant::now()));
        *last = Some((bgp.clone(), asked));
        bgp
    }
}

pub(super) fn after_change(failure: &Failure) -> Note {
    Note { id: NoteId::AfterChange, text: format!("the rules stay, but the confirmation failed: {}", failure.message) }
}
