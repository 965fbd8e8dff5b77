//! Security associations and policies of the kernel's IPsec (`include/uapi/linux/xfrm.h`). Keys are no part of them: they
//! are never decoded.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Mark;

/// One security association of ESP, AH or IPComp: one direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityAssociation {
    /// Outer source address.
    pub source: IpAddr,
    /// Outer destination address.
    pub destination: IpAddr,
    /// Security parameter index, host byte order.
    pub spi: u32,
    /// IP protocol: 50 ESP, 51 AH, 108 IPComp.
    pub protocol: u8,
    /// How packets are wrapped.
    pub mode: Mode,
    /// Ties it to the templates of policies.
    pub reqid: u32,
    /// Mark that a packet must bear for it (`XFRMA_MARK`).
    pub mark: Option<Mark>,
    /// Interface id (`XFRMA_IF_ID`).
    pub if_id: Option<u32>,
    /// Encapsulation in UDP (`XFRMA_ENCAP`), with its ports.
    pub encapsulation: Option<Encapsulation>,
    /// Bytes that went through it so far.
    pub bytes: u64,
    /// Packets that went through it so far.
    pub packets: u64,
    /// Packets that came twice or too late (`xfrm_stats.replay` and `replay_window`).
    pub replayed: u32,
    /// Packets whose integrity check failed (`xfrm_stats.integrity_failed`): another key at the far end, or forged ones.
    pub integrity_failed: u32,
    /// When it was made, in seconds since the Unix epoch.
    pub added: u64,
    /// The daemon is to replace it this many seconds after it was made.
    pub soft_limit: Option<u64>,
    /// It ends this many seconds after it was made.
    pub hard_limit: Option<u64>,
}

/// How packets are wrapped (`XFRM_MODE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Only the payload.
    Transport,
    /// The whole packet; what route-based tunnels need.
    Tunnel,
    /// Bound end-to-end tunnel.
    Beet,
    /// Another one, by its number.
    Other(u8),
}

impl From<u8> for Mode {
    fn from(number: u8) -> Self {
        match number {
            0 => Self::Transport,
            1 => Self::Tunnel,
            4 => Self::Beet,
            other => Self::Other(other),
        }
    }
}

/// ESP in UDP, for the way through NAT (RFC 3948).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Encapsulation {
    /// Source port, host byte order.
    pub source_port: u16,
    /// Destination port, host byte order.
    pub destination_port: u16,
}

/// One policy. Those of sockets (`XFRM_POLICY_TYPE`, directions above 2) are none of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Which packets it is for.
    pub direction: Direction,
    /// Packets from here.
    pub source: IpNet,
    /// Packets to here.
    pub destination: IpNet,
    /// IP protocol, 0 for any.
    pub ip_protocol: u8,
    /// It is for some ports alone.
    pub has_ports: bool,
    /// The smallest is asked first.
    pub priority: u32,
    /// Mark that a packet must bear for it.
    pub mark: Option<Mark>,
    /// Interface id.
    pub if_id: Option<u32>,
    /// It drops packets (`XFRM_POLICY_BLOCK`).
    pub blocks: bool,
    /// What is to be done with packets; empty lets them pass as they are.
    pub templates: Vec<Template>,
}

/// Which packets a policy is for (`XFRM_POLICY_IN`, `_OUT`, `_FWD`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Those that come in for this host.
    In,
    /// Those that leave.
    Out,
    /// Those that are passed on.
    Forward,
}

/// The kind of association that a policy wants (`struct xfrm_user_tmpl`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Outer source address; unspecified means any.
    pub source: IpAddr,
    /// Outer destination address; unspecified means any.
    pub destination: IpAddr,
    /// IP protocol: 50 ESP.
    pub protocol: u8,
    /// How packets are wrapped.
    pub mode: Mode,
    /// Ties it to associations; 0 means any.
    pub reqid: u32,
}
