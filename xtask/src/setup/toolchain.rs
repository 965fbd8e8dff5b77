//! The compilers of the eBPF side, and the checkers that `cargo xtask lint` calls.
//!
//! Two ways lead to an eBPF object. A nightly of rustup with `rust-src` builds `core` by itself; where that component
//! cannot be had, Debian's `rustc-web` brings a ready `core` for `bpfel-unknown-none`, linked as a rustup toolchain.
//! Either needs bpf-linker. vpnfix's build script chooses between them in the same order.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{Need, Remedy, State, process, programs};
use crate::workspace;

/// The name under which Debian's compiler is linked into rustup.
pub const LINKED_NAME: &str = "vpnfix-bpf";
/// The version of bpf-linker that goes with LLVM 22, which Debian's rustc 1.96 uses.
pub const LINKER_VERSION: &str = "0.13.0";
/// The version of cargo-deny that builds with the pinned stable toolchain.
pub const DENY_VERSION: &str = "0.20.2";

const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
const DEBIAN_SYSROOT: &str = "/usr";
const DEBIAN_COMPILER: &[&str] = &["rustc-web", "cargo-web", "rust-web-src", "libstd-rust-web-dev-bpf"];
/// The C++ compiler and zlib are for the link against LLVM, which a machine with a C compiler alone would miss.
const DEBIAN_LLVM: &[&str] = &["llvm-22-dev", "libpolly-22-dev", "g++", "zlib1g-dev"];

/// The compiler of the eBPF side.
#[derive(Clone, PartialEq, Eq)]
pub enum BpfToolchain {
    /// A nightly of rustup, of this name, with the component `rust-src`.
    Nightly(String),
    /// Debian's compiler, linked into rustup as [`LINKED_NAME`].
    Debian,
}

impl BpfToolchain {
    /// The toolchain that the build takes on this machine, if there is one.
    pub fn found() -> Option<Self> {
        let toolchains = rustup_home().join("toolchains");
        let names = fs::read_dir(&toolchains).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let nightly = names
            .filter(|name| name.starts_with("nightly"))
            .find(|name| toolchains.join(name).join("lib/rustlib/src/rust/library/core").is_dir());
        nightly.map(Self::Nightly).or_else(|| has_bpf_core(&toolchains.join(LINKED_NAME)).then_some(Self::Debian))
    }

    /// Cargo of this toolchain.
    pub fn cargo(&self) -> Command {
        let mut command = process::command("rustup");
        command.args(["run", self.name(), "cargo"]);
        // These name the stable toolchain, which build scripts would call.
        command.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
        command
    }

    fn name(&self) -> &str {
        match self {
            Self::Nightly(name) => name,
            Self::Debian => LINKED_NAME,
        }
    }
}

fn rustup_home() -> PathBuf {
    env::var_os("RUSTUP_HOME").map_or_else(|| env::home_dir().unwrap_or_default().join(".rustup"), PathBuf::from)
}

fn cargo_home() -> PathBuf {
    env::var_os("CARGO_HOME").map_or_else(|| env::home_dir().unwrap_or_default().join(".cargo"), PathBuf::from)
}

/// Whether this sysroot has a ready `core` for eBPF.
fn has_bpf_core(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/bpfel-unknown-none/lib").is_dir()
}

pub(super) fn needs() -> [Need; 2] {
    [compiler_need(), linker_need()]
}

fn compiler_need() -> Need {
    let state = match BpfToolchain::found() {
        Some(found) => State::There(format!("rustup toolchain {}", found.name())),
        None if has_bpf_core(Path::new(DEBIAN_SYSROOT)) => State::Missing(vec![Remedy::LinkToolchain]),
        None => State::Missing(vec![Remedy::Packages(DEBIAN_COMPILER), Remedy::LinkToolchain]),
    };
    Need { what: "eBPF compiler", state }
}

fn linker_need() -> Need {
    let installed = || Some(cargo_home().join("bin/bpf-linker")).filter(|program| program.is_file());
    let state = match process::find("bpf-linker").or_else(installed) {
        Some(found) => State::There(found.display().to_string()),
        None if Path::new(LLVM_PREFIX).join("bin/llvm-config").is_file() => State::Missing(vec![Remedy::BuildLinker]),
        None => State::Missing(vec![Remedy::Packages(DEBIAN_LLVM), Remedy::BuildLinker]),
    };
    Need { what: "eBPF linker", state }
}

pub(super) fn link() -> Result<()> {
    process::run(process::command("rustup").args(["toolchain", "link", LINKED_NAME, DEBIAN_SYSROOT]))
}

pub(super) fn build_linker() -> Result<()> {
    let llvm = Path::new(LLVM_PREFIX);
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(std::iter::once(llvm.join("bin")).chain(env::split_paths(&path)))
        .context("put LLVM's programs on PATH")?;
    process::run(
        process::cargo()
            .args(["install", "--quiet", "--locked", "bpf-linker", "--version", LINKER_VERSION])
            .args(["--no-default-features", "--features", "llvm-22"])
            .env("LLVM_PREFIX", llvm)
            .env("PATH", path)
            .env("RUSTFLAGS", format!("-L native={LLVM_PREFIX}/lib")),
    )
}

pub(super) fn lint_needs() -> Vec<Need> {
    let mut needs = vec![components_need()];
    // rustup brings clippy with a nightly; Debian packs it apart.
    if !matches!(BpfToolchain::found(), Some(BpfToolchain::Nightly(_))) {
        needs.push(programs("clippy for the eBPF side", &["/usr/bin/clippy-driver"], &["rust-web-clippy"]));
    }
    let state = match cargo_deny() {
        Some(found) => State::There(found.display().to_string()),
        None => State::Missing(vec![Remedy::BuildCargoDeny]),
    };
    needs.push(Need { what: "dependency checker", state });
    needs
}

/// rustup leaves both out of its minimal profile.
const COMPONENTS: [(&str, &str); 2] = [("rustfmt", "cargo-fmt"), ("clippy", "cargo-clippy")];

fn components_need() -> Need {
    let programs = env::var_os("CARGO").map(PathBuf::from).and_then(|cargo| Some(cargo.parent()?.to_path_buf()));
    let state = match programs {
        Some(folder) if COMPONENTS.iter().all(|(_, program)| folder.join(program).is_file()) => {
            State::There(folder.display().to_string())
        }
        _ => State::Missing(vec![Remedy::AddComponents]),
    };
    Need { what: "rustfmt and clippy", state }
}

pub(super) fn add_components() -> Result<()> {
    let components = COMPONENTS.iter().map(|(component, _)| component);
    process::run(process::command("rustup").args(["component", "add"]).args(components))
}

/// cargo-deny: the user's own, or the one that the set-up built.
pub fn cargo_deny() -> Option<PathBuf> {
    let ours = workspace::tools().join("bin/cargo-deny");
    if ours.is_file() { Some(ours) } else { process::find("cargo-deny") }
}

/// Without optimisation: it runs for a second, and compiles in half the time.
pub(super) fn build_cargo_deny() -> Result<()> {
    process::run(
        process::cargo()
            .args(["install", "--quiet", "--locked", "--debug", "cargo-deny", "--version", DENY_VERSION, "--root"])
            .arg(workspace::tools()),
    )
}
