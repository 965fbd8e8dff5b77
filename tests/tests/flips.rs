//! Right, wrong, right, wrong: the same keys again, and each time a live line.

use vpnfix_tests::need_root;
use vpnfix_tests::scene::{INSIDE1, PEER1, Scene, WRONG_DEVICE};
use vpnfix_tests::trace::Trace;
use vpnfix_tests::traffic;

const STEER: &str = "to 169.254.163.248/30 lookup main priority 100";

#[test]
fn each_flip_of_a_destination_wakes_the_trace() {
    need_root!();
    let scene = Scene::hijacked();
    let mut trace = Trace::start(&scene);
    let traffic = traffic::trickle(&scene.gw(), PEER1);
    let mut expect = |device: &str, flip: u32| {
        trace.wait_for(&format!("flip {flip} to {device}"), |line| {
            line["type"] == "lookup" && line["prefix"] == INSIDE1 && line["device"] == device
        });
    };
    expect(WRONG_DEVICE, 0);
    for flip in (1..=6).step_by(2) {
        scene.ip(&[&format!("rule add {STEER}")]);
        expect("Tunnel1", flip);
        scene.ip(&[&format!("rule del {STEER}")]);
        expect(WRONG_DEVICE, flip + 1);
    }
    drop(traffic);
    let traced = trace.stop().ends(1);
    let verdicts: Vec<&str> = traced
        .lines
        .iter()
        .filter(|line| line["type"] == "verdict" && line["prefix"] == INSIDE1)
        .filter_map(|line| line["verdict"].as_str())
        .collect();
    assert!(verdicts.contains(&"right") && verdicts.contains(&"misrouted"), "verdicts: {verdicts:?}");
    traced.lost_nothing();
}
