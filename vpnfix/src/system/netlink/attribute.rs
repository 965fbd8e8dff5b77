//! Reading the values of netlink attributes, none of which is trusted to have its length.

use std::net::IpAddr;

use ipnet::IpNet;

use super::channel::Malformed;
use crate::core::model::Family;

/// `AF_INET` and `AF_INET6` as netlink headers carry them.
pub(super) const AF_INET: u8 = libc::AF_INET as u8;
pub(super) const AF_INET6: u8 = libc::AF_INET6 as u8;

/// The number of a family in netlink headers.
pub(super) fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    }
}

/// The family of a number; none for those that vpnfix has nothing to do with (MPLS, bridge …).
pub(super) fn family_of(number: u8) -> Option<Family> {
    match number {
        AF_INET => Some(Family::V4),
        AF_INET6 => Some(Family::V6),
        _ => None,
    }
}

/// A 32-bit number in host byte order.
pub(super) fn number(value: &[u8], what: &str) -> Result<u32, Malformed> {
    fixed(value, what).map(u32::from_ne_bytes)
}

/// An address, 4 or 16 bytes long.
pub(super) fn address(value: &[u8], what: &str) -> Result<IpAddr, Malformed> {
    match value.len() {
        4 => fixed::<4>(value, what).map(IpAddr::from),
        16 => fixed::<16>(value, what).map(IpAddr::from),
        length => Err(Malformed(format!("{what} of {length} bytes"))),
    }
}

/// A text that a zero byte ends. What is not UTF-8 in it is replaced: interface names can hold any byte.
pub(super) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

/// The prefix of an address attribute and the length that its header gives.
pub(super) fn prefix(address: IpAddr, length: u8, what: &str) -> Result<IpNet, Malformed> {
    IpNet::new(address, length).map_err(|_error| Malformed(format!("{what} {address}/{length}")))
}

fn fixed<const N: usize>(value: &[u8], what: &str) -> Result<[u8; N], Malformed> {
    value.try_into().map_err(|_error| Malformed(format!("{what} of {} bytes, {N} expected", value.len())))
}
