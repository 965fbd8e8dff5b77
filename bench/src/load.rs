//! Traffic: a sender of UDP datagrams, pinned to a processor, on an unconnected socket, so that each datagram is looked up.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

/// The discard port.
const PORT: u16 = 9;
/// Between two looks at the clock.
const BATCH: usize = 32;
/// Different destinations of one kind.
const SPREAD: u8 = 64;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// In words.
    pub fn told(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// In a prefix that belongs into the tunnel.
    pub fn watched(self, number: u8) -> SocketAddr {
        let address: IpAddr = match self {
            Self::V4 => Ipv4Addr::new(10, 20, number, 9).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0x20, number.into(), 0, 0, 0, 9).into(),
        };
        (address, PORT).into()
    }

    /// Elsewhere.
    pub fn other(self, number: u8) -> SocketAddr {
        let address: IpAddr = match self {
            Self::V4 => Ipv4Addr::new(198, 18, number, 9).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0x2, 0, number.into(), 0, 0, 0, 9).into(),
        };
        (address, PORT).into()
    }

    /// Elsewhere, with the first 16 bits of a watched prefix: the filter's first question does not tell them apart.
    pub fn neighbour(self, number: u8) -> SocketAddr {
        let address: IpAddr = match self {
            Self::V4 => Ipv4Addr::new(169, 254, 100, number).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0x99, number.into(), 0, 0, 0, 9).into(),
        };
        (address, PORT).into()
    }
}

/// How much of the traffic is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// None of it.
    None,
    /// None, but its first 16 bits are those of a watched prefix.
    Neighbours,
    /// One datagram of a hundred.
    Hundredth,
    /// All of it.
    All,
}

impl Mix {
    /// All, in the order of their cost.
    pub const ALL: [Self; 4] = [Self::None, Self::Neighbours, Self::Hundredth, Self::All];

    /// In words.
    pub fn told(self) -> &'static str {
        match self {
            Self::None => "0 %",
            Self::Neighbours => "0 %, same first 16 bits",
            Self::Hundredth => "1 %",
            Self::All => "100 %",
        }
    }

    fn destinations(self, family: Family) -> Vec<SocketAddr> {
        match self {
            Self::None => (0..SPREAD).map(|number| family.other(number)).collect(),
            Self::Neighbours => (0..SPREAD).map(|number| family.neighbour(number)).collect(),
            Self::Hundredth => (0..99).map(|number| family.other(number)).chain([family.watched(1)]).collect(),
            Self::All => (0..SPREAD).map(|number| family.watched(number)).collect(),
        }
    }
}

/// What was sent, and what it took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Burst {
    /// Datagrams.
    pub packets: u64,
    /// Time that passed.
    pub wall: Duration,
    /// Processor time of the sender, the kernel's work on its behalf included. Others that ran meanwhile do not count.
    pub cpu: Duration,
}

impl Burst {
    /// Nanoseconds of the sender's processor time for a datagram.
    pub fn cost(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.packets as f64
    }

    /// Datagrams a second.
    pub fn rate(&self) -> f64 {
        self.packets as f64 / self.wall.as_secs_f64()
    }
}

/// Sends for a while, from a thread on this processor, as fast as it goes and undisturbed.
pub fn send(family: Family, mix: Mix, duration: Duration, processor: usize) -> Result<Burst> {
    undisturbed(processor, || burst(family, mix, duration))
}

/// Runs something on a thread of its own on one processor, and nothing ordinary comes between: what the kernel says of a
/// program's run time would hold the time of that.
pub fn undisturbed<T: Send>(processor: usize, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    on_processor(processor, || {
        go_first(1)?;
        work()
    })
}

/// The same, without going before others.
pub fn send_beside_others(family: Family, mix: Mix, duration: Duration, processor: usize) -> Result<Burst> {
    on_processor(processor, || burst(family, mix, duration))
}

fn burst(family: Family, mix: Mix, duration: Duration) -> Result<Burst> {
    let destinations = mix.destinations(family);
    let socket = socket(family)?;
    let cpu = cpu_now()?;
    let begun = Instant::now();
    let mut burst = Burst::default();
    let mut next = destinations.iter().cycle();
    while burst.wall < duration {
        for to in next.by_ref().take(BATCH) {
            socket.send_to(b"vpnfix bench", to).with_context(|| format!("send a datagram to {to}"))?;
        }
        burst.packets += BATCH as u64;
        burst.wall = begun.elapsed();
    }
    burst.cpu = cpu_now()?.saturating_sub(cpu);
    Ok(burst)
}

/// Puts the calling thread before all ordinary ones (`SCHED_RR`), and before those of a lower priority.
pub fn go_first(priority: i32) -> Result<()> {
    let priority = libc::sched_param { sched_priority: priority };
    // SAFETY: the parameters live through the call; 0 is the calling thread.
    let set = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const priority) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()).context("go before ordinary threads") }
}

/// An unconnected socket in this thread's namespace.
pub fn socket(family: Family) -> Result<UdpSocket> {
    let any: IpAddr = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    UdpSocket::bind((any, 0)).context("open a UDP socket")
}

/// Runs something on a thread of its own that stays on one processor.
fn on_processor<T: Send>(processor: usize, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut only = CpuSet::new();
            only.set(processor).context("choose a processor")?;
            sched_setaffinity(Pid::from_raw(0), &only).context("stay on a processor")?;
            work()
        });
        thread.join().map_err(|_panic| anyhow!("a thread of the bench panicked"))?
    })
}

/// Processor time of the calling thread.
pub fn cpu_now() -> Result<Duration> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("read the thread's clock")?;
    Ok(time.into())
}
