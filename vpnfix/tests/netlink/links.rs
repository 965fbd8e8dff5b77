//! Links and addresses: read as `ip` shows them.

use vpnfix::core::model::{DeviceSettings, LinkKind};
use vpnfix::system::namespace;

use crate::scene::{Namespace, has_flag, is_able};

#[test]
fn the_snapshot_has_the_links_and_addresses_that_ip_shows() {
    if !is_able("links") {
        return;
    }
    let namespace = Namespace::gateway();
    namespace.ip("link add br0 type bridge");
    namespace.ip("link set ens5-far master br0");
    let snapshot = namespace.snapshot();
    let theirs = namespace.json("-d link show");
    assert_eq!(snapshot.links.len(), theirs.len());
    for link in theirs {
        let ours = snapshot.link_named(link["ifname"].as_str().unwrap()).unwrap();
        assert_eq!(u64::from(ours.index), link["ifindex"].as_u64().unwrap());
        assert_eq!(ours.mtu.map(u64::from), link["mtu"].as_u64());
        assert_eq!((ours.up, ours.carrier), (has_flag(&link, "UP"), has_flag(&link, "LOWER_UP")));
        assert_eq!(ours.master.map(|index| snapshot.device_name(index)).as_deref(), link["master"].as_str());
        let group = link["group"].as_str().unwrap();
        assert_eq!(if ours.group == 0 { "default".into() } else { ours.group.to_string() }, group);
        match link["linkinfo"]["info_kind"].as_str() {
            // Where the tunnel modules are loaded, each namespace has their fallback devices (`ip_vti0` and its like).
            Some(kind) => assert_eq!(ours.kind.name(), kind),
            None => assert_eq!(ours.kind, LinkKind::Loopback),
        }
    }
    let mut theirs: Vec<String> = Vec::new();
    for link in namespace.json("address show") {
        for address in link["addr_info"].as_array().unwrap() {
            let peer = address["address"].as_str().unwrap_or_default();
            theirs.push(format!("{} {} {peer}/{}", link["ifname"], address["local"], address["prefixlen"]));
        }
    }
    let mut ours: Vec<String> = Vec::new();
    for address in &snapshot.addresses {
        let peer = address.peer.map_or(String::new(), |peer| peer.to_string());
        let name = snapshot.device_name(address.ifindex);
        ours.push(format!("{name:?} \"{}\" {peer}/{}", address.local, address.prefix_length));
    }
    theirs.sort();
    ours.sort();
    assert_eq!(ours, theirs);
}

#[test]
fn the_settings_of_a_device_are_those_that_take_effect() {
    if !is_able("settings") {
        return;
    }
    let namespace = Namespace::gateway();
    let set = |file: &str, value: &str| {
        let path = format!("/proc/sys/net/{file}");
        namespace::within(&namespace.target(), || std::fs::write(path, value).unwrap()).unwrap();
    };
    set("ipv4/conf/all/rp_filter", "0");
    set("ipv4/conf/ens5/rp_filter", "1");
    set("ipv4/conf/Tunnel1/rp_filter", "0");
    set("ipv4/conf/all/forwarding", "0");
    set("ipv4/conf/Tunnel1/forwarding", "1");
    set("ipv6/conf/all/ignore_routes_with_linkdown", "1");
    set("ipv6/conf/ens5/ignore_routes_with_linkdown", "0");
    set("ipv6/conf/Tunnel1/ignore_routes_with_linkdown", "1");
    let settings = |name: &str| namespace.snapshot().link_named(name).unwrap().settings;
    let plain = DeviceSettings::default();
    assert_eq!(settings("ens5"), DeviceSettings { rp_filter: 1, ..plain });
    let tunnel = DeviceSettings { forwarding: true, ignores_linkdown_v6: true, ..plain };
    assert_eq!(settings("Tunnel1"), tunnel);
    set("ipv4/conf/all/rp_filter", "2");
    set("ipv4/conf/all/ignore_routes_with_linkdown", "1");
    assert_eq!(settings("ens5"), DeviceSettings { rp_filter: 2, ignores_linkdown: true, ..plain });
    assert_eq!(settings("Tunnel1"), DeviceSettings { rp_filter: 2, ignores_linkdown: true, ..tunnel });
}
