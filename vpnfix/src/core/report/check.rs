//! The document of `report --check`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Outcome, VERSION};
use crate::core::bundle::Files;
use crate::core::bundle::manifest::{Fault, Manifest, Missing, faults};

/// Name of the schema.
pub const SCHEMA: &str = "vpnfix.check/1";

/// Whether a bundle is whole and as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckReport {
    /// Always `vpnfix.check/1`.
    pub schema: String,
    /// Version of vpnfix that checked.
    pub version: String,
    /// The exit status in words: `ok` or `fault_found`.
    pub outcome: Outcome,
    /// The bundle, as it was named.
    pub bundle: String,
    /// How many files the manifest names.
    pub files: usize,
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// What the bundle itself says is not in it.
    pub missing: Vec<Missing>,
}

impl CheckReport {
    /// Checks.
    #[must_use]
    pub fn of(bundle: String, manifest: &Manifest, files: &Files) -> Self {
        let faults = faults(manifest, files);
        Self {
            schema: SCHEMA.into(),
            version: VERSION.into(),
            outcome: if faults.is_empty() { Outcome::Ok } else { Outcome::FaultFound },
            bundle,
            files: manifest.files.len(),
            faults,
            missing: manifest.missing.clone(),
        }
    }
}
