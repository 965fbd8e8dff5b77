//! The incident with real strongSwan and real FRR, from break to proof; and then, in the healthy VPN, one fault after the
//! other: `verify` names each as what fails first.

mod vpn_faults;

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use vpnfix_tests::capture::Capture;
use vpnfix_tests::vpn::{self, Bgp, Ike, Made, PEER1, PEER2, REMOTE_HOST, Tunnels, Vpn};
use vpnfix_tests::{ip, need_root, need_vpn, wait};

/// BGP has to come up within so many seconds after the repair.
const MINUTE: u64 = 60;
const SUMMARY: &str = "show bgp summary json";
/// What belongs into the tunnels, and would be seen on the link if it left in the clear.
const INSIDE: &str = "net 10.20.0.0/16 or net 169.254.0.0/16";

#[test]
fn the_incident_is_repaired_and_each_fault_is_named() {
    need_root!();
    let root = need_vpn!();
    let vpn = Vpn::start(&root, Made { ike: Ike::Legacy, bgp: Bgp::Frr, tunnels: Tunnels::Vti });
    broken(&vpn);
    repaired(&vpn);
    figures(&vpn);
    vpn_faults::play(&vpn);
    let last = vpn.verify(0, &["--wait", "120s", "--sample", "1s", "-vvv"]);
    assert_eq!(last["verdict"], "healthy");
    vpn.check_secrets();
}

/// strongSwan's own route has taken everything away, by itself.
fn broken(vpn: &Vpn) {
    let routes = ip::text(&["-n", &vpn.of("gw"), "route", "show", "table", "220"]);
    assert!(routes.starts_with("default via 192.168.12.1 dev ens5 proto static"), "no hijack: {routes}");
    wait::until("an attempt at BGP", || ["Active", "Connect"].contains(&vpn.bgp_state(PEER1).as_str()).then_some(()));
    let clear = Capture::leaving(&vpn.of("gw"), "ens5", INSIDE);
    let report = vpn.verify(1, &["--sample", "1s"]);
    assert!(clear.count() > 0, "nothing left in the clear: this is not the incident");
    let first = &report["checks"][0];
    assert_eq!((&first["state"], &first["id"]), (&"failed".into(), &"destinations".into()), "{report:#}");
    assert_eq!((&first["subject"], &first["area"]), (&"hijacked-by-rule".into(), &"routing".into()), "{report:#}");
    for peer in [PEER1, PEER2] {
        let session = check(&report, "bgp-session", peer);
        assert_eq!(session["consequence_of"], "destinations hijacked-by-rule", "{session:#}");
        let found = session["found"].as_str().expect("words");
        assert!(found.starts_with("Connect") || found.starts_with("Active"), "{found}");
    }
    let associations = report["associations"].as_array().expect("associations");
    assert_eq!(associations.len(), 4, "{report:#}");
    for association in associations {
        let out = association["direction"] == "out";
        assert_eq!(association["bytes"] == 0, out, "nothing goes out, and something comes in: {association:#}");
    }
    for tunnel in ["Tunnel1", "Tunnel2"] {
        assert_eq!(check(&report, "ike-sa", tunnel)["state"], "ok", "{report:#}");
        assert_eq!(check(&report, "one-way", tunnel)["state"], "failed", "{report:#}");
    }
}

fn repaired(vpn: &Vpn) {
    let arguments = ["fix", "--wait", "120s", "--format", "json"];
    let fixing = vpn.start_vpnfix(&arguments);
    let rules = || ip::text(&["-n", &vpn.of("gw"), "rule"]);
    wait::until("the repair's rules", || rules().contains("suppress_prefixlength").then_some(()));
    let changed = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    let report = vpn.finish(fixing, &arguments).ends(0).json();
    wait::until("BGP by vtysh's word", || {
        [PEER1, PEER2].iter().all(|peer| vpn.bgp_state(peer) == "Established").then_some(())
    });
    for peer in [PEER1, PEER2] {
        let since = &vpn.vtysh(SUMMARY)["ipv4Unicast"]["peers"][peer]["peerUptimeEstablishedEpoch"];
        let took = since.as_u64().expect("a time").saturating_sub(changed.as_secs());
        println!("BGP with {peer} was established {took} s after the repair");
        assert!(took < MINUTE, "BGP with {peer} took {took} s");
    }
    for confirmation in report["confirmations"].as_array().expect("confirmations") {
        for number in [4, 6, 7] {
            let rungs = confirmation["rungs"].as_array().expect("rungs");
            let rung = rungs.iter().find(|rung| rung["number"] == number).expect("the rung");
            assert_eq!(rung["state"], "confirmed", "{confirmation:#}");
        }
    }
    let learned = || ip::text(&["-n", &vpn.of("gw"), "route", "show", "proto", "bgp"]).contains("10.20.0.0/16");
    wait::until("the learned route", || learned().then_some(()));
    let clear = Capture::leaving(&vpn.of("gw"), "ens5", INSIDE);
    assert!(vpn.pings(REMOTE_HOST), "no answer through the tunnel");
    let report = vpn.verify(0, &["--sample", "1s"]);
    assert_eq!(clear.count(), 0, "something still leaves in the clear");
    let warnings = report["checks"].as_array().expect("checks").iter().filter(|check| check["state"] == "warning");
    assert_eq!(warnings.count(), 0, "{report:#}");
}

/// What vpnfix tells is what `ip -s xfrm state` and vtysh tell.
fn figures(vpn: &Vpn) {
    let before = vpn.associations();
    let report = vpn.verify(0, &["--sample", "1s"]);
    let after = vpn.associations();
    vpn::lie_between(&report["associations"], &before, &after);
    let summary = vpn.vtysh(SUMMARY);
    for neighbour in report["neighbours"].as_array().expect("neighbours") {
        let peer = &summary["ipv4Unicast"]["peers"][neighbour["address"].as_str().expect("an address")];
        assert_eq!(neighbour["state"], peer["state"], "{neighbour:#}");
        assert_eq!(neighbour["received"], peer["pfxRcd"], "{neighbour:#}");
        assert_eq!(neighbour["sent"], peer["pfxSnt"], "{neighbour:#}");
        assert_eq!(neighbour["remote_as"], peer["remoteAs"], "{neighbour:#}");
        assert_eq!(neighbour["local_as"], 65000, "{neighbour:#}");
    }
    assert_eq!(report["neighbours"].as_array().map(Vec::len), Some(2), "{report:#}");
}

#[track_caller]
fn check<'a>(report: &'a Value, id: &str, subject: &str) -> &'a Value {
    let all = report["checks"].as_array().expect("checks");
    let found = all.iter().find(|check| check["id"] == id && check["subject"] == subject);
    found.unwrap_or_else(|| panic!("no check {id} {subject}\n{report:#}"))
}
