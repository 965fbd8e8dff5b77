use super::*;
use crate::core::bundle::contents::Contents;
use crate::core::bundle::manifest::Manifest;
use crate::core::bundle::timeline::{Egress, Mark, MarkKind, Sample};

fn fact(report: &IncidentReport, topic: Topic) -> &[Told] {
    report.page.iter().find(|fact| fact.topic == topic).map(|fact| fact.lines.as_slice()).unwrap()
}

fn egress(side: Side, packets: u64) -> Vec<Egress> {
    vec![Egress { device: "d".into(), side, packets, bytes: packets }]
}

#[test]
fn an_empty_bundle_makes_a_report_that_claims_nothing() {
    let report = IncidentReport::of(&Contents::default());
    assert_eq!(report.headline.tone, Tone::Doubtful);
    assert_eq!(report.page.len(), 7);
    assert_eq!(fact(&report, Topic::Cost)[0].text, "No packets were watched.");
    for topic in [Topic::Wrong, Topic::Since, Topic::Why, Topic::Remains] {
        assert_eq!(fact(&report, topic)[0].tone, Tone::Doubtful, "{topic:?}");
    }
}

#[test]
fn an_interrupted_capture_says_so_first() {
    let manifest = Manifest::begun(HostFacts::default(), Netns::default(), "2026-01-01T00:00:00Z".into());
    let report = IncidentReport::of(&Contents { manifest: Some(manifest), ..Contents::default() });
    assert!(report.headline.text.starts_with("This capture was interrupted"), "{}", report.headline.text);
}

#[test]
fn only_steps_that_begin_behind_the_change_prove_anything() {
    let step = |at_ms, egress| Sample { at_ms, egress };
    let timeline = Timeline {
        length_ms: 2000,
        samples: vec![
            step(500, egress(Side::Misrouted, 5)),
            // The change is amid this one: what left wrongly in it may have left before.
            step(1000, egress(Side::Misrouted, 2)),
            step(1500, egress(Side::Right, 3)),
            step(2000, egress(Side::Right, 4)),
        ],
        marks: vec![Mark { at_ms: 700, what: MarkKind::RuleAdded, text: String::new() }],
        ..Timeline::default()
    };
    let report = IncidentReport::of(&Contents { timeline: Some(timeline), ..Contents::default() });
    let proof = fact(&report, Topic::Proof).last().unwrap();
    assert_eq!(proof.tone, Tone::Good);
    assert!(proof.text.contains("7 packets were seen to leave by the tunnels, 0 elsewhere"), "{}", proof.text);
    assert_eq!((report.cost.packets, report.cost.bytes), (7, 7));
}

#[test]
fn a_time_is_told_in_milliseconds() {
    assert_eq!(page::clock("2026-11-27T23:05:26.123456Z"), "2026-11-27 23:05:26.123 UTC");
    assert_eq!(page::clock("no time"), "no time");
}
