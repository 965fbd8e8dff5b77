//! The two programs of others that the lab needs.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A program that is not there.
#[derive(Debug, thiserror::Error)]
#[error("`{program}` is not installed\ninstall the package {package}")]
pub struct MissingProgram {
    program: &'static str,
    package: &'static str,
}

/// Finds iproute2's `ip`.
pub fn ip() -> Result<PathBuf, MissingProgram> {
    find("ip", "iproute2")
}

/// Finds `ping`.
pub fn ping() -> Result<PathBuf, MissingProgram> {
    find("ping", "iputils-ping")
}

/// Looks along PATH, then where root's programs lie: `su` and cron leave those out of PATH.
fn find(program: &'static str, package: &'static str) -> Result<PathBuf, MissingProgram> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| is_executable(file))
        .ok_or(MissingProgram { program, package })
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
