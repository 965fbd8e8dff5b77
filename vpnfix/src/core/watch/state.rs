//! The states of a tunnel, and what a change of them rests on.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a tunnel fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TunnelState {
    /// The kernel sends all that belongs into it into it, and no rule of ours is needed for that.
    Healthy,
    /// A lookup was seen to go elsewhere; the kernel has not been asked yet.
    Suspected,
    /// Its traffic goes elsewhere, by the kernel's answers or by a packet that was seen.
    Misrouted,
    /// Rules are being added.
    Repairing,
    /// Our rules stand, and live packets have confirmed them.
    Repaired,
    /// Our rules stand and the kernel answers rightly; no packet has confirmed it.
    Unconfirmed,
    /// Others take our rules away again and again: nothing is repaired until they stop.
    Fighting,
    /// Wrong, and no rule cures it, or the repair was refused or taken back.
    Failed,
    /// The tunnel is not there.
    Gone,
}

impl TunnelState {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Healthy,
        Self::Suspected,
        Self::Misrouted,
        Self::Repairing,
        Self::Repaired,
        Self::Unconfirmed,
        Self::Fighting,
        Self::Failed,
        Self::Gone,
    ];

    /// As documents and metrics spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Suspected => "suspected",
            Self::Misrouted => "misrouted",
            Self::Repairing => "repairing",
            Self::Repaired => "repaired",
            Self::Unconfirmed => "unconfirmed",
            Self::Fighting => "fighting",
            Self::Failed => "failed",
            Self::Gone => "gone",
        }
    }

    /// Does traffic of the tunnel go wrong now?
    #[must_use]
    pub fn is_wrong(self) -> bool {
        matches!(self, Self::Misrouted | Self::Repairing | Self::Fighting | Self::Failed)
    }
}

impl fmt::Display for TunnelState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a change of state rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", content = "detail", rename_all = "kebab-case")]
pub enum Evidence {
    /// The kernel answers rightly about every destination of the tunnel.
    Right,
    /// The same, and rules of ours stand for it.
    RightByRules,
    /// The kernel answers wrongly; what and why.
    Answers(String),
    /// A lookup that was seen.
    Lookup(String),
    /// A packet that was seen.
    Packet(String),
    /// The link is not there any more.
    Gone,
    /// A repair was begun.
    RepairBegan,
    /// Rules were added, and the kernel answers rightly.
    Added {
        /// How many.
        rules: usize,
    },
    /// The repair failed; why.
    Failed(String),
    /// Live packets confirm the repair; how.
    Confirmed(String),
    /// Rules that were needed were taken away again and again.
    TakenAway {
        /// How often of late.
        times: usize,
        /// By whom last.
        by: String,
    },
    /// A fight was left alone for so long that one more repair is tried.
    CalmOver,
    /// Somebody had the configuration read again.
    FreshStart,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Right => f.write_str("the kernel answers rightly about every destination"),
            Self::RightByRules => f.write_str("the kernel answers rightly; rules of vpnfix's stand for it"),
            Self::Answers(what) => f.write_str(what),
            Self::Lookup(what) => write!(f, "a lookup was seen: {what}"),
            Self::Packet(what) => write!(f, "a packet was seen: {what}"),
            Self::Gone => f.write_str("the link is gone"),
            Self::RepairBegan => f.write_str("a repair begins"),
            Self::Added { rules: 1 } => f.write_str("1 rule was added, and the kernel answers rightly"),
            Self::Added { rules } => write!(f, "{rules} rules were added, and the kernel answers rightly"),
            Self::Failed(why) => write!(f, "the repair failed: {why}"),
            Self::Confirmed(how) => write!(f, "confirmed: {how}"),
            Self::TakenAway { times, by } => {
                write!(
                    f,
                    "rules that were needed were taken away {times} times, last by {by}; nothing more is repaired"
                )
            }
            Self::CalmOver => f.write_str("the rules were left alone for long enough to try once more"),
            Self::FreshStart => f.write_str("the configuration was read again"),
        }
    }
}
