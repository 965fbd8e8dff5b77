//! The hosts' links, addresses and settings.

use super::{HOSTS, OUTSIDE, PRIVATE, Tunnels, Vpn};
use crate::ip;

impl Vpn {
    pub(super) fn topology(&self) {
        let (gw, rtr, aws) = (self.of("gw"), self.of("rtr"), self.of("aws"));
        let veth = [
            format!("link add ens5 netns {gw} type veth peer name lan netns {rtr}"),
            format!("link add eth0 netns {aws} type veth peer name wan netns {rtr}"),
        ];
        ip::batch(None, &veth).expect("the links could not be made");
        self.ip(
            "rtr",
            &[
                "link set lo up",
                "addr add 192.168.12.1/24 dev lan",
                "link set lan up",
                "addr add 203.0.113.1/24 dev wan",
                "link set wan up",
                // As a cloud's router does, it drops without a word what it has no way for.
                "route add blackhole default",
            ],
        );
        let mut far = vec!["link set lo up", "addr add 10.20.0.1/16 dev lo", "addr add 203.0.113.10/24 dev eth0"];
        far.extend(["addr add 203.0.113.18/24 dev eth0", "link set eth0 up"]);
        far.extend(["route add 198.51.100.0/24 via 203.0.113.1"]);
        far.extend([
            "link add vti1 type vti local 203.0.113.10 remote 198.51.100.49 key 100",
            "link add vti2 type vti local 203.0.113.18 remote 198.51.100.49 key 200",
            "link set vti1 mtu 1419 up",
            "link set vti2 mtu 1419 up",
            "addr add 169.254.55.53/30 dev vti1",
            "addr add 169.254.253.49/30 dev vti2",
            "addr add fd00:55::1/126 dev vti1 nodad",
            "addr add fd00:253::1/126 dev vti2 nodad",
        ]);
        self.ip("aws", &far);
        self.ip(
            "gw",
            &[
                "link set lo up",
                "addr add 192.168.12.49/24 dev ens5",
                "link set ens5 up",
                "route add default via 192.168.12.1",
                "link add lan0 type dummy",
                "addr add 10.9.0.1/24 dev lan0",
                "link set lan0 up",
            ],
        );
        if let Some(vrf) = self.made.tunnels.vrf() {
            self.ip(
                "gw",
                &[
                    &format!("link add {vrf} type vrf table 500"),
                    &format!("link set {vrf} up"),
                    &format!("link set lan0 master {vrf}"),
                ],
            );
        }
        for number in [1, 2] {
            self.make_tunnel(number);
        }
    }

    /// Makes one of the gateway's tunnel interfaces, with its address and settings.
    pub fn make_tunnel(&self, number: usize) {
        let (remote, key) = (OUTSIDE[number - 1], number * 100);
        let device = format!("Tunnel{number}");
        let kind = match self.made.tunnels {
            Tunnels::Vti | Tunnels::VtiInVrf => {
                format!("link add {device} type vti local {PRIVATE} remote {remote} key {key}")
            }
            Tunnels::Xfrm => format!("link add {device} type xfrm dev ens5 if_id {key}"),
        };
        self.ip("gw", &[&kind]);
        if let Some(vrf) = self.made.tunnels.vrf() {
            self.ip("gw", &[&format!("link set {device} master {vrf}")]);
        }
        self.configure_tunnel(number);
    }

    /// Gives one of the gateway's tunnel interfaces its addresses and settings.
    pub fn configure_tunnel(&self, number: usize) {
        let inside = ["169.254.55.54/30", "169.254.253.50/30"][number - 1];
        self.ip(
            "gw",
            &[&format!("link set Tunnel{number} mtu 1419 up"), &format!("addr add {inside} dev Tunnel{number}")],
        );
        match self.made.tunnels {
            Tunnels::Vti | Tunnels::VtiInVrf => {
                self.sysctl("gw", &format!("ipv4/conf/Tunnel{number}/disable_policy"), "1")
            }
            // IPv6 inside as well.
            Tunnels::Xfrm => {
                let inside = ["fd00:55::2/126", "fd00:253::2/126"][number - 1];
                self.ip("gw", &[&format!("addr add {inside} dev Tunnel{number} nodad")]);
            }
        }
        self.sysctl("gw", &format!("ipv4/conf/Tunnel{number}/rp_filter"), "2");
    }

    pub(super) fn settings(&self) {
        for host in HOSTS {
            self.sysctl(host, "ipv4/conf/all/rp_filter", "0");
            self.sysctl(host, "ipv4/ip_forward", "1");
        }
        for tunnel in ["vti1", "vti2"] {
            self.sysctl("aws", &format!("ipv4/conf/{tunnel}/disable_policy"), "1");
            self.sysctl("aws", &format!("ipv4/conf/{tunnel}/rp_filter"), "0");
        }
        self.nft(
            "rtr",
            "table ip nat {\n\
             chain pre { type nat hook prerouting priority -100; ip daddr 198.51.100.49 dnat to 192.168.12.49; }\n\
             chain post { type nat hook postrouting priority 100; ip saddr 192.168.12.49 oifname \"wan\" snat to 198.51.100.49; }\n\
             }",
        );
    }
}
