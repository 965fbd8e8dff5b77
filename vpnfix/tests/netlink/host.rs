//! Namespaces, the probe, TCP peers, and a host without IPv6.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;

use vpnfix::core::control::TcpConnection;
use vpnfix::core::model::{Family, Netns, Question, Reply, Rule};
use vpnfix::system::host;
use vpnfix::system::namespace::{self, Target};
use vpnfix::system::netlink::{Netlink, Queries};
use vpnfix::system::probe::{Probe, ProbeTarget};

use crate::scene::{Namespace, is_able, pair, run, wait_until};

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
        vrf: None,
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
    // A joined thread has ended, but the kernel may take a moment to put it away.
    wait_until(|| !std::fs::exists(&task).unwrap());
}

#[test]
fn established_connections_are_those_of_the_namespace() {
    if !is_able("peers") {
        return;
    }
    let (left, right) = pair();
    let listener = namespace::within(&right.target(), || std::net::TcpListener::bind("[::]:179").unwrap()).unwrap();
    let connect = |to: &str| std::net::TcpStream::connect(to).unwrap();
    let _streams = namespace::within(&left.target(), || [connect("192.0.2.2:179"), connect("[fd00::2]:179")]).unwrap();
    let _accepted = [listener.accept().unwrap(), listener.accept().unwrap()];
    let connections =
        |namespace: &Namespace| namespace::within(&namespace.target(), || host::established().unwrap()).unwrap();
    let ends = |local: &str, peer: &str| TcpConnection { local: local.parse().unwrap(), peer: peer.parse().unwrap() };
    assert_eq!(connections(&left), BTreeSet::from([ends("192.0.2.1", "192.0.2.2"), ends("fd00::1", "fd00::2")]));
    assert_eq!(connections(&right), BTreeSet::from([ends("192.0.2.2", "192.0.2.1"), ends("fd00::2", "fd00::1")]));
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
    let answers =
        namespace::within(&namespace.target(), || Queries::on_a_thread().unwrap().ask(vec![question]).unwrap());
    assert!(matches!(answers.unwrap()[0].reply, Reply::Refused(_)));
}

/// Set for the child of the next test, which runs without any capability.
const WITHOUT_PRIVILEGE: &str = "VPNFIX_TEST_WITHOUT_PRIVILEGE";

#[test]
fn a_missing_privilege_is_told_as_such() {
    if std::env::var_os(WITHOUT_PRIVILEGE).is_some() {
        return without_privilege();
    }
    if !is_able("privileges") {
        return;
    }
    let namespace = Namespace::gateway();
    let program = std::env::current_exe().unwrap();
    let mut child = Command::new("ip");
    child.args(["netns", "exec", &namespace.0, "setpriv", "--bounding-set=-all", "--inh-caps=-all"]);
    child.arg(program).args(["--exact", "host::a_missing_privilege_is_told_as_such"]);
    let said = run(child.env(WITHOUT_PRIVILEGE, &namespace.0));
    assert!(said.contains("1 passed"), "{said}");
    assert_eq!(namespace.snapshot().rules_of(Family::V4).count(), 3);
}

/// Runs in a namespace of the test, not in the host's.
fn without_privilege() {
    assert!(host::capabilities().unwrap().is_empty());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let netlink = Netlink::connect().unwrap();
        let snapshot = netlink.snapshot(Netns::default()).await.unwrap();
        assert!(snapshot.link_named("Tunnel1").is_some(), "reading needs no privilege");
        let rule = Rule { protocol: 118, ..Rule::lookup(Family::V4, 100, 254) };
        let error = netlink.add_rule(&rule).await.unwrap_err();
        assert!(error.is_privilege(), "{error}");
        assert_eq!(error.to_string(), "add IPv4 rule `100: from all lookup main proto vpnfix`");
        let existing = snapshot.rules_of(Family::V4).next().unwrap();
        let error = netlink.delete_rule(existing).await.unwrap_err();
        assert!(error.is_privilege(), "{error}");
    });
    let name = std::env::var(WITHOUT_PRIVILEGE).unwrap();
    let error = namespace::within(&Target::Named(name), || ()).unwrap_err();
    assert!(error.is_privilege(), "{error}");
    let target = ProbeTarget { destination: IpAddr::from([127, 0, 0, 1]), source: None, vrf: None };
    assert!(Probe::start(&[target]).is_err_and(|error| error.is_privilege()));
    let question = Question::plain(IpAddr::from([169, 254, 55, 53]));
    assert!(Queries::on_a_thread().unwrap().ask(vec![question]).is_ok(), "asking needs no privilege");
}
