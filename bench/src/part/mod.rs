//! The parts of the measurement, one file each.

mod hooks;
mod lossless;
mod overhead;
mod own_time;
mod reaction;
mod scale;
mod start;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use clap::ValueEnum;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde::{Deserialize, Serialize};

use crate::{
    machine::{self, Circumstances},
    results::{Goal, Measured, Table},
    tools::Tools,
};

/// A part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// What tracing costs a lookup and a packet.
    Overhead,
    /// What the hooks for stories cost.
    Hooks,
    /// What vpnfix's own processes take.
    OwnTime,
    /// How fast `watch --fix` is.
    Reaction,
    /// Start and stop, memory, size.
    Start,
    /// Whether anything is lost.
    Lossless,
    /// Large hosts.
    Scale,
}

/// Tables, goals and notes of a part.
#[derive(Default)]
pub struct Findings {
    /// The tables.
    pub tables: Vec<Table>,
    /// The goals.
    pub goals: Vec<Goal>,
    /// What must be known to read them.
    pub notes: Vec<String>,
}

impl Part {
    /// All, in the order in which they are measured.
    pub const ALL: [Self; 7] =
        [Self::Overhead, Self::Hooks, Self::OwnTime, Self::Reaction, Self::Start, Self::Lossless, Self::Scale];

    /// In words.
    pub fn title(self) -> &'static str {
        match self {
            Self::Overhead => "What tracing costs a lookup and a packet",
            Self::Hooks => "What the hooks for stories cost",
            Self::OwnTime => "What vpnfix's own processes take",
            Self::Reaction => "From the hijack to the cure",
            Self::Start => "Start and stop, memory, size",
            Self::Lossless => "Is anything lost",
            Self::Scale => "Large hosts",
        }
    }

    /// Measures it.
    pub fn measure(self, bench: &Bench) -> Result<Measured> {
        let circumstances = Circumstances::now()?;
        let Findings { tables, goals, notes } = match self {
            Self::Overhead => overhead::measure(bench)?,
            Self::Hooks => hooks::measure(bench)?,
            Self::OwnTime => own_time::measure(bench)?,
            Self::Reaction => reaction::measure(bench)?,
            Self::Start => start::measure(bench)?,
            Self::Lossless => lossless::measure(bench)?,
            Self::Scale => scale::measure(bench)?,
        };
        Ok(Measured { title: self.title().into(), circumstances, quick: bench.quick, tables, goals, notes })
    }
}

/// What all parts need.
pub struct Bench {
    vpnfix: PathBuf,
    /// The tools to compare with.
    pub tools: Tools,
    /// Few and short measurements.
    pub quick: bool,
    /// How many processors there are.
    pub processors: usize,
    scratch: PathBuf,
}

impl Bench {
    /// Looks for vpnfix, and makes a folder for what programs write.
    pub fn new(vpnfix: &Path, tools: &Path, quick: bool) -> Result<Self> {
        let vpnfix = fs::canonicalize(vpnfix).with_context(|| format!("find {}", vpnfix.display()))?;
        let scratch = env::temp_dir().join(format!("vpnfix-bench-{}", std::process::id()));
        fs::create_dir_all(&scratch).with_context(|| format!("create {}", scratch.display()))?;
        // In memory, as /run is: a journal that waits for a disk would be measured otherwise. It goes with our mounts.
        mount(Some("tmpfs"), &scratch, Some("tmpfs"), MsFlags::empty(), None::<&str>).context("mount a tmpfs")?;
        Ok(Self { vpnfix, tools: Tools::beside(tools), quick, processors: machine::processors()?, scratch })
    }

    /// A command that runs vpnfix, with a run directory of its own.
    pub fn vpnfix(&self) -> Command {
        self.vpnfix_with(Path::new("/dev/null"))
    }

    /// The same with a configuration file.
    pub fn vpnfix_with(&self, configuration: &Path) -> Command {
        let mut command = Command::new(&self.vpnfix);
        command.env("VPNFIX_RUN_DIR", self.scratch.join("run")).arg("--config").arg(configuration);
        command
    }

    /// The binary.
    pub fn binary(&self) -> &Path {
        &self.vpnfix
    }

    /// A folder that goes with this.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// The processor that senders are pinned to: the last, as the first has most of the machine's interrupts.
    pub fn sending_processor(&self) -> usize {
        self.processors - 1
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let unmounted = umount2(&self.scratch, MntFlags::MNT_DETACH).map_err(std::io::Error::from);
        if let Err(error) = unmounted.and_then(|()| fs::remove_dir(&self.scratch)) {
            eprintln!("bench: remove {}: {error}", self.scratch.display());
        }
    }
}
