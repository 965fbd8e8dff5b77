//! Traffic inside the scene's own namespaces.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

/// Runs `work` on a new thread inside a named namespace.
///
/// # Panics
///
/// If the namespace cannot be entered, or `work` panics.
pub fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    let file = File::open(Path::new("/run/netns").join(namespace)).expect("no such namespace");
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(&file, CloneFlags::CLONE_NEWNET).expect("the namespace could not be entered");
            work()
        });
        thread.join().expect("the work in the namespace panicked")
    })
}

/// A UDP socket inside a namespace, usable from any thread: a socket stays where it was made.
pub fn udp(namespace: &str, port: u16) -> UdpSocket {
    inside(namespace, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).expect("no UDP socket"))
}

/// Sends datagrams one by one on an unconnected socket, so that each is looked up. Returns how many were sent.
///
/// # Panics
///
/// If one cannot be sent.
pub fn blast(namespace: &str, to: Ipv4Addr, datagrams: u64) -> u64 {
    let socket = udp(namespace, 0);
    for number in 0..datagrams {
        // A full device queue is no error of UDP's; anything else is, and would make the counts differ.
        socket.send_to(b"vpnfix scene", (to, 9)).unwrap_or_else(|error| panic!("datagram {number} to {to}: {error}"));
    }
    datagrams
}

/// Whether TCP port 179 can be connected to from a namespace.
pub fn bgp_connects(namespace: &str, to: Ipv4Addr) -> bool {
    let target = SocketAddr::from((to, 179));
    inside(namespace, || TcpStream::connect_timeout(&target, Duration::from_secs(2)).is_ok())
}

/// Whether `ping` has an answer.
///
/// # Panics
///
/// If ping cannot be run.
pub fn pings(namespace: &str, to: Ipv4Addr) -> bool {
    pings_from(namespace, None, to)
}

/// Whether `ping` has an answer, bound to a device where one is named.
///
/// # Panics
///
/// If ping cannot be run.
pub fn pings_from(namespace: &str, device: Option<&str>, to: Ipv4Addr) -> bool {
    let mut ping = Command::new("ip");
    ping.args(["netns", "exec", namespace, "ping", "-n", "-q", "-c", "2", "-i", "0.2", "-W", "2"]);
    ping.args(device.map(|device| ["-I", device]).iter().flatten()).arg(to.to_string());
    let output = ping.output().expect("ip could not be run");
    match output.status.code() {
        Some(0) => true,
        Some(1) => false,
        _ => panic!("ping {to}: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// One of the namespace's own counters (`/proc/net/netstat`, `/proc/net/snmp`), as nstat names it.
///
/// # Panics
///
/// If there is no such counter.
pub fn counter(namespace: &str, group: &str, name: &str) -> u64 {
    let text = inside(namespace, || {
        ["netstat", "snmp"]
            .map(|file| fs::read_to_string(format!("/proc/thread-self/net/{file}")).expect("no counters"))
    });
    let text = text.concat();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let pair = lines.chunks(2).find(|pair| pair[0][0] == format!("{group}:")).expect("no such group");
    let at = pair[0].iter().position(|word| *word == name).expect("no such counter");
    pair[1][at].parse().expect("no number")
}

/// A thread that ends with its owner.
pub struct Background {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    fn start(mut step: impl FnMut() + Send + 'static) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let thread = thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                step();
            }
        });
        Self { over, thread: Some(thread) }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends a datagram every 20 ms.
pub fn trickle(namespace: &str, to: Ipv4Addr) -> Background {
    let socket = udp(namespace, 0);
    Background::start(move || {
        // The scene changes under it, so a datagram may find no route.
        let _ = socket.send_to(b"vpnfix scene", (to, 9));
        thread::sleep(Duration::from_millis(20));
    })
}

/// Answers on TCP port 179 and keeps the connections.
///
/// # Panics
///
/// If the port cannot be listened on.
pub fn bgp_responder(namespace: &str) -> Background {
    let listener = inside(namespace, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 179)).expect("no TCP socket"));
    listener.set_nonblocking(true).expect("no nonblocking socket");
    let mut connections = Vec::new();
    Background::start(move || match listener.accept() {
        Ok((connection, _)) => connections.push(connection),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "accept: {error}");
            thread::sleep(Duration::from_millis(10));
        }
    })
}
