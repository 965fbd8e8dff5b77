//! Stand-ins for public addresses and prefixes.
//!
//! A public network of 24 bits (IPv6: 48) gets a network of the same length out of the documentation's and the benchmarks'
//! ranges (RFC 5737, RFC 2544; RFC 3849); the bits behind it are hidden by an exclusive or with secret ones, which keeps
//! every prefix inside. Where a wider public prefix occurs, all of its first 8 bits (IPv6: 32) are treated as one network
//! that gets a part of 240.0.0.0/4 (RFC 1112, reserved; RFC 9637), so that what lies in it still does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

#[cfg(test)]
use super::words;

/// More public networks than there are stand-ins.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("more public networks than there are stand-ins")]
pub struct TooManyNetworks;

/// Stand-ins for addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    networks: BTreeMap<IpNet, IpNet>,
    secret: [u8; 16],
    told: BTreeMap<String, String>,
}

/// The addresses and prefixes in a word.
pub(super) fn prefixes(word: &str) -> Option<IpNet> {
    if let Ok(prefix) = word.parse::<IpNet>() {
        return Some(prefix);
    }
    let address: IpAddr = word.parse().ok()?;
    // A number such as `::` or `1::` is a word of an address, too; one without a colon or dots never parses.
    Some(IpNet::from(address))
}

fn is_public(prefix: &IpNet) -> bool {
    match prefix {
        // Halves, quarters and the like of everything are no one's.
        IpNet::V4(prefix) => prefix.prefix_len() >= 8 && is_public_v4(prefix.network()),
        IpNet::V6(prefix) => prefix.prefix_len() >= 32 && is_public_v6(prefix.network()),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let benchmark = a == 198 && (b == 18 || b == 19);
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || shared
        || benchmark
        || a == 0
        || a >= 224
        // 192.0.0.0/24: the protocols' own (RFC 6890).
        || address.octets().starts_with(&[192, 0, 0]))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let documentation = (first == 0x2001 && second == 0xdb8) || (first == 0x3fff && second < 0x1000);
    (0x2000..0x4000).contains(&first) && !documentation
}

impl Addresses {
    /// For what was seen.
    pub(super) fn new(seen: &BTreeSet<IpNet>, secret: [u8; 16]) -> Result<Self, TooManyNetworks> {
        let public: Vec<&IpNet> = seen.iter().filter(|prefix| is_public(prefix)).collect();
        let to_replace: BTreeSet<IpNet> = public.iter().map(|prefix| network(prefix, &public)).collect();
        let mut networks = BTreeMap::new();
        let mut used = seen.clone();
        let mut pools = Pools::default();
        for network in to_replace {
            let stand_in = loop {
                let candidate = pools.next(&network).ok_or(TooManyNetworks)?;
                // What stands in the bundle itself must not be taken for a stand-in.
                let clashes = used.iter().any(|seen| candidate.contains(&seen.trunc()) && seen.prefix_len() > 8);
                if !clashes {
                    break candidate;
                }
            };
            used.insert(stand_in);
            networks.insert(network, stand_in);
        }
        Ok(Self { networks, secret, told: BTreeMap::new() })
    }

    /// The stand-in of a word that is a public address or prefix.
    pub(super) fn word(&mut self, word: &str) -> Option<String> {
        if let Some(told) = self.told.get(word) {
            return Some(told.clone());
        }
        let prefix = prefixes(word).filter(is_public)?;
        let stand_in = self.prefix(prefix)?;
        let told = if word.contains('/') { stand_in.to_string() } else { stand_in.addr().to_string() };
        self.told.insert(word.into(), told.clone());
        Some(told)
    }

    fn prefix(&self, prefix: IpNet) -> Option<IpNet> {
        let (network, stand_in) = self.networks.iter().find(|(network, _)| network.contains(&prefix.trunc()))?;
        let hidden = match (prefix.addr(), stand_in.addr()) {
            (IpAddr::V4(address), IpAddr::V4(base)) => {
                let host = u32::MAX.checked_shr(u32::from(network.prefix_len())).unwrap_or(0);
                let bits = u32::from(address) ^ u32::from_be_bytes(self.mask::<4>(network));
                IpAddr::V4((u32::from(base) | (bits & host)).into())
            }
            (IpAddr::V6(address), IpAddr::V6(base)) => {
                let host = u128::MAX.checked_shr(u32::from(network.prefix_len())).unwrap_or(0);
                let bits = u128::from(address) ^ u128::from_be_bytes(self.mask::<16>(network));
                IpAddr::V6((u128::from(base) | (bits & host)).into())
            }
            _ => return None,
        };
        let hidden = IpNet::new(hidden, prefix.prefix_len()).ok()?;
        // A network stays one, and an address with a length keeps its last bits.
        Some(if prefix == prefix.trunc() && prefix.prefix_len() < prefix.max_prefix_len() {
            hidden.trunc()
        } else {
            hidden
        })
    }

    /// Secret bits of a network.
    fn mask<const N: usize>(&self, network: &IpNet) -> [u8; N] {
        let digest = Sha256::new().chain_update(self.secret).chain_update(network.to_string()).finalize();
        let mut mask = [0; N];
        mask.iter_mut().zip(digest.iter()).for_each(|(mask, byte)| *mask = *byte);
        mask
    }

    pub(super) fn mapping(&self) -> BTreeMap<String, String> {
        self.told.clone()
    }
}

/// The network that is replaced as a whole: 24 bits (48), or 8 (32) where a wider prefix of the bundle lies there.
fn network(prefix: &IpNet, public: &[&IpNet]) -> IpNet {
    let (narrow, wide) = match prefix {
        IpNet::V4(_) => (24, 8),
        IpNet::V6(_) => (48, 32),
    };
    let cut = |length| IpNet::new(prefix.addr(), length).map_or(*prefix, |network| network.trunc());
    let around = cut(wide);
    let is_wide = public.iter().any(|other| other.prefix_len() < narrow && around.contains(&other.trunc()));
    if is_wide { around } else { cut(narrow) }
}

/// What stand-ins are taken from.
#[derive(Default)]
struct Pools {
    v4: u32,
    v4_wide: u32,
    v6: u32,
    v6_wide: u32,
}

impl Pools {
    fn next(&mut self, network: &IpNet) -> Option<IpNet> {
        match network {
            IpNet::V4(network) if network.prefix_len() == 8 => {
                let number = self.v4_wide;
                self.v4_wide += 1;
                // 255.0.0.0/8 holds the broadcast address.
                let first = u8::try_from(number).ok().filter(|number| *number < 15)? + 240;
                Ipv4Net::new(Ipv4Addr::new(first, 0, 0, 0), 8).ok().map(IpNet::V4)
            }
            IpNet::V4(_) => {
                let number = self.v4;
                self.v4 += 1;
                let base = match number {
                    0 => Ipv4Addr::new(203, 0, 113, 0),
                    1 => Ipv4Addr::new(198, 51, 100, 0),
                    2 => Ipv4Addr::new(192, 0, 2, 0),
                    3..515 => Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + ((number - 3) << 8)),
                    _ => return None,
                };
                Ipv4Net::new(base, 24).ok().map(IpNet::V4)
            }
            IpNet::V6(network) if network.prefix_len() == 32 => {
                let number = u16::try_from(self.v6_wide).ok().filter(|number| *number < 0x1000)?;
                self.v6_wide += 1;
                Ipv6Net::new(Ipv6Addr::new(0x3fff, number, 0, 0, 0, 0, 0, 0), 32).ok().map(IpNet::V6)
            }
            IpNet::V6(_) => {
                let number = u16::try_from(self.v6).ok()?;
                self.v6 += 1;
                Ipv6Net::new(Ipv6Addr::new(0x2001, 0xdb8, number, 0, 0, 0, 0, 0), 48).ok().map(IpNet::V6)
            }
        }
    }
}

/// The public addresses that a text holds.
#[cfg(test)]
pub(super) fn public_in(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    words::for_each(text, &mut |word| {
        if prefixes(word).as_ref().is_some_and(is_public) {
            found.push(word.to_string());
        }
    });
    found
}
