//! The counts are exact: lookups and packets apart, nobody else's, none lost.

use vpnfix_tests::need_root;
use vpnfix_tests::scene::{INSIDE1, PEER1, REMOTE, REMOTE_HOST, Scene, WRONG_DEVICE};
use vpnfix_tests::trace::Trace;
use vpnfix_tests::{ip, traffic};

const DATAGRAMS: u64 = 100_000;

#[test]
fn a_hundred_thousand_datagrams_are_counted_one_by_one() {
    need_root!();
    let scene = Scene::hijacked();
    let trace = Trace::start(&scene);
    let before = scene.sent(WRONG_DEVICE);
    let sent = traffic::blast(&scene.gw(), PEER1, DATAGRAMS);
    let by_device = scene.sent(WRONG_DEVICE) - before;
    let traced = trace.stop().ends(1);
    assert_eq!(by_device, sent, "the device itself counted otherwise");
    assert_eq!(traced.output_lookups(INSIDE1), sent, "{traced:#?}");
    let hits = |entry: &serde_json::Value| {
        entry["outcome"] == "hit" && entry["table"] == 220 && entry["device"] == WRONG_DEVICE && entry["final"] == true
    };
    assert_eq!(traced.count("lookups", INSIDE1, hits), sent, "{traced:#?}");
    let wrong = |entry: &serde_json::Value| entry["device"] == WRONG_DEVICE && entry["right"] == false;
    assert_eq!(traced.count("packets", INSIDE1, wrong), sent, "{traced:#?}");
    assert_eq!(traced.count("packets", INSIDE1, |_| true), sent, "{traced:#?}");
    traced.lost_nothing();
}

#[test]
fn other_namespaces_traffic_to_the_same_addresses_is_not_counted() {
    need_root!();
    let scene = Scene::hijacked();
    let trace = Trace::start(&scene);
    let own = traffic::blast(&scene.gw(), PEER1, 100);
    // The second far end reaches the same addresses by its own default route.
    traffic::blast(&scene.of("far2"), PEER1, 1000);
    traffic::blast(&scene.of("far2"), std::net::Ipv4Addr::new(169, 254, 163, 250), 1000);
    let traced = trace.stop().ends(1);
    assert_eq!(traced.output_lookups(INSIDE1), own, "{traced:#?}");
    // The router's blackhole refuses without a device, so that lookup's namespace cannot be known: only hits count here.
    let foreign = |entry: &serde_json::Value| entry["kind"] != "output" && entry["outcome"] == "hit";
    assert_eq!(traced.count("lookups", INSIDE1, foreign), 0, "{traced:#?}");
    assert_eq!(traced.count("packets", INSIDE1, |_| true), own, "{traced:#?}");
}

#[test]
fn own_queries_are_not_counted_but_others_are() {
    need_root!();
    let scene = Scene::hijacked();
    // A trace asks the kernel about every destination itself; nothing else happens here.
    let quiet = Trace::start(&scene).stop().ends(0);
    assert_eq!(quiet.output_lookups(INSIDE1), 0, "{quiet:#?}");
    assert_eq!(quiet.output_lookups(REMOTE), 0, "{quiet:#?}");

    let trace = Trace::start(&scene);
    // Another process's queries are lookups like any other: a diagnosis by another vpnfix, and `ip route get`.
    scene.vpnfix(&["diagnose"]).ends(1);
    ip::text(&["-n", &scene.gw(), "route", "get", &REMOTE_HOST.to_string()]);
    let traced = trace.stop().ends(0);
    assert!(traced.output_lookups(REMOTE) >= 1, "{traced:#?}");
    assert_eq!(traced.count("packets", REMOTE, |_| true), 0, "{traced:#?}");
}
