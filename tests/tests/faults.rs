//! Each netlink request made to fail in turn: what was changed is taken back, and what failed is said.
#![cfg(target_arch = "x86_64")]

use nix::errno::Errno;
use vpnfix_tests::command::{binary, prepared};
use vpnfix_tests::need_root;
use vpnfix_tests::scene::{PEER1, PEER2, Scene};
use vpnfix_tests::syscalls::{self, Call, Fate, RTM_DELRULE, RTM_NEWRULE, Traced};

const FIX: [&str; 6] = ["fix", "--strategy", "inside", "--no-probe", "--wait", "1ms"];

/// Refusals by the kernel, an answer that was lost for want of memory, and one that never comes.
const FATES: [Fate; 6] = [
    Fate::Refused(Errno::EPERM),
    Fate::Refused(Errno::EBUSY),
    Fate::Refused(Errno::ENOBUFS),
    Fate::Refused(Errno::EEXIST),
    Fate::Unanswered(Errno::ENOBUFS),
    Fate::Unanswered(Errno::EAGAIN),
];

/// In an emulated machine each run takes seconds: some of each kind there, all on a host's own kernel.
fn is_brief() -> bool {
    std::env::var_os("VPNFIX_KILL_RUNS").is_some()
}

fn fates() -> impl Iterator<Item = Fate> {
    FATES.into_iter().step_by(if is_brief() { 4 } else { 1 })
}

#[test]
fn a_rule_that_cannot_be_added_takes_the_others_back() {
    need_root!();
    let scene = Scene::hijacked();
    let before = (scene.rules(), scene.routes());
    for which in [0, 1] {
        for fate in fates() {
            let failed = traced(&scene, &FIX, nth(RTM_NEWRULE, which, fate)).run;
            if matches!(fate, Fate::Unanswered(Errno::ENOBUFS)) {
                // Word of lost messages came before the answer, which is read after it: nothing failed, nothing is half.
                assert_eq!(failed.status, Some(3), "{which} {fate:?}: {failed}");
                assert_eq!(scene.device_for(PEER1), "Tunnel1", "{which} {fate:?}: {failed}");
                assert_eq!(scene.device_for(PEER2), "Tunnel2", "{which} {fate:?}: {failed}");
                scene.vpnfix(&["undo"]).ends(0);
                assert_eq!((scene.rules(), scene.routes()), before, "{which} {fate:?}: {failed}");
                continue;
            }
            // The first rule's answer is lost when the rule stands: that is a change, and it is taken back.
            let changed = which == 1 || matches!(fate, Fate::Unanswered(_));
            assert_eq!(failed.status, Some(if changed { 5 } else { 4 }), "{which} {fate:?}: {failed}");
            assert_eq!((scene.rules(), scene.routes()), before, "{which} {fate:?}: {failed}");
            let told = format!("{}{}", failed.stdout, failed.stderr);
            assert!(told.contains("add IPv4 rule"), "{which} {fate:?}: what failed is not said: {failed}");
            assert!(told.contains(words(fate)), "{which} {fate:?}: why is not said: {failed}");
            scene.vpnfix(&["undo"]).ends(0);
        }
    }
}

/// The deletions of the way back may fail for a moment too.
#[test]
fn a_way_back_that_stumbles_comes_to_its_end() {
    need_root!();
    let scene = Scene::hijacked();
    let before = (scene.rules(), scene.routes());
    let stumbles = [Fate::Refused(Errno::EBUSY), Fate::Refused(Errno::ENOBUFS), Fate::Unanswered(Errno::ENOBUFS)];
    for stumble in stumbles {
        let mut second_rule = nth(RTM_NEWRULE, 1, Fate::Refused(Errno::EPERM));
        let mut first_deletion = nth(RTM_DELRULE, 0, stumble);
        let failed = traced(&scene, &FIX, |number, call| match call {
            Call::Request(RTM_DELRULE) => first_deletion(number, call),
            _ => second_rule(number, call),
        });
        assert_eq!(failed.run.status, Some(5), "{stumble:?}: {}", failed.run);
        assert_eq!((scene.rules(), scene.routes()), before, "{stumble:?}: {}", failed.run);
    }
}

#[test]
fn an_undo_that_fails_says_what_is_left_and_the_next_one_ends_it() {
    need_root!();
    let scene = Scene::hijacked();
    let before = (scene.rules(), scene.routes());
    for which in [0, 1] {
        for fate in fates() {
            scene.vpnfix(&FIX);
            assert_eq!(scene.device_for(PEER1), "Tunnel1");
            let undone = traced(&scene, &["undo"], nth(RTM_DELRULE, which, fate)).run;
            // What passes is tried again; a refusal for good leaves the rule, and the others go.
            let for_good = matches!(fate, Fate::Refused(Errno::EPERM | Errno::EEXIST));
            if for_good && undone.status == Some(3) {
                assert!(undone.stdout.contains("still there"), "{fate:?}: {undone}");
            } else {
                assert_eq!(undone.status, Some(0), "{which} {fate:?}: {undone}");
                assert_eq!((scene.rules(), scene.routes()), before, "{which} {fate:?}: {undone}");
            }
            scene.vpnfix(&["undo"]).ends(0);
            assert_eq!((scene.rules(), scene.routes()), before, "{which} {fate:?}");
        }
    }
}

/// All the questions from the plan to the check: one that fails before the change leaves all as it is, one behind it takes
/// it back. A list that is busy is asked for again, and then the repair stands whole.
#[test]
fn a_question_that_fails_leaves_nothing_half() {
    need_root!();
    let scene = Scene::hijacked();
    let before = (scene.rules(), scene.routes());
    let whole = traced(&scene, &FIX, |_, _| Fate::Made);
    let repaired = scene.rules();
    scene.vpnfix(&["undo"]).ends(0);
    let requests: Vec<u16> = whole.calls.iter().filter_map(|call| kind(*call)).collect();
    let most = if is_brief() { 4 } else { 40 };
    let step = requests.len().div_ceil(most);
    let mut taken_back = 0;
    for (index, which) in (0..requests.len()).step_by(step).enumerate() {
        let errno = [Errno::EPERM, Errno::EBUSY, Errno::ENOBUFS][index % 3];
        let mut seen = 0;
        let failed = traced(&scene, &FIX, |_, call| {
            seen += usize::from(kind(call).is_some());
            if kind(call).is_some() && seen == which + 1 { Fate::Refused(errno) } else { Fate::Made }
        });
        let rules = scene.rules();
        match failed.run.status {
            Some(4 | 5) => assert_eq!(rules, before.0, "request {which} {errno}: {}", failed.run),
            Some(0 | 3) => assert_eq!(rules, repaired, "request {which} {errno}: {}", failed.run),
            _ => panic!("request {which} {errno}: {}", failed.run),
        }
        taken_back += usize::from(failed.run.status == Some(5));
        scene.vpnfix(&["undo"]).ends(0);
        assert_eq!((scene.rules(), scene.routes()), before, "request {which} {errno}");
    }
    assert!(taken_back > 0 || most < 40, "no failure came after the change");
}

fn traced(scene: &Scene, further: &[&str], judge: impl FnMut(usize, Call) -> Fate) -> Traced {
    let arguments = scene.arguments(further);
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    syscalls::run(prepared(&binary(), scene.run_dir(), &words), &words, judge)
}

fn kind(call: Call) -> Option<u16> {
    match call {
        Call::Request(kind) => Some(kind),
        _ => None,
    }
}

/// This fate for one of the requests of a kind, counted from 0.
fn nth(kind: u16, which: usize, fate: Fate) -> impl FnMut(usize, Call) -> Fate {
    let mut seen = 0;
    move |_, call| {
        if call != Call::Request(kind) {
            return Fate::Made;
        }
        seen += 1;
        if seen == which + 1 { fate } else { Fate::Made }
    }
}

fn words(fate: Fate) -> &'static str {
    match fate {
        Fate::Refused(Errno::EPERM) => "Operation not permitted",
        Fate::Refused(Errno::EBUSY) => "Device or resource busy",
        Fate::Refused(Errno::EEXIST) => "File exists",
        Fate::Unanswered(Errno::EAGAIN) => "no answer from the kernel",
        _ => "No buffer space available",
    }
}
