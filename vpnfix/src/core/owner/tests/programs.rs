//! Each program at least once, by what it really makes.

use std::slice;

use super::*;
use Confidence::{Certain, Likely, Possible};

fn nothing() -> Clues {
    Clues::default()
}

#[test]
fn vpnfix_and_the_kernel() {
    let own = Rule { protocol: VPNFIX_PROTOCOL, ..specific(rule(219, TABLE_MAIN)) };
    assert_eq!(owner_on(host(), &nothing(), &[own], 0), is(Program::Vpnfix, Certain));
    let host = host();
    for rule in &host.rules {
        assert_eq!(of_rule(&host, &nothing(), rule).name, "kernel");
        assert_eq!(of_rule(&host, &nothing(), rule).confidence, Certain);
    }
    // Deleted and added again by hand.
    assert_eq!(owner_on(host.clone(), &nothing(), &[rule(32766, TABLE_MAIN)], 0), is(Program::Kernel, Likely));
    let connected = Route { scope: 253, ..of_protocol(route(TABLE_MAIN, "192.168.12.0/24", ENS5), 2) };
    assert_eq!(route_owner(&host, &nothing(), &connected), is(Program::Kernel, Certain));
    let local = of_protocol(route(TABLE_LOCAL, "192.168.12.49/32", ENS5), 2);
    assert_eq!(route_owner(&host, &nothing(), &local), is(Program::Kernel, Certain));
}

/// `drivers/net/vrf.c`: `1000: from all lookup [l3mdev-table]`.
#[test]
fn a_vrfs_rule() {
    let vrf = Rule { l3mdev: true, protocol: 2, ..rule(1000, 0) };
    assert_eq!(owner_on(host(), &nothing(), slice::from_ref(&vrf), 0), is(Program::Vrf, Certain));
    // Moved before others, as the kernel's documentation advises.
    let moved = Rule { protocol: 0, priority: 90, ..vrf };
    assert_eq!(owner_on(host(), &nothing(), &[moved], 0), is(Program::Vrf, Possible));
}

/// `210: not from all fwmark 0xd2 lookup 210`, and a device that NetworkManager's plugin names.
#[test]
fn charon_nm() {
    let own = not(marked(rule(210, 210), 210, u32::MAX));
    assert_eq!(owner_on(host(), &nothing(), slice::from_ref(&own), 0), is(Program::CharonNm, Likely));
    let mut host = host();
    host.links.push(link(DEVICE, "nm-xfrm-7", LinkKind::Xfrm { if_id: 7 }));
    let by_device = route(210, "0.0.0.0/0", DEVICE);
    host.routes.push(by_device.clone());
    assert_eq!(route_owner(&host, &nothing(), &by_device), is(Program::CharonNm, Likely));
    assert_eq!(owner_on(host, &with_processes(&["charon-nm"]), &[own], 0), is(Program::CharonNm, Likely));
    assert_eq!(owner_on(super::host(), &nothing(), &[rule(210, 210)], 0), is(Program::CharonNm, Possible));
}

/// `_updown.xfrm`: a rule at 100 into table 50, which holds the peer; the default route as two halves in main.
#[test]
fn libreswan() {
    let own = marked(to(rule(100, 50), "10.0.0.0/8"), 1, u32::MAX);
    assert_eq!(owner_on(host(), &nothing(), slice::from_ref(&own), 0), is(Program::Libreswan, Likely));
    assert_eq!(owner_on(host(), &nothing(), &[not(own.clone())], 0), is(Program::Libreswan, Likely));
    assert_eq!(owner_on(host(), &nothing(), &[rule(100, 50)], 0), is(Program::Libreswan, Possible));
    let mut host = host();
    host.links.push(link(DEVICE, "ipsec1", LinkKind::Xfrm { if_id: 1 }));
    host.rules.push(own);
    let peer = of_protocol(via(route(50, "192.1.2.23/32", ENS5), "192.168.12.1"), 3);
    assert_eq!(route_owner(&host, &nothing(), &peer), is(Program::Libreswan, Likely));
    let half = of_protocol(route(TABLE_MAIN, "0.0.0.0/1", DEVICE), 3);
    host.routes.extend([half.clone(), of_protocol(route(TABLE_MAIN, "128.0.0.0/1", DEVICE), 3)]);
    assert_eq!(route_owner(&host, &with_processes(&["pluto"]), &half), is(Program::Libreswan, Likely));
    assert_eq!(route_owner(&host, &nothing(), &half), is(Program::Libreswan, Possible));
}

/// Seen with iproute2 6.1: the rules land before strongSwan's 220.
#[test]
fn wg_quick_where_strongswans_rule_stands() {
    let rules = [specific(rule(218, TABLE_MAIN)), not(marked(rule(219, 51820), 51820, u32::MAX)), rule(220, 220)];
    for asked in [0, 1] {
        assert_eq!(owner_on(host(), &with_processes(&["charon"]), &rules, asked), is(Program::WgQuick, Likely));
    }
    assert_eq!(owner_on(host(), &with_processes(&["charon"]), &rules, 2), is(Program::StrongSwan, Likely));
    // The same trick alone is everyone's.
    let alone = owner_on(host(), &nothing(), &[specific(rule(218, TABLE_MAIN))], 0);
    assert_eq!(alone, ("unknown".into(), Confidence::Unknown));
}

#[test]
fn wg_quicks_routes_and_units() {
    let mut host = host_with("wireguard", "wg0");
    host.rules.extend([specific(rule(32764, TABLE_MAIN)), not(marked(rule(32765, 51820), 51820, u32::MAX))]);
    let default = of_protocol(route(51820, "0.0.0.0/0", DEVICE), 3);
    let allowed = of_protocol(route(TABLE_MAIN, "10.9.0.0/16", DEVICE), 3);
    host.routes.extend([default.clone(), allowed.clone()]);
    assert_eq!(route_owner(&host, &nothing(), &default), is(Program::WgQuick, Likely));
    assert_eq!(route_owner(&host, &nothing(), &allowed), is(Program::WgQuick, Possible));
    let clues = Clues { units: vec!["wg-quick@wg0.service".into()], ..nothing() };
    assert_eq!(route_owner(&host, &clues, &allowed), is(Program::WgQuick, Likely));
    let owner = of_route(&host, &clues, &allowed);
    assert!(owner.evidence.contains(&"unit wg-quick@wg0.service is active".to_string()), "{owner:?}");
}

/// `nm-device-wireguard.c`: the same two rules, with a mark made from the profile's UUID.
#[test]
fn network_managers_wireguard() {
    let number = 0xcb55_9f10;
    let rules = [specific(rule(31411, TABLE_MAIN)), not(marked(rule(31412, number), number, u32::MAX))];
    let mut host = host_with("wireguard", "wg1");
    host.routes.push(route(number, "0.0.0.0/0", DEVICE));
    for asked in [0, 1] {
        let clues = Clues { units: vec!["NetworkManager.service".into()], ..with_processes(&["NetworkManager"]) };
        assert_eq!(owner_on(host.clone(), &clues, &rules, asked), is(Program::NetworkManager, Likely));
    }
}

/// `router_linux.go`, by default and on UniFi gateways.
#[test]
fn tailscale() {
    for base in [5200, 1300] {
        let rules = [
            marked(rule(base + 10, TABLE_MAIN), 0x8_0000, 0xff_0000),
            marked(rule(base + 30, 253), 0x8_0000, 0xff_0000),
            Rule { action: RuleAction::Unreachable, ..marked(rule(base + 50, 0), 0x8_0000, 0xff_0000) },
            rule(base + 70, 52),
        ];
        for asked in 0..4 {
            assert_eq!(owner_on(host(), &nothing(), &rules, asked), is(Program::Tailscale, Likely), "{base} {asked}");
        }
    }
    let mut host = host_with("tun", "tailscale0");
    host.rules.push(rule(5270, 52));
    let exit_node = of_protocol(route(52, "0.0.0.0/0", DEVICE), 3);
    assert_eq!(route_owner(&host, &with_processes(&["tailscaled"]), &exit_node), is(Program::Tailscale, Likely));
    assert_eq!(owner_on(super::host(), &nothing(), &[rule(77, 52)], 0), is(Program::Tailscale, Possible));
}

/// `systemops_linux.go`.
#[test]
fn netbird() {
    let rules = [specific(rule(105, TABLE_MAIN)), not(marked(rule(110, 7120), 0x1_bd00, u32::MAX))];
    assert_eq!(owner_on(host(), &nothing(), &rules, 0), is(Program::NetBird, Likely));
    assert_eq!(owner_on(host(), &nothing(), &rules, 1), is(Program::NetBird, Likely));
    // Alone at 105 it may be anyone's.
    assert_eq!(owner_on(host(), &nothing(), &rules[..1], 0), is(Program::NetBird, Possible));
    let mut host = host_with("wireguard", "wt0");
    host.rules.extend(rules);
    let pushed = of_protocol(route(7120, "10.0.0.0/8", DEVICE), 3);
    assert_eq!(route_owner(&host, &nothing(), &pushed), is(Program::NetBird, Likely));
}

/// Table and mark are the bytes of "mole".
#[test]
fn mullvad() {
    let rules = [specific(rule(5198, TABLE_MAIN)), not(marked(rule(5199, 1_836_018_789), 0x6d6f_6c65, u32::MAX))];
    assert_eq!(owner_on(host(), &nothing(), &rules, 0), is(Program::Mullvad, Likely));
    assert_eq!(owner_on(host(), &nothing(), &rules, 1), is(Program::Mullvad, Likely));
    let mut host = host_with("wireguard", "wg0-mullvad");
    host.rules.extend(rules);
    let default = route(1_836_018_789, "0.0.0.0/0", DEVICE);
    host.routes.push(default.clone());
    assert_eq!(route_owner(&host, &nothing(), &default), is(Program::Mullvad, Likely));
}

/// The rules of `tun_linux.go` for IPv4, and Clash's as a host showed them.
#[test]
fn tun_proxies() {
    let dns = Some(Ports::one(53));
    let rules = [
        to(rule(9000, 2022), "172.19.0.0/30"),
        specific(rule(9001, 2022)),
        not(Rule { destination_ports: dns, ..specific(rule(9002, TABLE_MAIN)) }),
        Rule { iif: Some("tun0".into()), action: RuleAction::Goto(9010), ..rule(9002, 0) },
        not(Rule { iif: Some("lo".into()), ..rule(9003, 2022) }),
        Rule { iif: Some("lo".into()), ..from(rule(9003, 2022), "0.0.0.0/32") },
        Rule { action: RuleAction::Nop, ..rule(9010, 0) },
    ];
    for asked in 0..rules.len() {
        assert_eq!(owner_on(host(), &nothing(), &rules, asked), is(Program::TunProxy, Likely), "{asked}");
    }
    let table = 1_970_566_510;
    let uids = Some(UidRange { start: 0, end: u32::MAX - 1 });
    let clash = [
        not(Rule { destination_ports: dns, ..specific(rule(9500, TABLE_MAIN)) }),
        not(Rule { iif: Some("lo".into()), ..rule(9510, table) }),
        Rule { iif: Some("lo".into()), uid_range: uids, ..from(rule(9520, table), "0.0.0.0/32") },
    ];
    let mut host = host_with("tun", "utun");
    let default = route(table, "0.0.0.0/0", DEVICE);
    host.routes.push(default.clone());
    for asked in 0..clash.len() {
        assert_eq!(owner_on(host.clone(), &nothing(), &clash, asked), is(Program::TunProxy, Likely), "{asked}");
    }
    host.rules.extend(clash);
    assert_eq!(route_owner(&host, &nothing(), &default), is(Program::TunProxy, Likely));
}

/// `redirect-gateway def1`, and a network that the server pushes.
#[test]
fn openvpn() {
    let mut host = host_with("tun", "tun0");
    let half = |prefix| of_protocol(via(route(TABLE_MAIN, prefix, DEVICE), "10.8.0.1"), 3);
    host.routes.extend([half("0.0.0.0/1"), half("128.0.0.0/1")]);
    assert_eq!(route_owner(&host, &nothing(), &half("0.0.0.0/1")), is(Program::OpenVpn, Likely));
    assert_eq!(route_owner(&host, &nothing(), &half("10.20.0.0/16")), is(Program::OpenVpn, Possible));
    let clues = with_processes(&["openvpn"]);
    assert_eq!(route_owner(&host, &clues, &half("10.20.0.0/16")), is(Program::OpenVpn, Likely));
}

/// `network.go` and `driver.go` of the plugin.
#[test]
fn vpc_cni() {
    let rules = [
        Rule { iif: Some("vlan.eth.1".into()), ..rule(10, 101) },
        rule(20, TABLE_LOCAL),
        to(rule(512, TABLE_MAIN), "10.0.97.30/32"),
        marked(rule(1024, TABLE_MAIN), 0x80, 0x80),
        from(rule(1535, TABLE_MAIN), "10.0.97.30/32"),
        from(rule(1536, 2), "10.0.97.30/32"),
    ];
    for asked in 0..rules.len() {
        assert_eq!(owner_on(host(), &nothing(), &rules, asked), is(Program::VpcCni, Likely), "{asked}");
    }
    let mut host = host_with("veth", "eni1a2b3c4d5e6");
    host.rules.extend(rules);
    let pod = of_protocol(route(TABLE_MAIN, "10.0.97.30/32", DEVICE), 3);
    assert_eq!(route_owner(&host, &nothing(), &pod), is(Program::VpcCni, Likely));
    let by_interface = of_protocol(via(route(2, "0.0.0.0/0", LAN), "10.0.96.1"), 3);
    assert_eq!(route_owner(&host, &nothing(), &by_interface), is(Program::VpcCni, Likely));
}

/// `linux_defaults.go`: the kernel's protocol, so that networkd spares them.
#[test]
fn cilium() {
    let of_kernel = |rule| Rule { protocol: 2, ..rule };
    let rules = [
        of_kernel(marked(rule(9, 2004), 0x200, 0xf00)),
        of_kernel(to(rule(20, TABLE_MAIN), "10.1.2.3/32")),
        of_kernel(rule(100, TABLE_LOCAL)),
        of_kernel(to(from(rule(111, 11), "10.1.2.3/32"), "10.0.0.0/8")),
    ];
    for asked in 0..rules.len() {
        assert_eq!(owner_on(host(), &nothing(), &rules, asked), is(Program::Cilium, Likely), "{asked}");
    }
    let mut host = host_with("veth", "cilium_host");
    host.rules.extend(rules);
    let pods = of_protocol(via(route(TABLE_MAIN, "10.1.0.0/16", DEVICE), "10.1.0.5"), 2);
    assert_eq!(route_owner(&host, &with_processes(&["cilium-agent"]), &pods), is(Program::Cilium, Likely));
    let by_proxy = of_protocol(route(2004, "0.0.0.0/0", 1), 2);
    assert_eq!(route_owner(&host, &nothing(), &by_proxy), is(Program::Cilium, Likely));
}

/// Felix: the rule for WireGuard, and routes of pods and of VXLAN.
#[test]
fn calico() {
    let own = not(marked(rule(99, 1), 0x10_0000, 0x10_0000));
    assert_eq!(owner_on(host(), &nothing(), slice::from_ref(&own), 0), is(Program::Calico, Likely));
    assert_eq!(owner_on(host(), &nothing(), &[rule(99, 7)], 0), is(Program::Calico, Possible));
    let mut host = host_with("wireguard", "wireguard.cali");
    host.links.push(link(DEVICE + 1, "cali12ab34cd56e", LinkKind::Other("veth".into())));
    host.routes.push(route(1, "10.244.1.0/24", DEVICE));
    assert_eq!(owner_on(host.clone(), &nothing(), &[own], 0), is(Program::Calico, Likely));
    let pod = of_protocol(route(TABLE_MAIN, "10.244.0.5/32", DEVICE + 1), 3);
    assert_eq!(route_owner(&host, &with_processes(&["calico-node"]), &pod), is(Program::Calico, Likely));
    assert_eq!(route_owner(&host, &nothing(), &of_protocol(pod, 80)), is(Program::Calico, Likely));
}

/// A secondary interface on EC2: by amazon-ec2-net-utils, and by cloud-init with netplan. Both go through networkd.
#[test]
fn secondary_interfaces_on_ec2() {
    let networkd = with_processes(&["systemd-network"]);
    let of_networkd = |rule| Rule { protocol: 4, ..rule };
    let ec2 = of_networkd(from(rule(10001, 10001), "192.168.12.49/32"));
    assert_eq!(owner_on(host(), &networkd, slice::from_ref(&ec2), 0), is(Program::Ec2NetUtils, Likely));
    let mut host = host();
    host.rules.push(ec2);
    let default = of_protocol(via(route(10001, "0.0.0.0/0", LAN), "192.168.13.1"), 4);
    assert_eq!(route_owner(&host, &networkd, &default), is(Program::Ec2NetUtils, Likely));
    // 32765 before strongSwan was there, 219 after.
    host.addresses.push(address(LAN, "192.168.13.7", 24));
    host.routes.push(via(route(101, "0.0.0.0/0", LAN), "192.168.13.1"));
    for priority in [219, 32765] {
        let own = of_networkd(from(rule(priority, 101), "192.168.13.7/32"));
        assert_eq!(owner_on(host.clone(), &networkd, &[own], 0), is(Program::CloudInit, Likely));
    }
    let clues = Clues { paths: vec!["/run/cloud-init".into()], ..networkd };
    host.rules.push(of_networkd(from(rule(219, 101), "192.168.13.7/32")));
    let default = of_protocol(via(route(101, "0.0.0.0/0", LAN), "192.168.13.1"), 4);
    assert_eq!(route_owner(&host, &clues, &default), is(Program::CloudInit, Likely));
}

#[test]
fn networkd_and_network_manager() {
    let own = Rule { protocol: 4, ..to(rule(300, 77), "10.0.0.0/8") };
    assert_eq!(owner_on(host(), &nothing(), slice::from_ref(&own), 0), is(Program::Networkd, Possible));
    assert_eq!(owner_on(host(), &with_processes(&["systemd-network"]), &[own], 0), is(Program::Networkd, Likely));
    let dhcp = |metric| Route { metric, ..of_protocol(via(route(TABLE_MAIN, "0.0.0.0/0", ENS5), "192.168.12.1"), 16) };
    let networkd = Clues { units: vec!["systemd-networkd.service".into()], ..nothing() };
    assert_eq!(route_owner(&host(), &networkd, &dhcp(1024)), is(Program::Networkd, Likely));
    assert_eq!(
        route_owner(&host(), &with_processes(&["NetworkManager"]), &dhcp(100)),
        is(Program::NetworkManager, Likely)
    );
    assert_eq!(route_owner(&host(), &nothing(), &dhcp(100)), is(Program::NetworkManager, Possible));
}

#[test]
fn routing_daemons_bear_their_own_numbers() {
    let learned = |protocol| of_protocol(via(route(TABLE_MAIN, "10.20.0.0/16", ENS5), "192.168.12.9"), protocol);
    for protocol in [11, 186, 187, 188, 189, 190, 191, 192, 196, 198] {
        assert_eq!(route_owner(&host(), &nothing(), &learned(protocol)), is(Program::Frr, Certain), "{protocol}");
    }
    assert_eq!(route_owner(&host(), &nothing(), &learned(12)), is(Program::Bird, Certain));
    assert_eq!(route_owner(&host(), &nothing(), &learned(18)), is(Program::Keepalived, Certain));
    assert_eq!(route_owner(&host(), &nothing(), &learned(42)), is(Program::Frr, Possible));
    assert_eq!(route_owner(&host(), &with_processes(&["zebra"]), &learned(42)), is(Program::Frr, Likely));
    // pbrd, by zebra; keepalived's virtual rules.
    let pbr = Rule { protocol: 11, ..from(rule(300, 10000), "10.0.0.0/8") };
    assert_eq!(owner_on(host(), &nothing(), &[pbr], 0), is(Program::Frr, Certain));
    assert_eq!(owner_on(host(), &nothing(), &[from(rule(300, 10000), "10.0.0.0/8")], 0), is(Program::Frr, Possible));
    let virtual_rule = Rule { protocol: 18, ..from(rule(400, 77), "10.0.0.9/32") };
    assert_eq!(owner_on(host(), &nothing(), &[virtual_rule], 0), is(Program::Keepalived, Certain));
    let bird = Rule { protocol: 12, ..rule(400, 77) };
    assert_eq!(owner_on(host(), &nothing(), &[bird], 0), is(Program::Bird, Certain));
}
