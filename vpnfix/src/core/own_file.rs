//! Files of vpnfix's own on this host: what each is for, and how it stands.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a file was written for. It decides who takes it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Purpose {
    /// The cure at the root (`fix --cure`); taken back by `undo`.
    Cure,
    /// Rules that outlive a reboot (`persist`); taken back by `unpersist` and `undo --all`.
    Persistence {
        /// Whose way of keeping rules it is.
        backend: Backend,
    },
}

/// What keeps rules over a reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// systemd-networkd.
    Networkd,
    /// NetworkManager.
    NetworkManager,
    /// netplan.
    Netplan,
    /// ifupdown.
    Ifupdown,
    /// A unit of systemd.
    Systemd,
}

/// How a recorded file stands on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It holds what vpnfix wrote.
    AsWritten,
    /// It holds an earlier version that vpnfix wrote; the writing of a later one was interrupted.
    Earlier,
    /// It holds something else, or is no regular file any more: it was edited or replaced.
    Changed,
    /// There is none, or its writing was interrupted before it was there.
    Missing,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AsWritten => "as written",
            Self::Earlier => "an earlier version",
            Self::Changed => "changed since",
            Self::Missing => "missing",
        })
    }
}
