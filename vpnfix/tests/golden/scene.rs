//! Hosts played on this machine's kernel, in network namespaces of their own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use vpnfix::core::model::{Answer, HostFacts, LinkCounters, Netns, Reply, Snapshot, TABLE_MAIN};
use vpnfix::system::namespace::{self, Target};
use vpnfix::system::netlink::{Netlink, Queries};

use crate::host::{Host, Step};
use crate::pipeline;
use crate::recording::{Recording, words};

/// A network namespace with a host played in it; it goes with its owner.
pub(crate) struct Namespace<'a> {
    name: String,
    host: &'a Host,
}

/// Settings of every host: no addresses that differ from play to play, none that are not in force at once.
const SETTINGS: [(&str, &str); 2] =
    [("net/ipv6/conf/default/addr_gen_mode", "1"), ("net/ipv6/conf/default/accept_dad", "0")];

impl<'a> Namespace<'a> {
    /// Makes the namespace and plays the host's script.
    pub(crate) fn played(host: &'a Host) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let namespace = Self { name: format!("vpnfix-golden-{}-{number}", std::process::id()), host };
        let added = Command::new("ip").args(["netns", "add", &namespace.name]).status().unwrap();
        assert!(added.success(), "{}: no namespace", host.name);
        for (path, value) in SETTINGS {
            namespace.set(path, value);
        }
        for step in &host.script.steps {
            match step {
                Step::Sysctl { path, value } => namespace.set(path, value),
                Step::Ip { v6, lines } => {
                    let output = namespace.batch(if *v6 { &["-6"] } else { &[] }, lines);
                    let complaint = String::from_utf8_lossy(&output.stderr);
                    assert!(output.status.success(), "{}: {complaint}of\n{}", host.name, lines.join("\n"));
                }
            }
        }
        namespace
    }

    fn target(&self) -> Target {
        Target::Named(self.name.clone())
    }

    /// Below /proc/sys/net each thread sees the settings of the namespace that it is in.
    fn set(&self, path: &str, value: &str) {
        let written = namespace::within(&self.target(), || fs::write(format!("/proc/sys/{path}"), value)).unwrap();
        written.unwrap_or_else(|error| panic!("{}: {path}: {error}", self.host.name));
    }

    fn batch(&self, options: &[&str], lines: &[String]) -> Output {
        let mut ip = Command::new("ip");
        ip.args(["-n", &self.name]).args(options).args(["-batch", "-"]);
        let mut child = ip.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// What this kernel shows and answers of the host, each answer compared with that of `ip route get`.
    pub(crate) fn record(&self) -> Result<Recording, String> {
        let (snapshot, answers) = namespace::within(&self.target(), || {
            let snapshot = self.settled();
            let answers = RefCell::new(Vec::<Answer>::new());
            let queries = Queries::on_a_thread().unwrap();
            let mut shown = snapshot.clone();
            self.host.signs.dress(&mut shown);
            pipeline::diagnose(shown, &self.host.signs, |asked| {
                let told = queries.ask(asked)?;
                answers.borrow_mut().extend(told.iter().cloned());
                Ok::<_, vpnfix::system::netlink::NetlinkError>(told)
            })
            .unwrap();
            let mut answers = answers.into_inner();
            let mut known = Vec::new();
            answers.retain(|answer| {
                let new = !known.contains(&answer.question);
                known.push(answer.question.clone());
                new
            });
            (snapshot, answers)
        })
        .unwrap();
        self.check(&snapshot, &answers)?;
        let mut snapshot = snapshot;
        self.host.signs.dress(&mut snapshot);
        Ok(Recording { snapshot, answers })
    }

    /// A snapshot without what differs from play to play, taken as soon as two in succession are the same: addresses and
    /// their routes come into force a moment after they were added.
    fn settled(&self) -> Snapshot {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut before = self.snapshot();
        loop {
            std::thread::sleep(Duration::from_millis(20));
            let now = self.snapshot();
            let tentative = self.batch(&["-6"], &["address show tentative".into()]).stdout;
            if now == before && tentative.is_empty() {
                return now;
            }
            assert!(Instant::now() < deadline, "{}: does not settle", self.host.name);
            before = now;
        }
    }

    fn snapshot(&self) -> Snapshot {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let read = async { Netlink::connect().unwrap().snapshot(Netns::default()).await.unwrap() };
        let mut snapshot = runtime.block_on(read);
        let kernel = snapshot.host.kernel.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
        snapshot.host = HostFacts { kernel, hostname: self.host.name.clone(), ..HostFacts::default() };
        for link in &mut snapshot.links {
            link.counters = LinkCounters::default();
        }
        snapshot
    }

    /// Compares answers with what `ip route get` says: an independent reader of the same kernel.
    fn check(&self, snapshot: &Snapshot, answers: &[Answer]) -> Result<(), String> {
        let lines: Vec<String> =
            answers.iter().map(|answer| format!("route get {}", words(snapshot, &answer.question))).collect();
        let output = self.batch(&["-force", "-j", "-d", "-N"], &lines);
        let (said, complaints) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        // `ip -batch -force` names the lines that failed, counted from 1, and prints a document for each other.
        let failed: Vec<usize> =
            complaints.lines().filter_map(|line| line.strip_prefix("Command failed -:")?.trim().parse().ok()).collect();
        let mut documents = serde_json::Deserializer::from_str(&said).into_iter::<Value>();
        let mut wrong = Vec::new();
        for (index, answer) in answers.iter().enumerate() {
            let theirs = if failed.contains(&(index + 1)) {
                "refused".to_string()
            } else {
                let document = documents.next().ok_or_else(|| format!("`ip route get` ended early: {complaints}"))?;
                theirs(&document.map_err(|error| error.to_string())?)
            };
            let ours = ours(snapshot, answer);
            if ours != theirs {
                wrong.push(format!("{}: vpnfix read `{ours}`, ip `{theirs}`", lines[index]));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }
}

fn ours(snapshot: &Snapshot, answer: &Answer) -> String {
    match &answer.reply {
        Reply::Arrives(arrival) => {
            let gateway = arrival.gateway.map_or_else(|| "-".into(), |gateway| gateway.to_string());
            let local = if arrival.local { " local" } else { "" };
            // A way that is assumed on link, without a route, is of no table.
            let table = if arrival.table == 0 { TABLE_MAIN } else { arrival.table };
            format!("dev {} table {table} via {gateway}{local}", snapshot.device_name(arrival.ifindex))
        }
        Reply::Refused(_) => "refused".into(),
    }
}

fn theirs(document: &Value) -> String {
    let route = &document[0];
    let text = |key: &str| route[key].as_str();
    // Table main goes unsaid, and that there is none, too.
    let (device, table) = (text("dev").unwrap_or("?"), text("table").unwrap_or("254"));
    let gateway = text("gateway").or(route["via"]["host"].as_str()).unwrap_or("-");
    let local = if text("type") == Some("2") { " local" } else { "" };
    format!("dev {device} table {table} via {gateway}{local}")
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        let deleted = Command::new("ip").args(["netns", "delete", &self.name]).status();
        if !deleted.is_ok_and(|status| status.success()) {
            eprintln!("could not delete the namespace {}", self.name);
        }
    }
}

/// The kinds of links that this kernel can make, tried once each.
#[derive(Default)]
pub(crate) struct SupportedKinds(RefCell<BTreeMap<String, bool>>);

impl SupportedKinds {
    pub(crate) fn has(&self, kind: &str) -> bool {
        *self.0.borrow_mut().entry(kind.into()).or_insert_with(|| is_supported(kind))
    }
}

/// Makes one in a namespace of its own that ends with the command.
fn is_supported(kind: &str) -> bool {
    let parameters = match kind {
        "vti" => "local 192.0.2.1 remote 198.51.100.1 key 1",
        "vti6" => "local 2001:db8::1 remote 2001:db8::2 key 1",
        "xfrm" => "if_id 1",
        "vrf" => "table 10",
        _ => "",
    };
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "ip", "link", "add", "probe", "type", kind]).args(parameters.split_whitespace());
    unshare.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
