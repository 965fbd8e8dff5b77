//! One rtnetlink socket, and the exchange of a request for its replies.
//!
//! The crate `rtnetlink` is used for changes, not for reading: with `netlink-proto` below it, it drops a message that it
//! cannot decode with no more than a log line, and does not tell of an interrupted dump. A rule or a route missing in
//! silence would be a wrong verdict here. The layers below it serve: the socket (`netlink-sys`) and the formats
//! (`netlink-packet-*`).

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use netlink_packet_core::{
    DecodeError, Emitable, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_MULTIPART,
    NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NlasIterator,
};
use netlink_sys::{AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use tracing::trace;

use super::error::{NetlinkError, Operation};

/// The kernel fills dump messages up to the size of the largest read, but no further than 32 KiB
/// (`net/netlink/af_netlink.c`, `netlink_dump`); single replies are smaller.
pub(super) const RECEIVE_BYTES: usize = 64 * 1024;
/// The kernel answers while the request is sent; only a broken socket takes this long.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How often an interrupted dump is taken.
const ATTEMPTS: u32 = 5;
/// Pause before a dump is taken again, times the number of the attempt.
const PAUSE: Duration = Duration::from_millis(20);

/// Size of a netlink header.
pub(super) const HEADER_BYTES: usize = 16;
const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// A message whose content makes no sense, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) String);

impl From<DecodeError> for Malformed {
    fn from(error: DecodeError) -> Self {
        Self(error.to_string())
    }
}

/// What a reply decodes to; `None` for one that is of no interest.
pub(super) type Decoded<T> = Result<Option<T>, Malformed>;

/// A request to the kernel.
pub(super) struct Request {
    /// `RTM_*`.
    pub(super) kind: u16,
    /// `NLM_F_*`; `NLM_F_REQUEST` is added. Either `NLM_F_DUMP`, or `NLM_F_ACK` for changes, or neither where one
    /// message answers.
    pub(super) flags: u16,
    /// What follows the netlink header.
    pub(super) body: Vec<u8>,
}

/// Why an exchange failed.
#[derive(Debug)]
pub(super) enum Failure {
    Socket(io::Error),
    Refused { errno: i32, text: Option<String> },
    Interrupted,
    TimedOut,
    Malformed(String),
}

impl Failure {
    /// The same as an error of this operation.
    pub(super) fn of(self, operation: Operation) -> NetlinkError {
        match self {
            Self::Socket(source) => NetlinkError::Socket { operation, source },
            Self::Refused { errno, text } => {
                NetlinkError::Refused { operation, text, source: io::Error::from_raw_os_error(errno) }
            }
            Self::Interrupted => NetlinkError::Interrupted { operation },
            Self::TimedOut => NetlinkError::TimedOut { operation },
            Self::Malformed(reason) => NetlinkError::Malformed { operation, reason },
        }
    }
}

/// An rtnetlink socket of the namespace of the thread that opened it.
pub(super) struct Channel {
    socket: TokioSocket,
    sequence: u32,
    buffer: BytesMut,
    /// The kernel knows how much is read at once.
    primed: bool,
}

impl Channel {
    /// Opens the socket, with strict checking and extended acknowledgements. Needs a tokio runtime with I/O and time.
    pub(super) fn open() -> Result<Self, NetlinkError> {
        let open = || {
            let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
            socket.socket_mut().bind_auto()?;
            set_options(socket.socket_ref())?;
            Ok(Self { socket, sequence: 0, buffer: BytesMut::with_capacity(RECEIVE_BYTES), primed: false })
        };
        open().map_err(|source| NetlinkError::Open { source })
    }

    /// Sends the request and decodes all replies. An interrupted dump is taken again a few times.
    pub(super) async fn exchange<T>(
        &mut self,
        request: &Request,
        decode: impl Fn(u16, &[u8]) -> Decoded<T>,
    ) -> Result<Vec<T>, Failure> {
        Ok(self.exchange_patiently(request, &decode).await?.found)
    }

    /// As [`Self::exchange`], for a dump that the kernel does not mark as interrupted when what it lists changes between
    /// two of its datagrams. One datagram is of one moment; of several, two readings must agree.
    pub(super) async fn exchange_steady<T: PartialEq>(
        &mut self,
        request: &Request,
        decode: impl Fn(u16, &[u8]) -> Decoded<T>,
    ) -> Result<Vec<T>, Failure> {
        let mut previous = None;
        for _ in 0..ATTEMPTS {
            let replies = self.exchange_patiently(request, &decode).await?;
            if replies.datagrams <= 1 || previous.as_ref() == Some(&replies.found) {
                return Ok(replies.found);
            }
            previous = Some(replies.found);
        }
        Err(Failure::Interrupted)
    }

    /// Reads a dump, but no more than about `limit` of what it decodes to. Says with it whether that was all. A dump that was
    /// left stays under way on its socket, which therefore ends here; the kernel goes on only as it is read from.
    pub(super) async fn first<T>(
        mut self,
        request: &Request,
        decode: impl Fn(u16, &[u8]) -> Decoded<T>,
        limit: usize,
    ) -> Result<(Vec<T>, bool), Failure> {
        self.prime().await?;
        let mut attempt = 1;
        loop {
            match self.exchange_up_to(request, &decode, limit).await {
                Ok((replies, whole)) => return Ok((replies.found, whole)),
                Err(Failure::Interrupted) if attempt < ATTEMPTS => tokio::time::sleep(PAUSE * attempt).await,
                Err(failure) => return Err(failure),
            }
            attempt += 1;
        }
    }

    async fn exchange_patiently<T>(
        &mut self,
        request: &Request,
        decode: &impl Fn(u16, &[u8]) -> Decoded<T>,
    ) -> Result<Replies<T>, Failure> {
        let is_dump = request.flags & NLM_F_DUMP == NLM_F_DUMP;
        if is_dump && !self.primed {
            self.prime().await?;
        }
        let mut attempt = 1;
        loop {
            let outcome = self.exchange_once(request, decode).await;
            let again = match &outcome {
                Err(Failure::Interrupted) => true,
                // The dump of a request that was given up is still under way on this socket.
                Err(Failure::Refused { errno: libc::EBUSY, .. }) => is_dump,
                _ => false,
            };
            if !again || attempt == ATTEMPTS {
                return outcome;
            }
            tokio::time::sleep(PAUSE * attempt).await;
            attempt += 1;
        }
    }

    /// Reads one acknowledgement. The kernel sizes a dump's datagrams by the largest read so far, the first one too: without
    /// this it would be of one page, and a list of some forty rules in two pieces.
    async fn prime(&mut self) -> Result<(), Failure> {
        let nothing = Request { kind: NLMSG_NOOP, flags: NLM_F_ACK, body: Vec::new() };
        self.exchange_once(&nothing, &|_kind, _payload| Ok(None::<()>)).await?;
        self.primed = true;
        Ok(())
    }

    async fn exchange_once<T>(
        &mut self,
        request: &Request,
        decode: &impl Fn(u16, &[u8]) -> Decoded<T>,
    ) -> Result<Replies<T>, Failure> {
        Ok(self.exchange_up_to(request, decode, usize::MAX).await?.0)
    }

    /// One request and its replies, until there are more than `limit`. Says whether all were read.
    async fn exchange_up_to<T>(
        &mut self,
        request: &Request,
        decode: &impl Fn(u16, &[u8]) -> Decoded<T>,
        limit: usize,
    ) -> Result<(Replies<T>, bool), Failure> {
        self.sequence = self.sequence.wrapping_add(1);
        let packet = packet(request, self.sequence);
        trace!(kind = request.kind, flags = request.flags, sequence = self.sequence, "netlink request");
        let kernel = SocketAddr::new(0, 0);
        self.socket.send_to(&packet, &kernel).await.map_err(Failure::Socket)?;
        let mut replies = Replies::new();
        loop {
            let sender = self.receive().await?;
            // Other processes can write to a netlink socket too.
            if sender.port_number() != 0 {
                continue;
            }
            if replies.take_datagram(&self.buffer, self.sequence, decode)? {
                return Ok((replies.finish()?, true));
            }
            if replies.found.len() > limit {
                return Ok((replies.finish()?, false));
            }
        }
    }

    /// One datagram, and who sent it. The kernel answers while the request is sent, so what it says is mostly there already,
    /// and waiting for it would take a multiple of the time.
    async fn receive(&mut self) -> Result<SocketAddr, Failure> {
        self.buffer.clear();
        self.buffer.reserve(RECEIVE_BYTES);
        match self.socket.socket_ref().recv_from(&mut self.buffer, libc::MSG_DONTWAIT) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            received => return received.map(|(_, sender)| sender).map_err(Failure::Socket),
        }
        let received = tokio::time::timeout(PATIENCE, self.socket.recv_from(&mut self.buffer)).await;
        received.map_err(|_elapsed| Failure::TimedOut)?.map_err(Failure::Socket)
    }
}

/// Strict checking, and acknowledgements with the kernel's words and without the request.
pub(super) fn set_options(socket: &Socket) -> io::Result<()> {
    socket.set_netlink_get_strict_chk(true)?;
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)
}

pub(super) fn packet(request: &Request, sequence: u32) -> Vec<u8> {
    let length = HEADER_BYTES + request.body.len();
    let mut header = NetlinkHeader::default();
    header.length = u32::try_from(length).unwrap_or(u32::MAX);
    header.message_type = request.kind;
    header.flags = request.flags | NLM_F_REQUEST;
    header.sequence_number = sequence;
    let mut packet = vec![0; HEADER_BYTES];
    header.emit(&mut packet);
    packet.extend_from_slice(&request.body);
    packet
}

/// What came so far in answer to one request.
pub(super) struct Replies<T> {
    pub(super) found: Vec<T>,
    /// Datagrams with anything in them but the end.
    datagrams: u32,
    malformed: Option<Malformed>,
    interrupted: bool,
}

impl<T> Replies<T> {
    pub(super) fn new() -> Self {
        Self { found: Vec::new(), datagrams: 0, malformed: None, interrupted: false }
    }

    /// Takes in one datagram, which may hold several messages. Says whether it was the last.
    pub(super) fn take_datagram(
        &mut self,
        datagram: &[u8],
        sequence: u32,
        decode: &impl Fn(u16, &[u8]) -> Decoded<T>,
    ) -> Result<bool, Failure> {
        let mut rest = datagram;
        let before = self.found.len();
        while !rest.is_empty() {
            let message = NetlinkBuffer::new_checked(rest).map_err(|error| Failure::Malformed(error.to_string()))?;
            let length = message.length() as usize;
            let payload = rest.get(HEADER_BYTES..length).unwrap_or_default();
            if message.sequence_number() == sequence
                && self.take_message(message.message_type(), message.flags(), payload, decode)?
            {
                return Ok(true);
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        self.datagrams += u32::from(self.found.len() > before);
        Ok(false)
    }

    /// Takes in one message of ours. Says whether it was the last.
    fn take_message(
        &mut self,
        kind: u16,
        flags: u16,
        payload: &[u8],
        decode: &impl Fn(u16, &[u8]) -> Decoded<T>,
    ) -> Result<bool, Failure> {
        self.interrupted |= flags & NLM_F_DUMP_INTR != 0;
        match kind {
            NLMSG_NOOP => Ok(false),
            NLMSG_ERROR => refusal(payload, flags, error_attributes(payload, flags)).map_or(Ok(true), Err),
            NLMSG_DONE => refusal(payload, flags, payload.get(4..).unwrap_or_default()).map_or(Ok(true), Err),
            NLMSG_OVERRUN => Err(Failure::Socket(io::Error::from_raw_os_error(libc::ENOBUFS))),
            _ => {
                match decode(kind, payload) {
                    Ok(found) => self.found.extend(found),
                    // The dump is read to its end all the same: the socket is to be usable afterwards.
                    Err(error) => self.malformed = self.malformed.take().or(Some(error)),
                }
                Ok(flags & NLM_F_MULTIPART == 0)
            }
        }
    }

    pub(super) fn finish(self) -> Result<Self, Failure> {
        match self {
            Self { interrupted: true, .. } => Err(Failure::Interrupted),
            Self { malformed: Some(Malformed(reason)), .. } => Err(Failure::Malformed(reason)),
            whole => Ok(whole),
        }
    }
}

/// The refusal that an `NLMSG_ERROR` or `NLMSG_DONE` carries; none if its code is 0 or missing.
fn refusal(payload: &[u8], flags: u16, attributes: &[u8]) -> Option<Failure> {
    let code = i32::from_ne_bytes(*payload.first_chunk()?);
    let text = if flags & NLM_F_ACK_TLVS != 0 { kernel_text(attributes) } else { None };
    (code != 0).then(|| Failure::Refused { errno: code.saturating_abs(), text })
}

/// The attributes behind the error code and the request that the kernel quotes (only its header if capped;
/// `include/uapi/linux/netlink.h`, `struct nlmsgerr`).
fn error_attributes(payload: &[u8], flags: u16) -> &[u8] {
    let quoted = if flags & NLM_F_CAPPED != 0 {
        HEADER_BYTES
    } else {
        let length = payload.get(4..8).and_then(|bytes| bytes.first_chunk()).copied().map_or(0, u32::from_ne_bytes);
        (length as usize).next_multiple_of(4)
    };
    quoted.checked_add(4).and_then(|start| payload.get(start..)).unwrap_or_default()
}

/// The kernel's own words among the attributes of a refusal.
pub(super) fn kernel_text(attributes: &[u8]) -> Option<String> {
    NlasIterator::new(attributes).map_while(Result::ok).find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG).map(
        |attribute| {
            let text = String::from_utf8_lossy(attribute.value());
            text.trim_end_matches('\0').chars().filter(|character| !character.is_control()).collect()
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTM_NEWROUTE: u16 = 24;

    fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = packet(&Request { kind, flags, body: payload.to_vec() }, sequence);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// Feeds one datagram as the answer to request 7; each message of one byte decodes to it, others not at all.
    fn feed(datagram: &[u8]) -> Result<Vec<u8>, Failure> {
        let decode = |_kind, payload: &[u8]| match payload {
            [byte] => Ok(Some(*byte)),
            _ => Err(Malformed("not one byte".into())),
        };
        let mut replies = Replies::new();
        replies.take_datagram(datagram, 7, &decode)?;
        replies.finish().map(|replies| replies.found)
    }

    fn route(sequence: u32, flags: u16, payload: &[u8]) -> Vec<u8> {
        message(RTM_NEWROUTE, NLM_F_MULTIPART | flags, sequence, payload)
    }

    fn done() -> Vec<u8> {
        message(NLMSG_DONE, NLM_F_MULTIPART, 7, &[0; 4])
    }

    #[test]
    fn only_the_answers_to_this_request_count() {
        let datagram = [route(6, 0, &[1]), route(7, 0, &[2]), route(7, 0, &[3]), done()].concat();
        assert_eq!(feed(&datagram).unwrap(), [2, 3]);
    }

    #[test]
    fn an_interrupted_dump_is_told() {
        let datagram = [route(7, 0, &[1]), route(7, NLM_F_DUMP_INTR, &[2]), done()].concat();
        assert!(matches!(feed(&datagram), Err(Failure::Interrupted)));
    }

    #[test]
    fn a_message_that_cannot_be_read_fails_the_whole_answer() {
        let datagram = [route(7, 0, &[1]), route(7, 0, &[2, 2]), route(7, 0, &[3]), done()].concat();
        assert!(matches!(feed(&datagram), Err(Failure::Malformed(reason)) if reason == "not one byte"));
    }

    #[test]
    fn a_refusal_has_the_errno_and_the_kernels_words() {
        let mut payload = (-libc::EINVAL).to_ne_bytes().to_vec();
        payload.extend_from_slice(&[0; HEADER_BYTES]);
        payload.extend_from_slice(&[13, 0, 1, 0]);
        payload.extend_from_slice(b"bad\x1b tos\0\0\0\0");
        let refused = feed(&message(NLMSG_ERROR, NLM_F_CAPPED | NLM_F_ACK_TLVS, 7, &payload));
        let Err(Failure::Refused { errno, text }) = refused else { panic!("{refused:?}") };
        assert_eq!((errno, text.as_deref()), (libc::EINVAL, Some("bad tos")));
        let refused = feed(&message(NLMSG_DONE, NLM_F_MULTIPART, 7, &(-libc::ENOENT).to_ne_bytes()));
        assert!(matches!(refused, Err(Failure::Refused { errno: libc::ENOENT, text: None })));
        assert!(feed(&message(NLMSG_ERROR, 0, 7, &[0; 20])).unwrap().is_empty());
    }

    #[test]
    fn garbage_ends_the_exchange_without_hanging() {
        let whole = [route(7, 0, &[1]), done()].concat();
        for length in 0..whole.len() {
            let _either = feed(&whole[..length]);
        }
        assert!(feed(&[0; 64]).is_err());
        assert!(feed(&[0xff; 64]).is_err());
        let i32_min = message(NLMSG_ERROR, NLM_F_ACK_TLVS, 7, &i32::MIN.to_ne_bytes());
        assert!(matches!(feed(&i32_min), Err(Failure::Refused { .. })));
    }
}
