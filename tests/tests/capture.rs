//! `vpnfix capture` and `vpnfix report`: what is in a bundle agrees with readers that know nothing of vpnfix, and no bundle
//! looks whole that is not.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;

use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use vpnfix_tests::bundle::{Capturing, all_text, document, rules_of};
use vpnfix_tests::capture::Capture;
use vpnfix_tests::command::Run;
use vpnfix_tests::scene::{INSIDE1, PEER1, PEER2, REMOTE, REMOTE_HOST, Scene, WRONG_DEVICE};
use vpnfix_tests::{ip, need_root, traffic};

fn path(scene: &Scene, name: &str) -> String {
    scene.run_dir().join(name).to_str().expect("UTF-8").to_owned()
}

fn of_side(timeline: &Value, side: &str, device: &str, field: &str) -> u64 {
    let samples = timeline["samples"].as_array().expect("samples").iter();
    let egress = samples.flat_map(|sample| sample["egress"].as_array().expect("a list"));
    egress
        .filter(|egress| egress["side"] == side && egress["device"] == device)
        .map(|egress| egress[field].as_u64().expect("a number"))
        .sum()
}

#[test]
fn a_repair_between_two_states_agrees_with_tcpdump_and_ip() {
    need_root!();
    let mut scene = Scene::hijacked();
    scene.start_responders();
    let bundle = path(&scene, "incident");
    let before = ip::rules_v4(&scene.gw());
    let watched = "udp and (net 169.254.0.0/16 or net 10.77.0.0/16)";
    let on_wire = Capture::start(&scene.gw(), WRONG_DEVICE, watched);
    let mut capturing = Capturing::of(scene.start_vpnfix(&["capture", "-o", &bundle, "--fix", "--for", "4s"]));
    // What leaves before the trace is attached is no concern of its counts: the traffic begins behind it.
    capturing.says("tracing");
    assert_eq!(check(&scene, &format!("{bundle}.partial")).status, Some(1), "a draft is no bundle");
    for _ in 0..5 {
        traffic::blast(&scene.gw(), PEER1, 10);
        traffic::blast(&scene.gw(), REMOTE_HOST, 7);
    }
    let (status, told) = capturing.end();
    assert_eq!(status, Some(0), "{told}");
    assert!(told.contains("the bundle is"), "{told}");
    let on_wire = on_wire.count();
    assert_eq!(check(&scene, &bundle).ends(0).stdout.lines().last().map(|line| line.contains("WHOLE")), Some(true));

    let report = scene.vpnfix(&["report", &bundle, "--format", "json"]).ends(0).json();
    assert_eq!(report["cost"]["packets"], 85, "{:#}", report["cost"]);
    assert_eq!(on_wire, 85, "tcpdump's count");
    assert_eq!(report["cost"]["devices"][0], WRONG_DEVICE);
    let timeline = document(Path::new(&bundle), "timeline.json");
    assert_eq!(of_side(&timeline, "misrouted", WRONG_DEVICE, "packets"), 85, "{timeline:#}");
    assert_eq!(
        of_side(&timeline, "misrouted", WRONG_DEVICE, "bytes"),
        report["cost"]["bytes"].as_u64().expect("bytes")
    );
    assert!(of_side(&timeline, "right", "Tunnel1", "packets") > 0, "the probes go right: {timeline:#}");

    assert_eq!(rules_of(Path::new(&bundle), "before"), before);
    assert_eq!(rules_of(Path::new(&bundle), "after"), ip::rules_v4(&scene.gw()));
    let changes = document(Path::new(&bundle), "changes.json");
    let steps = changes["steps"].as_array().expect("steps");
    assert!(!steps.is_empty());
    for step in steps {
        assert!(step["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{step}");
        assert!(step["do"].as_str().is_some_and(|text| text.starts_with("ip rule add")), "{step}");
    }
    let marks = timeline["marks"].as_array().expect("marks").iter();
    assert_eq!(marks.filter(|mark| mark["what"] == "rule-added").count(), steps.len());
    for device in ["Tunnel1", "Tunnel2", WRONG_DEVICE] {
        let links = document(Path::new(&bundle), "after/links.json");
        let link =
            links.as_array().expect("a list").iter().find(|link| link["name"] == device).expect("the link").clone();
        assert!(link["counters"]["tx_packets"].as_u64().expect("a count") <= scene.sent(device));
    }
    let markdown = fs::read_to_string(Path::new(&bundle).join("report.md")).expect("report.md");
    assert!(
        markdown.contains(INSIDE1) && markdown.contains(REMOTE) && markdown.contains("220: from all lookup 220"),
        "{markdown}"
    );
    everything_is_private(Path::new(&bundle));
    no_key_is_in(&scene, &bundle);
}

fn check(scene: &Scene, bundle: &str) -> Run {
    scene.vpnfix(&["report", "--check", bundle])
}

fn everything_is_private(directory: &Path) {
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(directory), 0o700);
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        if entry.path().is_dir() {
            everything_is_private(&entry.path());
        } else {
            assert_eq!(mode(&entry.path()), 0o600, "{}", entry.path().display());
        }
    }
}

/// Neither the keys of the scene's own SAs nor anything that looks like one.
fn no_key_is_in(scene: &Scene, bundle: &str) {
    let state = ip::text(&["-n", &scene.gw(), "xfrm", "state"]);
    let keys: Vec<&str> =
        state.split_whitespace().filter_map(|word| word.strip_prefix("0x")).filter(|key| key.len() >= 32).collect();
    assert_eq!(keys.is_empty(), !scene.has_real_tunnels());
    for (name, text) in all_text(Path::new(bundle)) {
        assert!(keys.iter().all(|key| !text.contains(key)), "a key is in {name}");
    }
}

#[test]
fn a_single_state_and_a_later_one_compare() {
    need_root!();
    let scene = Scene::hijacked();
    let (first, second) = (path(&scene, "first.tar.zst"), path(&scene, "second"));
    scene.vpnfix(&["capture", "-o", &first, "--for", "1s"]).ends(1);
    check(&scene, &first).ends(0);
    let report = scene.vpnfix(&["report", &first]).ends(0);
    assert!(report.stdout.contains("led astray"), "{report}");
    scene.vpnfix(&["fix", "--no-probe", "--wait", "1ms"]);
    scene.vpnfix(&["capture", "-o", &second, "--for", "1s", "--before", &first]).ends(0);
    let report = scene.vpnfix(&["report", &second, "--format", "json"]).ends(0).json();
    assert!(report["headline"]["text"].as_str().is_some_and(|text| text.starts_with("Right now")), "{report:#}");
    let rules = report["tables"].as_array().expect("tables").iter().find(|table| table["title"] == "Policy rules");
    let rows = rules.expect("the rules")["rows"].as_array().expect("rows");
    assert!(rows.iter().any(|row| row["change"] == "added"), "{rows:#?}");
    // What is there is not written over.
    let again = scene.vpnfix(&["capture", "-o", &second, "--for", "1s"]).ends(4);
    assert!(again.stderr.contains("exists already"), "{again}");
    check(&scene, &second).ends(0);
}

#[test]
fn a_command_is_traced_between_two_states() {
    need_root!();
    let scene = Scene::hijacked();
    let bundle = path(&scene, "command");
    let peer = PEER1.to_string();
    let run = scene.vpnfix(&["capture", "-o", &bundle, "--", "ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", &peer]);
    run.ends(1);
    let report = scene.vpnfix(&["report", &bundle, "--format", "json"]).ends(0).json();
    assert_eq!(report["cost"]["packets"], 2, "{:#}", report["cost"]);
    let marks = document(Path::new(&bundle), "timeline.json")["marks"].clone();
    assert_eq!(marks[0]["what"], "command-began", "{marks}");
    assert!(Path::new(&bundle).join("after/rules.json").exists());
}

#[test]
fn an_interrupted_capture_says_so() {
    need_root!();
    let scene = Scene::hijacked();
    let bundle = path(&scene, "interrupted");
    let mut capturing = Capturing::of(scene.start_vpnfix(&["capture", "-o", &bundle, "--for", "600s"]));
    capturing.says("tracing");
    let pid = Pid::from_raw(i32::try_from(capturing.id()).expect("a process id"));
    kill(pid, Signal::SIGINT).expect("it runs");
    let (status, told) = capturing.end();
    assert_eq!(status, Some(1), "{told}");
    let told = check(&scene, &bundle).ends(1);
    assert!(told.stdout.contains("did not come to its end") && told.stdout.contains("signal"), "{told}");
    let report = scene.vpnfix(&["report", &bundle]).ends(0);
    assert!(report.stdout.contains("interrupted"), "{report}");
}

/// How many captures are killed, unless `VPNFIX_KILL_RUNS` says another number.
const RUNS: u32 = 50;

#[test]
fn killed_at_any_moment_no_bundle_looks_whole_that_is_not() {
    need_root!();
    let scene = Scene::hijacked();
    let runs = std::env::var("VPNFIX_KILL_RUNS").ok().map_or(RUNS, |runs| runs.parse().expect("a number"));
    let whole = path(&scene, "whole.tar.zst");
    let begun = std::time::Instant::now();
    scene.vpnfix(&["capture", "-o", &whole, "--for", "100ms"]).ends(1);
    let length = begun.elapsed();
    let (mut drafts, mut bundles) = (0, 0);
    for number in 0..runs {
        let name = path(&scene, &format!("killed-{number}{}", if number % 2 == 0 { ".tar.zst" } else { "" }));
        let mut child = scene.start_vpnfix(&["capture", "-o", &name, "--for", "100ms"]);
        // Spread over the whole run and a little beyond, in no order.
        let moment = length.mul_f64(f64::from(number * 7919 % runs) / f64::from(runs) * 1.1);
        thread::sleep(moment);
        child.kill().expect("it was started");
        child.wait().expect("it was started");
        let partial = format!("{name}.partial");
        for (there, count) in [(&name, &mut bundles), (&partial, &mut drafts)] {
            if Path::new(there).exists() {
                *count += 1;
                let checked = check(&scene, there);
                let is_whole = fs::symlink_metadata(&name).is_ok() && there == &name;
                match checked.status {
                    // A directory is whole a moment before it gets its name.
                    Some(0) => assert!(is_whole || whole_by_hand(there), "{there}: {checked}"),
                    Some(1 | 4) => assert!(!is_whole, "what has its name is whole: {checked}"),
                    _ => panic!("{checked}"),
                }
            }
        }
    }
    println!("{runs} captures of {length:?} killed: {drafts} drafts, {bundles} bundles");
    assert!(drafts > runs / 4, "only {drafts} kills came amid a capture");
}

/// All that a capture writes is there.
fn whole_by_hand(bundle: &str) -> bool {
    let files: BTreeSet<String> = all_text(Path::new(bundle)).into_iter().map(|(name, _)| name).collect();
    ["report.html", "report.md", "report.txt", "trace.jsonl", "timeline.json", "before/rules.json"]
        .iter()
        .all(|name| files.iter().any(|file| file.ends_with(name)))
}

#[test]
fn a_full_disk_is_told_and_the_repair_stands() {
    need_root!();
    let scene = Scene::hijacked();
    let small = scene.run_dir().join("small");
    fs::create_dir(&small).expect("a directory");
    mount(Some("tmpfs"), &small, Some("tmpfs"), MsFlags::empty(), Some("size=32k")).expect("a small tmpfs");
    let bundle = small.join("bundle");
    let run = scene.vpnfix(&["capture", "-o", bundle.to_str().expect("UTF-8"), "--fix", "--for", "1s"]);
    let left: Vec<_> = fs::read_dir(&small).expect("it is there").flatten().map(|entry| entry.file_name()).collect();
    umount(&small).expect("it was mounted");
    let run = run.ends(4);
    assert!(run.stderr.contains("No space left on device"), "{run}");
    assert!(run.stderr.contains("the rules stand, and live packets confirm it"), "{run}");
    assert_eq!(left, Vec::<std::ffi::OsString>::new(), "nothing that looks like a bundle is left");
    for (to, device) in [(PEER1, "Tunnel1"), (PEER2, "Tunnel2"), (REMOTE_HOST, "Tunnel1")] {
        assert_eq!(scene.device_for(to), device, "{to}");
    }
}

#[test]
fn a_redacted_bundle_tells_no_public_address_and_no_host() {
    need_root!();
    let scene = Scene::hijacked();
    // A public network behind the tunnel, another beside it.
    scene.ip(&["route add 52.95.110.0/24 dev Tunnel1 proto bgp", "route add 8.8.8.8/32 via 10.9.0.1 dev eth0"]);
    let (bundle, map) = (path(&scene, "redacted"), path(&scene, "map.json"));
    scene.vpnfix(&["capture", "-o", &bundle, "--for", "1s", "--redact", "--redact-map", &map]).ends(1);
    check(&scene, &bundle).ends(0);
    let hostname = nix::unistd::gethostname().expect("a name").to_string_lossy().into_owned();
    for (name, text) in all_text(Path::new(&bundle)) {
        for public in ["52.95.110.", "8.8.8.8", "1.1.1.1"] {
            assert!(!text.contains(public), "{public} is in {name}");
        }
        assert!(
            !text.split(|letter: char| !letter.is_alphanumeric() && letter != '-').any(|word| word == hostname),
            "{name}"
        );
    }
    let map: Value = serde_json::from_str(&fs::read_to_string(&map).expect("the mapping")).expect("JSON");
    let stand_in = map["52.95.110.0/24"].as_str().expect("the network").to_owned();
    assert!(stand_in.ends_with(".0/24"), "{stand_in}");
    let routes = fs::read_to_string(Path::new(&bundle).join("before/routes.json")).expect("routes");
    assert!(routes.contains(&stand_in), "{stand_in}: {routes}");
    // What tunnels are about stays.
    assert!(routes.contains(INSIDE1) && routes.contains(REMOTE), "{routes}");
}

#[test]
fn an_incident_of_watch_has_a_report() {
    need_root!();
    let scene = Scene::healthy();
    let mut watch = vpnfix_tests::watch::Watch::fixing(&scene, &["--wait", "5s"]);
    watch.wait_state("Tunnel1", "healthy");
    scene.hijack();
    watch.wait_repair("confirmed");
    watch.stop().ends(0);
    let kept = fs::read_dir(scene.run_dir().join("incidents")).expect("incidents").flatten().next().expect("one");
    let report = scene.vpnfix(&["report", kept.path().to_str().expect("UTF-8")]).ends(0);
    assert!(report.stdout.contains("Repaired, and confirmed on live packets"), "{report}");
    let told = scene.vpnfix(&["report", "--check", kept.path().to_str().expect("UTF-8")]).ends(4);
    assert!(told.stderr.contains("no bundle"), "{told}");
}

#[test]
fn wrong_usage_is_told() {
    need_root!();
    let scene = Scene::hijacked();
    let bundle = path(&scene, "b");
    scene.vpnfix(&["capture"]).ends(2);
    scene.vpnfix(&["capture", "-o", &bundle, "--fix", "--", "true"]).ends(2);
    scene.vpnfix(&["capture", "-o", &bundle, "--no-probe"]).ends(2);
    scene.vpnfix(&["diagnose", "--format", "html"]).ends(2).tells_an_error();
    scene.vpnfix(&["report", "/nonexistent"]).ends(4).tells_an_error();
    let missing = scene.vpnfix(&["capture", "-o", "/nonexistent/b", "--fix"]).ends(4).tells_an_error();
    assert!(missing.stderr.contains("No such file"), "{missing}");
    assert!(!scene.rules().contains("proto 118"), "nothing was changed");
}
