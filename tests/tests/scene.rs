//! The scenes themselves: what the other tests take for granted.

use std::path::Path;

use vpnfix_tests::scene::{PEER1, PEER2, REMOTE_HOST, Scene, WRONG_DEVICE};
use vpnfix_tests::{need_root, traffic};

#[test]
fn a_healthy_scene_routes_into_its_tunnels_and_is_answered() {
    need_root!();
    let mut scene = Scene::healthy();
    scene.start_responders();
    for (address, tunnel) in [(PEER1, "Tunnel1"), (PEER2, "Tunnel2"), (REMOTE_HOST, "Tunnel1")] {
        assert_eq!(scene.device_for(address), tunnel);
        assert!(traffic::pings(&scene.gw(), address), "{address} does not answer");
        assert!(traffic::bgp_connects(&scene.gw(), address), "{address} does not answer on TCP 179");
    }
}

#[test]
fn a_hijacked_scene_sends_everything_the_wrong_way_and_counts_exactly() {
    need_root!();
    let scene = Scene::hijacked();
    scene.second_table();
    for address in [PEER1, PEER2, REMOTE_HOST] {
        assert_eq!(scene.device_for(address), WRONG_DEVICE);
    }
    assert!(!traffic::pings(&scene.gw(), PEER1));
    let (wrong, right) = (scene.sent(WRONG_DEVICE), scene.sent("Tunnel1"));
    let sent = traffic::blast(&scene.gw(), PEER1, 1000);
    assert_eq!(scene.sent(WRONG_DEVICE) - wrong, sent, "something else uses the device");
    assert_eq!(scene.sent("Tunnel1"), right);
}

#[test]
fn a_scene_leaves_nothing_behind() {
    need_root!();
    let scene = Scene::healthy();
    let (run_dir, namespaces) = (scene.run_dir().to_owned(), ["gw", "lan", "far1", "far2"].map(|host| scene.of(host)));
    drop(scene);
    assert!(!run_dir.exists());
    for namespace in namespaces {
        assert!(!Path::new("/run/netns").join(&namespace).exists(), "{namespace} is still there");
    }
}
