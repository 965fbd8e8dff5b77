//! Faults of a VPN, each built into a healthy one, and the check that must be the first to fail.

pub(crate) mod vpn;

use super::*;
use crate::core::fixture::{ENS5, LAN, VTI1, address, route, via};
use crate::core::model::{Family, LinkKind, Mark, Rule, TABLE_MAIN};
use crate::core::own_file::Backend;
use crate::core::persist::Comparison;
use crate::core::report::Outcome;
use crate::core::report::verify::VpnVerdict;
use vpn::{HERE, PEERS, VTI2, Vpn, ip};

/// A fault, and the label of the check that names it.
type Row = (&'static str, fn(&mut Vpn), &'static str);

fn key(vpn: &mut Vpn, key: u32) {
    for link in vpn.snapshot.links.iter_mut().filter(|link| link.index == VTI1) {
        if let LinkKind::Vti { input_key, output_key, .. } = &mut link.kind {
            (*input_key, *output_key) = (key, key);
        }
    }
    vpn.sends_nothing(VTI1);
}

fn links(vpn: &mut Vpn, index: u32) -> &mut crate::core::model::Link {
    vpn.snapshot.links.iter_mut().find(|link| link.index == index).expect("a link")
}

/// The first tunnel as an XFRM interface, with everything of it tied by an id.
fn xfrm(vpn: &mut Vpn, if_id: u32) {
    links(vpn, VTI1).kind = LinkKind::Xfrm { if_id };
    for policy in vpn.policies() {
        (policy.mark, policy.if_id) = (None, 42);
    }
    for sample in [&mut vpn.measured.before, &mut vpn.measured.after] {
        for association in sample.associations.as_mut().expect("read") {
            if association.reqid == 1 {
                (association.mark, association.if_id) = (None, 42);
            }
        }
    }
}

const FAULTS: &[Row] = &[
    ("the incident: rule 220 before main", Vpn::hijack, "destinations hijacked-by-rule"),
    ("key of the interface is not the mark", |vpn| key(vpn, 101), "outbound-policy vti1"),
    (
        "input key alone is another one",
        |vpn| {
            if let LinkKind::Vti { input_key, .. } = &mut links(vpn, VTI1).kind {
                *input_key = 9;
            }
            vpn.counter("XfrmInTmplMismatch", 3);
            vpn.silent(VTI1);
        },
        "inbound-policy vti1",
    ),
    (
        "mark missing on the policies",
        |vpn| vpn.policies().for_each(|policy| policy.mark = None),
        "outbound-policy vti1",
    ),
    (
        "outbound SA with another mark",
        |vpn| {
            vpn.associations().iter_mut().filter(|sa| sa.destination == ip(PEERS[0])).for_each(|sa| {
                sa.mark = Some(Mark { value: 7, mask: u32::MAX });
            });
            vpn.sends_nothing(VTI1);
        },
        "outbound-sa vti1",
    ),
    (
        "inbound SA with a mark that nothing bears",
        |vpn| {
            vpn.associations().iter_mut().filter(|sa| sa.source == ip(PEERS[0])).for_each(|sa| {
                sa.mark = Some(Mark { value: 7, mask: u32::MAX });
            });
            vpn.counter("XfrmInNoStates", 3);
            vpn.silent(VTI1);
        },
        "inbound-sa vti1",
    ),
    (
        "outbound SA that is still to be negotiated",
        |vpn| {
            vpn.associations().iter_mut().filter(|sa| sa.destination == ip(PEERS[0])).for_each(|sa| sa.spi = 0);
            vpn.sends_nothing(VTI1);
        },
        "outbound-sa vti1",
    ),
    (
        "public address as the interface's local one",
        |vpn| {
            if let LinkKind::Vti { local, .. } = &mut links(vpn, VTI1).kind {
                *local = Some(ip("198.51.100.49"));
            }
            vpn.sends_nothing(VTI1);
        },
        "endpoints vti1",
    ),
    (
        "another peer in the interface",
        |vpn| {
            if let LinkKind::Vti { remote, .. } = &mut links(vpn, VTI1).kind {
                *remote = Some(ip("203.0.113.99"));
            }
            vpn.sends_nothing(VTI1);
        },
        "endpoints vti1",
    ),
    (
        "if_id of the interface is not the policies'",
        |vpn| {
            xfrm(vpn, 43);
            vpn.sends_nothing(VTI1);
        },
        "outbound-policy vti1",
    ),
    (
        "disable_xfrm on the tunnel",
        |vpn| {
            let switches = Switches { disable_policy: true, disable_xfrm: true };
            vpn.measured.switches.as_mut().expect("read").insert(VTI1, switches);
            vpn.sends_nothing(VTI1);
        },
        "disable-xfrm vti1",
    ),
    (
        "disable_policy off, and packets fail the second check",
        |vpn| {
            vpn.measured.switches.as_mut().expect("read").insert(VTI1, Switches::default());
            vpn.counter("XfrmInTmplMismatch", 3);
            vpn.silent(VTI1);
        },
        "disable-policy vti1",
    ),
    (
        "strict source validation, and packets are dropped",
        |vpn| {
            links(vpn, VTI1).settings.rp_filter = 1;
            vpn.counter("TcpExtIPReversePathFilter", 3);
            vpn.silent(VTI1);
        },
        "rp-filter vti1",
    ),
    (
        "strict source validation, as the kernel's answer shows it",
        |vpn| {
            links(vpn, VTI1).settings.rp_filter = 1;
            vpn.refuses_reverse = true;
        },
        "rp-filter vti1",
    ),
    (
        "no address inside",
        |vpn| {
            vpn.snapshot.addresses.retain(|address| address.ifindex != VTI1);
            vpn.measured.reach.retain(|reach| reach.tunnel != VTI1);
        },
        "address vti1",
    ),
    (
        "both SAs gone",
        |vpn| {
            vpn.associations().retain(|sa| sa.reqid != 1);
            vpn.sends_nothing(VTI1);
            vpn.counter("XfrmOutNoStates", 3);
        },
        "outbound-sa vti1",
    ),
    (
        "IKE down, and policies and SAs with it",
        |vpn| {
            vpn.associations().retain(|sa| sa.reqid != 1);
            vpn.measured.policies.as_mut().expect("read").retain(|policy| policy.templates[0].reqid != 1);
            vpn.measured.ike.as_mut().expect("asked").remove(0);
            vpn.sends_nothing(VTI1);
        },
        "ike-sa vti1",
    ),
    (
        "IKE still connecting",
        |vpn| {
            vpn.associations().retain(|sa| sa.reqid != 1);
            vpn.measured.ike.as_mut().expect("asked")[0].state = "CONNECTING".into();
            vpn.sends_nothing(VTI1);
        },
        "ike-sa vti1",
    ),
    (
        "another ESP key at the far end",
        |vpn| {
            vpn.associations().iter_mut().filter(|sa| sa.source == ip(PEERS[0])).for_each(|sa| {
                sa.usage.failed_integrity = 4;
            });
            vpn.counter("XfrmInStateProtoError", 4);
            vpn.silent(VTI1);
        },
        "integrity vti1",
    ),
    ("an SA at its end that nobody replaced", |vpn| vpn.measured.machine.now += 5000, "sa-lifetime vti1"),
    (
        "selectors that leave the peer out",
        |vpn| vpn.policies().for_each(|policy| policy.destination = "10.20.0.0/16".parse().expect("a prefix")),
        "selectors vti1",
    ),
    (
        "a black hole for large packets",
        |vpn| vpn.measured.reach[0].path_mtu = Ok(PathMtu { device: 1419, largest: 1200, silent: true }),
        "path-mtu 169.254.55.53",
    ),
    (
        "forwarding off on a gateway",
        |vpn| vpn.snapshot.links.iter_mut().for_each(|link| link.settings.forwarding = false),
        "forwarding",
    ),
    (
        "interface down",
        |vpn| {
            let link = links(vpn, VTI1);
            (link.up, link.carrier) = (false, false);
            vpn.snapshot.routes.retain(|route| route.nexthops[0].ifindex != Some(VTI1));
            vpn.silent(VTI1);
        },
        "link-up vti1",
    ),
    (
        "the same inside prefix twice",
        |vpn| {
            vpn.snapshot.addresses.retain(|address| address.ifindex != VTI2);
            vpn.snapshot.addresses.push(address(VTI2, "169.254.55.54", 30));
        },
        "inside-unique vti1",
    ),
    (
        "interface moved into another namespace",
        |vpn| {
            vpn.snapshot.links.retain(|link| link.index != VTI1);
            vpn.snapshot.addresses.retain(|address| address.ifindex != VTI1);
            vpn.snapshot.routes.retain(|route| route.nexthops[0].ifindex != Some(VTI1));
            vpn.measured.reach.retain(|reach| reach.tunnel != VTI1);
        },
        "tunnel-present",
    ),
    ("peer down", |vpn| vpn.silent(VTI1), "peer-answers 169.254.55.53"),
    (
        "TCP 179 filtered",
        |vpn| {
            vpn.sessions(BgpState::Connect, None);
            vpn.measured.reach.iter_mut().for_each(|reach| reach.bgp_port = Ok(Port::Silent));
        },
        "bgp-port 169.254.55.53",
    ),
    (
        "nothing listens on TCP 179",
        |vpn| {
            vpn.sessions(BgpState::Active, None);
            vpn.measured.reach.iter_mut().for_each(|reach| reach.bgp_port = Ok(Port::Refused));
        },
        "bgp-port 169.254.55.53",
    ),
    (
        "wrong ASN",
        |vpn| vpn.sessions(BgpState::Active, Some("OPEN Message Error/Bad Peer AS")),
        "bgp-asn 169.254.55.53",
    ),
    (
        "wrong BGP password",
        |vpn| {
            vpn.sessions(BgpState::Connect, None);
            vpn.measured.reach.iter_mut().for_each(|reach| reach.bgp_port = Ok(Port::Silent));
            vpn.counter("TcpExtTCPMD5Failure", 2);
        },
        "bgp-password",
    ),
    (
        "BGP idle for a reason of its own",
        |vpn| vpn.sessions(BgpState::Idle, Some("Cease/Administrative Shutdown")),
        "bgp-session 169.254.55.53",
    ),
    (
        "a better route of main's",
        |vpn| vpn.snapshot.routes.push(route(TABLE_MAIN, "169.254.55.53/32", ENS5)),
        "destinations shadowed-by-route",
    ),
    (
        "vpnfix's rules after the hijacker",
        |vpn| {
            vpn.hijack();
            let own = Rule { protocol: 118, ..Rule::lookup(Family::V4, 300, TABLE_MAIN) };
            vpn.snapshot.rules.insert(2, own);
        },
        "destinations hijacked-by-rule",
    ),
    (
        "the tunnel's own packets routed into it",
        |vpn| {
            vpn.snapshot.routes.push(via(route(TABLE_MAIN, "203.0.113.0/24", VTI1), "169.254.55.53"));
            let counters = vpn.measured.after.links.get_mut(&VTI1).expect("counters");
            (counters.collisions, counters.tx_errors) = (3, 10);
            vpn.silent(VTI1);
        },
        "destinations outer-loop",
    ),
];

fn failed(report: &crate::core::report::verify::VerifyReport) -> Vec<&Check> {
    report.checks.iter().filter(|check| check.state == State::Failed).collect()
}

#[test]
fn a_healthy_vpn_has_neither_failures_nor_warnings() {
    let report = Vpn::healthy().report();
    let told: Vec<_> = report.checks.iter().filter(|c| matches!(c.state, State::Failed | State::Warning)).collect();
    assert_eq!(told, [] as [&Check; 0]);
    assert_eq!((report.outcome, report.verdict), (Outcome::Ok, VpnVerdict::Healthy));
    let skipped: Vec<_> = report.checks.iter().filter(|check| check.state == State::Skipped).collect();
    assert_eq!(skipped, [] as [&Check; 0]);
    assert_eq!(report.associations.len(), 4);
    assert_eq!(report.associations[0].packets_in_sample, Some(10));
}

#[test]
fn each_fault_is_named_by_the_first_failed_check() {
    let mut table = String::new();
    let mut wrong = 0;
    for (fault, inject, expected) in FAULTS {
        let mut vpn = Vpn::healthy();
        inject(&mut vpn);
        let report = vpn.report();
        let first = report.checks.first().filter(|check| check.state == State::Failed);
        let found = first.map_or_else(|| "nothing failed".into(), Check::label);
        if found != *expected {
            wrong += 1;
            let all: Vec<String> =
                failed(&report).iter().map(|check| format!("{}: {}", check.label(), check.found)).collect();
            table.push_str(&format!("WRONG {fault}: {found}, not {expected}\n  {}\n", all.join("\n  ")));
        } else {
            table.push_str(&format!("{fault}: {found}: {}\n", first.map_or("", |check| &check.found)));
            assert_eq!(report.outcome, Outcome::FaultFound, "{fault}");
        }
    }
    println!("{table}");
    assert_eq!(wrong, 0, "{table}");
}

#[test]
fn what_follows_from_the_incident_says_so() {
    let mut vpn = Vpn::healthy();
    vpn.hijack();
    let report = vpn.report();
    let of = |id: CheckId| report.checks.iter().find(move |check| check.id == id && check.state == State::Failed);
    for id in [CheckId::BgpSession, CheckId::OneWay, CheckId::PeerAnswers, CheckId::Egress] {
        let check = of(id).unwrap_or_else(|| panic!("{id:?} has not failed"));
        assert_eq!(check.consequence_of.as_deref(), Some("destinations hijacked-by-rule"), "{id:?}");
    }
    let session = of(CheckId::BgpSession).expect("it failed");
    assert!(session.found.starts_with("Connect"), "{}", session.found);
    let symptom = of(CheckId::OneWay).expect("it failed");
    assert!(symptom.found.starts_with("0 bytes out, 1740 bytes in"), "{}", symptom.found);
    assert_eq!(of(CheckId::Destinations).and_then(|check| check.consequence_of.clone()), None);
}

#[test]
fn counters_are_told_by_their_change_alone() {
    let mut vpn = Vpn::healthy();
    for sample in [&mut vpn.measured.before, &mut vpn.measured.after] {
        for name in ["XfrmInStateProtoError", "XfrmOutNoStates", "XfrmSomethingNew"] {
            sample.xfrm.as_mut().expect("read").insert(name.into(), 1_000_000);
        }
        for counters in sample.links.values_mut() {
            (counters.tx_carrier_errors, counters.tx_errors, counters.collisions) = (900, 1800, 900);
        }
    }
    assert_eq!(vpn.report().outcome, Outcome::Ok);
    vpn.counter("XfrmSomethingNew", 1);
    let report = vpn.report();
    let check = report.checks.iter().find(|check| check.id == CheckId::XfrmErrors).expect("it is told");
    assert_eq!(check.state, State::Warning);
    assert!(check.found.contains("XfrmSomethingNew +1"), "{}", check.found);
    // A counter that was set back has not risen.
    vpn.measured.after.links.values_mut().for_each(|counters| *counters = crate::core::model::LinkCounters::default());
    vpn.measured.reach.clear();
    assert_eq!(vpn.report().outcome, Outcome::Ok);
}

#[test]
fn what_could_not_be_read_is_skipped_and_says_why() {
    let mut vpn = Vpn::healthy();
    let why = || NotKnown::because("Operation not permitted");
    let measured = &mut vpn.measured;
    measured.policies = Err(why());
    for sample in [&mut measured.before, &mut measured.after] {
        (sample.associations, sample.xfrm, sample.network) = (Err(why()), Err(why()), Err(why()));
    }
    (measured.switches, measured.ike, measured.bgp, measured.sockets) =
        (Err(why()), Err(why()), Err(why()), Err(why()));
    for reach in &mut measured.reach {
        (reach.echoes, reach.path_mtu, reach.bgp_port) = (Err(why()), Err(why()), Err(why()));
    }
    let report = vpn.report();
    assert_eq!(failed(&report), [] as [&Check; 0]);
    let skipped: Vec<_> = report.checks.iter().filter(|check| check.state == State::Skipped).collect();
    assert!(skipped.len() >= 8, "{skipped:#?}");
    assert!(skipped.iter().all(|check| check.found.contains("not permitted")), "{skipped:#?}");
    // The routes were read, and are right.
    assert_eq!(report.outcome, Outcome::Ok);
}

#[test]
fn without_a_tunnel_nothing_can_be_told() {
    let mut vpn = Vpn::healthy();
    vpn.snapshot.links.retain(|link| ![VTI1, VTI2].contains(&link.index));
    vpn.measured.policies = Ok(Vec::new());
    vpn.measured.reach.clear();
    let report = vpn.report();
    assert_eq!((report.outcome, report.verdict), (Outcome::Unable, VpnVerdict::Unknown));
}

#[test]
fn a_host_that_uses_its_vpn_alone_need_not_forward() {
    let mut vpn = Vpn::healthy();
    vpn.snapshot.links.iter_mut().for_each(|link| link.settings.forwarding = false);
    vpn.snapshot.addresses.retain(|address| address.ifindex != LAN);
    vpn.measured.bgp = Err(NotKnown::because("none"));
    for sample in [&mut vpn.measured.before, &mut vpn.measured.after] {
        sample.network.as_mut().expect("read").insert("IpForwDatagrams".into(), 0);
    }
    let report = vpn.report();
    let check = report.checks.iter().find(|check| check.id == CheckId::Forwarding).expect("it is told");
    assert_eq!(check.state, State::Skipped, "{}", check.found);
}

#[test]
fn sockets_tell_of_bgp_where_no_daemon_does() {
    let socket = |local: &str, peer: &str, state| TcpSocket {
        local: local.parse().expect("an end"),
        peer: peer.parse().expect("an end"),
        state,
    };
    let mut vpn = Vpn::healthy();
    vpn.measured.bgp = Err(NotKnown::because("none"));
    vpn.measured.sockets = Ok(vec![
        socket("169.254.55.54:40000", "169.254.55.53:179", TcpState::Established),
        socket(&format!("{HERE}:40001"), "169.254.253.49:179", TcpState::SynSent),
    ]);
    let report = vpn.report();
    let of = |peer: &str| {
        let session = |check: &&Check| check.id == CheckId::BgpSession && check.subject.as_deref() == Some(peer);
        report.checks.iter().find(session).expect("it is told").clone()
    };
    assert_eq!(of("169.254.55.53").state, State::Ok);
    let asking = of("169.254.253.49");
    assert_eq!(asking.state, State::Failed);
    assert!(asking.found.contains("which is no address of the tunnel"), "{}", asking.found);
}

#[test]
fn the_repair_is_told_to_be_lost_at_a_reboot() {
    let mut vpn = Vpn::healthy();
    vpn.snapshot.rules.insert(1, Rule { protocol: 118, ..Rule::lookup(Family::V4, 219, TABLE_MAIN) });
    let rule = vpn.snapshot.rules[1].clone();
    let comparison = Comparison { not_persisted: vec![rule.clone()], endangered: vec![rule], ..Comparison::default() };
    vpn.measured.machine.persistence = Some(Ok(comparison));
    let warned = |vpn: &Vpn| -> Vec<CheckId> {
        let report = vpn.report();
        assert_eq!(report.outcome, Outcome::Ok);
        report.checks.iter().filter(|check| check.state == State::Warning).map(|check| check.id).collect()
    };
    assert_eq!(warned(&vpn), [CheckId::FixPersisted, CheckId::Networkd]);
    vpn.measured.machine.persistence =
        Some(Ok(Comparison { backend: Some(Backend::Systemd), ..Comparison::default() }));
    assert_eq!(warned(&vpn), []);
}

#[test]
fn an_xfrm_interface_is_tied_by_its_id() {
    let mut vpn = Vpn::healthy();
    xfrm(&mut vpn, 42);
    assert_eq!(failed(&vpn.report()), [] as [&Check; 0]);
}
