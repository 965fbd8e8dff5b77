//! Decoding of neighbour entries (`RTM_NEWNEIGH`; `include/uapi/linux/neighbour.h`).

use netlink_packet_core::NlasIterator;

use super::attribute::{address, family_of};
use super::channel::{Decoded, Malformed};
use crate::core::model::NeighbourEntry;

pub(super) const RTM_NEWNEIGH: u16 = 28;
pub(super) const RTM_GETNEIGH: u16 = 30;
pub(super) const HEADER_BYTES: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

/// One entry; none of a family that vpnfix has nothing to do with.
pub(super) fn neighbour(payload: &[u8]) -> Decoded<NeighbourEntry> {
    let Some(&[family, _, _, _, a, b, c, d, s, t, _flags, _kind]) = payload.first_chunk::<HEADER_BYTES>() else {
        return Err(Malformed(format!("neighbour message of {} bytes", payload.len())));
    };
    if family_of(family).is_none() {
        return Ok(None);
    }
    let (mut destination, mut hardware) = (None, None);
    for attribute in NlasIterator::new(payload.get(HEADER_BYTES..).unwrap_or_default()) {
        let attribute = attribute?;
        match attribute.kind() {
            NDA_DST => destination = Some(address(attribute.value(), "NDA_DST")?),
            NDA_LLADDR => hardware = Some(hexadecimal(attribute.value())),
            _ => {}
        }
    }
    let ifindex = u32::from_ne_bytes([a, b, c, d]);
    let state = u16::from_ne_bytes([s, t]);
    Ok(destination.map(|address| NeighbourEntry { ifindex, address, hardware, state }))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_address_hardware_and_state() {
        let bytes = [
            2, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 1, // AF_INET, index 5, reachable
            8, 0, 1, 0, 10, 0, 0, 1, // NDA_DST
            10, 0, 2, 0, 2, 0, 0, 9, 0, 1, 0, 0, // NDA_LLADDR and padding
        ];
        let entry = neighbour(&bytes).unwrap().unwrap();
        assert_eq!(entry.hardware.as_deref(), Some("02:00:00:09:00:01"));
        assert_eq!((entry.ifindex, entry.state_name().as_str()), (5, "REACHABLE"));
        for length in 0..bytes.len() {
            let _either = neighbour(&bytes[..length]);
        }
    }
}
