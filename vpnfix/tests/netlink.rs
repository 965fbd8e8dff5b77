//! The netlink and host adapters against the kernel, in network namespaces of their own, with `ip` as the independent
//! reader. Needs root; without it each test prints `SKIP: why`, which fails where `CI` is set.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use vpnfix::core::model::{
    Answer, Arrival, Family, LinkKind, Netns, Nexthop, Question, Reply, Route, Rule, RuleAction, Snapshot,
};
use vpnfix::system::host;
use vpnfix::system::namespace::{self, Target};
use vpnfix::system::netlink::{Netlink, NetlinkError, QueryThread};
use vpnfix::system::probe::{Probe, ProbeTarget};

/// May the test run? It needs root for its namespaces.
fn is_able(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    println!("SKIP: {test}: network namespaces need root");
    assert!(std::env::var_os("CI").is_none(), "a skip is a failure in CI");
    false
}

/// A network namespace that goes with its owner.
struct Namespace(String);

impl Namespace {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let namespace = Self(format!("vpnfix-test-{}-{number}", std::process::id()));
        run(Command::new("ip").args(["netns", "add", &namespace.0]));
        namespace.ip("link set lo up");
        namespace
    }

    fn target(&self) -> Target {
        Target::Named(self.0.clone())
    }

    /// Runs `ip` inside and returns what it prints.
    fn ip(&self, arguments: &str) -> String {
        run(Command::new("ip").args(["-n", &self.0]).args(arguments.split_whitespace()))
    }

    fn json(&self, arguments: &str) -> Vec<Value> {
        let text = self.ip(&format!("-j {arguments}"));
        let Value::Array(list) = serde_json::from_str(text.trim()).unwrap_or_else(|_| Value::Array(Vec::new())) else {
            panic!("no list: {text}")
        };
        // `ip -j` prints empty objects for what it filters out.
        list.into_iter().filter(|value| value.as_object().is_some_and(|object| !object.is_empty())).collect()
    }

    /// Runs `work` with a connection in the namespace.
    fn netlink<T: Send>(&self, work: impl AsyncFnOnce(&Netlink) -> T + Send) -> T {
        let inside = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let netlink = Netlink::connect().unwrap();
                work(&netlink).await
            })
        };
        namespace::within(&self.target(), inside).unwrap()
    }

    fn snapshot(&self) -> Snapshot {
        let netns = namespace::identify(&self.target()).unwrap();
        self.netlink(async |netlink| netlink.snapshot(netns).await.unwrap())
    }

    /// The inside of a gateway: a veth in place of a network card, another in place of a tunnel.
    fn gateway() -> Self {
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

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Rules with every attribute that iproute2 6.1 can set, one command a line.
const RULES: &str = "\
    -4 rule add pref 10 from 192.0.2.0/24 to 169.254.55.52/30 iif lo tos 0x10 fwmark 0x10/0xff table 220
    -4 rule add pref 11 not from 192.0.2.9 oif Tunnel1 fwmark 0x20 lookup 5000 protocol 118
    -4 rule add pref 12 iif nowhere oif nowhere uidrange 100-200 ipproto tcp dport 179 lookup main
    -4 rule add pref 13 ipproto udp sport 1000-2000 dport 53-54 lookup main suppress_prefixlength 0 proto 4
    -4 rule add pref 14 lookup main suppress_prefixlength 24 suppress_ifgroup 7
    -4 rule add pref 15 to 198.51.100.0/24 goto 500
    -4 rule add pref 16 to 198.51.101.0/24 goto 501
    -4 rule add pref 17 to 203.0.113.1 nop
    -4 rule add pref 18 to 203.0.113.2 unreachable
    -4 rule add pref 19 to 203.0.113.3 prohibit
    -4 rule add pref 20 to 203.0.113.4 blackhole
    -4 rule add pref 21 fwmark 0x0/0xf0 lookup 4294967295
    -4 rule add pref 220 lookup 220
    -4 rule add pref 220 to 10.0.0.0/8 lookup 220
    -4 rule add pref 500 nop
    -6 rule add pref 10 from 2001:db8::/32 to fd00:55::/126 iif lo fwmark 0x1 lookup 6000
    -6 rule add pref 11 ipproto ipv6-icmp lookup main suppress_prefixlength 0
    -6 rule add pref 12 to 2001:db8:dead::/48 unreachable proto 118
    -6 rule add pref 220 lookup 220";

#[test]
fn the_snapshot_has_the_rules_that_ip_shows_in_its_order() {
    if !is_able("rules") {
        return;
    }
    let namespace = Namespace::gateway();
    RULES.lines().for_each(|line| drop(namespace.ip(line)));
    let snapshot = namespace.snapshot();
    for family in Family::ALL {
        let ours: Vec<Value> = snapshot.rules_of(family).map(rule_as_ip_shows_it).collect();
        let theirs = namespace.json(&format!("{} -d -N rule show", flag(family)));
        let theirs: Vec<Value> = theirs.into_iter().map(normal_rule).collect();
        assert_eq!(ours, theirs);
    }
    assert!(snapshot.rules.iter().all(|rule| rule.unknown_attributes.is_empty()), "{:#?}", snapshot.rules);
    let detached = |rule: &&Rule| rule.iif_detached && rule.oif_detached;
    assert_eq!(snapshot.rules.iter().filter(detached).map(|rule| rule.priority).collect::<Vec<_>>(), [12]);
    assert!(snapshot.rules.iter().any(|rule| rule.action == RuleAction::Lookup(u32::MAX)));
}

fn flag(family: Family) -> &'static str {
    match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    }
}

/// A rule in the form of `ip -j -d -N rule`, made only from the model's fields.
fn rule_as_ip_shows_it(rule: &Rule) -> Value {
    let mut shown = serde_json::Map::new();
    let mut put = |key: &str, value: Value| shown.insert(key.into(), value);
    let hex = |number: u32| Value::from(format!("{number:#x}"));
    put("priority", rule.priority.into());
    put("src", rule.from.map_or("all".into(), |prefix| prefix.addr().to_string()).into());
    if let Some(from) = rule.from.filter(|prefix| prefix.prefix_len() < prefix.max_prefix_len()) {
        put("srclen", from.prefix_len().into());
    }
    if let Some(to) = rule.to {
        put("dst", to.addr().to_string().into());
        if to.prefix_len() < to.max_prefix_len() {
            put("dstlen", to.prefix_len().into());
        }
    }
    if rule.invert {
        put("not", Value::Null);
    }
    if rule.tos != 0 {
        put("tos", format!("{:#04x}", rule.tos).into());
    }
    if let Some(mark) = rule.mark {
        put("fwmark", hex(mark.value));
        if mark.mask != u32::MAX {
            put("fwmask", hex(mark.mask));
        }
    }
    for (name, key, detached) in [(&rule.iif, "iif", rule.iif_detached), (&rule.oif, "oif", rule.oif_detached)] {
        if let Some(name) = name {
            put(key, name.clone().into());
        }
        if detached {
            put(&format!("{key}_detached"), Value::Null);
        }
    }
    if let Some(uids) = rule.uid_range {
        put("uid_start", uids.start.into());
        put("uid_end", uids.end.into());
    }
    if let Some(protocol) = rule.ip_protocol {
        put("ipproto", protocol.to_string().into());
    }
    for (ports, key) in [(rule.source_ports, "sport"), (rule.destination_ports, "dport")] {
        match ports {
            Some(ports) if ports.start == ports.end => drop(put(key, ports.start.into())),
            Some(ports) => {
                put(&format!("{key}_start"), ports.start.into());
                put(&format!("{key}_end"), ports.end.into());
            }
            None => {}
        }
    }
    match rule.action {
        RuleAction::Lookup(table) => drop(put("table", table.to_string().into())),
        RuleAction::Goto(priority) => drop(put("goto", priority.into())),
        RuleAction::Nop => drop(put("nop", Value::Null)),
        RuleAction::Blackhole => drop(put("action", "blackhole".into())),
        RuleAction::Unreachable => drop(put("action", "unreachable".into())),
        RuleAction::Prohibit => drop(put("action", "prohibit".into())),
        RuleAction::Other(number) => drop(put("action", number.into())),
    }
    if let Some(length) = rule.suppress_prefix_length {
        put("suppress_prefixlen", length.into());
    }
    if let Some(group) = rule.suppress_ifgroup {
        put("suppress_ifgroup", group.to_string().into());
    }
    put("protocol", rule.protocol.to_string().into());
    Value::Object(shown)
}

/// The oddities of iproute2 6.1 taken out: `ipproto-6` for a number, actions by number, a mark of 0 without `0x`. Whether
/// a goto's target is there is no attribute of the rule.
fn normal_rule(mut rule: Value) -> Value {
    let fields = rule.as_object_mut().unwrap();
    fields.remove("unresolved");
    for (key, odd, plain) in [
        ("action", "6", "blackhole"),
        ("action", "7", "unreachable"),
        ("action", "8", "prohibit"),
        ("fwmark", "0", "0x0"),
    ] {
        if fields.get(key).is_some_and(|value| value == odd) {
            fields.insert(key.into(), plain.into());
        }
    }
    if let Some(number) = fields.get("ipproto").and_then(|value| value.as_str()?.strip_prefix("ipproto-")) {
        let number = number.to_string();
        fields.insert("ipproto".into(), number.into());
    }
    rule
}

#[test]
fn the_snapshot_has_the_routes_that_ip_shows_of_named_tables_only() {
    if !is_able("routes") {
        return;
    }
    let namespace = Namespace::gateway();
    for line in [
        "rule add pref 220 lookup 220",
        "rule add pref 221 lookup 5000",
        "-6 rule add pref 220 lookup 220",
        "route add default via 192.168.12.1 dev ens5 table 220 proto static",
        "route add throw 10.1.0.0/16 table 220",
        "route add unreachable 10.2.0.0/16 table 5000",
        "route add blackhole 10.3.0.0/16 table 5000 metric 7",
        "route add prohibit 10.4.0.0/16 table 5000",
        "route add 10.5.0.0/16 table 5000 tos 0x10 src 169.254.55.54 nexthop via 192.168.12.1 dev ens5 weight 3 \
         nexthop via 169.254.55.53 dev Tunnel1 weight 1",
        "route add 10.6.0.0/16 via inet6 fd00:55::1 dev Tunnel1 table 5000",
        "route add 10.99.0.0/16 dev ens5 table 777",
        "nexthop add id 9 via 192.168.12.9 dev ens5",
        "route add 10.7.0.0/16 nhid 9 table 5000",
        "-6 route add default via 2001:db8:12::1 dev ens5 table 220 proto static",
        "-6 route add 2001:db8:77::/48 from 2001:db8:12::/64 via 2001:db8:12::1 dev ens5",
        "-6 route add unreachable 2001:db8:78::/48",
        "-6 route add 2001:db8:79::/48 nexthop via 2001:db8:12::1 dev ens5 nexthop via fd00:55::1 dev Tunnel1",
        "link set tunnel-far down",
    ] {
        namespace.ip(line);
    }
    wait_until(|| namespace.json("route show dev Tunnel1").iter().any(|route| has_flag(route, "linkdown")));
    compare_routes(&namespace);
    let shown =
        run(Command::new("ip").args(["netns", "exec", &namespace.0, "sysctl", "-w", "net.ipv4.nexthop_compat_mode=0"]));
    assert!(shown.contains("= 0"));
    let by_object = namespace.snapshot();
    let route = by_object.table(Family::V4, 5000).find(|route| route.nexthop_object == Some(9)).unwrap();
    assert_eq!(route.nexthops[0].gateway, Some("192.168.12.9".parse().unwrap()));
}

fn compare_routes(namespace: &Namespace) {
    let snapshot = namespace.snapshot();
    for family in Family::ALL {
        let tables: BTreeSet<u64> = [253, 254, 255, 220, 5000].into();
        let mut theirs: Vec<String> = Vec::new();
        for route in namespace.json(&format!("{} -d -N route show table all", flag(family))) {
            let table = route["table"].as_str().map_or(254, |table| table.parse().unwrap());
            if tables.contains(&table) {
                theirs.push(their_route(&route, table));
            }
        }
        let mut ours: Vec<String> = snapshot
            .routes
            .iter()
            .filter(|route| route.family == family)
            .map(|route| our_route(&snapshot, route))
            .collect();
        ours.sort();
        theirs.sort();
        assert_eq!(ours, theirs);
    }
}

fn has_flag(value: &Value, flag: &str) -> bool {
    value["flags"].as_array().is_some_and(|flags| flags.iter().any(|one| one == flag))
}

/// A route of `ip -j -d -N route` in one line of the fields that the model has.
fn their_route(route: &Value, table: u64) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let hop = |value: &Value| {
        let via = value.get("gateway").map_or_else(|| text(&value["via"]["host"]), text);
        let weight = value["weight"].as_u64().unwrap_or(1);
        let flags = (has_flag(value, "dead"), has_flag(value, "linkdown"));
        format!("[{} via {via} weight {weight} {flags:?}]", text(&value["dev"]))
    };
    let kind = match route["type"].as_str() {
        None | Some("1") => "unicast".into(),
        Some(number) => kind_name(number),
    };
    let hops: String = match route["nexthops"].as_array() {
        Some(hops) => hops.iter().map(hop).collect(),
        None if ["unreachable", "blackhole", "prohibit", "throw"].contains(&kind.as_str()) => String::new(),
        None => hop(route),
    };
    let number = |key: &str| route[key].as_u64().unwrap_or(0);
    let protocol = route["protocol"].as_str().unwrap_or("3").to_string();
    format!(
        "{kind} {} from {} table {table} proto {protocol} metric {} src {} tos {} {hops} nhid {}",
        text(&route["dst"]),
        text(&route["from"]),
        number("metric"),
        text(&route["prefsrc"]),
        text(&route["tos"]),
        number("nhid"),
    )
}

fn kind_name(number: &str) -> String {
    let names =
        ["", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit", "throw"];
    number.parse::<usize>().map_or(number.to_string(), |number| names[number].to_string())
}

fn our_route(snapshot: &Snapshot, route: &Route) -> String {
    let word = |prefix: ipnet::IpNet| {
        if prefix.prefix_len() == 0 {
            "default".to_string()
        } else if prefix.prefix_len() == prefix.max_prefix_len() {
            prefix.addr().to_string()
        } else {
            prefix.to_string()
        }
    };
    let address = |address: Option<IpAddr>| address.map_or(String::new(), |address| address.to_string());
    let hop = |hop: &Nexthop| {
        let device = hop.ifindex.map_or(String::new(), |index| snapshot.device_name(index));
        format!("[{device} via {} weight {} {:?}]", address(hop.gateway), hop.weight, (hop.dead, hop.linkdown))
    };
    format!(
        "{} {} from {} table {} proto {} metric {} src {} tos {} {} nhid {}",
        route.kind.name(),
        word(route.destination),
        route.source.map_or(String::new(), word),
        route.table,
        route.protocol,
        route.metric,
        address(route.preferred_source),
        if route.tos == 0 { String::new() } else { format!("{:#04x}", route.tos) },
        route.nexthops.iter().map(hop).collect::<String>(),
        route.nexthop_object.unwrap_or(0),
    )
}

/// Waits for a condition, not for a time; gives up after ten seconds.
fn wait_until(condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "waited in vain");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn the_snapshot_has_the_links_and_addresses_that_ip_shows() {
    if !is_able("links") {
        return;
    }
    let namespace = Namespace::gateway();
    namespace.ip("link add br0 type bridge");
    namespace.ip("link set ens5-far master br0");
    let snapshot = namespace.snapshot();
    let theirs = namespace.json("-d link show");
    assert_eq!(snapshot.links.len(), theirs.len());
    for link in theirs {
        let ours = snapshot.link_named(link["ifname"].as_str().unwrap()).unwrap();
        assert_eq!(u64::from(ours.index), link["ifindex"].as_u64().unwrap());
        assert_eq!(ours.mtu.map(u64::from), link["mtu"].as_u64());
        assert_eq!((ours.up, ours.carrier), (has_flag(&link, "UP"), has_flag(&link, "LOWER_UP")));
        assert_eq!(ours.master.map(|index| snapshot.device_name(index)).as_deref(), link["master"].as_str());
        let group = link["group"].as_str().unwrap();
        assert_eq!(if ours.group == 0 { "default".into() } else { ours.group.to_string() }, group);
        match link["linkinfo"]["info_kind"].as_str() {
            Some(kind) => assert_eq!(ours.kind, LinkKind::Other(kind.into())),
            None => assert_eq!(ours.kind, LinkKind::Loopback),
        }
    }
    let mut theirs: Vec<String> = Vec::new();
    for link in namespace.json("address show") {
        for address in link["addr_info"].as_array().unwrap() {
            let peer = address["address"].as_str().unwrap_or_default();
            theirs.push(format!("{} {} {peer}/{}", link["ifname"], address["local"], address["prefixlen"]));
        }
    }
    let mut ours: Vec<String> = Vec::new();
    for address in &snapshot.addresses {
        let peer = address.peer.map_or(String::new(), |peer| peer.to_string());
        let name = snapshot.device_name(address.ifindex);
        ours.push(format!("{name:?} \"{}\" {peer}/{}", address.local, address.prefix_length));
    }
    theirs.sort();
    ours.sort();
    assert_eq!(ours, theirs);
}

#[test]
fn every_rule_can_be_deleted_and_added_again_and_leaves_no_trace() {
    if !is_able("rule changes") {
        return;
    }
    let namespace = Namespace::gateway();
    RULES.lines().for_each(|line| drop(namespace.ip(line)));
    let shown = || [namespace.ip("-d -4 rule show"), namespace.ip("-d -6 rule show")];
    let before = shown();
    let rules = namespace.snapshot().rules;
    // Only the last of a priority comes back to its place; 220 is told apart below.
    for rule in rules.iter().filter(|rule| rule.priority != 0 && (rule.family == Family::V6 || rule.priority != 220)) {
        namespace.netlink(async |netlink| netlink.delete_rule(rule).await.unwrap());
        assert_ne!(shown(), before, "{rule} is still there");
        namespace.netlink(async |netlink| netlink.add_rule(rule).await.unwrap());
        assert_eq!(shown(), before);
        let error = namespace.netlink(async |netlink| netlink.add_rule(rule).await.unwrap_err());
        assert!(error.is_exists(), "{error}");
        assert!(error.to_string().contains(&rule.to_string()), "{error}");
    }
    assert_eq!(shown(), before);
}

#[test]
fn a_deletion_that_would_take_another_rule_is_refused() {
    if !is_able("refused deletion") {
        return;
    }
    let namespace = Namespace::gateway();
    namespace.ip("rule add pref 100 lookup main suppress_prefixlength 0 protocol 118");
    let shown = || namespace.ip("-d rule show");
    let before = shown();
    let wide = Rule { protocol: 118, ..Rule::lookup(Family::V4, 100, 254) };
    let narrow = Rule { suppress_prefix_length: Some(0), ..wide.clone() };
    let delete = |rule: &Rule| {
        let rule = rule.clone();
        namespace.netlink(async move |netlink| netlink.delete_rule(&rule).await)
    };
    let error = delete(&wide).unwrap_err();
    assert!(matches!(error, NetlinkError::Missing { .. }) && error.is_missing(), "{error}");
    assert_eq!(shown(), before);
    namespace.ip("rule add pref 100 lookup main protocol 118");
    let both = shown();
    let error = delete(&wide).unwrap_err();
    assert!(matches!(error, NetlinkError::Ambiguous { .. }), "{error}");
    assert_eq!(shown(), both);
    assert!(delete(&Rule { protocol: 4, ..narrow.clone() }).unwrap_err().is_missing());
    delete(&narrow).unwrap();
    delete(&wide).unwrap();
    assert!(!shown().contains("100:"));
}

#[test]
fn a_rule_that_the_kernel_takes_for_another_is_no_rule_that_exists() {
    if !is_able("collision") {
        return;
    }
    let namespace = Namespace::gateway();
    namespace.ip("rule add pref 100 to 10.0.0.0/8 lookup main protocol 118");
    let before = namespace.ip("-d rule show");
    let wide = Rule { protocol: 118, ..Rule::lookup(Family::V4, 100, 254) };
    let error = namespace.netlink(async |netlink| netlink.add_rule(&wide).await.unwrap_err());
    assert!(matches!(error, NetlinkError::Collides { .. }) && !error.is_exists(), "{error}");
    assert_eq!(namespace.ip("-d rule show"), before);
}

/// The answer of `ip -j route get`, or its error's text.
fn their_answer(namespace: &Namespace, arguments: &str) -> Result<Value, String> {
    let output = Command::new("ip")
        .args(["-n", &namespace.0, "-j", "-d", "-N", "route", "get"])
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    if output.status.success() {
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        Ok(list[0].clone())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_string())
    }
}

#[test]
fn answers_are_those_of_ip_route_get() {
    if !is_able("queries") {
        return;
    }
    let namespace = Namespace::gateway();
    for line in [
        "rule add pref 90 to 203.0.113.2 unreachable",
        "rule add pref 91 to 203.0.113.3 prohibit",
        "rule add pref 92 to 203.0.113.4 blackhole",
        "rule add pref 93 ipproto tcp dport 179 lookup 5000",
        "rule add pref 94 fwmark 0x1 lookup 5000",
        "rule add pref 95 uidrange 4711-4711 lookup 5000",
        "rule add pref 96 ipproto tcp sport 179 lookup 5000",
        "rule add pref 97 tos 0x10 lookup 5000",
        "rule add pref 220 lookup 220",
        "-6 rule add pref 220 lookup 220",
        "route add default via 192.168.12.1 dev ens5 table 220 proto static",
        "route add default via 169.254.55.53 dev Tunnel1 table 5000 proto bgp",
        "-6 route add default via 2001:db8:12::1 dev ens5 table 220 proto static",
        "-6 route add unreachable 2001:db8:78::/48 table 220",
    ] {
        namespace.ip(line);
    }
    let index = |name: &str| namespace.snapshot().link_named(name).unwrap().index;
    let (tunnel, card) = (index("Tunnel1"), index("ens5"));
    let plain = |address: &str| Question::plain(address.parse().unwrap());
    let peer = || plain("169.254.55.53");
    let inside: IpAddr = "169.254.55.54".parse().unwrap();
    let bgp = |question: Question| Question { ip_protocol: Some(6), ..question };
    let asked = [
        ("169.254.55.53", peer()),
        ("169.254.55.54", plain("169.254.55.54")),
        ("10.20.1.1", plain("10.20.1.1")),
        ("8.8.8.8", plain("8.8.8.8")),
        ("203.0.113.2", plain("203.0.113.2")),
        ("203.0.113.3", plain("203.0.113.3")),
        ("203.0.113.4", plain("203.0.113.4")),
        ("169.254.55.53 oif Tunnel1", Question { output_interface: Some(tunnel), ..peer() }),
        ("169.254.55.53 from 169.254.55.54", Question { source: Some(inside), ..peer() }),
        ("169.254.55.53 mark 1", Question { mark: 1, ..peer() }),
        ("169.254.55.53 uid 4711", Question { uid: Some(4711), ..peer() }),
        ("169.254.55.53 ipproto tcp dport 179", Question { destination_port: Some(179), ..bgp(peer()) }),
        ("169.254.55.53 ipproto tcp sport 179", Question { source_port: Some(179), ..bgp(peer()) }),
        ("169.254.55.53 tos 0x10", Question { tos: 0x10, ..peer() }),
        (
            "169.254.55.54 from 169.254.55.53 iif Tunnel1",
            Question { source: Some(peer().destination), input_interface: Some(tunnel), ..plain("169.254.55.54") },
        ),
        (
            "8.8.8.8 from 192.168.12.77 iif ens5",
            Question {
                source: Some("192.168.12.77".parse().unwrap()),
                input_interface: Some(card),
                ..plain("8.8.8.8")
            },
        ),
        (
            "192.168.12.49 from 127.0.0.1 iif ens5",
            Question {
                source: Some("127.0.0.1".parse().unwrap()),
                input_interface: Some(card),
                ..plain("192.168.12.49")
            },
        ),
        ("fd00:55::1", plain("fd00:55::1")),
        ("2001:db8:12::49", plain("2001:db8:12::49")),
        ("2001:db8:78::1", plain("2001:db8:78::1")),
        (
            "2001:db8:99::1 from fd00:55::2",
            Question { source: Some("fd00:55::2".parse().unwrap()), ..plain("2001:db8:99::1") },
        ),
        ("fd00:55::1 oif Tunnel1", Question { output_interface: Some(tunnel), ..plain("fd00:55::1") }),
    ];
    let questions: Vec<Question> = asked.iter().map(|(_, question)| question.clone()).collect();
    let answers = namespace::within(&namespace.target(), || {
        let thread = QueryThread::start().unwrap();
        assert_ne!(thread.thread_id(), nix::unistd::gettid().as_raw().cast_unsigned());
        thread.ask(questions.clone()).unwrap()
    })
    .unwrap();
    let snapshot = namespace.snapshot();
    assert_eq!(answers.iter().map(|answer| answer.question.clone()).collect::<Vec<_>>(), questions);
    for ((arguments, _), answer) in asked.iter().zip(&answers) {
        compare_answer(&namespace, &snapshot, arguments, answer);
    }
}

fn compare_answer(namespace: &Namespace, snapshot: &Snapshot, arguments: &str, answer: &Answer) {
    match (their_answer(namespace, arguments), &answer.reply) {
        (Ok(theirs), Reply::Arrives(Arrival { table, ifindex, gateway, source, local })) => {
            let text = |key: &str| theirs[key].as_str().unwrap_or_default().to_string();
            // Where `ip` was given a source it shows that as `from`, and main goes unsaid.
            let given = answer.question.source.map(|source| source.to_string());
            assert_eq!(source.map(|source| source.to_string()), given.or(Some(text("prefsrc"))), "{arguments}");
            assert_eq!(table.to_string(), theirs["table"].as_str().unwrap_or("254"), "{arguments}");
            assert_eq!(snapshot.device_name(*ifindex), text("dev"), "{arguments}");
            assert_eq!(gateway.map_or(String::new(), |gateway| gateway.to_string()), text("gateway"), "{arguments}");
            assert_eq!(*local, theirs["type"] == "2", "{arguments}");
            let entry = answer.entry.as_ref().unwrap();
            assert_eq!(entry.table, *table, "{arguments}");
            let matched = their_answer(namespace, &format!("fibmatch {arguments}")).unwrap();
            let listed = their_route(&matched, entry.table.into());
            assert_eq!(our_route(snapshot, entry), listed, "{arguments}");
        }
        (Err(text), Reply::Refused(errno)) => {
            let said = nix::errno::Errno::from_raw(*errno).desc();
            assert!(text.to_lowercase().contains(&said.to_lowercase()), "{arguments}: {text} and {said}");
        }
        (theirs, ours) => panic!("{arguments}: {theirs:?} and {ours:?}"),
    }
}

#[test]
fn a_malformed_question_is_an_error_and_the_thread_lives_on() {
    if !is_able("malformed question") {
        return;
    }
    let namespace = Namespace::gateway();
    namespace::within(&namespace.target(), || {
        let thread = QueryThread::start().unwrap();
        let peer = Question::plain("169.254.55.53".parse().unwrap());
        let odd = Question { ip_protocol: Some(89), ..peer.clone() };
        let error = thread.ask(vec![odd]).unwrap_err();
        assert!(error.to_string().starts_with("look up the route to 169.254.55.53"), "{error}");
        let answer = thread.ask(vec![peer]).unwrap().remove(0);
        assert!(matches!(answer.reply, Reply::Arrives(_)));
    })
    .unwrap();
}

#[test]
fn within_is_elsewhere_and_the_caller_stays() {
    if !is_able("namespaces") {
        return;
    }
    let namespace = Namespace::new();
    let here = namespace::identify(&Target::Current).unwrap();
    let there = namespace::within(&namespace.target(), || namespace::identify(&Target::Current).unwrap()).unwrap();
    assert_ne!(here.inode, there.inode);
    let named = namespace::identify(&namespace.target()).unwrap();
    assert_eq!(named, Netns { name: Some(namespace.0.clone()), inode: there.inode });
    assert_eq!(namespace::identify(&Target::Current).unwrap(), here);
    let inode = run(Command::new("stat").args(["-Lc", "%i", &format!("/run/netns/{}", namespace.0)]));
    assert_eq!(inode.trim(), there.inode.to_string());
    let missing = namespace::identify(&Target::Named(format!("{}-not", namespace.0))).unwrap_err();
    assert!(missing.to_string().contains(&namespace.0), "{missing}");
}

/// Two namespaces with a veth pair between them: `left` 192.0.2.1, fd00::1 and `right` 192.0.2.2, fd00::2.
fn pair() -> (Namespace, Namespace) {
    let (left, right) = (Namespace::new(), Namespace::new());
    left.ip(&format!("link add wire type veth peer name wire netns {}", right.0));
    for (namespace, number) in [(&left, 1), (&right, 2)] {
        namespace.ip(&format!("address add 192.0.2.{number}/24 dev wire"));
        namespace.ip(&format!("address add fd00::{number}/64 dev wire nodad"));
        namespace.ip("link set wire up");
    }
    (left, right)
}

#[test]
fn the_probe_gets_answers_and_tells_why_not() {
    if !is_able("probe") {
        return;
    }
    let (left, _right) = pair();
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let target = |destination, source: Option<&str>| ProbeTarget {
        destination: address(destination),
        source: source.map(address),
    };
    let targets = [
        target("192.0.2.2", Some("192.0.2.1")),
        target("192.0.2.2", None),
        target("fd00::2", Some("fd00::1")),
        target("198.51.100.1", None),
        target("192.0.2.2", Some("203.0.113.99")),
    ];
    let probe = namespace::within(&left.target(), || Probe::start(&targets).unwrap()).unwrap();
    assert!(probe.thread_id() != 0 && probe.icmp_id() != 0);
    wait_until(|| probe.poll().iter().take(3).all(|result| result.answered >= 2));
    let results = probe.poll();
    assert_eq!(results.len(), targets.len());
    for result in results.iter().take(3) {
        assert!(result.answered <= result.sent && result.last_round_trip.is_some(), "{result:?}");
        assert_eq!(result.last_error, None);
    }
    assert!(results[3].last_error.as_ref().is_some_and(|text| text.contains("unreachable")), "{results:?}");
    assert!(results[4].last_error.as_ref().is_some_and(|text| text.contains("assign")), "{results:?}");
    assert_eq!(results[3].sent + results[4].sent, 0);
    let task = format!("/proc/self/task/{}", probe.thread_id());
    assert!(std::fs::exists(&task).unwrap());
    drop(probe);
    assert!(!std::fs::exists(&task).unwrap(), "the thread is joined");
}

#[test]
fn established_peers_are_those_of_the_namespace() {
    if !is_able("peers") {
        return;
    }
    let (left, right) = pair();
    let listener = namespace::within(&right.target(), || std::net::TcpListener::bind("[::]:179").unwrap()).unwrap();
    let connect = |to: &str| std::net::TcpStream::connect(to).unwrap();
    let _streams = namespace::within(&left.target(), || [connect("192.0.2.2:179"), connect("[fd00::2]:179")]).unwrap();
    let _accepted = [listener.accept().unwrap(), listener.accept().unwrap()];
    let peers =
        |namespace: &Namespace| namespace::within(&namespace.target(), || host::established_peers().unwrap()).unwrap();
    assert_eq!(peers(&left), BTreeSet::from(["192.0.2.2".parse().unwrap(), "fd00::2".parse().unwrap()]));
    assert_eq!(peers(&right), BTreeSet::from(["192.0.2.1".parse().unwrap(), "fd00::1".parse().unwrap()]));
}

#[test]
fn a_namespace_without_ipv6_is_read_all_the_same() {
    if !is_able("no IPv6") {
        return;
    }
    let namespace = Namespace::gateway();
    run(Command::new("ip").args(["netns", "exec", &namespace.0, "sysctl", "-w", "net.ipv6.conf.all.disable_ipv6=1"]));
    let snapshot = namespace.snapshot();
    assert!(snapshot.addresses.iter().all(|address| address.local.is_ipv4()));
    assert!(snapshot.rules_of(Family::V4).count() == 3);
    let question = Question::plain("2001:db8::1".parse().unwrap());
    let answers = namespace::within(&namespace.target(), || QueryThread::start().unwrap().ask(vec![question]).unwrap());
    assert!(matches!(answers.unwrap()[0].reply, Reply::Refused(_)));
}
