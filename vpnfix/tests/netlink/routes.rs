//! Routes: read as `ip` shows them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;

use serde_json::Value;
use vpnfix::core::model::{Family, Nexthop, Route, Snapshot};

use crate::scene::{Namespace, flag, has_flag, is_able, run, wait_until};

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

/// A route of `ip -j -d -N route` in one line of the fields that the model has.
pub(crate) fn their_route(route: &Value, table: u64) -> String {
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

pub(crate) fn our_route(snapshot: &Snapshot, route: &Route) -> String {
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
