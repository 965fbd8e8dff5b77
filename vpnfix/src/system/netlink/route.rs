//! Decoding of routes (`RTM_NEWROUTE`), from dumps and from lookups (`include/uapi/linux/rtnetlink.h`).

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::NlasIterator;
use netlink_packet_route::route::{RouteFlags, RouteHeader, RouteVia};

use super::attribute::{address, family_of, number, prefix};
use super::channel::{Decoded, Malformed};
use crate::core::model::{Family, Nexthop, Preference, Route, RouteKind};

const HEADER_BYTES: usize = 12;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_PREF: u16 = 20;
const RTA_NH_ID: u16 = 30;

const RTNH_F_DEAD: u8 = 1;
const RTNH_F_LINKDOWN: u8 = 16;
/// `struct rtnexthop`: length, flags, weight less one, interface index.
const RTNH_BYTES: usize = 8;

/// One route. `None` for other families' and for cached clones, which are no entries of a table.
pub(super) fn route(payload: &[u8]) -> Decoded<Route> {
    let header = RouteHeader::parse(payload)?;
    let Some(family) = family_of(header.address_family.into()) else { return Ok(None) };
    if header.flags.contains(RouteFlags::Cloned) {
        return Ok(None);
    }
    let fields = fields(payload)?;
    let (nexthop_object, preference) = (fields.nexthop_object, fields.preference);
    let kind = kind(header.kind.into());
    let destination = fields.destination.unwrap_or(unspecified(family));
    let source = match (fields.source, header.source_prefix_length) {
        (Some(source), length) if length > 0 => Some(prefix(source, length, "RTA_SRC")?),
        _ => None,
    };
    Ok(Some(Route {
        family,
        destination: same_family(prefix(destination, header.destination_prefix_length, "RTA_DST")?, family)?,
        source,
        table: fields.table.unwrap_or_else(|| header.table.into()),
        kind,
        protocol: header.protocol.into(),
        scope: header.scope.into(),
        tos: header.tos,
        metric: fields.metric,
        preferred_source: fields.preferred_source,
        nexthops: if has_nexthops(kind) { fields.nexthops(header.flags.bits().to_ne_bytes()[0]) } else { Vec::new() },
        nexthop_object,
        preference,
    }))
}

/// IPv6 gives even an unreachable route a device (the loopback), where the packet does not go.
fn has_nexthops(kind: RouteKind) -> bool {
    !matches!(kind, RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit | RouteKind::Throw)
}

fn same_family(prefix: IpNet, family: Family) -> Result<IpNet, Malformed> {
    if prefix.max_prefix_len() == family.bits() {
        Ok(prefix)
    } else {
        Err(Malformed(format!("destination {prefix} of the other family")))
    }
}

fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([0; 4]),
        Family::V6 => IpAddr::from([0; 16]),
    }
}

/// The attributes that matter of a route message.
#[derive(Default)]
pub(super) struct Fields {
    pub(super) destination: Option<IpAddr>,
    pub(super) source: Option<IpAddr>,
    pub(super) table: Option<u32>,
    pub(super) ifindex: Option<u32>,
    pub(super) gateway: Option<IpAddr>,
    pub(super) preferred_source: Option<IpAddr>,
    metric: u32,
    multipath: Vec<Nexthop>,
    nexthop_object: Option<u32>,
    preference: Preference,
}

impl Fields {
    fn nexthops(self, flags: u8) -> Vec<Nexthop> {
        if !self.multipath.is_empty() || (self.ifindex.is_none() && self.gateway.is_none()) {
            return self.multipath;
        }
        vec![Nexthop {
            ifindex: self.ifindex,
            gateway: self.gateway,
            weight: 1,
            dead: flags & RTNH_F_DEAD != 0,
            linkdown: flags & RTNH_F_LINKDOWN != 0,
        }]
    }
}

/// Reads the attributes behind the header of a route message.
pub(super) fn fields(payload: &[u8]) -> Result<Fields, Malformed> {
    let mut fields = Fields::default();
    for attribute in NlasIterator::new(payload.get(HEADER_BYTES..).unwrap_or_default()) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            RTA_DST => fields.destination = Some(address(value, "RTA_DST")?),
            RTA_SRC => fields.source = Some(address(value, "RTA_SRC")?),
            RTA_OIF => fields.ifindex = Some(number(value, "RTA_OIF")?),
            RTA_GATEWAY => fields.gateway = Some(address(value, "RTA_GATEWAY")?),
            RTA_VIA => fields.gateway = via(value)?,
            RTA_PRIORITY => fields.metric = number(value, "RTA_PRIORITY")?,
            RTA_PREFSRC => fields.preferred_source = Some(address(value, "RTA_PREFSRC")?),
            RTA_TABLE => fields.table = Some(number(value, "RTA_TABLE")?),
            RTA_NH_ID => fields.nexthop_object = Some(number(value, "RTA_NH_ID")?),
            RTA_PREF => fields.preference = preference(value)?,
            RTA_MULTIPATH => fields.multipath = multipath(value)?,
            _ => {}
        }
    }
    Ok(fields)
}

/// The two bits of RFC 4191; the reserved value means medium (`ICMPV6_ROUTER_PREF_*`, `include/uapi/linux/icmpv6.h`).
fn preference(value: &[u8]) -> Result<Preference, Malformed> {
    match value {
        [1] => Ok(Preference::High),
        [3] => Ok(Preference::Low),
        [_] => Ok(Preference::Medium),
        _ => Err(Malformed(format!("RTA_PREF of {} bytes", value.len()))),
    }
}

/// A gateway of the other family (RFC 8950: IPv4 routes through an IPv6 gateway).
fn via(value: &[u8]) -> Result<Option<IpAddr>, Malformed> {
    Ok(match RouteVia::parse(value)? {
        RouteVia::Inet(address) => Some(address.into()),
        RouteVia::Inet6(address) => Some(address.into()),
        _ => None,
    })
}

fn multipath(value: &[u8]) -> Result<Vec<Nexthop>, Malformed> {
    let mut nexthops = Vec::new();
    let mut rest = value;
    while let Some(&[l0, l1, flags, hops, i0, i1, i2, i3]) = rest.first_chunk::<RTNH_BYTES>() {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let Some(attributes) = rest.get(RTNH_BYTES..length) else {
            return Err(Malformed(format!("nexthop of {length} bytes, {} there", rest.len())));
        };
        let mut gateway = None;
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute?;
            match attribute.kind() {
                RTA_GATEWAY => gateway = Some(address(attribute.value(), "RTA_GATEWAY")?),
                RTA_VIA => gateway = via(attribute.value())?,
                _ => {}
            }
        }
        nexthops.push(Nexthop {
            ifindex: Some(u32::from_ne_bytes([i0, i1, i2, i3])).filter(|index| *index != 0),
            gateway,
            weight: u16::from(hops) + 1,
            dead: flags & RTNH_F_DEAD != 0,
            linkdown: flags & RTNH_F_LINKDOWN != 0,
        });
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(nexthops)
}

/// `RTN_*`.
pub(super) fn kind(number: u8) -> RouteKind {
    match number {
        1 => RouteKind::Unicast,
        2 => RouteKind::Local,
        3 => RouteKind::Broadcast,
        4 => RouteKind::Anycast,
        5 => RouteKind::Multicast,
        6 => RouteKind::Blackhole,
        7 => RouteKind::Unreachable,
        8 => RouteKind::Prohibit,
        9 => RouteKind::Throw,
        other => RouteKind::Other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10.20.0.0/16 in table 300 (compat number 252), protocol bgp, unicast, link down.
    fn header(flags: u8) -> Vec<u8> {
        vec![2, 16, 0, 0, 252, 186, 0, 1, flags, 0, 0, 0]
    }

    fn with(mut header: Vec<u8>, attributes: &[&[u8]]) -> Vec<u8> {
        for attribute in attributes {
            header.extend_from_slice(attribute);
        }
        header
    }

    const DESTINATION: &[u8] = &[8, 0, 1, 0, 10, 20, 0, 0];
    const TABLE: &[u8] = &[8, 0, 15, 0, 44, 1, 0, 0];

    #[test]
    fn the_large_table_number_wins_over_the_headers() {
        let bytes = with(header(16), &[DESTINATION, TABLE, &[8, 0, 4, 0, 3, 0, 0, 0]]);
        let route = route(&bytes).unwrap().unwrap();
        assert_eq!((route.table, route.protocol), (300, 186));
        assert_eq!(route.destination, "10.20.0.0/16".parse().unwrap());
        let nexthop = &route.nexthops[0];
        assert_eq!((nexthop.ifindex, nexthop.dead, nexthop.linkdown), (Some(3), false, true));
    }

    #[test]
    fn an_ipv4_route_may_have_an_ipv6_gateway_in_a_multipath() {
        let mut via = vec![22, 0, 18, 0, 10, 0];
        via.extend_from_slice(&"fe80::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        via.extend_from_slice(&[0, 0]);
        let mut multipath = vec![48, 0, 9, 0];
        multipath.extend_from_slice(&[32, 0, 1, 9, 4, 0, 0, 0]);
        multipath.extend_from_slice(&via);
        multipath.extend_from_slice(&[12, 0, 0, 0, 5, 0, 0, 0]);
        multipath.extend_from_slice(&[4, 0, 99, 0]);
        let bytes = with(header(0), &[DESTINATION, &multipath]);
        let route = route(&bytes).unwrap().unwrap();
        assert_eq!(route.nexthops.len(), 2);
        assert_eq!(route.nexthops[0].gateway, Some("fe80::1".parse().unwrap()));
        assert_eq!((route.nexthops[0].weight, route.nexthops[0].dead), (10, true));
        assert_eq!((route.nexthops[1].ifindex, route.nexthops[1].gateway), (Some(5), None));
    }

    #[test]
    fn an_unreachable_route_goes_nowhere_even_if_it_names_a_device() {
        let mut bytes = with(header(0), &[DESTINATION, &[8, 0, 4, 0, 1, 0, 0, 0]]);
        bytes[7] = 7;
        let route = route(&bytes).unwrap().unwrap();
        assert_eq!((route.kind, route.nexthops.len()), (RouteKind::Unreachable, 0));
    }

    #[test]
    fn the_preference_of_an_ipv6_route_is_decoded() {
        let mut ipv6 = header(0);
        (ipv6[0], ipv6[1]) = (10, 0);
        for (value, expected) in
            [(0, Preference::Medium), (1, Preference::High), (2, Preference::Medium), (3, Preference::Low)]
        {
            let bytes = with(ipv6.clone(), &[&[5, 0, 20, 0, value, 0, 0, 0]]);
            assert_eq!(route(&bytes).unwrap().unwrap().preference, expected);
        }
        assert!(route(&with(ipv6, &[&[4, 0, 20, 0]])).is_err());
    }

    #[test]
    fn cached_clones_and_other_families_are_left_out() {
        let mut clone = with(header(0), &[DESTINATION]);
        clone[9] = 2;
        assert_eq!(route(&clone).unwrap(), None);
        let mut mpls = with(header(0), &[]);
        mpls[0] = 28;
        assert_eq!(route(&mpls).unwrap(), None);
    }

    #[test]
    fn nonsense_is_refused_without_a_panic() {
        let mut long = with(header(0), &[DESTINATION]);
        long[1] = 33;
        assert!(route(&long).is_err());
        assert!(multipath(&[7, 0, 0, 0, 1, 0, 0, 0]).is_err());
        assert!(multipath(&[200, 0, 0, 0, 1, 0, 0, 0]).is_err());
        let whole = with(header(0), &[DESTINATION, TABLE]);
        for length in 0..whole.len() {
            let _either = route(&whole[..length]);
        }
    }
}
