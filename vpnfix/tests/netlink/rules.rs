//! Rules: read as `ip` shows them, added and deleted without a trace.

use serde_json::Value;
use vpnfix::core::model::{Family, Ports, Rule, RuleAction};
use vpnfix::system::netlink::NetlinkError;

use crate::scene::{Namespace, flag, is_able};

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
            Some(Ports::Range { start, end }) if start == end => drop(put(key, start.into())),
            Some(Ports::Range { start, end }) => {
                put(&format!("{key}_start"), start.into());
                put(&format!("{key}_end"), end.into());
            }
            Some(Ports::Masked { .. }) => panic!("iproute2 6.1 sets no masks"),
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

#[test]
fn rules_are_read_whole_while_others_change_them() {
    if !is_able("rules under change") {
        return;
    }
    let namespace = Namespace::gateway();
    // As many as fit one datagram: of those every reading is of one moment.
    let batch: String = (1000..1200).map(|priority| format!("rule add pref {priority} lookup 220\n")).collect();
    namespace.batch(&batch);
    let churn = "rule add pref 500 lookup 221\nrule del pref 500 lookup 221\n".repeat(20_000);
    std::thread::scope(|scope| {
        let changes = scope.spawn(|| namespace.batch(&churn));
        let mut read = 0;
        while !changes.is_finished() {
            let rules = namespace.netlink(async |netlink| netlink.rules().await.unwrap());
            let steady = rules.iter().filter(|rule| (1000..1200).contains(&rule.priority)).count();
            assert_eq!(steady, 200, "a rule is missing or there twice");
            read += 1;
        }
        println!("read {read} times while it changed");
    });
    let batch: String = (3000..4000).map(|priority| format!("rule add pref {priority} lookup 220\n")).collect();
    namespace.batch(&batch);
    let priorities: Vec<u32> = namespace.snapshot().rules_of(Family::V4).map(|rule| rule.priority).collect();
    let expected = [0].into_iter().chain(1000..1200).chain(3000..4000).chain([32766, 32767]);
    assert_eq!(priorities, expected.collect::<Vec<_>>());
}
