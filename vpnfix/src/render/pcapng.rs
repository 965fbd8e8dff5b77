//! Packets as a pcapng file (draft-ietf-opsawg-pcapng), which Wireshark and tshark open: each device an interface, each packet
//! with a comment that says what is wrong with it. Written by ourselves: four kinds of blocks, and no library of that format
//! had a stable release with options and statistics.

use crate::core::packets::{Device, LinkType, Packet, Packets, Share};

/// Block types.
mod block {
    pub const SECTION: u32 = 0x0a0d_0d0a;
    pub const INTERFACE: u32 = 1;
    pub const STATISTICS: u32 = 5;
    pub const PACKET: u32 = 6;
}

/// Option codes; the meaning of those from 2 on depends on the block.
mod option {
    pub const COMMENT: u16 = 1;
    pub const SECTION_SYSTEM: u16 = 3;
    pub const SECTION_APPLICATION: u16 = 4;
    pub const INTERFACE_NAME: u16 = 2;
    pub const INTERFACE_DESCRIPTION: u16 = 3;
    pub const INTERFACE_RESOLUTION: u16 = 9;
    pub const PACKET_FLAGS: u16 = 2;
    pub const STATISTICS_ACCEPTED: u16 = 6;
    pub const STATISTICS_DELIVERED: u16 = 8;
}

/// What the byte order is known by.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// `LINKTYPE_ETHERNET`.
const ETHERNET: u16 = 1;
/// `LINKTYPE_RAW`: begins with an IPv4 or IPv6 header.
const RAW: u16 = 101;
/// Times are counted in 10 to the minus so many seconds.
const NANOSECONDS: u8 = 9;
/// Direction of a packet: outbound.
const OUTBOUND: u32 = 2;
/// Longest value of an option; longer comments are cut.
const OPTION_MAX: usize = 65_000;

/// The whole file.
#[must_use]
pub fn write(packets: &Packets) -> Vec<u8> {
    let mut file = section(packets);
    for device in &packets.devices {
        file.extend(interface(device));
    }
    for one in &packets.packets {
        file.extend(packet(one));
    }
    let last = packets.packets.last().map_or(0, |packet| packet.unix_ns);
    for (index, device) in packets.devices.iter().enumerate() {
        file.extend(statistics(index, device, last));
    }
    file
}

fn section(packets: &Packets) -> Vec<u8> {
    let mut body = Body::default();
    body.u32(BYTE_ORDER).u16(1).u16(0);
    // The section's length is not told.
    body.u32(u32::MAX).u32(u32::MAX);
    body.text(option::SECTION_SYSTEM, &format!("Linux {}", packets.host.kernel));
    body.text(option::SECTION_APPLICATION, &format!("vpnfix {}", packets.vpnfix));
    body.text(option::COMMENT, &told(packets));
    body.block(block::SECTION)
}

/// What this file is, for somebody who got nothing else.
fn told(packets: &Packets) -> String {
    let mut words = format!(
        "Headers of packets as {} handed them to its devices: those that went the wrong way, and the first that went \
         right. Payloads are cut off.",
        packets.host.hostname
    );
    if packets.lost > 0 {
        words.push_str(&format!(" {} were lost on their way from the kernel.", packets.lost));
    }
    words
}

fn interface(device: &Device) -> Vec<u8> {
    let link_type = match device.link_type {
        LinkType::Ethernet => ETHERNET,
        LinkType::Raw => RAW,
    };
    let mut body = Body::default();
    body.u16(link_type).u16(0).u32(u32::try_from(vpnfix_common::HEADER_BYTES).unwrap_or(0));
    body.text(option::INTERFACE_NAME, &device.name);
    body.text(option::INTERFACE_DESCRIPTION, &device.kind);
    body.option(option::INTERFACE_RESOLUTION, &[NANOSECONDS]);
    body.text(option::COMMENT, &shares(device));
    body.block(block::INTERFACE)
}

fn shares(device: &Device) -> String {
    let share = |what: &str, share: Share| match share.left_out() {
        0 => format!("{} {what}", share.counted),
        _ => format!("{} {what}, the first {} of them here", share.counted, share.kept),
    };
    format!("{}; {}", share("misrouted packets", device.wrong), share("right packets", device.right))
}

fn packet(packet: &Packet) -> Vec<u8> {
    let mut body = Body::default();
    body.u32(u32::try_from(packet.device).unwrap_or(0)).time(packet.unix_ns);
    body.u32(u32::try_from(packet.bytes.len()).unwrap_or(0)).u32(packet.length).bytes(&packet.bytes);
    body.text(option::COMMENT, &packet.comment);
    body.option(option::PACKET_FLAGS, &OUTBOUND.to_le_bytes());
    body.block(block::PACKET)
}

fn statistics(index: usize, device: &Device, unix_ns: u64) -> Vec<u8> {
    let mut body = Body::default();
    body.u32(u32::try_from(index).unwrap_or(0)).time(unix_ns);
    let (counted, kept) = (device.wrong.counted + device.right.counted, device.wrong.kept + device.right.kept);
    body.option(option::STATISTICS_ACCEPTED, &counted.to_le_bytes());
    body.option(option::STATISTICS_DELIVERED, &kept.to_le_bytes());
    body.block(block::STATISTICS)
}

/// The inside of a block, in little-endian order, every part filled up to 32 bits.
#[derive(Default)]
struct Body {
    bytes: Vec<u8>,
    has_options: bool,
}

impl Body {
    fn u16(&mut self, number: u16) -> &mut Self {
        self.bytes.extend(number.to_le_bytes());
        self
    }

    fn u32(&mut self, number: u32) -> &mut Self {
        self.bytes.extend(number.to_le_bytes());
        self
    }

    /// A time as its upper and its lower half.
    fn time(&mut self, unix_ns: u64) -> &mut Self {
        let [a, b, c, d, e, f, g, h] = unix_ns.to_le_bytes();
        self.bytes.extend([e, f, g, h, a, b, c, d]);
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        self.has_options = true;
        self.u16(code).u16(u16::try_from(value.len()).unwrap_or(u16::MAX)).bytes(value);
    }

    fn text(&mut self, code: u16, text: &str) {
        let end = text.floor_char_boundary(OPTION_MAX);
        self.option(code, text.get(..end).unwrap_or_default().as_bytes());
    }

    /// The block around it.
    fn block(mut self, kind: u32) -> Vec<u8> {
        if self.has_options {
            // The end of the options.
            self.u32(0);
        }
        let length = u32::try_from(self.bytes.len() + 12).unwrap_or(u32::MAX).to_le_bytes();
        [kind.to_le_bytes().as_slice(), &length, &self.bytes, &length].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::HostFacts;

    /// The blocks of a file: type and body.
    fn blocks(mut file: &[u8]) -> Vec<(u32, &[u8])> {
        let number = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let mut found = Vec::new();
        while !file.is_empty() {
            let length = number(file, 4) as usize;
            assert_eq!(length % 4, 0);
            assert_eq!(number(file, length - 4) as usize, length, "both lengths of a block agree");
            found.push((number(file, 0), &file[8..length - 4]));
            file = &file[length..];
        }
        found
    }

    fn packets() -> Packets {
        let device = |name: &str, link_type, wrong, right| Device {
            ifindex: 2,
            name: name.into(),
            kind: "veth".into(),
            link_type,
            wrong: Share { counted: wrong, kept: wrong.min(1) },
            right: Share { counted: right, kept: right.min(1) },
        };
        let one = |device, unix_ns, bytes: &[u8]| Packet {
            device,
            unix_ns,
            is_wrong: true,
            length: 1400,
            bytes: bytes.to_vec(),
            comment: "misrouted".into(),
        };
        Packets {
            host: HostFacts { kernel: "6.1".into(), hostname: "gw".into(), vendor: None },
            vpnfix: "1".into(),
            devices: vec![device("ens5", LinkType::Ethernet, 9, 0), device("vti", LinkType::Raw, 0, 1)],
            packets: vec![one(0, 0x1_0000_0002, &[7; 5]), one(1, 0x1_0000_0003, &[])],
            lost: 0,
        }
    }

    #[test]
    fn a_file_is_a_section_with_interfaces_packets_and_statistics() {
        let file = write(&packets());
        let kinds: Vec<u32> = blocks(&file).iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [block::SECTION, 1, 1, 6, 6, 5, 5]);
        let (_, first) = blocks(&file)[3];
        // Interface, time in halves, both lengths, the bytes filled up to eight, a comment of nine.
        let expected = [0, 1, 2, 5, 1400].map(u32::to_le_bytes).concat();
        assert_eq!(&first[..20], expected);
        assert_eq!(&first[20..28], [7, 7, 7, 7, 7, 0, 0, 0]);
        assert_eq!(&first[28..41], [&[1, 0, 9, 0], b"misrouted".as_slice()].concat());
    }

    #[test]
    fn nothing_is_a_file_too() {
        let none = Packets { devices: Vec::new(), packets: Vec::new(), ..packets() };
        assert_eq!(blocks(&write(&none)).len(), 1);
    }

    #[test]
    fn long_comments_are_cut_between_characters() {
        let mut packets = packets();
        packets.packets[0].comment = "ü".repeat(OPTION_MAX);
        let file = write(&packets);
        let (_, first) = blocks(&file)[3];
        let length = u16::from_le_bytes([first[30], first[31]]);
        assert_eq!(usize::from(length), OPTION_MAX);
    }
}
