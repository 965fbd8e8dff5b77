use std::ops::ControlFlow;

use super::*;
use crate::core::fixture::{ENS5, VTI1, association, gateway};
use crate::core::live::{Others, Watch};
use crate::core::model::{Netns, Route, Snapshot};
use crate::core::observation::{FlowKey, Tally, Totals};
use crate::core::report::trace::TraceLine;
use crate::core::story::WallClock;
use crate::core::telling::{Basis, Part, Step, Telling};

const NETNS: u32 = 7;
const SECOND: u64 = 1_000_000_000;

fn basis() -> Basis {
    let mut others = Others::default();
    others.names.insert(9, "lan".into());
    others.devices.insert((9, 2), "eth0".into());
    let mut basis = Basis {
        snapshot: Snapshot { netns: Netns { name: None, inode: NETNS.into() }, ..gateway() },
        associations: Ok(vec![association(1, "192.168.12.49", "203.0.113.10")]),
        watches: vec![Watch { prefix: "169.254.55.52/30".parse().unwrap(), tunnels: vec![VTI1] }],
        others,
        ..Basis::default()
    };
    basis.clues.table_names.insert(220, "strongswan".into());
    basis.clues.protocol_names.insert(118, "vpnfix".into());
    basis
}

fn head() -> Head {
    let setup = Setup {
        vpnfix: "1.2.3".into(),
        began_ns: SECOND,
        clock: WallClock { offset_ns: 1_700_000_000 * SECOND.cast_signed() },
        knows_outcomes: true,
        reasons: vec![(2, "NOT_SPECIFIED".into())],
        ..Setup::default()
    };
    let own = Own { process: 42, query_thread: Some(43) };
    Head { abi: vpnfix_common::ABI_VERSION, byte_order: ByteOrder::NATIVE, own, setup }
}

/// A packet to the peer that was handed to the device, as the kernel side's record.
fn packet(ifindex: u32, time_ns: u64) -> Vec<u8> {
    let address = |octets: [u8; 4]| [octets.as_slice(), &[0; 12]].concat();
    let size = u32::try_from(size_of::<vpnfix_common::PacketEvent>()).unwrap();
    [
        vpnfix_common::ABI_VERSION.to_ne_bytes().as_slice(),
        &vpnfix_common::event_kind::PACKET.to_ne_bytes(),
        &size.to_ne_bytes(),
        &time_ns.to_ne_bytes(),
        &NETNS.to_ne_bytes(),
        &0_u32.to_ne_bytes(),
        &ifindex.to_ne_bytes(),
        &[0, 4, 0, 0],
        &address([169, 254, 55, 54]),
        &address([169, 254, 55, 53]),
        &9_u16.to_ne_bytes(),
        &9_u16.to_ne_bytes(),
        &[17, 4, 0, 0],
        &60_u32.to_ne_bytes(),
        &0_u32.to_ne_bytes(),
        &[1, 0, 0, 0, 0, 0, 0, 0],
        &1_u32.to_ne_bytes(),
        &1_u32.to_ne_bytes(),
        b"ping\0\0\0\0\0\0\0\0\0\0\0\0",
    ]
    .concat()
}

fn key(ifindex: u32) -> crate::core::observation::PacketKey {
    let marks = crate::core::observation::FlowMarks::default();
    crate::core::observation::PacketKey { netns: NETNS, watch: 0, ifindex, marks }
}

fn end() -> End {
    let tally = Tally { count: 3, bytes: 180, first_ns: 2 * SECOND, last_ns: 3 * SECOND };
    let totals = Totals { packets: vec![(key(ENS5), tally)], ..Totals::default() };
    // A number of seconds that JSON's decimal form would not give back.
    End { now_ns: 4 * SECOND, ran_ns: 2_345_678_901, totals, command: None }
}

/// What happens in it: a wrong packet, a record that makes no sense, the tunnel is gone, a packet again.
fn steps() -> Vec<Result<Step, Vec<u8>>> {
    let without = Basis { associations: Err("not permitted".into()), ..basis() };
    vec![
        Ok(Step::Basis(Basis::default().changes(basis()))),
        Ok(Step::Names(vec![(0xffff_ffff_8100_0000, "ip_output".into())])),
        Err(packet(ENS5, 2 * SECOND)),
        Err(vec![1, 2, 3]),
        Ok(Step::Stories { settled_ns: 3 * SECOND, now_ns: 3 * SECOND }),
        Ok(Step::Basis(basis().changes(without))),
        Err(packet(VTI1, 3 * SECOND)),
    ]
}

fn recorded(limit: u64) -> (Vec<u8>, LeftOut) {
    let mut encoder = Encoder::new(&head(), limit);
    for step in steps() {
        match step {
            Ok(step) => encoder.step(&step).unwrap(),
            Err(record) => encoder.record(&record),
        }
    }
    encoder.end(&end()).unwrap();
    (encoder.take(), encoder.left_out())
}

fn played(bytes: &[u8]) -> (Vec<TraceLine>, Result<Option<Replayed>, Unplayed>) {
    let mut lines = Vec::new();
    let outcome = replay(bytes, &mut |line| {
        lines.push(line.clone());
        ControlFlow::Continue(())
    });
    (lines, outcome)
}

#[test]
fn a_replay_tells_what_the_trace_told() {
    let mut lines = Vec::new();
    let mut telling = Telling::new(head().setup, basis());
    lines.push(TraceLine::Start(telling.start()));
    for step in steps().into_iter().skip(1) {
        let step = match step {
            Ok(step) => step,
            Err(record) => match crate::core::decode::observation(&record) {
                Ok(observation) => Step::Seen(observation),
                Err(_) => continue,
            },
        };
        lines.extend(telling.take(step));
    }
    lines.push(TraceLine::Summary(telling.summary(&end())));
    let (bytes, left_out) = recorded(DEFAULT_LIMIT);
    assert!(!left_out.is_any());
    let (told, outcome) = played(&bytes);
    assert_eq!(told, lines);
    let kinds = |line: &TraceLine| matches!(line, TraceLine::Verdict(_) | TraceLine::Egress(_));
    assert_eq!(told.iter().filter(|line| kinds(line)).count(), 4, "two packets, two verdicts: {told:#?}");
    assert_eq!(outcome.unwrap().unwrap().summary.seconds, 2.345_678_901);
}

#[test]
fn the_basis_comes_back_as_it_was() {
    let (bytes, _) = recorded(DEFAULT_LIMIT);
    let mut reader = Reader::new(&bytes).unwrap();
    assert_eq!(*reader.head(), head());
    let Entry::Step(Step::Basis(parts)) = reader.next_entry().unwrap() else { panic!("no basis") };
    let mut read = Basis::default();
    read.apply(parts);
    assert_eq!(read, basis());
}

#[test]
fn cut_anywhere_it_is_told_up_to_there_and_said() {
    let (bytes, _) = recorded(DEFAULT_LIMIT);
    let mut most = 0;
    for length in (0..bytes.len()).step_by(5) {
        let (lines, outcome) = played(&bytes[..length]);
        let unplayed = outcome.unwrap_err();
        let is_cut = matches!(unplayed.error, RecordingError::CutShort { .. });
        assert!(is_cut || length == 0, "{length}: {unplayed}");
        most = most.max(unplayed.records);
        assert_eq!(unplayed.until.is_some(), unplayed.records > 0);
        assert!(lines.iter().all(|line| !matches!(line, TraceLine::Summary(_))));
    }
    assert_eq!(most, 2);
}

#[test]
fn a_changed_byte_is_found() {
    let (bytes, _) = recorded(DEFAULT_LIMIT);
    let (whole, _) = played(&bytes);
    for at in (0..bytes.len()).step_by(3) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        let (lines, outcome) = played(&changed);
        // The two bytes behind the format are not used yet.
        if (10..12).contains(&at) {
            continue;
        }
        assert!(outcome.is_err(), "byte {at}");
        assert!(whole.starts_with(&lines), "byte {at}: told otherwise");
    }
}

#[test]
fn what_is_no_recording_is_said() {
    let error = |bytes: &[u8]| played(bytes).1.unwrap_err().to_string();
    assert_eq!(error(b"#!/bin/sh\n"), "it is no recording of vpnfix");
    assert!(error(b"{\"type\":\"start\"}").contains("the lines of a trace"));
    let (bytes, _) = recorded(DEFAULT_LIMIT);
    let mut newer = bytes.clone();
    newer[8] = 2;
    assert!(error(&newer).contains("its format is 2, and this version of vpnfix reads up to 1"));
    let other = |head: &Head| {
        let mut encoder = Encoder::new(head, DEFAULT_LIMIT);
        error(&encoder.take())
    };
    assert!(other(&Head { abi: 999, ..head() }).contains("of ABI version 999"));
    let foreign = if ByteOrder::NATIVE == ByteOrder::Little { ByteOrder::Big } else { ByteOrder::Little };
    assert!(other(&Head { byte_order: foreign, ..head() }).contains("another byte order"));
}

#[test]
fn beyond_the_limit_is_counted_and_the_summary_still_told() {
    let (bytes, _) = recorded(DEFAULT_LIMIT);
    let mut encoder = Encoder::new(&head(), bytes.len() as u64 + 1000);
    encoder.step(&Step::Basis(Basis::default().changes(basis()))).unwrap();
    for number in 0..1000 {
        encoder.record(&packet(ENS5, number));
    }
    // Once something was left out, all is: it would be judged by what is not there.
    encoder.step(&Step::Basis(vec![Part::Rules(Vec::new())])).unwrap();
    encoder.end(&end()).unwrap();
    let (left_out, bytes) = (encoder.left_out(), encoder.take());
    assert!(left_out.records > 0 && left_out.records < 1000 && left_out.bases == 1, "{left_out:?}");
    let (lines, outcome) = played(&bytes);
    assert_eq!(outcome.unwrap().unwrap().left_out, left_out);
    assert!(matches!(lines.last(), Some(TraceLine::Summary(_))));
}

#[test]
fn a_limit_below_the_host_is_an_error() {
    let mut encoder = Encoder::new(&head(), 100);
    let first = Step::Basis(Basis::default().changes(basis()));
    assert_eq!(encoder.step(&first), Err(Unrecorded::LimitTooSmall { limit: 100 }));
}

#[test]
fn many_routes_come_in_several_frames() {
    let route = basis().snapshot.routes.remove(0);
    let routes: Vec<Route> = (0..20_000).map(|metric| Route { metric, ..route.clone() }).collect();
    let mut encoder = Encoder::new(&head(), DEFAULT_LIMIT);
    encoder.step(&Step::Basis(vec![Part::Routes(routes.clone())])).unwrap();
    let bytes = encoder.take();
    let entry = Reader::new(&bytes).unwrap().next_entry().unwrap();
    assert_eq!(entry, Entry::Step(Step::Basis(vec![Part::Routes(routes)])));
}

#[test]
fn counts_that_no_kernel_makes_are_damage() {
    let with = |change: &dyn Fn(&mut Totals)| {
        let mut end = end();
        change(&mut end.totals);
        let mut encoder = Encoder::new(&head(), DEFAULT_LIMIT);
        encoder.step(&Step::Basis(Basis::default().changes(basis()))).unwrap();
        encoder.end(&end).unwrap();
        played(&encoder.take()).1
    };
    assert!(with(&|_| ()).is_ok());
    assert!(with(&|totals| totals.packets[0].1.count = u64::MAX).is_err());
    assert!(with(&|totals| totals.losses.events_lost = u64::MAX).is_err());
    assert!(with(&|totals| totals.packets = vec![(key(ENS5), Tally::default()); 5000]).is_err());
    let flows: Vec<(FlowKey, Tally)> = Vec::new();
    assert!(with(&|totals| totals.flows.clone_from(&flows)).is_ok());
}

#[test]
fn a_frame_that_unpacks_to_more_than_it_says_is_damage() {
    let mut encoder = Encoder::new(&head(), DEFAULT_LIMIT);
    let mut bytes = encoder.take();
    let mut frame = frame::frame(frame::Kind::Names, &[b' '; 100_000]);
    assert!(frame.len() < 1000, "it is packed");
    frame[8..12].copy_from_slice(&50_000_u32.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[..12]);
    hasher.update(&frame[16..]);
    let checksum = hasher.finalize();
    frame[12..16].copy_from_slice(&checksum.to_le_bytes());
    bytes.extend(frame);
    let error = Reader::new(&bytes).unwrap().next_entry().unwrap_err();
    assert!(error.to_string().contains("another size"), "{error}");
}
