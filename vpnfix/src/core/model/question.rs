//! Questions to the kernel's routing (`RTM_GETROUTE`) and its answers.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Route;

/// One route lookup to ask the kernel for. `None` and 0 leave a field out of the request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Question {
    /// Destination address.
    pub destination: IpAddr,
    /// Source address.
    pub source: Option<IpAddr>,
    /// Ask as for a packet that arrived by this interface; needs a source.
    pub input_interface: Option<u32>,
    /// Ask as for a socket bound to this interface.
    pub output_interface: Option<u32>,
    /// Firewall mark.
    pub mark: u32,
    /// User id; the caller's own where absent.
    pub uid: Option<u32>,
    /// IP protocol number; the kernel takes UDP where absent.
    pub ip_protocol: Option<u8>,
    /// Source port, host byte order.
    pub source_port: Option<u16>,
    /// Destination port, host byte order.
    pub destination_port: Option<u16>,
    /// Type of service: the whole byte, DSCP in its upper six bits.
    pub tos: u8,
    /// IPv6 flow label, 20 bits, host byte order (`RTA_FLOWLABEL`, since Linux 6.14).
    #[serde(default)]
    pub flow_label: u32,
}

impl Question {
    /// The plain question that `ip route get ADDRESS` asks.
    #[must_use]
    pub fn plain(destination: IpAddr) -> Self {
        Self {
            destination,
            source: None,
            input_interface: None,
            output_interface: None,
            mark: 0,
            uid: None,
            ip_protocol: None,
            source_port: None,
            destination_port: None,
            tos: 0,
            flow_label: 0,
        }
    }
}

/// What the kernel said to a question, asked twice: resolved, and for the matching FIB entry (`RTM_F_FIB_MATCH`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What was asked.
    pub question: Question,
    /// The resolved answer.
    pub reply: Reply,
    /// The FIB entry that matched, where the kernel gave one.
    pub entry: Option<Route>,
}

/// The resolved part of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The packet would go there.
    Arrives(Arrival),
    /// The lookup failed with this errno (positive): 101 network unreachable, 113 no route to host, 13 permission
    /// denied, 22 invalid argument (a blackhole, or source validation).
    Refused(i32),
}

/// Where a packet would go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// Table that the route was found in.
    pub table: u32,
    /// Index of the output interface.
    pub ifindex: u32,
    /// Gateway, absent if on-link.
    pub gateway: Option<IpAddr>,
    /// Source address that the kernel would choose, or was given.
    pub source: Option<IpAddr>,
    /// Delivered here: the destination is one of the host's own addresses.
    pub local: bool,
}
