//! Bad cases: one clear line, the right status, nothing changed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use vpnfix_tests::command::{Run, binary, copy_program, prepared};
use vpnfix_tests::need_root;
use vpnfix_tests::scene::{PEER1, Scene};

/// The user and group `nobody` on Debian.
const NOBODY: u32 = 65534;

#[test]
fn without_root_nothing_is_done_and_it_is_said() {
    need_root!();
    let scene = Scene::hijacked();
    let rules = scene.rules();
    // A copy that everybody may run, wherever the build lies.
    let copy = scene.run_dir().join("vpnfix");
    copy_program(&binary(), &copy);
    fs::set_permissions(scene.run_dir(), fs::Permissions::from_mode(0o755)).expect("chmod");
    for command in ["fix", "undo", "trace", "diagnose"] {
        let arguments = scene.arguments(&[command]);
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut unprivileged = prepared(&copy, scene.run_dir(), &words);
        unprivileged.uid(NOBODY).gid(NOBODY);
        Run::of(unprivileged, &words).ends(4).tells_an_error();
    }
    for command in ["up", "down", "run"] {
        let words = ["lab", command, "--prefix", "vpnfix-tnobody"];
        let mut unprivileged = prepared(&copy, scene.run_dir(), &words);
        unprivileged.uid(NOBODY).gid(NOBODY);
        Run::of(unprivileged, &words).ends(4).tells_an_error();
    }
    assert_eq!(scene.rules(), rules);
}

#[test]
fn a_kernel_without_btf_is_told_and_nothing_is_changed() {
    need_root!();
    let scene = Scene::hijacked();
    let rules = scene.rules();
    for command in [["trace", "--for", "1s"].as_slice(), &["fix"]] {
        let arguments = scene.arguments(command);
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut blind = prepared(&binary(), scene.run_dir(), &words);
        blind.env("VPNFIX_BTF", "/nonexistent/btf");
        let told = Run::of(blind, &words).ends(4).tells_an_error();
        assert!(told.stderr.contains("BTF") || told.stderr.contains("btf"), "{told}");
    }
    assert_eq!(scene.rules(), rules);
}

#[test]
fn an_unknown_namespace_is_told() {
    need_root!();
    let scene = Scene::healthy();
    for command in ["diagnose", "fix", "undo", "trace"] {
        let told = Run::new(scene.run_dir(), &["--netns", "vpnfix-no-such-netns", command]).ends(4).tells_an_error();
        assert!(told.stderr.contains("vpnfix-no-such-netns"), "{told}");
    }
}

#[test]
fn an_unknown_device_is_told() {
    need_root!();
    let scene = Scene::hijacked();
    let rules = scene.rules();
    for command in ["diagnose", "fix", "trace"] {
        let told = scene.vpnfix(&["--tunnel", "nosuchdev", command]).tells_an_error();
        assert!(matches!(told.status, Some(2 | 4)), "{told}");
        assert!(told.stderr.contains("nosuchdev"), "{told}");
    }
    assert_eq!(scene.rules(), rules);
}

#[test]
fn wrong_usage_is_status_two() {
    need_root!();
    let scene = Scene::hijacked();
    let rules = scene.rules();
    for wrong in [
        ["fix", "--strategy", "nonsense"].as_slice(),
        &["fix", "--priority", "-1"],
        &["trace", "--for", "soon"],
        &["trace", "--to", "10.0.0.0/33"],
        &["diagnose", "--to", "169.254.55."],
        &["--format", "xml", "diagnose"],
        &["no-such-command"],
    ] {
        let told = scene.vpnfix(wrong).ends(2);
        let lines: Vec<&str> = told.stderr.lines().collect();
        assert!(lines.len() <= 2 && lines.iter().all(|line| line.starts_with("vpnfix: ")), "{told}");
    }
    assert_eq!(scene.rules(), rules);
}

#[test]
fn nothing_to_fix_is_success_and_said() {
    need_root!();
    let scene = Scene::healthy();
    let rules = scene.rules();
    let told = scene.vpnfix(&["fix"]).ends(0);
    assert!(!told.stdout.trim().is_empty(), "not a word\n{told}");
    assert_eq!(scene.rules(), rules);
    scene.vpnfix(&["undo"]).ends(0);
    assert_eq!(scene.rules(), rules);
}

#[test]
fn a_second_fix_changes_nothing() {
    need_root!();
    let scene = Scene::hijacked();
    let before = scene.rules();
    scene.vpnfix(&["fix"]).ends(0);
    let repaired = scene.rules();
    assert_ne!(repaired, before);
    scene.vpnfix(&["fix"]).ends(0);
    assert_eq!(scene.rules(), repaired);
    scene.vpnfix(&["undo"]).ends(0);
    assert_eq!(scene.rules(), before);
    scene.vpnfix(&["undo"]).ends(0);
    assert_eq!(scene.rules(), before);
}

#[test]
fn the_operators_own_rules_are_enough_and_stay() {
    need_root!();
    let scene = Scene::hijacked();
    scene.ip(&["rule add from all lookup main suppress_prefixlength 0 priority 100"]);
    let rules = scene.rules();
    scene.vpnfix(&["fix"]).ends(0);
    assert_eq!(scene.rules(), rules);
    scene.vpnfix(&["undo"]).ends(0);
    assert_eq!(scene.rules(), rules);
}

#[test]
fn two_fixes_at_once_repair_once() {
    need_root!();
    let scene = Scene::hijacked();
    let before = scene.rules();
    let both = [scene.start_vpnfix(&["fix"]), scene.start_vpnfix(&["fix"])];
    let ends = both.map(|child| Run::finish(child, &["fix"]));
    assert!(ends.iter().any(|run| run.status == Some(0)), "none succeeded\n{}\n{}", ends[0], ends[1]);
    for run in ends {
        match run.status {
            Some(0) => {}
            Some(4) => drop(run.tells_an_error()),
            _ => panic!("neither done nor refused\n{run}"),
        }
    }
    assert_eq!(scene.device_for(PEER1), "Tunnel1");
    let repaired = scene.rules();
    let mut lines: Vec<&str> = repaired.lines().filter(|line| line.contains("118")).collect();
    let all = lines.len();
    lines.dedup();
    assert_eq!(lines.len(), all, "a rule stands twice:\n{repaired}");
    scene.vpnfix(&["undo"]).ends(0);
    assert_eq!(scene.rules(), before);
}
