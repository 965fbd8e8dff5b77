//! vpnfix's own probe: one ICMP echo a second to each target, from one thread of its own (RFC 792, RFC 4443).
//!
//! The sockets are bound to no device but a VRF's, so that each echo is routed like any packet of this host or VRF, from the
//! source address given. Traffic of this thread and with this identifier is vpnfix's own, and is told as such.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockaddrStorage, recvfrom};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

/// Time from one echo to the next.
const INTERVAL: Duration = Duration::from_secs(1);
/// Echoes whose replies are waited for, each target.
const OUTSTANDING: usize = 16;
/// An echo is told from other data by these.
const PAYLOAD: &[u8; 16] = b"vpnfix probe....";
/// Longest reply that is read: the largest IPv4 header, the ICMP header, the payload, and some room.
const RECEIVE_BYTES: usize = 256;
/// Packets taken from a socket before the clock is looked at again.
const BATCH: usize = 64;

const ICMP_ECHO_REPLY: u8 = 0;
const ICMP_ECHO: u8 = 8;
const ICMPV6_ECHO: u8 = 128;
const ICMPV6_ECHO_REPLY: u8 = 129;

/// Where to send an echo.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProbeTarget {
    /// Whom to ask.
    pub destination: IpAddr,
    /// From which of the host's addresses; the kernel chooses where there is none.
    pub source: Option<IpAddr>,
    /// The device of the VRF that it is asked in: a program of a VRF binds its sockets to that.
    pub vrf: Option<String>,
}

/// What came of one target so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeResult {
    /// Whom was asked.
    pub destination: IpAddr,
    /// From which address, where one was given.
    pub source: Option<IpAddr>,
    /// Echoes sent; those that the kernel refused to send do not count.
    pub sent: u64,
    /// Replies, each echo's first.
    pub answered: u64,
    /// From the last answered echo to its reply.
    pub last_round_trip: Option<Duration>,
    /// Why the last echo could not be sent, if so: no route, an address that is not the host's …
    pub last_error: Option<String>,
}

/// The probe cannot run.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// No raw socket; that needs `CAP_NET_RAW`.
    #[error("open a raw ICMP socket")]
    Socket {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No thread.
    #[error("start the probe's thread")]
    Thread {
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ProbeError {
    /// Is a privilege missing?
    #[must_use]
    pub fn is_privilege(&self) -> bool {
        let (Self::Socket { source } | Self::Thread { source }) = self;
        source.kind() == io::ErrorKind::PermissionDenied
    }
}

/// The running probe, in the namespace of the thread that started it. Dropping it ends it.
pub struct Probe {
    thread_id: u32,
    icmp_id: u16,
    results: Arc<Mutex<Vec<ProbeResult>>>,
    /// Sending into it lets the thread begin; closing it unused ends it.
    gate: Option<mpsc::Sender<()>>,
    /// Closing it wakes and ends the thread.
    stop: Option<UnixStream>,
    handle: Option<JoinHandle<()>>,
}

impl Probe {
    /// Starts the thread and sends the first echoes at once.
    ///
    /// # Errors
    /// As [`Probe::prepare`].
    pub fn start(targets: &[ProbeTarget]) -> Result<Self, ProbeError> {
        let mut probe = Self::prepare(targets)?;
        probe.begin();
        Ok(probe)
    }

    /// Sends the first echoes, of a probe that was prepared. Once is enough.
    pub fn begin(&mut self) {
        // The thread waits for this sender to be used or to go away; it is gone if the probe has begun.
        if let Some(gate) = self.gate.take() {
            let _sent = gate.send(());
        }
    }

    /// Opens the sockets and starts the thread, which sends nothing until [`Probe::begin`]: its identity must be known
    /// to the kernel side before the first echo leaves.
    ///
    /// # Errors
    /// Without raw sockets (`CAP_NET_RAW`). A target that cannot be reached is no error, but told in its result.
    pub fn prepare(targets: &[ProbeTarget]) -> Result<Self, ProbeError> {
        let thread_error = |source| ProbeError::Thread { source };
        let sessions = targets.iter().map(Session::open).collect::<Result<Vec<_>, _>>()?;
        let results = Arc::new(Mutex::new(sessions.iter().map(|session| session.result.clone()).collect()));
        let (stop, stopped) = UnixStream::pair().map_err(thread_error)?;
        let (ready, started) = mpsc::channel();
        let (gate, opened) = mpsc::channel();
        let shared = Arc::clone(&results);
        let run = move || {
            let id = nix::unistd::gettid().as_raw().cast_unsigned();
            if ready.send(id).is_ok() && opened.recv().is_ok() {
                Rounds { id: identifier(id), sessions, results: &shared, stopped: &stopped }.run();
            }
        };
        let handle = thread::Builder::new().name("vpnfix-probe".into()).spawn(run).map_err(thread_error)?;
        let gone = |_closed| thread_error(io::Error::other("it ended at once"));
        let thread_id = started.recv().map_err(gone)?;
        let icmp_id = identifier(thread_id);
        Ok(Self { thread_id, icmp_id, results, gate: Some(gate), stop: Some(stop), handle: Some(handle) })
    }

    /// The id of the sending thread (`gettid`).
    #[must_use]
    pub fn thread_id(&self) -> u32 {
        self.thread_id
    }

    /// The identifier in the echoes, host byte order.
    #[must_use]
    pub fn icmp_id(&self) -> u16 {
        self.icmp_id
    }

    /// What came so far, in the order of the targets.
    #[must_use]
    pub fn poll(&self) -> Vec<ProbeResult> {
        locked(&self.results).clone()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        drop(self.gate.take());
        drop(self.stop.take());
        if let Some(handle) = self.handle.take() {
            // Nothing is to be done about a panic over there: the probe ends either way.
            let _ended = handle.join();
        }
    }
}

/// Thread ids and the process ids that ping(8) makes its identifiers from are of one numbering, so they do not clash.
fn identifier(thread_id: u32) -> u16 {
    u16::try_from(thread_id & 0xffff).unwrap_or_default().max(1)
}

fn locked(results: &Mutex<Vec<ProbeResult>>) -> MutexGuard<'_, Vec<ProbeResult>> {
    // The values are whole after each assignment, whatever panicked.
    results.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One target with its socket.
struct Session {
    /// None where the family or the source address is not to be had; the result says so.
    socket: Option<Socket>,
    result: ProbeResult,
    sequence: u16,
    outstanding: VecDeque<(u16, Instant)>,
}

impl Session {
    fn open(target: &ProbeTarget) -> Result<Self, ProbeError> {
        let ProbeTarget { destination, source, .. } = *target;
        let mut result =
            ProbeResult { destination, source, sent: 0, answered: 0, last_round_trip: None, last_error: None };
        let socket = match open_socket(target) {
            Ok(socket) => Some(socket),
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                return Err(ProbeError::Socket { source });
            }
            Err(error) => {
                result.last_error = Some(error.to_string());
                None
            }
        };
        Ok(Self { socket, result, sequence: 0, outstanding: VecDeque::new() })
    }

    fn send(&mut self, id: u16) {
        let Some(socket) = &self.socket else { return };
        self.sequence = self.sequence.wrapping_add(1);
        let echo = echo(self.result.destination, id, self.sequence);
        match socket.send_to(&echo, &SocketAddr::new(self.result.destination, 0).into()) {
            Ok(_bytes) => {
                self.result.sent += 1;
                self.result.last_error = None;
                self.outstanding.truncate(OUTSTANDING - 1);
                self.outstanding.push_front((self.sequence, Instant::now()));
            }
            Err(error) => self.result.last_error = Some(error.to_string()),
        }
    }

    /// Takes in what has arrived, but no more than a batch: a flood of ICMP must not keep the next echo from leaving.
    fn receive(&mut self, id: u16) {
        let Some(socket) = &self.socket else { return };
        let mut buffer = [0; RECEIVE_BYTES];
        for _ in 0..BATCH {
            let Ok((length, sender)) = recvfrom::<SockaddrStorage>(socket.as_raw_fd(), &mut buffer) else { return };
            let now = Instant::now();
            if sender.as_ref().and_then(sender_address) != Some(self.result.destination) {
                continue;
            }
            let packet = buffer.get(..length).unwrap_or_default();
            let Some(sequence) = reply_sequence(self.result.destination, id, packet) else { continue };
            if let Some(index) = self.outstanding.iter().position(|(asked, _)| *asked == sequence)
                && let Some((_, asked_at)) = self.outstanding.remove(index)
            {
                self.result.answered += 1;
                self.result.last_round_trip = Some(now.saturating_duration_since(asked_at));
            }
        }
    }
}

fn sender_address(sender: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = sender.as_sockaddr_in().map(|address| address.ip().into());
    v4.or_else(|| sender.as_sockaddr_in6().map(|address| address.ip().into()))
}

fn open_socket(target: &ProbeTarget) -> io::Result<Socket> {
    let (domain, protocol) = match target.destination {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.bind_device(target.vrf.as_deref().map(str::as_bytes))?;
    if let Some(source) = target.source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(socket)
}

/// The thread's work.
struct Rounds<'a> {
    id: u16,
    sessions: Vec<Session>,
    results: &'a Mutex<Vec<ProbeResult>>,
    stopped: &'a UnixStream,
}

impl Rounds<'_> {
    fn run(&mut self) {
        let mut next = Instant::now();
        loop {
            let now = Instant::now();
            if now >= next {
                self.sessions.iter_mut().for_each(|session| session.send(self.id));
                next = now + INTERVAL;
            }
            self.sessions.iter_mut().for_each(|session| session.receive(self.id));
            *locked(self.results) = self.sessions.iter().map(|session| session.result.clone()).collect();
            if self.wait(next.saturating_duration_since(now)) {
                return;
            }
        }
    }

    /// Waits for a packet, the time of the next echo, or the end. Says whether it is the end.
    fn wait(&self, time: Duration) -> bool {
        let sockets = self.sessions.iter().filter_map(|session| session.socket.as_ref());
        let mut watched = vec![PollFd::new(self.stopped.as_fd(), PollFlags::POLLIN)];
        watched.extend(sockets.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)));
        // Rounded up, lest it spin through the last millisecond.
        let timeout = PollTimeout::try_from(time + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut watched, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {
                watched.first().and_then(PollFd::revents).is_some_and(|events| !events.is_empty())
            }
            Err(error) => {
                tracing::warn!(%error, "the probe ends: it cannot wait for replies");
                true
            }
        }
    }
}

/// An echo request. The checksum of ICMPv6 covers the addresses, so the kernel makes it (RFC 3542, section 3.1).
fn echo(destination: IpAddr, id: u16, sequence: u16) -> Vec<u8> {
    let kind = if destination.is_ipv4() { ICMP_ECHO } else { ICMPV6_ECHO };
    let mut packet = vec![kind, 0, 0, 0];
    packet.extend_from_slice(&id.to_be_bytes());
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(PAYLOAD);
    if destination.is_ipv4() {
        let [high, low] = checksum(&packet).to_be_bytes();
        packet.splice(2..4, [high, low]);
    }
    packet
}

/// The Internet checksum (RFC 1071).
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [high] => u32::from(high) << 8,
        _ => 0,
    };
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

/// The sequence number of one of this probe's echo replies; `None` for any other packet.
fn reply_sequence(destination: IpAddr, id: u16, packet: &[u8]) -> Option<u16> {
    let message = echo_reply(destination, packet)?;
    reply_sequence_of(destination, id, packet).filter(|_| message.get(8..) == Some(PAYLOAD))
}

/// The sequence number of an echo reply to this identifier, whatever it carries; `None` for any other packet.
pub(super) fn reply_sequence_of(destination: IpAddr, id: u16, packet: &[u8]) -> Option<u16> {
    let &[_, _, _, _, i0, i1, s0, s1] = echo_reply(destination, packet)?.first_chunk::<8>()?;
    (u16::from_be_bytes([i0, i1]) == id).then(|| u16::from_be_bytes([s0, s1]))
}

/// An echo reply without its IP header, which a raw IPv4 socket gives too, and an IPv6 one does not.
fn echo_reply(destination: IpAddr, packet: &[u8]) -> Option<&[u8]> {
    let (kind, message) = match destination {
        IpAddr::V4(_) => (ICMP_ECHO_REPLY, packet.get(usize::from(packet.first()? & 0x0f) * 4..)?),
        IpAddr::V6(_) => (ICMPV6_ECHO_REPLY, packet),
    };
    matches!(message, [got, 0, ..] if *got == kind).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0xff]), 0x00ff);
        assert_eq!(checksum(&[]), 0xffff);
        assert_eq!(checksum(&echo(V4, 0x1234, 7)), 0);
    }

    #[test]
    fn a_reply_is_known_by_kind_identifier_and_payload() {
        let reply = |kind: u8, id: u16, header: usize| {
            let mut packet = vec![0; header];
            if let Some(first) = packet.first_mut() {
                *first = 0x40 | u8::try_from(header / 4).unwrap();
            }
            let mut message = echo(V4, id, 9);
            message[0] = kind;
            packet.extend_from_slice(&message);
            packet
        };
        assert_eq!(reply_sequence(V4, 5, &reply(0, 5, 20)), Some(9));
        assert_eq!(reply_sequence(V4, 5, &reply(0, 5, 60)), Some(9));
        assert_eq!(reply_sequence(V4, 5, &reply(8, 5, 20)), None, "our own echo, on the loopback device");
        assert_eq!(reply_sequence(V4, 6, &reply(0, 5, 20)), None);
        assert_eq!(reply_sequence(V6, 5, &reply(129, 5, 0)), Some(9));
        let whole = reply(0, 5, 20);
        for length in 0..whole.len() {
            assert_eq!(reply_sequence(V4, 5, &whole[..length]), None);
        }
    }
}
