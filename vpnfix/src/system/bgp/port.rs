//! A connection to BGP's port, closed again at once.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::core::verify::Port;

/// BGP's port.
const BGP: u16 = 179;

/// Connects from one of the host's addresses, in a VRF where one is named, to a peer's BGP port, and closes the connection without a word. Not to be asked
/// of a peer with which BGP is up: to it a second connection stands for a restart (RFC 4724, section 4.2).
#[must_use]
pub fn connect(from: IpAddr, vrf: Option<&str>, peer: IpAddr, patience: Duration) -> Port {
    match try_connect(from, vrf, peer, patience) {
        Ok(()) => Port::Open,
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => Port::Refused,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Port::Silent,
            _ => Port::Failed(error.to_string()),
        },
    }
}

fn try_connect(from: IpAddr, vrf: Option<&str>, peer: IpAddr, patience: Duration) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(SocketAddr::new(peer, BGP)), Type::STREAM, Some(Protocol::TCP))?;
    socket.bind_device(vrf.map(str::as_bytes))?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect_timeout(&SocketAddr::new(peer, BGP).into(), patience)?;
    // A reset instead of the long farewell: nothing of it stays on either side.
    socket.set_linger(Some(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_without_a_listener_refuses() {
        let own = IpAddr::from([127, 0, 0, 1]);
        // Nothing listens on BGP's port of the machines that build.
        assert_eq!(connect(own, None, own, Duration::from_secs(5)), Port::Refused);
        assert!(matches!(connect(IpAddr::from([192, 0, 2, 77]), None, own, Duration::from_secs(1)), Port::Failed(_)));
    }
}
