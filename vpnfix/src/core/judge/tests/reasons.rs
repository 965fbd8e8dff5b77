//! Each reason by itself, above all those that a scene of veth pairs cannot show.

use super::*;
use crate::core::fixture::{LAN, LO, VTI1, address, link, via};
use crate::core::model::{Address, Family, Mark, Nexthop, TABLE_LOCAL, UidRange};

/// Index of a second tunnel.
const VTI2: u32 = 7;
/// Index of a VRF device.
const RED: u32 = 8;
const RED_TABLE: u32 = 10;

fn healthy() -> Snapshot {
    Snapshot { rules: healthy_rules(), ..gateway() }
}

fn vti(remote: &str) -> LinkKind {
    LinkKind::Vti { v6: false, local: None, remote: remote.parse().ok(), input_key: 2, output_key: 2 }
}

/// The healthy gateway with one more tunnel.
fn two_tunnels(local: &str, inside: &str) -> Snapshot {
    let mut host = healthy();
    host.links.push(link(VTI2, "vti2", vti("203.0.113.20")));
    host.addresses.push(address(VTI2, local, 30));
    host.routes.push(route(TABLE_MAIN, inside, VTI2));
    host.routes.push(route(TABLE_LOCAL, &format!("{local}/32"), VTI2));
    host
}

#[track_caller]
fn only(judgement: &Judgement, reason: Reason) -> &Finding {
    let reasons: Vec<Reason> = judgement.findings.iter().map(|finding| finding.reason).collect();
    assert_eq!(reasons, [reason], "{judgement:#?}");
    &judgement.findings[0]
}

#[test]
fn an_ike_peer_in_its_own_tunnel_is_a_loop_and_in_another_a_note() {
    let mut host = two_tunnels("169.254.99.2", "169.254.99.0/30");
    host.routes.push(route(TABLE_MAIN, "203.0.113.10/32", VTI1));
    let judgement = judged(&host);
    let found = only(&judgement, Reason::OuterLoop);
    assert_eq!((found.tunnel.as_str(), found.expected.device.as_str()), ("vti1", "ens5"));
    assert_eq!(found.prefix.to_string(), "203.0.113.10/32");

    let mut host = two_tunnels("169.254.99.2", "169.254.99.0/30");
    host.routes.push(route(TABLE_MAIN, "203.0.113.10/32", VTI2));
    let judgement = judged(&host);
    assert_eq!(judgement.findings, []);
    assert!(note_ids(&judgement).contains(&NoteId::PeerByOtherTunnel), "{judgement:#?}");
}

#[test]
fn service_addresses_in_a_tunnel_are_a_fault_on_a_clouds_machine() {
    for (vendor, wrong) in [(None, 0), (Some("QEMU"), 0), (Some("Amazon EC2"), 4)] {
        let mut host = healthy();
        host.host.vendor = vendor.map(String::from);
        host.routes.push(route(TABLE_MAIN, "fd00::/8", VTI1));
        host.rules.push(Rule::lookup(Family::V6, 32766, TABLE_MAIN));
        let judgement = judged(&host);
        assert!(judgement.findings.iter().all(|finding| finding.reason == Reason::ControlInTunnel), "{judgement:#?}");
        assert_eq!(judgement.findings.len(), wrong, "{vendor:?}: {judgement:#?}");
        assert_eq!(note_ids(&judgement).contains(&NoteId::ServiceInTunnel), wrong == 0, "{vendor:?}");
    }
}

#[test]
fn a_route_for_link_local_addresses_into_a_tunnel_is_a_fault_everywhere() {
    let mut host = healthy();
    host.routes.push(route(TABLE_MAIN, "169.254.0.0/16", VTI1));
    let judgement = judged(&host);
    assert!(!judgement.findings.is_empty());
    assert!(judgement.findings.iter().all(|finding| finding.reason == Reason::ControlInTunnel), "{judgement:#?}");
}

#[test]
fn the_second_of_two_tunnels_with_one_inside_prefix_is_the_one_at_fault() {
    let judgement = judged(&two_tunnels("169.254.55.54", "169.254.55.52/30"));
    let found = only(&judgement, Reason::DuplicateInside);
    assert_eq!((found.tunnel.as_str(), found.actual.device.as_deref()), ("vti2", Some("vti1")));
    // Hijacked, both are; that they are the same stays worth saying.
    let mut host = two_tunnels("169.254.55.54", "169.254.55.52/30");
    host.rules = gateway().rules;
    let judgement = judged(&host);
    let duplicates = judgement.findings.iter().filter(|finding| finding.reason == Reason::DuplicateInside);
    assert_eq!(duplicates.map(|finding| finding.tunnel.as_str()).collect::<Vec<_>>(), ["vti2"]);
}

#[test]
fn a_peer_that_is_this_host_is_told() {
    let host = two_tunnels("169.254.55.53", "169.254.99.0/30");
    let judgement = judged(&host);
    assert!(judgement.findings.iter().any(|finding| finding.reason == Reason::PeerIsOwn), "{judgement:#?}");
}

#[test]
fn a_tunnel_that_is_down_is_one_finding_a_destination() {
    let mut host = healthy();
    host.links[2].up = false;
    host.routes.retain(|route| !(route.table == TABLE_MAIN && route.leaves_by(VTI1)));
    let bound = |variant, answer: Answer| match variant {
        Variant::BoundToTunnel => Answer { reply: Reply::Refused(101), ..answer },
        _ => answer,
    };
    let judgement = judged_with(&host, bound);
    let found = only(&judgement, Reason::TunnelDown);
    assert_eq!(found.severity, Severity::Critical);
    assert_eq!(found.rule.as_ref().map(|rule| rule.priority), Some(32766));
}

#[test]
fn a_tunnel_without_carrier_is_told_once() {
    let mut host = healthy();
    host.links[2].carrier = false;
    let judgement = judged(&host);
    assert_eq!(only(&judgement, Reason::TunnelWithoutCarrier).tunnel, "vti1");
    assert_eq!(judgement.right, [true, true], "the ways are right");
}

fn from(source: &'static str) -> impl Fn(Variant, Answer) -> Answer {
    move |variant, answer| match (variant, &answer.reply) {
        (Variant::Plain, Reply::Arrives(arrival)) => {
            let reply = Reply::Arrives(crate::core::model::Arrival { source: source.parse().ok(), ..arrival.clone() });
            Answer { reply, ..answer }
        }
        _ => answer,
    }
}

#[test]
fn another_source_is_a_fault_to_the_peer_and_a_note_to_what_lies_behind() {
    let judgement = judged_with(&healthy(), from("192.168.12.49"));
    let found = only(&judgement, Reason::WrongSource);
    assert_eq!(found.prefix.to_string(), "169.254.55.52/30");
    assert_eq!(note_ids(&judgement), [NoteId::SourceOfOtherDevice]);
    assert!(judgement.notes[0].text.contains("10.20.0.0/16"), "{:?}", judgement.notes);
    assert_eq!(judged_with(&healthy(), from("169.254.55.54")).findings, []);
    // Where the route says it, it is meant.
    let mut host = healthy();
    host.routes[4].preferred_source = "192.168.12.49".parse().ok();
    assert_eq!(note_ids(&judged_with(&host, from("192.168.12.49"))), []);
}

/// The tunnel is enslaved to a VRF, and everything is hijacked before the VRFs' rule.
fn in_vrf() -> Snapshot {
    let mut host = gateway();
    host.links[2].master = Some(RED);
    host.links.push(link(RED, "red", LinkKind::Vrf { table: RED_TABLE }));
    for route in host.routes.iter_mut().filter(|route| route.leaves_by(VTI1)) {
        route.table = RED_TABLE;
    }
    host.rules.insert(2, Rule { l3mdev: true, ..Rule::lookup(Family::V4, 1000, 0) });
    host
}

#[test]
fn flows_of_a_vrf_have_a_reason_of_their_own() {
    let judgement = judged(&in_vrf());
    assert!(!judgement.findings.is_empty());
    for finding in &judgement.findings {
        assert_eq!(finding.reason, Reason::HijackedFromVrf, "{finding:#?}");
        assert_eq!((finding.expected.table, finding.actual.table), (RED_TABLE, Some(220)));
        assert!(finding.detail.as_ref().is_some_and(|detail| detail.contains("1000")), "{finding:#?}");
    }
    // With the VRFs' rule first all is well.
    let mut host = in_vrf();
    host.rules.retain(|rule| rule.priority != 220);
    assert_eq!(judged(&host).findings, []);
}

#[test]
fn what_was_not_asked_is_judged_by_the_engine() {
    for (host, right) in [(gateway(), false), (healthy(), true)] {
        let tunnels = tunnels(&host, &[]).expect("no device is named");
        let fib = Fib::new(&host);
        let destinations = destinations(&fib, &tunnels);
        let case = Case { fib: &fib, tunnels: &tunnels, destinations: &destinations, clues: &Clues::default() };
        let asked: Vec<Asked> = questions(&destinations, &vec![true; destinations.len()])
            .into_iter()
            .filter(|asked| matches!(asked.subject, Subject::Destination { index: 0, .. }))
            .collect();
        let answers: Vec<Answer> = asked.iter().map(|asked| answer(&host, &asked.question)).collect();
        let judgement = judge(case, &asked, &answers);
        assert_eq!(judgement.judged_by, [Judge::Kernel, Judge::Engine]);
        assert_eq!(judgement.right, [right, right]);
        let of_engine = judgement.findings.iter().find(|finding| finding.prefix == destinations[1].prefix);
        assert_eq!(of_engine.map(|finding| finding.reason), (!right).then_some(Reason::HijackedByRule));
    }
}

#[test]
fn of_several_ways_that_the_engine_sees_the_wrong_one_counts() {
    let mut host = healthy();
    let mut half = route(220, "10.20.0.0/16", VTI1);
    half.nexthops.push(Nexthop { ifindex: Some(ENS5), ..Nexthop::default() });
    host.routes.push(half);
    host.rules = gateway().rules;
    let tunnels = tunnels(&host, &[]).expect("no device is named");
    let fib = Fib::new(&host);
    let destinations = destinations(&fib, &tunnels);
    let case = Case { fib: &fib, tunnels: &tunnels, destinations: &destinations, clues: &Clues::default() };
    let judgement = judge(case, &[], &[]);
    let behind = destinations.iter().position(|left| left.prefix.to_string() == "10.20.0.0/16").expect("it is there");
    assert!(!judgement.right[behind], "{judgement:#?}");
}

#[test]
fn a_mark_or_a_user_is_a_fault_only_with_bgps_port_or_the_inside_source() {
    let users = UidRange { start: 100, end: 100 };
    let mark = Mark { value: 5, mask: u32::MAX };
    let base = || Rule::lookup(Family::V4, 90, 77);
    let bgp = Some(crate::core::model::Ports::one(179));
    let inside = "169.254.55.54/32".parse().ok();
    for (rule, fault) in [
        (Rule { uid_range: Some(users), ..base() }, false),
        (Rule { mark: Some(mark), ..base() }, false),
        (Rule { uid_range: Some(users), ip_protocol: Some(6), destination_ports: bgp, ..base() }, true),
        (Rule { mark: Some(mark), from: inside, ..base() }, true),
        (Rule { iif: Some("lan0".into()), ip_protocol: Some(6), destination_ports: bgp, ..base() }, false),
    ] {
        let mut host = healthy();
        host.links[LAN as usize - 1].settings.forwarding = true;
        host.addresses.push(address(LAN, "10.9.0.1", 24));
        host.routes.push(route(77, "0.0.0.0/0", ENS5));
        host.rules.insert(1, rule.clone());
        let judgement = judged(&host);
        assert_eq!(!judgement.findings.is_empty(), fault, "{rule}: {judgement:#?}");
        assert!(judgement.findings.iter().all(|finding| finding.variants == [Variant::Selected]), "{rule}");
        assert!(note_ids(&judgement).contains(&NoteId::SomeTrafficElsewhere), "{rule}: the prefix behind is a note");
    }
}

#[test]
fn aws_takes_the_first_host_for_itself() {
    let mut host = healthy();
    host.addresses[0] = address(VTI1, "169.254.55.53", 30);
    assert!(note_ids(&judged(&host)).contains(&NoteId::SwappedInside));
}

#[test]
fn the_form_with_a_peer_has_the_same_inside_prefix() {
    let mut host = gateway();
    host.addresses[0] = Address { peer: "169.254.55.53".parse().ok(), ..address(VTI1, "169.254.55.54", 30) };
    let judgement = judged(&host);
    assert!(judgement.findings.iter().any(|finding| finding.id == "hijacked-by-rule:vti1:169.254.55.52/30:220"));
}

#[test]
fn ipv6_is_judged_alike() {
    let rules = |hijacked: bool| {
        let mut rules = vec![Rule::lookup(Family::V6, 0, 255), Rule::lookup(Family::V6, 32766, TABLE_MAIN)];
        if hijacked {
            rules.insert(1, Rule::lookup(Family::V6, 220, 220));
        }
        rules
    };
    for hijacked in [false, true] {
        let mut host = healthy();
        host.addresses = vec![address(VTI1, "fd00:55::2", 126), address(VTI1, "fe80::1", 64), address(LO, "::1", 128)];
        host.routes = vec![
            route(TABLE_MAIN, "fd00:55::/126", VTI1),
            route(TABLE_MAIN, "fe80::/64", VTI1),
            via(route(TABLE_MAIN, "2001:db8:20::/48", VTI1), "fd00:55::1"),
            route(TABLE_LOCAL, "fd00:55::2/128", VTI1),
            via(route(220, "::/0", ENS5), "fe80::2"),
        ];
        host.rules = rules(hijacked);
        let judgement = judged(&host);
        let found: Vec<String> = judgement.findings.iter().map(|finding| finding.id.clone()).collect();
        let expected: &[&str] = if hijacked {
            &["hijacked-by-rule:vti1:fd00:55::/126:220", "hijacked-by-rule:vti1:2001:db8:20::/48:220"]
        } else {
            &[]
        };
        assert_eq!(found, expected);
        assert_eq!(judgement.right, [!hijacked; 2], "link-local is no destination");
    }
}
