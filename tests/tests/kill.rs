//! SIGKILL at each system call of `fix` and `undo` that leaves a trace: whatever was done by then, `undo` ends it.
#![cfg(target_arch = "x86_64")]

use std::fs;
use std::path::PathBuf;

use vpnfix_tests::command::{binary, prepared};
use vpnfix_tests::scene::{PEER1, REMOTE_HOST, Scene};
use vpnfix_tests::syscalls::{self, Call, Fate, RTM_NEWRULE, Traced};
use vpnfix_tests::{ip, need_root};

/// How many runs are killed, unless `VPNFIX_KILL_RUNS` says another number: in an emulated machine each takes seconds.
const RUNS: usize = 210;
/// Learned prefixes: each is a rule, and so five more system calls to be killed at.
const PREFIXES: usize = 18;

const FIX: [&str; 6] = ["fix", "--strategy", "prefixes", "--no-probe", "--wait", "1ms"];

fn runs() -> usize {
    std::env::var("VPNFIX_KILL_RUNS").ok().map_or(RUNS, |runs| runs.parse().expect("VPNFIX_KILL_RUNS is a number"))
}

#[test]
fn a_fix_or_an_undo_killed_anywhere_leaves_nothing_that_undo_does_not_end() {
    need_root!();
    let scene = scene();
    let before = state(&scene);
    let fixed = traced(&scene, &FIX, |_, _| Fate::Made);
    assert!(matches!(fixed.run.status, Some(0 | 3)), "{}", fixed.run);
    let rules = scene.rules();
    assert_eq!(ours(&scene), PREFIXES + 3, "{rules}");
    let journal = journal(&scene).expect("a journal");
    let journaled = fs::read(&journal).expect("the journal");
    let undone = traced(&scene, &["undo"], |_, _| Fate::Made);
    assert_eq!(undone.run.status, Some(0), "{}", undone.run);
    assert_eq!(state(&scene), before);

    let (fixes, undos) = (points(&fixed.calls, true), points(&undone.calls, false));
    let of_fix = (runs() / 2).min(fixes.len());
    let fixes = spread(&fixes, of_fix);
    let undos = spread(&undos, runs() - of_fix);
    assert_eq!(fixes.len() + undos.len(), runs(), "too few system calls to be killed at");
    let mut half = 0;
    for point in fixes {
        let killed = traced(&scene, &FIX, kill_at(point));
        assert_eq!(killed.run.status, None, "not killed at {point}: {}", killed.run);
        half += usize::from(!matches!(ours(&scene), 0 | PREFIXES_AND_ALL));
        scene.vpnfix(&["undo"]).ends(0);
        assert_eq!(state(&scene), before, "after a fix killed at {point}");
        assert!(self::journal(&scene).is_none(), "a journal is left");
    }
    let again: Vec<String> = rules.lines().filter(|line| line.contains("118")).map(command).collect();
    for point in undos {
        ip::batch(Some(&scene.gw()), &again).expect("the rules of a fix");
        fs::write(&journal, &journaled).expect("the journal of a fix");
        let killed = traced(&scene, &["undo"], kill_at(point));
        assert_eq!(killed.run.status, None, "not killed at {point}: {}", killed.run);
        half += usize::from(!matches!(ours(&scene), 0 | PREFIXES_AND_ALL));
        scene.vpnfix(&["undo"]).ends(0);
        assert_eq!(state(&scene), before, "after an undo killed at {point}");
    }
    assert!(half * 3 > runs(), "only {half} of {} kills came amid the changes", runs());
}

const PREFIXES_AND_ALL: usize = PREFIXES + 3;

/// What the next `fix` finds it takes back first, says so, and then repairs.
#[test]
fn the_next_fix_starts_anew_and_says_so() {
    need_root!();
    let scene = scene();
    let before = state(&scene);
    let whole = traced(&scene, &FIX, |_, _| Fate::Made);
    scene.vpnfix(&["undo"]).ends(0);
    let mut points = points(&whole.calls, true);
    // Before the last call it is written that the rules stay: nothing is unfinished then.
    points.pop();
    let points = spread(&points, if runs() < RUNS { 2 } else { 4 });
    for point in points {
        traced(&scene, &FIX, kill_at(point));
        let left = ours(&scene);
        let planned = scene.vpnfix(&["fix", "--dry-run", "--format", "json"]);
        assert_eq!(ours(&scene), left, "a dry run changes nothing");
        let next = scene.vpnfix(&["fix", "--format", "json"]).ends(0);
        for run in [&planned, &next] {
            let notes = run.json()["notes"].to_string();
            assert_eq!(notes.contains("undo-journal"), left > 0 || journal_said_so(&notes), "{left} rules: {run}");
        }
        for to in [PEER1, REMOTE_HOST] {
            assert_eq!(scene.device_for(to), "Tunnel1", "{to}");
        }
        scene.vpnfix(&["undo"]).ends(0);
        assert_eq!(state(&scene), before);
    }
}

/// A run that was killed before its first rule stood has left a journal, and nothing else.
fn journal_said_so(notes: &str) -> bool {
    notes.contains("nothing of it stands")
}

fn scene() -> Scene {
    let scene = Scene::hijacked();
    let routes: Vec<String> = (0..PREFIXES)
        .map(|number| format!("route add 10.100.{number}.0/24 via {PEER1} dev Tunnel1 proto bgp"))
        .collect();
    scene.ip(&routes.iter().map(String::as_str).collect::<Vec<_>>());
    scene
}

/// The rules, and the routes but for timers.
fn state(scene: &Scene) -> (String, String) {
    let routes = ["-4", "-6"].map(|family| ip::text(&[family, "-n", &scene.gw(), "route", "show", "table", "all"]));
    let timeless = |line: &str| line.split(" expires ").next().unwrap_or_default().to_owned();
    (scene.rules(), routes.concat().lines().map(timeless).collect::<Vec<_>>().join("\n"))
}

fn ours(scene: &Scene) -> usize {
    scene.rules().lines().filter(|line| line.contains("proto 118")).count()
}

fn journal(scene: &Scene) -> Option<PathBuf> {
    let mut files = fs::read_dir(scene.run_dir()).expect("the run folder").map(|entry| entry.expect("an entry").path());
    files.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("journal-")))
}

/// The `ip` command that adds a rule of table main that `ip -d rule` shows.
fn command(line: &str) -> String {
    let (priority, words) = line.split_once(':').expect("a rule");
    let words: Vec<&str> = words.split_whitespace().filter(|word| *word != "unicast").collect();
    format!("rule add priority {priority} {}", words.join(" ").replace("proto 118", "protocol 118"))
}

fn traced(scene: &Scene, further: &[&str], judge: impl FnMut(usize, Call) -> Fate) -> Traced {
    let arguments = scene.arguments(further);
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    syscalls::run(prepared(&binary(), scene.run_dir(), &words), &words, judge)
}

/// Kills before the call of this number, counted from the journal's first one: what comes before changes nothing.
fn kill_at(point: usize) -> impl FnMut(usize, Call) -> Fate {
    let mut first = None;
    move |number, call| {
        if call == Call::Unlink {
            first.get_or_insert(number);
        }
        if first.is_some_and(|first| number - first == point) { Fate::Killed } else { Fate::Made }
    }
}

/// The calls to be killed at: of a fix up to when the last rule is written down, and some of the check behind it.
fn points(calls: &[Call], is_fix: bool) -> Vec<usize> {
    let first = calls.iter().position(|call| *call == Call::Unlink).expect("a journal is written");
    if !is_fix {
        return (0..calls.len() - first).collect();
    }
    let last_rule = calls.iter().rposition(|call| *call == Call::Request(RTM_NEWRULE)).expect("rules are added");
    let kept = calls.iter().rposition(|call| *call == Call::Sync).expect("the journal is synced");
    let check: Vec<usize> = (last_rule + 5..=kept).collect();
    let some = spread(&check, 8);
    (first..last_rule + 5).chain(some).map(|call| call - first).collect()
}

/// So many of a list, from its first to its last.
fn spread(list: &[usize], count: usize) -> Vec<usize> {
    let count = count.min(list.len());
    (0..count).map(|index| list[index * (list.len() - 1) / count.saturating_sub(1).max(1)]).collect()
}
