//! What a tracer is asked to watch.

use ipnet::IpNet;
use vpnfix_common::BITMAP_WORDS;

/// What to trace.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Inode of the namespace; `None` for all.
    pub netns: Option<u32>,
    /// The prefixes whose traffic is told. Records name them by their index in this list.
    pub watches: Vec<IpNet>,
    /// Prefixes inside watched ones that are no tunnel's. The longest match decides.
    pub holes: Vec<IpNet>,
    /// Thread whose own route queries (`RTM_GETROUTE`) are left out.
    pub query_thread: Option<u32>,
    /// vpnfix's own probe.
    pub probe: Option<Probe>,
    /// The only IP protocol that is told; ICMP's number stands for ICMPv6 too.
    pub protocol: Option<u8>,
    /// The only port that is told, on either side.
    pub port: Option<u16>,
    /// Tell also flow by flow: lookups, packets, answers, drops, retransmissions.
    pub by_flow: bool,
    /// Tell the headers of the first packets of each key.
    pub headers: bool,
    /// Use `fexit` of `__fib_lookup` where the kernel lets it.
    pub use_fexit: bool,
    /// Level of the programs' debug lines (the numbers of `log::LevelFilter`, 0 is off), which go to the `log` crate.
    pub log_level: u8,
}

/// What vpnfix's own probe is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The thread that sends it.
    pub thread: u32,
    /// The ICMP identifier of its echo requests, host byte order.
    pub icmp_id: u16,
}

/// One family's bitmap over the first 16 bits of an address.
pub(super) type Bitmap = [u64; BITMAP_WORDS as usize];

/// The bitmap in which each of the prefixes has all its bits set.
pub(super) fn bitmap(prefixes: impl Iterator<Item = IpNet>) -> Bitmap {
    let mut bitmap = [0; BITMAP_WORDS as usize];
    for prefix in prefixes {
        let (first, second) = match prefix.network() {
            std::net::IpAddr::V4(address) => (address.octets()[0], address.octets()[1]),
            std::net::IpAddr::V6(address) => (address.octets()[0], address.octets()[1]),
        };
        let start = usize::from(u16::from_be_bytes([first, second]));
        let free_bits = 16u8.saturating_sub(prefix.prefix_len());
        for bit in start..start + (1 << free_bits) {
            if let Some(word) = bitmap.get_mut(bit / 64) {
                *word |= 1 << (bit % 64);
            }
        }
    }
    bitmap
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(bitmap: &Bitmap) -> u32 {
        bitmap.iter().map(|word| word.count_ones()).sum()
    }

    fn of(prefixes: &[&str]) -> Bitmap {
        bitmap(prefixes.iter().map(|prefix| prefix.parse().unwrap()))
    }

    #[test]
    fn a_long_prefix_sets_one_bit() {
        let bitmap = of(&["169.254.55.52/30"]);
        assert_eq!(bits(&bitmap), 1);
        let bit = 169 * 256 + 254;
        assert_eq!(bitmap[bit / 64] >> (bit % 64) & 1, 1);
    }

    #[test]
    fn a_short_prefix_sets_all_that_it_covers() {
        assert_eq!(bits(&of(&["10.0.0.0/8"])), 256);
        assert_eq!(bits(&of(&["0.0.0.0/0"])), 65536);
        assert_eq!(bits(&of(&["255.255.0.0/15"])), 2);
        assert_eq!(bits(&of(&["fd00::/16", "fd00:1::/32"])), 1);
        assert_eq!(bits(&of(&["::/0"])), 65536);
        assert_eq!(bits(&of(&[])), 0);
    }
}
