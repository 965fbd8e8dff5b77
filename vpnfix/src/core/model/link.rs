//! Network interfaces.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Interface index, unique in its namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Has a carrier (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// Largest packet in bytes.
    pub mtu: Option<u32>,
    /// Index of the device it is enslaved to (a VRF or a bridge).
    pub master: Option<u32>,
    /// Group number (`ip link set group`), what `suppress_ifgroup` compares.
    pub group: u32,
    /// Counters since the interface was made.
    pub counters: LinkCounters,
    /// Settings that bear on routing.
    #[serde(default)]
    pub settings: DeviceSettings,
}

/// Settings of a device that bear on routing, as they take effect: a device's own and those of all devices taken
/// together (Documentation/networking/ip-sysctl.rst; read by `RTM_GETNETCONF`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSettings {
    /// Source validation (`rp_filter`): 0 off, 1 strict, 2 loose; the larger of the device's and that of all.
    pub rp_filter: u8,
    /// IPv4 packets that come in by it are forwarded.
    pub forwarding: bool,
    /// IPv4 routes by it are passed over while its carrier is down (`ignore_routes_with_linkdown`).
    pub ignores_linkdown: bool,
    /// The same for IPv6.
    pub ignores_linkdown_v6: bool,
}

/// The kind of an interface (`IFLA_INFO_KIND`) with what vpnfix needs of its parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkKind {
    /// A virtual tunnel interface, `vti` or `vti6`.
    Vti {
        /// IPv6 outside (`vti6`).
        v6: bool,
        /// Outer source address; unspecified means any.
        local: Option<IpAddr>,
        /// Outer destination address.
        remote: Option<IpAddr>,
        /// Key that marks incoming packets, host byte order.
        input_key: u32,
        /// Key that marks outgoing packets, host byte order.
        output_key: u32,
    },
    /// An XFRM interface.
    Xfrm {
        /// Interface id that ties it to its policies and SAs.
        if_id: u32,
    },
    /// A VRF device.
    Vrf {
        /// Its routing table.
        table: u32,
    },
    /// The loopback device (`IFF_LOOPBACK`).
    Loopback,
    /// A device without a kind: physical, or made by a driver that names none.
    Plain,
    /// Any other kind, by its name in the kernel (`veth`, `wireguard`, `gre` …).
    Other(String),
}

impl LinkKind {
    /// The kernel's name of this kind, as `ip -d link` shows it; `physical` where it has none.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Vti { v6: false, .. } => "vti",
            Self::Vti { v6: true, .. } => "vti6",
            Self::Xfrm { .. } => "xfrm",
            Self::Vrf { .. } => "vrf",
            Self::Loopback => "loopback",
            Self::Plain => "physical",
            Self::Other(name) => name,
        }
    }
}

/// What ties a tunnel interface to its SAs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TunnelKey {
    /// Output key of a VTI, compared with the mark of policies and SAs.
    Key(u32),
    /// Interface id of an XFRM interface.
    IfId(u32),
}

/// Counters of an interface (`IFLA_STATS64`, `include/uapi/linux/if_link.h`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkCounters {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Packets dropped on sending.
    pub tx_dropped: u64,
    /// For a VTI: no SA or policy for its key, or wrong endpoints (`ip tunnel` calls it NoRoute).
    pub tx_carrier_errors: u64,
    /// For a VTI: the outer packet was routed into the tunnel itself.
    pub collisions: u64,
}
