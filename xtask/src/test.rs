//! `cargo xtask test`: unit tests, scenes in network namespaces, scenes in virtual machines.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::{
    process::{self, cargo},
    setup::{self, Scope},
    vm::{self, GOLDEN, Series},
    workspace,
};

/// What `cargo xtask test` was asked.
#[derive(clap::Args)]
pub struct Args {
    /// Which tests
    #[arg(default_value = "all")]
    layer: Layer,
    /// Kernels to boot; all of them unless told
    #[arg(long, num_args = 1.., value_name = "SERIES")]
    kernel: Vec<Series>,
    /// In virtual machines, play the scenes that hang on the kernel on 6.1 alone; on the others load, attach, trace, fix
    #[arg(long)]
    brief: bool,
    /// Scenes to play in the machines, by the names of their files; all of them unless told. `systemd` is the machine with
    /// a system of its own
    #[arg(long, num_args = 1.., value_name = "NAME", conflicts_with = "brief")]
    scene: Vec<String>,
    /// Try other random cases than the last time, and more of them: of the properties 2,000 instead of some hundred, of the
    /// routing engine beside the kernel 20,000 (many minutes)
    #[arg(long)]
    long: bool,
}

/// What tests need: nothing, root, or a kernel of their own.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Layer {
    /// No privilege, no kernel
    Unit,
    /// Root; in network namespaces of their own, on this machine's kernel
    Netns,
    /// Root; in virtual machines that boot Debian's kernels, with real VTIs and ESP
    Vm,
    /// All of them
    All,
}

/// The tests that need a kernel: cargo's arguments that choose them, the same in a namespace and in a machine.
pub const KERNEL_TESTS: [&str; 6] = ["--package", "vpnfix", "--package", "vpnfix-tests", "--test", "*"];

/// The variable by which the scenes find the program that they drive.
pub const BINARY_VARIABLE: &str = "VPNFIX_BIN";

/// The variable that says how many flows the engine's test asks about.
pub const ENGINE_CASES_VARIABLE: &str = "VPNFIX_ENGINE_CASES";

/// Policies hold eight flows on average, some less: this many make more than 20,000 cases for certain.
const LONG_ENGINE_CASES: &str = "21000";

/// Of each property (`proptest` reads them): where its random cases begin, and how many are tried. A run that decides about a
/// change tries the same cases before and after it; `--long` looks for new ones.
const SEED_VARIABLE: &str = "PROPTEST_RNG_SEED";
const SEED: &str = "220";
const CASES_VARIABLE: &str = "PROPTEST_CASES";
const LONG_CASES: &str = "2000";

/// Runs the layers asked for, each to its end, and closes with a line for each.
pub fn run(args: &Args) -> Result<ExitCode> {
    let wants = |layer| args.layer == layer || args.layer == Layer::All;
    if !args.kernel.is_empty() && !wants(Layer::Vm) {
        bail!("--kernel chooses virtual machines; these tests boot none");
    }
    if !args.scene.is_empty() && args.layer != Layer::Vm {
        bail!("--scene chooses what virtual machines play: cargo xtask test vm --scene NAME");
    }
    if args.long && args.layer == Layer::Vm {
        bail!("--long is for the layers unit and netns");
    }
    setup::ensure(Scope { vm: wants(Layer::Vm), ..Scope::default() })?;

    let mut summary = Vec::new();
    if wants(Layer::Unit) {
        summary.push(("unit".to_owned(), unit(args.long)));
    }
    if wants(Layer::Netns) {
        summary.push(("netns".to_owned(), netns(args.long)));
    }
    if wants(Layer::Vm) {
        match vm::run(vm::Chosen { kernels: &args.kernel, brief: args.brief, scenes: &args.scene }) {
            Ok(kernels) => summary.extend(kernels),
            Err(error) => summary.push(("vm".to_owned(), Err(error))),
        }
    }
    Ok(close(&summary))
}

fn close(summary: &[(String, Result<String>)]) -> ExitCode {
    println!();
    for (layer, result) in summary {
        match result {
            Ok(done) => println!("{layer}: passed{}{done}", if done.is_empty() { "" } else { ", " }),
            Err(error) => println!("{layer}: FAILED: {error:#}"),
        }
    }
    if summary.iter().all(|(_, result)| result.is_ok()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn unit(long: bool) -> Result<String> {
    let mut tests = cargo();
    tests.args(["test", "--lib", "--bins"]);
    if long {
        tests.env(CASES_VARIABLE, LONG_CASES);
    } else {
        tests.env(SEED_VARIABLE, SEED);
    }
    process::run(&mut tests)?;
    process::run(cargo().args(["test", "--doc"]))?;
    // The golden hosts come from recordings; playing them again is for the layers with a kernel.
    process::run(cargo().args(["test", "--package", "vpnfix", "--test", GOLDEN, "hosts_are_diagnosed_as_expected"]))?;
    Ok(String::new())
}

fn netns(long: bool) -> Result<String> {
    process::run(&mut build_binary())?;
    let binary = workspace::target().join("debug/vpnfix");
    let mut tests = cargo();
    tests.arg("test").args(KERNEL_TESTS).env(BINARY_VARIABLE, binary);
    if long {
        tests.env(ENGINE_CASES_VARIABLE, LONG_ENGINE_CASES);
    }
    process::run(&mut tests)?;
    Ok(String::new())
}

/// Builds the program that the scenes drive; with the scenes' crate beside it, so that both are built with the same
/// features of what they share.
pub fn build_binary() -> Command {
    let mut command = cargo();
    command.args(["build", "--package", "vpnfix", "--package", "vpnfix-tests"]);
    command
}
