//! `cargo xtask lab`: builds vpnfix and plays the incident in network namespaces of its own.

use std::{ffi::OsString, process::ExitCode};

use anyhow::{Context, Result};

use crate::{
    process,
    setup::{self, Scope},
    workspace,
};

/// What `cargo xtask lab` was asked.
#[derive(clap::Args)]
pub struct Args {
    /// Handed to `vpnfix lab run`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Builds the debug binary, which is ready sooner and runs fast enough here, and gives back its exit status.
pub fn run(args: &Args) -> Result<ExitCode> {
    setup::ensure(Scope::default())?;
    process::run(process::cargo().args(["build", "--package", "vpnfix"]))?;
    let status = process::command(workspace::target().join("debug/vpnfix"))
        .args(["lab", "run"])
        .args(&args.args)
        .status()
        .context("start vpnfix lab run")?;
    // A process that a signal ended has no status of its own.
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
