//! The scene: a gateway with two tunnels, named and addressed otherwise than in the incident.
//!
//! ```text
//!            Tunnel1 169.254.163.250/30 ................ 169.254.163.249 Tunnel1
//!   gw ------ eth0 10.9.0.10/24 ---- 10.9.0.1 lan ---- 198.18.1.2 eth0 far1 (10.77.0.0/16)
//!            Tunnel2 169.254.88.82/30 .................. 169.254.88.81 Tunnel2
//!                                             lan ---- 198.18.2.2 eth0 far2
//! ```
//!
//! `lan` drops silently what it has no route for. Where the kernel has VTI and ESP the tunnels are real; where not, a
//! veth pair stands in for each. No IPv6 address, no ARP: nothing is sent but what a test sends, so that counters tell.

use std::fs::{self, File};
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;

use crate::command::Run;
use crate::traffic::{self, Background};
use crate::{ip, wait};

/// Inside prefix of the first tunnel.
pub const INSIDE1: &str = "169.254.163.248/30";
/// Inside prefix of the second tunnel.
pub const INSIDE2: &str = "169.254.88.80/30";
/// Far end of the first tunnel.
pub const PEER1: Ipv4Addr = Ipv4Addr::new(169, 254, 163, 249);
/// Far end of the second tunnel.
pub const PEER2: Ipv4Addr = Ipv4Addr::new(169, 254, 88, 81);
/// The gateway's end of the first tunnel.
pub const LOCAL1: Ipv4Addr = Ipv4Addr::new(169, 254, 163, 250);
/// Prefix behind the first tunnel.
pub const REMOTE: &str = "10.77.0.0/16";
/// A host in it; every address in it answers.
pub const REMOTE_HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 3, 4);
/// The gateway's physical device.
pub const WRONG_DEVICE: &str = "eth0";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A scene; its namespaces and files go with it.
pub struct Scene {
    name: String,
    run_dir: PathBuf,
    real: bool,
    responders: Vec<Background>,
}

impl Scene {
    /// Builds a scene in which all is well.
    ///
    /// # Panics
    ///
    /// If it cannot be built.
    pub fn healthy() -> Self {
        let name = format!("vpnfix-t{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let run_dir = std::env::temp_dir().join(&name);
        let mut scene = Self { name, run_dir, real: false, responders: Vec::new() };
        scene.build().unwrap_or_else(|error| panic!("the scene could not be built: {error:#}"));
        scene
    }

    /// Builds a scene in which rule 220 hijacks everything, as strongSwan's does.
    pub fn hijacked() -> Self {
        let scene = Self::healthy();
        scene.hijack();
        scene
    }

    /// Adds table 220's default and rule 220.
    pub fn hijack(&self) {
        self.ip(&[
            "route add default via 10.9.0.1 dev eth0 proto static table 220",
            "rule add from all lookup 220 priority 220",
        ]);
    }

    /// Puts the first tunnel into the VRF `red`, whose table is 500 and ends the walk, as kernel documentation advises.
    pub fn put_into_vrf(&self) {
        self.ip(&[
            "link add red type vrf table 500",
            "link set red up",
            "link set Tunnel1 master red",
            "route add unreachable default metric 4278198272 table 500",
        ]);
    }

    /// Adds a second address with a table of its own, as cloud hosts have for secondary interfaces.
    pub fn second_table(&self) {
        self.ip(&[
            "addr add 10.9.0.99/32 dev eth0",
            "route add default via 10.9.0.1 dev eth0 proto static table 300",
            "rule add from 10.9.0.99 lookup 300 priority 150",
        ]);
    }

    /// Runs `ip` commands on the gateway.
    ///
    /// # Panics
    ///
    /// If one is refused.
    #[track_caller]
    pub fn ip(&self, lines: &[&str]) {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        ip::batch(Some(&self.gw()), &lines).unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Sets an IPv4 sysctl of the gateway (`conf/eth0/rp_filter`).
    ///
    /// # Panics
    ///
    /// If it cannot be set.
    #[track_caller]
    pub fn sysctl(&self, key: &str, value: &str) {
        traffic::inside(&self.gw(), || set_sysctls(&[(key, value)])).unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Tries whether this kernel has a kind of link, on a namespace that needs none.
    pub fn has_kind(&self, kind: &str) -> bool {
        let attempt = [format!("link add probe type {kind}"), "link del probe".to_owned()];
        ip::batch(Some(&self.of("far2")), &attempt).is_ok()
    }

    /// The gateway's namespace.
    pub fn gw(&self) -> String {
        self.of("gw")
    }

    /// Namespace of one of the scene's hosts: `gw`, `lan`, `far1`, `far2`.
    pub fn of(&self, host: &str) -> String {
        format!("{}-{host}", self.name)
    }

    /// Where the vpnfix of this scene keeps its state.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// Whether the tunnels are VTIs.
    pub const fn has_real_tunnels(&self) -> bool {
        self.real
    }

    /// Arguments that make vpnfix look at the gateway.
    pub fn arguments(&self, further: &[&str]) -> Vec<String> {
        let gw = self.gw();
        let mut words = vec!["--netns", &gw];
        if !self.real {
            words.extend(["--tunnel", "Tunnel1", "--tunnel", "Tunnel2"]);
        }
        words.iter().chain(further).map(|word| (*word).to_owned()).collect()
    }

    /// Runs vpnfix on the gateway.
    #[track_caller]
    pub fn vpnfix(&self, further: &[&str]) -> Run {
        let arguments = self.arguments(further);
        Run::new(&self.run_dir, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Starts vpnfix on the gateway.
    pub fn start_vpnfix(&self, further: &[&str]) -> Child {
        let arguments = self.arguments(further);
        Run::start(&self.run_dir, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// All rules with all their attributes, both families, as `ip` prints them.
    pub fn rules(&self) -> String {
        ["-4", "-6"].map(|family| ip::text(&[family, "-n", &self.gw(), "-d", "rule"])).concat()
    }

    /// All IPv4 routes of all tables, as `ip` prints them.
    pub fn routes(&self) -> String {
        ip::text(&["-4", "-n", &self.gw(), "-d", "route", "show", "table", "all"])
    }

    /// The device by which `ip route get` says a packet would leave.
    ///
    /// # Panics
    ///
    /// If it says none.
    pub fn device_for(&self, to: Ipv4Addr) -> String {
        let answer = ip::json(&["-n", &self.gw(), "route", "get", &to.to_string()]);
        answer[0]["dev"].as_str().expect("ip names no device").to_owned()
    }

    /// Packets that a device of the gateway has sent, by its own count.
    ///
    /// # Panics
    ///
    /// If `ip` does not say.
    pub fn sent(&self, device: &str) -> u64 {
        let answer = ip::json(&["-n", &self.gw(), "-s", "link", "show", "dev", device]);
        answer[0]["stats64"]["tx"]["packets"].as_u64().expect("ip shows no counter")
    }

    /// Lets both far ends answer on TCP 179 from now on.
    pub fn start_responders(&mut self) {
        self.responders = ["far1", "far2"].map(|host| traffic::bgp_responder(&self.of(host))).into();
    }

    fn build(&mut self) -> anyhow::Result<()> {
        fs::create_dir_all(&self.run_dir).with_context(|| format!("make {}", self.run_dir.display()))?;
        ip::batch(None, &HOSTS.map(|host| format!("netns add {}", self.of(host))))?;
        for host in HOSTS {
            traffic::inside(&self.of(host), || {
                let sysctls = [("conf/all/rp_filter", "0"), ("conf/default/rp_filter", "0"), ("ip_forward", "1")];
                set_sysctls(&sysctls)
            })?;
        }
        self.real = self.tunnels_can_be_real();
        self.connect()?;
        self.configure()
    }

    /// Tries what real tunnels need, on a namespace that gets none.
    fn tunnels_can_be_real(&self) -> bool {
        let keys = format!("enc cbc(aes) 0x{} auth-trunc hmac(sha256) 0x{} 128", "00".repeat(16), "00".repeat(32));
        let attempt = [
            "link add probe type vti local 192.0.2.1 remote 192.0.2.2 key 1".to_owned(),
            format!("xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1001 mode tunnel {keys}"),
            "xfrm state flush".to_owned(),
            "link del probe".to_owned(),
        ];
        ip::batch(Some(&self.of("lan")), &attempt).is_ok()
    }

    fn connect(&self) -> anyhow::Result<()> {
        let link = |near: &str, host: &str, far: &str, other: &str| {
            format!("link add {near} netns {} type veth peer name {far} netns {}", self.of(host), self.of(other))
        };
        let mut lines = vec![
            link("eth0 address 02:00:00:09:00:0a", "gw", "gw0 address 02:00:00:09:00:01", "lan"),
            link("w1", "lan", "eth0", "far1"),
            link("w2", "lan", "eth0", "far2"),
        ];
        if !self.real {
            // The same hardware address at both ends, so that no ARP is needed.
            for (device, far, hardware) in
                [("Tunnel1", "far1", "02:00:00:00:01:01"), ("Tunnel2", "far2", "02:00:00:00:02:02")]
            {
                let end = format!("{device} address {hardware}");
                lines.push(link(&end, "gw", &end, far));
            }
        }
        ip::batch(None, &lines)
    }

    fn configure(&self) -> anyhow::Result<()> {
        let keys = [TunnelKeys::random()?, TunnelKeys::random()?];
        let mut lan = words(&[
            "link set lo up",
            "link set gw0 addrgenmode none",
            "addr add 10.9.0.1/24 dev gw0",
            "link set gw0 up",
            "neigh add 10.9.0.10 lladdr 02:00:00:09:00:0a nud permanent dev gw0",
            "route add blackhole default",
        ]);
        for number in [1, 2] {
            lan.push(format!("addr add 198.18.{number}.1/24 dev w{number}"));
            lan.push(format!("link set w{number} up"));
        }
        ip::batch(Some(&self.of("lan")), &lan)?;
        for (index, tunnel) in TUNNELS.iter().enumerate() {
            ip::batch(Some(&self.of(tunnel.far)), &self.far_end(tunnel, &keys[index]))?;
        }
        let mut gw = words(&[
            "link set lo up",
            "link set eth0 addrgenmode none",
            "addr add 10.9.0.10/24 dev eth0",
            "link set eth0 up",
            "neigh add 10.9.0.1 lladdr 02:00:00:09:00:01 nud permanent dev eth0",
            "route add default via 10.9.0.1 dev eth0",
        ]);
        for (index, tunnel) in TUNNELS.iter().enumerate() {
            self.tunnel_end(&mut gw, tunnel, ("10.9.0.10", tunnel.outside), (tunnel.local, tunnel.peer), &keys[index]);
        }
        gw.push(format!("route add {REMOTE} via {PEER1} dev Tunnel1 proto bgp metric 20"));
        ip::batch(Some(&self.gw()), &gw)?;
        for host in ["gw", "far1", "far2"] {
            traffic::inside(&self.of(host), || {
                for device in ["Tunnel1", "Tunnel2"].map(|device| Path::new(CONF).join(device)) {
                    if device.exists() {
                        fs::write(device.join("disable_policy"), "1")?;
                    }
                }
                anyhow::Ok(())
            })?;
        }
        Ok(())
    }

    fn far_end(&self, tunnel: &Tunnel, keys: &TunnelKeys) -> Vec<String> {
        let mut lines = words(&["addr add 10.77.0.1/16 dev lo", "link set lo up"]);
        lines.push(format!("addr add {}/24 dev eth0", tunnel.outside));
        lines.push("link set eth0 up".to_owned());
        lines.push(format!("route add default via {} dev eth0", tunnel.outside_router));
        self.tunnel_end(&mut lines, tunnel, (tunnel.outside, "10.9.0.10"), (tunnel.peer, tunnel.local), keys);
        lines
    }

    fn tunnel_end(
        &self,
        lines: &mut Vec<String>,
        tunnel: &Tunnel,
        (near, far): (&str, &str),
        (local, peer): (Ipv4Addr, Ipv4Addr),
        keys: &TunnelKeys,
    ) {
        let Tunnel { device, key, outside, .. } = tunnel;
        if self.real {
            lines.push(format!("link add {device} type vti local {near} remote {far} key {key}"));
            for (from, to, spi, sa) in
                [("10.9.0.10", *outside, key + 0x1000, &keys.out), (*outside, "10.9.0.10", key + 0x2000, &keys.back)]
            {
                let mark = if from == near { format!(" mark {key}") } else { String::new() };
                lines.push(format!(
                    "xfrm state add src {from} dst {to} proto esp spi {spi} reqid {key} mode tunnel{mark} \
                     enc cbc(aes) {} auth-trunc hmac(sha256) {} 128 flag af-unspec",
                    sa.0, sa.1
                ));
            }
            for (direction, from, to) in [("out", near, far), ("fwd", far, near), ("in", far, near)] {
                lines.push(format!(
                    "xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir {direction} priority 399999 mark {key} \
                     tmpl src {from} dst {to} proto esp reqid {key} mode tunnel"
                ));
            }
        } else {
            lines.push(format!("link set {device} arp off"));
        }
        lines.push(format!("link set {device} mtu 1419 addrgenmode none"));
        lines.push(format!("addr add {local}/30 peer {peer}/30 dev {device}"));
        lines.push(format!("link set {device} up"));
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.responders.clear();
        for host in HOSTS {
            let name = self.of(host);
            if Path::new("/run/netns").join(&name).exists() {
                let _ = Command::new("ip").args(["netns", "del", &name]).status();
            }
        }
        let _ = fs::remove_dir_all(&self.run_dir);
    }
}

const HOSTS: [&str; 4] = ["gw", "lan", "far1", "far2"];
const CONF: &str = "/proc/sys/net/ipv4/conf";

struct Tunnel {
    device: &'static str,
    key: u32,
    far: &'static str,
    outside: &'static str,
    outside_router: &'static str,
    local: Ipv4Addr,
    peer: Ipv4Addr,
}

const TUNNELS: [Tunnel; 2] = [
    Tunnel {
        device: "Tunnel1",
        key: 100,
        far: "far1",
        outside: "198.18.1.2",
        outside_router: "198.18.1.1",
        local: LOCAL1,
        peer: PEER1,
    },
    Tunnel {
        device: "Tunnel2",
        key: 200,
        far: "far2",
        outside: "198.18.2.2",
        outside_router: "198.18.2.1",
        local: Ipv4Addr::new(169, 254, 88, 82),
        peer: PEER2,
    },
];

/// The keys of one tunnel's two SAs, in hexadecimal; without `Debug`, so that they are never shown.
struct TunnelKeys {
    out: (String, String),
    back: (String, String),
}

impl TunnelKeys {
    fn random() -> anyhow::Result<Self> {
        let mut source = File::open("/dev/urandom").context("open /dev/urandom")?;
        let mut hex = |bytes: usize| {
            let mut key = vec![0u8; bytes];
            source.read_exact(&mut key).context("read /dev/urandom")?;
            anyhow::Ok(key.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}")))
        };
        Ok(Self { out: (hex(16)?, hex(32)?), back: (hex(16)?, hex(32)?) })
    }
}

fn words(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

/// Sets IPv4 sysctls of the namespace that the calling thread is in.
fn set_sysctls(sysctls: &[(&str, &str)]) -> anyhow::Result<()> {
    for (key, value) in sysctls {
        fs::write(Path::new("/proc/sys/net/ipv4").join(key), value).with_context(|| format!("set {key}"))?;
    }
    Ok(())
}

/// Waits until a namespace's name is gone.
pub fn gone(namespace: &str) {
    let path = Path::new("/run/netns").join(namespace);
    wait::until(&format!("the end of {namespace}"), || (!path.exists()).then_some(()));
}
