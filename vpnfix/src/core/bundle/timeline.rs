//! What happened when: packets by device in equal steps, BGP's states, and the moments of the change.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Name of the schema.
pub const SCHEMA: &str = "vpnfix.timeline/1";
/// More samples are put together by twos.
const MOST_SAMPLES: usize = 1200;
/// More changes of BGP's state are not kept.
const MOST_SPANS: usize = 512;

/// What happened when. All times count from `began`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Timeline {
    /// Always `vpnfix.timeline/1`.
    pub schema: String,
    /// When it began, RFC 3339, UTC.
    pub began: String,
    /// How long it is, milliseconds.
    pub length_ms: u64,
    /// What left by which device, in order.
    pub samples: Vec<Sample>,
    /// Moments worth a mark.
    pub marks: Vec<Mark>,
    /// BGP's states, in the order of their beginning.
    pub bgp: Vec<BgpSpan>,
}

/// What was handed to devices since the sample before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    /// The end of this step.
    pub at_ms: u64,
    /// By device and side; what sent nothing is left out.
    pub egress: Vec<Egress>,
}

/// Packets by one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Egress {
    /// The device.
    pub device: String,
    /// Did they belong there?
    pub side: Side,
    /// How many.
    pub packets: u64,
    /// Their bytes from the network header on.
    pub bytes: u64,
}

/// Did packets leave by the device that they belong to?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// By their tunnel.
    Right,
    /// By another device.
    Misrouted,
}

/// A moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Mark {
    /// When.
    pub at_ms: u64,
    /// What.
    pub what: MarkKind,
    /// In words.
    pub text: String,
}

/// What a mark stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MarkKind {
    /// The repair began to look at the host.
    RepairBegan,
    /// The kernel had acknowledged a rule.
    RuleAdded,
    /// The repair came to its end.
    RepairEnded,
    /// The command was started.
    CommandBegan,
    /// The command ended.
    CommandEnded,
}

/// A state of BGP with one peer, for some time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BgpSpan {
    /// Address of the peer.
    pub peer: String,
    /// Who says so.
    pub by: BgpSource,
    /// The state's name: of RFC 4271, or of TCP (RFC 9293).
    pub state: String,
    /// The session (or its connection) is up.
    pub up: bool,
    /// From.
    pub from_ms: u64,
    /// To.
    pub to_ms: u64,
}

/// Who tells a state of BGP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BgpSource {
    /// Its daemon: the session.
    Daemon,
    /// The kernel: the TCP connection at port 179.
    Tcp,
}

/// Milliseconds from one time to another, both RFC 3339; 0 where the second comes first.
#[must_use]
pub fn milliseconds_between(began: &str, time: &str) -> Option<u64> {
    let parse = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    let distance = (parse(time)? - parse(began)?).whole_milliseconds();
    Some(u64::try_from(distance).unwrap_or(0))
}

/// Counts of one device and side so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SoFar {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Makes a timeline of counts that only grow.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    timeline: Timeline,
    last: BTreeMap<(String, Side), SoFar>,
}

impl Recorder {
    /// One that begins at this time (RFC 3339, UTC).
    #[must_use]
    pub fn new(began: String) -> Self {
        let timeline = Timeline { schema: SCHEMA.into(), began, ..Timeline::default() };
        Self { timeline, last: BTreeMap::new() }
    }

    /// Takes the counts so far.
    pub fn sample(&mut self, at_ms: u64, counts: BTreeMap<(String, Side), SoFar>) {
        let mut egress = Vec::new();
        for ((device, side), now) in &counts {
            let before = self.last.get(&(device.clone(), *side)).copied().unwrap_or_default();
            let (packets, bytes) = (now.packets.saturating_sub(before.packets), now.bytes.saturating_sub(before.bytes));
            if packets > 0 {
                egress.push(Egress { device: device.clone(), side: *side, packets, bytes });
            }
        }
        self.last = counts;
        self.timeline.samples.push(Sample { at_ms, egress });
        if self.timeline.samples.len() > MOST_SAMPLES {
            self.timeline.samples = self.timeline.samples.chunks(2).filter_map(together).collect();
        }
        self.timeline.length_ms = self.timeline.length_ms.max(at_ms);
    }

    /// Marks a moment.
    pub fn mark(&mut self, at_ms: u64, what: MarkKind, text: impl Into<String>) {
        self.timeline.marks.push(Mark { at_ms, what, text: text.into() });
    }

    /// Takes BGP's state with a peer: a new span where it differs from the one before.
    pub fn bgp(&mut self, at_ms: u64, peer: &str, by: BgpSource, state: &str, up: bool) {
        let spans = &mut self.timeline.bgp;
        if let Some(span) = spans.iter_mut().rev().find(|span| span.peer == peer && span.by == by) {
            span.to_ms = span.to_ms.max(at_ms);
            if span.state == state {
                return;
            }
        }
        if spans.len() < MOST_SPANS {
            let (peer, state) = (peer.to_string(), state.to_string());
            spans.push(BgpSpan { peer, by, state, up, from_ms: at_ms, to_ms: at_ms });
        }
    }

    /// The timeline up to this moment. A state of BGP lasts until the next one of its peer.
    #[must_use]
    pub fn end(mut self, at_ms: u64) -> Timeline {
        self.timeline.length_ms = self.timeline.length_ms.max(at_ms);
        let mut open: BTreeMap<(String, BgpSource), usize> = BTreeMap::new();
        for (index, span) in self.timeline.bgp.iter().enumerate() {
            open.insert((span.peer.clone(), span.by), index);
        }
        for index in open.into_values() {
            if let Some(span) = self.timeline.bgp.get_mut(index) {
                span.to_ms = self.timeline.length_ms;
            }
        }
        self.timeline.marks.sort_by_key(|mark| mark.at_ms);
        self.timeline
    }
}

impl SoFar {
    /// Adds packets and their bytes.
    pub fn add(&mut self, packets: u64, bytes: u64) {
        self.packets = self.packets.saturating_add(packets);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// What was handed to devices in these samples, by device and side.
fn sums(samples: &[Sample]) -> BTreeMap<(&str, Side), SoFar> {
    let mut sums: BTreeMap<(&str, Side), SoFar> = BTreeMap::new();
    for egress in samples.iter().flat_map(|sample| &sample.egress) {
        sums.entry((&egress.device, egress.side)).or_default().add(egress.packets, egress.bytes);
    }
    sums
}

/// Several samples as one.
fn together(samples: &[Sample]) -> Option<Sample> {
    let at_ms = samples.last()?.at_ms;
    let egress = |((device, side), sum): ((&str, Side), SoFar)| Egress {
        device: device.to_owned(),
        side,
        packets: sum.packets,
        bytes: sum.bytes,
    };
    Some(Sample { at_ms, egress: sums(samples).into_iter().map(egress).collect() })
}

impl Timeline {
    /// Packets and bytes by device and side.
    #[must_use]
    pub fn by_device(&self) -> BTreeMap<(&str, Side), SoFar> {
        sums(&self.samples)
    }

    /// Packets and bytes of one side, all devices together.
    #[must_use]
    pub fn sum(&self, side: Side) -> SoFar {
        let mut all = SoFar::default();
        for ((_, of), sum) in self.by_device() {
            if of == side {
                all.add(sum.packets, sum.bytes);
            }
        }
        all
    }

    /// Milliseconds for which the session with a peer (or, where no daemon told of it, its connection) was seen not to be
    /// up, and whether it was up at the end.
    #[must_use]
    pub fn downtime(&self, peer: &str) -> Option<(u64, bool)> {
        let of_peer = |by| self.bgp.iter().filter(move |span| span.peer == peer && span.by == by);
        let by = [BgpSource::Daemon, BgpSource::Tcp].into_iter().find(|by| of_peer(*by).next().is_some())?;
        let down = of_peer(by).filter(|span| !span.up).map(|span| span.to_ms.saturating_sub(span.from_ms));
        let down = down.fold(0_u64, u64::saturating_add);
        Some((down, of_peer(by).next_back().is_some_and(|span| span.up)))
    }

    /// The peers that it tells of, in order of their first state.
    #[must_use]
    pub fn peers(&self) -> Vec<&str> {
        let mut peers: Vec<&str> = Vec::new();
        for span in &self.bgp {
            if !peers.contains(&span.peer.as_str()) {
                peers.push(&span.peer);
            }
        }
        peers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(wrong: u64, right: u64) -> BTreeMap<(String, Side), SoFar> {
        let so_far = |packets| SoFar { packets, bytes: packets * 10 };
        [(("eth0".to_string(), Side::Misrouted), so_far(wrong)), (("vti1".to_string(), Side::Right), so_far(right))]
            .into()
    }

    #[test]
    fn samples_are_what_was_added_and_their_sum_is_all() {
        let mut recorder = Recorder::new("t".into());
        recorder.sample(500, counts(3, 0));
        recorder.sample(1000, counts(3, 0));
        recorder.sample(1500, counts(4, 7));
        let timeline = recorder.end(1600);
        assert_eq!(timeline.samples[1].egress, []);
        assert_eq!(timeline.samples[2].egress.len(), 2);
        assert_eq!(timeline.sum(Side::Misrouted), SoFar { packets: 4, bytes: 40 });
        assert_eq!(timeline.sum(Side::Right), SoFar { packets: 7, bytes: 70 });
        assert_eq!(timeline.length_ms, 1600);
    }

    #[test]
    fn a_long_timeline_is_bounded_and_keeps_its_sums() {
        let mut recorder = Recorder::new("t".into());
        for step in 0..10_000_u64 {
            recorder.sample(step * 500, counts(step * 2, step));
        }
        let timeline = recorder.end(0);
        assert!(timeline.samples.len() <= MOST_SAMPLES, "{}", timeline.samples.len());
        assert_eq!(timeline.sum(Side::Misrouted).packets, 9_999 * 2);
    }

    #[test]
    fn bgps_states_follow_each_other_and_the_daemons_word_counts() {
        let mut recorder = Recorder::new("t".into());
        recorder.bgp(0, "10.0.0.1", BgpSource::Daemon, "Connect", false);
        recorder.bgp(50, "10.0.0.1", BgpSource::Tcp, "ESTABLISHED", true);
        recorder.bgp(400, "10.0.0.1", BgpSource::Daemon, "Connect", false);
        recorder.bgp(900, "10.0.0.1", BgpSource::Daemon, "Established", true);
        let timeline = recorder.end(2000);
        assert_eq!(timeline.bgp.len(), 3);
        assert_eq!(timeline.downtime("10.0.0.1"), Some((900, true)));
        assert_eq!(timeline.downtime("10.0.0.2"), None);
        assert_eq!(timeline.bgp[2].to_ms, 2000);
    }
}
