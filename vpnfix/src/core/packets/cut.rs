//! Where a packet's headers end. Behind them comes payload, which is nobody's business; and some options of TCP are made with
//! secrets.

use crate::core::observation::HeadersSeen;

/// What a packet begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkType {
    /// An Ethernet header.
    Ethernet,
    /// The IP header.
    Raw,
}

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// More extension headers than these no sane packet has.
const EXTENSIONS_MAX: usize = 8;
const TCP: u8 = 6;
/// Options of TCP that are made with a secret: MD5 signature (RFC 2385), authentication (RFC 5925), fast open's cookie
/// (RFC 7413).
const SECRET_OPTIONS: [u8; 3] = [19, 29, 34];

impl LinkType {
    /// By the length of the link's header: of a device without one, or with another than Ethernet's, IP alone is kept.
    #[must_use]
    pub fn of(link_length: usize) -> Self {
        if link_length == ETHERNET { Self::Ethernet } else { Self::Raw }
    }

    /// How many bytes of the link's header are kept.
    #[must_use]
    pub fn kept(self, link_length: usize) -> usize {
        match self {
            Self::Ethernet => link_length,
            Self::Raw => 0,
        }
    }
}

/// The headers alone, up to the end of the transport's. What is not understood ends with what was before it.
pub(super) fn headers(link_type: LinkType, seen: &HeadersSeen) -> Vec<u8> {
    let from = seen.link_length - link_type.kept(seen.link_length).min(seen.link_length);
    let network = seen.bytes.get(seen.link_length..).unwrap_or_default();
    let end = end_of_headers(network);
    let mut bytes = seen.bytes.get(from..seen.link_length).unwrap_or_default().to_vec();
    let mut kept = network.get(..end.whole.min(network.len())).unwrap_or_default().to_vec();
    if let Some(tcp) = end.tcp {
        forget_secrets(kept.get_mut(tcp..).unwrap_or_default());
    }
    bytes.append(&mut kept);
    bytes
}

/// Where headers end, counted from the network header on.
struct HeadersEnd {
    whole: usize,
    /// Where TCP's header begins.
    tcp: Option<usize>,
}

fn end_of_headers(network: &[u8]) -> HeadersEnd {
    let at = |index: usize| network.get(index).copied().unwrap_or(0);
    let (protocol, transport) = match at(0) >> 4 {
        4 => {
            let length = usize::from(at(0) & 15) * 4;
            let is_later_fragment = u16::from_be_bytes([at(6), at(7)]) & 0x1fff != 0;
            (Some(at(9)).filter(|_| !is_later_fragment), length)
        }
        6 => behind_extensions(network),
        _ => (None, 0),
    };
    let length = match protocol {
        Some(TCP) => usize::from(at(transport + 12) >> 4) * 4,
        // UDP, ICMP and ICMPv6, ESP up to its sequence number.
        Some(17 | 1 | 58 | 50) => 8,
        // AH without its digest, SCTP.
        Some(51 | 132) => 12,
        // GRE's fixed part.
        Some(47) => 4,
        _ => 0,
    };
    HeadersEnd { whole: transport + length, tcp: (protocol == Some(TCP)).then_some(transport) }
}

/// Protocol and place of what comes behind IPv6's extension headers (RFC 8200).
fn behind_extensions(network: &[u8]) -> (Option<u8>, usize) {
    let at = |index: usize| network.get(index).copied().unwrap_or(0);
    let (mut protocol, mut place) = (at(6), 40);
    for _ in 0..EXTENSIONS_MAX {
        match protocol {
            // Hop-by-hop, routing and destination options.
            0 | 43 | 60 => {
                protocol = at(place);
                place += (usize::from(at(place + 1)) + 1) * 8;
            }
            44 => {
                let is_later_fragment = u16::from_be_bytes([at(place + 2), at(place + 3)]) & 0xfff8 != 0;
                protocol = at(place);
                place += 8;
                if is_later_fragment {
                    return (None, place);
                }
            }
            _ => return (Some(protocol), place),
        }
    }
    (None, place)
}

/// Zeroes the values of options that are made with a secret. An option that is not whole is taken for one.
fn forget_secrets(tcp: &mut [u8]) {
    let mut place = 20;
    while let Some(kind) = tcp.get(place).copied() {
        let length = match kind {
            0 => return,
            1 => 1,
            _ => match tcp.get(place + 1).copied() {
                Some(length) if length >= 2 => usize::from(length),
                _ => return,
            },
        };
        let is_whole = place + length <= tcp.len();
        if SECRET_OPTIONS.contains(&kind) || !is_whole {
            let end = (place + length).min(tcp.len());
            tcp.get_mut(place + 2..end).unwrap_or_default().fill(0);
        }
        place += length;
    }
}
