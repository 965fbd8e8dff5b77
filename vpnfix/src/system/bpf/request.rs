//! What a tracer is asked to watch.

use ipnet::IpNet;
use vpnfix_common::{BITMAP_WORDS, bitmap6_bit};

/// What to trace.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Inode of the namespace; `None` for all.
    pub netns: Option<u32>,
    /// The prefixes whose traffic is told. Records name them by their index in this list.
    pub watches: Vec<IpNet>,
    /// Prefixes inside watched ones that are no tunnel's. The longest match decides.
    pub holes: Vec<IpNet>,
    /// The VRFs of watched prefixes, as the prefix' index in the list above and that of the VRF's device: a socket bound to that
    /// device has not chosen the one that its packets leave by.
    pub vrfs: Vec<(u32, u32)>,
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
    /// Count also destination by destination.
    pub by_destination: bool,
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

/// One family's bitmap over the first bits of an address.
pub(super) type Bitmap = [u64; BITMAP_WORDS as usize];

/// The bitmap in which each of the prefixes has all its bits set.
pub(super) fn bitmap(prefixes: impl Iterator<Item = IpNet>) -> Bitmap {
    let mut bitmap = [0; BITMAP_WORDS as usize];
    for prefix in prefixes {
        match prefix {
            IpNet::V4(prefix) => {
                let [first, second, ..] = prefix.network().octets();
                let start = u16::from_be_bytes([first, second]);
                let free_bits = 16u8.saturating_sub(prefix.prefix_len());
                (start..=start | low_bits(free_bits)).for_each(|bit| set(&mut bitmap, bit));
            }
            IpNet::V6(prefix) => {
                let [a, b, c, d, ..] = prefix.network().octets();
                // The folding is one to one as long as the first 16 bits are the same.
                let start = u16::from_be_bytes([c, d]);
                let free_bits = 32u8.saturating_sub(prefix.prefix_len()).min(16);
                let seconds = start..=start | low_bits(free_bits);
                seconds.for_each(|second| {
                    let [c, d] = second.to_be_bytes();
                    set(&mut bitmap, bitmap6_bit([a, b, c, d]));
                });
            }
        }
    }
    bitmap
}

/// A number with so many low bits set, 16 at the most.
fn low_bits(bits: u8) -> u16 {
    u16::MAX.checked_shr(16 - u32::from(bits)).unwrap_or(0)
}

fn set(bitmap: &mut Bitmap, bit: u16) {
    let bit = usize::from(bit);
    if let Some(word) = bitmap.get_mut(bit / 64) {
        *word |= 1 << (bit % 64);
    }
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
    fn ipv6_is_told_apart_by_its_first_32_bits() {
        let bitmap = of(&["2001:db8:20::/48"]);
        assert_eq!(bits(&bitmap), 1);
        let bit = usize::from(0x2001_u16 ^ 0xdb8);
        assert_eq!(bitmap[bit / 64] >> (bit % 64) & 1, 1);
    }

    #[test]
    fn a_short_prefix_sets_all_that_it_covers() {
        assert_eq!(bits(&of(&["10.0.0.0/8"])), 256);
        assert_eq!(bits(&of(&["0.0.0.0/0"])), 65536);
        assert_eq!(bits(&of(&["255.255.0.0/15"])), 2);
        assert_eq!(bits(&of(&["fd00:1::/32"])), 1);
        assert_eq!(bits(&of(&["fd00::/28"])), 16);
        assert_eq!(bits(&of(&["fd00::/16", "fd00:1::/32"])), 65536);
        assert_eq!(bits(&of(&["::/0"])), 65536);
        assert_eq!(bits(&of(&[])), 0);
    }
}
