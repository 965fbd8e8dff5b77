//! The largest packet that gets to a peer unfragmented, by echo requests of falling size (the way of RFC 4821, with ICMP).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use nix::{setsockopt_impl, sockopt_impl};
use socket2::{Domain, Protocol, Socket, Type};

use super::probe::{checksum, reply_sequence_of};
use crate::core::verify::PathMtu;

/// Every IPv4 path takes this much (RFC 791), every IPv6 path that (RFC 8200).
const SMALLEST: [u32; 2] = [576, 1280];
/// Each size is tried so often: single packets get lost.
const ATTEMPTS: u32 = 2;
/// The search ends when it knows the size this closely.
const GRAIN: u32 = 8;
/// Header of an echo request.
const ICMP_HEADER: usize = 8;

/// Where to search.
#[derive(Clone, Debug)]
pub struct Search {
    /// Whom to ask.
    pub peer: IpAddr,
    /// From which of the host's addresses.
    pub from: IpAddr,
    /// The device of the VRF that it is asked in.
    pub vrf: Option<String>,
    /// Largest packet of the device, inside IP header included.
    pub device: u32,
    /// How long an answer is waited for.
    pub patience: Duration,
    /// When to give up.
    pub deadline: Instant,
}

/// What became of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    /// The kernel, or a router on the way, says that it is too big.
    TooBig,
    Lost,
}

/// Searches. `None` where not even the smallest packet is answered, or the time is over before anything is known.
///
/// # Errors
/// No raw socket (`CAP_NET_RAW`), or the kernel does not send from there.
pub fn search(search: &Search) -> io::Result<Option<PathMtu>> {
    let prober = Prober::open(search)?;
    let device = search.device.min(u16::MAX.into());
    let first = prober.ask(device)?;
    if first == Fate::Answered {
        return Ok(Some(PathMtu { device, largest: device, silent: false }));
    }
    let [v4, v6] = SMALLEST;
    let smallest = if search.peer.is_ipv4() { v4 } else { v6 };
    if device <= smallest || prober.ask(smallest)? != Fate::Answered {
        return Ok(None);
    }
    let (mut good, mut bad, mut above) = (smallest, device, first);
    while bad - good > GRAIN && Instant::now() < search.deadline {
        let middle = good + (bad - good) / 2;
        match prober.ask(middle)? {
            Fate::Answered => good = middle,
            fate => (bad, above) = (middle, fate),
        }
    }
    Ok(Some(PathMtu { device, largest: good, silent: above == Fate::Lost }))
}

struct Prober {
    socket: Socket,
    peer: IpAddr,
    id: u16,
    patience: Duration,
    sequence: std::cell::Cell<u16>,
}

impl Prober {
    fn open(search: &Search) -> io::Result<Self> {
        let (domain, protocol) = match search.peer {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        socket.bind_device(search.vrf.as_deref().map(str::as_bytes))?;
        socket.bind(&SocketAddr::new(search.from, 0).into())?;
        // Connected, it is told of errors that come back, and of nobody else's packets.
        socket.connect(&SocketAddr::new(search.peer, 0).into())?;
        set_probing(&socket, search.peer)?;
        let id = u16::try_from(nix::unistd::gettid().as_raw() & 0xffff).unwrap_or_default() ^ 0x8000;
        Ok(Self { socket, peer: search.peer, id, patience: search.patience, sequence: std::cell::Cell::new(0) })
    }

    /// Sends one packet of this size, and again if nothing comes of it.
    fn ask(&self, size: u32) -> io::Result<Fate> {
        for _ in 0..ATTEMPTS {
            match self.once(size)? {
                Fate::Lost => {}
                fate => return Ok(fate),
            }
        }
        Ok(Fate::Lost)
    }

    fn once(&self, size: u32) -> io::Result<Fate> {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        match self.socket.send(&self.echo(size, sequence)) {
            Ok(_bytes) => {}
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => return Ok(Fate::TooBig),
            // An error of the packet before, which is told with the next call.
            Err(error) if is_of_the_path(&error) => return Ok(Fate::Lost),
            Err(error) => return Err(error),
        }
        self.answer(sequence)
    }

    fn answer(&self, sequence: u16) -> io::Result<Fate> {
        let deadline = Instant::now() + self.patience;
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Fate::Lost);
            }
            self.socket.set_read_timeout(Some(left))?;
            match nix::sys::socket::recv(self.socket.as_raw_fd(), &mut buffer, nix::sys::socket::MsgFlags::empty()) {
                Ok(length) => {
                    let packet = buffer.get(..length).unwrap_or_default();
                    if reply_sequence_of(self.peer, self.id, packet) == Some(sequence) {
                        return Ok(Fate::Answered);
                    }
                }
                Err(nix::errno::Errno::EMSGSIZE) => return Ok(Fate::TooBig),
                Err(nix::errno::Errno::EAGAIN) => return Ok(Fate::Lost),
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) if is_of_the_path(&errno.into()) => return Ok(Fate::Lost),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// An echo request that makes a packet of this size.
    fn echo(&self, size: u32, sequence: u16) -> Vec<u8> {
        let (kind, header) = if self.peer.is_ipv4() { (8, 20) } else { (128, 40) };
        let length = usize::try_from(size).unwrap_or_default().saturating_sub(header).max(ICMP_HEADER);
        let mut packet = vec![0; length];
        let head = [[kind, 0], [0, 0], self.id.to_be_bytes(), sequence.to_be_bytes()].concat();
        packet.splice(..ICMP_HEADER, head);
        if self.peer.is_ipv4() {
            let [high, low] = checksum(&packet).to_be_bytes();
            packet.splice(2..4, [high, low]);
        }
        packet
    }
}

/// What the path answers instead of an echo reply.
fn is_of_the_path(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ECONNREFUSED
                | libc::EHOSTDOWN
                | libc::ENOBUFS
                | libc::EPROTO
        )
    )
}

sockopt_impl!(
    /// How the kernel goes about the path's MTU (`IP_MTU_DISCOVER`, ip(7)).
    MtuDiscovery,
    SetOnly,
    libc::IPPROTO_IP,
    libc::IP_MTU_DISCOVER,
    libc::c_int
);

sockopt_impl!(
    /// The same for IPv6 (`IPV6_MTU_DISCOVER`, ipv6(7)).
    MtuDiscoveryV6,
    SetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_MTU_DISCOVER,
    libc::c_int
);

/// Never fragmented, and whatever was learned about the path before left aside.
fn set_probing(socket: &Socket, peer: IpAddr) -> io::Result<()> {
    match peer {
        IpAddr::V4(_) => setsockopt(socket, MtuDiscovery, &libc::IP_PMTUDISC_PROBE)?,
        IpAddr::V6(_) => {
            setsockopt(socket, MtuDiscoveryV6, &libc::IPV6_PMTUDISC_PROBE)?;
            setsockopt(socket, sockopt::Ipv6DontFrag, &true)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_makes_a_packet_of_its_size() {
        let own = IpAddr::from([127, 0, 0, 1]);
        let search = Search {
            peer: own,
            from: own,
            vrf: None,
            device: 1500,
            patience: Duration::from_secs(1),
            deadline: Instant::now(),
        };
        let Ok(prober) = Prober::open(&search) else {
            assert!(!nix::unistd::geteuid().is_root(), "root has raw sockets");
            return;
        };
        let echo = prober.echo(1500, 7);
        assert_eq!(echo.len() + 20, 1500);
        assert_eq!(checksum(&echo), 0);
    }
}
