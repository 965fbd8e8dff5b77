use super::*;

/// A lookup's record, as the kernel side would write it.
fn lookup_record() -> Vec<u8> {
    let mut record = Vec::new();
    record.extend(ABI_VERSION.to_ne_bytes());
    record.extend(event_kind::LOOKUP.to_ne_bytes());
    record.extend((size_of::<vpnfix_common::LookupEvent>() as u32).to_ne_bytes());
    record.extend(77u64.to_ne_bytes());
    record.extend(lookup_key_bytes());
    record.extend(flow_bytes());
    for number in [1u32, 0, 5, 1000] {
        record.extend(number.to_ne_bytes());
    }
    record.extend([0xaa; 16]);
    record.extend([0, occasion::CHANGE, 0, 0]);
    for number in [254u32, 2, 0] {
        record.extend(number.to_ne_bytes());
    }
    record.extend(task_bytes());
    record
}

fn lookup_key_bytes() -> Vec<u8> {
    let mut key = Vec::new();
    for number in [4_026_531_833u32, 3, 220, 7, 0] {
        key.extend(number.to_ne_bytes());
    }
    key.extend([hook::FIB_TABLE, lookup_kind::OUTPUT, flag::BGP | flag::CUSTOM_RULES, 255]);
    key
}

fn flow_bytes() -> Vec<u8> {
    let mut flow = vec![0; 16];
    flow.extend([169, 254, 55, 53]);
    flow.extend([0; 12]);
    flow.extend(40000u16.to_ne_bytes());
    flow.extend(179u16.to_ne_bytes());
    flow.extend([6, 4, 0, 0]);
    flow
}

fn task_bytes() -> Vec<u8> {
    let mut task = Vec::new();
    task.extend(10u32.to_ne_bytes());
    task.extend(11u32.to_ne_bytes());
    task.extend(b"bgpd\0stale\xff\0\0\0\0\0");
    task
}

fn packet_record() -> Vec<u8> {
    let mut record = Vec::new();
    record.extend(ABI_VERSION.to_ne_bytes());
    record.extend(event_kind::PACKET.to_ne_bytes());
    record.extend((size_of::<vpnfix_common::PacketEvent>() as u32).to_ne_bytes());
    record.extend(78u64.to_ne_bytes());
    record.extend(packet_key_bytes());
    record.extend(flow_bytes());
    record.extend(60u32.to_ne_bytes());
    record.extend(9u32.to_ne_bytes());
    record.push(occasion::FIRST_SIGHT);
    record.extend([0; 7]);
    record.extend(task_bytes());
    record
}

fn packet_key_bytes() -> Vec<u8> {
    let mut key = Vec::new();
    for number in [4_026_531_833u32, 3, 7] {
        key.extend(number.to_ne_bytes());
    }
    key.extend([flag::PROBE, 4, 0, 0]);
    key
}

fn tcp_record() -> Vec<u8> {
    let mut record = Vec::new();
    record.extend(ABI_VERSION.to_ne_bytes());
    record.extend(event_kind::TCP.to_ne_bytes());
    record.extend((size_of::<vpnfix_common::TcpEvent>() as u32).to_ne_bytes());
    record.extend(79u64.to_ne_bytes());
    record.extend(flow_bytes());
    record.extend(4_026_531_833u32.to_ne_bytes());
    record.extend([2, 1, 0, 0]);
    record.extend(task_bytes());
    record
}

/// A flow's record: a packet that came back was dropped for reason 16.
fn flow_record() -> Vec<u8> {
    let mut record = Vec::new();
    record.extend(ABI_VERSION.to_ne_bytes());
    record.extend(event_kind::FLOW.to_ne_bytes());
    record.extend((size_of::<vpnfix_common::FlowEvent>() as u32).to_ne_bytes());
    record.extend(80u64.to_ne_bytes());
    record.extend(flow_key_bytes(act::ANSWER_DROP, 16));
    for number in [0u32, 0, 0, 0, 84, 16] {
        record.extend(number.to_ne_bytes());
    }
    record.extend(task_bytes());
    for frame in 0..STACK_FRAMES as u64 {
        record.extend((0xffff_ffff_8100_0000 + frame).to_ne_bytes());
    }
    record
}

fn flow_key_bytes(act: u8, detail: i32) -> Vec<u8> {
    let mut key = flow_bytes();
    key.extend(0xffff_ffff_8123_4567u64.to_ne_bytes());
    for number in [4_026_531_833u32, 3, 7, 220] {
        key.extend(number.to_ne_bytes());
    }
    key.extend(detail.to_ne_bytes());
    key.extend([act, hook::FIB_TABLE, lookup_kind::OUTPUT, flag::BGP]);
    key
}

/// The record with one byte replaced.
fn with(mut record: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    record[at] = value;
    record
}

#[test]
fn a_lookup_is_read() {
    let Observation::Lookup(lookup) = observation(&lookup_record()).unwrap() else { panic!("not a lookup") };
    assert_eq!((lookup.time_ns, lookup.key.netns, lookup.key.watch), (77, Some(4_026_531_833), 3));
    assert_eq!((lookup.key.table, lookup.key.ifindex, lookup.key.outcome), (220, Some(7), LookupOutcome::Hit));
    assert_eq!(lookup.key.marks, FlowMarks { bgp: true, bound: false, probe: false });
    assert!(lookup.key.custom_rules);
    assert_eq!((lookup.key.prefix_length, lookup.oif, lookup.uid), (None, None, 1000));
    // The gateway's bytes mean nothing without a family.
    assert_eq!(lookup.gateway, None);
    assert_eq!((lookup.flow.source, lookup.flow.destination_port), (None, 179));
    assert_eq!(lookup.flow.destination, IpAddr::V4(Ipv4Addr::new(169, 254, 55, 53)));
    let previous = PreviousOutcome { table: 254, ifindex: Some(2), outcome: LookupOutcome::Hit };
    assert_eq!((lookup.occasion, lookup.previous), (Occasion::Change, Some(previous)));
    assert_eq!(lookup.task, Task { process: 10, thread: 11, comm: "bgpd".into() });
}

#[test]
fn a_packet_and_a_state_are_read() {
    let Observation::Packet(packet) = observation(&packet_record()).unwrap() else { panic!("not a packet") };
    assert_eq!((packet.length, packet.key.ifindex, packet.key.marks.probe), (60, 7, true));
    assert_eq!((packet.occasion, packet.previous_ifindex), (Occasion::FirstSight, None));
    let Observation::Tcp(tcp) = observation(&tcp_record()).unwrap() else { panic!("not a state") };
    assert_eq!((tcp.old, tcp.new, tcp.netns), (TcpState::SynSent, TcpState::Established, 4_026_531_833));
}

#[test]
fn every_truncation_is_an_error() {
    for record in [lookup_record(), packet_record(), tcp_record(), flow_record()] {
        for length in 0..record.len() {
            let error = observation(&record[..length]).unwrap_err();
            assert!(matches!(error, DecodeError::Truncated { .. }), "{length}: {error}");
        }
    }
}

#[test]
fn hostile_records_are_errors() {
    let longer = [lookup_record(), vec![0]].concat();
    let table: &[(&str, Vec<u8>)] = &[
        ("ABI version", with(lookup_record(), 0, 0xff)),
        ("kind of record", with(lookup_record(), 2, 9)),
        ("size in the header", with(lookup_record(), 4, 1)),
        ("oversize", longer),
        ("outcome", with(lookup_record(), 16 + 19, 0x80)),
        ("positive outcome", with(lookup_record(), 16 + 16, 1)),
        ("hook", with(lookup_record(), 16 + 20, 0)),
        ("kind of lookup", with(lookup_record(), 16 + 21, 77)),
        ("flags", with(lookup_record(), 16 + 22, 0x80)),
        ("prefix length", with(lookup_record(), 16 + 23, 129)),
        ("family", with(lookup_record(), 40 + 37, 5)),
        ("gateway family", with(lookup_record(), 112, 9)),
        ("occasion", with(lookup_record(), 113, 3)),
        ("packet's family", with(packet_record(), 16 + 13, 0)),
        ("packet's occasion", with(packet_record(), 80, 0)),
        ("TCP state", with(tcp_record(), 61, 14)),
        ("act", with(flow_record(), 16 + 68, 9)),
        ("flow's family", with(flow_record(), 16 + 37, 5)),
        ("flow's flags", with(flow_record(), 16 + 71, 0x80)),
    ];
    for (what, record) in table {
        assert!(observation(record).is_err(), "{what}");
    }
    let version = observation(&with(lookup_record(), 0, 0xff)).unwrap_err();
    assert!(matches!(version, DecodeError::Version { .. }), "{version}");
}

#[test]
fn no_single_byte_makes_it_panic() {
    for record in [lookup_record(), packet_record(), tcp_record(), flow_record()] {
        for at in 0..record.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let _ = observation(&with(record.clone(), at, value));
            }
        }
    }
}

#[test]
fn what_happens_to_a_flow_is_read() {
    let Observation::Flow(event) = observation(&flow_record()).unwrap() else { panic!("no flow") };
    let place = DropPlace { incoming: true, reason: Some(16), location: 0xffff_ffff_8123_4567, ifindex: Some(7) };
    assert_eq!((event.key.act, event.key.netns, event.key.watch), (Act::Drop(place), 4_026_531_833, 3));
    assert!(event.key.marks.bgp);
    // Only as many frames as the kernel filled.
    assert_eq!((event.length, event.stack.len()), (84, 2));
    assert_eq!(event.stack[1], 0xffff_ffff_8100_0001);
    let act = |act, detail| flow_key(&flow_key_bytes(act, detail)).map(|key| key.act);
    assert_eq!(act(act::PACKET, 0), Ok(Act::Packet(7)));
    assert_eq!(act(act::ANSWER, 0), Ok(Act::Answer(7)));
    assert_eq!(act(act::RETRANSMIT, 0), Ok(Act::Retransmission));
    assert!(matches!(act(act::DROP, 0), Ok(Act::Drop(DropPlace { incoming: false, reason: None, .. }))));
    assert!(matches!(act(act::LOOKUP, -101), Ok(Act::Lookup { table: 220, outcome: LookupOutcome::Refused(101), .. })));
    assert!(act(act::LOOKUP, 1).is_err());
    for length in 0..flow_key_bytes(act::PACKET, 0).len() {
        assert!(flow_key(&flow_key_bytes(act::PACKET, 0)[..length]).is_err());
    }
}

#[test]
fn a_refusal_and_a_miss_are_told_apart() {
    let key = |error: i32| {
        let mut bytes = lookup_key_bytes();
        bytes[16..20].copy_from_slice(&error.to_ne_bytes());
        lookup_key(&bytes)
    };
    assert_eq!(key(-11).unwrap().outcome, LookupOutcome::Miss);
    assert_eq!(key(-113).unwrap().outcome, LookupOutcome::Refused(113));
    assert!(key(-5000).is_err());
    assert!(key(i32::MIN).is_err());
}

#[test]
fn keys_are_read_and_short_ones_refused() {
    assert_eq!(packet_key(&packet_key_bytes()).unwrap().watch, 3);
    for length in 0..packet_key_bytes().len() {
        assert!(packet_key(&packet_key_bytes()[..length]).is_err());
    }
    for length in 0..lookup_key_bytes().len() {
        assert!(lookup_key(&lookup_key_bytes()[..length]).is_err());
    }
    let mut destination = vec![0xfd; 16];
    destination.extend(5u32.to_ne_bytes());
    destination.extend(6u32.to_ne_bytes());
    destination.extend(event_kind::PACKET.to_ne_bytes());
    destination.extend([6, flag::BOUND]);
    let total = destination_key(&destination).unwrap();
    assert!(total.packets && total.marks.bound && total.address.is_ipv6());
    for (at, value) in [(24, 9), (26, 5), (27, 0xff)] {
        assert!(destination_key(&with(destination.clone(), at, value)).is_err(), "{at}");
    }
    for length in 0..destination.len() {
        assert!(destination_key(&destination[..length]).is_err());
    }
}

/// Headers of a packet of which so many bytes are its own, behind a link's header of that length.
fn headers_record(link_length: u32, linear: u32) -> Vec<u8> {
    let mut record = Vec::new();
    record.extend(ABI_VERSION.to_ne_bytes());
    record.extend(event_kind::HEADERS.to_ne_bytes());
    record.extend((size_of::<vpnfix_common::HeadersEvent>() as u32).to_ne_bytes());
    record.extend(79u64.to_ne_bytes());
    record.extend(packet_key_bytes());
    for number in [1400u32, link_length, linear, 0] {
        record.extend(number.to_ne_bytes());
    }
    record.extend([0xbb; HEADER_BYTES]);
    record
}

#[test]
fn of_a_packets_bytes_only_its_own_are_taken() {
    let seen = headers(&headers_record(14, 42)).unwrap();
    assert_eq!((seen.time_ns, seen.length, seen.link_length, seen.bytes.len()), (79, 1400, 14, 42));
    assert_eq!(headers(&headers_record(14, u32::MAX)).unwrap().bytes.len(), HEADER_BYTES);
    assert!(headers(&headers_record(0, 0)).unwrap().bytes.is_empty());
    // A link's header that is longer than what there is.
    for link_length in [43, u32::MAX] {
        assert!(headers(&headers_record(link_length, 42)).is_err());
    }
    for length in 0..headers_record(14, 42).len() {
        assert!(headers(&headers_record(14, 42)[..length]).is_err());
    }
    // Each ring buffer has its own kinds.
    assert!(observation(&headers_record(14, 42)).is_err());
    assert!(headers(&packet_record()).is_err());
}
