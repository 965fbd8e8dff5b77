//! The options of `trace`: what is left out, where the lines go, the command that is traced.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use vpnfix_tests::command::{Run, binary, prepared};
use vpnfix_tests::scene::{INSIDE1, PEER1, PEER2, Scene, WRONG_DEVICE};
use vpnfix_tests::trace::{Trace, Traced};
use vpnfix_tests::{need_root, traffic, wait};

fn of_type<'a>(traced: &'a Traced, kind: &str) -> Vec<&'a Value> {
    traced.lines.iter().filter(|line| line["type"] == kind).collect()
}

#[test]
fn prefixes_protocols_and_ports_are_filtered() {
    need_root!();
    let scene = Scene::hijacked();
    for (words, datagrams) in [
        (["169.254.163.249", "--proto", "udp", "--port", "9"].as_slice(), 10),
        (&["169.254.163.249", "--proto", "tcp"], 0),
        (&["--port", "10"], 0),
        // Another peer's prefix holds none of them.
        (&["169.254.88.80/30"], 0),
        // Of no tunnel: watched, and not judged.
        (&["10.9.0.1"], 0),
    ] {
        let trace = Trace::start_with(&scene, words);
        traffic::blast(&scene.gw(), PEER1, 10);
        let traced = trace.stop().ends(i32::from(datagrams > 0));
        let packets = traced.summary()["packets"].as_array().expect("no packets");
        let counted: u64 = packets.iter().map(|entry| entry["count"].as_u64().expect("no count")).sum();
        assert_eq!(counted, datagrams, "{words:?}: {traced:#?}");
    }
}

#[test]
fn a_destination_of_no_tunnel_is_watched_when_it_is_named() {
    need_root!();
    let scene = Scene::healthy();
    let trace = Trace::start_with(&scene, &["10.9.0.1"]);
    traffic::blast(&scene.gw(), "10.9.0.1".parse().expect("an address"), 5);
    let traced = trace.stop().ends(0);
    assert_eq!(traced.count("packets", "10.9.0.1/32", |entry| entry["device"] == WRONG_DEVICE), 5, "{traced:#?}");
    assert_eq!(traced.verdict("10.9.0.1/32"), "none");
}

#[test]
fn only_the_table_the_device_or_what_is_wrong_is_told() {
    need_root!();
    let scene = Scene::hijacked();
    scene.ip(&["rule add to 169.254.88.80/30 lookup main priority 100"]);
    let told = |words: &[&str]| {
        let trace = Trace::start_with(&scene, words);
        traffic::blast(&scene.gw(), PEER1, 5);
        traffic::blast(&scene.gw(), PEER2, 5);
        trace.stop().ends(1)
    };
    let of_main = told(&["--table", "main"]);
    assert!(!of_type(&of_main, "lookup").is_empty(), "{of_main:#?}");
    assert!(of_type(&of_main, "lookup").iter().all(|line| line["table"] == 254), "{of_main:#?}");
    let by_tunnel = told(&["--device", "Tunnel2"]);
    assert!(!of_type(&by_tunnel, "egress").is_empty(), "{by_tunnel:#?}");
    let events = ["lookup", "egress", "verdict"].map(|kind| of_type(&by_tunnel, kind)).concat();
    assert!(events.iter().all(|line| line["device"] == "Tunnel2"), "{by_tunnel:#?}");
    let wrong = told(&["--wrong-only"]);
    let events = ["lookup", "egress"].map(|kind| of_type(&wrong, kind)).concat();
    assert!(!events.is_empty() && events.iter().all(|line| line["standing"] == "wrong"), "{wrong:#?}");
    let stories = wrong.summary()["stories"].as_array().expect("no stories");
    assert!(!stories.is_empty() && stories.iter().all(|story| story["fate"] == "misrouted"), "{wrong:#?}");
}

#[test]
fn every_namespace_is_named_and_only_the_own_one_judged() {
    need_root!();
    let scene = Scene::hijacked();
    let gw = scene.gw();
    let binary = binary();
    let program = binary.to_str().expect("a path");
    let words = ["netns", "exec", &gw, program, "--netns", "all", "--tunnel", "Tunnel1", "trace", "--format", "json"];
    let words = [&words, ["--for", "600s", "--", "sh", "-c", "kill -STOP $$"].as_slice()].concat();
    let mut command = prepared("ip".as_ref(), scene.run_dir(), &words);
    let child = command.spawn().expect("ip could not be run");
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    // The shell stops itself as soon as it runs, which is after everything is attached; ip has become vpnfix by then.
    let shell = wait::until("the command", || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?.filter_map(Result::ok);
        let listed: String = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok()).collect();
        let shell: i32 = listed.split_whitespace().next()?.parse().ok()?;
        let status = fs::read_to_string(format!("/proc/{shell}/stat")).ok()?;
        status.contains(") T ").then_some(shell)
    });
    traffic::blast(&gw, PEER1, 5);
    // The second far end sends to the same address by its own default route.
    traffic::blast(&scene.of("far2"), PEER1, 7);
    kill(Pid::from_raw(shell), Signal::SIGKILL).expect("the command is gone");
    let run = Run::finish(child, &words).ends(1);
    let lines: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    let summary = lines.last().expect("no lines");
    let sent = |name: &str| -> u64 {
        let own = |story: &&Value| story["netns_name"] == name && story["destination"] == PEER1.to_string();
        let stories = summary["stories"].as_array().expect("no stories").iter().filter(own);
        let egress = stories.flat_map(|story| story["egress"].as_array().expect("no egress"));
        egress.map(|egress| egress["packets"].as_u64().expect("no count")).sum()
    };
    let named = |story: &&Value| story["netns_name"] == scene.of("far2");
    let foreign = summary["stories"].as_array().expect("no stories").iter().find(named).expect("no story of far2");
    assert_eq!(foreign["fate"], "not_judged", "{foreign:#}");
    assert_eq!(foreign["egress"][0]["device"], "eth0", "{foreign:#}");
    assert_eq!(sent(&scene.of("far2")), 7, "{run}");
    assert_eq!(summary["command"]["signal"], 9, "{run}");
}

#[test]
fn lines_go_to_files_that_begin_anew() {
    need_root!();
    let scene = Scene::hijacked();
    let file = scene.run_dir().join("lines");
    let ready = scene.run_dir().join("ready");
    fs::write(&ready, "stale").expect("no file");
    let (out, ready_word) = (file.to_str().expect("a path"), ready.to_str().expect("a path"));
    let words = ["trace", "--format", "json", "--out", out, "--rotate-size", "8K", "--rotate-count", "2"];
    let child = scene.start_vpnfix(&[&words, ["--ready-file", ready_word].as_slice()].concat());
    let pid = child.id();
    wait::until("the ready file", || fs::read_to_string(&ready).ok().filter(|text| text.trim() == pid.to_string()));
    for port in 0..30 {
        traffic::blast(&scene.gw(), if port % 2 == 0 { PEER1 } else { PEER2 }, 3);
    }
    wait::until("the second file", || file.with_extension("1").exists().then_some(()));
    kill(Pid::from_raw(i32::try_from(pid).expect("a process id")), Signal::SIGINT).expect("the trace is gone");
    let run = Run::finish(child, &words).ends(1);
    assert_eq!(run.stdout, "", "{run}");
    assert!(!ready.exists(), "the ready file is left");
    for name in [file.clone(), file.with_extension("1")] {
        let text = fs::read_to_string(&name).expect("no file");
        let first: Value = serde_json::from_str(text.lines().next().expect("no line")).expect("no JSON");
        assert_eq!(first["type"], "start", "{}", name.display());
    }
    let text = fs::read_to_string(&file).expect("no file");
    let last: Value = serde_json::from_str(text.lines().last().expect("no line")).expect("no JSON");
    assert_eq!(last["type"], "summary");
    assert!(!file.with_extension("3").exists());
}

#[test]
fn the_command_starts_attached_gets_signals_and_its_status_is_told() {
    need_root!();
    let scene = Scene::hijacked();
    let started = scene.run_dir().join("started");
    let script = format!("trap 'exit 7' TERM; : > {}; while :; do sleep 0.05; done", started.display());
    let words = ["trace", "--format", "json", "--", "sh", "-c", &script];
    let child = scene.start_vpnfix(&words);
    wait::until("the command", || started.exists().then_some(()));
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a process id")), Signal::SIGTERM).expect("it is gone");
    let run = Run::finish(child, &words).ends(0);
    let summary: Value = serde_json::from_str(run.stdout.lines().last().expect("no line")).expect("no JSON");
    assert_eq!((&summary["command"]["status"], &summary["type"]), (&7.into(), &"summary".into()), "{run}");

    // Everything that the command does is seen, from its first packet on.
    let peer = PEER1.to_string();
    let words = ["trace", "--format", "json", "--", "ping", "-n", "-c", "1", "-W", "1", &peer];
    let run = scene.vpnfix(&words).ends(1);
    let summary: Value = serde_json::from_str(run.stdout.lines().last().expect("no line")).expect("no JSON");
    let packets = summary["packets"].as_array().expect("no packets");
    assert_eq!(packets.iter().filter(|entry| entry["prefix"] == INSIDE1).count(), 1, "{run}");
    assert_eq!(summary["command"]["status"], 1, "{run}");
    // What it prints stays out of the documents.
    assert!(run.stderr.contains("PING"), "{run}");
}

#[test]
fn a_command_that_cannot_be_started_is_an_error() {
    need_root!();
    let scene = Scene::hijacked();
    scene.vpnfix(&["trace", "--", "/nonexistent/program"]).ends(4).tells_an_error();
    scene.vpnfix(&["trace", "--out", "/nonexistent/folder/file"]).ends(4).tells_an_error();
    scene.vpnfix(&["trace", "--ready-file", "/nonexistent/folder/file"]).ends(4).tells_an_error();
    let usage = |words: &[&str]| scene.vpnfix(words).ends(2).tells_an_error();
    usage(&["trace", "--rotate-size", "1M"]);
    usage(&["trace", "--table", "none"]);
    // A full disk is said.
    scene.vpnfix(&["trace", "--for", "1s", "--out", "/dev/full"]).ends(4).tells_an_error();
}
