//! Sockets of the namespace: TCP's, and the listening ones of daemons on this machine.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::host::parse_address;
use crate::core::verify::{TcpSocket, TcpState};

/// All TCP sockets of the calling thread's namespace. IPv4 addresses mapped into IPv6 are told as IPv4.
///
/// # Errors
/// If /proc cannot be read. A kernel without IPv6 has no IPv6 ones.
pub fn tcp() -> io::Result<Vec<TcpSocket>> {
    let mut sockets = parse_tcp(&read("/proc/thread-self/net/tcp")?);
    match read("/proc/thread-self/net/tcp6") {
        Ok(table) => sockets.extend(parse_tcp(&table)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(sockets)
}

/// Paths of the Unix sockets that are listened on and were made in the calling thread's namespace. By them a daemon of this
/// namespace is told from one of another, whose socket can be connected to all the same.
///
/// # Errors
/// If /proc cannot be read.
pub fn unix_listeners() -> io::Result<Vec<PathBuf>> {
    Ok(parse_unix(&read("/proc/thread-self/net/unix")?))
}

fn read(path: &str) -> io::Result<String> {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// `/proc/net/tcp` and `tcp6` (proc_pid_net(5)): slot, local end, remote end, state …
fn parse_tcp(table: &str) -> Vec<TcpSocket> {
    let socket = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (local, peer) = (end(words.next()?)?, end(words.next()?)?);
        Some(TcpSocket { local, peer, state: state(words.next()?)? })
    };
    table.lines().filter_map(socket).collect()
}

fn end(word: &str) -> Option<SocketAddr> {
    let (address, port) = word.split_once(':')?;
    Some(SocketAddr::new(parse_address(address)?, u16::from_str_radix(port, 16).ok()?))
}

fn state(word: &str) -> Option<TcpState> {
    Some(match u8::from_str_radix(word, 16).ok()? {
        1 => TcpState::Established,
        2 => TcpState::SynSent,
        3 | 12 => TcpState::SynReceived,
        10 => TcpState::Listen,
        _ => TcpState::Closing,
    })
}

/// Set in the flags of a socket that listens (`__SO_ACCEPTCON`).
const ACCEPTS: u32 = 1 << 16;

/// `/proc/net/unix`: number, references, protocol, flags, type, state, inode, path. Abstract names begin with an @.
fn parse_unix(table: &str) -> Vec<PathBuf> {
    let listener = |line: &str| {
        let mut rest = line;
        let mut flags = None;
        for column in 0..7 {
            let (word, behind) = rest.trim_start().split_once(' ')?;
            if column == 3 {
                flags = u32::from_str_radix(word, 16).ok();
            }
            rest = behind;
        }
        let path = rest.trim_start();
        (flags? & ACCEPTS != 0 && path.starts_with('/')).then(|| PathBuf::from(path))
    };
    table.lines().filter_map(listener).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn tcp_sockets_have_ends_and_states() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n\
            0: 00000000:00B3 00000000:0000 0A 00000000:00000000\n\
            1: 310CA8C0:B534 3537FEA9:00B3 02 00000001:00000000\n\
            2: 3637FEA9:00B3 3537FEA9:DB78 03 00000000:00000000\n\
            3: broken\n\
            4: 3637FEA9:00B3 3537FEA9:DB79 06 00000000:00000000\n";
        let sockets = parse_tcp(table);
        let states: Vec<TcpState> = sockets.iter().map(|socket| socket.state).collect();
        assert_eq!(states, [TcpState::Listen, TcpState::SynSent, TcpState::SynReceived, TcpState::Closing]);
        assert_eq!(sockets[1].local, "192.168.12.49:46388".parse().unwrap());
        assert_eq!(sockets[1].peer, "169.254.55.53:179".parse().unwrap());
    }

    #[test]
    fn only_listening_paths_are_told() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 19734 /run/frr/bgpd.vty\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 19735 /run/a b.ctl\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 19736 /run/frr/bgpd.vty\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 19737 @abstract\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 19738\n";
        assert_eq!(parse_unix(table), [PathBuf::from("/run/frr/bgpd.vty"), PathBuf::from("/run/a b.ctl")]);
    }

    #[test]
    fn a_listener_of_this_namespace_is_seen() {
        let path = std::env::temp_dir().join(format!("vpnfix-listener-{}", std::process::id()));
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let found = unix_listeners().unwrap().contains(&path);
        std::fs::remove_file(&path).unwrap();
        assert!(found);
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "[ -~\n]{0,200}") {
            let _any = (parse_tcp(&text), parse_unix(&text));
        }
    }
}
