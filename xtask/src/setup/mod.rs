//! `cargo xtask setup`: makes a bare Debian 12 machine with rustup ready to build and to test.
//!
//! Every need is looked for first, in whatever way the machine has it; only what is missing is installed, and each
//! step says what it does. Other chores call [`ensure`] before they start.

mod apt;
mod python;
mod toolchain;

use anyhow::{Result, bail};
use nix::unistd::geteuid;

use crate::process;

pub use python::VirtmeNg;
pub use toolchain::{BpfToolchain, cargo_deny};

/// What `cargo xtask setup` was asked.
#[derive(clap::Args)]
pub struct Args {
    /// Also what the virtual machines need: QEMU, virtme-ng, kmod
    #[arg(long)]
    vm: bool,
    /// Also what `cargo xtask lint` needs: clippy for the eBPF side, cargo-deny
    #[arg(long)]
    lint: bool,
    /// Say what is missing and how it would be installed; change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Which chores the machine must be ready for, beside building and the tests in namespaces.
#[derive(Clone, Copy, Default)]
pub struct Scope {
    /// `cargo xtask test vm`.
    pub vm: bool,
    /// `cargo xtask lint`.
    pub lint: bool,
}

/// One thing that the project needs of the machine.
struct Need {
    what: &'static str,
    state: State,
}

/// Whether a need is met, and what would meet it.
enum State {
    There(String),
    Missing(Vec<Remedy>),
}

/// A step that meets a need.
enum Remedy {
    Packages(&'static [&'static str]),
    /// A package that must go with what the machine has from the backports.
    BesideBackports(&'static str),
    LinkToolchain,
    BuildLinker,
    CreateVirtmeNg,
    BuildCargoDeny,
    AddComponents,
}

impl Remedy {
    fn told(&self) -> String {
        match self {
            Self::Packages(names) => format!("Debian packages {}", names.join(" ")),
            Self::BesideBackports(name) => format!("Debian package {name}"),
            Self::LinkToolchain => format!("rustup toolchain link {} /usr", toolchain::LINKED_NAME),
            Self::BuildLinker => format!("bpf-linker {}, built against Debian's LLVM", toolchain::LINKER_VERSION),
            Self::CreateVirtmeNg => format!("virtme-ng {} in a Python environment of its own", python::VERSION),
            Self::BuildCargoDeny => format!("cargo-deny {}, built under target/tools", toolchain::DENY_VERSION),
            Self::AddComponents => "rustup's components rustfmt and clippy".to_owned(),
        }
    }
}

/// Runs `cargo xtask setup`.
pub fn run(args: &Args) -> Result<()> {
    let needs = look(Scope { vm: args.vm, lint: args.lint });
    for need in &needs {
        match &need.state {
            State::There(how) => eprintln!("setup: {}: already there ({how})", need.what),
            State::Missing(remedies) => {
                let steps = remedies.iter().map(Remedy::told).collect::<Vec<_>>().join(", then ");
                eprintln!("setup: {}: missing; comes by: {steps}", need.what);
            }
        }
    }
    if args.dry_run { Ok(()) } else { remedy(needs) }
}

/// Installs what is missing for `scope`, and says nothing when nothing is.
pub fn ensure(scope: Scope) -> Result<()> {
    let needs = look(scope);
    for need in &needs {
        if let State::Missing(_) = need.state {
            eprintln!("setup: {}: missing", need.what);
        }
    }
    remedy(needs)
}

fn look(scope: Scope) -> Vec<Need> {
    let mut needs = vec![network_tools()];
    needs.extend(toolchain::needs());
    if scope.lint {
        needs.extend(toolchain::lint_needs());
    }
    if scope.vm {
        needs.extend(machine_tools());
        needs.push(python::need());
    }
    needs
}

/// A need that is met when all these programs are found, by name or at their full path.
fn programs(what: &'static str, wanted: &'static [&'static str], packages: &'static [&'static str]) -> Need {
    let found: Vec<_> = wanted.iter().filter_map(|program| process::find(program)).collect();
    let state = if found.len() == wanted.len() {
        State::There(found.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))
    } else {
        State::Missing(vec![Remedy::Packages(packages)])
    };
    Need { what, state }
}

fn network_tools() -> Need {
    programs("network tools", &["ip", "ping", "tcpdump"], &["iproute2", "iputils-ping", "tcpdump"])
}

/// What boots Debian's kernels. virtme-ng asks `file` for a kernel image's version, kmod for the modules that its
/// initramfs must load, and puts a busybox into that.
fn machine_tools() -> [Need; 5] {
    let state = match process::find("qemu-system-x86_64") {
        Some(found) => State::There(found.display().to_string()),
        None => State::Missing(vec![Remedy::BesideBackports("qemu-system-x86")]),
    };
    [
        Need { what: "machine emulator", state },
        programs("kernel module tools", &["modprobe", "depmod"], &["kmod"]),
        programs("Debian system builder", &["mmdebstrap"], &["mmdebstrap"]),
        // Not of the machines, but of a scene: a reader of packets that knows nothing of vpnfix.
        programs("packet reader", &["tshark"], &["tshark"]),
        programs("initramfs tools", &["busybox", "file"], &["busybox-static", "file"]),
    ]
}

fn remedy(needs: Vec<Need>) -> Result<()> {
    let mut packages = Vec::new();
    let mut steps = Vec::new();
    for need in needs {
        let State::Missing(remedies) = need.state else { continue };
        for remedy in remedies {
            match remedy {
                Remedy::Packages(names) => packages.extend_from_slice(names),
                step => steps.push(step),
            }
        }
    }
    if !packages.is_empty() {
        require_root(&packages)?;
        apt::install(&packages)?;
    }
    for step in steps {
        if let Remedy::BesideBackports(name) = step {
            require_root(&[name])?;
        }
        eprintln!("setup: {}", step.told());
        match step {
            Remedy::BesideBackports(name) => apt::install_beside_backports(name)?,
            Remedy::LinkToolchain => toolchain::link()?,
            Remedy::BuildLinker => toolchain::build_linker()?,
            Remedy::CreateVirtmeNg => python::create()?,
            Remedy::BuildCargoDeny => toolchain::build_cargo_deny()?,
            Remedy::AddComponents => toolchain::add_components()?,
            // Installed above, all in one transaction.
            Remedy::Packages(_) => {}
        }
    }
    Ok(())
}

fn require_root(packages: &[&str]) -> Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    bail!(
        "installing packages needs root: run `sudo apt-get update && sudo apt-get install --no-install-recommends {}`, \
         then this again",
        packages.join(" ")
    )
}
