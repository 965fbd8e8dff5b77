//! Reading the headers of a packet.

use core::mem::MaybeUninit;

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

/// An IPv4 header without options, and what follows it.
#[repr(C)]
struct Headers4 {
    version_length: u8,
    _tos: u8,
    _length: u16,
    _id: u16,
    /// Big-endian.
    fragment: u16,
    _ttl: u8,
    protocol: u8,
    _checksum: u16,
    source: u32,
    destination: u32,
    transport: [u8; 8],
}

/// An IPv6 header and what follows it.
#[repr(C)]
struct Headers6 {
    _version: [u8; 6],
    protocol: u8,
    _hops: u8,
    source: [u8; 16],
    destination: [u8; 16],
    transport: [u8; 8],
}

/// Reads into a place of the stack. A bad address reads as nothing.
#[inline(always)]
fn read<T>(address: u64, place: &mut MaybeUninit<T>) -> bool {
    // SAFETY: the place has the size that is given; the helper checks the address.
    unsafe { bpf_probe_read_kernel(place.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const _) == 0 }
}

/// Reads a packet by its `skb->protocol` and the address of its header; says whether it is one that is asked for. `WAYS` says
/// whether packets to watched prefixes are meant, from them, or both.
#[inline(always)]
pub fn parse<const WAYS: u8>(protocol: u16, header_address: u64, parsed: &mut MaybeUninit<Parsed>) -> bool {
    match protocol {
        ETH_P_IP => parse4::<WAYS>(header_address, parsed) != 0,
        ETH_P_IPV6 => parse6::<WAYS>(header_address, parsed) != 0,
        _ => false,
    }
}

/// Header and what follows one without options are read at once: each reading costs more than all that is compared. (Behind a
/// packet that ends sooner there is memory too, its own `skb_shared_info`.)
///
/// It has a frame of its own: those of a chain of calls may take 512 bytes together (kernels before 6.13 have no private
/// stacks), and what follows needs its share.
#[inline(never)]
fn parse4<const WAYS: u8>(header_address: u64, parsed: &mut MaybeUninit<Parsed>) -> u32 {
    let mut headers = MaybeUninit::<Headers4>::uninit();
    if !read(header_address, &mut headers) {
        bump(counter::UNREADABLE_PACKETS, 1);
        return 0;
    }
    // SAFETY: it was read.
    let headers = unsafe { headers.assume_init_ref() };
    let to = if WAYS & TO_WATCHED != 0 { watched4(headers.destination) } else { None };
    let from_watched = to.is_none();
    let watch = match to {
        Some(watch) => watch,
        None if WAYS & FROM_WATCHED != 0 => match watched4(headers.source) {
            Some(watch) => watch,
            None => return 0,
        },
        None => return 0,
    };
    let (near, far) =
        if from_watched { (headers.destination, headers.source) } else { (headers.source, headers.destination) };
    let mut flow = FlowAddresses {
        source: address4(near),
        destination: address4(far),
        source_port: 0,
        destination_port: 0,
        protocol: headers.protocol,
        family: 4,
        _pad: [0; 2],
    };
    let mut flags = 0;
    if u16::from_be(headers.fragment) & 0x1fff == 0 {
        let header_bytes = u64::from(headers.version_length & 15) * 4;
        let mut behind_options = MaybeUninit::<[u8; 8]>::uninit();
        if header_bytes == 20 {
            flags = transport_marks(&mut flow, headers.transport, from_watched);
        } else if read(header_address + header_bytes, &mut behind_options) {
            // SAFETY: it was read.
            flags = transport_marks(&mut flow, unsafe { behind_options.assume_init() }, from_watched);
        }
    }
    if !is_asked_for(&flow) {
        return 0;
    }
    parsed.write(Parsed { flow, watch, flags, from_watched });
    1
}

/// The same for IPv6. Extension headers are not walked: behind one, ports are not told.
#[inline(never)]
fn parse6<const WAYS: u8>(header_address: u64, parsed: &mut MaybeUninit<Parsed>) -> u32 {
    let mut headers = MaybeUninit::<Headers6>::uninit();
    if !read(header_address, &mut headers) {
        bump(counter::UNREADABLE_PACKETS, 1);
        return 0;
    }
    // SAFETY: it was read.
    let headers = unsafe { headers.assume_init_ref() };
    let to = if WAYS & TO_WATCHED != 0 { watched6(&headers.destination) } else { None };
    let from_watched = to.is_none();
    let watch = match to {
        Some(watch) => watch,
        None if WAYS & FROM_WATCHED != 0 => match watched6(&headers.source) {
            Some(watch) => watch,
            None => return 0,
        },
        None => return 0,
    };
    let (near, far) =
        if from_watched { (&headers.destination, &headers.source) } else { (&headers.source, &headers.destination) };
    let mut flow = FlowAddresses {
        source: *near,
        destination: *far,
        source_port: 0,
        destination_port: 0,
        protocol: headers.protocol,
        family: 6,
        _pad: [0; 2],
    };
    let flags = transport_marks(&mut flow, headers.transport, from_watched);
    if !is_asked_for(&flow) {
        return 0;
    }
    parsed.write(Parsed { flow, watch, flags, from_watched });
    1
}

/// Takes the ports out of a transport header's first bytes and gives the flags that follow from them, or from an echo's
/// identifier.
#[inline(always)]
fn transport_marks(flow: &mut FlowAddresses, bytes: [u8; 8], from_watched: bool) -> u8 {
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
