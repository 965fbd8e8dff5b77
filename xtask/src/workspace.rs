//! Where the project's own folders lie.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The workspace's root folder.
///
/// `cargo run` names this package's folder in the environment, which stays right when the clone is moved after a build.
pub fn root() -> PathBuf {
    let package =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or_else(|| package.clone(), Path::to_path_buf)
}

/// Cargo's output folder, where the virtual machines' kernels and results lie too.
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

/// The folder of everything that belongs to the virtual machines.
pub fn vm() -> PathBuf {
    target().join("vm")
}

/// Programs that chores install for themselves (cargo's `--root`), apart from the user's own.
pub fn tools() -> PathBuf {
    target().join("tools")
}
