//! What resembles a program's rules and routes, and must not be taken for them.

use std::slice;

use super::*;

#[test]
fn a_foreign_route_in_table_220_leaves_strongswan_possible_at_most() {
    let mut host = host();
    host.routes.push(of_protocol(via(route(220, "10.0.0.0/8", ENS5), "192.168.12.1"), 186));
    let clues = with_processes(&["charon"]);
    let shaped = to(rule(220, 220), "10.0.0.0/8");
    for rules in [[shaped], [rule(220, 220)]] {
        assert_eq!(owner_on(host.clone(), &clues, &rules, 0), is(Program::StrongSwan, Confidence::Possible));
    }
    // That route is none of strongSwan's, and says whose it is.
    let learned = host.routes.last().cloned().expect("it was put there");
    assert_eq!(route_owner(&host, &clues, &learned), is(Program::Frr, Confidence::Certain));
}

#[test]
fn another_shape_leaves_strongswan_possible_at_most() {
    let clues = with_processes(&["charon"]);
    let shapes = [
        to(rule(220, 220), "169.254.55.52/30"),
        marked(rule(220, 220), 1, u32::MAX),
        rule(219, 220),
        // networkd's, from an administrator's file.
        Rule { protocol: 4, ..rule(220, 220) },
    ];
    for shape in shapes {
        let (name, confidence) = owner_on(host(), &clues, slice::from_ref(&shape), 0);
        assert!(name != "strongSwan" || confidence == Confidence::Possible, "{shape}");
    }
    assert_eq!(owner_on(host(), &clues, &[rule(220, 221)], 0).0, "unknown");
}

#[test]
fn a_running_program_alone_owns_nothing() {
    let all: Vec<&str> = Program::ALL.iter().flat_map(|program| program.signs().processes).copied().collect();
    let clues = with_processes(&all);
    let by_hand = [to(rule(150, TABLE_MAIN), "169.254.55.52/30"), from(rule(151, 77), "10.0.0.0/8"), rule(32000, 300)];
    for asked in 0..by_hand.len() {
        assert_eq!(owner_on(host(), &clues, &by_hand, asked).0, "unknown", "{asked}");
    }
    let route = of_protocol(via(route(TABLE_MAIN, "10.9.0.0/16", ENS5), "192.168.12.9"), 3);
    let owner = of_route(&host(), &clues, &route);
    assert_eq!(owner.name, "unknown");
    assert_eq!(owner.evidence, ["the route's protocol is boot (`ip route` by hand or in a script)"]);
}

#[test]
fn a_process_elsewhere_is_no_sign_here() {
    let mut clues = with_processes(&["systemd-network"]);
    let own = Rule { protocol: 4, ..rule(300, 77) };
    clues.processes[0].whereabouts = Whereabouts::Elsewhere;
    assert_eq!(owner_on(host(), &clues, slice::from_ref(&own), 0), is(Program::Networkd, Confidence::Possible));
    // Where it may not be looked at, it is told and does not count.
    clues.processes[0].whereabouts = Whereabouts::Unknown;
    assert_eq!(owner_on(host(), &clues, slice::from_ref(&own), 0), is(Program::Networkd, Confidence::Possible));
    let owner = of_rule(&host(), &clues, &own);
    let told = "process systemd-network (812) runs, in a network namespace that may not be looked at";
    assert!(owner.evidence.contains(&told.to_string()), "{owner:?}");
}

#[test]
fn near_misses_of_other_programs_are_not_named() {
    let near = [
        // wg-quick's rule with a mask, or into another table than its mark.
        not(marked(rule(32765, 51820), 51820, 0xffff)),
        not(marked(rule(32765, 100), 51820, u32::MAX)),
        // A rule of ec2-net-utils' range whose priority is not its table.
        from(rule(10002, 10001), "10.0.0.9/32"),
        // cloud-init's table for an address that is not this host's.
        from(rule(219, 101), "203.0.113.9/32"),
        // The VPC CNI plugin's priorities, for something else.
        from(rule(512, 77), "10.0.0.0/8"),
        marked(rule(1024, TABLE_MAIN), 0x40, 0x40),
        // Cilium's priority, with no protocol and nothing else of it.
        to(rule(20, TABLE_MAIN), "10.1.2.3/32"),
    ];
    for rule in near {
        assert_eq!(owner_on(host(), &Clues::default(), slice::from_ref(&rule), 0).0, "unknown", "{rule}");
    }
    // Half of everything without its other half, and both by different devices.
    let mut host = host_with("tun", "tun0");
    let half =
        Route { nexthops: route(TABLE_MAIN, "0.0.0.0/1", DEVICE).nexthops, ..route(TABLE_MAIN, "0.0.0.0/1", DEVICE) };
    assert_eq!(route_owner(&host, &Clues::default(), &half).0, "unknown");
    host.routes.extend([half.clone(), route(TABLE_MAIN, "128.0.0.0/1", ENS5)]);
    assert_eq!(route_owner(&host, &Clues::default(), &half).0, "unknown");
}

#[test]
fn what_is_unknown_says_what_is_known() {
    let mut clues = Clues::default();
    clues.table_names.insert(77, "dmz".into());
    clues.protocol_names.insert(77, "mine".into());
    let owner = of_rule(&host(), &clues, &Rule { protocol: 77, ..rule(300, 77) });
    assert_eq!(owner.confidence, Confidence::Unknown);
    assert_eq!(owner.evidence, ["the rule's protocol is mine", "table 77 is named dmz in rt_tables of this host"]);
    assert_eq!(super::owner(&host(), &clues, None).evidence, Vec::<String>::new());
}

#[test]
fn behind_a_rule_of_every_namespace_the_route_counts() {
    let mut host = host_with("tun", "tun0");
    let half = |prefix| of_protocol(via(route(TABLE_MAIN, prefix, DEVICE), "10.8.0.1"), 3);
    host.routes.extend([half("0.0.0.0/1"), half("128.0.0.0/1")]);
    let main = rule(32766, TABLE_MAIN);
    let of = |rule: &Rule| of_decision(&host, &Clues::default(), Some(rule), Some(&half("0.0.0.0/1"))).name;
    assert_eq!(of(&main), "OpenVPN");
    assert_eq!(of(&to(rule(300, TABLE_MAIN), "10.0.0.0/8")), "unknown");
    assert_eq!(of_decision(&host, &Clues::default(), Some(&main), None).name, "kernel");
}
