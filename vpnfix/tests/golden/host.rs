//! A host's folder, and the script that makes it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::signs::Signs;
use crate::truth::Truth;

/// One folder of `hosts`.
pub(crate) struct Host {
    /// The folder's name.
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) script: Script,
    pub(crate) signs: Signs,
    pub(crate) truth: Truth,
}

/// The folder of everything golden.
pub(crate) fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

impl Host {
    /// All hosts, by name.
    pub(crate) fn all() -> Vec<Self> {
        let entries = fs::read_dir(golden().join("hosts")).unwrap();
        let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        folders.sort();
        folders.into_iter().map(Self::read).collect()
    }

    fn read(folder: PathBuf) -> Self {
        let text = |name: &str| {
            let file = folder.join(name);
            fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        };
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let signs = toml::from_str(&text("signs.toml")).unwrap_or_else(|error| panic!("{name}/signs.toml: {error}"));
        let truth = toml::from_str(&text("truth.toml")).unwrap_or_else(|error| panic!("{name}/truth.toml: {error}"));
        let script = Script::parse(&text("host"));
        Self { name, folder, script, signs, truth }
    }
}

/// How a host is made: `ip` commands as `ip -batch` takes them, `-6` before those for IPv6 that do not say so by an
/// address, and `sysctl NAME=VALUE`.
pub(crate) struct Script {
    pub(crate) steps: Vec<Step>,
}

/// What is done at once.
pub(crate) enum Step {
    /// A setting, by its path below `/proc/sys`.
    Sysctl { path: String, value: String },
    /// Lines for one `ip -batch`.
    Ip { v6: bool, lines: Vec<String> },
}

/// The index of a script's first link; before it lie those that the kernel makes in each namespace, as many as it has
/// modules loaded.
const FIRST_INDEX: usize = 101;

impl Script {
    fn parse(text: &str) -> Self {
        let mut steps: Vec<Step> = Vec::new();
        let mut index = FIRST_INDEX;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some((name, value)) = line.strip_prefix("sysctl ").and_then(|setting| setting.split_once('=')) {
                steps.push(Step::Sysctl { path: name.replace('.', "/"), value: value.into() });
                continue;
            }
            let (v6, line) = line.strip_prefix("-6 ").map_or((false, line), |line| (true, line));
            let line = match line.strip_prefix("link add ").and_then(|rest| rest.split_once(' ')) {
                // The same index on every kernel, so that recordings can be compared.
                Some((name, rest)) => {
                    index += 1;
                    format!("link add {name} index {} {rest}", index - 1)
                }
                None => line.into(),
            };
            match steps.last_mut() {
                Some(Step::Ip { v6: same, lines }) if *same == v6 => lines.push(line),
                _ => steps.push(Step::Ip { v6, lines: vec![line] }),
            }
        }
        Self { steps }
    }

    /// The kinds of links that it makes.
    pub(crate) fn kinds(&self) -> BTreeSet<&str> {
        let lines = self.steps.iter().flat_map(|step| match step {
            Step::Ip { lines, .. } => lines.as_slice(),
            Step::Sysctl { .. } => &[],
        });
        lines
            .filter(|line| line.starts_with("link add "))
            .filter_map(|line| line.split_once(" type ")?.1.split(' ').next())
            .collect()
    }
}
