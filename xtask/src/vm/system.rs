//! A Debian system of its own, with systemd and the managers that `vpnfix persist` writes for: a folder under `target/vm` that
//! a machine boots in namespaces (`tests/systemd/run.sh`), with the machine's kernel.
//!
//! A second one, without systemd, has the daemons of the VPN's scenes (`tests/src/vpn`): strongSwan, FRR, BIRD.
//!
//! So real managers meet each kernel without another disk image and another boot of the machine, and the same script plays on
//! a developer's own kernel.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::jobs::Job;
use crate::{archive, process, workspace};

const RELEASE: &str = "bookworm";

/// A root folder to be made.
pub struct System {
    /// The folder's name.
    name: &'static str,
    /// What it is for, in words.
    holds: &'static str,
    packages: &'static [&'static str],
}

/// The managers, strongSwan, and what the play calls.
const MANAGERS: System = System {
    name: "system",
    holds: "systemd, NetworkManager, ifupdown, netplan and strongSwan",
    packages: &[
        "systemd",
        "systemd-sysv",
        "udev",
        "dbus",
        "kmod",
        "iproute2",
        "iputils-ping",
        "network-manager",
        "ifupdown",
        "netplan.io",
        "strongswan-starter",
        "strongswan-charon",
        "libcharon-extra-plugins",
    ],
};

/// The daemons of the VPN's scenes.
pub const VPN: System = System {
    name: "vpn",
    holds: "strongSwan, FRR and BIRD",
    packages: &[
        "iproute2",
        "nftables",
        "strongswan-starter",
        "strongswan-charon",
        "strongswan-swanctl",
        "libstrongswan-standard-plugins",
        "frr",
        "bird2",
    ],
};

/// What no program reads.
const LEFT_OUT: [&str; 4] = ["/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*"];

/// Three boots of the system and all managers' restarts: 930 s were seen.
const LIMIT: u64 = 1800;

/// A system's root folder, made where none is kept yet. Remove it to get newer packages.
///
/// # Errors
/// The mirror does not answer, or a package cannot be installed.
pub fn provide(system: &System) -> Result<PathBuf> {
    let root = workspace::vm().join(system.name);
    if root.is_dir() {
        return Ok(root);
    }
    let unfinished = workspace::vm().join(format!(".{}.unfinished", system.name));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).with_context(|| format!("remove {}", unfinished.display()))?;
    }
    fs::create_dir_all(workspace::vm()).context("create the machines' folder")?;
    eprintln!("vm: making a Debian system with {}", system.holds);
    let mut command = process::command("mmdebstrap");
    command.args(["--quiet", "--variant=minbase", "--mode=root", "--format=directory"]);
    command.arg(format!("--include={}", system.packages.join(",")));
    command.arg("--aptopt=Apt::Install-Recommends \"false\"");
    command.args(LEFT_OUT.map(|pattern| format!("--dpkgopt=path-exclude={pattern}")));
    process::output(command.arg(RELEASE).arg(&unfinished).arg(archive::main_mirror()?))?;
    fs::rename(&unfinished, &root).with_context(|| format!("move the system to {}", root.display()))?;
    Ok(root)
}

/// The one with the managers.
///
/// # Errors
/// As [`provide`].
pub fn managers() -> Result<PathBuf> {
    provide(&MANAGERS)
}

/// What plays `vpnfix persist` and the cure in it.
pub fn job(root: &Path, vpnfix: &str) -> Job {
    let words = [script().to_string_lossy(), root.to_string_lossy(), vpnfix.into()].map(String::from);
    Job::new("systemd", LIMIT, words)
}

/// Plays them on this host's own kernel.
///
/// # Errors
/// The system cannot be made, or a step of the play went otherwise than it should.
pub fn play(vpnfix: &str) -> Result<String> {
    process::run(process::command(script()).arg(managers()?).arg(vpnfix))?;
    Ok("the managers and strongSwan of a Debian system".to_owned())
}

fn script() -> PathBuf {
    workspace::root().join("tests/systemd/run.sh")
}
