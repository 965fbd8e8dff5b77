//! The VPN with real daemons: strongSwan at both ends, FRR or BIRD with BGP, a router between them that translates the
//! gateway's address one to one, as AWS does.
//!
//! ```text
//!   10.9.0.1 lan0 gw ens5 192.168.12.49 ---- rtr (198.51.100.49) ---- 203.0.113.10, .18 aws lo 10.20.0.1
//!            Tunnel1 169.254.55.54  ................................. 169.254.55.53 vti1
//!            Tunnel2 169.254.253.50 ................................. 169.254.253.49 vti2
//! ```
//!
//! The daemons come from a Debian root folder (`VPNFIX_VPN_ROOT`, made by `cargo xtask test vm`), which stays as it is: each
//! host has a layer in memory over it. All processes live in one process namespace, and end with its first one.

mod bgp;
mod daemons;
mod keeper;
mod secrets;
mod topology;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

use serde_json::Value;

use crate::command::Run;
use crate::trace::{Trace, Traced};
use crate::{ip, wait};
use keeper::Keeper;
pub use secrets::Secrets;

/// Inside address of the far end of the first tunnel.
pub const PEER1: &str = "169.254.55.53";
/// Inside address of the far end of the second tunnel.
pub const PEER2: &str = "169.254.253.49";
/// The gateway's inside addresses.
pub const OWN: [&str; 2] = ["169.254.55.54", "169.254.253.50"];
/// A host behind the far end, known by BGP alone.
pub const REMOTE_HOST: &str = "10.20.0.1";
/// The AWS end's outer addresses.
pub const OUTSIDE: [&str; 2] = ["203.0.113.10", "203.0.113.18"];
/// The VRF that the gateway's tunnels may be in; its table is 500.
pub const VRF: &str = "blue";
/// The gateway's private address.
pub const PRIVATE: &str = "192.168.12.49";

static NUMBER: AtomicU32 = AtomicU32::new(0);
static ALONE: Mutex<()> = Mutex::new(());

/// How strongSwan is configured on the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ike {
    /// `ipsec.conf` and the starter, as AWS's instructions give it; IKEv1.
    Legacy,
    /// `swanctl.conf`; IKEv2.
    Swanctl,
}

/// Who speaks BGP on the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bgp {
    /// FRR's bgpd and zebra.
    Frr,
    /// BIRD 2.
    Bird,
}

/// The gateway's tunnel interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnels {
    /// VTIs with keys 100 and 200.
    Vti,
    /// The same, in the VRF [`VRF`], together with BGP and the network behind the gateway.
    VtiInVrf,
    /// XFRM interfaces with ids 100 and 200.
    Xfrm,
}

impl Tunnels {
    fn vrf(self) -> Option<&'static str> {
        (self == Self::VtiInVrf).then_some(VRF)
    }
}

/// What the gateway is made of.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// Its strongSwan.
    pub ike: Ike,
    /// Its BGP daemon.
    pub bgp: Bgp,
    /// Its tunnel interfaces.
    pub tunnels: Tunnels,
}

/// The VPN; everything goes with it.
pub struct Vpn {
    name: String,
    made: Made,
    keeper: Keeper,
    secrets: RefCell<Secrets>,
    said: RefCell<Vec<String>>,
    _alone: MutexGuard<'static, ()>,
}

const HOSTS: [&str; 3] = ["gw", "rtr", "aws"];

impl Vpn {
    /// The Debian root with the daemons, where there is one and the kernel has what the scene needs; else why not.
    ///
    /// # Errors
    /// What is missing.
    pub fn root() -> Result<PathBuf, String> {
        let root = std::env::var_os("VPNFIX_VPN_ROOT").ok_or("no Debian root with strongSwan, FRR and BIRD")?;
        Ok(PathBuf::from(root))
    }

    /// Builds the VPN and starts its daemons; returns once both SAs of both tunnels are there.
    ///
    /// # Panics
    ///
    /// If it cannot be built.
    pub fn start(root: &std::path::Path, made: Made) -> Self {
        let alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let name = format!("vpnfix-v{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let of = |host: &str| format!("{name}-{host}");
        let lines: Vec<String> = HOSTS.iter().map(|host| format!("netns add {}", of(host))).collect();
        ip::batch(None, &lines).expect("the namespaces could not be made");
        let keeper = Keeper::start(root, &["gw", "aws"]);
        let secrets = RefCell::new(Secrets::random());
        let vpn = Self { name, made, keeper, secrets, said: RefCell::new(Vec::new()), _alone: alone };
        vpn.topology();
        vpn.settings();
        vpn.start_daemons();
        wait::until("SAs of both tunnels", || (vpn.associations().len() >= 4).then_some(()));
        vpn
    }

    /// Namespace of `gw`, `rtr` or `aws`.
    pub fn of(&self, host: &str) -> String {
        format!("{}-{host}", self.name)
    }

    /// Runs `ip` commands on a host.
    ///
    /// # Panics
    ///
    /// If one is refused.
    #[track_caller]
    pub fn ip(&self, host: &str, lines: &[&str]) {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        ip::batch(Some(&self.of(host)), &lines).unwrap_or_else(|error| panic!("{host}: {error:#}"));
    }

    /// A command in a host's namespaces and root folder.
    pub fn command(&self, host: &str, program: &str) -> Command {
        let mut command = Command::new(program);
        self.keeper.prepare(&mut command, &self.of(host), host, false);
        command
    }

    /// Runs a shell script on a host; what it leaves running ends with the scene.
    ///
    /// # Panics
    ///
    /// If it fails.
    #[track_caller]
    pub fn script(&self, host: &str, text: &str) -> String {
        let mut command = Command::new("/bin/sh");
        // Not the last command of the script: that one would take the shell's place, outside of the process namespace.
        command.arg("-c").arg(format!("ulimit -n 1024; {text}\nexit $?")).stdin(Stdio::null());
        self.keeper.prepare(&mut command, &self.of(host), host, true);
        let said = self.keeper.output(&mut command);
        assert!(said.status.success(), "{host}: a script failed: {}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8_lossy(&said.stdout).into_owned()
    }

    /// Runs vpnfix on the gateway, and keeps what it says for [`Vpn::check_secrets`].
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[track_caller]
    pub fn vpnfix(&self, arguments: &[&str]) -> Run {
        let run = self.finish(self.start_vpnfix(arguments), arguments);
        self.learn_keys();
        run
    }

    /// Starts vpnfix on the gateway.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[track_caller]
    pub fn start_vpnfix(&self, arguments: &[&str]) -> std::process::Child {
        let mut command = self.command("gw", "/usr/bin/vpnfix");
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("vpnfix could not be started")
    }

    /// Starts a trace of the gateway, and waits until it is attached.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[track_caller]
    pub fn trace(&self) -> Trace {
        Trace::of(self.start_vpnfix(&["trace", "--format", "json", "--for", "600s"]))
    }

    /// Ends a trace, and keeps what it has said.
    pub fn end_trace(&self, trace: Trace) -> Traced {
        let traced = trace.stop();
        self.said.borrow_mut().push(format!("trace\n{traced:?}"));
        traced
    }

    /// Waits for its end, and keeps what it says.
    pub fn finish(&self, child: std::process::Child, arguments: &[&str]) -> Run {
        let run = Run::finish(child, arguments);
        self.said.borrow_mut().push(run.to_string());
        run
    }

    /// `verify` as a document, with this exit status.
    ///
    /// # Panics
    ///
    /// If it ends otherwise.
    #[track_caller]
    pub fn verify(&self, status: i32, further: &[&str]) -> Value {
        let words = [&["verify", "--format", "json"], further].concat();
        self.vpnfix(&words).ends(status).json()
    }

    /// Keeps a text for [`Vpn::check_secrets`] that vpnfix has written.
    pub fn keep_said(&self, text: String) {
        self.said.borrow_mut().push(text);
    }

    /// A path of a host, as it is seen from here.
    pub fn seen(&self, host: &str, path: &str) -> PathBuf {
        self.keeper.seen(host, path)
    }

    /// The gateway's SAs as `ip -s xfrm state` tells them: SPI, bytes, packets.
    ///
    /// # Panics
    ///
    /// If `ip` cannot be read.
    pub fn associations(&self) -> Vec<(u32, u64, u64)> {
        let text = ip::text(&["-n", &self.of("gw"), "-s", "xfrm", "state"]);
        let mut found = Vec::new();
        for of in text.split("\nsrc ") {
            let word_after = |what: &str| of.split(what).nth(1)?.split(['(', ' ', '\n']).next();
            let spi = word_after("spi 0x").and_then(|word| u32::from_str_radix(word, 16).ok());
            let current = of.split("lifetime current:").nth(1).unwrap_or_default();
            let before = |what: &str| current.split(what).next()?.rsplit([' ', '\t', '\n']).next()?.parse().ok();
            if let (Some(spi @ 1..), Some(bytes), Some(packets)) = (spi, before("(bytes)"), before("(packets)")) {
                found.push((spi, bytes, packets));
            }
        }
        found
    }

    /// The SPIs of the gateway's SAs.
    ///
    /// # Panics
    ///
    /// If `ip` cannot be read.
    pub fn spis(&self) -> BTreeSet<u32> {
        self.associations().into_iter().map(|(spi, ..)| spi).collect()
    }

    /// Does `ping` have an answer on the gateway, from where its tunnels are?
    pub fn pings(&self, to: &str) -> bool {
        crate::traffic::pings_from(&self.of("gw"), self.made.tunnels.vrf(), to.parse().expect("an address"))
    }

    /// The BGP password of this scene, for who wants to set one.
    pub fn password(&self) -> String {
        self.secrets.borrow().password.clone()
    }

    /// Keys of the gateway's SAs just now, so that they can be looked for.
    fn learn_keys(&self) {
        let text = ip::text(&["-n", &self.of("gw"), "xfrm", "state"]);
        self.secrets.borrow_mut().learn(&text);
    }

    /// Looks for every secret of the scene in all that vpnfix has said in it.
    ///
    /// # Panics
    ///
    /// If one is there, without showing it.
    pub fn check_secrets(&self) {
        self.learn_keys();
        let said = self.said.borrow();
        let secrets = self.secrets.borrow();
        assert!(!said.is_empty() && secrets.count() >= 7, "nothing to look for: {} secrets", secrets.count());
        for text in said.iter() {
            let found = secrets.find_in(text);
            assert_eq!(found, None, "a secret is in the output of {}", text.lines().next().unwrap_or_default());
        }
    }

    /// Sets a sysctl below net (`ipv4/ip_forward`) of a host.
    ///
    /// # Panics
    ///
    /// If it cannot be set.
    #[track_caller]
    pub fn sysctl(&self, host: &str, key: &str, value: &str) {
        let path = format!("/proc/sys/net/{key}");
        let set = || std::fs::write(&path, value);
        crate::traffic::inside(&self.of(host), set).unwrap_or_else(|error| panic!("{host}: set {path}: {error}"));
    }

    /// Runs nft on a host with this script.
    ///
    /// # Panics
    ///
    /// If it is refused.
    #[track_caller]
    pub fn nft(&self, host: &str, text: &str) {
        // The router has no root folder of its own.
        let root = if host == "rtr" { "gw" } else { host };
        let mut command = Command::new("/usr/sbin/nft");
        command.args([text]).stdin(Stdio::null());
        self.keeper.prepare(&mut command, &self.of(host), root, false);
        let said = self.keeper.output(&mut command);
        assert!(said.status.success(), "{host}: nft: {}", String::from_utf8_lossy(&said.stderr));
    }
}

/// vpnfix's figures of the SAs lie between what [`Vpn::associations`] said before and after: BGP and the probes go on
/// meanwhile.
///
/// # Panics
///
/// If one does not, or is missing.
#[track_caller]
pub fn lie_between(told: &Value, before: &[(u32, u64, u64)], after: &[(u32, u64, u64)]) {
    let told = told.as_array().expect("associations");
    assert_eq!(told.len(), before.len(), "{told:#?}");
    for &(spi, least_bytes, least_packets) in before {
        let own = told.iter().find(|association| association["spi"] == spi).expect("an SA that ip knows");
        let &(_, most_bytes, most_packets) = after.iter().find(|of| of.0 == spi).expect("it is still there");
        let (bytes, packets) = (own["bytes"].as_u64().expect("bytes"), own["packets"].as_u64().expect("packets"));
        assert!((least_bytes..=most_bytes).contains(&bytes), "{spi:x}: {bytes}, ip: {least_bytes} to {most_bytes}");
        assert!((least_packets..=most_packets).contains(&packets), "{spi:x}: {packets}");
    }
}

impl Drop for Vpn {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keeper.tell_logs(&["gw", "aws"]);
        }
        self.keeper.end();
        for host in HOSTS {
            let _gone = Command::new("ip").args(["netns", "del", &self.of(host)]).status();
        }
    }
}
