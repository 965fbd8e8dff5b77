//! One association from the kernel's form. The offsets are those of `struct xfrm_usersa_info` (`include/uapi/linux/xfrm.h`),
//! which has the same layout on all 64-bit machines.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::NlasIterator;

use crate::core::model::{
    Encapsulation, Family, Mark, SaDirection, SaLimits, SaMode, SaReplay, SaUsage, SecurityAssociation,
};

const DESTINATION: usize = 56;
const SPI: usize = 72;
const PROTOCOL: usize = 76;
const SOURCE: usize = 80;
const SOFT_LIMITS: usize = 96;
const HARD_LIMITS: usize = 104;
const USAGE: usize = 160;
const STATISTICS: usize = 192;
const REQID: usize = 208;
const FAMILY: usize = 212;
const MODE: usize = 214;
const REPLAY_WINDOW: usize = 215;
/// Size of the structure.
const HEAD: usize = 224;

const XFRMA_ENCAP: u16 = 4;
const XFRMA_REPLAY_VAL: u16 = 10;
pub(super) const XFRMA_MARK: u16 = 21;
const XFRMA_REPLAY_ESN_VAL: u16 = 23;
pub(super) const XFRMA_IF_ID: u16 = 31;
const XFRMA_SA_DIR: u16 = 33;
pub(super) const AF_INET: u16 = 2;
pub(super) const AF_INET6: u16 = 10;
/// No limit (`XFRM_INF`).
const NO_LIMIT: u64 = u64::MAX;

/// One association; inner `None` for families that vpnfix has nothing to do with, outer `None` for a message that makes no
/// sense.
pub(super) fn association(payload: &[u8]) -> Option<Option<SecurityAssociation>> {
    let attributes = payload.get(HEAD..)?;
    let family = match u16_at(payload, FAMILY)? {
        AF_INET => Family::V4,
        AF_INET6 => Family::V6,
        _ => return Some(None),
    };
    let mut found = SecurityAssociation {
        family,
        source: address(payload, SOURCE, family)?,
        destination: address(payload, DESTINATION, family)?,
        spi: u32::from_be(u32_at(payload, SPI)?),
        protocol: *payload.get(PROTOCOL)?,
        reqid: u32_at(payload, REQID)?,
        mode: match *payload.get(MODE)? {
            0 => SaMode::Transport,
            1 => SaMode::Tunnel,
            4 => SaMode::Beet,
            other => SaMode::Other(other),
        },
        mark: None,
        if_id: 0,
        direction: None,
        encapsulation: None,
        usage: usage(payload)?,
        soft_limits: limits(payload, SOFT_LIMITS)?,
        hard_limits: limits(payload, HARD_LIMITS)?,
        replay: SaReplay { window: (*payload.get(REPLAY_WINDOW)?).into(), ..SaReplay::default() },
    };
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute.ok()?;
        // The algorithms with their keys are among those that are stepped over.
        if matches!(
            attribute.kind(),
            XFRMA_ENCAP | XFRMA_REPLAY_VAL | XFRMA_MARK | XFRMA_REPLAY_ESN_VAL | XFRMA_IF_ID | XFRMA_SA_DIR
        ) {
            set(&mut found, attribute.kind(), attribute.value())?;
        }
    }
    Some(Some(found))
}

fn set(found: &mut SecurityAssociation, kind: u16, value: &[u8]) -> Option<()> {
    match kind {
        XFRMA_ENCAP => {
            found.encapsulation = Some(Encapsulation {
                kind: u16_at(value, 0)?,
                source_port: u16::from_be(u16_at(value, 2)?),
                destination_port: u16::from_be(u16_at(value, 4)?),
            });
        }
        // Of both the kernel sends the one that it goes by.
        XFRMA_REPLAY_VAL => {
            found.replay.sent = u32_at(value, 0)?.into();
            found.replay.received = u32_at(value, 4)?.into();
        }
        XFRMA_REPLAY_ESN_VAL => {
            let number =
                |low: usize, high: usize| Some(u64::from(u32_at(value, high)?) << 32 | u64::from(u32_at(value, low)?));
            found.replay = SaReplay { window: u32_at(value, 20)?, sent: number(4, 12)?, received: number(8, 16)? };
        }
        XFRMA_MARK => {
            let mark = Mark { value: u32_at(value, 0)?, mask: u32_at(value, 4)? };
            found.mark = Some(mark).filter(|mark| mark.mask != 0);
        }
        XFRMA_IF_ID => found.if_id = u32_at(value, 0)?,
        XFRMA_SA_DIR => {
            found.direction = match value.first()? {
                1 => Some(SaDirection::In),
                2 => Some(SaDirection::Out),
                _ => None,
            };
        }
        _ => {}
    }
    Some(())
}

fn usage(payload: &[u8]) -> Option<SaUsage> {
    Some(SaUsage {
        bytes: u64_at(payload, USAGE)?,
        packets: u64_at(payload, USAGE + 8)?,
        added: u64_at(payload, USAGE + 16)?,
        first_used: Some(u64_at(payload, USAGE + 24)?).filter(|time| *time != 0),
        outside_window: u32_at(payload, STATISTICS)?,
        replayed: u32_at(payload, STATISTICS + 4)?,
        failed_integrity: u32_at(payload, STATISTICS + 8)?,
    })
}

/// Soft and hard limits stand in turns. In seconds 0 means none, in bytes and packets [`NO_LIMIT`] does.
fn limits(payload: &[u8], start: usize) -> Option<SaLimits> {
    let limit = |number: usize| {
        let value = u64_at(payload, start + number * 16)?;
        Some(Some(value).filter(|value| *value != NO_LIMIT))
    };
    let seconds = |number: usize| Some(limit(number)?.filter(|value| *value != 0));
    Some(SaLimits {
        bytes: limit(0)?,
        packets: limit(1)?,
        seconds_after_adding: seconds(2)?,
        seconds_after_use: seconds(3)?,
    })
}

pub(super) fn address(payload: &[u8], start: usize, family: Family) -> Option<IpAddr> {
    let bytes = payload.get(start..)?;
    match family {
        Family::V4 => bytes.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets).into()),
        Family::V6 => bytes.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets).into()),
    }
}

pub(super) fn u16_at(bytes: &[u8], start: usize) -> Option<u16> {
    bytes.get(start..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

pub(super) fn u32_at(bytes: &[u8], start: usize) -> Option<u32> {
    bytes.get(start..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn u64_at(bytes: &[u8], start: usize) -> Option<u64> {
    bytes.get(start..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}
