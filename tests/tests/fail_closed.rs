//! `--fail-closed`: while a tunnel is down, its traffic is refused and none leaves in the clear.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::time::Duration;

use vpnfix_tests::capture::Capture;
use vpnfix_tests::need_root;
use vpnfix_tests::scene::{INSIDE1, PEER1, REMOTE_HOST, Scene, WRONG_DEVICE};
use vpnfix_tests::traffic;

/// What the kernel says to a datagram from the gateway.
fn send(scene: &Scene, to: Ipv4Addr) -> std::io::Result<usize> {
    traffic::inside(&scene.gw(), || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.send_to(b"vpnfix scene", (to, 9))
    })
}

/// Sends datagrams and tries to connect: all is refused, and the physical device sends nothing.
#[track_caller]
fn is_closed(scene: &Scene, to: Ipv4Addr) {
    let before = scene.sent(WRONG_DEVICE);
    let capture = Capture::start(&scene.gw(), WRONG_DEVICE, &format!("dst host {to}"));
    for _ in 0..20 {
        let error = send(scene, to).expect_err("it is sent");
        assert_eq!(error.kind(), ErrorKind::NetworkUnreachable, "{to}: {error}");
    }
    let connect = || TcpStream::connect_timeout(&(to, 179).into(), Duration::from_secs(2));
    let error = traffic::inside(&scene.gw(), connect).expect_err("it is connected");
    assert_eq!(error.kind(), ErrorKind::NetworkUnreachable, "{to}: {error}");
    assert_eq!(scene.sent(WRONG_DEVICE), before, "packets for {to} left by {WRONG_DEVICE}");
    assert_eq!(capture.count(), 0, "tcpdump saw packets for {to} on {WRONG_DEVICE}");
}

#[track_caller]
fn goes_by_the_tunnel(scene: &Scene, to: Ipv4Addr) {
    let (tunnel, wrong) = (scene.sent("Tunnel1"), scene.sent(WRONG_DEVICE));
    send(scene, to).expect("it is refused");
    assert_eq!(scene.sent("Tunnel1"), tunnel + 1, "{to}");
    // A real tunnel's packets leave by the physical device, wrapped.
    if !scene.has_real_tunnels() {
        assert_eq!(scene.sent(WRONG_DEVICE), wrong, "{to}");
    }
}

#[test]
fn a_tunnel_that_goes_down_leaks_nothing() {
    need_root!();
    for strategy in ["auto", "prefixes"] {
        let scene = Scene::hijacked();
        // A wider route of main elsewhere would be a leak, too.
        scene.ip(&["route add 10.76.0.0/15 via 10.9.0.1 dev eth0"]);
        let rules = scene.rules();
        // That the capture sees what leaks, the hijack shows.
        let leak = Capture::start(&scene.gw(), WRONG_DEVICE, &format!("dst host {PEER1}"));
        send(&scene, PEER1).expect("it is refused");
        assert_eq!(leak.count(), 1, "the hijacked datagram");
        scene.vpnfix(&["fix", "--fail-closed", "--strategy", strategy]).ends(0);
        goes_by_the_tunnel(&scene, PEER1);
        goes_by_the_tunnel(&scene, REMOTE_HOST);
        scene.ip(&["link set Tunnel1 down"]);
        is_closed(&scene, PEER1);
        is_closed(&scene, REMOTE_HOST);
        let told = scene.vpnfix(&["diagnose", "--format", "json"]).ends(1).json();
        let down =
            told["findings"].as_array().expect("findings").iter().find(|finding| finding["reason"] == "tunnel-down");
        assert_eq!(down.map(|finding| &finding["severity"]), Some(&"error".into()), "{told:#}");
        // What BGP had learned is gone with the device, and stays closed until it is released.
        assert!(told["notes"].as_array().expect("notes").iter().any(|note| note["id"] == "kept-closed"), "{told:#}");
        scene
            .ip(&["link set Tunnel1 up", "route add 10.77.0.0/16 via 169.254.163.249 dev Tunnel1 proto bgp metric 20"]);
        goes_by_the_tunnel(&scene, PEER1);
        goes_by_the_tunnel(&scene, REMOTE_HOST);
        scene.vpnfix(&["undo"]).ends(0);
        assert_eq!(scene.rules(), rules);
    }
}

/// BGP withdraws a prefix: its traffic is refused, and released by `undo` alone.
#[test]
fn a_withdrawn_prefix_stays_closed_until_released() {
    need_root!();
    let scene = Scene::hijacked();
    scene.vpnfix(&["fix", "--fail-closed"]).ends(0);
    scene.ip(&["route del 10.77.0.0/16"]);
    is_closed(&scene, REMOTE_HOST);
    goes_by_the_tunnel(&scene, PEER1);
    scene.vpnfix(&["fix", "--fail-closed"]).ends(0);
    is_closed(&scene, REMOTE_HOST);
    scene.vpnfix(&["undo"]).ends(0);
    assert_eq!(scene.device_for(REMOTE_HOST), WRONG_DEVICE);
}

/// The dry run shows both rules, the run makes them, a second run finds them.
#[test]
fn both_rules_are_shown_and_a_second_run_adds_none() {
    need_root!();
    let scene = Scene::hijacked();
    let before = scene.rules();
    let dry = scene.vpnfix(&["fix", "--dry-run", "--fail-closed", "--strategy", "inside"]).ends(1);
    for rule in [
        format!("priority 100 from all to {INSIDE1} lookup main suppress_prefixlength 29"),
        format!("priority 101 from all to {INSIDE1} unreachable"),
    ] {
        assert!(dry.stdout.contains(&rule), "{dry}");
    }
    assert_eq!(scene.rules(), before);
    scene.vpnfix(&["fix", "--fail-closed"]).ends(0);
    let closed = scene.rules();
    scene.vpnfix(&["fix", "--fail-closed"]).ends(0);
    assert_eq!(scene.rules(), closed);
}

/// The tunnel is down already: it is closed all the same, and what remains is named.
#[test]
fn a_tunnel_that_is_down_already_is_closed() {
    need_root!();
    let scene = Scene::hijacked();
    scene.ip(&["link set Tunnel1 down"]);
    let report = scene.vpnfix(&["fix", "--fail-closed", "--format", "json"]).ends(3).json();
    let remaining = report["remaining"].as_array().expect("what remains");
    assert!(remaining.iter().all(|finding| finding["reason"] == "tunnel-down"), "{report:#}");
    assert!(!remaining.is_empty(), "{report:#}");
    is_closed(&scene, PEER1);
    scene.ip(&["link set Tunnel1 up"]);
    goes_by_the_tunnel(&scene, PEER1);
}

/// Rules that were made without it fail open; asked for later, the closing ones go in front of them.
#[test]
fn an_open_repair_is_closed_afterwards() {
    need_root!();
    let scene = Scene::hijacked();
    let before = scene.rules();
    scene.vpnfix(&["fix"]).ends(0);
    scene.vpnfix(&["fix", "--fail-closed"]).ends(0);
    scene.ip(&["link set Tunnel1 down"]);
    is_closed(&scene, PEER1);
    scene.vpnfix(&["undo"]).ends(0);
    assert_eq!(scene.rules(), before);
}
