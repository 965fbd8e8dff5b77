//! The host's network state as values: what a snapshot holds and what the kernel answers.

pub mod address;
pub mod link;
pub mod neighbour;
pub mod policy;
pub mod question;
pub mod route;
pub mod rule;
pub mod sa;
pub mod snapshot;

pub use address::Address;
pub use link::{DeviceSettings, Link, LinkCounters, LinkKind, TunnelKey};
pub use neighbour::NeighbourEntry;
pub use policy::{Direction, Policy, Template};
pub use question::{Answer, Arrival, Question, Reply};
pub use route::{Nexthop, Preference, Route, RouteKind};
pub use rule::{Dscp, FlowLabel, Mark, Ports, Rule, RuleAction, UidRange};
pub use sa::{Encapsulation, SaDirection, SaLimits, SaMode, SaReplay, SaUsage, SecurityAssociation};
pub use snapshot::{HostFacts, Netns, PartialTable, Snapshot};

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Number of the kernel's table `default` (`include/uapi/linux/rtnetlink.h`).
pub const TABLE_DEFAULT: u32 = 253;
/// Number of the kernel's table `main`.
pub const TABLE_MAIN: u32 = 254;
/// Number of the kernel's table `local`.
pub const TABLE_LOCAL: u32 = 255;

/// Address family of a rule, a route or a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Family {
    /// IPv4.
    #[serde(rename = "ipv4")]
    V4,
    /// IPv6.
    #[serde(rename = "ipv6")]
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Length in bits of an address of this family.
    #[must_use]
    pub fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// Both families, IPv4 first.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];
}
