//! What a lookup is asked for.

use std::net::IpAddr;

use crate::core::model::{Family, Question};

/// The interface index of the loopback device, which the kernel gives as input interface to lookups of its own packets
/// (`LOOPBACK_IFINDEX`, `include/net/flow.h`).
pub const LOOPBACK_INDEX: u32 = 1;

/// UDP's IP protocol number.
const UDP: u8 = 17;
/// TCP's.
const TCP: u8 = 6;

/// What a lookup is asked for. The fields are those of the kernel's `struct flowi`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Destination.
    pub to: IpAddr,
    /// Source, absent while none is chosen.
    pub from: Option<IpAddr>,
    /// Input interface; [`LOOPBACK_INDEX`] for the host's own packets.
    pub iif: u32,
    /// Output interface that the flow is bound to.
    pub oif: Option<u32>,
    /// Firewall mark.
    pub mark: u32,
    /// User.
    pub uid: u32,
    /// IP protocol number, 0 where the kernel did not look.
    pub protocol: u8,
    /// Source port, host byte order.
    pub source_port: u16,
    /// Destination port, host byte order.
    pub destination_port: u16,
    /// Type of service: the whole byte, DSCP in its upper six bits.
    pub tos: u8,
    /// IPv6 flow label, 20 bits.
    pub flow_label: u32,
    /// Tunnel id, 0 for what came by no collect-metadata tunnel.
    pub tunnel_id: u64,
}

impl From<&Question> for Flow {
    /// The flow that the kernel makes of a question that root asks (`inet_rtm_getroute`, `net/ipv4/route.c`;
    /// `inet6_rtm_getroute`, `net/ipv6/route.c`): IPv4 takes UDP where no protocol is named; a packet that comes in
    /// belongs to no user, which IPv4 takes for root, and IPv4 reads its ports from a packet that has them for UDP and
    /// TCP alone.
    fn from(question: &Question) -> Self {
        let v4 = Family::of(question.destination) == Family::V4;
        let uid = match (question.input_interface, question.uid) {
            (Some(_), _) if v4 => 0,
            (Some(_), None) => u32::MAX,
            (_, uid) => uid.unwrap_or(0),
        };
        let protocol = question.ip_protocol.unwrap_or(if v4 { UDP } else { 0 });
        let has_ports = !v4 || question.input_interface.is_none() || matches!(protocol, UDP | TCP);
        let port = |port: Option<u16>| port.filter(|_| has_ports).unwrap_or(0);
        Self {
            to: question.destination,
            from: question.source,
            iif: question.input_interface.unwrap_or(LOOPBACK_INDEX),
            oif: question.output_interface,
            mark: question.mark,
            uid,
            protocol,
            source_port: port(question.source_port),
            destination_port: port(question.destination_port),
            tos: question.tos,
            flow_label: question.flow_label,
            tunnel_id: 0,
        }
    }
}

impl Flow {
    /// An ordinary packet of this host's root user to an address.
    #[must_use]
    pub fn plain(to: IpAddr) -> Self {
        Self::from(&Question::plain(to))
    }

    /// Its family.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.to)
    }
}
