//! The engine against the kernel: random policies in namespaces of their own, random flows, and both asked where each goes.
//! Needs root; without it the test prints `SKIP: why`, which fails where `CI` is set.
//!
//! `VPNFIX_ENGINE_CASES` sets how many flows are asked about (400 unless told), `VPNFIX_ENGINE_SEED` repeats a run,
//! `VPNFIX_ENGINE_SECONDS` ends one early. A disagreement is printed as a file for `regressions/`, which are played first.

mod ask;
mod compare;
mod coverage;
mod kernel;
mod masked;
mod scene;
mod strategy;

use std::cell::RefCell;
use std::time::{Duration, Instant};

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};

use crate::compare::Verdict;
use crate::coverage::Tally;
use crate::kernel::Kernel;
use crate::scene::Scene;

/// Flows for each policy, on average.
const FLOWS: u32 = 8;
/// Policies that are asked about even where time is short.
const AT_LEAST: u64 = 30;
/// A run of so many flows must have seen everything that the engine claims to know.
const ENOUGH_TO_SEE_ALL: u64 = 15_000;
/// The share of flows that the engine may leave undecided, in percent: with more the test says nothing.
const UNDECIDED_AT_MOST: u64 = 5;

fn is_able(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    println!("SKIP: {test}: network namespaces need root");
    assert!(std::env::var_os("CI").is_none(), "a skip is a failure in CI");
    false
}

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

#[test]
fn what_once_disagreed_agrees() {
    if !is_able("engine regressions") {
        return;
    }
    let kernel = Kernel::probe();
    for (name, text) in REGRESSIONS {
        let scene: Scene = text.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
        if scene.needs_vrf() && !kernel.vrf {
            println!("{name}: left out, this kernel has no VRF");
            continue;
        }
        let played = scene.play();
        assert_eq!(played.refused, 0, "{name}: a line was refused");
        for answer in &played.answers {
            if let Verdict::Disagree(how) = compare::compare(&played.snapshot, answer).0 {
                panic!("{name}: {:?}\n{how}", answer.question);
            }
        }
    }
}

macro_rules! regression {
    ($name:literal) => {
        ($name, include_str!(concat!("regressions/", $name, ".case")))
    };
}

/// The files of `regressions/`: cases in which the engine and the kernel once disagreed, or which it could not decide. They
/// are built in, because in a virtual machine there is no source tree.
const REGRESSIONS: &[(&str, &str)] = &[
    regression!("ipv4-bound-to-a-device-that-is-down"),
    regression!("ipv4-equal-defaults"),
    regression!("ipv4-icmp-that-comes-in-has-no-ports"),
    regression!("ipv4-nexthop-object-ends-the-leaf"),
    regression!("ipv6-group-may-leave-by-another-device"),
    regression!("ipv6-hidden-by-source"),
    regression!("ipv6-input-prefers-its-device"),
    regression!("ipv6-kept-for-another"),
    regression!("ipv6-larger-metrics-at-once"),
    regression!("ipv6-nexthop-object-drops-at-once"),
    regression!("ipv6-preference-before-device"),
    regression!("ipv6-suppression-by-the-chosen-device"),
];

#[test]
fn random_policies_are_walked_as_the_kernel_does_it() {
    if !is_able("engine") {
        return;
    }
    let kernel = Kernel::probe();
    let flows = variable("VPNFIX_ENGINE_CASES").unwrap_or(400);
    let seed = variable("VPNFIX_ENGINE_SEED").unwrap_or_else(any_seed);
    let seconds = variable("VPNFIX_ENGINE_SECONDS");
    println!("VPNFIX_ENGINE_SEED={seed} VPNFIX_ENGINE_CASES={flows}, {kernel:?}");
    let config = Config {
        cases: u32::try_from(flows).unwrap().div_ceil(FLOWS),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 1000,
        ..Config::default()
    };
    let began = Instant::now();
    let tally = RefCell::new(Tally::default());
    let outcome = TestRunner::new(config).run(&strategy::scenes(kernel), |scene| {
        let is_late = seconds.is_some_and(|seconds| began.elapsed() > Duration::from_secs(seconds));
        if is_late && tally.borrow().policies >= AT_LEAST {
            return Ok(());
        }
        check(&scene, &mut tally.borrow_mut())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(how, scene)) => panic!("{how}\n\nas a file for regressions/:\n{scene}"),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
    let tally = tally.into_inner();
    let missing = tally.missing(kernel);
    println!("{tally}never seen in a decided case: {missing:?}\nin {:.1} s", began.elapsed().as_secs_f64());
    assert!(tally.undecided_percent() <= UNDECIDED_AT_MOST, "too much is left undecided");
    assert!(tally.flows < ENOUGH_TO_SEE_ALL || missing.is_empty(), "never seen in a decided case: {missing:?}");
}

fn check(scene: &Scene, tally: &mut Tally) -> Result<(), TestCaseError> {
    let played = scene.play();
    tally.policies += 1;
    tally.lines += played.lines;
    tally.refused_lines += played.refused;
    for (ask, answer) in scene.asks.iter().zip(&played.answers) {
        let (verdict, walk) = compare::compare(&played.snapshot, answer);
        match verdict {
            Verdict::Agree => tally.agreed(&played.snapshot, &answer.question, &walk),
            Verdict::Undecided(doubt) => tally.undecided(&doubt),
            Verdict::Disagree(how) => return Err(TestCaseError::fail(format!("{ask}\n{how}"))),
        }
    }
    Ok(())
}

fn any_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_nanos() as u64 ^ u64::from(std::process::id())
}
