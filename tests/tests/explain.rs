//! `vpnfix explain` on the incident's captured state, against `ip route get`, and the page about table 220.

use serde_json::Value;
use vpnfix_tests::incident::Incident;
use vpnfix_tests::need_root;

fn explained(incident: &Incident, arguments: &[&str], status: i32) -> Value {
    incident.vpnfix(&[&["--format", "json", "explain"], arguments].concat()).ends(status).json()
}

/// The step of the rule that decided.
fn deciding(report: &Value) -> &Value {
    let steps = report["steps"].as_array().expect("steps");
    steps.iter().find(|step| step["decided"] == true).unwrap_or_else(|| panic!("nothing decided: {report:#}"))
}

fn step(report: &Value, priority: u64) -> &Value {
    let steps = report["steps"].as_array().expect("steps");
    steps.iter().find(|step| step["priority"] == priority).unwrap_or_else(|| panic!("no rule {priority}: {report:#}"))
}

fn effect<'a>(report: &'a Value, remedy: &str) -> &'a Value {
    let remedies = report["remedies"].as_array().expect("remedies");
    let found = remedies.iter().find(|entry| entry["remedy"] == remedy);
    &found.unwrap_or_else(|| panic!("no remedy {remedy}: {report:#}"))["effect"]
}

/// The kernel's part of the report is what `ip route get` says, and the walk agrees with it.
#[track_caller]
fn is_as_ip_says(incident: &Incident, arguments: &[&str], of_ip: &[&str]) {
    let run = incident.vpnfix(&[&["--format", "json", "explain"], arguments].concat());
    let report = run.json();
    let kernel = &report["kernel"];
    match incident.route_get(of_ip) {
        None => assert!(kernel["device"].is_null() && kernel["error"].is_string(), "{report:#}"),
        Some(theirs) => {
            let table: u64 = theirs["table"].as_str().map_or(254, |table| table.parse().expect("a number"));
            assert_eq!(kernel["device"], theirs["dev"], "{of_ip:?}: {theirs:#}\n{kernel:#}");
            assert_eq!(kernel["table"], table, "{of_ip:?}: {theirs:#}\n{kernel:#}");
            assert_eq!(kernel["gateway"], theirs["gateway"], "{of_ip:?}: {theirs:#}\n{kernel:#}");
            if theirs["prefsrc"].is_string() {
                let given = arguments.contains(&"--from");
                assert!(given || kernel["source"] == theirs["prefsrc"], "{of_ip:?}: {theirs:#}\n{kernel:#}");
            }
        }
    }
    assert_eq!(report["agreement"]["state"], "agree", "{report:#}");
}

#[test]
fn the_kernels_part_is_what_ip_route_get_says() {
    need_root!();
    let incident = Incident::hijacked();
    incident.ip(&["rule add fwmark 0x10 lookup main priority 50", "rule add to 10.99.0.0/16 priority 51 prohibit"]);
    incident.ip(&[
        "rule add ipproto tcp dport 179 lookup main priority 52",
        "rule add uidrange 7-9 lookup main priority 53",
    ]);
    incident.ip(&["rule add tos 0x10 lookup main priority 54"]);
    for to in [
        "169.254.55.53",
        "169.254.253.49",
        "10.20.0.1",
        "192.168.12.1",
        "192.168.12.77",
        "192.168.12.49",
        "127.0.0.1",
        "192.168.12.255",
        "255.255.255.255",
        "224.0.0.5",
        "203.0.113.10",
        "8.8.8.8",
        "10.99.0.1",
        "fd00:55::1",
        "fd00:55::2",
        "2001:db8:20::1",
        "2001:db8:99::1",
        "::1",
    ] {
        is_as_ip_says(&incident, &[to], &[to]);
    }
    let peer = "169.254.55.53";
    is_as_ip_says(&incident, &[peer, "--from", "169.254.55.54"], &[peer, "from", "169.254.55.54"]);
    is_as_ip_says(&incident, &[peer, "--oif", "vti1"], &[peer, "oif", "vti1"]);
    is_as_ip_says(&incident, &[peer, "--mark", "0x10"], &[peer, "mark", "16"]);
    is_as_ip_says(&incident, &[peer, "--uid", "8"], &[peer, "uid", "8"]);
    is_as_ip_says(&incident, &[peer, "--tos", "0x10"], &[peer, "tos", "0x10"]);
    is_as_ip_says(&incident, &[peer, "--dscp", "4"], &[peer, "tos", "0x10"]);
    let bgp = ["--proto", "tcp", "--sport", "40000", "--dport", "179"];
    let of_ip = ["ipproto", "tcp", "sport", "40000", "dport", "179"];
    is_as_ip_says(&incident, &[&[peer][..], &bgp].concat(), &[&[peer][..], &of_ip].concat());
}

#[test]
fn the_learned_prefix_is_taken_by_rule_220_and_inside_rules_do_not_cure_it() {
    need_root!();
    let incident = Incident::hijacked();
    for (to, inside) in [("10.20.0.1", "does-not-cure"), ("169.254.55.53", "cures"), ("169.254.253.49", "cures")] {
        let report = explained(&incident, &[to], 1);
        assert_eq!(report["verdict"], "wrong", "{report:#}");
        assert_eq!(deciding(&report)["priority"], 220, "{report:#}");
        assert_eq!(step(&report, 32766)["did"], "not-asked", "{report:#}");
        assert_eq!(report["obstacle"]["owner"]["name"], "strongSwan", "{report:#}");
        assert_eq!(effect(&report, "inside"), inside, "{report:#}");
        for cure in ["main-first", "plan", "root"] {
            assert_eq!(effect(&report, cure), "cures", "{cure}: {report:#}");
        }
    }
    // The rules that the operators made by hand.
    incident.ip(&[
        "rule add to 169.254.55.52/30 lookup main priority 100",
        "rule add to 169.254.253.48/30 lookup main priority 100",
    ]);
    let peer = explained(&incident, &["169.254.55.53"], 0);
    assert_eq!((&peer["verdict"], &deciding(&peer)["priority"]), (&"right".into(), &100.into()), "{peer:#}");
    assert_eq!(incident.route_get(&["169.254.55.53"]).expect("a route")["dev"], "vti1");
    let learned = explained(&incident, &["10.20.0.1"], 1);
    assert_eq!(effect(&learned, "inside"), "does-not-cure", "{learned:#}");
    assert_eq!(incident.route_get(&["10.20.0.1"]).expect("a route")["dev"], "ens5");
    // What it promised of main-first is what the kernel then does.
    incident.ip(&["rule add lookup main suppress_prefixlength 0 priority 219"]);
    assert_eq!(incident.route_get(&["10.20.0.1"]).expect("a route")["dev"], "vti1");
    explained(&incident, &["10.20.0.1"], 0);
    let elsewhere = explained(&incident, &["203.0.113.10"], 0);
    let suppressed = step(&elsewhere, 219);
    assert_eq!((&suppressed["did"], &suppressed["route"]["route"]), (&"suppressed".into(), &"default".into()));
    assert_eq!(suppressed["by"]["suppress_prefixlength"], 0, "{suppressed:#}");
}

#[test]
fn the_same_in_ipv6() {
    need_root!();
    let incident = Incident::hijacked();
    for (to, inside) in [("2001:db8:20::1", "does-not-cure"), ("fd00:55::1", "cures")] {
        let report = explained(&incident, &[to], 1);
        assert_eq!(deciding(&report)["priority"], 220, "{report:#}");
        assert_eq!((&report["kernel"]["device"], &report["kernel"]["table"]), (&"ens5".into(), &220.into()));
        assert_eq!(report["obstacle"]["owner"]["name"], "strongSwan", "{report:#}");
        assert_eq!(effect(&report, "inside"), inside, "{report:#}");
        assert_eq!(effect(&report, "main-first"), "cures", "{report:#}");
    }
    let rule = ["rule", "add", "to", "fd00:55::/126", "lookup", "main", "priority", "100"];
    vpnfix_tests::ip::text(&[&["-6", "-n", incident.namespace()][..], &rule].concat());
    explained(&incident, &["fd00:55::1"], 0);
    explained(&incident, &["2001:db8:20::1"], 1);
}

#[test]
fn refusing_and_jumping_rules_are_told() {
    need_root!();
    let incident = Incident::hijacked();
    incident
        .ip(&["rule add to 10.20.7.0/24 priority 60 unreachable", "rule add to 10.20.8.0/24 priority 61 goto 32766"]);
    incident.ip(&["route add throw 10.20.9.0/24 table 220"]);
    let refused = explained(&incident, &["10.20.7.1"], 1);
    assert_eq!(
        (&deciding(&refused)["did"], &refused["obstacle"]["reason"]),
        (&"refused".into(), &"unreachable-rule".into())
    );
    assert!(incident.route_get(&["10.20.7.1"]).is_none());
    let jumped = explained(&incident, &["10.20.8.1"], 0);
    assert_eq!((&step(&jumped, 61)["to"], &step(&jumped, 220)["did"]), (&32766.into(), &"jumped-over".into()));
    assert_eq!(incident.route_get(&["10.20.8.1"]).expect("a route")["dev"], "vti1");
    let thrown = explained(&incident, &["10.20.9.1"], 0);
    assert_eq!(step(&thrown, 220)["did"], "thrown", "{thrown:#}");
    let text = incident.vpnfix(&["explain", "10.20.8.1"]).ends(0).stdout;
    assert!(text.contains("… 1 rule jumped over") && text.contains("this decides"), "{text}");
}

#[test]
fn what_makes_no_sense_is_told_with_the_right_status() {
    need_root!();
    let incident = Incident::hijacked();
    for wrong in [
        ["10.20.0."].as_slice(),
        &["0.0.0.0"],
        &["10.20.0.1", "--from", "fd00:55::2"],
        &["10.20.0.1", "--iif", "ens5"],
        &["10.20.0.1", "--iif", "ens5", "--oif", "vti1"],
        &["10.20.0.1", "--mark", "red"],
        &["10.20.0.1", "--proto", "300"],
        &["10.20.0.1", "--tos", "0x11"],
        &["10.20.0.1", "--dport", "70000"],
        &["10.20.0.1", "10.20.0.2"],
    ] {
        incident.vpnfix(&[&["explain"], wrong].concat()).ends(2).tells_an_error();
    }
    for (option, value) in [("--oif", "nosuchdev"), ("--iif", "nosuchdev"), ("--from", "198.51.100.1")] {
        let told = incident.vpnfix(&["explain", "10.20.0.1", option, value]).ends(4).tells_an_error();
        assert!(told.stderr.contains(value), "{told}");
        assert!(option == "--from" || told.stderr.contains("vti1, "), "the names there are are not told\n{told}");
    }
    // The kernel answers no question about ESP.
    let alone = explained(&incident, &["10.20.0.1", "--proto", "50"], 4);
    assert_eq!((&alone["kernel"], &alone["agreement"]["state"]), (&Value::Null, &"reading-alone".into()));
    explained(&incident, &["10.20.0.1", "--iif", "lo"], 1);
}

/// The page about table 220: each command is run, in the page's order, on one host, and prints what the page says.
#[test]
fn the_page_about_table_220_is_true() {
    need_root!();
    let incident = Incident::hijacked();
    let page = include_str!("../../docs/table-220.md");
    let mut run = 0;
    for block in page.split("```console\n").skip(1) {
        let block = block.split("```").next().expect("a block ends");
        for command in block.split("# ").map(str::trim).filter(|command| !command.is_empty()) {
            let (line, expected) = command.split_once('\n').unwrap_or((command, ""));
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.split_first() {
                Some((&"ip", arguments)) => {
                    let printed = incident.text(arguments);
                    assert_eq!(folded(&printed), folded(expected), "{line} prints otherwise:\n{printed}");
                }
                Some((&"vpnfix", arguments)) => {
                    let printed = incident.vpnfix(arguments).stdout;
                    let mut rest = printed.lines();
                    for line in expected.lines() {
                        assert!(
                            rest.any(|printed| printed.trim_end() == line.trim_end()),
                            "no {line:?} in:\n{printed}"
                        );
                    }
                }
                _ => panic!("{line}: neither ip nor vpnfix"),
            }
            run += 1;
        }
    }
    assert!(run > 40, "only {run} commands were found");
}

fn folded(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
