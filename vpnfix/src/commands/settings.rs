//! What was asked for, resolved: the global options and the configuration file together.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::cli::Global;
use super::failure::Failure;
use super::output::Output;
use crate::system::namespace::Target;

/// Where the configuration file lies unless another is named.
const DEFAULT_CONFIG: &str = "/etc/vpnfix/config.toml";

/// The configuration file. Unknown keys are errors: a misspelt one would be ignored in silence otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ConfigFile {
    /// Devices that are tunnels too, as `--tunnel`.
    #[serde(default)]
    tunnels: Vec<String>,
}

/// What holds for one run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The namespace to work in.
    pub netns: Target,
    /// Devices that are tunnels too.
    pub tunnels: Vec<String>,
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

fn read_config(path: &Path) -> Result<Option<ConfigFile>, Failure> {
    let what = format!("read the configuration {}", path.display());
    match std::fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).map(Some).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count().max(1));
            Failure::unable(format!("{what}: line {line}: {}", error.message()))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::of(&what, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_errors() {
        assert!(toml::from_str::<ConfigFile>("tunnels = [\"gre1\"]").is_ok());
        assert!(toml::from_str::<ConfigFile>("tunnel = [\"gre1\"]").is_err());
    }
}
