//! Which interfaces are tunnels, and the addresses inside them.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

use super::finding::few;
use super::model::{Address, Family, Link, LinkKind, SecurityAssociation, Snapshot, TABLE_MAIN, TunnelKey};

/// A tunnel interface of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Interface index.
    pub ifindex: u32,
    /// Name.
    pub name: String,
    /// The kernel's name of its kind (`vti`, `xfrm`, `veth` …).
    pub kind: String,
    /// Administratively up.
    pub up: bool,
    /// What ties it to its SAs.
    pub key: Option<TunnelKey>,
    /// Outer address of the IKE peer, where the interface knows it.
    pub outer_peer: Option<IpAddr>,
    /// Table that holds its routes: main, or that of the VRF it is enslaved to.
    pub table: u32,
    /// Index of the VRF device that it is enslaved to.
    pub vrf: Option<u32>,
    /// Addresses inside, IPv4 before IPv6. Link-local IPv6 ones are left out.
    pub inside: Vec<Inside>,
}

/// One inside address of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside {
    /// The host's own.
    pub local: IpAddr,
    /// The other end's, where it follows from the address.
    pub peer: Option<IpAddr>,
    /// The prefix that both lie in.
    pub prefix: IpNet,
}

/// A `--tunnel` that names nothing.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("no device named {name:?} in this namespace (there are: {there})")]
pub struct NoSuchDevice {
    /// The name asked for.
    pub name: String,
    /// The names there are.
    pub there: String,
}

/// The tunnels of a host: every `vti`, `vti6` and `xfrm` interface, and the devices named besides.
///
/// # Errors
/// A named device that does not exist.
pub fn tunnels(snapshot: &Snapshot, named: &[String]) -> Result<Vec<Tunnel>, NoSuchDevice> {
    let names: HashSet<&str> = snapshot.links.iter().map(|link| link.name.as_str()).collect();
    if let Some(name) = named.iter().find(|name| !names.contains(name.as_str())) {
        let there: Vec<&str> = snapshot.links.iter().map(|link| link.name.as_str()).collect();
        return Err(NoSuchDevice { name: name.clone(), there: there.join(", ") });
    }
    let named: HashSet<&str> = named.iter().map(String::as_str).collect();
    let is_tunnel = |link: &&Link| {
        named.contains(link.name.as_str())
            || (matches!(link.kind, LinkKind::Vti { .. } | LinkKind::Xfrm { .. }) && !is_fallback_device(&link.name))
    };
    let mut addresses: HashMap<u32, Vec<&Address>> = HashMap::new();
    for address in &snapshot.addresses {
        addresses.entry(address.ifindex).or_default().push(address);
    }
    let vrfs: HashMap<u32, u32> = snapshot.links.iter().filter_map(vrf_table).collect();
    let of = |link: &Link| {
        let vrf = link.master.and_then(|master| Some((master, *vrfs.get(&master)?)));
        tunnel(link, addresses.get(&link.index).map_or(&[], Vec::as_slice), vrf)
    };
    Ok(snapshot.links.iter().filter(is_tunnel).map(of).collect())
}

/// Enters the outer addresses of the peers that only security associations know: an XFRM interface is tied to its own by
/// an id.
pub fn learn_peers(tunnels: &mut [Tunnel], snapshot: &Snapshot, associations: &[SecurityAssociation]) {
    let own: HashSet<IpAddr> = snapshot.addresses.iter().map(|address| address.local).collect();
    for tunnel in tunnels.iter_mut().filter(|tunnel| tunnel.outer_peer.is_none()) {
        let Some(TunnelKey::IfId(if_id)) = tunnel.key else { continue };
        let of_tunnel = associations.iter().filter(|association| association.if_id == if_id);
        let mut ends = of_tunnel.flat_map(|association| [association.destination, association.source]);
        tunnel.outer_peer = ends.find(|end| !own.contains(end) && !end.is_unspecified());
    }
}

/// Names of the XFRM interfaces whose peers are not known, in one line.
#[must_use]
pub fn peers_not_known(tunnels: &[Tunnel]) -> Option<String> {
    let unknown = |tunnel: &&Tunnel| matches!(tunnel.key, Some(TunnelKey::IfId(_))) && tunnel.outer_peer.is_none();
    let names: Vec<&str> = tunnels.iter().filter(unknown).map(|tunnel| tunnel.name.as_str()).collect();
    (!names.is_empty()).then(|| few(&names, 3))
}

/// The devices that the VTI modules make in each namespace by themselves; nothing is ever routed into them.
fn is_fallback_device(name: &str) -> bool {
    matches!(name, "ip_vti0" | "ip6_vti0")
}

/// Index and table of a VRF device.
fn vrf_table(link: &Link) -> Option<(u32, u32)> {
    match link.kind {
        LinkKind::Vrf { table } => Some((link.index, table)),
        _ => None,
    }
}

/// A link as a tunnel, with its addresses and the VRF that it is enslaved to (index and table).
fn tunnel(link: &Link, addresses: &[&Address], vrf: Option<(u32, u32)>) -> Tunnel {
    let (key, outer_peer) = match &link.kind {
        LinkKind::Vti { remote, output_key, .. } => {
            (Some(TunnelKey::Key(*output_key)), remote.filter(|address| !address.is_unspecified()))
        }
        LinkKind::Xfrm { if_id } => (Some(TunnelKey::IfId(*if_id)), None),
        _ => (None, None),
    };
    let mut inside: Vec<Inside> = addresses
        .iter()
        .filter(|address| !is_link_local_v6(address.local))
        .filter_map(|address| inside_of(address))
        .collect();
    inside.sort_by_key(|inside| Family::of(inside.local));
    Tunnel {
        ifindex: link.index,
        name: link.name.clone(),
        kind: link.kind.name().to_string(),
        up: link.up,
        key,
        outer_peer,
        table: vrf.map_or(TABLE_MAIN, |(_, table)| table),
        vrf: vrf.map(|(index, _)| index),
        inside,
    }
}

/// Every IPv6 interface has one; only a /30 of IPv4's 169.254.0.0/16 is an inside address by design.
fn is_link_local_v6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

fn inside_of(address: &Address) -> Option<Inside> {
    let prefix = address.prefix()?;
    Some(Inside { local: address.local, peer: peer_of(address, &prefix), prefix })
}

/// The other end: the address given as peer, or the one other host of a /30 or /31 (IPv6: /126 or /127).
fn peer_of(address: &Address, prefix: &IpNet) -> Option<IpAddr> {
    if let Some(peer) = address.peer.filter(|peer| *peer != address.local) {
        return Some(peer);
    }
    let host_bits = prefix.max_prefix_len() - prefix.prefix_len();
    match (host_bits, address.local) {
        (1, IpAddr::V4(v4)) => Some(IpAddr::V4((u32::from(v4) ^ 1).into())),
        (1, IpAddr::V6(v6)) => Some(IpAddr::V6((u128::from(v6) ^ 1).into())),
        // The hosts of a /30 end in 01 and 10 (binary).
        (2, IpAddr::V4(v4)) if matches!(u32::from(v4) & 3, 1 | 2) => Some(IpAddr::V4((u32::from(v4) ^ 3).into())),
        (2, IpAddr::V6(v6)) if matches!(u128::from(v6) & 3, 1 | 2) => Some(IpAddr::V6((u128::from(v6) ^ 3).into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(local: &str, peer: Option<&str>, prefix_length: u8) -> Address {
        Address {
            ifindex: 3,
            local: local.parse().expect("an address"),
            peer: peer.map(|peer| peer.parse().expect("an address")),
            prefix_length,
            scope: 0,
        }
    }

    fn inside(local: &str, peer: Option<&str>, length: u8) -> (String, Option<String>) {
        let inside = inside_of(&address(local, peer, length)).expect("a prefix");
        (inside.prefix.to_string(), inside.peer.map(|peer| peer.to_string()))
    }

    #[test]
    fn the_peer_of_a_small_prefix_is_its_other_host() {
        assert_eq!(inside("169.254.55.54", None, 30), ("169.254.55.52/30".into(), Some("169.254.55.53".into())));
        assert_eq!(inside("10.0.0.0", None, 31), ("10.0.0.0/31".into(), Some("10.0.0.1".into())));
        assert_eq!(inside("fd00::2", None, 126), ("fd00::/126".into(), Some("fd00::1".into())));
    }

    #[test]
    fn the_given_peer_wins() {
        let aws = inside("169.254.163.250", Some("169.254.163.249"), 30);
        assert_eq!(aws, ("169.254.163.248/30".into(), Some("169.254.163.249".into())));
        let host = inside("10.9.9.1", Some("10.9.9.2"), 32);
        assert_eq!(host, ("10.9.9.2/32".into(), Some("10.9.9.2".into())));
    }

    #[test]
    fn a_wide_prefix_has_no_known_peer() {
        assert_eq!(inside("10.0.0.5", None, 24).1, None);
        assert_eq!(inside("169.254.55.52", None, 30).1, None);
    }

    #[test]
    fn the_peer_of_an_xfrm_interface_is_known_from_its_associations() {
        use crate::core::control::ike_peers;
        use crate::core::fixture::{association, gateway, link};

        let mut host = gateway();
        host.links.push(link(9, "ipsec7", LinkKind::Xfrm { if_id: 7 }));
        let mut found = tunnels(&host, &[]).expect("no device is named");
        assert_eq!(peers_not_known(&found), Some("ipsec7".into()));
        // Inbound first, as a dump may have it; another interface's and a policy-based one stand beside.
        let associations = [
            association(8, "192.168.12.49", "203.0.113.99"),
            association(0, "192.168.12.49", "203.0.113.98"),
            association(7, "203.0.113.77", "192.168.12.49"),
            association(7, "192.168.12.49", "203.0.113.77"),
        ];
        learn_peers(&mut found, &host, &associations);
        let peers: Vec<String> =
            found.iter().filter_map(|tunnel| tunnel.outer_peer).map(|peer| peer.to_string()).collect();
        assert_eq!((peers, peers_not_known(&found)), (vec!["203.0.113.10".into(), "203.0.113.77".into()], None));
        let all: Vec<String> = ike_peers(&host, &associations).iter().map(ToString::to_string).collect();
        assert_eq!(all, ["203.0.113.99", "203.0.113.98", "203.0.113.77"]);
    }
}
