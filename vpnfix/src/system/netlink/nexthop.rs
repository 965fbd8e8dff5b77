//! Nexthop objects (`RTM_GETNEXTHOP`; `include/uapi/linux/nexthop.h`, `net/ipv4/nexthop.c`).

use netlink_packet_core::NlasIterator;

use super::attribute::{address, number};
use super::channel::{Decoded, Malformed};
use crate::core::model::{Nexthop, Route, RouteKind};

pub(super) const RTM_NEWNEXTHOP: u16 = 104;
pub(super) const RTM_GETNEXTHOP: u16 = 106;

/// `struct nhmsg`: family, scope, protocol, reserved, flags.
const HEADER_BYTES: usize = 8;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_BLACKHOLE: u16 = 4;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const RTNH_F_DEAD: u32 = 1;
const RTNH_F_LINKDOWN: u32 = 16;

/// A nexthop object by its id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Object {
    id: u32,
    single: Nexthop,
    /// Drops what is sent to it.
    blackhole: bool,
    /// Ids and weights of its members, if it is a group.
    group: Vec<(u32, u16)>,
}

/// One nexthop object.
pub(super) fn object(payload: &[u8]) -> Decoded<Object> {
    let flags = payload.get(4..8).map_or(Ok(0), |flags| number(flags, "nexthop flags"))?;
    let mut object = Object::default();
    object.single.weight = 1;
    object.single.dead = flags & RTNH_F_DEAD != 0;
    object.single.linkdown = flags & RTNH_F_LINKDOWN != 0;
    for attribute in NlasIterator::new(payload.get(HEADER_BYTES..).unwrap_or_default()) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            NHA_ID => object.id = number(value, "NHA_ID")?,
            NHA_OIF => object.single.ifindex = Some(number(value, "NHA_OIF")?),
            NHA_GATEWAY => object.single.gateway = Some(address(value, "NHA_GATEWAY")?),
            NHA_BLACKHOLE => object.blackhole = true,
            NHA_GROUP => object.group = members(value)?,
            _ => {}
        }
    }
    Ok(Some(object))
}

/// `struct nexthop_grp`: id, weight less one, its high byte (since Linux 6.12, 0 before), reserved.
fn members(value: &[u8]) -> Result<Vec<(u32, u16)>, Malformed> {
    let (members, rest) = value.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(Malformed(format!("NHA_GROUP of {} bytes", value.len())));
    }
    let member = |&[a, b, c, d, weight, high, _, _]: &[u8; 8]| {
        (u32::from_ne_bytes([a, b, c, d]), u16::from_le_bytes([weight, high]).saturating_add(1))
    };
    Ok(members.iter().map(member).collect())
}

/// Does it go somewhere that only its nexthop object tells?
pub(super) fn is_unresolved(route: &Route) -> bool {
    route.nexthop_object.is_some() && route.nexthops.is_empty() && route.kind == RouteKind::Unicast
}

/// Gives such routes the nexthops of their objects. One whose object has vanished meanwhile stays without. A group that
/// drops has a single member (`valid_group_nh`).
pub(super) fn resolve(routes: &mut [Route], objects: &[Object]) {
    let find = |id: u32| objects.iter().find(|object| object.id == id);
    for route in routes.iter_mut().filter(|route| is_unresolved(route)) {
        let Some(object) = route.nexthop_object.and_then(find) else { continue };
        if object.blackhole || matches!(object.group[..], [(id, _)] if find(id).is_some_and(|member| member.blackhole))
        {
            route.kind = RouteKind::Blackhole;
            continue;
        }
        route.nexthops = if object.group.is_empty() {
            vec![object.single.clone()]
        } else {
            let member =
                |&(id, weight): &(u32, u16)| find(id).map(|object| Nexthop { weight, ..object.single.clone() });
            object.group.iter().filter_map(member).collect()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fixture;

    fn message(attributes: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 0, 0, 0];
        attributes.iter().for_each(|attribute| bytes.extend_from_slice(attribute));
        bytes
    }

    fn route(object: u32) -> Route {
        Route { nexthops: Vec::new(), nexthop_object: Some(object), ..fixture::route(254, "10.0.0.0/8", 0) }
    }

    #[test]
    fn a_blackhole_and_a_group_of_one_drop() {
        let drops = object(&message(&[&[8, 0, 1, 0, 20, 0, 0, 0], &[4, 0, 4, 0]])).unwrap().unwrap();
        let group = object(&message(&[&[8, 0, 1, 0, 21, 0, 0, 0], &[12, 0, 2, 0, 20, 0, 0, 0, 0, 0, 0, 0]]));
        let mut routes = [route(20), route(21), route(22)];
        resolve(&mut routes, &[drops, group.unwrap().unwrap()]);
        assert_eq!(routes.map(|route| route.kind), [RouteKind::Blackhole, RouteKind::Blackhole, RouteKind::Unicast]);
    }

    #[test]
    fn a_group_is_resolved_to_its_members() {
        let one =
            object(&message(&[&[8, 0, 1, 0, 7, 0, 0, 0], &[8, 0, 5, 0, 3, 0, 0, 0], &[8, 0, 6, 0, 192, 0, 2, 1]]));
        let group = object(&message(&[&[8, 0, 1, 0, 9, 0, 0, 0], &[12, 0, 2, 0, 7, 0, 0, 0, 4, 0, 0, 0]]));
        let objects = [one.unwrap().unwrap(), group.unwrap().unwrap()];
        let mut routes = [route(9)];
        resolve(&mut routes, &objects);
        let expected =
            Nexthop { ifindex: Some(3), gateway: Some("192.0.2.1".parse().unwrap()), weight: 5, ..Nexthop::default() };
        assert_eq!(routes[0].nexthops, [expected]);
    }

    #[test]
    fn nonsense_is_refused_without_a_panic() {
        assert!(members(&[1, 2, 3]).is_err());
        let bytes = message(&[&[8, 0, 1, 0, 7, 0, 0, 0]]);
        for length in 0..bytes.len() {
            let _either = object(&bytes[..length]);
        }
    }
}
