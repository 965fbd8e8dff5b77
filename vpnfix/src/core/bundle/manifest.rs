//! What a bundle is, and the sums of its files.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Files;
use super::name::MANIFEST;
use crate::core::model::{HostFacts, Netns};
use crate::core::report::{Outcome, VERSION};

/// Name of the schema.
pub const SCHEMA: &str = "vpnfix.bundle/1";

/// The first file of a bundle to be written, with `complete: false`, and the last one to be written anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Manifest {
    /// Always `vpnfix.bundle/1`.
    pub schema: String,
    /// Version of vpnfix.
    pub version: String,
    /// The capture came to its end. Otherwise it was interrupted, and what lacks is in `missing`.
    pub complete: bool,
    /// Public addresses and names were replaced by stand-ins.
    pub redacted: bool,
    /// The exit status in words; `null` before the end.
    pub outcome: Option<Outcome>,
    /// The host.
    pub host: HostFacts,
    /// The namespace.
    pub netns: Netns,
    /// When the capture began, RFC 3339, UTC.
    pub began: String,
    /// When it ended.
    pub ended: Option<String>,
    /// Where the times come from.
    pub clock: String,
    /// The files, but for this one.
    pub files: BTreeMap<String, FileFacts>,
    /// What is not in the bundle and why.
    pub missing: Vec<Missing>,
}

/// A file of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileFacts {
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// Something that is not in the bundle, or not whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Missing {
    /// Name of the file.
    pub file: String,
    /// Why.
    pub why: String,
}

/// Where the times of a bundle come from.
pub const CLOCK: &str =
    "the kernel's CLOCK_MONOTONIC, told as UTC by the distance to the wall clock when the capture began";

impl FileFacts {
    /// Those of these bytes.
    #[must_use]
    pub fn of(contents: &[u8]) -> Self {
        let digest = Sha256::digest(contents);
        let sha256 = digest.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        Self { bytes: contents.len() as u64, sha256 }
    }
}

impl Manifest {
    /// Of a capture that has just begun.
    #[must_use]
    pub fn begun(host: HostFacts, netns: Netns, began: String) -> Self {
        Self {
            schema: SCHEMA.into(),
            version: VERSION.into(),
            complete: false,
            redacted: false,
            outcome: None,
            host,
            netns,
            began,
            ended: None,
            clock: CLOCK.into(),
            files: BTreeMap::new(),
            missing: Vec::new(),
        }
    }

    /// Says why a file lacks; the first reason holds.
    pub fn lacks(&mut self, file: &str, why: impl Into<String>) {
        if !self.missing.iter().any(|missing| missing.file == file) {
            self.missing.push(Missing { file: file.into(), why: why.into() });
        }
    }
}

/// Why a bundle is not whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum Fault {
    /// The capture did not come to its end.
    NotComplete,
    /// The manifest names a file that is not there.
    Absent {
        /// Its name.
        file: String,
    },
    /// A file is not what the manifest says.
    Altered {
        /// Its name.
        file: String,
    },
    /// A file that the manifest does not name.
    Unlisted {
        /// Its name.
        file: String,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotComplete => write!(f, "the capture did not come to its end"),
            Self::Absent { file } => write!(f, "{file} is not there"),
            Self::Altered { file } => write!(f, "{file} was changed since it was written"),
            Self::Unlisted { file } => write!(f, "{file} is not named in the manifest"),
        }
    }
}

/// What is wrong with a bundle of these files; nothing if it is whole and as it was written.
#[must_use]
pub fn faults(manifest: &Manifest, files: &Files) -> Vec<Fault> {
    let incomplete = (!manifest.complete).then_some(Fault::NotComplete);
    let listed = manifest.files.iter().filter_map(|(file, facts)| match files.get(file) {
        None => Some(Fault::Absent { file: file.clone() }),
        Some(contents) if FileFacts::of(contents) != *facts => Some(Fault::Altered { file: file.clone() }),
        Some(_) => None,
    });
    let unlisted = files.keys().filter(|file| *file != MANIFEST && !manifest.files.contains_key(*file));
    incomplete.into_iter().chain(listed).chain(unlisted.map(|file| Fault::Unlisted { file: file.clone() })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> (Manifest, Files) {
        let mut manifest = Manifest::begun(HostFacts::default(), Netns::default(), "2026-01-01T00:00:00Z".into());
        let mut files = Files::new();
        for (name, text) in [("a.json", "{}"), ("before/b.json", "[]")] {
            files.insert(name.into(), text.into());
            manifest.files.insert(name.into(), FileFacts::of(text.as_bytes()));
        }
        manifest.complete = true;
        (manifest, files)
    }

    #[test]
    fn a_whole_bundle_has_no_fault_and_each_change_is_one() {
        let (manifest, files) = whole();
        assert_eq!(faults(&manifest, &files), []);
        let mut altered = files.clone();
        altered.insert("a.json".into(), b"{ }".to_vec());
        assert_eq!(faults(&manifest, &altered), [Fault::Altered { file: "a.json".into() }]);
        let mut absent = files.clone();
        absent.remove("before/b.json");
        assert_eq!(faults(&manifest, &absent), [Fault::Absent { file: "before/b.json".into() }]);
        let mut more = files.clone();
        more.insert("c".into(), Vec::new());
        assert_eq!(faults(&manifest, &more), [Fault::Unlisted { file: "c".into() }]);
        let early = Manifest { complete: false, ..manifest };
        assert_eq!(faults(&early, &files), [Fault::NotComplete]);
    }

    #[test]
    fn the_sum_is_sha256() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(FileFacts::of(b""), FileFacts { bytes: 0, sha256: empty.into() });
    }
}
