//! The VPN made of other parts: swanctl and BIRD, with strongSwan renewing its keys, losing a tunnel and being killed
//! meanwhile; XFRM interfaces, with IPv6 inside as well; tunnels in a VRF.

use serde_json::Value;
use vpnfix_tests::capture::Capture;
use vpnfix_tests::vpn::{Bgp, Ike, Made, PEER1, PEER2, REMOTE_HOST, Tunnels, VRF, Vpn};
use vpnfix_tests::{ip, need_root, need_vpn, wait};

#[test]
fn swanctl_and_bird_are_judged_as_the_others_are() {
    need_root!();
    let root = need_vpn!();
    let vpn = Vpn::start(&root, Made { ike: Ike::Swanctl, bgp: Bgp::Bird, tunnels: Tunnels::Vti });
    let report = vpn.verify(1, &["--sample", "1s"]);
    assert_eq!(label(&report["checks"][0]), "destinations hijacked-by-rule", "{report:#}");
    vpn.vpnfix(&["fix", "--wait", "60s"]).ends(0);
    for name in ["Tunnel1", "Tunnel2"] {
        wait::until("BGP by birdc's word", || (birdc(&vpn, name, "BGP state:") == "Established").then_some(()));
    }
    wait::until("an answer through the tunnel", || vpn.pings(REMOTE_HOST).then_some(()));
    let report = vpn.verify(0, &["--wait", "120s", "--sample", "1s"]);
    assert_eq!(states(&report, "warning"), [] as [String; 0], "{report:#}");
    assert_eq!(check(&report, "bgp-daemon", None)["found"], "BIRD answers, with 2 neighbours in all");
    for (name, peer) in [("Tunnel1", PEER1), ("Tunnel2", PEER2)] {
        let neighbours = report["neighbours"].as_array().expect("neighbours");
        let own = neighbours.iter().find(|of| of["address"] == peer).expect("the neighbour");
        assert_eq!(own["state"], birdc(&vpn, name, "BGP state:"));
        let routes = birdc(&vpn, name, "Routes:");
        assert!(routes.starts_with(&format!("{} imported, {} exported", own["received"], own["sent"])), "{routes}");
        assert_eq!(own["remote_as"].to_string(), birdc(&vpn, name, "Neighbor AS:"));
        assert_eq!(own["local_as"].to_string(), birdc(&vpn, name, "Local AS:"));
    }
    keys_are_renewed(&vpn);
    a_tunnel_is_lost(&vpn);
    the_daemon_is_killed(&vpn);
    vpn.check_secrets();
}

/// While strongSwan replaces an SA, nothing is wrong.
fn keys_are_renewed(vpn: &Vpn) {
    let before = vpn.spis();
    let arguments = ["verify", "--sample", "3s", "--format", "json"];
    let running = vpn.start_vpnfix(&arguments);
    vpn.script("gw", "swanctl --rekey --child Tunnel1");
    let report = vpn.finish(running, &arguments).ends(0).json();
    assert_eq!(states(&report, "warning"), [] as [String; 0], "{report:#}");
    wait::until("the new SAs", || vpn.spis().iter().any(|spi| !before.contains(spi)).then_some(()));
    vpn.verify(0, &["--sample", "1s"]);
}

/// What is told concerns the lost tunnel alone.
fn a_tunnel_is_lost(vpn: &Vpn) {
    vpn.script("gw", "swanctl --terminate --ike Tunnel2");
    let report = vpn.verify(1, &["--sample", "1s"]);
    assert_eq!(label(&report["checks"][0]), "ike-sa Tunnel2", "{report:#}");
    for check in report["checks"].as_array().expect("checks").iter().filter(|check| check["state"] == "failed") {
        let tunnels = check["tunnels"].as_array().expect("tunnels");
        assert!(tunnels.is_empty() || *tunnels == ["Tunnel2"], "{check:#}");
    }
    assert!(vpn.pings(PEER1), "the other tunnel has suffered");
    vpn.script("gw", "swanctl --initiate --child Tunnel2");
    vpn.verify(0, &["--wait", "120s", "--sample", "1s"]);
}

/// A killed daemon leaves SAs, rule and route behind: the VPN goes on, and so does the repair when it is back.
fn the_daemon_is_killed(vpn: &Vpn) {
    vpn.script("gw", "(kill -KILL $(cat /run/charon.pid))");
    let report = vpn.verify(0, &["--wait", "60s", "--sample", "1s"]);
    assert_eq!(check(&report, "ike-sa", Some("Tunnel1"))["state"], "skipped", "{report:#}");
    vpn.script("gw", "rm /run/charon.pid");
    vpn.start_ike();
    let report = wait::until("IKE with both ends", || {
        let report = vpn.verify(0, &["--wait", "120s", "--sample", "1s"]);
        let up = |tunnel| check(&report, "ike-sa", Some(tunnel))["state"] == "ok";
        (up("Tunnel1") && up("Tunnel2")).then_some(report)
    });
    assert_eq!(report["verdict"], "healthy");
    assert!(vpn.pings(REMOTE_HOST), "no answer after the daemon's return");
}

#[test]
fn xfrm_interfaces_are_tied_by_their_ids() {
    need_root!();
    let root = need_vpn!();
    let vpn = Vpn::start(&root, Made { ike: Ike::Swanctl, bgp: Bgp::Frr, tunnels: Tunnels::Xfrm });
    // With an id charon installs no route: nothing has to be repaired.
    let table = ip::text(&["-n", &vpn.of("gw"), "route", "show", "table", "all"]);
    assert!(!table.contains("table 220"), "a route of charon's: {table}");
    let report = vpn.verify(0, &["--wait", "120s", "--sample", "1s"]);
    for peer in [PEER1, "fd00:55::1"] {
        assert_eq!(check(&report, "peer-answers", Some(peer))["state"], "ok", "{report:#}");
        assert_eq!(check(&report, "path-mtu", Some(peer))["state"], "ok", "{report:#}");
    }
    let policy = check(&report, "outbound-policy", Some("Tunnel1"));
    assert!(policy["found"].as_str().is_some_and(|found| found.contains("if_id 100")), "{policy:#}");
    assert_eq!(report["associations"].as_array().map(Vec::len), Some(4), "{report:#}");
    vpn.ip("gw", &["link del Tunnel1", "link add Tunnel1 type xfrm dev ens5 if_id 101"]);
    vpn.configure_tunnel(1);
    let report = vpn.verify(1, &["--sample", "1s"]);
    assert_eq!(label(&report["checks"][0]), "outbound-policy Tunnel1", "{report:#}");
    vpn.check_secrets();
}

/// strongSwan's rule comes before the VRF's as well: what belongs to the VRF leaves in the clear, out of it.
#[test]
fn a_vrf_gets_its_flows_back() {
    need_root!();
    let root = need_vpn!();
    let vpn = Vpn::start(&root, Made { ike: Ike::Legacy, bgp: Bgp::Frr, tunnels: Tunnels::VtiInVrf });
    let gateway = vpn.of("gw");
    let rules = || ip::text(&["-n", &gateway, "rule"]);
    let way = |peer| ip::text(&["-n", &gateway, "route", "get", "vrf", VRF, peer]);
    let before = rules();
    assert!(way(PEER1).contains("dev ens5"), "no hijack: {}", way(PEER1));
    let clear = Capture::leaving(&gateway, "ens5", "net 169.254.0.0/16");
    let report = vpn.verify(1, &["--sample", "1s"]);
    assert!(clear.count() > 0, "nothing left in the clear: this is not the incident");
    assert_eq!(label(&report["checks"][0]), "destinations hijacked-from-vrf", "{report:#}");
    vpn.vpnfix(&["fix", "--wait", "120s"]).ends(0);
    for (peer, tunnel) in [(PEER1, "dev Tunnel1"), (PEER2, "dev Tunnel2")] {
        assert!(way(peer).contains(tunnel), "{}", way(peer));
        wait::until("BGP by vtysh's word", || (vpn.bgp_state(peer) == "Established").then_some(()));
    }
    let learned = || ip::text(&["-n", &gateway, "route", "show", "vrf", VRF, "proto", "bgp"]).contains("10.20.0.0/16");
    wait::until("the learned route", || learned().then_some(()));
    let clear = Capture::leaving(&gateway, "ens5", "net 10.20.0.0/16 or net 169.254.0.0/16");
    assert!(vpn.pings(REMOTE_HOST), "no answer through the tunnel");
    let report = vpn.verify(0, &["--wait", "120s", "--sample", "1s"]);
    assert_eq!(clear.count(), 0, "something still leaves in the clear");
    assert_eq!(states(&report, "warning"), [] as [String; 0], "{report:#}");
    for peer in [PEER1, PEER2] {
        assert_eq!(check(&report, "peer-answers", Some(peer))["state"], "ok", "{report:#}");
        assert_eq!(check(&report, "bgp-session", Some(peer))["state"], "ok", "{report:#}");
    }
    vpn.vpnfix(&["undo"]).ends(0);
    assert_eq!(rules(), before);
    vpn.check_secrets();
}

/// What birdc says behind a word about a protocol.
fn birdc(vpn: &Vpn, name: &str, word: &str) -> String {
    let said = vpn.command("gw", "birdc").args(["show", "protocols", "all", name]).output().expect("birdc");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    said.lines().find_map(|line| line.trim().strip_prefix(word)).map(|rest| rest.trim().to_owned()).unwrap_or_default()
}

fn label(check: &Value) -> String {
    format!("{} {}", check["id"].as_str().unwrap_or_default(), check["subject"].as_str().unwrap_or_default())
}

fn states(report: &Value, state: &str) -> Vec<String> {
    let all = report["checks"].as_array().expect("checks");
    all.iter().filter(|check| check["state"] == state).map(label).collect()
}

#[track_caller]
fn check<'a>(report: &'a Value, id: &str, subject: Option<&str>) -> &'a Value {
    let all = report["checks"].as_array().expect("checks");
    let found = all.iter().find(|check| check["id"] == id && check["subject"].as_str() == subject);
    found.unwrap_or_else(|| panic!("no check {id} {subject:?}\n{report:#}"))
}
