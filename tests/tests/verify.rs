//! The check list over the whole VPN. The tunnels are VTIs with SAs where the kernel has them, and one end of a veth pair
//! elsewhere: what is asserted holds for both.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use vpnfix_tests::command::Run;
use vpnfix_tests::need_root;
use vpnfix_tests::scene::{PEER1, PEER2, REMOTE_HOST, Scene};
use vpnfix_tests::traffic;

fn verify(scene: &Scene, further: &[&str], status: i32) -> Value {
    let words = [&["verify", "--sample", "1s", "--format", "json"], further].concat();
    scene.vpnfix(&words).ends(status).json()
}

fn checks<'a>(report: &'a Value, state: &str) -> Vec<&'a Value> {
    let all = report["checks"].as_array().expect("checks");
    all.iter().filter(|check| check["state"] == state).collect()
}

#[track_caller]
fn check<'a>(report: &'a Value, id: &str, subject: &str) -> &'a Value {
    let all = report["checks"].as_array().expect("checks");
    let found = all.iter().find(|check| check["id"] == id && check["subject"] == subject);
    found.unwrap_or_else(|| panic!("no check {id} {subject}\n{report:#}"))
}

#[test]
fn a_healthy_vpn_has_no_failure_and_no_warning() {
    need_root!();
    let scene = Scene::healthy();
    assert_eq!(scene.device_for(REMOTE_HOST), "Tunnel1", "the scene is not healthy");
    assert!(traffic::pings(&scene.gw(), PEER2), "the scene is not healthy");
    let before = scene.sent("Tunnel1");
    let report = verify(&scene, &[], 0);
    assert_eq!((&report["verdict"], &report["outcome"]), (&"healthy".into(), &"ok".into()));
    assert!(checks(&report, "failed").is_empty() && checks(&report, "warning").is_empty(), "{report:#}");
    for peer in [PEER1, PEER2].map(|peer| peer.to_string()) {
        for id in ["peer-answers", "egress", "path-mtu"] {
            assert_eq!(check(&report, id, &peer)["state"], "ok", "{report:#}");
        }
        // Nothing listens there, and nobody asked for a session.
        assert_eq!(check(&report, "bgp-port", &peer)["state"], "skipped", "{report:#}");
    }
    assert!(scene.sent("Tunnel1") > before, "what was said to be sent was not, by the device's own count");
    // With real tunnels the SAs of both directions are told, and what they count is what went through them.
    let associations = report["associations"].as_array().expect("associations");
    assert_eq!(associations.len(), if scene.has_real_tunnels() { 4 } else { 0 }, "{report:#}");
    for association in associations {
        assert!(association["packets_in_sample"].as_u64() > Some(0), "{association:#}");
    }
}

#[test]
fn a_hijacked_vpn_fails_by_its_routing_first() {
    need_root!();
    let scene = Scene::hijacked();
    assert_eq!(scene.device_for(PEER1), "eth0", "the scene is not hijacked");
    let report = verify(&scene, &[], 1);
    let first = &report["checks"][0];
    assert_eq!((&first["state"], &first["id"]), (&"failed".into(), &"destinations".into()), "{report:#}");
    assert_eq!(first["subject"], "hijacked-by-rule");
    assert_eq!(first["consequence_of"], Value::Null);
    for id in ["peer-answers", "egress"] {
        let follows = check(&report, id, &PEER1.to_string());
        assert_eq!(follows["state"], "failed", "{report:#}");
        assert_eq!(follows["consequence_of"], "destinations hijacked-by-rule", "{report:#}");
    }
    let told = scene.vpnfix(&["verify", "--sample", "1s", "--color", "never"]).ends(1);
    let last = told.stdout.lines().last().unwrap_or_default();
    assert!(last.starts_with("FAULTY: ") && last.ends_with("begin with destinations hijacked-by-rule"), "{told}");
}

#[test]
fn waiting_ends_with_the_repair() {
    need_root!();
    let scene = Scene::hijacked();
    let mut waiting = scene.start_vpnfix(&["verify", "--wait", "300s", "--sample", "500ms", "--format", "json"]);
    let mut progress = BufReader::new(waiting.stderr.take().expect("standard error is read"));
    let mut line = String::new();
    progress.read_line(&mut line).expect("progress");
    assert!(line.starts_with("vpnfix: verify: after "), "{line}");
    assert!(line.contains("destinations hijacked-by-rule"), "{line}");
    scene.vpnfix(&["fix"]).ends(0);
    let told = Run::finish(waiting, &["verify", "--wait"]).ends(0);
    assert_eq!(told.json()["verdict"], "healthy");
    assert_eq!(scene.device_for(PEER1), "Tunnel1", "the repair is not there");
    // vpnfix's own rules are told. Nobody keeps rules of another namespace than the host's, so nothing is said of that.
    let own = check(&told.json(), "own-rules", "ipv4")["state"].clone();
    assert_eq!(own, "ok", "{told}");
    let report = told.json();
    let told_of = report["checks"].as_array().expect("checks").iter().map(|check| &check["id"]);
    assert!(told_of.clone().count() > 0 && told_of.clone().all(|id| id != "fix-persisted"), "{told}");
}

#[test]
fn waiting_in_vain_ends_with_what_is_wrong() {
    need_root!();
    let scene = Scene::hijacked();
    let words = ["verify", "--wait", "1s", "--sample", "200ms", "--no-probe", "--quiet", "--format", "json"];
    let told = scene.vpnfix(&words).ends(1);
    assert_eq!(told.stderr, "", "{told}");
    assert_eq!(told.json()["verdict"], "faulty");
}

#[test]
fn a_listener_on_the_far_side_is_seen_and_a_session_is_left_alone() {
    need_root!();
    let mut scene = Scene::healthy();
    scene.start_responders();
    let report = verify(&scene, &[], 0);
    assert_eq!(check(&report, "bgp-port", &PEER1.to_string())["state"], "ok", "{report:#}");
    let session = traffic::inside(&scene.gw(), || {
        TcpStream::connect_timeout(&SocketAddr::from((PEER2, 179)), Duration::from_secs(20)).expect("a connection")
    });
    let report = verify(&scene, &[], 0);
    drop(session);
    let told = check(&report, "bgp-session", &PEER2.to_string());
    assert_eq!(told["state"], "ok", "{report:#}");
    let port = check(&report, "bgp-port", &PEER2.to_string())["found"].as_str().expect("words");
    assert!(port.contains("BGP has its connection"), "{port}");
}

#[test]
fn without_probes_nothing_is_sent() {
    need_root!();
    let scene = Scene::healthy();
    let before = scene.sent("Tunnel1");
    let report = verify(&scene, &["--no-probe"], 0);
    assert_eq!(scene.sent("Tunnel1"), before);
    let peer = PEER1.to_string();
    for id in ["peer-answers", "path-mtu", "bgp-port"] {
        assert_eq!(check(&report, id, &peer)["state"], "skipped", "{report:#}");
    }
}

#[test]
fn settings_and_counters_of_the_tunnel_are_judged() {
    need_root!();
    let scene = Scene::healthy();
    scene.ip(&["link set Tunnel2 down"]);
    let report = verify(&scene, &["--no-probe"], 1);
    let first = &report["checks"][0];
    assert_eq!((&first["id"], &first["subject"]), (&"link-up".into(), &"Tunnel2".into()), "{report:#}");

    let scene = Scene::healthy();
    scene.sysctl("conf/Tunnel1/rp_filter", "1");
    let report = verify(&scene, &["--no-probe"], 0);
    assert_eq!(check(&report, "rp-filter", "Tunnel1")["state"], "warning", "{report:#}");
    assert_eq!(check(&report, "rp-filter", "Tunnel2")["state"], "ok", "{report:#}");

    let scene = Scene::healthy();
    scene.ip(&[
        "addr flush dev Tunnel2",
        "addr add 169.254.163.254/30 dev Tunnel2",
        "addr add 169.254.163.250/30 dev Tunnel2",
    ]);
    let report = verify(&scene, &["--no-probe"], 1);
    assert_eq!(report["checks"][0]["id"], "inside-unique", "{report:#}");
}

#[test]
fn large_packets_that_vanish_are_a_black_hole() {
    need_root!();
    let scene = Scene::healthy();
    vpnfix_tests::ip::batch(Some(&scene.of("far1")), &["link set Tunnel1 mtu 1200".to_owned()]).expect("it is set");
    // A veth end drops what is larger than its own MTU, without a word; a VTI takes in what its SA decrypts.
    let report = verify(&scene, &[], i32::from(!scene.has_real_tunnels()));
    let found = check(&report, "path-mtu", &PEER1.to_string());
    if scene.has_real_tunnels() {
        assert_eq!(found["state"], "ok", "{report:#}");
    } else {
        assert_eq!(report["checks"][0], *found, "{report:#}");
        let words = found["found"].as_str().expect("words");
        let size = words.split(' ').find_map(|word| word.parse::<u32>().ok()).expect("a size");
        assert!((1190..=1204).contains(&size), "{words}");
    }
}

#[test]
fn policies_whose_interface_is_elsewhere_are_told() {
    need_root!();
    let scene = Scene::healthy();
    scene.ip(&["xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir out priority 399999 mark 77 \
                tmpl src 10.9.0.10 dst 198.18.9.9 proto esp reqid 77 mode tunnel"]);
    let report = verify(&scene, &["--no-probe"], 1);
    let first = &report["checks"][0];
    assert_eq!(first["id"], "tunnel-present", "{report:#}");
    assert!(first["found"].as_str().is_some_and(|found| found.contains("198.18.9.9")), "{report:#}");
}

#[test]
fn a_host_without_a_tunnel_cannot_be_told_of() {
    need_root!();
    let scene = Scene::healthy();
    let lan = scene.of("lan");
    let told = Run::new(scene.run_dir(), &["--netns", &lan, "verify", "--sample", "200ms", "--format", "json"]).ends(4);
    assert_eq!(told.json()["verdict"], "unknown");
}
