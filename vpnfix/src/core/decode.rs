//! Records and keys of the kernel side as typed values.
//!
//! Everything is copied out of the bytes number by number and nothing is taken on trust: a record of another version,
//! a wrong size or a number without a meaning is an error, never a wrong value. The layout is `vpnfix-common`'s.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vpnfix_common::{
    ABI_VERSION, HEADER_BYTES, NETNS_UNKNOWN, STACK_FRAMES, act, event_kind, flag, hook, lookup_kind, occasion,
};

use super::observation::{
    Act, DecodeError, DestinationTotal, DropPlace, FlowEvent, FlowKey, FlowMarks, FlowSeen, HeadersSeen, Hook,
    LookupKey, LookupKind, LookupOutcome, LookupSeen, Observation, Occasion, PacketKey, PacketSeen, PreviousOutcome,
    Tally, Task, TcpSeen, TcpState,
};

/// `EAGAIN` (`include/uapi/asm-generic/errno-base.h`).
const EAGAIN: i32 = 11;
/// The largest errno that the kernel returns (`MAX_ERRNO`, `include/linux/err.h`).
const ERRNO_MAX: i32 = 4095;

/// One record of the ring buffer.
///
/// # Errors
///
/// See [`DecodeError`]. The record's size must be exactly that of its kind.
pub fn observation(record: &[u8]) -> Result<Observation, DecodeError> {
    let mut reader = Reader::new(record);
    let (kind, time_ns) = reader.header(|kind| match kind {
        event_kind::LOOKUP => Some(size_of::<vpnfix_common::LookupEvent>()),
        event_kind::PACKET => Some(size_of::<vpnfix_common::PacketEvent>()),
        event_kind::TCP => Some(size_of::<vpnfix_common::TcpEvent>()),
        event_kind::FLOW => Some(size_of::<vpnfix_common::FlowEvent>()),
        _ => None,
    })?;
    match kind {
        event_kind::LOOKUP => lookup_event(&mut reader, time_ns).map(Observation::Lookup),
        event_kind::PACKET => packet_event(&mut reader, time_ns).map(Observation::Packet),
        event_kind::TCP => tcp_event(&mut reader, time_ns).map(Observation::Tcp),
        _ => flow_event(&mut reader, time_ns).map(Observation::Flow),
    }
}

/// A record of the ring buffer of headers. Of its bytes only those are taken that are the packet's.
///
/// # Errors
///
/// See [`DecodeError`].
pub fn headers(record: &[u8]) -> Result<HeadersSeen, DecodeError> {
    let mut reader = Reader::new(record);
    let (_, time_ns) =
        reader.header(|kind| (kind == event_kind::HEADERS).then_some(size_of::<vpnfix_common::HeadersEvent>()))?;
    let key = reader.packet_key()?;
    let length = reader.u32()?;
    let link_length = reader.u32()?;
    let linear = reader.u32()? as usize;
    reader.skip(4)?;
    let bytes: [u8; HEADER_BYTES] = reader.take()?;
    let bytes = bytes.get(..linear.min(HEADER_BYTES)).unwrap_or_default().to_vec();
    // No link has so long a header that nothing else would be told: `data` then stands elsewhere.
    let link_length = usize::try_from(link_length).ok().filter(|length| *length <= bytes.len());
    let link_length = link_length.ok_or_else(|| unknown("place of a packet's headers", record.len() as u64))?;
    Ok(HeadersSeen { time_ns, key, length, link_length, bytes })
}

/// A key of the map of lookups.
///
/// # Errors
///
/// See [`DecodeError`].
pub fn lookup_key(bytes: &[u8]) -> Result<LookupKey, DecodeError> {
    Reader::new(bytes).lookup_key()
}

/// A key of the map of packets.
///
/// # Errors
///
/// See [`DecodeError`].
pub fn packet_key(bytes: &[u8]) -> Result<PacketKey, DecodeError> {
    Reader::new(bytes).packet_key()
}

/// A key of the map of destinations, with an empty tally.
///
/// # Errors
///
/// See [`DecodeError`].
pub fn destination_key(bytes: &[u8]) -> Result<DestinationTotal, DecodeError> {
    let mut reader = Reader::new(bytes);
    let address = reader.take()?;
    let netns = reader.u32()?;
    let ifindex = reader.u32()?;
    let packets = match reader.u16()? {
        event_kind::LOOKUP => false,
        event_kind::PACKET => true,
        kind => return Err(unknown("kind of destination", kind)),
    };
    let address = ip(address, reader.u8()?)?;
    let marks = marks(reader.u8()?)?;
    Ok(DestinationTotal { netns, address, ifindex, packets, marks, tally: Tally::default() })
}

/// A key of the map of flows.
///
/// # Errors
///
/// See [`DecodeError`].
pub fn flow_key(bytes: &[u8]) -> Result<FlowKey, DecodeError> {
    Reader::new(bytes).flow_key()
}

/// The misses that wait in an element of the map of IPv4 walks: their keys, whose namespace is not known yet, and when
/// the last of them was seen.
///
/// # Errors
///
/// See [`DecodeError`].
pub fn waiting_misses(walk: &vpnfix_common::Walk) -> Result<(Vec<LookupKey>, u64), DecodeError> {
    let waiting = walk.waiting as usize;
    let Some(tables) = walk.tables.get(..waiting) else {
        return Err(unknown("number of waiting misses", walk.waiting));
    };
    let raw = walk.sighting.key;
    let keys = tables.iter().map(|table| {
        Ok(LookupKey {
            netns: None,
            watch: raw.watch,
            table: *table,
            ifindex: None,
            outcome: LookupOutcome::Miss,
            hook: hook_of(raw.hook)?,
            kind: kind_of(raw.kind)?,
            marks: marks(raw.flags & !flag::CUSTOM_RULES)?,
            custom_rules: false,
            prefix_length: None,
        })
    });
    Ok((keys.collect::<Result<_, DecodeError>>()?, walk.missed_ns))
}

fn lookup_event(reader: &mut Reader<'_>, time_ns: u64) -> Result<LookupSeen, DecodeError> {
    let key = reader.lookup_key()?;
    let flow = reader.flow()?;
    let iif = reader.u32()?;
    let oif = nonzero(reader.u32()?);
    let mark = reader.u32()?;
    let uid = reader.u32()?;
    let gateway = reader.take()?;
    let gateway = match reader.u8()? {
        0 => None,
        family => Some(ip(gateway, family)?),
    };
    let occasion = reader.occasion()?;
    let _tos = reader.u8()?;
    reader.skip(1)?;
    let table = reader.u32()?;
    let ifindex = nonzero(reader.u32()?);
    let outcome = outcome(reader.i32()?)?;
    let previous = (occasion == Occasion::Change).then_some(PreviousOutcome { table, ifindex, outcome });
    Ok(LookupSeen { time_ns, key, flow, iif, oif, mark, uid, gateway, occasion, previous, task: reader.task()? })
}

fn packet_event(reader: &mut Reader<'_>, time_ns: u64) -> Result<PacketSeen, DecodeError> {
    let key = reader.packet_key()?;
    let flow = reader.flow()?;
    let length = reader.u32()?;
    let previous = reader.u32()?;
    let occasion = reader.occasion()?;
    reader.skip(7)?;
    let previous_ifindex = (occasion == Occasion::Change).then_some(previous);
    Ok(PacketSeen { time_ns, key, flow, length, occasion, previous_ifindex, task: reader.task()? })
}

fn tcp_event(reader: &mut Reader<'_>, time_ns: u64) -> Result<TcpSeen, DecodeError> {
    let flow = reader.flow()?;
    let netns = reader.u32()?;
    let old = tcp_state(reader.u8()?)?;
    let new = tcp_state(reader.u8()?)?;
    reader.skip(2)?;
    Ok(TcpSeen { time_ns, netns, flow, old, new, task: reader.task()? })
}

fn flow_event(reader: &mut Reader<'_>, time_ns: u64) -> Result<FlowEvent, DecodeError> {
    let key = reader.flow_key()?;
    let iif = reader.u32()?;
    let oif = nonzero(reader.u32()?);
    let mark = reader.u32()?;
    let uid = reader.u32()?;
    let length = reader.u32()?;
    // A negative number is an errno: there is no stack then.
    let frames = usize::try_from(reader.i32()?).unwrap_or(0) / size_of::<u64>();
    let task = reader.task()?;
    let mut stack = Vec::with_capacity(frames.min(STACK_FRAMES));
    for frame in 0..STACK_FRAMES {
        let address = reader.u64()?;
        if frame < frames && address != 0 {
            stack.push(address);
        }
    }
    Ok(FlowEvent { time_ns, key, iif, oif, mark, uid, length, task, stack })
}

/// Takes numbers off the front of a record.
struct Reader<'a> {
    rest: &'a [u8],
    taken: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, taken: 0 }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((taken, rest)) = self.rest.split_first_chunk() else {
            return Err(DecodeError::Truncated { got: self.taken + self.rest.len(), need: self.taken + N });
        };
        self.rest = rest;
        self.taken += N;
        Ok(*taken)
    }

    /// Version, kind and time of a record, whose size must be that of its kind.
    fn header(&mut self, size_of_kind: impl Fn(u16) -> Option<usize>) -> Result<(u16, u64), DecodeError> {
        let got = self.rest.len();
        let abi = self.u16()?;
        if abi != ABI_VERSION {
            return Err(DecodeError::Version { got: abi, want: ABI_VERSION });
        }
        let kind = self.u16()?;
        let size = self.u32()?;
        let need = size_of_kind(kind).ok_or_else(|| unknown("kind of record", kind))?;
        if got < need {
            return Err(DecodeError::Truncated { got, need });
        }
        if got != need || u64::from(size) != need as u64 {
            return Err(unknown("size of record", got as u64));
        }
        Ok((kind, self.u64()?))
    }

    fn skip(&mut self, count: usize) -> Result<(), DecodeError> {
        (0..count).try_for_each(|_| self.u8().map(drop))
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.take().map(u8::from_ne_bytes)
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.take().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.take().map(u32::from_ne_bytes)
    }

    fn i32(&mut self) -> Result<i32, DecodeError> {
        self.take().map(i32::from_ne_bytes)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.take().map(u64::from_ne_bytes)
    }

    fn lookup_key(&mut self) -> Result<LookupKey, DecodeError> {
        let netns = self.u32()?;
        let watch = self.u32()?;
        let table = self.u32()?;
        let ifindex = nonzero(self.u32()?);
        let outcome = outcome(self.i32()?)?;
        let hook = hook_of(self.u8()?)?;
        let kind = kind_of(self.u8()?)?;
        let flags = self.u8()?;
        let prefix_length = match self.u8()? {
            u8::MAX => None,
            length if length <= 128 => Some(length),
            length => return Err(unknown("prefix length", length)),
        };
        Ok(LookupKey {
            netns: (netns != NETNS_UNKNOWN).then_some(netns),
            watch,
            table,
            ifindex,
            outcome,
            hook,
            kind,
            marks: marks(flags)?,
            custom_rules: flags & flag::CUSTOM_RULES != 0,
            prefix_length,
        })
    }

    fn packet_key(&mut self) -> Result<PacketKey, DecodeError> {
        let netns = self.u32()?;
        let watch = self.u32()?;
        let ifindex = self.u32()?;
        let marks = marks(self.u8()?)?;
        match self.u8()? {
            4 | 6 => {}
            family => return Err(unknown("address family", family)),
        }
        self.skip(2)?;
        Ok(PacketKey { netns, watch, ifindex, marks })
    }

    fn flow(&mut self) -> Result<FlowSeen, DecodeError> {
        let source = self.take()?;
        let destination = self.take()?;
        let source_port = self.u16()?;
        let destination_port = self.u16()?;
        let protocol = self.u8()?;
        let family = self.u8()?;
        self.skip(2)?;
        let source = ip(source, family)?;
        Ok(FlowSeen {
            source: (!source.is_unspecified()).then_some(source),
            destination: ip(destination, family)?,
            source_port,
            destination_port,
            protocol,
        })
    }

    fn flow_key(&mut self) -> Result<FlowKey, DecodeError> {
        let flow = self.flow()?;
        let location = self.u64()?;
        let netns = self.u32()?;
        let watch = self.u32()?;
        let ifindex = self.u32()?;
        let table = self.u32()?;
        let detail = self.i32()?;
        let act = self.u8()?;
        let hook = self.u8()?;
        let kind = self.u8()?;
        let flags = self.u8()?;
        let dropped = |incoming| {
            let reason = (detail != 0).then_some(detail);
            Act::Drop(DropPlace { incoming, reason, location, ifindex: nonzero(ifindex) })
        };
        let act = match act {
            act::LOOKUP => Act::Lookup {
                table,
                ifindex: nonzero(ifindex),
                outcome: outcome(detail)?,
                hook: hook_of(hook)?,
                kind: kind_of(kind)?,
                custom_rules: flags & flag::CUSTOM_RULES != 0,
            },
            act::PACKET => Act::Packet(ifindex),
            act::DROP => dropped(false),
            act::ANSWER_DROP => dropped(true),
            act::ANSWER => Act::Answer(ifindex),
            act::RETRANSMIT => Act::Retransmission,
            other => return Err(unknown("act", other)),
        };
        Ok(FlowKey { netns, watch, flow, marks: marks(flags)?, act })
    }

    fn occasion(&mut self) -> Result<Occasion, DecodeError> {
        match self.u8()? {
            occasion::FIRST_SIGHT => Ok(Occasion::FirstSight),
            occasion::CHANGE => Ok(Occasion::Change),
            other => Err(unknown("occasion", other)),
        }
    }

    fn task(&mut self) -> Result<Task, DecodeError> {
        let process = self.u32()?;
        let thread = self.u32()?;
        let comm: [u8; 16] = self.take()?;
        let name = comm.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(Task { process, thread, comm: String::from_utf8_lossy(name).into_owned() })
    }
}

fn unknown(field: &'static str, value: impl Into<u64>) -> DecodeError {
    DecodeError::Unknown { field, value: value.into() }
}

fn nonzero(number: u32) -> Option<u32> {
    (number != 0).then_some(number)
}

fn ip(bytes: [u8; 16], family: u8) -> Result<IpAddr, DecodeError> {
    let [a, b, c, d, ..] = bytes;
    match family {
        4 => Ok(IpAddr::V4(Ipv4Addr::new(a, b, c, d))),
        6 => Ok(IpAddr::V6(Ipv6Addr::from(bytes))),
        _ => Err(unknown("address family", family)),
    }
}

fn outcome(error: i32) -> Result<LookupOutcome, DecodeError> {
    match error.checked_neg() {
        Some(0) => Ok(LookupOutcome::Hit),
        Some(EAGAIN) => Ok(LookupOutcome::Miss),
        Some(errno @ 1..=ERRNO_MAX) => Ok(LookupOutcome::Refused(errno)),
        _ => Err(unknown("outcome of a lookup", u64::from(error.cast_unsigned()))),
    }
}

fn hook_of(number: u8) -> Result<Hook, DecodeError> {
    match number {
        hook::FIB_TABLE => Ok(Hook::FibTable),
        hook::FIB_RULES => Ok(Hook::FibRules),
        hook::FIB6_TABLE => Ok(Hook::Fib6Table),
        other => Err(unknown("hook", other)),
    }
}

fn kind_of(number: u8) -> Result<LookupKind, DecodeError> {
    match number {
        lookup_kind::OUTPUT => Ok(LookupKind::Output),
        lookup_kind::INPUT => Ok(LookupKind::Input),
        lookup_kind::SOURCE_VALIDATION => Ok(LookupKind::SourceValidation),
        other => Err(unknown("kind of lookup", other)),
    }
}

fn marks(flags: u8) -> Result<FlowMarks, DecodeError> {
    if flags & !(flag::BGP | flag::BOUND | flag::PROBE | flag::CUSTOM_RULES) != 0 {
        return Err(unknown("flag", flags));
    }
    Ok(FlowMarks { bgp: flags & flag::BGP != 0, bound: flags & flag::BOUND != 0, probe: flags & flag::PROBE != 0 })
}

fn tcp_state(number: u8) -> Result<TcpState, DecodeError> {
    Ok(match number {
        1 => TcpState::Established,
        2 => TcpState::SynSent,
        3 => TcpState::SynReceived,
        4 => TcpState::FinWait1,
        5 => TcpState::FinWait2,
        6 => TcpState::TimeWait,
        7 => TcpState::Close,
        8 => TcpState::CloseWait,
        9 => TcpState::LastAck,
        10 => TcpState::Listen,
        11 => TcpState::Closing,
        12 => TcpState::NewSynReceived,
        13 => TcpState::BoundInactive,
        other => return Err(unknown("TCP state", other)),
    })
}

#[cfg(test)]
mod tests;
