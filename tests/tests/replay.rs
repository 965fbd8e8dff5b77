//! Recording a trace and judging it again: the same lines, the same summary, the same exit status; what is not whole is said.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use vpnfix_tests::command::{Run, binary, copy_program, prepared};
use vpnfix_tests::scene::{INSIDE1, PEER1, PEER2, REMOTE_HOST, Scene};
use vpnfix_tests::trace::Trace;
use vpnfix_tests::{need_root, traffic, wait};

/// Nobody, as Debian numbers it.
const NOBODY: u32 = 65534;
/// Names a folder that the recording of the incident is copied to, to be kept in the repository.
const KEEP: &str = "VPNFIX_KEEP_RECORDING";

fn file(scene: &Scene, name: &str) -> PathBuf {
    scene.run_dir().join(name)
}

fn word(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// Replays as a user without any privilege, who is given the file alone.
fn replay(scene: &Scene, path: &Path, further: &[&str]) -> Run {
    let given = path.with_extension("given");
    fs::copy(path, &given).expect("no copy");
    chown(&given, Some(NOBODY), Some(NOBODY)).expect("no chown");
    // The binary may lie where that user may not go.
    let program = scene.run_dir().join("vpnfix");
    if !program.exists() {
        copy_program(&binary(), &program);
    }
    let words = [&["replay", word(&given)], further].concat();
    let mut command = prepared(&program, scene.run_dir(), &words);
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    Run::of(command, &words)
}

fn lines(run: &Run) -> Vec<Value> {
    run.stdout.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

#[test]
fn a_replay_tells_the_lines_of_the_trace() {
    need_root!();
    let scene = Scene::hijacked();
    let path = file(&scene, "recording");
    let mut trace = Trace::start_with(&scene, &["--record", word(&path)]);
    traffic::blast(&scene.gw(), PEER1, 20);
    traffic::blast(&scene.gw(), REMOTE_HOST, 5);
    trace.wait_for("the verdict", |line| line["type"] == "verdict" && line["verdict"] == "misrouted");
    // The first story is told, then the rules change under the trace, and a prefix is learned.
    trace.wait_for("a story", |line| line["type"] == "story");
    scene.ip(&["rule add to 169.254.163.248/30 lookup main priority 100", "route add 10.99.0.0/16 dev Tunnel2"]);
    let learned = "10.99.1.1".parse().expect("an address");
    wait::until("the verdict after the repair", || {
        traffic::blast(&scene.gw(), PEER1, 2);
        traffic::blast(&scene.gw(), learned, 1);
        trace.wait_for("a line", |_| true);
        let is_right = |line: &Value| line["type"] == "verdict" && line["verdict"] == "right";
        let is_learned = |line: &Value| line["prefix"] == "10.99.0.0/16";
        (trace.seen().iter().any(is_right) && trace.seen().iter().any(is_learned)).then_some(())
    });
    traffic::pings(&scene.gw(), PEER2);
    let traced = trace.stop().ends(1);
    traced.lost_nothing();
    assert_eq!(fs::metadata(&path).expect("no recording").mode() & 0o777, 0o600);

    let told = replay(&scene, &path, &["--format", "json"]).ends(1);
    let told = lines(&told);
    for (number, (told, traced)) in told.iter().zip(&traced.lines).enumerate() {
        assert_eq!(told, traced, "line {number}");
    }
    assert_eq!(told.len(), traced.lines.len());
    if let Some(folder) = std::env::var_os(KEEP) {
        fs::copy(&path, Path::new(&folder).join("incident.vpnfix")).expect("no copy");
    }
}

#[test]
fn text_is_the_same_and_so_is_the_command() {
    need_root!();
    let scene = Scene::hijacked();
    let path = file(&scene, "recording");
    let peer = PEER1.to_string();
    let ping = ["--", "ping", "-n", "-q", "-c", "2", "-i", "0.2", "-W", "1", &peer];
    let out = file(&scene, "lines");
    let words = ["trace", "--record", word(&path), "--out", word(&out)];
    scene.vpnfix(&[words.as_slice(), &ping].concat()).ends(1);
    let traced = fs::read_to_string(&out).expect("no lines");
    let told = replay(&scene, &path, &[]).ends(1);
    assert_eq!(told.stdout, traced);
    assert!(told.stdout.contains("MISROUTED") && told.stdout.contains("ended with status 1"), "{told}");
}

#[test]
fn a_killed_trace_leaves_what_can_be_read() {
    need_root!();
    let scene = Scene::hijacked();
    let path = file(&scene, "recording");
    let ready = file(&scene, "ready");
    let lines_file = file(&scene, "lines");
    let words = ["trace", "--format", "json", "--out", word(&lines_file), "--record", word(&path)];
    let child: Child = scene.start_vpnfix(&[&words, ["--ready-file", word(&ready)].as_slice()].concat());
    wait::until("the ready file", || ready.exists().then_some(()));
    traffic::blast(&scene.gw(), PEER1, 5);
    wait::until("a story", || {
        let text = fs::read_to_string(&lines_file).ok()?;
        text.contains("\"type\":\"story\"").then_some(())
    });
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a process id")), Signal::SIGKILL).expect("it is gone");
    Run::finish(child, &words);
    let traced = fs::read_to_string(&lines_file).expect("no lines");

    let run = replay(&scene, &path, &["--format", "json"]).ends(4).tells_an_error();
    assert!(run.stdout.starts_with(&traced), "{run}\ntraced:\n{traced}");
    for words in ["is cut short", "records until", "the counts are missing"] {
        assert!(run.stderr.contains(words), "{words}: {run}");
    }
    let verdict = |line: &Value| line["type"] == "verdict" && line["prefix"] == INSIDE1;
    assert!(lines(&run).iter().any(verdict), "{run}");
}

#[test]
fn other_files_are_told_from_recordings() {
    need_root!();
    let scene = Scene::hijacked();
    let path = file(&scene, "recording");
    let short = ["trace", "--for", "1s", "--format", "json"];
    let lines = scene.vpnfix(&[short.as_slice(), &["--record", word(&path)]].concat()).ends(0).stdout;
    // What is there is never overwritten.
    let again = scene.vpnfix(&["trace", "--for", "1s", "--record", word(&path)]).ends(4).tells_an_error();
    assert!(again.stderr.contains("evidence is never overwritten"), "{again}");

    let refused = |bytes: &[u8], words: &str| {
        let other = file(&scene, "other");
        fs::write(&other, bytes).expect("no file");
        let run = scene.vpnfix(&["replay", word(&other)]).ends(4).tells_an_error();
        assert!(run.stderr.contains(words), "{words}: {run}");
    };
    refused(b"#!/bin/sh\n", "it is no recording of vpnfix");
    refused(lines.as_bytes(), "these are the lines of a trace");
    refused(b"", "it is no recording of vpnfix");
    let mut newer = fs::read(&path).expect("no recording");
    newer[8] = 99;
    refused(&newer, "its format is 99");
    scene.vpnfix(&["replay", "/nonexistent/file"]).ends(4).tells_an_error();
    scene.vpnfix(&["replay", "/"]).ends(4).tells_an_error();
    scene.vpnfix(&["replay"]).ends(2).tells_an_error();
    scene.vpnfix(&["trace", "--record-limit", "2G", "--record", "/tmp/x"]).ends(2).tells_an_error();
    // A full disk is said, and so is a limit that does not hold the host.
    scene.vpnfix(&["trace", "--for", "1s", "--record-limit", "4K", "--record", word(&file(&scene, "small"))]).ends(4);
    assert!(!file(&scene, "small").exists(), "an empty recording is left");
}

#[test]
fn beyond_its_limit_a_recording_says_so_and_the_counts_hold() {
    need_root!();
    let scene = Scene::hijacked();
    let path = file(&scene, "recording");
    let trace = Trace::start_with(&scene, &["--record", word(&path), "--record-limit", "24K"]);
    for _ in 0..60 {
        // Each has a source port of its own, and so is told.
        traffic::blast(&scene.gw(), PEER1, 1);
        traffic::blast(&scene.gw(), PEER2, 1);
    }
    let traced = trace.stop().ends(1);
    assert!(traced.stderr.contains("the recording reached its limit"), "{traced:#?}");
    let run = replay(&scene, &path, &["--format", "json"]).ends(1);
    assert!(run.stderr.contains("had reached its limit"), "{run}");
    let told = lines(&run);
    let summary = told.last().expect("no lines");
    for counts in ["packets", "lookups", "lost", "seconds"] {
        assert_eq!(summary[counts], traced.summary()[counts], "{counts}");
    }
}
