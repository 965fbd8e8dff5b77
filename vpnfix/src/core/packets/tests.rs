use super::*;
use crate::core::fixture::{ENS5, VTI1, gateway};
use crate::core::live::Watch;
use crate::core::model::{Netns, Snapshot};
use crate::core::observation::{FlowMarks, PacketKey, Tally};
use crate::core::telling::{Basis, Setup};

const NETNS: u32 = 7;
const PAYLOAD: &[u8] = b"secret payload";

fn telling() -> Telling {
    let basis = Basis {
        snapshot: Snapshot { netns: Netns { name: None, inode: NETNS.into() }, ..gateway() },
        watches: vec![Watch { prefix: "169.254.55.52/30".parse().unwrap(), tunnels: vec![VTI1] }],
        ..Basis::default()
    };
    Telling::new(Setup::default(), basis)
}

fn key(ifindex: u32) -> PacketKey {
    PacketKey { netns: NETNS, watch: 0, ifindex, marks: FlowMarks::default() }
}

fn seen(ifindex: u32, link: &[u8], network: &[u8]) -> HeadersSeen {
    let bytes = [link, network].concat();
    HeadersSeen { time_ns: 5, key: key(ifindex), length: 1400, link_length: link.len(), bytes }
}

/// IPv4 without options, then a transport header.
fn ipv4(protocol: u8, transport: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0, 5, 0x78, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 169, 254, 55, 53];
    header.extend_from_slice(transport);
    header
}

/// TCP with these options, which must fill words.
fn tcp(options: &[u8]) -> Vec<u8> {
    let words = u8::try_from(5 + options.len() / 4).unwrap();
    let mut header = vec![0, 179, 0xc0, 1, 0, 0, 0, 1, 0, 0, 0, 2, words << 4, 2, 0xff, 0xff, 0, 0, 0, 0];
    header.extend_from_slice(options);
    header
}

fn kept(link: &[u8], network: &[u8]) -> Vec<u8> {
    let mut packets = Packets::new(HostFacts::default());
    packets.take(&seen(ENS5, link, network), &mut telling());
    packets.packets.remove(0).bytes
}

#[test]
fn no_payload_is_kept() {
    let udp = [0, 9, 0, 9, 0, 22, 0, 0];
    for (protocol, transport) in
        [(17, udp.to_vec()), (1, vec![8, 0, 0, 0, 1, 2, 0, 1]), (6, tcp(&[])), (50, vec![1; 8])]
    {
        let headers = ipv4(protocol, &transport);
        assert_eq!(kept(&[], &[headers.as_slice(), PAYLOAD].concat()), headers, "protocol {protocol}");
    }
    // A later fragment begins with payload, and what is not known may.
    for (protocol, offset) in [(17, 0x05), (253, 0)] {
        let mut packet = ipv4(protocol, PAYLOAD);
        packet[7] = offset;
        assert_eq!(kept(&[], &packet).len(), 20, "protocol {protocol}");
    }
}

#[test]
fn extension_headers_of_ipv6_are_walked() {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, 60, 64];
    packet.extend([0xfd; 32]);
    // Destination options of 16 bytes, then UDP.
    packet.extend([17, 1]);
    packet.extend([0; 14]);
    packet.extend([0, 9, 0, 9, 0, 22, 0, 0]);
    let headers = packet.clone();
    packet.extend(PAYLOAD);
    assert_eq!(kept(&[], &packet), headers);
    // A chain without an end is none.
    let mut endless = vec![0x60, 0, 0, 0, 0, 0, 0, 64];
    endless.extend([0; 80]);
    assert!(kept(&[], &endless).len() <= 88);
}

#[test]
fn digests_of_tcp_are_forgotten() {
    // Two no-operations, an MD5 signature, a window scale with its no-operation.
    let mut options = vec![1, 1, 19, 18];
    options.extend([0xaa; 16]);
    options.extend([3, 3, 7, 1]);
    let told = kept(&[], &[ipv4(6, &tcp(&options)), PAYLOAD.to_vec()].concat());
    assert_eq!(told.len(), 20 + 20 + 24);
    assert!(!told.contains(&0xaa), "{told:x?}");
    assert_eq!(&told[60..], [3, 3, 7, 1]);
    // Cut off in the midst of it, too.
    let whole = ipv4(6, &tcp(&options));
    let told = kept(&[], &whole[..50]);
    assert!(!told.contains(&0xaa) && told.len() == 50, "{told:x?}");
}

#[test]
fn ethernet_is_kept_and_other_links_are_not() {
    let packet = ipv4(17, &[0; 8]);
    assert_eq!(kept(&[1; 14], &packet).len(), 14 + 28);
    assert_eq!(kept(&[1; 20], &packet), packet);
    // Nothing, or nonsense, is kept as far as it goes.
    for bytes in [&[][..], &[0x45], &[0xff; 128]] {
        assert!(kept(&[], bytes).len() <= bytes.len());
    }
}

#[test]
fn the_first_ones_are_kept_and_the_others_counted() {
    let (mut packets, mut telling) = (Packets::new(HostFacts::default()), telling());
    let packet = ipv4(17, &[0; 8]);
    for _ in 0..WRONG_MAX + 5 {
        packets.take(&seen(ENS5, &[1; 14], &packet), &mut telling);
        packets.take(&seen(VTI1, &[], &packet), &mut telling);
    }
    // Another namespace's, and one that is bound to its device.
    let bound = FlowMarks { bound: true, ..FlowMarks::default() };
    for key in [PacketKey { netns: 8, ..key(ENS5) }, PacketKey { marks: bound, ..key(ENS5) }] {
        packets.take(&HeadersSeen { key, ..seen(ENS5, &[1; 14], &packet) }, &mut telling);
    }
    let tally = Tally { count: WRONG_MAX + 5, ..Tally::default() };
    let totals = Totals { packets: vec![(key(ENS5), tally), (key(VTI1), tally)], ..Totals::default() };
    packets.finish(&totals, 3, &telling);
    let told: Vec<_> = packets.devices.iter().map(|d| (d.name.as_str(), d.link_type, d.wrong, d.right)).collect();
    let (all, none) = (WRONG_MAX + 5, Share::default());
    let of = |kept| Share { counted: all, kept };
    let expected = [("ens5", LinkType::Ethernet, of(WRONG_MAX), none), ("vti1", LinkType::Raw, none, of(RIGHT_MAX))];
    assert_eq!(told, expected);
    assert_eq!((packets.devices[0].wrong.left_out(), packets.lost), (5, 3));
    let first = packets.packets.first().unwrap();
    assert_eq!(first.comment, "misrouted: 169.254.55.52/30 belongs into vti1, handed to ens5");
    assert_eq!((first.length, first.bytes.len()), (1414, 42));
}
