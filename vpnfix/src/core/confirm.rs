//! The ladder of confirmation: from the kernel's answer to the peer's (design §6).

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::destination::Destination;
use super::live::{Standing, View};
use super::model::{LinkCounters, Snapshot};
use super::observation::Totals;

mod service;

pub use service::Service;

/// One rung.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rung {
    /// 1 to 7.
    pub number: u8,
    /// What it asks.
    pub name: RungName,
    /// What was found.
    pub state: RungState,
    /// Without it the repair does not count as confirmed.
    pub required: bool,
    /// What that rests on.
    pub evidence: String,
}

/// What a rung asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RungName {
    /// Does the kernel resolve every question to the tunnel?
    KernelAnswer,
    /// Did a live lookup end there?
    LiveLookup,
    /// Was a packet handed to the tunnel's device without an error, and none to a wrong one?
    PacketOnTunnel,
    /// Did the bytes that the tunnel's SA encrypted rise?
    SaBytes,
    /// Did the peer answer?
    PeerAnswered,
    /// Has BGP its TCP connection with the peer?
    BgpConnection,
    /// Is the BGP session with the peer established, by the daemon's word?
    BgpEstablished,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RungState {
    /// Yes.
    Confirmed,
    /// No.
    Failed,
    /// Nothing that would tell.
    NotSeen,
    /// Not asked of this destination.
    NotApplicable,
}

/// The ladder of one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Confirmation {
    /// The prefix.
    #[schemars(with = "String")]
    pub prefix: IpNet,
    /// The address that stands for it.
    pub destination: IpAddr,
    /// Names of the tunnels it belongs to.
    pub tunnels: Vec<String>,
    /// The rungs, lowest first.
    pub rungs: Vec<Rung>,
}

impl Confirmation {
    /// Has this rung seen nothing so far, where there was something to see?
    #[must_use]
    pub fn awaits(&self, name: RungName) -> bool {
        self.rungs.iter().any(|rung| rung.name == name && rung.state == RungState::NotSeen)
    }

    /// Is every required rung confirmed?
    #[must_use]
    pub fn confirmed(&self) -> bool {
        self.rungs.iter().filter(|rung| rung.required).all(|rung| rung.state == RungState::Confirmed)
    }

    /// Is there a rung that waiting longer may still change?
    #[must_use]
    pub fn may_still_rise(&self) -> bool {
        self.rungs.iter().any(|rung| rung.required && rung.state == RungState::NotSeen)
    }
}

/// Everything that was seen since the change, for all destinations.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// What observations are judged against.
    pub view: View<'a>,
    /// Counts when the kernel had acknowledged the last rule.
    pub at_change: &'a Totals,
    /// Counts a settling time later: what was on its way has left by then.
    pub settled: &'a Totals,
    /// Counts now.
    pub now: &'a Totals,
    /// The host's state at the change, for the tunnels' error counters.
    pub before: &'a Snapshot,
    /// The host's state now.
    pub after: &'a Snapshot,
    /// What became of vpnfix's own echo requests.
    pub probes: &'a [Probed],
    /// What SAs, sockets and BGP's daemon tell.
    pub service: &'a Service,
}

/// What became of the echo requests to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// The peer.
    pub destination: IpAddr,
    /// Requests sent.
    pub sent: u64,
    /// Answers received.
    pub answered: u64,
    /// The last error of sending.
    pub error: Option<String>,
}

/// Climbs the ladder for one destination. `kernel_right` says whether the kernel now answers every question rightly.
#[must_use]
pub fn confirm(evidence: Evidence<'_>, index: u32, destination: &Destination, kernel_right: bool) -> Confirmation {
    let is_peer = destination.peer.is_some();
    let rungs = vec![
        kernel_answer(kernel_right),
        Rung { required: is_peer, ..live_lookup(evidence, index) },
        Rung { required: is_peer, ..packet_on_tunnel(evidence, index, destination) },
        service::sa_bytes(evidence, destination),
        peer_answered(evidence, destination, is_peer),
        service::bgp_connection(evidence, destination),
        service::bgp_established(evidence, destination),
    ];
    Confirmation {
        prefix: destination.prefix,
        destination: destination.address,
        tunnels: destination.tunnels.iter().map(|index| evidence.after.device_name(*index)).collect(),
        rungs,
    }
}

fn rung(number: u8, name: RungName, state: RungState, evidence: String) -> Rung {
    Rung { number, name, state, required: false, evidence }
}

fn kernel_answer(right: bool) -> Rung {
    let (state, evidence) = if right {
        (RungState::Confirmed, "every question to the kernel resolves to the tunnel")
    } else {
        (RungState::Failed, "the kernel still resolves a question elsewhere")
    };
    Rung { required: true, ..rung(1, RungName::KernelAnswer, state, evidence.into()) }
}

fn live_lookup(evidence: Evidence<'_>, index: u32) -> Rung {
    let count = |totals: &Totals, wanted: Standing| -> u64 {
        let of_watch = totals.lookups.iter().filter(|(key, _)| key.watch == index);
        of_watch.filter(|(key, _)| evidence.view.lookup(key) == wanted).map(|(_, tally)| tally.count).sum()
    };
    let right = count(evidence.now, Standing::Right).saturating_sub(count(evidence.at_change, Standing::Right));
    let wrong = count(evidence.now, Standing::Wrong).saturating_sub(count(evidence.settled, Standing::Wrong));
    let state = match (right, wrong) {
        (_, 1..) => RungState::Failed,
        (0, 0) => RungState::NotSeen,
        (1.., 0) => RungState::Confirmed,
    };
    rung(2, RungName::LiveLookup, state, format!("since the change {right} ended at the tunnel, {wrong} elsewhere"))
}

fn packet_on_tunnel(evidence: Evidence<'_>, index: u32, destination: &Destination) -> Rung {
    let count = |totals: &Totals, wanted: Standing| -> u64 {
        let of_watch = totals.packets.iter().filter(|(key, _)| key.watch == index);
        of_watch.filter(|(key, _)| evidence.view.packet(key) == wanted).map(|(_, tally)| tally.count).sum()
    };
    let right = count(evidence.now, Standing::Right).saturating_sub(count(evidence.at_change, Standing::Right));
    let wrong = count(evidence.now, Standing::Wrong).saturating_sub(count(evidence.settled, Standing::Wrong));
    let errors: u64 =
        destination.tunnels.iter().map(|tunnel| new_errors(evidence.before, evidence.after, *tunnel)).sum();
    let state = match (right, wrong, errors) {
        (_, 1.., _) | (_, _, 1..) => RungState::Failed,
        (0, 0, 0) => RungState::NotSeen,
        (1.., 0, 0) => RungState::Confirmed,
    };
    let told = format!(
        "since the change {right} handed to the tunnel, after settling {wrong} to a wrong device; \
         {errors} new errors on the tunnel"
    );
    rung(3, RungName::PacketOnTunnel, state, told)
}

fn new_errors(before: &Snapshot, after: &Snapshot, ifindex: u32) -> u64 {
    let errors = |snapshot: &Snapshot| {
        let counters = snapshot.link(ifindex).map_or_else(LinkCounters::default, |link| link.counters);
        counters.tx_errors + counters.tx_dropped + counters.tx_carrier_errors + counters.collisions
    };
    errors(after).saturating_sub(errors(before))
}

fn peer_answered(evidence: Evidence<'_>, destination: &Destination, is_peer: bool) -> Rung {
    let name = RungName::PeerAnswered;
    if !is_peer {
        return rung(5, name, RungState::NotApplicable, "only the tunnel's peer is asked".into());
    }
    let Some(probed) = evidence.probes.iter().find(|probed| probed.destination == destination.address) else {
        return rung(5, name, RungState::NotSeen, "no echo request was sent".into());
    };
    let told = format!("answered {} of {} echo requests", probed.answered, probed.sent);
    match (&probed.error, probed.answered) {
        (_, 1..) => rung(5, name, RungState::Confirmed, told),
        (Some(error), 0) => rung(5, name, RungState::Failed, format!("{told}; last error: {error}")),
        (None, 0) => rung(5, name, RungState::NotSeen, told),
    }
}
