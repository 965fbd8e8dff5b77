//! What can fail between vpnfix and the kernel's rtnetlink.

use std::fmt;
use std::io;

use thiserror::Error;

use crate::core::model::{Family, Question, Rule, rule::table_word};

/// What was asked of the kernel, with its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Listing the interfaces.
    ListLinks,
    /// Listing the devices' settings of a family.
    ListSettings(Family),
    /// Listing the addresses of a family.
    ListAddresses(Family),
    /// Listing the neighbour entries of a family.
    ListNeighbours(Family),
    /// Listing the rules of a family.
    ListRules(Family),
    /// Listing one table's routes of a family.
    ListRoutes(Family, u32),
    /// Listing the nexthop objects.
    ListNexthops,
    /// Adding this rule.
    AddRule(Box<Rule>),
    /// Deleting this rule.
    DeleteRule(Box<Rule>),
    /// Looking up a route.
    Ask(Box<Question>),
    /// Listening for changes.
    Listen,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ListLinks => write!(f, "list interfaces"),
            Self::ListSettings(family) => write!(f, "list {} settings of interfaces", family_name(*family)),
            Self::ListAddresses(family) => write!(f, "list {} addresses", family_name(*family)),
            Self::ListNeighbours(family) => write!(f, "list {} neighbour entries", family_name(*family)),
            Self::ListRules(family) => write!(f, "list {} rules", family_name(*family)),
            Self::ListRoutes(family, table) => {
                write!(f, "list {} routes of table {}", family_name(*family), table_word(*table))
            }
            Self::ListNexthops => write!(f, "list nexthop objects"),
            Self::AddRule(rule) => write!(f, "add {} rule `{rule}`", family_name(rule.family)),
            Self::DeleteRule(rule) => write!(f, "delete {} rule `{rule}`", family_name(rule.family)),
            Self::Listen => write!(f, "listen for changes"),
            Self::Ask(question) => write!(f, "look up the route to {}", question.destination),
        }
    }
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

/// A failed netlink operation. The operating system's error, where there is one, is the source.
#[derive(Debug, Error)]
pub enum NetlinkError {
    /// No socket.
    #[error("open a netlink socket")]
    Open {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The socket failed in the middle.
    #[error("{operation}: the netlink socket failed")]
    Socket {
        /// What was asked.
        operation: Operation,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused.
    #[error("{operation}{}", extended(text.as_deref()))]
    Refused {
        /// What was asked.
        operation: Operation,
        /// The kernel's own words (extended acknowledgement), where it gave some.
        text: Option<String>,
        /// The errno.
        #[source]
        source: io::Error,
    },
    /// What was being listed kept changing, in all attempts (`NLM_F_DUMP_INTR`).
    #[error("{operation}: it kept changing while it was read")]
    Interrupted {
        /// What was asked.
        operation: Operation,
    },
    /// The kernel did not answer.
    #[error("{operation}: no answer from the kernel")]
    TimedOut {
        /// What was asked.
        operation: Operation,
    },
    /// The kernel's answer makes no sense.
    #[error("{operation}: an answer that cannot be read: {reason}")]
    Malformed {
        /// What was asked.
        operation: Operation,
        /// What is wrong with it.
        reason: String,
    },
    /// The rule has attributes that this version of vpnfix cannot say to the kernel.
    #[error("{operation}: it has attributes that vpnfix does not know ({numbers:?})")]
    NotExpressible {
        /// What was asked.
        operation: Operation,
        /// Their numbers (`FRA_*`).
        numbers: Vec<u16>,
    },
    /// Exactly this rule is not there; nothing was deleted.
    #[error("{operation}: there is no such rule")]
    Missing {
        /// What was asked.
        operation: Operation,
    },
    /// The kernel would have deleted another rule; nothing was deleted.
    #[error("{operation}: the kernel would delete `{other}` instead, which stands before it")]
    Ambiguous {
        /// What was asked.
        operation: Operation,
        /// The rule that would have gone.
        other: Box<Rule>,
    },
    /// The kernel takes it for the same as another rule of that priority, and adds nothing: for that it compares prefixes
    /// and type of service only where the new rule has them, and never the inversion (`rule_exists`).
    #[error("{operation}: the kernel takes it for the same as `{other}`; it can stand at another priority only")]
    Collides {
        /// What was asked.
        operation: Operation,
        /// The rule in its way.
        other: Box<Rule>,
    },
    /// Another thread asks for routes than the one that the kernel side knows.
    #[error("routes are asked for by one thread alone, and this is another")]
    OtherThread,
    /// The thread that asks the kernel is gone, or could not be started.
    #[error("the thread for route queries does not run")]
    QueryThread {
        /// Why, where it is known.
        #[source]
        source: Option<io::Error>,
    },
}

fn extended(text: Option<&str>) -> String {
    text.map_or_else(String::new, |text| format!(" (the kernel says: {text})"))
}

impl NetlinkError {
    /// Is a privilege missing (`EPERM`: `CAP_NET_ADMIN` for changes)?
    #[must_use]
    pub fn is_privilege(&self) -> bool {
        self.errno() == Some(libc::EPERM)
    }

    /// Is exactly this rule there already?
    #[must_use]
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// Is it gone already, so that there was nothing to delete?
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. }) || self.errno() == Some(libc::ENOENT)
    }

    /// May the same request succeed a moment later (`EBUSY`, `ENOBUFS`, `EINTR`, `EAGAIN`, `ENOMEM`, or no answer)?
    #[must_use]
    pub fn is_passing(&self) -> bool {
        const PASSING: [i32; 5] = [libc::EBUSY, libc::ENOBUFS, libc::EINTR, libc::EAGAIN, libc::ENOMEM];
        matches!(self, Self::TimedOut { .. } | Self::Interrupted { .. })
            || self.errno().is_some_and(|errno| PASSING.contains(&errno))
    }

    /// May the kernel have done what it was asked to, although no answer told of it?
    #[must_use]
    pub fn is_unanswered(&self) -> bool {
        matches!(self, Self::Socket { .. } | Self::TimedOut { .. } | Self::Malformed { .. } | Self::Interrupted { .. })
    }

    fn errno(&self) -> Option<i32> {
        match self {
            Self::Open { source } | Self::Socket { source, .. } | Self::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
