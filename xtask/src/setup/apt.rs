//! Debian packages, installed without questions and without starting any service.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    archive::{Archive, Suites},
    process,
};

/// Debian's hook that package scripts ask before they start a service (invoke-rc.d(8)); status 101 forbids it.
const SERVICE_POLICY: &str = "/usr/sbin/policy-rc.d";

/// The suite that may hold newer parts of QEMU than the release does.
const BACKPORTS: &str = "bookworm-backports";
/// The release that [`BACKPORTS`] goes with.
const RELEASE: &str = "bookworm";

/// Installs the packages after one refresh of the package lists.
///
/// # Errors
/// Fails where there is no apt, and where apt would have to remove something to install them.
pub fn install(packages: &[&str]) -> Result<()> {
    if process::find("apt-get").is_none() {
        bail!("this machine has no apt-get; install by hand what Debian calls: {}", packages.join(" "));
    }
    let _guard = ServicesHeld::hold()?;
    process::run(quiet("update").arg("-q"))?;
    // A package that another one conflicts with is this machine's owner's to weigh, not ours to remove.
    process::run(quiet("install").args(INSTALL).args(packages))
}

/// Installs a package from the release; where that would remove something, because its companions came from the
/// backports (QEMU's tools and its emulator go together in one version only), from the backports as well.
///
/// # Errors
/// As [`install`].
pub fn install_beside_backports(package: &str) -> Result<()> {
    let _guard = ServicesHeld::hold()?;
    process::run(quiet("update").arg("-q"))?;
    if process::output(quiet("install").arg("--simulate").args(INSTALL).arg(package)).is_ok() {
        return process::run(quiet("install").args(INSTALL).arg(package));
    }
    let archive = Archive::open(&Suites { main: [RELEASE, BACKPORTS].into(), ..Suites::default() })?;
    let mut command = archive.apt("apt-get");
    without_questions(command.arg("install"));
    process::run(command.args(INSTALL).args(["--target-release", BACKPORTS, package]))
}

const INSTALL: [&str; 4] = ["-q", "-y", "--no-install-recommends", "--no-remove"];

fn quiet(action: &str) -> Command {
    let mut command = process::command("apt-get");
    without_questions(command.arg(action));
    command
}

fn without_questions(apt_get: &mut Command) {
    apt_get.args(["-o", "DPkg::Lock::Timeout=120"]).env("DEBIAN_FRONTEND", "noninteractive");
}

/// Keeps package scripts from starting services for as long as it lives.
struct ServicesHeld {
    ours: bool,
}

impl ServicesHeld {
    fn hold() -> Result<Self> {
        let made = OpenOptions::new().write(true).create_new(true).mode(0o755).open(SERVICE_POLICY);
        match made {
            Ok(mut file) => {
                let guard = Self { ours: true };
                file.write_all(b"#!/bin/sh\nexit 101\n").with_context(|| format!("write {SERVICE_POLICY}"))?;
                Ok(guard)
            }
            // The machine has a policy of its own, which stands.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Self { ours: false }),
            Err(error) => Err(error).with_context(|| format!("create {SERVICE_POLICY}")),
        }
    }
}

impl Drop for ServicesHeld {
    fn drop(&mut self) {
        if self.ours
            && Path::new(SERVICE_POLICY).exists()
            && let Err(error) = fs::remove_file(SERVICE_POLICY)
        {
            eprintln!("setup: remove {SERVICE_POLICY}: {error}");
        }
    }
}
