//! Reading the headers of a packet.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use vpnfix_common::{FlowAddresses, counter, flag};

use crate::{
    filter::{watched4, watched6},
    flow::{ICMP, ICMP6, has_ports, is_asked_for, marks},
    maps::bump,
    offsets::{PROBE_ICMP_ID, address4},
};

/// `ETH_P_IP`.
pub const ETH_P_IP: u16 = 0x0800;
/// `ETH_P_IPV6`.
pub const ETH_P_IPV6: u16 = 0x86dd;
/// ICMP's echo request.
const ECHO_REQUEST: u8 = 8;
/// ICMPv6's echo request.
const ECHO_REQUEST6: u8 = 128;

/// Packets to a watched prefix are read.
pub const TO_WATCHED: u8 = 1;
/// Packets from a watched prefix are read.
pub const FROM_WATCHED: u8 = 2;

/// A packet of a watched prefix that is asked for.
pub struct Parsed {
    /// Addresses and ports; the destination is the watched one, also of a packet that came from there.
    pub flow: FlowAddresses,
    /// Index of the watched prefix.
    pub watch: u32,
    /// Bits of [`flag`].
    pub flags: u8,
    /// It came from the watched prefix.
    pub from_watched: bool,
}

/// # Safety
///
/// None: a bad address reads as nothing.
#[inline(always)]
unsafe fn read<const N: usize>(address: u64) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: the buffer has the size that is given.
    let error = unsafe { bpf_probe_read_kernel(bytes.as_mut_ptr().cast(), N as u32, address as *const _) };
    (error == 0).then_some(bytes)
}

/// Reads an IPv4 packet by the address of its header. `WAYS` says whether packets to watched prefixes are meant, from
/// them, or both.
///
/// # Safety
///
/// None: a bad address reads as nothing.
#[inline(always)]
pub unsafe fn packet4<const WAYS: u8>(header_address: u64) -> Option<Parsed> {
    // SAFETY: a bad address reads as nothing.
    let Some(header) = (unsafe { read::<20>(header_address) }) else {
        bump(counter::UNREADABLE_PACKETS, 1);
        return None;
    };
    let source = u32::from_ne_bytes([header[12], header[13], header[14], header[15]]);
    let destination = u32::from_ne_bytes([header[16], header[17], header[18], header[19]]);
    let to = if WAYS & TO_WATCHED != 0 { watched4(destination) } else { None };
    let from_watched = to.is_none();
    let watch = match to {
        Some(watch) => watch,
        None if WAYS & FROM_WATCHED != 0 => watched4(source)?,
        None => return None,
    };
    let fragment_offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    let (near, far) = if from_watched { (destination, source) } else { (source, destination) };
    let mut flow = FlowAddresses {
        source: address4(near),
        destination: address4(far),
        source_port: 0,
        destination_port: 0,
        protocol: header[9],
        family: 4,
        _pad: [0; 2],
    };
    let mut flags = 0;
    if fragment_offset == 0 {
        let transport = header_address + u64::from(header[0] & 15) * 4;
        // SAFETY: a bad address reads as nothing.
        flags = unsafe { read_transport(&mut flow, transport, from_watched) };
    }
    is_asked_for(&flow).then_some(Parsed { flow, watch, flags, from_watched })
}

/// The same for IPv6. Extension headers are not walked: behind one, ports are not told.
///
/// # Safety
///
/// None: a bad address reads as nothing.
#[inline(always)]
pub unsafe fn packet6<const WAYS: u8>(header_address: u64) -> Option<Parsed> {
    // SAFETY: a bad address reads as nothing.
    let Some(destination) = (unsafe { read::<16>(header_address + 24) }) else {
        bump(counter::UNREADABLE_PACKETS, 1);
        return None;
    };
    // SAFETY: as above.
    let source = unsafe { read::<16>(header_address + 8)? };
    let to = if WAYS & TO_WATCHED != 0 { watched6(&destination) } else { None };
    let from_watched = to.is_none();
    let watch = match to {
        Some(watch) => watch,
        None if WAYS & FROM_WATCHED != 0 => watched6(&source)?,
        None => return None,
    };
    // SAFETY: as above.
    let [_, _, protocol, _] = unsafe { read::<4>(header_address + 4)? };
    let (near, far) = if from_watched { (destination, source) } else { (source, destination) };
    let mut flow = FlowAddresses {
        source: near,
        destination: far,
        source_port: 0,
        destination_port: 0,
        protocol,
        family: 6,
        _pad: [0; 2],
    };
    // SAFETY: as above.
    let flags = unsafe { read_transport(&mut flow, header_address + 40, from_watched) };
    is_asked_for(&flow).then_some(Parsed { flow, watch, flags, from_watched })
}

/// Reads the ports and gives the flags that follow from them, or from an echo's identifier.
#[inline(always)]
unsafe fn read_transport(flow: &mut FlowAddresses, address: u64, from_watched: bool) -> u8 {
    // SAFETY: a bad address reads as nothing.
    let Some(bytes) = (unsafe { read::<8>(address) }) else { return 0 };
    if has_ports(flow.protocol) {
        let (first, second) = (u16::from_be_bytes([bytes[0], bytes[1]]), u16::from_be_bytes([bytes[2], bytes[3]]));
        (flow.source_port, flow.destination_port) = if from_watched { (second, first) } else { (first, second) };
        return marks(flow);
    }
    let is_echo =
        (flow.protocol == ICMP && bytes[0] == ECHO_REQUEST) || (flow.protocol == ICMP6 && bytes[0] == ECHO_REQUEST6);
    let probe = PROBE_ICMP_ID.load();
    if is_echo && probe != 0 && u32::from(u16::from_be_bytes([bytes[4], bytes[5]])) == probe {
        return flag::PROBE;
    }
    0
}
