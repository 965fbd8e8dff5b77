//! What the kernel can be asked.

use std::net::IpAddr;

use thiserror::Error;

use crate::core::model::{Family, Question, RouteKind, TABLE_LOCAL};
use crate::core::walk::{self, Fib, Flow, Found};

/// A packet that the kernel has no answer for, whatever the routes.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unaskable {
    /// Source and destination are of different families.
    #[error("source {from} and destination {to} are of different families")]
    OtherFamily {
        /// The source.
        from: IpAddr,
        /// The destination.
        to: IpAddr,
    },
    /// IPv4 takes no packet that comes in without a source (`ip_route_input_slow`, `net/ipv4/route.c`).
    #[error("a packet that comes in has a source, and the kernel refuses one without: name it with --from")]
    NoSource,
    /// IPv4 lets a host send from its own addresses only (`ip_route_output_key_hash_rcu`).
    #[error("{0} is none of this host's addresses, and the kernel sends own packets from those alone")]
    ForeignSource(IpAddr),
}

impl Unaskable {
    /// Is it wrong on any host?
    #[must_use]
    pub fn is_usage(&self) -> bool {
        !matches!(self, Self::ForeignSource(_))
    }
}

/// Can the kernel be asked this?
///
/// # Errors
/// Why not.
pub fn check(fib: &Fib<'_>, question: &Question) -> Result<(), Unaskable> {
    let to = question.destination;
    if let Some(from) = question.source.filter(|from| Family::of(*from) != Family::of(to)) {
        return Err(Unaskable::OtherFamily { from, to });
    }
    if Family::of(to) == Family::V6 {
        return Ok(());
    }
    match (question.input_interface, question.source) {
        (Some(_), None) => Err(Unaskable::NoSource),
        (None, Some(from)) if !is_own(fib, from) => Err(Unaskable::ForeignSource(from)),
        _ => Ok(()),
    }
}

fn is_own(fib: &Fib<'_>, address: IpAddr) -> bool {
    let found = walk::lookup(fib, TABLE_LOCAL, &Flow::plain(address));
    fib.is_own(address) || matches!(found, Found::Route { route, .. } if route.kind == RouteKind::Local)
}

/// Does the kernel take this IP protocol in a route query (`rtm_getroute_parse_ip_proto`, `net/ipv4/fib_frontend.c`)?
#[must_use]
pub fn kernel_takes(family: Family, protocol: u8) -> bool {
    match family {
        Family::V4 => matches!(protocol, 1 | 6 | 17),
        Family::V6 => matches!(protocol, 6 | 17 | 58),
    }
}
