//! Decoding of interfaces and their addresses (`RTM_NEWLINK`, `RTM_NEWADDR`; `include/uapi/linux/if_link.h`,
//! `if_addr.h`). Only the attributes that vpnfix needs are looked at, so that a driver's odd one cannot hide a link.

use netlink_packet_core::{NlasIterator, Parseable};
use netlink_packet_route::link::{InfoVrf, InfoVti, InfoXfrm, LinkFlags, LinkHeader};

use super::attribute::{address, family_of, number, text};
use super::channel::{Decoded, Malformed};
use crate::core::model::{Address, DeviceSettings, Link, LinkCounters, LinkKind};

const LINK_HEADER_BYTES: usize = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_GROUP: u16 = 27;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;

const ADDRESS_HEADER_BYTES: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// One interface.
pub(super) fn link(payload: &[u8]) -> Decoded<Link> {
    let header = LinkHeader::parse(payload)?;
    let mut link = Link {
        index: header.index,
        name: String::new(),
        kind: if header.flags.contains(LinkFlags::Loopback) { LinkKind::Loopback } else { LinkKind::Plain },
        up: header.flags.contains(LinkFlags::Up),
        carrier: header.flags.contains(LinkFlags::LowerUp),
        mtu: None,
        master: None,
        group: 0,
        counters: LinkCounters::default(),
        settings: DeviceSettings::default(),
    };
    for attribute in NlasIterator::new(payload.get(LINK_HEADER_BYTES..).unwrap_or_default()) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = Some(number(value, "IFLA_MTU")?),
            IFLA_MASTER => link.master = Some(number(value, "IFLA_MASTER")?).filter(|index| *index != 0),
            IFLA_GROUP => link.group = number(value, "IFLA_GROUP")?,
            IFLA_STATS64 => link.counters = counters(value),
            IFLA_LINKINFO => {
                if let Some(kind) = kind(value)? {
                    link.kind = kind;
                }
            }
            _ => {}
        }
    }
    Ok(Some(link))
}

/// The kind that `IFLA_LINKINFO` tells, if any.
fn kind(info: &[u8]) -> Result<Option<LinkKind>, Malformed> {
    let mut name = None;
    let mut parameters = Vec::new();
    for attribute in NlasIterator::new(info) {
        let attribute = attribute?;
        match attribute.kind() {
            IFLA_INFO_KIND => name = Some(text(attribute.value())),
            IFLA_INFO_DATA => parameters = attribute.value().to_vec(),
            _ => {}
        }
    }
    let Some(name) = name else { return Ok(None) };
    let kind = match name.as_str() {
        "vti" => vti_kind(false, &list(&parameters)?),
        "vti6" => vti_kind(true, &list(&parameters)?),
        "xfrm" => xfrm_kind(&list(&parameters)?),
        "vrf" => vrf_kind(&list(&parameters)?),
        _ => LinkKind::Other(name),
    };
    Ok(Some(kind))
}

fn list<T>(bytes: &[u8]) -> Result<Vec<T>, Malformed>
where
    T: for<'a> Parseable<netlink_packet_core::NlaBuffer<&'a [u8]>>,
{
    NlasIterator::new(bytes).map(|attribute| Ok(T::parse(&attribute?)?)).collect()
}

/// A virtual tunnel interface by its parameters. The keys come in network byte order and were turned by the parser.
fn vti_kind(v6: bool, parameters: &[InfoVti]) -> LinkKind {
    let (mut local, mut remote, mut input_key, mut output_key) = (None, None, 0, 0);
    for parameter in parameters {
        match parameter {
            InfoVti::Local(address) => local = Some(*address),
            InfoVti::Remote(address) => remote = Some(*address),
            InfoVti::IKey(key) => input_key = *key,
            InfoVti::OKey(key) => output_key = *key,
            _ => {}
        }
    }
    LinkKind::Vti { v6, local, remote, input_key, output_key }
}

/// An XFRM interface by its parameters. Collect-metadata interfaces have no id: 0.
fn xfrm_kind(parameters: &[InfoXfrm]) -> LinkKind {
    let id = parameters.iter().find_map(|parameter| match parameter {
        InfoXfrm::IfId(id) => Some(*id),
        _ => None,
    });
    LinkKind::Xfrm { if_id: id.unwrap_or(0) }
}

/// A VRF device by its parameters.
fn vrf_kind(parameters: &[InfoVrf]) -> LinkKind {
    let table = parameters.iter().find_map(|parameter| match parameter {
        InfoVrf::TableId(table) => Some(*table),
        _ => None,
    });
    LinkKind::Vrf { table: table.unwrap_or(0) }
}

/// `struct rtnl_link_stats64`; an older kernel's is shorter.
fn counters(value: &[u8]) -> LinkCounters {
    let at = |index: usize| {
        let bytes = value.get(index * 8..).and_then(|rest| rest.first_chunk());
        bytes.copied().map_or(0, u64::from_ne_bytes)
    };
    LinkCounters {
        rx_packets: at(0),
        tx_packets: at(1),
        rx_bytes: at(2),
        tx_bytes: at(3),
        tx_errors: at(5),
        tx_dropped: at(7),
        collisions: at(9),
        tx_carrier_errors: at(17),
    }
}

/// One address of an interface. IPv4 always has `IFA_LOCAL`; IPv6 only with a peer.
pub(super) fn interface_address(payload: &[u8]) -> Decoded<Address> {
    let Some(&[family, prefix_length, _flags, scope, a, b, c, d]) = payload.first_chunk::<ADDRESS_HEADER_BYTES>()
    else {
        return Err(Malformed(format!("address message of {} bytes", payload.len())));
    };
    if family_of(family).is_none() {
        return Ok(None);
    }
    let (mut near, mut far) = (None, None);
    for attribute in NlasIterator::new(payload.get(ADDRESS_HEADER_BYTES..).unwrap_or_default()) {
        let attribute = attribute?;
        match attribute.kind() {
            IFA_ADDRESS => far = Some(address(attribute.value(), "IFA_ADDRESS")?),
            IFA_LOCAL => near = Some(address(attribute.value(), "IFA_LOCAL")?),
            _ => {}
        }
    }
    let Some(local) = near.or(far) else { return Ok(None) };
    let peer = far.filter(|far| *far != local);
    let ifindex = u32::from_ne_bytes([a, b, c, d]);
    Ok(Some(Address { ifindex, local, peer, prefix_length, scope }))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use netlink_packet_core::Emitable;
    use netlink_packet_route::link::{InfoData, InfoKind, LinkAttribute, LinkInfo, LinkMessage};

    use super::*;

    fn message(kind: InfoKind, data: InfoData) -> Vec<u8> {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
        message.attributes = vec![
            LinkAttribute::IfName("Tunnel1".into()),
            LinkAttribute::Mtu(1419),
            LinkAttribute::Controller(3),
            LinkAttribute::Group(9),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)]),
        ];
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        bytes
    }

    #[test]
    fn a_vti_is_decoded_with_its_keys_and_endpoints() {
        let local: IpAddr = "192.168.12.49".parse().unwrap();
        let remote: IpAddr = "203.0.113.1".parse().unwrap();
        let data = InfoData::Vti(vec![
            InfoVti::Link(0),
            InfoVti::IKey(100),
            InfoVti::OKey(200),
            InfoVti::Local(local),
            InfoVti::Remote(remote),
        ]);
        let link = link(&message(InfoKind::Vti, data)).unwrap().unwrap();
        assert_eq!((link.index, link.name.as_str(), link.mtu), (7, "Tunnel1", Some(1419)));
        assert_eq!((link.up, link.carrier, link.master, link.group), (true, true, Some(3), 9));
        let expected =
            LinkKind::Vti { v6: false, local: Some(local), remote: Some(remote), input_key: 100, output_key: 200 };
        assert_eq!(link.kind, expected);
    }

    #[test]
    fn the_keys_of_a_vti_are_in_network_byte_order() {
        let info = [
            8, 0, 1, 0, b'v', b't', b'i', 0, // IFLA_INFO_KIND
            12, 0, 2, 0, 8, 0, 3, 0, 0, 0, 0, 100, // IFLA_INFO_DATA with IFLA_VTI_OKEY
        ];
        let LinkKind::Vti { output_key, .. } = kind(&info).unwrap().unwrap() else { panic!("not a VTI") };
        assert_eq!(output_key, 100);
    }

    #[test]
    fn xfrm_and_vrf_are_decoded() {
        let xfrm = message(InfoKind::Xfrm, InfoData::Xfrm(vec![InfoXfrm::Link(2), InfoXfrm::IfId(42)]));
        assert_eq!(link(&xfrm).unwrap().unwrap().kind, LinkKind::Xfrm { if_id: 42 });
        let vrf = message(InfoKind::Vrf, InfoData::Vrf(vec![InfoVrf::TableId(1000)]));
        assert_eq!(link(&vrf).unwrap().unwrap().kind, LinkKind::Vrf { table: 1000 });
    }

    #[test]
    fn short_counters_of_an_old_kernel_read_as_zero_beyond_their_end() {
        let mut value = Vec::new();
        for index in 0_u64..10 {
            value.extend_from_slice(&(index + 1).to_ne_bytes());
        }
        let counters = counters(&value);
        assert_eq!((counters.rx_packets, counters.tx_dropped, counters.collisions), (1, 8, 10));
        assert_eq!(counters.tx_carrier_errors, 0);
    }

    #[test]
    fn cut_messages_are_errors_or_less_but_no_panic() {
        let bytes = message(InfoKind::Vti, InfoData::Vti(vec![InfoVti::OKey(1)]));
        for length in 0..bytes.len() {
            let _either = link(&bytes[..length]);
            let _either = interface_address(&bytes[..length]);
        }
    }

    #[test]
    fn an_address_with_a_peer_keeps_both_ends() {
        let bytes = [
            2, 30, 0, 0, 5, 0, 0, 0, // AF_INET, /30, global, index 5
            8, 0, 1, 0, 169, 254, 55, 53, // IFA_ADDRESS: the peer
            8, 0, 2, 0, 169, 254, 55, 54, // IFA_LOCAL
        ];
        let address = interface_address(&bytes).unwrap().unwrap();
        assert_eq!(address.local, "169.254.55.54".parse::<IpAddr>().unwrap());
        assert_eq!(address.peer, Some("169.254.55.53".parse().unwrap()));
        assert_eq!(address.prefix(), Some("169.254.55.52/30".parse().unwrap()));
    }
}
