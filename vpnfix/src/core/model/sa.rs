//! Security associations of IPsec, without their keys.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Family, Mark};

/// One security association as the kernel holds it (`struct xfrm_usersa_info`, `include/uapi/linux/xfrm.h`). Keys and
/// algorithms are no part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityAssociation {
    /// Family of the outer addresses.
    pub family: Family,
    /// Outer source address.
    pub source: IpAddr,
    /// Outer destination address.
    pub destination: IpAddr,
    /// Security parameter index, host byte order.
    pub spi: u32,
    /// IP protocol number: 50 ESP, 51 AH, 108 IPComp.
    pub protocol: u8,
    /// Ties it to the policies that use it.
    pub reqid: u32,
    /// How packets are wrapped.
    pub mode: SaMode,
    /// Mark that packets must have, if any must.
    pub mark: Option<Mark>,
    /// Id of the XFRM interface that it belongs to, 0 for none.
    pub if_id: u32,
    /// Direction, where it is recorded (`XFRMA_SA_DIR`, since Linux 6.10).
    pub direction: Option<SaDirection>,
    /// UDP encapsulation (NAT traversal).
    pub encapsulation: Option<Encapsulation>,
    /// What it did so far.
    pub usage: SaUsage,
    /// When it is to be renewed.
    pub soft_limits: SaLimits,
    /// When it ends.
    pub hard_limits: SaLimits,
    /// Replay protection.
    pub replay: SaReplay,
}

/// How packets are wrapped (`XFRM_MODE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SaMode {
    /// The payload alone.
    Transport,
    /// The whole packet.
    Tunnel,
    /// Bound end-to-end tunnel.
    Beet,
    /// Another one, by its number.
    Other(u8),
}

/// Direction of an association.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SaDirection {
    /// Decrypts.
    In,
    /// Encrypts.
    Out,
}

/// UDP encapsulation (RFC 3948), ports in host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Encapsulation {
    /// `UDP_ENCAP_*`: 2 for ESP in UDP.
    pub kind: u16,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

/// What an association did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SaUsage {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// When it was added, in seconds since 1970.
    pub added: u64,
    /// When it was first used, in seconds since 1970; absent before that.
    pub first_used: Option<u64>,
    /// Packets outside of the replay window.
    pub outside_window: u32,
    /// Packets that came twice.
    pub replayed: u32,
    /// Packets that failed the integrity check.
    pub failed_integrity: u32,
}

/// Limits of an association; absent means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SaLimits {
    /// Bytes.
    pub bytes: Option<u64>,
    /// Packets.
    pub packets: Option<u64>,
    /// Seconds after it was added.
    pub seconds_after_adding: Option<u64>,
    /// Seconds after it was first used.
    pub seconds_after_use: Option<u64>,
}

/// Sequence numbers of an association.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SaReplay {
    /// Size of the window in packets.
    pub window: u32,
    /// Last number sent; 64 bits with extended sequence numbers.
    pub sent: u64,
    /// Highest number received.
    pub received: u64,
}
