//! The same fault in IPv6: strongSwan installs its rule there too.

use std::process::Command;

use serde_json::Value;
use vpnfix_tests::scene::{Scene, WRONG_DEVICE};
use vpnfix_tests::trace::{Trace, Traced};
use vpnfix_tests::{ip, need_root};

const INSIDE: &str = "fd00:77::/126";
const PEER: &str = "fd00:77::1";
const BEHIND: &str = "2001:db8:77::/48";
const BEHIND_HOST: &str = "2001:db8:77::1";

/// A scene with one more tunnel, IPv6 inside. A veth pair stands for it on every kernel: IPv6 inside a VTI takes policies
/// of its own, which say nothing about routing.
fn scene() -> Scene {
    let scene = Scene::healthy();
    let far = scene.of("far1");
    scene.ip(&[
        &format!("link add Tun6 type veth peer name Tun6 netns {far}"),
        "addr add fd00:77::2/126 dev Tun6 nodad",
        "link set Tun6 up",
        "addr add 2001:db8:9::10/64 dev eth0 nodad",
        "neigh add 2001:db8:9::1 lladdr 02:00:00:09:00:01 nud permanent dev eth0",
        "route add ::/0 via 2001:db8:9::1 dev eth0",
        "route add 2001:db8:77::/48 via fd00:77::1 dev Tun6 proto bgp",
    ]);
    let far_lines =
        ["addr add fd00:77::1/126 dev Tun6 nodad", "link set Tun6 up", "addr add 2001:db8:77::1/128 dev lo"];
    ip::batch(Some(&far), &far_lines.map(String::from)).expect("the far end");
    scene
}

fn hijack(scene: &Scene) {
    scene.ip(&["route add ::/0 via 2001:db8:9::1 dev eth0 proto static table 220"]);
    // A batch has no way to say the family of a rule without addresses.
    ip::text(&["-6", "-n", &scene.gw(), "rule", "add", "from", "all", "lookup", "220", "priority", "220"]);
}

fn device_for(scene: &Scene, to: &str) -> String {
    let answer = ip::json(&["-6", "-n", &scene.gw(), "route", "get", to]);
    answer[0]["dev"].as_str().expect("ip names no device").to_owned()
}

fn pings(scene: &Scene, to: &str) -> bool {
    let gw = scene.gw();
    let mut ping = Command::new("ip");
    ping.args(["netns", "exec", &gw, "ping", "-6", "-n", "-c", "3", "-i", "0.3", "-W", "2", to]);
    ping.output().expect("ping cannot be run").status.success()
}

/// What became of the echo requests to the peer.
fn story_of_the_ping(traced: &Traced) -> Value {
    let stories = traced.summary()["stories"].as_array().expect("no stories");
    let own = |story: &&Value| story["destination"] == PEER && story["protocol"] == 58;
    let [story] = stories.iter().filter(own).collect::<Vec<_>>().try_into().expect("one story");
    story.clone()
}

#[test]
fn a_hijack_in_ipv6_is_named_seen_repaired_and_undone() {
    need_root!();
    let scene = scene();
    let tunnel = ["--tunnel", "Tun6"];
    scene.vpnfix(&[&tunnel[..], &["diagnose"]].concat()).ends(0);
    hijack(&scene);
    let rules = scene.rules();

    let report = scene.vpnfix(&[&tunnel[..], &["diagnose", "--format", "json"]].concat()).ends(1).json();
    for prefix in [INSIDE, BEHIND] {
        let findings = report["findings"].as_array().expect("findings");
        let finding = findings.iter().find(|f| f["prefix"] == prefix).unwrap_or_else(|| panic!("{prefix}: {report:#}"));
        assert_eq!(finding["reason"], "hijacked-by-rule", "{finding:#}");
        assert_eq!(finding["actual"]["table"], 220, "{finding:#}");
        assert_eq!(finding["actual"]["device"], WRONG_DEVICE, "{finding:#}");
        assert_eq!(finding["rule"]["priority"], 220, "{finding:#}");
        assert_eq!(finding["expected"]["device"], "Tun6", "{finding:#}");
    }

    let trace = Trace::start_with(&scene, &tunnel);
    assert!(!pings(&scene, PEER), "the peer answers although its packets should not arrive");
    let traced = trace.stop().ends(1);
    assert_eq!(traced.verdict(INSIDE), "misrouted", "{traced:#?}");
    let wrong = |entry: &Value| entry["device"] == WRONG_DEVICE && entry["right"] == false;
    assert_eq!(traced.count("packets", INSIDE, wrong), 3, "{traced:#?}");
    traced.lost_nothing();
    let story = story_of_the_ping(&traced);
    assert_eq!((&story["fate"], &story["sender"]["name"]), (&"misrouted".into(), &"ping".into()), "{story:#}");
    assert_eq!(story["rule"], "220: from all lookup 220", "{story:#}");
    assert_eq!((&story["egress"][0]["device"], &story["egress"][0]["packets"]), (&WRONG_DEVICE.into(), &3.into()));
    assert_eq!(story["answers"], Value::Array(Vec::new()), "{story:#}");

    scene.vpnfix(&[&tunnel[..], &["fix"]].concat()).ends(0);
    assert_eq!(device_for(&scene, PEER), "Tun6");
    assert_eq!(device_for(&scene, BEHIND_HOST), "Tun6");
    let trace = Trace::start_with(&scene, &tunnel);
    assert!(pings(&scene, PEER));
    let story = story_of_the_ping(&trace.stop().ends(0));
    assert_eq!((&story["fate"], &story["drops"]), (&"right".into(), &Value::Array(Vec::new())), "{story:#}");
    assert_eq!((&story["egress"][0]["device"], &story["egress"][0]["packets"]), (&"Tun6".into(), &3.into()));
    assert_eq!((&story["answers"][0]["device"], &story["answers"][0]["packets"]), (&"Tun6".into(), &3.into()));
    assert!(pings(&scene, BEHIND_HOST));

    scene.vpnfix(&["undo"]).ends(0);
    assert_eq!(scene.rules(), rules);
    assert_eq!(device_for(&scene, PEER), WRONG_DEVICE);
}
