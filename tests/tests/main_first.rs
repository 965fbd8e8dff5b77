//! Where one rule for all, main before the hijacker, would do harm: `auto` sees it, says it, and repairs prefix by prefix.
//! The outside truth is what `ip route get` answers before and after, and that a rule set by hand really does the harm.

use serde_json::Value;
use vpnfix_tests::scene::{INSIDE1, PEER1, REMOTE_HOST, Scene};
use vpnfix_tests::{ip, need_root};

/// The careless repair, as somebody would type it.
const CARELESS: &str = "rule add priority 219 from all lookup main suppress_prefixlength 0";

/// What the kernel answers to each of these questions, in `ip route get`'s words.
fn answers(scene: &Scene, questions: &[&str]) -> Vec<String> {
    let ask = |question: &&str| {
        let words: Vec<&str> = question.split(' ').collect();
        ip::text(&[&["-n", &scene.gw(), "route", "get"], words.as_slice()].concat())
    };
    questions.iter().map(ask).collect()
}

/// What was found about main-first for IPv4.
#[track_caller]
fn judged(report: &Value) -> &Value {
    let all = report["plan"]["main_first"].as_array().unwrap_or_else(|| panic!("{report:#}"));
    all.iter().find(|judged| judged["family"] == "ipv4").unwrap_or_else(|| panic!("{report:#}"))
}

fn steps(report: &Value) -> Vec<&str> {
    report["plan"]["steps"].as_array().expect("steps").iter().filter_map(|step| step["do"].as_str()).collect()
}

/// Checks that main-first would lead these flows astray, that vpnfix knows it and says it, and that its repair leaves them
/// as they are while the tunnels' own destinations come home.
#[track_caller]
fn is_spared(scene: &Scene, flows: &[&str], said: &[&str]) {
    let before = answers(scene, flows);
    scene.ip(&[CARELESS]);
    let careless = answers(scene, flows);
    assert!(before.iter().zip(&careless).all(|(before, careless)| before != careless), "{before:?}\n{careless:?}");
    scene.ip(&[&CARELESS.replace("add", "del")]);

    let dry = scene.vpnfix(&["fix", "--dry-run", "--format", "json"]).ends(1).json();
    let judged = judged(&dry);
    assert_eq!((&judged["used"], &judged["proven"]), (&false.into(), &false.into()), "{judged:#}");
    let objection = judged["objection"].as_str().expect("an objection");
    assert!(said.iter().all(|said| objection.contains(said)), "{objection}");
    assert!(judged["counter_example"]["traffic"].is_string(), "{judged:#}");
    assert!(steps(&dry).iter().all(|step| step.contains(" to ")), "{dry:#}");
    for command in [["diagnose"].as_slice(), &["fix", "--dry-run"]] {
        let told = scene.vpnfix(command).ends(1);
        assert!(told.stdout.contains(objection), "{told}");
    }
    let forced = scene.vpnfix(&["fix", "--dry-run", "--strategy", "main-first"]).ends(1);
    assert!(forced.stdout.contains("warning") && forced.stdout.contains(objection), "{forced}");

    scene.vpnfix(&["fix"]).ends(0);
    assert_eq!(answers(scene, flows), before);
    for to in [PEER1, REMOTE_HOST] {
        assert_eq!(scene.device_for(to), "Tunnel1", "{to}");
    }
}

#[test]
fn the_plain_incident_gets_inside_and_main_first() {
    need_root!();
    let scene = Scene::hijacked();
    let report = scene.vpnfix(&["fix", "--dry-run", "--format", "json"]).ends(1).json();
    let judged = judged(&report);
    assert_eq!((&judged["used"], &judged["lasting"]), (&true.into(), &true.into()), "{judged:#}");
    let steps = steps(&report);
    assert!(steps.iter().any(|step| step.contains(&format!("to {INSIDE1} lookup main"))), "{steps:?}");
    assert!(steps.iter().any(|step| step.contains("from all lookup main suppress_prefixlength 0")), "{steps:?}");
}

/// Its rule comes after the hijacker's: today the hijacker takes its traffic. Once strongSwan is gone, main's connected
/// route would.
#[test]
fn a_second_interface_keeps_its_table_also_when_the_hijacker_is_gone() {
    need_root!();
    let scene = Scene::healthy();
    scene.ip(&[
        "addr add 10.9.0.99/32 dev eth0",
        "route add default via 10.9.0.1 dev eth0 table 300",
        "rule add from 10.9.0.99 lookup 300 priority 10001",
    ]);
    let flows = ["10.9.0.77 from 10.9.0.99"];
    let healthy = answers(&scene, &flows);
    assert!(healthy[0].contains("table 300"), "{healthy:?}");
    scene.hijack();
    is_spared(&scene, &flows, &["from 10.9.0.99", "rule 10001", "table 300"]);
    scene.ip(&["rule del priority 220", "route flush table 220"]);
    assert_eq!(answers(&scene, &flows), healthy);
}

#[test]
fn a_policy_based_child_does_not_leave_by_a_wider_route_of_main() {
    need_root!();
    let scene = Scene::hijacked();
    scene.ip(&[
        "route add 172.31.5.0/24 via 10.9.0.1 dev eth0 src 10.9.0.10 table 220",
        "route add 172.16.0.0/12 via 10.9.0.7 dev eth0",
    ]);
    is_spared(&scene, &["172.31.5.9"], &["172.31.5.0", "172.16.0.0/12 of table main", "172.31.5.0/24 of table 220"]);
}

/// NetBird, Cilium and charon-nm have rules at such places.
#[test]
fn rules_of_others_between_ours_and_the_hijackers_are_not_overtaken() {
    need_root!();
    let scene = Scene::hijacked();
    scene.ip(&[
        "route add default via 10.9.0.1 dev eth0 table 7120",
        "rule add fwmark 0x1bd00 lookup 7120 priority 219",
    ]);
    let flows = ["10.9.0.77 mark 0x1bd00"];
    let before = answers(&scene, &flows);
    assert!(before[0].contains("table 7120"), "{before:?}");
    // By hand it would have to stand before rule 219, too.
    let careless = CARELESS.replace("219", "218");
    scene.ip(&[&careless]);
    assert_ne!(answers(&scene, &flows), before);
    scene.ip(&[&careless.replace("add", "del")]);

    let report = scene.vpnfix(&["fix", "--format", "json"]).ends(0).json();
    let objection = judged(&report)["objection"].as_str().unwrap_or_else(|| panic!("{report:#}"));
    assert!(objection.contains("mark 0x1bd00") && objection.contains("rule 219"), "{objection}");
    assert_eq!(answers(&scene, &flows), before);
    assert_eq!(scene.device_for(REMOTE_HOST), "Tunnel1");
}

/// The rule that the kernel makes for VRFs stands at 1000, after the hijacker's and before main's.
#[test]
fn flows_of_a_vrf_do_not_match_main() {
    need_root!();
    let scene = Scene::healthy();
    if !scene.has_real_tunnels() {
        // Kernels without VTI here are without VRF, too; the plan's unit tests cover it there.
        return;
    }
    scene.ip(&[
        "link add red type vrf table 500",
        "link set red up",
        "link add red1 type veth peer name red2",
        "link set red1 master red up",
        "link set red2 up",
        "addr add 10.50.0.1/24 dev red1",
        "route add 10.9.0.0/16 via 10.50.0.2 dev red1 table 500",
    ]);
    let flows = ["10.9.0.77 oif red"];
    let healthy = answers(&scene, &flows);
    assert!(healthy[0].contains("table 500"), "{healthy:?}");
    scene.hijack();
    is_spared(&scene, &flows, &["red", "table 500"]);
    scene.ip(&["rule del priority 220", "route flush table 220"]);
    assert_eq!(answers(&scene, &flows), healthy);
}
