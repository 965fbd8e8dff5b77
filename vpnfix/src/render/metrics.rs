//! The metrics of `watch`, as OpenMetrics text.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::core::confirm::Confirmation;
use crate::core::observation::Losses;
use crate::core::report::VERSION;
use crate::core::report::watch::RepairOutcome;
use crate::core::watch::TunnelState;

/// So many tunnels and programs have labels of their own; the rest is `other`.
const LABELS: usize = 64;
const OTHER: &str = "other";
/// From a tenth of a millisecond to ten seconds.
const TIME_BUCKETS: [f64; 13] = [0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfVersion {
    version: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfTunnel {
    tunnel: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfState {
    tunnel: String,
    state: Word,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfOutcome {
    outcome: Word,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfRung {
    rung: String,
    state: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfKind {
    kind: Word,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfProgram {
    by: String,
}

/// A word of a fixed list.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
struct Word(&'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.encode(encoder)
    }
}

/// All that `watch` counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    states: Family<OfState, Gauge>,
    tunnels: Vec<String>,
    lookups: Family<OfTunnel, Counter>,
    packets: Family<OfTunnel, Counter>,
    bytes: Family<OfTunnel, Counter>,
    repairs: Family<OfOutcome, Counter>,
    time_to_repair: Histogram,
    rungs: Family<OfRung, Counter>,
    lost: Family<OfKind, Gauge<i64>>,
    taken_away: Family<OfProgram, Counter>,
    programs: Vec<String>,
    held: Gauge,
    prefixes: Gauge,
    judgements: Counter,
    resyncs: Counter,
    incidents: Counter,
    last_judged: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Nothing is counted yet; what has a fixed list of labels is there with 0.
    #[must_use]
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("vpnfix"),
            states: Family::default(),
            tunnels: Vec::new(),
            lookups: Family::default(),
            packets: Family::default(),
            bytes: Family::default(),
            repairs: Family::default(),
            time_to_repair: Histogram::new(TIME_BUCKETS),
            rungs: Family::default(),
            lost: Family::default(),
            taken_away: Family::default(),
            programs: Vec::new(),
            held: Gauge::default(),
            prefixes: Gauge::default(),
            judgements: Counter::default(),
            resyncs: Counter::default(),
            incidents: Counter::default(),
            last_judged: Gauge::default(),
        };
        metrics.register();
        for outcome in RepairOutcome::ALL {
            metrics.repairs.get_or_create(&OfOutcome { outcome: Word(outcome.name()) }).inc_by(0);
        }
        metrics.losses(&Losses::default());
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        let build: Family<OfVersion, Gauge> = Family::default();
        build.get_or_create(&OfVersion { version: VERSION.into() }).set(1);
        registry.register("build_info", "1, with the version of vpnfix", build);
        registry.register("tunnel_state", "1 for the state that a tunnel is in", self.states.clone());
        registry.register("misrouted_lookups", "Route lookups that led elsewhere", self.lookups.clone());
        registry.register("misrouted_packets", "Packets handed to another device", self.packets.clone());
        let help = "Bytes of packets handed to another device, from the network header on";
        registry.register_with_unit("leaked", help, Unit::Bytes, self.bytes.clone());
        registry.register("repairs", "Repairs by what came of them", self.repairs.clone());
        let help = "From being woken to the kernel's acknowledgement of the last rule";
        registry.register_with_unit("time_to_repair", help, Unit::Seconds, self.time_to_repair.clone());
        registry.register("confirmation_rungs", "Rungs of confirmations by how they ended", self.rungs.clone());
        registry.register("lost_records", "Records of the kernel side that were lost", self.lost.clone());
        registry.register("rules_taken_away", "Rules of vpnfix's that others deleted", self.taken_away.clone());
        registry.register("held", "1 while an undo by hand holds the repairs", self.held.clone());
        registry.register("watched_prefixes", "Prefixes that are watched", self.prefixes.clone());
        registry.register("judgements", "How often the host was judged", self.judgements.clone());
        registry.register("resyncs", "How often notifications were lost", self.resyncs.clone());
        registry.register("incidents", "Incidents", self.incidents.clone());
        let help = "When the host was judged last, seconds since the Unix epoch";
        registry.register_with_unit("last_judgement_timestamp", help, Unit::Seconds, self.last_judged.clone());
    }

    /// The state of every tunnel.
    pub fn states<'a>(&mut self, states: impl Iterator<Item = (&'a str, TunnelState)>) {
        self.states.clear();
        for (tunnel, now) in states {
            let tunnel = label(&mut self.tunnels, tunnel);
            for state in TunnelState::ALL {
                let labels = OfState { tunnel: tunnel.clone(), state: Word(state.name()) };
                self.states.get_or_create(&labels).inc_by(i64::from(state == now));
            }
        }
    }

    /// Lookups, packets and their bytes that went wrong since the last call.
    pub fn misrouted(&mut self, tunnel: &str, lookups: u64, packets: u64, bytes: u64) {
        let labels = OfTunnel { tunnel: label(&mut self.tunnels, tunnel) };
        self.lookups.get_or_create(&labels).inc_by(lookups);
        self.packets.get_or_create(&labels).inc_by(packets);
        self.bytes.get_or_create(&labels).inc_by(bytes);
    }

    /// A repair, and how long it took.
    pub fn repair(&mut self, outcome: RepairOutcome, seconds: Option<f64>) {
        self.repairs.get_or_create(&OfOutcome { outcome: Word(outcome.name()) }).inc();
        if let Some(seconds) = seconds {
            self.time_to_repair.observe(seconds);
        }
    }

    /// A confirmation that has come to its end.
    pub fn confirmations(&mut self, confirmations: &[Confirmation]) {
        for rung in confirmations.iter().flat_map(|confirmation| &confirmation.rungs) {
            let word = |value: serde_json::Result<serde_json::Value>| {
                value.ok().and_then(|value| value.as_str().map(String::from)).unwrap_or_else(|| OTHER.into())
            };
            let labels =
                OfRung { rung: word(serde_json::to_value(rung.name)), state: word(serde_json::to_value(rung.state)) };
            self.rungs.get_or_create(&labels).inc();
        }
    }

    /// What the kernel side has lost so far.
    pub fn losses(&mut self, losses: &Losses) {
        let kinds = [
            ("events", losses.events_lost),
            ("lookups", losses.lookups_uncounted),
            ("packets", losses.packets_uncounted),
            ("destinations", losses.destinations_uncounted),
            ("outcomes", losses.outcomes_untracked),
            ("unreadable", losses.unreadable_packets),
            ("undecodable", losses.undecodable_records),
        ];
        for (kind, count) in kinds {
            self.lost.get_or_create(&OfKind { kind: Word(kind) }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A rule was deleted by this program.
    pub fn taken_away(&mut self, by: &str) {
        let labels = OfProgram { by: label(&mut self.programs, by) };
        self.taken_away.get_or_create(&labels).inc();
    }

    /// An undo by hand holds the repairs, or not.
    pub fn held(&mut self, held: bool) {
        self.held.set(i64::from(held));
    }

    /// The host was judged, at this time, with so many prefixes.
    pub fn judged(&mut self, unix_seconds: f64, prefixes: usize) {
        self.judgements.inc();
        self.last_judged.set(unix_seconds);
        self.prefixes.set(i64::try_from(prefixes).unwrap_or(i64::MAX));
    }

    /// Notifications were lost.
    pub fn resynced(&mut self) {
        self.resyncs.inc();
    }

    /// An incident has begun.
    pub fn incident(&mut self) {
        self.incidents.inc();
    }

    /// Incidents, applied repairs, judgements and resyncs so far.
    #[must_use]
    pub fn counts(&self) -> [u64; 4] {
        let applied = OfOutcome { outcome: Word(RepairOutcome::Applied.name()) };
        let repairs = self.repairs.get_or_create(&applied).get();
        [self.incidents.get(), repairs, self.judgements.get(), self.resyncs.get()]
    }

    /// The text that a scraper reads.
    ///
    /// # Errors
    /// None: text is written into memory.
    pub fn text(&self, form: Form) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(match form {
            Form::OpenMetrics => text,
            Form::Prometheus => older(&text),
        })
    }
}

/// The form of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// OpenMetrics 1.0, which Prometheus asks for.
    OpenMetrics,
    /// The text format that it had before (0.0.4), for what asks for nothing.
    Prometheus,
}

impl Form {
    /// The content type of an answer.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The older format: counters are named with their `_total`, and units and the end have no line.
fn older(text: &str) -> String {
    let counters: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut older = String::new();
    for line in text.lines().filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF") {
        let comment = ["# TYPE ", "# HELP "].into_iter().find_map(|start| Some((start, line.strip_prefix(start)?)));
        match comment.and_then(|(start, rest)| Some((start, rest.split_once(' ')?))) {
            Some((start, (name, rest))) if counters.contains(&name) => {
                older.push_str(&format!("{start}{name}_total {rest}\n"));
            }
            _ => older.push_str(&format!("{line}\n")),
        }
    }
    older
}

/// The label of a name: itself, as long as there are not too many.
fn label(known: &mut Vec<String>, name: &str) -> String {
    if known.iter().any(|other| other == name) {
        return name.into();
    }
    if known.len() >= LABELS {
        return OTHER.into();
    }
    known.push(name.into());
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_labels_are_bounded() {
        let mut metrics = Metrics::new();
        for number in 0..1000 {
            metrics.misrouted(&format!("t{number}"), 1, 2, 3);
            metrics.taken_away(&format!("program{number}"));
        }
        let text = metrics.text(Form::OpenMetrics).unwrap();
        assert!(text.ends_with("# EOF\n"));
        assert_eq!(text.matches("vpnfix_misrouted_packets_total{").count(), LABELS + 1);
        assert!(text.contains("vpnfix_misrouted_packets_total{tunnel=\"other\"} 1872\n"), "{text}");
        assert!(text.contains("vpnfix_rules_taken_away_total{by=\"other\"} 936\n"), "{text}");
    }

    #[test]
    fn the_older_format_names_counters_with_their_total() {
        let text = Metrics::new().text(Form::Prometheus).unwrap();
        assert!(text.contains("# TYPE vpnfix_repairs_total counter\nvpnfix_repairs_total{outcome="), "{text}");
        assert!(text.contains("# HELP vpnfix_repairs_total Repairs"), "{text}");
        assert!(!text.contains("# UNIT") && !text.contains("# EOF"), "{text}");
    }

    #[test]
    fn every_tunnel_is_in_one_state() {
        let mut metrics = Metrics::new();
        metrics.states([("vti1", TunnelState::Healthy), ("a\"b\n", TunnelState::Failed)].into_iter());
        metrics.states([("vti1", TunnelState::Misrouted)].into_iter());
        let text = metrics.text(Form::OpenMetrics).unwrap();
        let states: Vec<&str> = text.lines().filter(|line| line.starts_with("vpnfix_tunnel_state{")).collect();
        assert_eq!(states.len(), TunnelState::ALL.len());
        assert!(states.contains(&"vpnfix_tunnel_state{tunnel=\"vti1\",state=\"misrouted\"} 1"));
        assert_eq!(states.iter().filter(|line| line.ends_with(" 1")).count(), 1);
        assert!(text.contains("vpnfix_repairs_total{outcome=\"rolled-back\"} 0"));
    }
}
