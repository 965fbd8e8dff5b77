//! Others change the host while a repair is under way: at the very system calls between its steps.
#![cfg(target_arch = "x86_64")]

use vpnfix_tests::command::{binary, prepared};
use vpnfix_tests::scene::{INSIDE1, PEER1, REMOTE_HOST, Scene, WRONG_DEVICE};
use vpnfix_tests::syscalls::{self, Call, Fate, RTM_NEWRULE, Traced};
use vpnfix_tests::{ip, need_root};

const FIX: [&str; 6] = ["fix", "--strategy", "inside", "--no-probe", "--wait", "1ms"];
const OURS: &str = "rule del to 169.254.163.248/30 lookup main priority 100 protocol 118";

/// When others act.
#[derive(Clone, Copy)]
enum When {
    /// Before the first rule is added.
    Planned,
    /// Before the first question behind the last rule.
    Applied,
    /// When the journal says that the rules stay.
    Kept,
}

#[test]
fn our_rule_deleted_behind_the_change_takes_the_others_back() {
    need_root!();
    for when in [When::Applied, When::Kept] {
        let scene = Scene::hijacked();
        let before = (scene.rules(), scene.routes());
        let fixed = meanwhile(&scene, when, || scene.ip(&[OURS])).run.ends(5);
        assert!(fixed.stdout.contains(INSIDE1) && fixed.stdout.contains("found gone"), "{fixed}");
        assert_eq!((scene.rules(), scene.routes()), before, "{fixed}");
    }
}

#[test]
fn the_tunnel_gone_between_plan_and_change_takes_it_back() {
    need_root!();
    let scene = Scene::hijacked();
    let before = scene.rules();
    let fixed = meanwhile(&scene, When::Planned, || scene.ip(&["link del Tunnel1"])).run.ends(5);
    assert_eq!(scene.rules(), before, "{fixed}");
    assert!(!scene.routes().contains("Tunnel1"));
}

/// The peer goes by its tunnel all the same, but by a rule that the prediction did not know: nothing that was concluded from
/// the prediction is certain any more.
#[test]
fn an_answer_that_was_not_predicted_takes_the_change_back() {
    need_root!();
    let scene = Scene::hijacked();
    scene.ip(&[&format!("route add {INSIDE1} dev Tunnel1 table 77")]);
    let before = scene.rules();
    let theirs = format!("rule add to {INSIDE1} lookup 77 priority 50");
    let fixed = meanwhile(&scene, When::Applied, || scene.ip(&[&theirs])).run.ends(5);
    assert!(fixed.stdout.contains("routing, as predicted") && fixed.stdout.contains("table 77"), "{fixed}");
    assert_eq!(scene.device_for(PEER1), "Tunnel1", "{fixed}");
    scene.ip(&[&theirs.replace(" add ", " del ")]);
    assert_eq!(scene.rules(), before, "{fixed}");
}

/// What others add or delete meanwhile stays as they left it, whatever comes of the repair.
#[test]
fn the_changes_of_others_stay() {
    need_root!();
    for when in [When::Planned, When::Applied] {
        let scene = Scene::hijacked();
        let theirs =
            ["rule add to 192.0.2.0/24 lookup 220 priority 101", "rule add from 192.0.2.9 lookup main priority 100"];
        let fixed = meanwhile(&scene, when, || scene.ip(&theirs)).run;
        assert!(matches!(fixed.status, Some(0 | 3 | 5)), "{fixed}");
        scene.vpnfix(&["undo"]).ends(0);
        let rules = scene.rules();
        assert!(rules.contains("to 192.0.2.0/24") && rules.contains("from 192.0.2.9"), "{rules}");
        assert!(!rules.contains("118"), "{rules}");
        scene.ip(&theirs.map(|line| line.replace(" add ", " del ")).each_ref().map(String::as_str));

        let before = scene.rules();
        let fixed = meanwhile(&scene, when, || scene.ip(&["rule del priority 220"])).run;
        assert!(matches!(fixed.status, Some(0 | 3 | 5)), "{fixed}");
        scene.vpnfix(&["undo"]).ends(0);
        let expected: String =
            before.lines().filter(|line| !is_hijacker(line)).map(|line| format!("{line}\n")).collect();
        assert_eq!(scene.rules(), expected);
    }
}

/// Of IPv4 alone: the scene has no other.
fn is_hijacker(line: &str) -> bool {
    line.starts_with("220:")
}

#[test]
fn a_second_fix_is_told_who_is_at_it() {
    need_root!();
    let scene = Scene::hijacked();
    let before = scene.rules();
    let mut second = Vec::new();
    let first = meanwhile(&scene, When::Planned, || {
        second.push(scene.vpnfix(&["fix"]));
        second.push(scene.vpnfix(&["undo"]));
    });
    assert!(matches!(first.run.status, Some(0 | 3)), "{}", first.run);
    for refused in second {
        let refused = refused.ends(4).tells_an_error();
        let (_, process) = refused.stderr.split_once("(process ").expect("who holds the lock");
        let pid: u32 = process.split(')').next().and_then(|pid| pid.parse().ok()).expect("a process id");
        assert!(pid > 1, "{refused}");
    }
    for to in [PEER1, REMOTE_HOST] {
        assert!(scene.device_for(to) == "Tunnel1" || to == REMOTE_HOST, "{to}");
    }
    scene.vpnfix(&["undo"]).ends(0);
    assert_eq!(scene.rules(), before);
    assert_eq!(scene.device_for(PEER1), WRONG_DEVICE);
}

/// A rule of the same effect that stands twice: others add ours again as fast as it goes.
#[test]
fn an_undo_that_others_work_against_says_so() {
    need_root!();
    let scene = Scene::hijacked();
    let before = scene.rules();
    scene.vpnfix(&FIX);
    let add_again = OURS.replace(" del ", " add ");
    let undone = traced(&scene, &["undo"], |_, call| {
        let standing = ip::text(&["-n", &scene.gw(), "rule"]);
        if matches!(call, Call::Request(_)) && !standing.contains(INSIDE1) {
            scene.ip(&[&add_again]);
        }
        Fate::Made
    });
    let undone = undone.run.ends(3);
    assert!(undone.stdout.contains("others added it again"), "{undone}");
    scene.vpnfix(&["undo"]).ends(0);
    assert_eq!(scene.rules(), before);
}

fn traced(scene: &Scene, further: &[&str], judge: impl FnMut(usize, Call) -> Fate) -> Traced {
    let arguments = scene.arguments(further);
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    syscalls::run(prepared(&binary(), scene.run_dir(), &words), &words, judge)
}

/// Runs a fix and lets others act once.
fn meanwhile(scene: &Scene, when: When, act: impl FnOnce()) -> Traced {
    let mut act = Some(act);
    let (mut rules, mut syncs) = (0, 0);
    traced(scene, &FIX, |_, call| {
        let is_rule = call == Call::Request(RTM_NEWRULE);
        // Both tunnels' rules are written down before the check asks anything.
        let due = match when {
            When::Planned => is_rule,
            When::Applied => rules == 2 && syncs == 2 && matches!(call, Call::Request(_)),
            When::Kept => rules == 2 && syncs == 3 && matches!(call, Call::Request(_)),
        };
        rules += usize::from(is_rule);
        syncs += usize::from(rules > 0 && call == Call::Sync);
        if due && let Some(act) = act.take() {
            act();
        }
        Fate::Made
    })
}
