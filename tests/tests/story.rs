//! The whole story in a hand-made scene: diagnose, fix, the independent readers, undo.

use serde_json::Value;
use vpnfix_tests::need_root;
use vpnfix_tests::scene::{INSIDE1, INSIDE2, PEER1, PEER2, REMOTE, REMOTE_HOST, Scene, WRONG_DEVICE};
use vpnfix_tests::trace::Trace;
use vpnfix_tests::traffic;

const TARGETS: [(std::net::Ipv4Addr, &str, &str); 3] =
    [(PEER1, INSIDE1, "Tunnel1"), (PEER2, INSIDE2, "Tunnel2"), (REMOTE_HOST, REMOTE, "Tunnel1")];

fn findings(diagnosis: &Value) -> &Vec<Value> {
    diagnosis["findings"].as_array().expect("no findings in the diagnosis")
}

#[test]
fn diagnose_names_device_table_rule_and_prefix_of_a_hijack() {
    need_root!();
    let scene = Scene::hijacked();
    scene.second_table();
    let rules = scene.rules();
    let diagnosis = scene.vpnfix(&["--format", "json", "diagnose"]).ends(1).json();
    assert_eq!(diagnosis["schema"], "vpnfix.diagnose/1");
    assert_eq!(diagnosis["verdict"], "misrouted");
    for (_, prefix, tunnel) in TARGETS {
        let finding = findings(&diagnosis).iter().find(|finding| finding["prefix"] == prefix);
        let finding = finding.unwrap_or_else(|| panic!("nothing found of {prefix}: {diagnosis:#}"));
        assert_eq!(finding["tunnel"], tunnel, "{finding:#}");
        assert_eq!(finding["reason"], "hijacked-by-rule", "{finding:#}");
        assert_eq!(finding["expected"]["device"], tunnel, "{finding:#}");
        assert_eq!(finding["actual"]["device"], WRONG_DEVICE, "{finding:#}");
        assert_eq!(finding["actual"]["table"], 220, "{finding:#}");
        assert_eq!(finding["rule"]["priority"], 220, "{finding:#}");
    }
    assert_eq!(scene.rules(), rules, "diagnose changed the rules");
}

#[test]
fn diagnose_text_names_device_table_and_prefix_too() {
    need_root!();
    let scene = Scene::hijacked();
    let told = scene.vpnfix(&["diagnose"]).ends(1);
    for word in ["Tunnel1", "Tunnel2", WRONG_DEVICE, "220", "169.254.163.2", REMOTE] {
        assert!(told.stdout.contains(word), "{word} is not named\n{told}");
    }
}

#[test]
fn fix_repairs_and_undo_restores_byte_for_byte() {
    need_root!();
    let mut scene = Scene::hijacked();
    scene.second_table();
    scene.start_responders();
    let (rules, routes) = (scene.rules(), scene.routes());

    scene.vpnfix(&["fix"]).ends(0);
    for (address, _, tunnel) in TARGETS {
        assert_eq!(scene.device_for(address), tunnel, "ip route get {address}");
        assert!(traffic::pings(&scene.gw(), address), "{address} does not answer");
    }
    assert!(traffic::bgp_connects(&scene.gw(), PEER1));
    scene.vpnfix(&["diagnose"]).ends(0);

    scene.vpnfix(&["undo"]).ends(0);
    assert_eq!(scene.rules(), rules);
    assert_eq!(scene.routes(), routes);
    assert_eq!(scene.device_for(PEER1), WRONG_DEVICE);
}

#[test]
fn each_strategy_cures_what_it_promises_and_can_be_undone() {
    need_root!();
    let scene = Scene::hijacked();
    let rules = scene.rules();
    for (strategy, prefix_too) in [("inside", false), ("prefixes", true), ("main-first", true)] {
        let fixed = scene.vpnfix(&["fix", "--strategy", strategy]);
        // `inside` cures BGP only: the learned prefix remains, and that is said by the status.
        let fixed = fixed.ends(if prefix_too { 0 } else { 3 });
        assert_eq!(scene.device_for(PEER1), "Tunnel1", "{fixed}");
        assert_eq!(scene.device_for(PEER2), "Tunnel2", "{fixed}");
        let expected = if prefix_too { "Tunnel1" } else { WRONG_DEVICE };
        assert_eq!(scene.device_for(REMOTE_HOST), expected, "{fixed}");
        scene.vpnfix(&["undo"]).ends(0);
        assert_eq!(scene.rules(), rules, "after undo of {strategy}");
    }
}

#[test]
fn a_dry_run_prints_commands_and_changes_nothing() {
    need_root!();
    let scene = Scene::hijacked();
    let rules = scene.rules();
    let told = scene.vpnfix(&["fix", "--dry-run"]).ends(1);
    assert!(told.stdout.contains("ip rule add"), "{told}");
    assert_eq!(scene.rules(), rules);
}

#[test]
fn a_healthy_scene_is_told_to_be_healthy() {
    need_root!();
    let mut scene = Scene::healthy();
    scene.start_responders();
    let diagnosis = scene.vpnfix(&["--format", "json", "diagnose"]).ends(0).json();
    assert_eq!(diagnosis["verdict"], "healthy");
    assert!(findings(&diagnosis).is_empty(), "{diagnosis:#}");

    let trace = Trace::start(&scene);
    for (address, ..) in TARGETS {
        traffic::blast(&scene.gw(), address, 20);
        assert!(traffic::pings(&scene.gw(), address));
        assert!(traffic::bgp_connects(&scene.gw(), address));
    }
    let traced = trace.stop().ends(0);
    for (_, prefix, tunnel) in TARGETS {
        assert_eq!(traced.verdict(prefix), "right", "{prefix}: {traced:#?}");
        assert!(traced.count("packets", prefix, |entry| entry["device"] == tunnel) >= 20, "{traced:#?}");
        assert_eq!(traced.count("packets", prefix, |entry| entry["right"] == false), 0, "{traced:#?}");
    }
}
