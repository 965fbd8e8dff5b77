//! Policies of the kernel's IPsec (`struct xfrm_userpolicy_info`, `include/uapi/linux/xfrm.h`).

use std::net::IpAddr;

use super::{Mark, SaMode};
use ipnet::IpNet;

/// One policy. Those of single sockets (directions above 2) are none of it.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Id of the XFRM interface that it belongs to, 0 for none.
    pub if_id: u32,
    /// It drops packets (`XFRM_POLICY_BLOCK`).
    pub blocks: bool,
    /// What is to be done with packets; empty lets them pass as they are.
    pub templates: Vec<Template>,
}

/// Which packets a policy is for (`XFRM_POLICY_IN`, `_OUT`, `_FWD`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Those that come in for this host.
    In,
    /// Those that leave.
    Out,
    /// Those that are passed on.
    Forward,
}

/// The kind of association that a policy wants (`struct xfrm_user_tmpl`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    /// Outer source address; unspecified means any.
    pub source: IpAddr,
    /// Outer destination address; unspecified means any.
    pub destination: IpAddr,
    /// IP protocol: 50 ESP.
    pub protocol: u8,
    /// How packets are wrapped.
    pub mode: SaMode,
    /// Ties it to associations; 0 means any.
    pub reqid: u32,
}
