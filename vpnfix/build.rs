//! Builds the eBPF object that is embedded in the binary.
//!
//! The eBPF crate needs a compiler with a `core` for the BPF target and one unstable feature. Two toolchains have that:
//! a nightly with rust-src, and the toolchain `vpnfix-bpf` that `cargo xtask setup` links. Whichever is there serves.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use aya_build::{Package, Toolchain};

/// The toolchain that `cargo xtask setup` links where there is no usable nightly.
const LINKED_TOOLCHAIN: &str = "vpnfix-bpf";

const WHAT_TO_DO: &str = "run `cargo xtask setup`";

fn main() -> Result<()> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?);
    let workspace = manifest.parent().context("the package lies in no workspace")?;
    let ebpf = workspace.join("vpnfix-ebpf");
    // aya-build names the eBPF package itself.
    for source in ["vpnfix-common", "Cargo.toml", "Cargo.lock", "vpnfix/build.rs"] {
        println!("cargo:rerun-if-changed={}", workspace.join(source).display());
    }
    for variable in ["PATH", "RUSTUP_HOME", "CARGO_HOME", "RUSTUP_TOOLCHAIN"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    find_linker()?;
    let toolchain = find_toolchain()?;
    if toolchain == LINKED_TOOLCHAIN {
        // SAFETY: the build script has one thread. aya-build hands its own environment on to the compiler: this allows
        // the one unstable feature to the one crate that needs it, and keeps the toolchain's ready-made `core`.
        unsafe { env::set_var("RUSTC_BOOTSTRAP", "aya_ebpf") };
    }
    let root_dir = ebpf.to_str().context("the workspace's path is not UTF-8")?;
    aya_build::build_ebpf(
        [Package { name: "vpnfix-ebpf", root_dir, ..Package::default() }],
        Toolchain::Custom(&toolchain),
    )
}

/// Makes sure that the compiler finds bpf-linker: on the path, or where `cargo install` puts it.
fn find_linker() -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    if folders.iter().any(|folder| folder.join("bpf-linker").is_file()) {
        return Ok(());
    }
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let Some(bin) = cargo_home.map(|home| home.join("bin")).filter(|bin| bin.join("bpf-linker").is_file()) else {
        bail!("bpf-linker is not installed: {WHAT_TO_DO}");
    };
    folders.push(bin);
    let path = env::join_paths(folders).context("PATH cannot be extended")?;
    // SAFETY: the build script has one thread.
    unsafe { env::set_var("PATH", path) };
    Ok(())
}

/// A nightly with rust-src, else the linked toolchain.
fn find_toolchain() -> Result<String> {
    let Ok(listed) = Command::new("rustup").args(["toolchain", "list"]).output() else {
        bail!("rustup is not installed, and the eBPF programs need a toolchain of their own: {WHAT_TO_DO}");
    };
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let names = || listed.lines().filter_map(|line| line.split_whitespace().next());
    if let Some(nightly) = names().find(|name| name.starts_with("nightly") && has_rust_src(name)) {
        return Ok(nightly.to_owned());
    }
    if names().any(|name| name == LINKED_TOOLCHAIN) {
        return Ok(LINKED_TOOLCHAIN.to_owned());
    }
    bail!("no toolchain for the eBPF programs (a nightly with rust-src, or {LINKED_TOOLCHAIN}): {WHAT_TO_DO}")
}

fn has_rust_src(toolchain: &str) -> bool {
    let Ok(root) = Command::new("rustup").args(["run", toolchain, "rustc", "--print", "sysroot"]).output() else {
        return false;
    };
    let root = String::from_utf8_lossy(&root.stdout);
    Path::new(root.trim()).join("lib/rustlib/src/rust/library/core").is_dir()
}
