//! The cures at the root, at the right place of the host.

use super::strongswan::configured;
use super::*;
use crate::core::finding::{Actual, Cure, Expected, Finding, Reason, Severity};
use crate::core::strongswan::{Configuration, File};

/// A finding whose owner is this program, on a host.
fn finding(program: Program, table: u32, device: &str) -> Finding {
    Finding {
        id: "x".into(),
        severity: Severity::Critical,
        tunnel: "vti1".into(),
        destination: "169.254.55.53".parse().expect("an address"),
        prefix: "169.254.55.52/30".parse().expect("a prefix"),
        reason: Reason::HijackedByRule,
        expected: Expected { device: "vti1".into(), table: TABLE_MAIN },
        actual: Actual { table: Some(table), device: Some(device.into()), ..Actual::default() },
        rule: None,
        owner: Owner { name: program.name().into(), confidence: Confidence::Likely, evidence: Vec::new() },
        variants: Vec::new(),
        right_when_bound: false,
        detail: None,
        advice: None,
    }
}

fn cure_for(clues: &Clues) -> Option<Cure> {
    let mut cures = cures(
        &gateway(),
        clues,
        &[finding(Program::StrongSwan, 220, "ens5"), finding(Program::StrongSwan, 220, "ens5")],
    );
    assert!(cures.len() < 2, "each is told once");
    cures.pop()
}

/// A configuration of several files, which are there in full.
fn files(all: &[(&str, &str)]) -> Configuration {
    let mut find = |pattern: &str| {
        let directory = pattern.strip_suffix("*.conf");
        let fits = |path: &str| directory.map_or(path == pattern, |begin| path.starts_with(begin) && path != begin);
        let found = all.iter().filter(|(path, _)| fits(path));
        found.map(|(path, text)| File { path: (*path).into(), text: Ok((*text).into()), modified: Some(1) }).collect()
    };
    Configuration::read(&["/etc/strongswan.conf", "/etc/strongswan/strongswan.conf"], &mut find)
}

fn running(strongswan: Configuration) -> Clues {
    Clues { strongswan, ..with_processes(&["charon-systemd"]) }
}

#[test]
fn the_setting_goes_to_the_file_that_this_host_has() {
    let entry = "charon { }\ninclude strongswan.d/*.conf\n";
    let cases = [
        (
            files(&[("/etc/strongswan.conf", entry), ("/etc/strongswan.d/charon.conf", "charon { }")]),
            "/etc/strongswan.d/charon.conf",
            "set `install_routes = no` in section `charon`",
        ),
        (
            files(&[
                ("/etc/strongswan/strongswan.conf", entry),
                ("/etc/strongswan/strongswan.d/charon.conf", "charon { }"),
            ]),
            "/etc/strongswan/strongswan.d/charon.conf",
            "set `install_routes = no` in section `charon`",
        ),
        (
            files(&[("/etc/strongswan.conf", entry), ("/etc/strongswan.d/tnc.conf", "")]),
            "/etc/strongswan.d/charon.conf, a new file",
            "write `charon { install_routes = no }`",
        ),
        (
            files(&[("/etc/strongswan.conf", "charon { }")]),
            "/etc/strongswan.conf",
            "write `charon { install_routes = no }`",
        ),
        (
            files(&[("/etc/strongswan.conf", "charon {\n install_routes = yes\n}")]),
            "/etc/strongswan.conf:2",
            "change it to `install_routes = no`",
        ),
        (
            files(&[("/etc/strongswan.conf", "charon {\n install_routes = off\n}")]),
            "/etc/strongswan.conf:2",
            "write `install_routes = no` there: what stands there means nothing to the daemon",
        ),
    ];
    for (configuration, place, how) in cases {
        let cure = cure_for(&running(configuration)).expect("there is one");
        assert_eq!(cure.place, place);
        assert!(cure.how.starts_with(how), "{}", cure.how);
        assert!(cure.how.contains("`systemctl restart strongswan`"), "{}", cure.how);
    }
    let nothing_read = cure_for(&with_processes(&["charon"])).expect("there is one");
    assert!(nothing_read.place.contains("Debian") && nothing_read.place.contains("RHEL"));
    assert!(nothing_read.how.contains("strongswan-starter"));
}

#[test]
fn a_setting_that_is_made_needs_a_restart_only() {
    let off = "charon {\n  install_routes = no\n}\n";
    let cure = cure_for(&running(configured(off, 1_700_000_060))).expect("there is one");
    assert_eq!(cure.place, "/etc/strongswan.conf:2");
    assert!(cure.what.starts_with("restart charon-systemd (812): install_routes is off already"), "{}", cure.what);
    assert!(cure.how.starts_with("restart the daemon (`systemctl restart strongswan`)"), "{}", cure.how);
}

#[test]
fn a_configuration_that_no_daemon_starts_with_is_told_before_a_restart() {
    let cure = cure_for(&running(configured("charon {", 1))).expect("there is one");
    let caution = "before that, mend /etc/strongswan.conf:1: syntax error (a section without its end)";
    assert!(cure.how.contains(caution), "{}", cure.how);
}

#[test]
fn left_over_rules_and_routes_are_deleted_one_by_one() {
    let mut host = gateway();
    host.rules.push(Rule::lookup(Family::V6, 220, 220));
    host.routes.push(Route { metric: 1024, ..via(route(220, "fd00::/8", ENS5), "fe80::1") });
    host.routes.push(Route { kind: RouteKind::Throw, nexthops: Vec::new(), ..route(220, "10.0.0.0/8", ENS5) });
    // What others have put there stays.
    host.rules.push(to(rule(150, 220), "10.0.0.0/8"));
    host.rules.push(Rule { protocol: 4, ..rule(221, 220) });
    let found = cures(&host, &with_processes(&[]), &[finding(Program::StrongSwan, 220, "ens5")]);
    let [cure] = found.as_slice() else { panic!("one cure: {found:?}") };
    assert_eq!(cure.place, "table 220 of this network namespace");
    assert_eq!(
        cure.how.split("; ").collect::<Vec<_>>(),
        [
            "ip rule del priority 220 from all lookup 220",
            "ip -6 rule del priority 220 from all lookup 220",
            "ip route del default via 192.168.12.1 dev ens5 table 220",
            "ip -6 route del fd00::/8 via fe80::1 dev ens5 table 220 metric 1024",
            "ip route del throw 10.0.0.0/8 table 220",
        ]
    );
    assert!(!cure.how.contains("flush"));
    // The rule is the running daemon's.
    let off = "charon {\n  install_routes = no\n}\n";
    let clues = Clues { strongswan: configured(off, 1), ..with_processes(&["charon"]) };
    let cure = cure_for(&clues).expect("there is one");
    assert_eq!(cure.how, "ip route del default via 192.168.12.1 dev ens5 table 220");
}

#[test]
fn a_rule_alone_needs_no_cure() {
    let mut host = gateway();
    host.routes.retain(|route| route.table != 220);
    let off = configured("charon { install_routes = no }", 1);
    assert_eq!(cures(&host, &running(off), &[finding(Program::StrongSwan, 220, "ens5")]), []);
}

#[test]
fn others_have_cures_where_one_is_known() {
    let mut host = host_with("wireguard", "wg7");
    host.routes.push(route(51820, "0.0.0.0/0", DEVICE));
    let of = |program, table| cures(&host, &Clues::default(), &[finding(program, table, "wg7")]).pop();
    assert!(
        of(Program::OpenVpn, TABLE_MAIN).is_some_and(|cure| cure.how.contains("pull-filter ignore redirect-gateway"))
    );
    assert_eq!(of(Program::WgQuick, 51820).map(|cure| cure.place).as_deref(), Some("/etc/wireguard/wg7.conf"));
    assert!(of(Program::Tailscale, 52).is_some_and(|cure| cure.how.contains("--exit-node=")));
    assert!(of(Program::NetBird, 7120).is_some_and(|cure| cure.how.contains("netbird networks deselect")));
    assert!(of(Program::TunProxy, 2022).is_some_and(|cure| cure.how.contains("route_exclude_address")));
    for program in [Program::Kernel, Program::Ec2NetUtils, Program::Frr, Program::Vpnfix] {
        assert_eq!(of(program, TABLE_MAIN), None, "{}", program.name());
    }
    let mut unknown = finding(Program::OpenVpn, TABLE_MAIN, "tun0");
    unknown.owner.confidence = Confidence::Unknown;
    assert_eq!(cures(&host, &Clues::default(), &[unknown]), []);
}
