//! One question after the other, asked on the calling thread.
//!
//! Without a runtime: the kernel answers while the request is sent (`rtnetlink_rcv_msg` runs in the sender's context), so
//! there is nothing to wait for but a broken socket.

use std::io;
use std::os::fd::AsFd as _;

use bytes::BytesMut;
use netlink_packet_core::Emitable;
use netlink_packet_route::{
    AddressFamily,
    route::{RouteAttribute, RouteFlags, RouteHeader},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::channel::{Decoded, Failure, Malformed, PATIENCE, RECEIVE_BYTES, Replies, Request, packet, set_options};
use super::error::{NetlinkError, Operation};
use super::{RTM_GETROUTE, RTM_NEWROUTE, route};
use crate::core::model::{Answer, Arrival, Family, Question, Reply, RouteKind};

/// A socket for questions, of the namespace of the thread that opened it.
pub(super) struct Asker {
    socket: Socket,
    sequence: u32,
    buffer: BytesMut,
}

impl Asker {
    /// Opens the socket, with strict checking and extended acknowledgements.
    pub(super) fn open() -> Result<Self, NetlinkError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            set_options(&socket)?;
            Ok(Self { socket, sequence: 0, buffer: BytesMut::with_capacity(RECEIVE_BYTES) })
        };
        open().map_err(|source| NetlinkError::Open { source })
    }

    /// Asks for what the kernel decides, and for the entry that it decides by.
    pub(super) fn answer(&mut self, question: Question) -> Result<Answer, NetlinkError> {
        let failed = |failure: Failure| failure.of(Operation::Ask(Box::new(question.clone())));
        let resolved = Request { kind: RTM_GETROUTE, flags: 0, body: body(&question, false) };
        let decode = |kind, payload: &[u8]| if kind == RTM_NEWROUTE { arrival(payload, &question) } else { Ok(None) };
        let reply = match self.exchange(&resolved, decode) {
            Ok(found) => match found.into_iter().next() {
                Some(arrival) => Reply::Arrives(arrival),
                None => return Err(failed(Failure::Malformed("no route in the reply".into()))),
            },
            Err(Failure::Refused { errno, text }) if is_answer(errno, text.as_deref()) => Reply::Refused(errno),
            Err(failure) => return Err(failed(failure)),
        };
        let matching = Request { kind: RTM_GETROUTE, flags: 0, body: body(&question, true) };
        let decode = |kind, payload: &[u8]| if kind == RTM_NEWROUTE { route::route(payload) } else { Ok(None) };
        let entry = match self.exchange(&matching, decode) {
            Ok(found) => found.into_iter().next(),
            Err(Failure::Refused { .. }) => None,
            Err(failure) => return Err(failed(failure)),
        };
        Ok(Answer { question, reply, entry })
    }

    fn exchange<T>(&mut self, request: &Request, decode: impl Fn(u16, &[u8]) -> Decoded<T>) -> Result<Vec<T>, Failure> {
        self.sequence = self.sequence.wrapping_add(1);
        let packet = packet(request, self.sequence);
        self.socket.send_to(&packet, &SocketAddr::new(0, 0), 0).map_err(Failure::Socket)?;
        let mut replies = Replies::new();
        loop {
            let sender = self.receive()?;
            // Other processes can write to a netlink socket too.
            if sender.port_number() == 0 && replies.take_datagram(&self.buffer, self.sequence, &decode)? {
                return Ok(replies.finish()?.found);
            }
        }
    }

    /// One datagram, and who sent it.
    fn receive(&mut self) -> Result<SocketAddr, Failure> {
        loop {
            self.buffer.clear();
            self.buffer.reserve(RECEIVE_BYTES);
            match self.socket.recv_from(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok((_, sender)) => return Ok(sender),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait()?,
                Err(error) => return Err(Failure::Socket(error)),
            }
        }
    }

    fn wait(&self) -> Result<(), Failure> {
        let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], patience) {
            Ok(0) => Err(Failure::TimedOut),
            Ok(_) | Err(nix::Error::EINTR) => Ok(()),
            Err(errno) => Err(Failure::Socket(errno.into())),
        }
    }
}

/// Is this errno what routing says, rather than a complaint about the request? The kernel explains complaints in words;
/// a blackhole and failed source validation are a plain `EINVAL`.
fn is_answer(errno: i32, text: Option<&str>) -> bool {
    match errno {
        libc::EPERM | libc::ENOMEM | libc::ENOBUFS => false,
        libc::EINVAL | libc::EOPNOTSUPP => text.is_none(),
        _ => true,
    }
}

/// The body of the request. Strict checking allows exactly these fields (`inet_rtm_valid_getroute_req`,
/// `inet6_rtm_valid_getroute_req`); `RTM_F_LOOKUP_TABLE` only for IPv4, IPv6 always tells the table.
fn body(question: &Question, fib_match: bool) -> Vec<u8> {
    let family = Family::of(question.destination);
    let mut flags = RouteFlags::empty();
    flags.set(RouteFlags::LookupTable, family == Family::V4);
    flags.set(RouteFlags::FibMatch, fib_match);
    let header = RouteHeader {
        address_family: match family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        },
        destination_prefix_length: family.bits(),
        source_prefix_length: question.source.map_or(0, |source| Family::of(source).bits()),
        tos: question.tos,
        flags,
        ..RouteHeader::default()
    };
    let mut attributes = vec![RouteAttribute::Destination(question.destination.into())];
    attributes.extend(question.source.map(|source| RouteAttribute::Source(source.into())));
    attributes.extend(question.input_interface.map(RouteAttribute::Iif));
    attributes.extend(question.output_interface.map(RouteAttribute::Oif));
    attributes.extend(Some(question.mark).filter(|mark| *mark != 0).map(RouteAttribute::Mark));
    attributes.extend(question.uid.map(RouteAttribute::Uid));
    attributes.extend(question.ip_protocol.map(RouteAttribute::IpProto));
    attributes.extend(question.source_port.map(RouteAttribute::Sport));
    attributes.extend(question.destination_port.map(RouteAttribute::Dport));
    // Older kernels take the attribute for an error.
    attributes.extend(Some(question.flow_label).filter(|label| *label != 0).map(RouteAttribute::Flowlabel));
    let mut body = vec![0; header.buffer_len()];
    header.emit(&mut body);
    for attribute in &attributes {
        let start = body.len();
        body.resize(start + attribute.buffer_len(), 0);
        if let Some(space) = body.get_mut(start..) {
            attribute.emit(space);
        }
    }
    body
}

/// The resolved answer.
fn arrival(payload: &[u8], question: &Question) -> Decoded<Arrival> {
    let header = RouteHeader::parse(payload)?;
    let fields = route::fields(payload)?;
    let Some(ifindex) = fields.ifindex else { return Err(Malformed("a route without a device".into())) };
    Ok(Some(Arrival {
        table: fields.table.unwrap_or_else(|| header.table.into()),
        ifindex,
        gateway: fields.gateway,
        // IPv6 tells what it would have chosen even where a source was given.
        source: question.source.or(fields.preferred_source),
        local: route::kind(header.kind.into()) == RouteKind::Local,
    }))
}
