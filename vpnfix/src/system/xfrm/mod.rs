//! The kernel's security associations (`XFRM_MSG_GETSA`), without their keys, and policies (`XFRM_MSG_GETPOLICY`).
//!
//! A dump carries the keys of every association. The crate `netlink-packet-xfrm` would decode them into values of their
//! own; here only the fixed head and the attributes that vpnfix wants are looked at, the algorithms' bytes are stepped
//! over, and the buffer is wiped before it goes.

mod decode;
mod policy;

use std::io;
use std::time::{Duration, Instant};

use netlink_packet_core::{
    Emitable as _, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, Parseable as _,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_XFRM};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::core::model::{Policy, SecurityAssociation};

const XFRM_MSG_NEWSA: u16 = 0x10;
const XFRM_MSG_GETSA: u16 = 0x12;
const XFRM_MSG_NEWPOLICY: u16 = 0x13;
const XFRM_MSG_GETPOLICY: u16 = 0x15;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER_BYTES: usize = 16;
/// A dump's datagrams are no larger than 32 KiB (`netlink_dump`, `net/netlink/af_netlink.c`).
const RECEIVE_BYTES: usize = 64 * 1024;
/// The kernel answers while it is asked; only a broken socket takes this long.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often an interrupted dump is taken.
const ATTEMPTS: u32 = 5;

/// The associations cannot be read.
#[derive(Debug, Error)]
pub enum XfrmError {
    /// No socket: a kernel without XFRM.
    #[error("open an XFRM netlink socket")]
    Open {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused; without `CAP_NET_ADMIN` it does.
    #[error("list IPsec associations or policies")]
    Refused {
        /// The errno.
        #[source]
        source: io::Error,
    },
    /// The socket failed.
    #[error("list IPsec associations or policies: the netlink socket failed")]
    Socket {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel did not answer.
    #[error("list IPsec associations or policies: no answer from the kernel")]
    TimedOut,
    /// The list kept changing, in all attempts.
    #[error("list IPsec associations or policies: it kept changing while it was read")]
    Interrupted,
    /// The answer makes no sense. Nothing of its content is told: it holds keys.
    #[error("list IPsec associations or policies: an answer that cannot be read")]
    Malformed,
}

impl XfrmError {
    /// Is a privilege missing?
    #[must_use]
    pub fn is_privilege(&self) -> bool {
        matches!(self, Self::Refused { source } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Every association of the namespace of the calling thread.
///
/// # Errors
/// A kernel without XFRM, `CAP_NET_ADMIN` missing, or an answer that makes no sense.
pub fn associations() -> Result<Vec<SecurityAssociation>, XfrmError> {
    list(ASSOCIATIONS)
}

/// Every policy of the namespace of the calling thread, but those of single sockets.
///
/// # Errors
/// A kernel without XFRM, `CAP_NET_ADMIN` missing, or an answer that makes no sense.
pub fn policies() -> Result<Vec<Policy>, XfrmError> {
    list(POLICIES)
}

/// A list that the kernel gives.
#[derive(Clone, Copy)]
struct List<T> {
    /// What asks for it.
    get: u16,
    /// What carries one of it.
    new: u16,
    /// Outer `None` for a message that makes no sense, inner for one that is of no interest.
    decode: fn(&[u8]) -> Option<Option<T>>,
}

const ASSOCIATIONS: List<SecurityAssociation> =
    List { get: XFRM_MSG_GETSA, new: XFRM_MSG_NEWSA, decode: decode::association };
const POLICIES: List<Policy> = List { get: XFRM_MSG_GETPOLICY, new: XFRM_MSG_NEWPOLICY, decode: policy::policy };

fn list<T>(list: List<T>) -> Result<Vec<T>, XfrmError> {
    let mut socket = Socket::new(NETLINK_XFRM).map_err(|source| XfrmError::Open { source })?;
    socket.bind_auto().map_err(|source| XfrmError::Open { source })?;
    let mut buffer = Zeroizing::new(vec![0; RECEIVE_BYTES]);
    for sequence in 1..=ATTEMPTS {
        match dump(&list, &socket, &mut buffer, sequence) {
            Err(XfrmError::Interrupted) => {}
            outcome => return outcome,
        }
    }
    Err(XfrmError::Interrupted)
}

fn dump<T>(list: &List<T>, socket: &Socket, buffer: &mut Vec<u8>, sequence: u32) -> Result<Vec<T>, XfrmError> {
    let failed = |source| XfrmError::Socket { source };
    let kernel = SocketAddr::new(0, 0);
    socket.send_to(&request(list.get, sequence), &kernel, 0).map_err(failed)?;
    let deadline = Instant::now() + PATIENCE;
    let mut dump = Dump::of(list);
    loop {
        wait(socket, deadline)?;
        let (received, sender) = socket.recv_from(&mut buffer.as_mut_slice(), 0).map_err(failed)?;
        // Other processes can write to a netlink socket too.
        if sender.port_number() != 0 {
            continue;
        }
        if dump.take_datagram(buffer.get(..received).unwrap_or_default(), sequence)? {
            return if dump.interrupted { Err(XfrmError::Interrupted) } else { Ok(dump.found) };
        }
    }
}

fn wait(socket: &Socket, deadline: Instant) -> Result<(), XfrmError> {
    use std::os::fd::AsFd as _;

    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], left) {
            Ok(0) => return Err(XfrmError::TimedOut),
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(XfrmError::Socket { source: errno.into() }),
        }
    }
}

/// A dump of everything needs no body (`xfrm_dump_sa` and `xfrm_dump_policy`, `net/xfrm/xfrm_user.c`).
fn request(kind: u16, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.length = u32::try_from(HEADER_BYTES).unwrap_or(u32::MAX);
    header.message_type = kind;
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    header.sequence_number = sequence;
    let mut packet = vec![0; HEADER_BYTES];
    header.emit(&mut packet);
    packet
}

/// What came so far of one dump.
struct Dump<'a, T> {
    list: &'a List<T>,
    found: Vec<T>,
    interrupted: bool,
}

impl<'a, T> Dump<'a, T> {
    fn of(list: &'a List<T>) -> Self {
        Self { list, found: Vec::new(), interrupted: false }
    }

    /// Takes one datagram. Says whether it was the last.
    fn take_datagram(&mut self, mut rest: &[u8], sequence: u32) -> Result<bool, XfrmError> {
        while !rest.is_empty() {
            let message = NetlinkBuffer::new_checked(rest).map_err(|_content| XfrmError::Malformed)?;
            let header = NetlinkHeader::parse(&message).map_err(|_content| XfrmError::Malformed)?;
            let length = usize::try_from(header.length).map_err(|_size| XfrmError::Malformed)?;
            let payload = rest.get(HEADER_BYTES..length).ok_or(XfrmError::Malformed)?;
            if header.sequence_number == sequence {
                self.interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
                match header.message_type {
                    NLMSG_DONE => return end(payload).map(|()| true),
                    NLMSG_ERROR => return end(payload).map(|()| true),
                    kind if kind == self.list.new => {
                        self.found.extend((self.list.decode)(payload).ok_or(XfrmError::Malformed)?);
                    }
                    _ => {}
                }
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(false)
    }
}

/// The end of a dump, or a refusal: a negative errno, or 0.
fn end(payload: &[u8]) -> Result<(), XfrmError> {
    let code = payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    match code {
        0 => Ok(()),
        code => Err(XfrmError::Refused { source: io::Error::from_raw_os_error(code.saturating_abs()) }),
    }
}

#[cfg(test)]
mod tests;
