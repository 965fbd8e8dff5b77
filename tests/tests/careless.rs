//! What a careless repair breaks: hosts with other people's rules beside the hijacker. The judge is the kernel
//! (`ip route get`): of the scene before and after, and of a twin that never had a hijacker.

use vpnfix_tests::ip::{self, decision};
use vpnfix_tests::scene::{PEER1, PEER2, REMOTE_HOST, Scene};
use vpnfix_tests::{need_kind, need_root};

/// What others have on a host: `ip` commands, and flows of theirs.
struct Others {
    name: &'static str,
    setup: &'static [&'static str],
    flows: &'static [&'static str],
}

/// A host of its own.
const fn nothing() -> Others {
    Others { name: "nobody", setup: &[], flows: &[] }
}

const SECOND_INTERFACE: Others = Others {
    name: "a second interface",
    setup: &[
        "addr add 10.9.0.99/32 dev eth0",
        "route add default via 10.9.0.1 dev eth0 table 10001",
        "rule add from 10.9.0.99 lookup 10001 priority 10001",
    ],
    flows: &[
        "10.9.0.77 from 10.9.0.99",
        "8.8.8.8 from 10.9.0.99",
        "10.77.3.4 from 10.9.0.99",
        "169.254.163.249 from 10.9.0.99",
    ],
};

const VPC_CNI: Others = Others {
    name: "VPC CNI",
    setup: &[
        "link add eni1 type veth peer name eni1p",
        "link set eni1 addrgenmode none",
        "link set eni1p addrgenmode none",
        "link set eni1 up",
        "link set eni1p up",
        "route add 10.9.0.50 dev eni1",
        "route add default via 10.9.0.1 dev eth0 table 2",
        "route add 10.9.0.1 dev eth0 table 2",
        "rule add from all to 10.9.0.50 lookup main priority 512",
        "rule add fwmark 0x80/0x80 lookup main priority 1024",
        "rule add from 10.9.0.50 lookup 2 priority 1536",
    ],
    flows: &[
        "10.9.0.50",
        "10.9.0.77 mark 0x80",
        "8.8.8.8 mark 0x80",
        "8.8.8.8 from 10.9.0.50 iif eni1",
        "10.77.3.4 from 10.9.0.50 iif eni1",
        "169.254.88.81 from 10.9.0.50 iif eni1",
    ],
};

/// NetBird's rules stand at 105 and 110, Cilium's at 109 to 112, charon-nm's at 210.
const BETWEEN: Others = Others {
    name: "NetBird, Cilium and charon-nm",
    setup: &[
        "route add default via 10.9.0.1 dev eth0 table 7120",
        "route add 10.55.0.0/16 via 10.9.0.7 dev eth0 table 7120",
        "route add 10.66.0.0/16 via 10.9.0.8 dev eth0 table 302",
        "route add 10.44.0.0/16 via 10.9.0.9 dev eth0 table 210",
        "rule add from all lookup main suppress_prefixlength 8 priority 105",
        "rule add fwmark 0x1bd00 lookup 7120 priority 110",
        "rule add fwmark 0x200/0xf00 lookup 302 priority 111",
        "rule add not fwmark 0xd2 lookup 210 priority 210",
    ],
    flows: &[
        "10.55.0.1 mark 0x1bd00",
        "10.66.0.1 mark 0x200",
        "10.44.0.1",
        "10.44.0.1 mark 0xd2",
        "10.9.0.77 mark 0x1bd00",
    ],
};

/// Questions that a host may be asked, in the words of `ip route get`.
fn grid(others: &Others) -> Vec<String> {
    let of_tunnels = ["169.254.163.249", "169.254.88.81", "10.77.3.4"];
    let elsewhere = ["10.9.0.1", "10.9.0.77", "8.8.8.8", "169.254.169.254", "198.18.1.2"];
    let sources = ["", " from 10.9.0.10", " from 169.254.163.250"];
    let mut grid: Vec<String> = others.flows.iter().map(|flow| (*flow).to_owned()).collect();
    for source in sources {
        for destination in of_tunnels.into_iter().chain(elsewhere) {
            grid.extend(["", " mark 0x80", " mark 0x1bd00"].map(|mark| format!("{destination}{source}{mark}")));
        }
    }
    grid
}

fn decisions(scene: &Scene, grid: &[String]) -> String {
    ip::decisions(&scene.gw(), grid)
}

/// Repaired by `auto`, the host decides like one that never had a hijacker as soon as strongSwan and its table are gone,
/// our rules still there.
#[track_caller]
fn decides_like_its_healthy_twin(others: &Others) {
    let (twin, scene) = (Scene::healthy(), Scene::healthy());
    twin.ip(others.setup);
    scene.ip(others.setup);
    scene.hijack();
    let grid = grid(others);
    let healthy = decisions(&twin, &grid);
    assert_ne!(decisions(&scene, &grid), healthy, "{}: the hijacker takes nothing", others.name);
    scene.vpnfix(&["fix"]).ends(0);
    for (to, device) in [(PEER1, "Tunnel1"), (PEER2, "Tunnel2"), (REMOTE_HOST, "Tunnel1")] {
        assert_eq!(scene.device_for(to), device, "{}", others.name);
    }
    scene.ip(&["rule del priority 220", "route flush table 220"]);
    assert!(scene.rules().contains("118"), "our rules still stand");
    assert_eq!(decisions(&scene, &grid), healthy, "{}", others.name);
}

#[test]
fn strongswan_gone_afterwards_leaves_no_decision_of_ours() {
    need_root!();
    decides_like_its_healthy_twin(&nothing());
}

#[test]
fn a_second_interface_keeps_its_decisions() {
    need_root!();
    decides_like_its_healthy_twin(&SECOND_INTERFACE);
}

#[test]
fn the_rules_of_vpc_cni_keep_their_decisions() {
    need_root!();
    decides_like_its_healthy_twin(&VPC_CNI);
}

/// With the hijacker in place, the flows of those whose rules stand before it go as before.
#[test]
fn rules_between_ours_and_the_hijackers_keep_their_decisions() {
    need_root!();
    let scene = Scene::healthy();
    // Their lookup of main would bring the tunnels home by itself; here they have none.
    let setup: Vec<&str> =
        BETWEEN.setup.iter().copied().filter(|line| !line.contains("suppress_prefixlength")).collect();
    scene.ip(&setup);
    scene.hijack();
    let flows: Vec<String> = BETWEEN.flows.iter().map(|flow| (*flow).to_owned()).collect();
    let before = decisions(&scene, &flows);
    assert!(["7120", "302", "210"].iter().all(|table| before.contains(&format!("table {table}"))), "{before}");
    scene.vpnfix(&["fix"]).ends(0);
    assert_eq!(decisions(&scene, &flows), before);
    for (to, device) in [(PEER1, "Tunnel1"), (PEER2, "Tunnel2"), (REMOTE_HOST, "Tunnel1")] {
        assert_eq!(scene.device_for(to), device);
    }
}

#[test]
fn rules_of_others_between_are_still_obeyed_when_strongswan_is_gone() {
    need_root!();
    let others = Others {
        setup: &[
            "route add default via 10.9.0.1 dev eth0 table 7120",
            "route add 10.55.0.0/16 via 10.9.0.7 dev eth0 table 7120",
            "route add 10.44.0.0/16 via 10.9.0.9 dev eth0 table 210",
            "rule add fwmark 0x1bd00 lookup 7120 priority 110",
            "rule add not fwmark 0xd2 lookup 210 priority 210",
        ],
        ..BETWEEN
    };
    decides_like_its_healthy_twin(&others);
}

/// Who forces main-first on a host where the proof speaks against it is warned, and gets it: no control target fares ill.
#[test]
fn forced_main_first_is_warned_of() {
    need_root!();
    let scene = Scene::healthy();
    scene.ip(SECOND_INTERFACE.setup);
    scene.hijack();
    let rules = scene.rules();
    let told = scene.vpnfix(&["fix", "--strategy", "main-first"]).ends(0);
    assert!(told.stdout.contains("warning") && told.stdout.contains("from 10.9.0.99"), "{told}");
    assert_eq!(scene.device_for(REMOTE_HOST), "Tunnel1");
    scene.vpnfix(&["undo"]).ends(0);
    assert_eq!(scene.rules(), rules);
}

/// A policy-based child lives in table 220. By a wider route of main its traffic would leave in the clear: that plan is
/// refused before anything is changed, also where it is forced.
#[test]
fn a_policy_based_childs_traffic_stays_with_its_policy() {
    need_root!();
    let scene = Scene::hijacked();
    scene.ip(&[
        "route add 172.31.5.0/24 via 10.9.0.1 dev eth0 src 10.9.0.10 table 220",
        "route add 172.16.0.0/12 via 10.9.0.7 dev eth0",
    ]);
    let (rules, before) = (scene.rules(), decision(&scene.gw(), "172.31.5.9"));
    let refused = scene.vpnfix(&["fix", "--strategy", "main-first"]).ends(4).tells_an_error();
    assert!(refused.stderr.contains("refused") && refused.stderr.contains("172.31.5.0/24"), "{refused}");
    assert_eq!(scene.rules(), rules);
    let dry = scene.vpnfix(&["fix", "--dry-run", "--strategy", "main-first"]).ends(1);
    assert!(dry.stdout.contains("will refuse this plan"), "{dry}");
    scene.vpnfix(&["fix"]).ends(0);
    assert_eq!(decision(&scene.gw(), "172.31.5.9"), before);
}

/// The flows of a VRF come home by an l3mdev rule of our own, and all others stay where they are.
#[test]
fn a_tunnel_in_a_vrf_gets_its_flows_back() {
    need_root!();
    let scene = Scene::healthy();
    need_kind!(scene, "vrf table 10");
    scene.put_into_vrf();
    scene.ip(&["route add 10.77.0.0/16 via 169.254.163.249 dev Tunnel1 table 500 proto bgp"]);
    let flows = ["169.254.163.249 oif red", "10.77.3.4 oif red", "10.99.0.1 oif red"].map(str::to_owned);
    let others = grid(&nothing());
    let healthy = decisions(&scene, &flows);
    scene.hijack();
    let (hijacked, elsewhere, rules) = (decisions(&scene, &flows), decisions(&scene, &others), scene.rules());
    assert_ne!(hijacked, healthy);
    let dry = scene.vpnfix(&["fix", "--dry-run", "--strategy", "vrf", "--format", "json"]).ends(1).json();
    assert_eq!(dry["plan"]["steps"][0]["do"], "ip rule add priority 219 from all l3mdev protocol 118", "{dry:#}");
    // Nobody answers here, so the confirmation may lack what hangs on answers.
    let run = scene.vpnfix(&["fix", "--strategy", "vrf", "--wait", "1s"]);
    assert!(matches!(run.status, Some(0 | 3)), "{run}");
    assert_eq!(decisions(&scene, &flows), healthy);
    assert_eq!(decisions(&scene, &others), elsewhere);
    scene.vpnfix(&["undo"]).ends(0);
    assert_eq!((scene.rules(), decisions(&scene, &flows)), (rules, hijacked));
}
