//! Many prefixes behind a tunnel, and many routes beside them: not every one is asked about, and yet each is judged right.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;
use vpnfix_tests::scene::Scene;
use vpnfix_tests::{ip, need_root};

/// More than are all asked about.
const PREFIXES: u32 = 768;
/// More than are all read.
const OTHERS: u32 = 21_000;

/// A gateway whose hijacker somebody has cured for a part of the prefixes.
fn scene() -> Scene {
    let scene = Scene::hijacked();
    let mut lines: Vec<String> = (0..OTHERS)
        .map(|n| format!("route add 100.{}.{}.{}/32 via 10.9.0.1 dev eth0", 64 + n / 65_536, n / 256 % 256, n % 256))
        .collect();
    lines.extend((0..PREFIXES).map(|n| format!("route add 10.{}.{}.0/24 dev Tunnel1", 200 + n / 256, n % 256)));
    lines.push("rule add to 10.201.0.0/17 lookup main priority 90".to_owned());
    ip::batch(Some(&scene.gw()), &lines).expect("the routes");
    scene
}

/// The device by which `ip route get` says that each address leaves.
fn devices(scene: &Scene, addresses: &[&str]) -> Vec<String> {
    let mut ip = Command::new("ip");
    ip.args(["-n", &scene.gw(), "-o", "-b", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = ip.spawn().expect("ip could not be run");
    let lines: String = addresses.iter().map(|address| format!("route get {address}\n")).collect();
    let mut input = child.stdin.take().expect("ip has no standard input");
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = child.wait_with_output().expect("ip ends");
    writer.join().expect("the writer ends").expect("ip reads its input");
    let text = String::from_utf8(output.stdout).expect("ip's output is not UTF-8");
    let device = |line: &str| line.split_whitespace().skip_while(|word| *word != "dev").nth(1).map(str::to_owned);
    text.lines().filter_map(device).collect()
}

#[test]
fn each_of_many_prefixes_is_judged_as_the_kernel_routes_it() {
    need_root!();
    let scene = scene();
    let report = scene.vpnfix(&["diagnose", "--format", "json"]).ends(1).json();
    let all = report["destinations"].as_array().expect("destinations");
    let learned: Vec<&Value> = all.iter().filter(|destination| destination["class"] == "routed").collect();
    assert!(learned.len() > PREFIXES as usize, "{}", learned.len());
    let by_engine = learned.iter().filter(|destination| destination["judged_by"] == "engine").count();
    assert!(by_engine > PREFIXES as usize / 2, "{by_engine}");
    let addresses: Vec<&str> =
        learned.iter().map(|destination| destination["destination"].as_str().expect("an address")).collect();
    let devices = devices(&scene, &addresses);
    assert_eq!(devices.len(), learned.len());
    let mut right = 0;
    for (destination, device) in learned.iter().zip(&devices) {
        assert_eq!(destination["right"], device == "Tunnel1", "{destination:#} leaves by {device}");
        right += u32::from(device == "Tunnel1");
    }
    assert_eq!(right, 128, "the part that somebody cured");
}
