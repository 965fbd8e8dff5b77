//! The headers of packets that went the wrong way, as tshark reads them: on the wrong device, with comments, as many as tcpdump
//! counts, and without their payload.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use vpnfix_tests::capture::Capture;
use vpnfix_tests::scene::{PEER1, PEER2, Scene, WRONG_DEVICE};
use vpnfix_tests::trace::{Trace, Traced};
use vpnfix_tests::{need_root, skip, traffic};

/// Fields of each packet, as tshark tells them.
const FIELDS: [&str; 8] = [
    "frame.interface_name",
    "frame.comment",
    "frame.packet_flags_direction",
    "ip.dst",
    "udp.dstport",
    "frame.len",
    "frame.cap_len",
    "frame.time_epoch",
];

fn tshark(file: &Path) -> Vec<HashMap<&'static str, String>> {
    let fields = FIELDS.iter().flat_map(|field| ["-e", field]);
    let output = Command::new("tshark")
        .args(["-n", "-r"])
        .arg(file)
        .args(["-T", "fields", "-E", "separator=|"])
        .args(fields)
        .output()
        .expect("tshark could not be run");
    assert!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let packet = |line: &str| FIELDS.into_iter().zip(line.split('|').map(str::to_owned)).collect();
    text.lines().map(packet).collect()
}

fn has_tshark() -> bool {
    Command::new("tshark").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Packets of the summary by a device.
fn counted(traced: &Traced, device: &str) -> u64 {
    let packets = traced.summary()["packets"].as_array().expect("no packets");
    let own = packets.iter().filter(|entry| entry["device"] == device);
    own.map(|entry| entry["count"].as_u64().expect("no count")).sum()
}

#[test]
fn tshark_shows_the_wrong_packets_on_the_wrong_device() {
    need_root!();
    if !has_tshark() {
        skip!("there is no tshark: `cargo xtask setup` installs it");
    }
    let scene = Scene::hijacked();
    let path = scene.run_dir().join("packets.pcapng");
    let tcpdump = Capture::start(&scene.gw(), WRONG_DEVICE, "udp and dst net 169.254.0.0/16");
    let mut trace = Trace::start_with(&scene, &["--packets", path.to_str().expect("a path")]);
    traffic::blast(&scene.gw(), PEER1, 30);
    trace.wait_for("the verdict", |line| line["type"] == "verdict" && line["verdict"] == "misrouted");
    scene.ip(&["rule add to 169.254.163.248/30 lookup main priority 100"]);
    traffic::blast(&scene.gw(), PEER1, 40);
    traffic::blast(&scene.gw(), PEER2, 7);
    let traced = trace.stop().ends(1);
    let seen_by_tcpdump = tcpdump.count();

    let packets = tshark(&path);
    let by =
        |device: &str| -> Vec<_> { packets.iter().filter(|packet| packet["frame.interface_name"] == device).collect() };
    let wrong = by(WRONG_DEVICE);
    assert_eq!(wrong.len() as u64, seen_by_tcpdump, "{packets:#?}");
    assert_eq!(wrong.len() as u64, counted(&traced, WRONG_DEVICE), "{packets:#?}");
    for packet in &wrong {
        let comment = &packet["frame.comment"];
        assert!(comment.starts_with("misrouted: 169.254."), "{packet:#?}");
        assert!(comment.contains("handed to eth0; table 220 by rule `220: from all lookup 220`"), "{packet:#?}");
        assert_eq!((packet["udp.dstport"].as_str(), packet["frame.len"].as_str()), ("9", "54"), "{packet:#?}");
        // Ethernet, IPv4 and UDP, and nothing behind it.
        assert_eq!(packet["frame.cap_len"], "42", "{packet:#?}");
    }
    // Of those that went right the first are kept.
    let right = by("Tunnel1");
    assert_eq!((right.len(), counted(&traced, "Tunnel1")), (20, 40), "{packets:#?}");
    assert!(right.iter().all(|packet| packet["frame.comment"].starts_with("right: 169.254.163.248/30")), "{right:#?}");
    assert!(right.iter().all(|packet| packet["ip.dst"] == PEER1.to_string()), "{right:#?}");
    let file = fs::read(&path).expect("no file");
    assert!(!file.windows(12).any(|bytes| bytes == b"vpnfix scene"), "payload is kept");
    let times: Vec<f64> = packets.iter().map(|packet| packet["frame.time_epoch"].parse().expect("a time")).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn a_flood_is_bounded_and_counted() {
    need_root!();
    if !has_tshark() {
        skip!("there is no tshark: `cargo xtask setup` installs it");
    }
    let scene = Scene::hijacked();
    let path = scene.run_dir().join("packets.pcapng");
    let trace = Trace::start_with(&scene, &["--packets", path.to_str().expect("a path")]);
    traffic::blast(&scene.gw(), PEER1, 20_000);
    let traced = trace.stop().ends(1);
    traced.lost_nothing();
    assert_eq!(counted(&traced, WRONG_DEVICE), 20_000);
    assert_eq!(tshark(&path).len(), 200);
    let told = String::from_utf8_lossy(&fs::read(&path).expect("no file")).into_owned();
    assert!(told.contains("20000 misrouted packets, the first 200 of them here"), "the file does not say how many");
    // What nobody asked for is not told by the kernel either.
    let quiet = Trace::start(&scene);
    traffic::blast(&scene.gw(), PEER1, 10);
    quiet.stop().ends(1).lost_nothing();
}
