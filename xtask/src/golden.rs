//! `cargo xtask golden`: plays the golden hosts on a kernel that has their kinds of links, and keeps what it shows.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::{
    setup::{self, Scope},
    vm, workspace,
};

/// What `cargo xtask golden` was asked.
#[derive(clap::Args)]
pub struct Args {
    /// Hosts to record, by the names of their folders; all of them unless told
    hosts: Vec<String>,
}

/// The folder of the hosts, seen from the workspace's root.
const HOSTS: &str = "vpnfix/tests/golden/hosts";
/// What is recorded of each.
const RECORDING: &str = "recorded.json";

/// Records the hosts and copies the recordings into the tree. The diagnoses stay as they are: `VPNFIX_BLESS=1` with the
/// replay rewrites them, to be reviewed.
pub fn run(args: &Args) -> Result<()> {
    let hosts = workspace::root().join(HOSTS);
    for host in &args.hosts {
        if !hosts.join(host).is_dir() {
            bail!("no golden host named {host} in {HOSTS}");
        }
    }
    setup::ensure(Scope { vm: true, ..Scope::default() })?;
    let recorded = vm::record(&args.hosts);
    // Where one host fails, the others were recorded all the same.
    let folder = vm::recordings();
    let copied = copy(&folder, &hosts)?;
    eprintln!("golden: {copied} recordings copied into {HOSTS}; review them, and the replay, as a diff");
    recorded
}

fn copy(from: &Path, to: &Path) -> Result<usize> {
    let mut copied = 0;
    let Ok(entries) = fs::read_dir(from) else { return Ok(copied) };
    for entry in entries {
        let entry = entry.with_context(|| format!("read {}", from.display()))?;
        let (recording, kept) = (entry.path().join(RECORDING), to.join(entry.file_name()).join(RECORDING));
        if recording.is_file() {
            fs::copy(&recording, &kept).with_context(|| format!("write {}", kept.display()))?;
            copied += 1;
        }
    }
    Ok(copied)
}
