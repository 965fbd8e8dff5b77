//! `cargo xtask bench`: fetches what vpnfix is compared with, builds, and measures.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use crate::{
    archive::{Archive, Suites},
    process::{self, cargo},
    setup::{self, Scope},
    workspace,
};

/// What `cargo xtask bench` was asked.
#[derive(clap::Args)]
pub struct Args {
    /// Few and short measurements, in some minutes: that all of it runs. Figures decide nothing
    #[arg(long)]
    quick: bool,
    /// Only these parts (overhead, hooks, reaction, start, lossless, scale); the others' results stay as they are
    #[arg(long, value_name = "PART")]
    only: Vec<String>,
}

/// Programs that are compared with, and the Debian packages that have them.
const TOOLS: [(&str, &str); 3] = [("bpftrace", "bpftrace"), ("trace-cmd", "trace-cmd"), ("perf", "linux-perf")];
/// The release that the packages come from: the one that the set-up is made for.
const RELEASE: &str = "bookworm";

/// Measures, and writes `bench/results`. Quick results stay under `target`: they would stand in the place of better ones.
pub fn run(args: &Args) -> Result<()> {
    if !geteuid().is_root() {
        bail!("the bench traces the kernel: run it as root");
    }
    setup::ensure(Scope::default())?;
    let tools = workspace::target().join("bench/tools");
    // Without them vpnfix alone is measured, and the tables say what is missing.
    if let Err(error) = provide(&tools) {
        eprintln!("bench: not all tools to compare with are there: {error:#}");
    }
    process::run(cargo().args(["build", "--release", "--package", "vpnfix", "--package", "vpnfix-bench"]))?;
    let release = workspace::target().join("release");
    let results =
        if args.quick { workspace::target().join("bench/quick") } else { workspace::root().join("bench/results") };
    let mut bench = process::command(release.join("vpnfix-bench"));
    bench.arg("--vpnfix").arg(release.join("vpnfix")).arg("--tools").arg(tools).arg("--results").arg(results);
    if args.quick {
        bench.arg("--quick");
    }
    for part in &args.only {
        bench.args(["--only", part]);
    }
    process::run(&mut bench)
}

/// Unpacks the tools that this machine does not have, with the libraries that it does not have, and installs nothing.
fn provide(tools: &Path) -> Result<()> {
    let is_there = |program: &str| process::find(program).is_some() || tools.join("usr/bin").join(program).is_file();
    let missing: Vec<&str> =
        TOOLS.into_iter().filter(|(program, _)| !is_there(program)).map(|(_, package)| package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let archive = Archive::open(&Suites { main: [RELEASE].into(), ..Suites::default() })?;
    let mut simulation = archive.apt("apt-get");
    simulation.args(["install", "--simulate", "--no-install-recommends", "--quiet"]).args(&missing);
    let wanted = to_install(&process::output(&mut simulation)?);
    let packages = workspace::target().join("bench/packages");
    if packages.exists() {
        fs::remove_dir_all(&packages).with_context(|| format!("remove {}", packages.display()))?;
    }
    for folder in [&packages, &tools.to_owned()] {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    eprintln!("bench: fetching {}", wanted.join(" "));
    archive.download(&wanted, &packages)?;
    for package in files(&packages)? {
        process::output(process::command("dpkg-deb").arg("--extract").arg(package).arg(tools))?;
    }
    Ok(())
}

/// The packages that apt would install (`Inst NAME (VERSION …)`).
fn to_install(simulation: &str) -> Vec<String> {
    let named = simulation.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
    named.map(str::to_owned).collect()
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    entries.map(|entry| Ok(entry.with_context(|| format!("read {}", folder.display()))?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_apt_would_install_is_read() {
        let simulation = "NOTE: This is only a simulation!\nInst libbpfcc (0.26.0+ds-1 Debian:12 [amd64])\n\
                          Inst bpftrace (0.17.0-1 Debian:12 [amd64])\nConf libbpfcc (0.26.0+ds-1 Debian:12 [amd64])\n";
        assert_eq!(to_install(simulation), ["libbpfcc", "bpftrace"]);
    }
}
