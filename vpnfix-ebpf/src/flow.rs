//! A flow's fields, and what they say a lookup is for.

use vpnfix_common::{FlowAddresses, LookupKey, NETNS_UNKNOWN, Sighting, flag, lookup_kind};

use crate::filter::is_bound;
use crate::offsets::{
    FLOWI4_DPORT, FLOWI4_SADDR, FLOWI4_SPORT, FLOWI6_DPORT, FLOWI6_SADDR, FLOWI6_SPORT, FLOWIC_IIF, FLOWIC_MARK,
    FLOWIC_OIF, FLOWIC_PROTO, FLOWIC_TOS, FLOWIC_UID, ONLY_PORT, ONLY_PROTOCOL, PROBE_THREAD, address4, load,
    load_address6, load_if_there,
};

/// ICMP.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMPv6.
pub const ICMP6: u8 = 58;
/// BGP's TCP port.
pub const BGP_PORT: u16 = 179;

/// `LOOPBACK_IFINDEX`: what output lookups have as input interface.
const LOOPBACK: u32 = 1;
/// The prefix length where the hook does not know it.
pub const LENGTH_UNKNOWN: u8 = 255;

/// What a `struct flowi4` tells, before a table has answered.
///
/// # Safety
///
/// `flow` must be a `struct flowi4 *` known to the verifier.
#[inline(always)]
pub unsafe fn sighting4(flow: *const u8, destination: u32, watch: u32, hook: u8, thread: u32) -> Sighting {
    // SAFETY: the caller's promise.
    unsafe {
        let addresses = FlowAddresses {
            source: address4(load(flow, &FLOWI4_SADDR)),
            destination: address4(destination),
            source_port: u16::from_be(load(flow, &FLOWI4_SPORT)),
            destination_port: u16::from_be(load(flow, &FLOWI4_DPORT)),
            protocol: load(flow, &FLOWIC_PROTO),
            family: 4,
            _pad: [0; 2],
        };
        let mut sighting = sighting(flow, addresses, watch, hook, thread);
        if sighting.key.kind == lookup_kind::OUTPUT && addresses.protocol == 0 {
            // Source validation, and others of the kernel's own questions, leave the protocol out.
            sighting.key.kind = lookup_kind::SOURCE_VALIDATION;
        }
        sighting
    }
}

/// What a `struct flowi6` tells.
///
/// # Safety
///
/// `flow` must be a `struct flowi6 *` known to the verifier.
#[inline(always)]
pub unsafe fn sighting6(flow: *const u8, destination: [u8; 16], watch: u32, hook: u8, thread: u32) -> Sighting {
    // SAFETY: the caller's promise.
    unsafe {
        let addresses = FlowAddresses {
            source: load_address6(flow, &FLOWI6_SADDR),
            destination,
            source_port: u16::from_be(load(flow, &FLOWI6_SPORT)),
            destination_port: u16::from_be(load(flow, &FLOWI6_DPORT)),
            protocol: load(flow, &FLOWIC_PROTO),
            family: 6,
            _pad: [0; 2],
        };
        sighting(flow, addresses, watch, hook, thread)
    }
}

/// # Safety
///
/// `flow` must be a flow known to the verifier; both families begin with a `struct flowi_common`.
#[inline(always)]
unsafe fn sighting(flow: *const u8, mut addresses: FlowAddresses, watch: u32, hook: u8, thread: u32) -> Sighting {
    if !has_ports(addresses.protocol) {
        // The same bytes hold ICMP's type and code, an SPI, or nothing.
        addresses.source_port = 0;
        addresses.destination_port = 0;
    }
    // SAFETY: the caller's promise.
    let (iif, oif, mark, uid, tos) = unsafe {
        (
            load::<u32>(flow, &FLOWIC_IIF),
            load::<u32>(flow, &FLOWIC_OIF),
            load_if_there(flow, &FLOWIC_MARK).unwrap_or(0),
            load_if_there(flow, &FLOWIC_UID).unwrap_or(0),
            load_if_there(flow, &FLOWIC_TOS).unwrap_or(0),
        )
    };
    let mut flags = marks(&addresses);
    if is_bound(watch, oif) {
        flags |= flag::BOUND;
    }
    let probe = PROBE_THREAD.load();
    if probe != 0 && thread == probe && (addresses.protocol == ICMP || addresses.protocol == ICMP6) {
        flags |= flag::PROBE;
    }
    // A packet that came in always came by an interface; 0 is left by some of the kernel's own IPv6 lookups.
    let kind = if iif <= LOOPBACK { lookup_kind::OUTPUT } else { lookup_kind::INPUT };
    Sighting {
        key: LookupKey {
            netns: NETNS_UNKNOWN,
            watch,
            table: 0,
            ifindex: 0,
            outcome: 0,
            hook,
            kind,
            flags,
            prefix_length: LENGTH_UNKNOWN,
        },
        flow: addresses,
        iif,
        oif,
        mark,
        uid,
        gateway: [0; 16],
        gateway_family: 0,
        tos,
        _pad: [0; 2],
    }
}

/// Do the first four bytes of this protocol's header hold ports?
#[inline(always)]
pub fn has_ports(protocol: u8) -> bool {
    protocol == TCP || protocol == UDP
}

/// The bit for BGP.
#[inline(always)]
pub fn marks(flow: &FlowAddresses) -> u8 {
    let bgp = flow.protocol == TCP && (flow.source_port == BGP_PORT || flow.destination_port == BGP_PORT);
    if bgp { flag::BGP } else { 0 }
}

/// Is this flow asked for, by its protocol and ports? One that does not say its protocol is left out where one is asked
/// for, and so are ports.
#[inline(always)]
pub fn is_asked_for(flow: &FlowAddresses) -> bool {
    let protocol = ONLY_PROTOCOL.load();
    let found = u32::from(flow.protocol);
    if protocol != 0 && found != protocol && !(protocol == u32::from(ICMP) && flow.protocol == ICMP6) {
        return false;
    }
    let port = ONLY_PORT.load();
    port == 0 || port == u32::from(flow.source_port) || port == u32::from(flow.destination_port)
}
