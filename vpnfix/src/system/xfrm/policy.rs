//! One policy from the kernel's form. The offsets are those of `struct xfrm_userpolicy_info` and `struct xfrm_user_tmpl`
//! (`include/uapi/linux/xfrm.h`), which have the same layout on all 64-bit machines.

use ipnet::IpNet;
use netlink_packet_core::NlasIterator;

use super::decode::{AF_INET, AF_INET6, XFRMA_IF_ID, XFRMA_MARK, address, u16_at, u32_at};
use crate::core::model::{Direction, Family, Mark, Policy, SaMode, Template};

const DESTINATION: usize = 0;
const SOURCE: usize = 16;
const DESTINATION_PORT_MASK: usize = 34;
const SOURCE_PORT_MASK: usize = 38;
const FAMILY: usize = 40;
const DESTINATION_LENGTH: usize = 42;
const SOURCE_LENGTH: usize = 43;
const IP_PROTOCOL: usize = 44;
const PRIORITY: usize = 152;
const DIRECTION: usize = 160;
const ACTION: usize = 161;
/// Size of the structure.
const HEAD: usize = 168;

const XFRMA_TMPL: u16 = 5;
/// Size of one template, and the places in it.
const TEMPLATE: usize = 64;
const TEMPLATE_PROTOCOL: usize = 20;
const TEMPLATE_FAMILY: usize = 24;
const TEMPLATE_SOURCE: usize = 28;
const TEMPLATE_REQID: usize = 44;
const TEMPLATE_MODE: usize = 48;

/// `XFRM_POLICY_BLOCK`.
const BLOCK: u8 = 1;

/// One policy; inner `None` for those of sockets and of families that vpnfix has nothing to do with, outer `None` for a
/// message that makes no sense.
pub(super) fn policy(payload: &[u8]) -> Option<Option<Policy>> {
    let attributes = payload.get(HEAD..)?;
    let direction = match *payload.get(DIRECTION)? {
        0 => Direction::In,
        1 => Direction::Out,
        2 => Direction::Forward,
        _ => return Some(None),
    };
    let Some(family) = family(u16_at(payload, FAMILY)?) else { return Some(None) };
    let prefix = |start, length: usize| IpNet::new(address(payload, start, family)?, *payload.get(length)?).ok();
    let mut found = Policy {
        direction,
        source: prefix(SOURCE, SOURCE_LENGTH)?,
        destination: prefix(DESTINATION, DESTINATION_LENGTH)?,
        ip_protocol: *payload.get(IP_PROTOCOL)?,
        has_ports: u16_at(payload, DESTINATION_PORT_MASK)? != 0 || u16_at(payload, SOURCE_PORT_MASK)? != 0,
        priority: u32_at(payload, PRIORITY)?,
        mark: None,
        if_id: 0,
        blocks: *payload.get(ACTION)? == BLOCK,
        templates: Vec::new(),
    };
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute.ok()?;
        let value = attribute.value();
        match attribute.kind() {
            XFRMA_TMPL => found.templates = value.chunks_exact(TEMPLATE).map(template).collect::<Option<_>>()?,
            XFRMA_MARK => {
                let mark = Mark { value: u32_at(value, 0)?, mask: u32_at(value, 4)? };
                found.mark = Some(mark).filter(|mark| mark.mask != 0);
            }
            XFRMA_IF_ID => found.if_id = u32_at(value, 0)?,
            _ => {}
        }
    }
    Some(Some(found))
}

fn family(number: u16) -> Option<Family> {
    match number {
        AF_INET => Some(Family::V4),
        AF_INET6 => Some(Family::V6),
        _ => None,
    }
}

fn template(bytes: &[u8]) -> Option<Template> {
    let family = family(u16_at(bytes, TEMPLATE_FAMILY)?)?;
    Some(Template {
        source: address(bytes, TEMPLATE_SOURCE, family)?,
        destination: address(bytes, DESTINATION, family)?,
        protocol: *bytes.get(TEMPLATE_PROTOCOL)?,
        mode: match *bytes.get(TEMPLATE_MODE)? {
            0 => SaMode::Transport,
            1 => SaMode::Tunnel,
            4 => SaMode::Beet,
            other => SaMode::Other(other),
        },
        reqid: u32_at(bytes, TEMPLATE_REQID)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(bytes: &mut [u8], start: usize, value: &[u8]) {
        bytes[start..start + value.len()].copy_from_slice(value);
    }

    /// The outbound policy of the incident's first tunnel: 0.0.0.0/0 to 0.0.0.0/0, mark 1.
    fn message() -> Vec<u8> {
        let mut bytes = vec![0; HEAD];
        put(&mut bytes, FAMILY, &AF_INET.to_ne_bytes());
        put(&mut bytes, PRIORITY, &399_999_u32.to_ne_bytes());
        bytes[DIRECTION] = 1;
        let mut template = vec![0; TEMPLATE];
        put(&mut template, 0, &[203, 0, 113, 10]);
        template[TEMPLATE_PROTOCOL] = 50;
        put(&mut template, TEMPLATE_FAMILY, &AF_INET.to_ne_bytes());
        put(&mut template, TEMPLATE_SOURCE, &[192, 168, 12, 49]);
        put(&mut template, TEMPLATE_REQID, &2_u32.to_ne_bytes());
        template[TEMPLATE_MODE] = 1;
        let mut attribute = |kind: u16, value: &[u8]| {
            bytes.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
        };
        attribute(XFRMA_TMPL, &template);
        attribute(XFRMA_MARK, &[1_u32.to_ne_bytes(), u32::MAX.to_ne_bytes()].concat());
        bytes
    }

    #[test]
    fn a_policy_is_read_with_its_template() {
        let found = policy(&message()).flatten().expect("a policy");
        assert_eq!((found.direction, found.priority, found.blocks), (Direction::Out, 399_999, false));
        assert_eq!((found.source.to_string(), found.destination.to_string()), ("0.0.0.0/0".into(), "0.0.0.0/0".into()));
        assert_eq!((found.mark, found.if_id), (Some(Mark { value: 1, mask: u32::MAX }), 0));
        let template = found.templates[0];
        assert_eq!(
            (template.source.to_string(), template.destination.to_string()),
            ("192.168.12.49".into(), "203.0.113.10".into())
        );
        assert_eq!((template.protocol, template.reqid, template.mode), (50, 2, SaMode::Tunnel));
    }

    #[test]
    fn policies_of_sockets_are_passed_over() {
        let mut bytes = message();
        bytes[DIRECTION] = 3;
        assert_eq!(policy(&bytes), Some(None));
    }

    #[test]
    fn a_message_that_is_cut_anywhere_is_no_panic() {
        let whole = message();
        for length in 0..whole.len() {
            let cut = policy(&whole[..length]);
            assert!(length >= HEAD || cut.is_none(), "{length}");
        }
    }
}
