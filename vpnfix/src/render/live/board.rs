//! What there is to see at one moment, with rates from the moment before.

use std::collections::HashMap;

use crate::core::report::flow::{Fate, StoryReport};

/// What was seen at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Glance {
    /// The host's name.
    pub host: String,
    /// Wall-clock time, RFC 3339, UTC.
    pub time: String,
    /// Seconds since the trace began.
    pub seconds: f64,
    /// Lookups so far.
    pub lookups: u64,
    /// Packets handed to devices so far.
    pub packets: u64,
    /// Events and counts that were lost.
    pub lost: u64,
    /// The flows, without their walks.
    pub flows: Vec<StoryReport>,
    /// The tunnels.
    pub tunnels: Vec<TunnelRow>,
    /// BGP's sessions.
    pub sessions: Vec<SessionRow>,
}

/// A tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TunnelRow {
    /// Name.
    pub name: String,
    /// Administratively up.
    pub up: bool,
    /// Packets sent, by the device's own count.
    pub sent: u64,
    /// Packets received.
    pub received: u64,
    /// Packets that could not be sent, errors and drops.
    pub errors: u64,
    /// Its security association in words: `0xc1a00001 took 12` packets since the
    /// trace began; `none` or a dash.
    pub association: String,
}

/// A BGP session, by its TCP connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionRow {
    /// Both ends.
    pub flow: String,
    /// TCP's state.
    pub state: String,
    /// Segments sent again.
    pub retransmissions: u64,
}

/// A moment with rates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Board {
    /// What was seen.
    pub now: Glance,
    /// Lookups a second.
    pub lookup_rate: f64,
    /// Packets a second.
    pub packet_rate: f64,
    /// Packets a second of each flow, by its number.
    pub flow_rates: HashMap<u32, f64>,
}

impl Board {
    /// The next moment.
    #[must_use]
    pub fn next(before: Option<&Self>, now: Glance) -> Self {
        let nothing = Glance::default();
        let before = before.map_or(&nothing, |board| &board.now);
        let seconds = now.seconds - before.seconds;
        let rate = |now: u64, before: u64| {
            // Counts of a second never come near the limits of a double.
            #[expect(clippy::cast_precision_loss, reason = "a rate is told in three digits")]
            let grown = now.saturating_sub(before) as f64;
            if seconds > 0.0 { grown / seconds } else { 0.0 }
        };
        let earlier: HashMap<u32, u64> = before.flows.iter().map(|flow| (flow.flow_id, packets(flow))).collect();
        let flow_rates = now
            .flows
            .iter()
            .map(|flow| (flow.flow_id, rate(packets(flow), earlier.get(&flow.flow_id).copied().unwrap_or(0))))
            .collect();
        Self {
            lookup_rate: rate(now.lookups, before.lookups),
            packet_rate: rate(now.packets, before.packets),
            flow_rates,
            now,
        }
    }

    /// How many flows have this fate.
    #[must_use]
    pub fn count(&self, fate: Fate) -> usize {
        self.now.flows.iter().filter(|flow| flow.fate == fate).count()
    }

    /// Packets a second of a flow.
    #[must_use]
    pub fn rate(&self, flow: &StoryReport) -> f64 {
        self.flow_rates.get(&flow.flow_id).copied().unwrap_or(0.0)
    }
}

/// Packets of a flow that were handed to devices.
#[must_use]
pub fn packets(flow: &StoryReport) -> u64 {
    flow.egress.iter().map(|egress| egress.packets).sum()
}
