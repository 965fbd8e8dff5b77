//! The values that reports are rendered from: the JSON documents, and what the text says.

pub mod cause;
pub mod check;
pub mod cure;
pub mod diagnose;
pub mod doctor;
pub mod explain;
pub mod fix;
pub mod flow;
pub mod incident;
pub mod persist;
pub mod trace;
pub mod verify;
pub mod watch;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a command ended with. Its number is the exit status (design §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Healthy, nothing to do, or done and confirmed.
    Ok,
    /// A fault found and not repaired.
    FaultFound,
    /// Wrong usage.
    Usage,
    /// Changed, and the rules stay, but not everything is repaired and confirmed.
    Unconfirmed,
    /// Cannot tell or cannot do.
    Unable,
    /// The change was rolled back.
    RolledBack,
}

impl Outcome {
    /// The exit status.
    #[must_use]
    pub fn status(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::FaultFound => 1,
            Self::Usage => 2,
            Self::Unconfirmed => 3,
            Self::Unable => 4,
            Self::RolledBack => 5,
        }
    }
}

/// The version that documents name.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
