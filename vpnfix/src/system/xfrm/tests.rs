//! Messages as the kernel makes them, and broken ones.

use super::decode::association;
use super::*;
use crate::core::model::{Encapsulation, Mark, SaDirection, SaMode};

/// Bytes that stand for a key, and must be found nowhere.
const KEY: [u8; 16] = *b"SECRET-KEY-BYTES";

fn put(bytes: &mut [u8], start: usize, value: &[u8]) {
    bytes[start..start + value.len()].copy_from_slice(value);
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("a short attribute");
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An outbound IPv4 tunnel SA with if_id 7, NAT traversal and a key.
fn message() -> Vec<u8> {
    let mut bytes = vec![0; 224];
    put(&mut bytes, 56, &[203, 0, 113, 10]);
    put(&mut bytes, 72, &0xc0de_cafe_u32.to_be_bytes());
    bytes[76] = 50;
    put(&mut bytes, 80, &[192, 168, 12, 49]);
    for limit in [96, 104, 112, 120] {
        put(&mut bytes, limit, &u64::MAX.to_ne_bytes());
    }
    put(&mut bytes, 136, &3600_u64.to_ne_bytes());
    put(&mut bytes, 160, &4200_u64.to_ne_bytes());
    put(&mut bytes, 168, &42_u64.to_ne_bytes());
    put(&mut bytes, 176, &1_700_000_000_u64.to_ne_bytes());
    put(&mut bytes, 196, &3_u32.to_ne_bytes());
    put(&mut bytes, 208, &9_u32.to_ne_bytes());
    put(&mut bytes, 212, &2_u16.to_ne_bytes());
    bytes[214] = 1;
    bytes[215] = 32;
    let mut algorithm = vec![0; 68];
    algorithm.extend_from_slice(&KEY);
    bytes.extend(attribute(2, &algorithm));
    bytes.extend(attribute(
        4,
        &[&2_u16.to_ne_bytes(), &4500_u16.to_be_bytes(), &4501_u16.to_be_bytes(), &[0; 18][..]].concat(),
    ));
    bytes.extend(attribute(10, &[17_u32.to_ne_bytes(), 16_u32.to_ne_bytes(), [0; 4]].concat()));
    bytes.extend(attribute(21, &[5_u32.to_ne_bytes(), u32::MAX.to_ne_bytes()].concat()));
    bytes.extend(attribute(31, &7_u32.to_ne_bytes()));
    bytes.extend(attribute(33, &[2]));
    bytes
}

#[test]
fn an_association_is_read_without_its_key() {
    let found = association(&message()).flatten().expect("an association");
    assert_eq!(found.source.to_string(), "192.168.12.49");
    assert_eq!(found.destination.to_string(), "203.0.113.10");
    assert_eq!((found.spi, found.protocol, found.reqid, found.if_id), (0xc0de_cafe, 50, 9, 7));
    assert_eq!((found.mode, found.direction), (SaMode::Tunnel, Some(SaDirection::Out)));
    assert_eq!(found.mark, Some(Mark { value: 5, mask: u32::MAX }));
    let nat = Encapsulation { kind: 2, source_port: 4500, destination_port: 4501 };
    assert_eq!(found.encapsulation, Some(nat));
    assert_eq!((found.usage.bytes, found.usage.packets, found.usage.replayed), (4200, 42, 3));
    assert_eq!((found.usage.added, found.usage.first_used), (1_700_000_000, None));
    assert_eq!((found.hard_limits.bytes, found.hard_limits.seconds_after_adding), (None, Some(3600)));
    assert_eq!(found.soft_limits.seconds_after_adding, None);
    assert_eq!((found.replay.window, found.replay.sent, found.replay.received), (32, 17, 16));
    assert!(!format!("{found:?}").contains("SECRET"));
}

#[test]
fn extended_sequence_numbers_have_64_bits() {
    let mut bytes = message();
    let words: Vec<u8> = [4_u32, 1, 2, 3, 4, 128].iter().flat_map(|word| word.to_ne_bytes()).collect();
    bytes.extend(attribute(23, &words));
    let replay = association(&bytes).flatten().expect("an association").replay;
    assert_eq!((replay.window, replay.sent, replay.received), (128, (3 << 32) + 1, (4 << 32) + 2));
}

#[test]
fn a_message_that_is_cut_anywhere_is_no_panic() {
    let whole = message();
    for length in 0..whole.len() {
        let cut = association(&whole[..length]);
        assert!(length >= 224 || cut.is_none(), "{length}");
    }
}

#[test]
fn a_refusal_is_told_by_its_errno() {
    let mut datagram = vec![0; 20];
    put(&mut datagram, 0, &20_u32.to_ne_bytes());
    put(&mut datagram, 4, &NLMSG_ERROR.to_ne_bytes());
    put(&mut datagram, 8, &1_u32.to_ne_bytes());
    put(&mut datagram, 16, &(-1_i32).to_ne_bytes());
    let error = Dump::of(&ASSOCIATIONS).take_datagram(&datagram, 1).expect_err("it is refused");
    assert!(error.is_privilege(), "{error:?}");
}

#[test]
fn garbage_ends_the_dump_without_telling_its_content() {
    for garbage in [KEY.as_slice(), &[0; 16], &[255; 40]] {
        let error = Dump::of(&ASSOCIATIONS).take_datagram(garbage, 1).expect_err("it makes no sense");
        assert!(matches!(error, XfrmError::Malformed) && !format!("{error:?}").contains("SECRET"), "{error:?}");
    }
}
