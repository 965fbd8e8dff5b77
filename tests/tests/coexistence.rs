//! Beside others: rules of theirs that do the same are used and told, never doubled and never deleted; rules of theirs
//! that land in front of ours are seen.

use vpnfix_tests::need_root;
use vpnfix_tests::scene::{INSIDE1, INSIDE2, PEER1, PEER2, REMOTE_HOST, Scene, WRONG_DEVICE};

/// The usual advice, as an operator types it, networkd writes it, and a script with a unit of its own adds it.
const BY_OTHERS: [&str; 3] = ["", " protocol static", " protocol boot"];

#[test]
fn the_two_rules_of_others_are_used_told_and_left_alone() {
    need_root!();
    for protocol in BY_OTHERS {
        let scene = Scene::hijacked();
        let by_hand =
            [INSIDE1, INSIDE2].map(|inside| format!("rule add to {inside} lookup main priority 100{protocol}"));
        scene.ip(&by_hand.each_ref().map(String::as_str));
        let theirs = scene.rules();
        // They bring BGP up, and leave what it learned in the clear.
        assert_eq!((scene.device_for(PEER1), scene.device_for(REMOTE_HOST)), ("Tunnel1".into(), WRONG_DEVICE.into()));
        scene.vpnfix(&["fix", "--strategy", "inside"]).ends(1);
        assert_eq!(scene.rules(), theirs);

        let report = scene.vpnfix(&["fix", "--format", "json"]).ends(0).json();
        let notes = report["notes"].as_array().expect("notes");
        let told = notes.iter().find(|note| note["id"] == "already-there").unwrap_or_else(|| panic!("{report:#}"));
        assert!(told["text"].as_str().is_some_and(|text| text.contains("made by others")), "{told:#}");
        let ours = scene.rules();
        for inside in [INSIDE1, INSIDE2] {
            assert_eq!(ours.lines().filter(|line| line.contains(inside)).count(), 1, "{ours}");
        }
        assert!(theirs.lines().all(|line| ours.lines().any(|other| other == line)), "{ours}");
        assert_eq!(scene.device_for(REMOTE_HOST), "Tunnel1");
        scene.vpnfix(&["undo"]).ends(0);
        assert_eq!(scene.rules(), theirs);
    }
}

/// One of the two is there: ours stands beside it at the same priority, if that is asked for.
#[test]
fn a_priority_with_a_rule_of_the_same_effect_is_not_taken() {
    need_root!();
    let scene = Scene::hijacked();
    scene.ip(&[&format!("rule add to {INSIDE1} lookup main priority 100")]);
    let theirs = scene.rules();
    scene.vpnfix(&["fix", "--strategy", "inside", "--priority", "100"]);
    assert_eq!((scene.device_for(PEER1), scene.device_for(PEER2)), ("Tunnel1".into(), "Tunnel2".into()));
    let rules = scene.rules();
    assert_eq!(rules.lines().filter(|line| line.starts_with("100:")).count(), 2, "{rules}");
    scene.vpnfix(&["undo"]).ends(0);
    assert_eq!(scene.rules(), theirs);
    // One of another effect is.
    scene.ip(&[&format!("rule del to {INSIDE1} lookup main priority 100")]);
    scene.ip(&["rule add from 10.9.0.200 lookup 300 priority 150"]);
    for strategy in ["inside", "prefixes", "main-first", "auto"] {
        let told = scene.vpnfix(&["fix", "--strategy", strategy, "--priority", "150"]).ends(4).tells_an_error();
        assert!(told.stderr.contains("taken") && told.stderr.contains("219"), "{told}");
        let told = scene.vpnfix(&["fix", "--fail-closed", "--strategy", strategy, "--priority", "149"]).ends(4);
        assert!(told.stderr.contains("taken") && told.stderr.contains("is free"), "{told}");
    }
}

/// The kernel deletes the first rule that fits the request: ours must be the one, wherever its twin of others stands.
#[test]
fn an_identical_rule_of_others_survives_undo() {
    need_root!();
    let rule = format!("to {INSIDE1} lookup main priority 100");
    for order in [["", " protocol 118"], [" protocol 118", ""]] {
        let scene = Scene::hijacked();
        for protocol in order {
            scene.ip(&[&format!("rule add {rule}{protocol}")]);
        }
        assert_eq!(scene.rules().lines().filter(|line| line.contains(INSIDE1)).count(), 2);
        scene.vpnfix(&["undo"]).ends(0);
        let left = scene.rules();
        let left: Vec<&str> = left.lines().filter(|line| line.contains(INSIDE1)).collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(!left[0].contains("118"), "{left:?}");
    }
}

/// A rule without a priority lands in front of ours. It takes nothing of the tunnels: that is a note.
#[test]
fn a_rule_that_lands_in_front_of_ours_is_told() {
    need_root!();
    let scene = Scene::hijacked();
    scene.vpnfix(&["fix"]).ends(0);
    scene.ip(&["route add default via 10.9.0.1 dev eth0 table 300", "rule add from 10.9.0.99 lookup 300"]);
    assert!(scene.rules().contains("99:\tfrom 10.9.0.99"), "{}", scene.rules());
    for command in [["diagnose", "--format", "json"], ["fix", "--format", "json"]] {
        let report = scene.vpnfix(&command).ends(0).json();
        let notes = report["notes"].as_array().expect("notes");
        let told = notes.iter().find(|note| note["id"] == "in-front-of-ours").unwrap_or_else(|| panic!("{report:#}"));
        assert!(told["text"].as_str().is_some_and(|text| text.contains("10.9.0.99")), "{told:#}");
    }
}

/// One that takes the tunnels' destinations is a finding, and the next `fix` goes in front of it.
#[test]
fn a_rule_in_front_of_ours_that_hijacks_is_preceded() {
    need_root!();
    let scene = Scene::hijacked();
    scene.vpnfix(&["fix"]).ends(0);
    scene.ip(&["route add default via 10.9.0.1 dev eth0 table 51820", "rule add from all lookup 51820"]);
    assert_eq!(scene.device_for(PEER1), WRONG_DEVICE);
    let report = scene.vpnfix(&["diagnose", "--format", "json"]).ends(1).json();
    let finding = &report["findings"][0];
    assert_eq!(
        (&finding["reason"], &finding["rule"]["priority"]),
        (&"hijacked-by-rule".into(), &99.into()),
        "{report:#}"
    );
    let detail = finding["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("in front of vpnfix's own"), "{finding:#}");
    scene.vpnfix(&["fix"]).ends(0);
    for to in [PEER1, REMOTE_HOST] {
        assert_eq!(scene.device_for(to), "Tunnel1", "{to}");
    }
    let again = scene.rules();
    scene.vpnfix(&["fix"]).ends(0);
    assert_eq!(scene.rules(), again);
}
