//! Debian packages, installed without questions and without starting any service.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, Result, bail};

use crate::process;

/// Debian's hook that package scripts ask before they start a service (invoke-rc.d(8)); status 101 forbids it.
const SERVICE_POLICY: &str = "/usr/sbin/policy-rc.d";

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
    process::run(quiet("install").args(["-q", "-y", "--no-install-recommends", "--no-remove"]).args(packages))
}

fn quiet(action: &str) -> std::process::Command {
    let mut command = process::command("apt-get");
    command.arg(action).args(["-o", "DPkg::Lock::Timeout=120"]).env("DEBIAN_FRONTEND", "noninteractive");
    command
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
