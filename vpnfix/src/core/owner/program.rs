//! The programs that put rules and routes on Linux hosts, and what shows that they are there.

/// A program that puts rules or routes there. Where two are equally likely, the one that stands first here is named: a
/// program for one purpose before one for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Program {
    /// vpnfix itself.
    Vpnfix,
    /// The kernel.
    Kernel,
    /// The kernel, for its VRFs.
    Vrf,
    /// strongSwan's IKE daemon.
    StrongSwan,
    /// The NetworkManager variant of strongSwan's IKE daemon.
    CharonNm,
    /// Libreswan, by its updown script.
    Libreswan,
    /// Tailscale.
    Tailscale,
    /// NetBird.
    NetBird,
    /// Mullvad's VPN client.
    Mullvad,
    /// sing-box, mihomo or Clash with a TUN device: they share the code.
    TunProxy,
    /// wg-quick of wireguard-tools.
    WgQuick,
    /// OpenVPN.
    OpenVpn,
    /// The Amazon VPC CNI plugin for Kubernetes.
    VpcCni,
    /// Cilium.
    Cilium,
    /// Calico.
    Calico,
    /// amazon-ec2-net-utils, by systemd-networkd.
    Ec2NetUtils,
    /// cloud-init on EC2, by netplan.
    CloudInit,
    /// FRR, or Quagga before it.
    Frr,
    /// BIRD.
    Bird,
    /// keepalived.
    Keepalived,
    /// NetworkManager.
    NetworkManager,
    /// systemd-networkd.
    Networkd,
}

/// What shows that a program is on the host.
#[derive(Clone, Copy, Debug, Default)]
pub struct Signs {
    /// Names of its processes, cut to 15 bytes as in /proc/PID/comm.
    pub processes: &'static [&'static str],
    /// What the names of its systemd units begin with.
    pub units: &'static [&'static str],
    /// Sockets and directories that it makes.
    pub paths: &'static [&'static str],
    /// Files with the ids of its processes.
    pub pid_files: &'static [&'static str],
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::Vpnfix,
        Self::Kernel,
        Self::Vrf,
        Self::StrongSwan,
        Self::CharonNm,
        Self::Libreswan,
        Self::Tailscale,
        Self::NetBird,
        Self::Mullvad,
        Self::TunProxy,
        Self::WgQuick,
        Self::OpenVpn,
        Self::VpcCni,
        Self::Cilium,
        Self::Calico,
        Self::Ec2NetUtils,
        Self::CloudInit,
        Self::Frr,
        Self::Bird,
        Self::Keepalived,
        Self::NetworkManager,
        Self::Networkd,
    ];

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Vpnfix => "vpnfix",
            Self::Kernel => "kernel",
            Self::Vrf => "kernel (VRF)",
            Self::StrongSwan => "strongSwan",
            Self::CharonNm => "strongSwan (charon-nm)",
            Self::Libreswan => "Libreswan",
            Self::Tailscale => "Tailscale",
            Self::NetBird => "NetBird",
            Self::Mullvad => "Mullvad",
            Self::TunProxy => "sing-box, mihomo or Clash (TUN)",
            Self::WgQuick => "wg-quick",
            Self::OpenVpn => "OpenVPN",
            Self::VpcCni => "Amazon VPC CNI",
            Self::Cilium => "Cilium",
            Self::Calico => "Calico",
            Self::Ec2NetUtils => "amazon-ec2-net-utils",
            Self::CloudInit => "cloud-init",
            Self::Frr => "FRR",
            Self::Bird => "BIRD",
            Self::Keepalived => "keepalived",
            Self::NetworkManager => "NetworkManager",
            Self::Networkd => "systemd-networkd",
        }
    }

    /// The program of this name in a report.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|program| program.name() == name)
    }

    /// What shows that it is on the host. `ipsec.service` is left out: it may be strongSwan's or Libreswan's.
    #[must_use]
    pub fn signs(self) -> Signs {
        let none = Signs::default();
        match self {
            Self::Vpnfix | Self::Kernel | Self::Vrf => none,
            Self::StrongSwan | Self::CharonNm | Self::Libreswan => self.ipsec_signs(),
            Self::Tailscale => Signs {
                processes: &["tailscaled"],
                units: &["tailscaled.service"],
                paths: &["/run/tailscale/tailscaled.sock"],
                ..none
            },
            Self::NetBird => {
                Signs { processes: &["netbird"], units: &["netbird.service"], paths: &["/run/netbird.sock"], ..none }
            }
            Self::Mullvad => Signs {
                processes: &["mullvad-daemon"],
                units: &["mullvad-daemon.service"],
                paths: &["/run/mullvad-vpn"],
                ..none
            },
            Self::TunProxy => Signs {
                processes: &["sing-box", "mihomo", "clash", "clash-meta", "verge-mihomo"],
                units: &["sing-box", "mihomo", "clash"],
                ..none
            },
            Self::WgQuick => Signs { units: &["wg-quick@"], ..none },
            Self::OpenVpn => Signs { processes: &["openvpn"], units: &["openvpn"], ..none },
            Self::VpcCni => Signs { processes: &["aws-k8s-agent"], paths: &["/run/aws-node"], ..none },
            Self::Cilium => Signs { processes: &["cilium-agent"], paths: &["/run/cilium"], ..none },
            Self::Calico => Signs { processes: &["calico-node", "calico-felix"], paths: &["/run/calico"], ..none },
            Self::Ec2NetUtils => Signs { units: &["policy-routes@", "refresh-policy-routes@"], ..none },
            Self::CloudInit => Signs { units: &["cloud-init"], paths: &["/run/cloud-init"], ..none },
            Self::Frr | Self::Bird | Self::Keepalived | Self::NetworkManager | Self::Networkd => self.daemon_signs(),
        }
    }

    fn ipsec_signs(self) -> Signs {
        let none = Signs::default();
        match self {
            Self::StrongSwan => Signs {
                processes: &["charon-systemd", "charon", "charon-cmd"],
                units: &["strongswan.service", "strongswan-starter.service", "strongswan-swanctl.service"],
                paths: &["/run/charon.vici", "/run/charon.ctl"],
                pid_files: &["/run/charon.pid", "/run/strongswan/charon.pid"],
            },
            Self::CharonNm => Signs { processes: &["charon-nm"], ..none },
            Self::Libreswan => Signs {
                processes: &["pluto"],
                paths: &["/run/pluto/pluto.ctl"],
                pid_files: &["/run/pluto/pluto.pid"],
                ..none
            },
            _ => none,
        }
    }

    fn daemon_signs(self) -> Signs {
        let none = Signs::default();
        match self {
            Self::Frr => Signs {
                processes: &["zebra", "bgpd", "ospfd", "ospf6d", "isisd", "ripd", "staticd", "pbrd", "watchfrr"],
                units: &["frr.service"],
                pid_files: &["/run/frr/zebra.pid"],
                ..none
            },
            Self::Bird => Signs { processes: &["bird", "bird6"], units: &["bird"], ..none },
            Self::Keepalived => Signs {
                processes: &["keepalived"],
                units: &["keepalived.service"],
                pid_files: &["/run/keepalived.pid"],
                ..none
            },
            Self::NetworkManager => {
                Signs { processes: &["NetworkManager"], units: &["NetworkManager.service"], ..none }
            }
            // The kernel keeps 15 bytes of a name.
            Self::Networkd => Signs { processes: &["systemd-network"], units: &["systemd-networkd.service"], ..none },
            _ => none,
        }
    }
}
