//! What was asked for, resolved: the global options and the configuration file together.

use std::io;
use std::path::{Path, PathBuf};

use super::cli::Global;
use super::failure::Failure;
use super::output::Output;
use crate::core::config::{self, Config, Prefixes};
use crate::system::namespace::Target;

/// Where the configuration file lies unless another is named.
pub const DEFAULT_CONFIG: &str = "/etc/vpnfix/config.toml";

/// What holds for one run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The namespace to work in.
    pub netns: Target,
    /// Devices that are tunnels too.
    pub tunnels: Vec<String>,
    /// Prefixes that the configuration adds or leaves alone.
    pub prefixes: Prefixes,
    /// What the configuration says of `watch`.
    pub watch: config::Watch,
    /// Where and how reports are printed.
    pub output: Output,
    /// Level of the kernel programs' own log: 0 off, 5 everything.
    pub kernel_log: u8,
}

impl Settings {
    /// Reads the configuration file, if there is one, and lets the command line come first.
    ///
    /// # Errors
    /// A configuration file that was named and is not there, or that cannot be read or understood.
    pub fn resolve(global: &Global) -> Result<Self, Failure> {
        let config = match &global.config {
            Some(path) => read_config(path)?
                .ok_or_else(|| Failure::unable(format!("read the configuration {}: no such file", path.display())))?,
            None => read_config(&PathBuf::from(DEFAULT_CONFIG))?.unwrap_or_default(),
        };
        let tunnels = if global.tunnels.is_empty() { config.tunnels } else { global.tunnels.clone() };
        Ok(Self {
            netns: global.netns.as_deref().map_or(Target::Current, Target::parse),
            tunnels,
            prefixes: config.prefixes,
            watch: config.watch,
            output: Output::new(global),
            kernel_log: if global.verbose >= 3 { 5 } else { 0 },
        })
    }
}

impl Settings {
    /// The same in the namespace that vpnfix was started in.
    #[must_use]
    pub fn in_current_namespace(&self) -> Self {
        Self { netns: Target::Current, ..self.clone() }
    }
}

fn read_config(path: &Path) -> Result<Option<Config>, Failure> {
    let what = format!("read the configuration {}", path.display());
    match std::fs::read_to_string(path) {
        Ok(text) => Config::parse(&text).map(Some).map_err(|error| Failure::of(&what, &error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::of(&what, &error)),
    }
}
