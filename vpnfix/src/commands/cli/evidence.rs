//! Options of the commands that collect evidence and tell it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::StrategyName;
use crate::core::config::duration;

/// Options of `replay`.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// What `trace --record` wrote.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Options of `capture`.
#[derive(Clone, Debug, Args)]
pub struct CaptureArgs {
    /// The bundle to make: an archive if the name ends in .tar.zst, a directory otherwise. It must not be there yet.
    #[arg(short, long, value_name = "DIR|FILE.tar.zst")]
    pub output: PathBuf,
    /// How long to trace (`30s`, `2m`): with --fix one half before the change and one after; with a command at the most.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub period: Option<Duration>,
    /// Repair, and confirm it on live packets, as `vpnfix fix` does.
    #[arg(long, conflicts_with_all = ["before", "command"])]
    pub fix: bool,
    /// How to repair.
    #[arg(long, value_enum, default_value_t = StrategyName::Auto, requires = "fix")]
    pub strategy: StrategyName,
    /// Refuse what belongs into a tunnel, rather than let it leave in the clear, while the tunnel has no route for it.
    #[arg(long, requires = "fix")]
    pub fail_closed: bool,
    /// Send no echo requests to the peers; wait for traffic of others.
    #[arg(long, requires = "fix")]
    pub no_probe: bool,
    /// How long to wait for live packets that confirm the repair.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s", requires = "fix")]
    pub wait: Duration,
    /// A bundle made before: this one adds the state of now and compares.
    #[arg(long, value_name = "BUNDLE", conflicts_with = "command")]
    pub before: Option<PathBuf>,
    /// Replace public addresses, host names and names of accounts by stand-ins.
    #[arg(long)]
    pub redact: bool,
    /// Keep what was replaced by what in this file, beside the bundle.
    #[arg(long, value_name = "FILE", requires = "redact")]
    pub redact_map: Option<PathBuf>,
    /// Start this command amid the trace; the state after it is taken, too.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Options of `report`.
#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// The bundle, or an incident that `watch` kept.
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    /// Write to this file; its ending says the format (.html, .md, .txt, .json) unless --format does.
    #[arg(short, long, value_name = "FILE", conflicts_with = "check")]
    pub output: Option<PathBuf>,
    /// Only say whether the bundle is whole and as it was written.
    #[arg(long)]
    pub check: bool,
}
