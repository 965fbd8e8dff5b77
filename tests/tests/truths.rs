//! What a naive tracer gets wrong.

use serde_json::Value;
use vpnfix_tests::need_root;
use vpnfix_tests::scene::{INSIDE1, LOCAL1, PEER1, REMOTE, REMOTE_HOST, Scene};
use vpnfix_tests::trace::Trace;
use vpnfix_tests::traffic;

/// Truth 1: a hit that a suppressing rule discards is not the outcome, and one that it keeps is.
#[test]
fn a_suppressing_rule_before_the_hijacker_is_judged_right() {
    need_root!();
    let scene = Scene::hijacked();
    scene.ip(&["rule add from all lookup main suppress_prefixlength 0 priority 100"]);
    scene.vpnfix(&["diagnose"]).ends(0);
    let trace = Trace::start(&scene);
    traffic::blast(&scene.gw(), PEER1, 200);
    traffic::blast(&scene.gw(), REMOTE_HOST, 200);
    let traced = trace.stop().ends(0);
    for prefix in [INSIDE1, REMOTE] {
        assert_eq!(traced.verdict(prefix), "right", "{traced:#?}");
        assert_eq!(traced.output_lookups(prefix), 200, "{traced:#?}");
        // Answers of the far end are validated by lookups of their own.
        let by_main =
            |e: &Value| e["kind"] == "output" && e["table"] == 254 && e["device"] == "Tunnel1" && e["final"] == true;
        assert_eq!(traced.count("lookups", prefix, by_main), 200, "{traced:#?}");
    }
}

/// Truth 1, the other way: the rule suppresses what is wider than it allows, so the walk goes on to the hijacker.
#[test]
fn a_suppressing_rule_that_discards_the_tunnels_route_is_judged_wrong() {
    need_root!();
    let scene = Scene::hijacked();
    scene.ip(&["rule add from all lookup main suppress_prefixlength 20 priority 100"]);
    scene.vpnfix(&["diagnose"]).ends(1);
    let trace = Trace::start(&scene);
    traffic::blast(&scene.gw(), REMOTE_HOST, 200);
    traffic::blast(&scene.gw(), PEER1, 200);
    let traced = trace.stop().ends(1);
    assert_eq!(traced.verdict(REMOTE), "misrouted", "{traced:#?}");
    assert_eq!(traced.verdict(INSIDE1), "right", "{traced:#?}");
}

/// Truth 3: the kernel's source validation of packets that come in asks about the peer, too. It sends nothing.
#[test]
fn reverse_path_lookups_are_not_counted_as_output() {
    need_root!();
    let scene = Scene::hijacked();
    // Somebody listens, so that the packets are answered by no ICMP error.
    let sink = traffic::udp(&scene.gw(), 9);
    let trace = Trace::start(&scene);
    traffic::blast(&scene.of("far1"), LOCAL1, 300);
    let traced = trace.stop().ends(0);
    drop(sink);
    assert_eq!(traced.output_lookups(INSIDE1), 0, "{traced:#?}");
    assert_ne!(traced.verdict(INSIDE1), "misrouted", "{traced:#?}");
    let validations = traced.count("lookups", INSIDE1, |entry| entry["kind"] == "source_validation");
    assert!(validations >= 300, "{validations} source validations: {traced:#?}");
}

/// Truth 4: a rule to a table without routes, or without existence, fires no tracepoint; the list of rules has it.
#[test]
fn a_rule_to_a_missing_table_is_reported_from_the_rule_list() {
    need_root!();
    let scene = Scene::hijacked();
    scene.ip(&["rule add to 10.77.0.0/16 lookup 47999 priority 57"]);
    let diagnosis = scene.vpnfix(&["--format", "json", "diagnose"]).ends(1).json();
    assert!(names_number(&diagnosis, 47999), "table 47999 is not named: {diagnosis:#}");
}

/// Truth 4: neither does a rule that refuses.
#[test]
fn a_rule_that_refuses_is_reported_from_the_rule_list() {
    need_root!();
    let scene = Scene::healthy();
    scene.ip(&["rule add to 10.77.0.0/16 priority 57 unreachable"]);
    let diagnosis = scene.vpnfix(&["--format", "json", "diagnose"]).ends(1).json();
    let findings = diagnosis["findings"].as_array().expect("no findings");
    let finding = findings.iter().find(|finding| finding["prefix"] == REMOTE);
    let finding = finding.unwrap_or_else(|| panic!("nothing found of {REMOTE}: {diagnosis:#}"));
    assert_eq!(finding["reason"], "unreachable-rule", "{finding:#}");
    assert_eq!(finding["rule"]["priority"], 57, "{finding:#}");
}

/// Whether a number stands anywhere in a document, alone or in a text.
fn names_number(value: &Value, number: u64) -> bool {
    match value {
        Value::Number(n) => n.as_u64() == Some(number),
        Value::String(text) => text.split(|c: char| !c.is_ascii_digit()).any(|word| word == number.to_string()),
        Value::Array(list) => list.iter().any(|entry| names_number(entry, number)),
        Value::Object(fields) => fields.values().any(|entry| names_number(entry, number)),
        Value::Null | Value::Bool(_) => false,
    }
}
