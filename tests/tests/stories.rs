//! The story of single flows: who sent them, which way they went and why, and what became of them.

use std::fs;
use std::net::Ipv4Addr;

use serde_json::Value;
use vpnfix_tests::scene::{INSIDE1, LOCAL1, PEER1, PEER2, REMOTE_HOST, Scene, WRONG_DEVICE};
use vpnfix_tests::trace::{Trace, Traced};
use vpnfix_tests::{ip, need_kind, need_root, traffic};

/// The stories at the end that fit.
fn stories(traced: &Traced, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
    let all = traced.summary()["stories"].as_array().expect("no stories").clone();
    all.into_iter().filter(|story| fits(story)).collect()
}

/// The drops of a story, as (reason, function, packets, answers?).
fn drops(story: &Value) -> Vec<(String, String, u64, bool)> {
    let word = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    let drop = |drop: &Value| {
        let packets = drop["packets"].as_u64().expect("no count");
        (word(&drop["reason"]), word(&drop["function"]), packets, drop["incoming"] == true)
    };
    story["drops"].as_array().expect("no drops").iter().map(drop).collect()
}

/// This kernel gives reasons for drops (since 5.17).
fn gives_reasons() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("no release");
    let mut numbers = release.split(['.', '-']).map_while(|word| word.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(5), Some(17))
}

#[test]
fn a_newcomer_reads_what_became_of_a_ping() {
    need_root!();
    let scene = Scene::hijacked();
    let before = scene.sent(WRONG_DEVICE);
    let peer = PEER1.to_string();
    let told = scene.vpnfix(&["trace", "--", "ping", "-n", "-c", "3", "-i", "0.2", "-W", "1", &peer]).ends(1);
    assert_eq!(scene.sent(WRONG_DEVICE) - before, 3, "{told}");
    for words in [
        "MISROUTED",
        "sent by     ping (process",
        "belongs to  Tunnel1 (169.254.163.248/30)",
        "table 220 (strongSwan): dev eth0",
        "by rule     `220: from all lookup 220`",
        "<- this decides",
        "source      10.9.0.10, an address of eth0",
        "left by     eth0: 3 packets, 252 bytes; IN THE CLEAR, they belong to Tunnel1",
        "answered    no packet came back",
        "ended with status 1",
    ] {
        assert!(told.stdout.contains(words), "{words:?} is not told\n{told}");
    }
}

#[test]
fn a_healthy_ping_is_told_to_be_answered_by_its_tunnel() {
    need_root!();
    let scene = Scene::healthy();
    let peer = PEER1.to_string();
    let told = scene.vpnfix(&["trace", "--", "ping", "-n", "-c", "2", "-i", "0.2", "-W", "2", &peer]).ends(0);
    for words in [
        "answered    2 packets, 168 bytes, by Tunnel1",
        "left by     Tunnel1: 2 packets, 168 bytes",
        "ended with status 0",
    ] {
        assert!(told.stdout.contains(words), "{words:?} is not told\n{told}");
    }
    assert!(!told.stdout.contains("MISROUTED"), "{told}");
}

#[test]
fn a_story_is_told_again_when_it_changes() {
    need_root!();
    let scene = Scene::hijacked();
    let mut trace = Trace::start(&scene);
    let sender = traffic::trickle(&scene.gw(), PEER1);
    let first = trace.wait_for("the story", |line| line["type"] == "story");
    assert_eq!((&first["fate"], &first["changed"]), (&"misrouted".into(), &serde_json::json!([])), "{first:#}");
    assert_eq!(first["flow_id"], 1);
    scene.ip(&["rule del priority 220"]);
    let again = trace.wait_for("the story told again", |line| line["type"] == "story" && line["flow_id"] == 1);
    let changed = again["changed"].to_string();
    assert!(changed.contains("table 220 to eth0, table 254 to Tunnel1 (was table 220 to eth0)"), "{again:#}");
    // By the tunnel its datagrams have the tunnel's address: from there on it is another flow.
    let by_tunnel = |line: &Value| line["type"] == "story" && line["source"] == LOCAL1.to_string();
    let seen = trace.seen().iter().find(|line| by_tunnel(line)).cloned();
    let other = seen.unwrap_or_else(|| trace.wait_for("the story of the flow by the tunnel", by_tunnel));
    assert_eq!((&other["fate"], &other["egress"][0]["device"]), (&"unanswered".into(), &"Tunnel1".into()), "{other:#}");
    drop(sender);
    trace.stop().ends(1);
}

#[test]
fn strict_source_validation_is_named_as_what_drops_the_answers() {
    need_root!();
    let scene = Scene::hijacked();
    scene.sysctl("conf/Tunnel1/rp_filter", "1");
    let before = traffic::counter(&scene.gw(), "TcpExt", "IPReversePathFilter");
    let trace = Trace::start(&scene);
    traffic::blast(&scene.of("far1"), LOCAL1, 50);
    let traced = trace.stop().ends(0);
    assert_eq!(traffic::counter(&scene.gw(), "TcpExt", "IPReversePathFilter") - before, 50);
    let [story] = stories(&traced, |story| story["source"] == LOCAL1.to_string()).try_into().expect("one story");
    let dropped = drops(&story);
    let incoming: u64 = dropped.iter().filter(|(.., incoming)| *incoming).map(|(_, _, packets, _)| packets).sum();
    assert_eq!(incoming, 50, "{story:#}");
    if gives_reasons() {
        assert_eq!(story["fate"], "dropped", "{story:#}");
        // 6.1 has no reason of its own for it, and names the place alone.
        let (reason, function, ..) = &dropped[0];
        assert!(reason == "IP_RPFILTER" || function.starts_with("ip_"), "{story:#}");
    }
    assert!(dropped.iter().all(|(_, function, ..)| function != "none"), "{story:#}");
    let purposes: Vec<&Value> =
        story["lookups"].as_array().expect("no lookups").iter().map(|l| &l["purpose"]).collect();
    assert!(purposes.iter().any(|purpose| **purpose == "source_validation"), "{story:#}");
}

#[test]
fn forwarding_that_is_off_is_told_by_reason_and_place() {
    need_root!();
    let scene = Scene::healthy();
    ip::text(&["-n", &scene.of("far1"), "route", "add", "10.9.0.1/32", "via", &LOCAL1.to_string(), "dev", "Tunnel1"]);
    scene.sysctl("ip_forward", "0");
    let before =
        traffic::counter(&scene.gw(), "Ip", "InAddrErrors") + traffic::counter(&scene.gw(), "Ip", "InDiscards");
    let trace = Trace::start(&scene);
    traffic::blast(&scene.of("far1"), "10.9.0.1".parse().expect("an address"), 20);
    let traced = trace.stop().ends(0);
    let counted = traffic::counter(&scene.gw(), "Ip", "InAddrErrors")
        + traffic::counter(&scene.gw(), "Ip", "InDiscards")
        - before;
    assert!(counted >= 20, "the kernel counted {counted} of 20 as not forwarded: {traced:#?}");
    let [story] = stories(&traced, |story| story["source"] == "10.9.0.1").try_into().expect("one story");
    let dropped = drops(&story);
    assert_eq!(dropped.iter().map(|(_, _, packets, _)| packets).sum::<u64>(), 20, "{story:#}");
    assert!(dropped.iter().all(|(_, function, ..)| function.starts_with("ip_")), "{story:#}");
    if gives_reasons() {
        assert_eq!(story["fate"], "dropped", "{story:#}");
    }
}

#[test]
fn an_unreachable_rule_is_told_where_it_drops_what_is_forwarded() {
    need_root!();
    let scene = Scene::healthy();
    let (peer1, local2) = (PEER1.to_string(), "169.254.88.82");
    ip::text(&["-n", &scene.of("far2"), "route", "add", &peer1, "via", local2, "dev", "Tunnel2"]);
    scene.ip(&["rule add to 169.254.163.248/30 priority 57 unreachable"]);
    let trace = Trace::start(&scene);
    traffic::blast(&scene.of("far2"), PEER1, 20);
    let traced = trace.stop().ends(0);
    let on_their_way = |story: &Value| story["destination"] == peer1.as_str() && story["protocol"] == 17;
    let [story] = stories(&traced, on_their_way).try_into().expect("one story");
    let dropped = drops(&story);
    assert_eq!(dropped.iter().filter(|(.., incoming)| !incoming).map(|(_, _, n, _)| n).sum::<u64>(), 20, "{story:#}");
    assert!(dropped.iter().all(|(_, function, ..)| function.starts_with("ip_")), "{story:#}");
    let decided = story["walk"].as_array().expect("no walk").iter().find(|step| step["decided"] == true);
    assert_eq!(decided.expect("nothing decided")["priority"], 57, "{story:#}");
}

#[test]
fn no_flow_of_another_namespace_is_told_though_all_addresses_are_the_same() {
    need_root!();
    let (scene, other) = (Scene::hijacked(), Scene::hijacked());
    let trace = Trace::start(&scene);
    let loads: Vec<_> = [PEER1, PEER2, REMOTE_HOST].map(|to| traffic::trickle(&other.gw(), to)).into();
    let sent = traffic::blast(&scene.gw(), PEER1, 500);
    for to in [PEER1, PEER2, REMOTE_HOST] {
        traffic::blast(&other.gw(), to, 500);
    }
    drop(loads);
    let traced = trace.stop().ends(1);
    let netns = traced.lines[0]["netns"]["inode"].clone();
    let all = stories(&traced, |_| true);
    assert!(all.iter().all(|story| story["netns"] == netns), "{all:#?}");
    let packets: u64 = all
        .iter()
        .flat_map(|story| story["egress"].as_array().expect("no egress"))
        .map(|egress| egress["packets"].as_u64().expect("no count"))
        .sum();
    assert_eq!(packets, sent, "{all:#?}");
    assert_eq!(traced.count("packets", INSIDE1, |_| true), sent);
}

#[test]
fn a_session_that_cannot_come_up_is_told_with_its_retransmissions() {
    need_root!();
    let scene = Scene::hijacked();
    let trace = Trace::start(&scene);
    let before = traffic::counter(&scene.gw(), "Tcp", "RetransSegs");
    // It waits for two seconds: TCP sends its SYN again after one.
    assert!(!traffic::bgp_connects(&scene.gw(), PEER1));
    let sent_again = traffic::counter(&scene.gw(), "Tcp", "RetransSegs") - before;
    let traced = trace.stop().ends(1);
    let [story] = stories(&traced, |story| story["destination_port"] == 179).try_into().expect("one story");
    assert_eq!(story["retransmissions"], sent_again, "{story:#}");
    assert!(sent_again >= 1);
    assert_eq!(story["fate"], "misrouted");
    assert_eq!(story["tcp"][0]["new"], "syn_sent", "{story:#}");
    assert_eq!(story["sender"]["kind"], "process", "{story:#}");
    assert_eq!(story["sender"]["pid"], std::process::id(), "{story:#}");
}

#[test]
fn what_goes_right_is_encrypted_by_the_tunnels_own_association() {
    need_root!();
    let scene = Scene::healthy();
    // Without a key it would be the same as the fallback device of the kind.
    need_kind!(scene, "vti local 192.0.2.1 remote 192.0.2.2 key 1");
    let trace = Trace::start(&scene);
    assert!(traffic::pings(&scene.gw(), PEER1));
    let traced = trace.stop().ends(0);
    let [story] = stories(&traced, |story| story["protocol"] == 1).try_into().expect("one story");
    let encryption = &story["egress"][0]["encryption"];
    assert_eq!((&encryption["state"], &encryption["spi"]), (&"by".into(), &(100 + 0x1000).into()), "{story:#}");
    assert_eq!(encryption["destination"], "198.18.1.2", "{story:#}");
    assert_eq!(encryption["packets"], 2, "{story:#}");
    // Root's ping has a raw socket: of each reply the kernel also says that nobody wanted it.
    assert_eq!((&story["fate"], &story["drops"]), (&"right".into(), &serde_json::json!([])), "{story:#}");
}

#[test]
fn what_no_policy_or_association_fits_is_told_as_dropped_by_the_tunnel() {
    need_root!();
    let scene = Scene::healthy();
    need_kind!(scene, "vti local 192.0.2.1 remote 192.0.2.2 key 1");
    // No policy has this mark: the far end's key is another one.
    scene.ip(&["link change Tunnel1 type vti local 10.9.0.10 remote 198.18.1.2 key 4711"]);
    dropped_by_the_tunnel(&scene, PEER1);
    scene.ip(&["xfrm state deleteall src 10.9.0.10 dst 198.18.2.2"]);
    dropped_by_the_tunnel(&scene, PEER2);
}

/// Packets are handed to the tunnel, which drops them: its error counter tells how many.
#[track_caller]
fn dropped_by_the_tunnel(scene: &Scene, peer: Ipv4Addr) {
    let device = if peer == PEER1 { "Tunnel1" } else { "Tunnel2" };
    let errors = || ip::json(&["-n", &scene.gw(), "-s", "link", "show", device])[0]["stats64"]["tx"]["errors"].clone();
    let before = errors().as_u64().expect("no counter");
    let trace = Trace::start(scene);
    assert!(!traffic::pings(&scene.gw(), peer));
    let traced = trace.stop().ends(0);
    let failed = errors().as_u64().expect("no counter") - before;
    let own = |story: &Value| story["protocol"] == 1 && story["destination"] == peer.to_string();
    let [story] = stories(&traced, own).try_into().expect("one story");
    let dropped = drops(&story);
    assert_eq!(dropped.iter().map(|(_, _, packets, _)| packets).sum::<u64>(), failed, "{story:#}");
    assert!(failed > 0 && dropped.iter().all(|(_, function, ..)| function.starts_with("vti_")), "{story:#}");
    assert_eq!(
        (&story["egress"][0]["device"], &story["egress"][0]["encryption"]["state"]),
        (&device.into(), &"none".into())
    );
    if gives_reasons() {
        assert_eq!(story["fate"], "dropped", "{story:#}");
    }
}
