//! Hosts with other people's rules, as those programs make them, and a tunnel beside them that works: nothing is wrong,
//! and nothing that is said may sound so.

use std::net::Ipv4Addr;

use serde_json::Value;
use vpnfix_tests::scene::{PEER1, PEER2, REMOTE_HOST, Scene};
use vpnfix_tests::{need_kind, need_root};

/// Words of faults.
const ALARMING: [&str; 12] = [
    "wrong",
    "fault",
    "fail",
    "error",
    "hijack",
    "misrout",
    "drop",
    "lost",
    "in the clear",
    "broken",
    "danger",
    "unreach",
];

/// Nothing is found, whatever stands there.
#[track_caller]
fn stays_quiet(scene: &Scene) -> Value {
    // What the kernel says comes first: the scene is healthy.
    for (to, device) in [(PEER1, "Tunnel1"), (PEER2, "Tunnel2"), (REMOTE_HOST, "Tunnel1")] {
        assert_eq!(scene.device_for(to), device, "the scene is not healthy");
    }
    let report = scene.vpnfix(&["diagnose", "--format", "json"]).ends(0).json();
    assert_eq!(report["verdict"], "healthy", "{report:#}");
    assert_eq!(report["findings"], serde_json::json!([]), "{report:#}");
    assert_eq!(report["causes"], serde_json::json!([]), "{report:#}");
    for note in report["notes"].as_array().expect("notes") {
        let text = note["text"].as_str().expect("a text");
        // What a rule is called is not vpnfix's word.
        let own: String = text.split('`').step_by(2).collect();
        let alarm = ALARMING.iter().find(|word| own.to_lowercase().contains(**word));
        assert_eq!(alarm, None, "{text}");
    }
    scene.vpnfix(&["fix"]).ends(0);
    report
}

/// A device that stands for one of another program.
fn device(scene: &Scene, name: &str, address: &str) {
    scene.ip(&[
        &format!("link add {name} type veth peer name {name}p"),
        &format!("link set {name} addrgenmode none"),
        &format!("link set {name}p addrgenmode none"),
        &format!("addr add {address} dev {name}"),
        &format!("link set {name} up"),
        &format!("link set {name}p up"),
    ]);
}

#[test]
fn tailscale() {
    need_root!();
    let scene = Scene::healthy();
    device(&scene, "tailscale0", "100.101.102.103/32");
    scene.ip(&[
        "route add 100.100.100.100 dev tailscale0 table 52",
        "route add 100.64.1.2 dev tailscale0 table 52",
        "rule add fwmark 0x80000/0xff0000 lookup main priority 5210",
        "rule add fwmark 0x80000/0xff0000 lookup default priority 5230",
        "rule add fwmark 0x80000/0xff0000 priority 5250 unreachable",
        "rule add from all lookup 52 priority 5270",
    ]);
    stays_quiet(&scene);
}

#[test]
fn wg_quick_with_everything_through_wireguard() {
    need_root!();
    let scene = Scene::healthy();
    device(&scene, "wg0", "10.66.0.2/32");
    scene.ip(&[
        "route add default dev wg0 table 51820",
        "rule add not fwmark 0xca6c lookup 51820 priority 32765",
        "rule add from all lookup main suppress_prefixlength 0 priority 32764",
    ]);
    assert_eq!(scene.device_for(Ipv4Addr::new(8, 8, 8, 8)), "wg0");
    stays_quiet(&scene);
}

#[test]
fn aws_vpc_cni() {
    need_root!();
    let scene = Scene::healthy();
    device(&scene, "eni1", "169.254.1.1/32");
    scene.ip(&[
        "route add 10.9.0.50 dev eni1",
        "route add default via 10.9.0.1 dev eth0 table 2",
        "route add 10.9.0.1 dev eth0 table 2",
        "rule add from all to 10.9.0.50 lookup main priority 512",
        "rule add fwmark 0x80/0x80 lookup main priority 1024",
        "rule add from 10.9.0.50 lookup 2 priority 1536",
    ]);
    stays_quiet(&scene);
}

#[test]
fn docker() {
    need_root!();
    let scene = Scene::healthy();
    device(&scene, "docker0", "172.17.0.1/16");
    stays_quiet(&scene);
}

#[test]
fn ec2_net_utils_with_a_second_interface() {
    need_root!();
    let scene = Scene::healthy();
    device(&scene, "ens6", "10.9.5.20/24");
    scene.ip(&[
        "route add default via 10.9.5.1 dev ens6 table 10001",
        "route add 10.9.5.0/24 dev ens6 table 10001",
        "rule add from 10.9.5.20 lookup 10001 priority 10001 protocol static",
    ]);
    stays_quiet(&scene);
}

#[test]
fn cilium_with_the_rule_of_table_local_moved() {
    need_root!();
    let scene = Scene::healthy();
    scene.ip(&[
        "route add local default dev lo table 2004",
        "route add default via 10.9.0.1 dev eth0 table 2005",
        "rule add fwmark 0x200/0xf00 lookup 2004 priority 9 protocol kernel",
        "rule add fwmark 0xa00/0xf00 lookup 2005 priority 10 protocol kernel",
        "rule add from all lookup local priority 100 protocol kernel",
        "rule del from all lookup local priority 0",
    ]);
    stays_quiet(&scene);
}

#[test]
fn a_vrf_beside_the_tunnels() {
    need_root!();
    let scene = Scene::healthy();
    need_kind!(scene, "vrf table 10");
    device(&scene, "ens6", "10.9.5.20/24");
    scene.ip(&[
        "link add blue type vrf table 10",
        "link set blue up",
        "link set ens6 master blue",
        "route add default via 10.9.5.1 dev ens6 table 10",
    ]);
    stays_quiet(&scene);
}

#[test]
fn a_tunnel_in_a_vrf() {
    need_root!();
    let scene = Scene::healthy();
    need_kind!(scene, "vrf table 10");
    scene.ip(&["link add red type vrf table 10", "link set red up", "link set Tunnel2 master red"]);
    let report = scene.vpnfix(&["diagnose", "--format", "json"]).ends(0).json();
    assert_eq!(report["findings"], serde_json::json!([]), "{report:#}");
}
