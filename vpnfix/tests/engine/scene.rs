//! A policy and the flows to ask about, as text, and playing it in a namespace of its own.

use std::fmt;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use vpnfix::core::model::{Answer, Family, Netns, RouteKind, Rule, Snapshot};
use vpnfix::system::netlink::{Netlink, Queries};

use crate::ask::Ask;
use crate::masked::Masked;

/// What every namespace starts with: settings by their file under `/proc/sys/net`. Forwarding is on, and nothing is
/// dropped for its source, so that the answer is that of the lookup.
const SETTINGS: [(&str, &str); 13] = [
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/accept_local", "1"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/conf/all/ignore_routes_with_linkdown", "0"),
    ("ipv4/conf/default/ignore_routes_with_linkdown", "0"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/addr_gen_mode", "1"),
    ("ipv6/conf/default/ignore_routes_with_linkdown", "0"),
];

/// Devices `d0` to `d3`; the first two are each other's far end, and the other two: the fewer there are, the sooner the
/// kernel is rid of the namespace. `d4` is down. The rule that is added and deleted again parts the tables local and main,
/// which the kernel holds together until then.
const DEVICES: &str = "\
link set lo up
link add d0 type veth peer name d1
link add d2 type veth peer name d3
link add d4 type veth peer name d5
link set d0 group 1 up
link set d1 group 2 up
link set d2 group 1 up
link set d3 up
rule add pref 39999 lookup main
rule del pref 39999
";

const ADDRESSES_V4: &str = "\
address add 192.0.2.1/32 dev lo
address add 10.0.0.1/24 dev d0
address add 10.0.1.1/24 dev d1
address add 10.1.0.1/16 dev d2
address add 172.16.0.1/12 dev d3
";

const ADDRESSES_V6: &str = "\
address add 2001:db8::1/128 dev lo nodad
address add fd00::1/64 dev d0 nodad
address add fd00:0:0:1::1/64 dev d1 nodad
address add fd00:1::1/32 dev d2 nodad
address add fd00:2::1/64 dev d3 nodad
";

/// One line of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A setting: its file under `/proc/sys/net`, its value.
    Set(String, String),
    /// A command of `ip`. It may fail: what counts is what the kernel then has.
    Ip(String),
    /// A rule with selectors that this `ip` does not know.
    Rule(Masked),
}

/// A policy and the flows to ask about.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Scene {
    pub(crate) family: Family,
    pub(crate) steps: Vec<Step>,
    pub(crate) asks: Vec<Ask>,
}

/// What came of it.
pub(crate) struct Played {
    pub(crate) snapshot: Snapshot,
    /// In the order of the questions.
    pub(crate) answers: Vec<Answer>,
    pub(crate) lines: u64,
    pub(crate) refused: u64,
}

impl Scene {
    /// Does it need VRF devices?
    pub(crate) fn needs_vrf(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Ip(line) if line.contains("type vrf")))
    }

    /// Plays it in a namespace that ends with the thread it was made for.
    pub(crate) fn play(&self) -> Played {
        let inside = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a namespace");
            self.play_here()
        };
        std::thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn play_here(&self) -> Played {
        for (file, value) in SETTINGS {
            set(file, value);
        }
        let base = format!("{DEVICES}{}", if self.family == Family::V4 { ADDRESSES_V4 } else { ADDRESSES_V6 });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let netlink = {
            let _inside = runtime.enter();
            Netlink::connect().unwrap()
        };
        let refused = self.build(&base, |rule| runtime.block_on(netlink.add_rule(&rule)).is_err());
        let take = || runtime.block_on(netlink.snapshot(Netns::default())).unwrap();
        let queries = Queries::on_a_thread().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let snapshot = take();
            if is_settled(&snapshot) {
                let asked = self.asks.iter().map(|ask| ask.question(&snapshot)).collect();
                let answers = queries.ask(asked).unwrap();
                if is_same(&snapshot, &take()) {
                    return Played { snapshot, answers, lines: self.steps.len() as u64, refused };
                }
            }
            assert!(Instant::now() < deadline, "the namespace does not come to rest: {snapshot:#?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Does all steps, consecutive commands in one process. Returns how many were refused.
    fn build(&self, base: &str, mut is_refused: impl FnMut(Rule) -> bool) -> u64 {
        let mut script =
            Script { flag: Some(if self.family == Family::V4 { "-4" } else { "-6" }), ..Script::default() };
        script.lines = base.to_string();
        script.must_do = base.lines().count();
        let flag = script.flag;
        for step in &self.steps {
            // A group of nexthops is of no family, and `ip` must not be told one.
            let is_group = matches!(step, Step::Ip(line) if line.starts_with("nexthop") && line.contains(" group "));
            let needed = flag.filter(|_| !is_group);
            if script.flag != needed || !matches!(step, Step::Ip(_)) {
                script.run();
                script.flag = needed;
            }
            match step {
                Step::Ip(line) => script.lines.extend([line.as_str(), "\n"]),
                Step::Set(file, value) => set(file, value),
                Step::Rule(masked) => script.refused += u64::from(is_refused(masked.rule(self.family))),
            }
        }
        script.run();
        script.refused
    }
}

/// Commands that wait for one run of `ip`.
#[derive(Default)]
struct Script {
    flag: Option<&'static str>,
    lines: String,
    /// The first ones must not be refused.
    must_do: usize,
    refused: u64,
}

impl Script {
    fn run(&mut self) {
        let (lines, must_do) = (std::mem::take(&mut self.lines), std::mem::take(&mut self.must_do));
        if lines.is_empty() {
            return;
        }
        let mut ip = Command::new("ip");
        ip.args(self.flag).args(["-force", "-batch", "-"]).stdin(Stdio::piped());
        let mut child = ip.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        let errors = String::from_utf8_lossy(&child.wait_with_output().unwrap().stderr).into_owned();
        let failed = errors.lines().filter_map(|line| line.strip_prefix("Command failed -:")?.parse::<usize>().ok());
        for number in failed {
            assert!(number > must_do, "{lines}\n{errors}");
            self.refused += 1;
        }
    }
}

/// Carrier changes reach the routes a moment later (`net/core/link_watch.c`).
fn is_settled(snapshot: &Snapshot) -> bool {
    let unicast = snapshot.routes.iter().filter(|route| route.kind == RouteKind::Unicast);
    unicast.flat_map(|route| &route.nexthops).all(|nexthop| {
        let link = nexthop.ifindex.and_then(|index| snapshot.link(index));
        link.is_none_or(|link| !link.up || link.carrier != nexthop.linkdown)
    })
}

fn is_same(before: &Snapshot, after: &Snapshot) -> bool {
    before.rules == after.rules && before.routes == after.routes && before.addresses == after.addresses
}

fn set(file: &str, value: &str) {
    let path = format!("/proc/sys/net/{file}");
    std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", if self.family == Family::V4 { "ipv4" } else { "ipv6" })?;
        for step in &self.steps {
            match step {
                Step::Set(file, value) => writeln!(f, "set {file} {value}")?,
                Step::Ip(line) => writeln!(f, "ip {line}")?,
                Step::Rule(masked) => writeln!(f, "rule {masked}")?,
            }
        }
        self.asks.iter().try_for_each(|ask| writeln!(f, "{ask}"))
    }
}

impl fmt::Debug for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Scene {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let family = match lines.next() {
            Some("ipv4") => Family::V4,
            Some("ipv6") => Family::V6,
            other => return Err(format!("{other:?} is no family")),
        };
        let mut scene = Self { family, steps: Vec::new(), asks: Vec::new() };
        for line in lines {
            match line.split_once(' ') {
                Some(("set", rest)) => {
                    let (file, value) = rest.split_once(' ').ok_or_else(|| format!("{line}: no value"))?;
                    scene.steps.push(Step::Set(file.into(), value.into()));
                }
                Some(("ip", rest)) => scene.steps.push(Step::Ip(rest.into())),
                Some(("rule", rest)) => scene.steps.push(Step::Rule(rest.parse()?)),
                Some(("ask", rest)) => scene.asks.push(rest.parse()?),
                _ => return Err(format!("{line}: not understood")),
            }
        }
        Ok(scene)
    }
}
