//! Suspicion and proof: lookups alone are the one, packets handed to the wrong device the other.

use vpnfix_tests::command::Run;
use vpnfix_tests::scene::{INSIDE1, PEER1, REMOTE, REMOTE_HOST, Scene, WRONG_DEVICE};
use vpnfix_tests::trace::Trace;
use vpnfix_tests::{need_kind, need_root, traffic};

#[test]
fn route_queries_alone_are_only_a_suspicion() {
    need_root!();
    let scene = Scene::hijacked();
    let trace = Trace::start(&scene);
    for _ in 0..5 {
        assert_eq!(scene.device_for(PEER1), WRONG_DEVICE);
    }
    let traced = trace.stop().ends(0);
    assert_eq!(traced.verdict(INSIDE1), "suspected", "{traced:#?}");
    assert!(traced.output_lookups(INSIDE1) >= 5, "{traced:#?}");
    assert_eq!(traced.count("packets", INSIDE1, |_| true), 0, "{traced:#?}");
}

#[test]
fn packets_on_the_wrong_device_are_proof_and_the_device_agrees() {
    need_root!();
    let scene = Scene::hijacked();
    let trace = Trace::start(&scene);
    let before = scene.sent(WRONG_DEVICE);
    traffic::blast(&scene.gw(), PEER1, 50);
    traffic::blast(&scene.gw(), REMOTE_HOST, 70);
    let by_device = scene.sent(WRONG_DEVICE) - before;
    let traced = trace.stop().ends(1);
    assert_eq!(traced.verdict(INSIDE1), "misrouted", "{traced:#?}");
    assert_eq!(traced.verdict(REMOTE), "misrouted", "{traced:#?}");
    let on_wrong = |prefix| traced.count("packets", prefix, |entry| entry["device"] == WRONG_DEVICE);
    assert_eq!(on_wrong(INSIDE1), 50, "{traced:#?}");
    assert_eq!(on_wrong(INSIDE1) + on_wrong(REMOTE), by_device, "{traced:#?}");
}

/// Who is bound to a VRF has chosen a table and no device: the rules decide, and here the wrong one does.
#[test]
fn packets_sent_in_a_vrf_are_proof_as_well() {
    need_root!();
    let scene = Scene::healthy();
    need_kind!(scene, "vrf table 10");
    scene.put_into_vrf();
    scene.hijack();
    let trace = Trace::start(&scene);
    assert!(!traffic::pings_from(&scene.gw(), Some("red"), PEER1), "the hijack answers");
    let traced = trace.stop().ends(1);
    assert_eq!(traced.verdict(INSIDE1), "misrouted", "{traced:#?}");
    let on_wrong = traced.count("packets", INSIDE1, |entry| entry["device"] == WRONG_DEVICE);
    assert_eq!(on_wrong, 2, "{traced:#?}");
}

#[test]
fn the_text_of_a_trace_says_misrouted_and_how_many_packets() {
    need_root!();
    let scene = Scene::hijacked();
    let arguments = scene.arguments(&["trace", "--for", "5s"]);
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // Text has no line to wait for, so the traffic runs through the whole trace.
    let child = Run::start(scene.run_dir(), &words);
    let traffic = traffic::trickle(&scene.gw(), PEER1);
    let told = Run::finish(child, &words).ends(1);
    drop(traffic);
    assert!(told.stdout.contains("MISROUTED"), "{told}");
    assert!(told.stdout.contains(WRONG_DEVICE), "{told}");
}
