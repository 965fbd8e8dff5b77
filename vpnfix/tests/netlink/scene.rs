//! The namespaces that the tests play in.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use vpnfix::core::model::{Family, Snapshot};
use vpnfix::system::namespace::{self, Target};
use vpnfix::system::netlink::Netlink;

/// May the test run? It needs root for its namespaces.
pub(crate) fn is_able(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    println!("SKIP: {test}: network namespaces need root");
    assert!(std::env::var_os("CI").is_none(), "a skip is a failure in CI");
    false
}

/// A network namespace that goes with its owner.
pub(crate) struct Namespace(pub(crate) String);

impl Namespace {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let namespace = Self(format!("vpnfix-test-{}-{number}", std::process::id()));
        run(Command::new("ip").args(["netns", "add", &namespace.0]));
        namespace.ip("link set lo up");
        namespace
    }

    pub(crate) fn target(&self) -> Target {
        Target::Named(self.0.clone())
    }

    /// Runs `ip` inside and returns what it prints.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        run(Command::new("ip").args(["-n", &self.0]).args(arguments.split_whitespace()))
    }

    /// Runs many `ip` commands, one a line, in one process.
    pub(crate) fn batch(&self, lines: &str) {
        let mut ip = Command::new("ip").args(["-n", &self.0, "-b", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        ip.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        assert!(ip.wait().unwrap().success());
    }

    pub(crate) fn json(&self, arguments: &str) -> Vec<Value> {
        let text = self.ip(&format!("-j {arguments}"));
        let Value::Array(list) = serde_json::from_str(text.trim()).unwrap_or_else(|_| Value::Array(Vec::new())) else {
            panic!("no list: {text}")
        };
        // `ip -j` prints empty objects for what it filters out.
        list.into_iter().filter(|value| value.as_object().is_some_and(|object| !object.is_empty())).collect()
    }

    /// Runs `work` with a connection in the namespace.
    pub(crate) fn netlink<T: Send>(&self, work: impl AsyncFnOnce(&Netlink) -> T + Send) -> T {
        let inside = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let netlink = Netlink::connect().unwrap();
                work(&netlink).await
            })
        };
        namespace::within(&self.target(), inside).unwrap()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let netns = namespace::identify(&self.target()).unwrap();
        self.netlink(async |netlink| netlink.snapshot(netns).await.unwrap())
    }

    /// The inside of a gateway: a veth in place of a network card, another in place of a tunnel.
    pub(crate) fn gateway() -> Self {
        let namespace = Self::new();
        for line in [
            "link add ens5 type veth peer name ens5-far",
            "link add Tunnel1 mtu 1419 type veth peer name tunnel-far",
            "link set ens5 up group 7",
            "link set ens5-far up",
            "link set Tunnel1 up",
            "link set tunnel-far up",
            "address add 192.168.12.49/24 dev ens5",
            "address add 169.254.55.54/30 dev Tunnel1",
            "address add 10.255.0.1 peer 10.255.0.2/32 dev Tunnel1",
            "address add 2001:db8:12::49/64 dev ens5 nodad",
            "address add fd00:55::2/126 dev Tunnel1 nodad",
            "route add default via 192.168.12.1 dev ens5",
            "route add 10.20.0.0/16 via 169.254.55.53 dev Tunnel1 proto bgp metric 20",
        ] {
            namespace.ip(line);
        }
        namespace
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let deleted = Command::new("ip").args(["netns", "delete", &self.0]).status();
        if !deleted.is_ok_and(|status| status.success()) {
            eprintln!("could not delete the namespace {}", self.0);
        }
    }
}

pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Waits for a condition, not for a time; gives up after ten seconds.
pub(crate) fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Two namespaces with a veth pair between them: `left` 192.0.2.1, fd00::1 and `right` 192.0.2.2, fd00::2.
pub(crate) fn pair() -> (Namespace, Namespace) {
    let (left, right) = (Namespace::new(), Namespace::new());
    left.ip(&format!("link add wire type veth peer name wire netns {}", right.0));
    for (namespace, number) in [(&left, 1), (&right, 2)] {
        namespace.ip(&format!("address add 192.0.2.{number}/24 dev wire"));
        namespace.ip(&format!("address add fd00::{number}/64 dev wire nodad"));
        namespace.ip("link set wire up");
    }
    (left, right)
}

pub(crate) fn flag(family: Family) -> &'static str {
    match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    }
}

pub(crate) fn has_flag(value: &Value, flag: &str) -> bool {
    value["flags"].as_array().is_some_and(|flags| flags.iter().any(|one| one == flag))
}
