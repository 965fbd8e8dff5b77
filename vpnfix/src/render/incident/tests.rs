use super::plot::{Size, svg};
use super::*;
use crate::core::bundle::timeline::{BgpSource, BgpSpan, Egress, Mark, MarkKind, Sample, Side, Timeline};
use crate::core::report::incident::IncidentReport;
use crate::core::report::watch::{Incident, WokenBy};
use crate::render::Palette;

fn timeline() -> Timeline {
    let egress = |device: &str, side, packets| Egress { device: device.into(), side, packets, bytes: packets * 100 };
    Timeline {
        schema: "vpnfix.timeline/1".into(),
        began: "2026-01-01T00:00:00Z".into(),
        length_ms: 4000,
        samples: vec![
            Sample { at_ms: 1000, egress: vec![egress("ens5", Side::Misrouted, 10)] },
            Sample { at_ms: 2000, egress: vec![egress("ens5", Side::Misrouted, 5)] },
            Sample { at_ms: 3000, egress: vec![egress("vti1", Side::Right, 20)] },
            Sample { at_ms: 4000, egress: Vec::new() },
        ],
        marks: vec![Mark { at_ms: 2000, what: MarkKind::RuleAdded, text: "ip rule add …".into() }],
        bgp: vec![BgpSpan {
            peer: "169.254.55.53".into(),
            by: BgpSource::Tcp,
            state: "SYN-SENT".into(),
            up: false,
            from_ms: 0,
            to_ms: 2500,
        }],
    }
}

/// The points of each line that has this colour.
fn points(svg: &str, variable: &str) -> Vec<(f64, f64)> {
    let style = format!("style=\"stroke:var(--{variable})\"");
    let line = svg.split("<polyline").find(|element| element.contains(&style)).expect("no such line");
    let points = line.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("no points");
    let number = |text: &str| text.parse().expect("a number");
    points
        .split_whitespace()
        .map(|point| point.split_once(',').expect("a point"))
        .map(|(x, y)| (number(x), number(y)))
        .collect()
}

#[test]
fn the_plot_says_what_the_timeline_says() {
    for size in [Size::Wide, Size::Narrow] {
        let svg = svg(&timeline(), size).unwrap();
        let (wrong, right) = (points(&svg, "wrong0"), points(&svg, "right0"));
        // Two points a step: 10, 5, 0, 0 packets a second, and 0, 0, 20, 0.
        let heights = |points: &[(f64, f64)]| points.iter().step_by(2).map(|point| point.1).collect::<Vec<_>>();
        let (wrong_heights, right_heights) = (heights(&wrong), heights(&right));
        let zero = wrong_heights[3];
        let per_packet = (zero - right_heights[2]) / 20.0;
        assert!(per_packet > 0.0);
        for (drawn, packets) in
            wrong_heights.iter().zip([10.0, 5.0, 0.0, 0.0]).chain(right_heights.iter().zip([0.0, 0.0, 20.0, 0.0]))
        {
            assert!((zero - drawn - packets * per_packet).abs() <= 1.0, "{packets}: {drawn} of {zero}");
        }
        let width = wrong[7].0 - wrong[0].0;
        assert!((wrong[1].0 - wrong[0].0 - width / 4.0).abs() <= 1.0, "steps are of equal width");
        let line = points(&svg, "mark");
        assert!((line[0].0 - wrong[0].0 - width / 2.0).abs() <= 1.0, "the change stands amid");
        // The band: from the left edge to 2.5 of 4 seconds.
        let band = svg.split("<rect").find(|element| element.contains("--down")).unwrap();
        let attribute = |name: &str| {
            let value = band.split(&format!(" {name}=\"")).nth(1).and_then(|rest| rest.split('"').next()).unwrap();
            value.parse::<f64>().unwrap()
        };
        assert!(
            (attribute("x") - wrong[0].0).abs() <= 1.0 && (attribute("width") - width * 2.5 / 4.0).abs() <= 2.0,
            "{band}"
        );
        assert!(!svg.contains("#D1"), "a fixed colour is left: {svg}");
    }
}

fn hostile() -> IncidentReport {
    let name = "<script>alert(1)</script>\u{1b}[2J\u{202e}|`x`&\"'](http://evil.example/)";
    let mut timeline = timeline();
    timeline.samples[0].egress[0].device = name.into();
    timeline.bgp[0].peer = name.into();
    timeline.bgp[0].state = name.into();
    let incident = Incident {
        schema: "vpnfix.incident/1".into(),
        version: "0".into(),
        began: name.into(),
        woken_by: WokenBy::Rule,
        host: crate::core::model::HostFacts { kernel: name.into(), hostname: name.into(), vendor: None },
        netns: crate::core::model::Netns { name: Some(name.into()), inode: 1 },
        findings: Vec::new(),
        states: Vec::new(),
        seconds: None,
        leaked_packets: 0,
        leaked_bytes: 0,
        repair: None,
    };
    let mut report = IncidentReport::of_incident(&incident);
    report.headline.text = name.into();
    report.timeline = Some(timeline);
    report.missing = vec![crate::core::bundle::manifest::Missing { file: name.into(), why: name.into() }];
    report
}

#[test]
fn no_name_is_markup_anywhere() {
    let report = hostile();
    let html = html(&report);
    assert!(!html.contains("<script"), "{html}");
    assert!(!html.contains("src=") && !html.contains("href="), "something is fetched");
    let markdown = markdown(&report);
    assert!(!markdown.contains("<script") && !markdown.replace("\\]", "").contains("](http"), "{markdown}");
    for text in [html, markdown, text(&report, Palette::new(false))] {
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text}");
    }
}

#[test]
fn absurd_timelines_are_not_drawn_and_do_no_harm() {
    let mut absurd = timeline();
    absurd.length_ms = u64::MAX;
    assert_eq!(svg(&absurd, Size::Wide), None);
    let mut absurd = timeline();
    absurd.samples[0].egress[0].packets = u64::MAX;
    assert_eq!(svg(&absurd, Size::Wide), None);
    let mut backwards = timeline();
    backwards.samples.reverse();
    backwards.bgp[0].from_ms = u64::MAX;
    assert!(svg(&backwards, Size::Narrow).is_some());
    assert!(svg(&Timeline::default(), Size::Wide).is_some());
}
