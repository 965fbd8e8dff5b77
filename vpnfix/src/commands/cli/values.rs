//! Values on the command line: what a word must be, and what is said of one that is not.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::Protocol;
use crate::core::model::{TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN};
use crate::core::recording::LIMIT_MAX;

/// An address or a prefix; an address stands for itself alone.
pub(super) fn prefix(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse() {
        return Ok(IpNet::from(std::net::IpAddr::clone(&address)));
    }
    IpNet::from_str(text).map(|prefix| prefix.trunc()).map_err(|_| "not an address or a prefix (10.20.0.0/16)".into())
}

/// An address that a packet can go to.
pub(super) fn destination(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| "not an address (10.20.0.1, fd00::1)".to_string())?;
    if address.is_unspecified() { Err("no packet goes to the unspecified address".into()) } else { Ok(address) }
}

/// An address that a packet can come from.
pub(super) fn source(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| "not an address (10.20.0.1, fd00::1)".to_string())?;
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    if address.is_unspecified() || address.is_multicast() || broadcast {
        return Err("no packet comes from the unspecified address, a group or a broadcast".into());
    }
    Ok(address)
}

/// A number, decimal or hexadecimal with `0x`.
pub(super) fn number(text: &str) -> Result<u32, String> {
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let parsed = match hexadecimal {
        // `from_str_radix` would take a sign.
        Some(digits) if !digits.starts_with('+') => u32::from_str_radix(digits, 16),
        _ => text.parse(),
    };
    parsed.map_err(|_| "not a number of 32 bits (16, 0x10)".into())
}

/// A type of service. The two lowest bits are congestion notification (RFC 3168) and no part of routing.
pub(super) fn tos(text: &str) -> Result<u8, String> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    match u8::from_str_radix(digits, 16) {
        Ok(tos) if tos & 3 == 0 && !digits.starts_with('+') => Ok(tos),
        Ok(_) => Err("the two lowest bits are congestion notification, not routing".into()),
        Err(_) => Err("not a byte in hexadecimal (0x10)".into()),
    }
}

/// An IP protocol by name or number.
pub(super) fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "tcp" => Ok(Protocol::Number(6)),
        "udp" => Ok(Protocol::Number(17)),
        "icmp" => Ok(Protocol::Icmp),
        number => number.parse().map(Protocol::Number).map_err(|_| "not tcp, udp, icmp or a number up to 255".into()),
    }
}

/// A table's number, or the name of one of the kernel's own.
pub(super) fn table(text: &str) -> Result<u32, String> {
    match text {
        "main" => Ok(TABLE_MAIN),
        "local" => Ok(TABLE_LOCAL),
        "default" => Ok(TABLE_DEFAULT),
        number => number.parse().map_err(|_| "not a table's number, nor main, local or default".into()),
    }
}

/// A size in bytes, with K, M or G for powers of 1024.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let (number, shift) = match text.strip_suffix(['K', 'M', 'G']) {
        Some(number) if text.ends_with('K') => (number, 10),
        Some(number) if text.ends_with('M') => (number, 20),
        Some(number) => (number, 30),
        None => (text, 0),
    };
    let number: u64 = number.parse().map_err(|_| "not a size (65536, 64K, 10M, 1G)".to_string())?;
    // Below this a file would hold hardly more than its first line.
    number.checked_mul(1 << shift).filter(|size| *size >= 4096).ok_or_else(|| "at least 4K, and less than 2^64".into())
}

/// A size that a recording may have.
pub(super) fn record_limit(text: &str) -> Result<u64, String> {
    size(text).and_then(|size| if size <= LIMIT_MAX { Ok(size) } else { Err("at most 1G".into()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_have_values_that_can_be() {
        assert_eq!(number("0x10"), Ok(16));
        assert_eq!(number("10"), Ok(10));
        assert_eq!(number("0xffffffff"), Ok(u32::MAX));
        assert!(["", "0x", "0x+1", "-1", "0x1ffffffff", "x"].iter().all(|bad| number(bad).is_err()));
        assert_eq!((tos("0x10"), tos("b8")), (Ok(0x10), Ok(0xb8)));
        assert!(["0x11", "0x100", "", "+10", "tos"].iter().all(|bad| tos(bad).is_err()));
        assert_eq!((protocol("tcp"), protocol("47")), (Ok(Protocol::Number(6)), Ok(Protocol::Number(47))));
        assert!(["256", "gre", ""].iter().all(|bad| protocol(bad).is_err()));
        assert!(destination("0.0.0.0").is_err() && destination("::").is_err() && destination("10.0.0.1/24").is_err());
        assert!(["255.255.255.255", "224.0.0.1", "::", "x"].iter().all(|bad| source(bad).is_err()));
    }

    #[test]
    fn tables_and_sizes_have_words() {
        assert_eq!((table("main"), table("220")), (Ok(254), Ok(220)));
        assert!(["-1", "", "strongswan", "4294967296"].iter().all(|bad| table(bad).is_err()));
        assert_eq!((size("64K"), size("1G"), size("4096")), (Ok(65536), Ok(1 << 30), Ok(4096)));
        assert!(["", "K", "1", "10T", "-1K", "99999999999999G"].iter().all(|bad| size(bad).is_err()));
    }

    #[test]
    fn an_address_is_a_prefix_of_its_own() {
        assert_eq!(prefix("10.20.0.1").map(|p| p.to_string()), Ok("10.20.0.1/32".into()));
        assert_eq!(prefix("10.20.0.1/16").map(|p| p.to_string()), Ok("10.20.0.0/16".into()));
        assert!(prefix("169.254.55.").is_err());
    }
}
