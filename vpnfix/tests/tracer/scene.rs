//! Two namespaces joined by two veth pairs: `tun0` stands for the tunnel, `wan0` for the physical interface that table
//! 220's default route leads out of.

use std::{
    env, fs,
    net::UdpSocket,
    os::linux::fs::MetadataExt as _,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use nix::{
    sched::{CloneFlags, setns},
    unistd::geteuid,
};
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;
use vpnfix::{
    core::observation::{Hook, LookupKey, LookupKind, LookupOutcome, LookupSeen, Observation, PacketKey, Totals},
    system::bpf::{Request, Tracer},
};

pub(crate) const PEER: &str = "169.254.55.53";
pub(crate) const PREFIX: &str = "169.254.55.52/30";
pub(crate) const WRONG_TABLE: u32 = 220;
pub(crate) const MAIN: u32 = 254;
pub(crate) const LOCAL: u32 = 255;

/// Says why the test cannot run here, if so; in CI that is a failure.
pub(crate) fn skipped() -> bool {
    if geteuid().is_root() {
        return false;
    }
    assert!(env::var_os("CI").is_none(), "a test that needs root must not be skipped in CI");
    println!("SKIP: needs root");
    true
}

pub(crate) fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The two namespaces; gone when it is dropped.
pub(crate) struct Scene {
    pub(crate) here: String,
    pub(crate) there: String,
}

impl Scene {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // With RUST_LOG=debug a refused program's log of the verifier is shown.
        let _ = tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env()).try_init();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |side| format!("vpnfix-tracer-{}-{number}{side}", std::process::id());
        let scene = Self { here: name("a"), there: name("b") };
        run("ip", &format!("netns add {}", scene.here));
        run("ip", &format!("netns add {}", scene.there));
        for device in ["tun0", "wan0"] {
            run("ip", &format!("-n {} link add {device} type veth peer {device} netns {}", scene.here, scene.there));
        }
        for (side, tunnel, wan) in [(&scene.here, "169.254.55.54", "192.0.2.2"), (&scene.there, PEER, "192.0.2.1")] {
            for command in [
                "link set lo up".to_owned(),
                format!("addr add {tunnel}/30 dev tun0"),
                format!("addr add {wan}/24 dev wan0"),
                "link set tun0 up".to_owned(),
                "link set wan0 up".to_owned(),
            ] {
                run("ip", &format!("-n {side} {command}"));
            }
        }
        scene.ip("route add 10.20.0.0/16 dev tun0");
        scene.ip("route add default via 192.0.2.1 dev wan0 table 220");
        scene.ip("rule add priority 220 lookup 220");
        scene
    }

    /// `ip` in the near namespace.
    pub(crate) fn ip(&self, arguments: &str) {
        run("ip", &format!("-n {} {arguments}", self.here));
    }

    pub(crate) fn ifindex(&self, device: &str) -> u32 {
        let shown = run("ip", &format!("-n {} -o link show {device}", self.here));
        shown.split(':').next().unwrap().trim().parse().unwrap()
    }

    pub(crate) fn netns(&self) -> u32 {
        fs::metadata(format!("/run/netns/{}", self.here)).unwrap().st_ino().try_into().unwrap()
    }

    /// What `work` makes in the near namespace, or the far one.
    pub(crate) fn inside<T: Send + 'static>(&self, far: bool, work: impl FnOnce() -> T + Send + 'static) -> T {
        let name = if far { &self.there } else { &self.here };
        let namespace = fs::File::open(format!("/run/netns/{name}")).unwrap();
        let worker = thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        worker.join().unwrap()
    }

    pub(crate) fn sender(&self) -> UdpSocket {
        self.inside(false, || UdpSocket::bind("0.0.0.0:0").unwrap())
    }

    /// Swallows datagrams in the far namespace, so that it answers none with an ICMP error.
    pub(crate) fn sink(&self) -> UdpSocket {
        self.inside(true, || UdpSocket::bind("0.0.0.0:9").unwrap())
    }

    pub(crate) fn request(&self, watches: &[&str]) -> Request {
        Request {
            netns: Some(self.netns()),
            watches: watches.iter().map(|watch| watch.parse().unwrap()).collect(),
            by_destination: true,
            use_fexit: true,
            ..Request::default()
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for name in [&self.here, &self.there] {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

pub(crate) fn send(sender: &UdpSocket, to: &str) {
    assert_eq!(sender.send_to(b"vpnfix", (to, 9)).unwrap(), 6);
}

pub(crate) fn lookups(totals: &Totals, chosen: impl Fn(&LookupKey) -> bool) -> u64 {
    totals.lookups.iter().filter(|(key, _)| chosen(key)).map(|(_, tally)| tally.count).sum()
}

pub(crate) fn packets(totals: &Totals, chosen: impl Fn(&PacketKey) -> bool) -> u64 {
    totals.packets.iter().filter(|(key, _)| chosen(key)).map(|(_, tally)| tally.count).sum()
}

/// A hit in a table for a packet of this host, as the tables' tracepoint sees it.
pub(crate) fn is_any_hit(key: &LookupKey) -> bool {
    (key.hook, key.outcome, key.kind) == (Hook::FibTable, LookupOutcome::Hit, LookupKind::Output)
}

pub(crate) fn is_hit(key: &LookupKey, table: u32, ifindex: u32) -> bool {
    is_any_hit(key) && key.table == table && key.ifindex == Some(ifindex)
}

/// Waits until an observation is what is looked for; gives up after a while.
pub(crate) fn wait_for<T>(tracer: &mut Tracer, mut look: impl FnMut(&Observation) -> Option<T>) -> T {
    let waiting = async {
        loop {
            let mut seen = Vec::new();
            tracer.next(&mut seen).await.unwrap();
            if let Some(found) = seen.iter().find_map(&mut look) {
                return found;
            }
        }
    };
    let waited = RUNTIME
        .with(|runtime| runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), waiting).await }));
    waited.expect("the tracer did not tell in time")
}

thread_local! {
    /// A tracer stays with the runtime that it first waited in.
    pub(crate) static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
}

pub(crate) fn wait_for_lookup(tracer: &mut Tracer, chosen: impl Fn(&LookupSeen) -> bool) -> LookupSeen {
    wait_for(tracer, |observation| match observation {
        Observation::Lookup(lookup) if chosen(lookup) => Some(lookup.clone()),
        _ => None,
    })
}

pub(crate) fn assert_nothing_lost(totals: &Totals) {
    let losses = totals.losses;
    assert_eq!(losses.events_lost, 0, "{losses:?}");
    assert_eq!(losses.lookups_uncounted + losses.packets_uncounted + losses.destinations_uncounted, 0, "{losses:?}");
    assert_eq!(losses.outcomes_untracked + losses.unreadable_packets + losses.undecodable_records, 0, "{losses:?}");
}
