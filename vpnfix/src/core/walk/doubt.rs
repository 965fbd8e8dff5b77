//! What a snapshot cannot tell.

use std::fmt;

use crate::core::model::rule::table_word;

/// Why something cannot be told from a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The rule has attributes, by their numbers (`FRA_*`), that this version of vpnfix does not know.
    UnknownAttributes(Vec<u16>),
    /// The rule looks at the source address that the route would choose.
    FindSource,
    /// The rule names a VRF device: kernels differ in what then matches.
    VrfSelector,
    /// The rule's action is unknown.
    Action(u8),
    /// The route's type is unknown.
    RouteKind(u8),
    /// Several default routes of equal metric: the kernel goes by what it knows of the gateways.
    EqualDefaults,
    /// Only a part of this table was read.
    PartialTable(u32),
    /// Beside this IPv6 route stand routes of its prefix for other sources. Kernels do not find it then, unless it is a
    /// default route; a correction is under way.
    HiddenBySource,
    /// The rule discards the route by some of its nexthops and not by others, and a hash chooses among them; or routes of
    /// other lengths use the same IPv6 nexthop object, and the kernel compares the length of the one asked for first.
    Suppression,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownAttributes(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
                write!(f, "the rule has attributes that this version of vpnfix does not know ({})", numbers.join(", "))
            }
            Self::FindSource => write!(f, "the rule looks at the source that the route would choose"),
            Self::VrfSelector => write!(f, "the rule names a VRF device, and kernels differ in what then matches"),
            Self::Action(number) => write!(f, "the rule's action {number} is unknown to this version of vpnfix"),
            Self::RouteKind(number) => write!(f, "the route's type {number} is unknown to this version of vpnfix"),
            Self::EqualDefaults => {
                write!(f, "several default routes of equal metric: the kernel goes by what it knows of the gateways")
            }
            Self::PartialTable(table) => write!(f, "only a part of table {} was read", table_word(*table)),
            Self::HiddenBySource => write!(f, "routes of its prefix for other sources stand beside the route"),
            Self::Suppression => {
                write!(f, "which nexthops the rule leaves depends on a hash, or on what was asked for before")
            }
        }
    }
}
