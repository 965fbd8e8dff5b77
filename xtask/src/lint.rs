//! `cargo xtask lint`: what must be clean before anything is committed.

use std::process::Command;

use anyhow::{Context, Result};

use crate::{
    process::{self, cargo},
    setup::{self, BpfToolchain, Scope},
    workspace,
};

/// Runs all checks, in the order of how soon they tell.
pub fn run() -> Result<()> {
    setup::ensure(Scope { lint: true, ..Scope::default() })?;
    process::run(cargo().args(["fmt", "--all", "--check"]))?;
    process::run(&mut cargo_deny()?)?;
    process::run(
        cargo()
            .args(["clippy", "--quiet", "--workspace", "--exclude", "vpnfix-ebpf", "--all-targets"])
            .args(DENY_WARNINGS),
    )?;
    process::run(&mut clippy_ebpf()?)?;
    process::run(
        cargo()
            .args(["doc", "--quiet", "--workspace", "--exclude", "vpnfix-ebpf", "--no-deps"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )
}

const DENY_WARNINGS: [&str; 3] = ["--", "-D", "warnings"];

/// Licences, sources and versions of the dependencies. Advisories are left to a machine that can reach their database.
fn cargo_deny() -> Result<Command> {
    let program = setup::cargo_deny().context("find cargo-deny")?;
    let mut command = process::command(program);
    command.args(["--locked", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"]);
    Ok(command)
}

/// The eBPF side is checked for its real target: on the host's, it has no panic handler and other layouts.
///
/// A folder of its own keeps two compilers from building over each other's artefacts.
fn clippy_ebpf() -> Result<Command> {
    let toolchain = BpfToolchain::found().context("find the eBPF compiler")?;
    let mut command = toolchain.cargo();
    command.args(["clippy", "--quiet", "--package", "vpnfix-ebpf", "--target", "bpfel-unknown-none"]);
    match toolchain {
        // aya-ebpf alone needs an unstable feature; with the ready `core` nothing else does.
        BpfToolchain::Debian => command.env("RUSTC_BOOTSTRAP", "aya_ebpf"),
        BpfToolchain::Nightly(_) => command.args(["-Z", "build-std=core"]),
    };
    command.arg("--target-dir").arg(workspace::target().join("ebpf-lint")).args(DENY_WARNINGS);
    Ok(command)
}
