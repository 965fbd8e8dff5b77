//! Route queries: answered as `ip route get` is.

use std::net::IpAddr;
use std::process::Command;

use serde_json::Value;
use vpnfix::core::model::{Answer, Arrival, Question, Reply, Snapshot};
use vpnfix::system::namespace;
use vpnfix::system::netlink::{NetlinkError, Queries};

use crate::routes::{our_route, their_route};
use crate::scene::{Namespace, is_able};

/// The answer of `ip -j route get`, or its error's text.
fn their_answer(namespace: &Namespace, arguments: &str) -> Result<Value, String> {
    let output = Command::new("ip")
        .args(["-n", &namespace.0, "-j", "-d", "-N", "route", "get"])
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    if output.status.success() {
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        Ok(list[0].clone())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_string())
    }
}

#[test]
fn answers_are_those_of_ip_route_get() {
    if !is_able("queries") {
        return;
    }
    let namespace = Namespace::gateway();
    for line in [
        "rule add pref 90 to 203.0.113.2 unreachable",
        "rule add pref 91 to 203.0.113.3 prohibit",
        "rule add pref 92 to 203.0.113.4 blackhole",
        "rule add pref 93 ipproto tcp dport 179 lookup 5000",
        "rule add pref 94 fwmark 0x1 lookup 5000",
        "rule add pref 95 uidrange 4711-4711 lookup 5000",
        "rule add pref 96 ipproto tcp sport 179 lookup 5000",
        "rule add pref 97 tos 0x10 lookup 5000",
        "rule add pref 220 lookup 220",
        "-6 rule add pref 220 lookup 220",
        "route add default via 192.168.12.1 dev ens5 table 220 proto static",
        "route add default via 169.254.55.53 dev Tunnel1 table 5000 proto bgp",
        "-6 route add default via 2001:db8:12::1 dev ens5 table 220 proto static",
        "-6 route add unreachable 2001:db8:78::/48 table 220",
    ] {
        namespace.ip(line);
    }
    let index = |name: &str| namespace.snapshot().link_named(name).unwrap().index;
    let (tunnel, card) = (index("Tunnel1"), index("ens5"));
    let plain = |address: &str| Question::plain(address.parse().unwrap());
    let peer = || plain("169.254.55.53");
    let inside: IpAddr = "169.254.55.54".parse().unwrap();
    let bgp = |question: Question| Question { ip_protocol: Some(6), ..question };
    let asked = [
        ("169.254.55.53", peer()),
        ("169.254.55.54", plain("169.254.55.54")),
        ("10.20.1.1", plain("10.20.1.1")),
        ("8.8.8.8", plain("8.8.8.8")),
        ("203.0.113.2", plain("203.0.113.2")),
        ("203.0.113.3", plain("203.0.113.3")),
        ("203.0.113.4", plain("203.0.113.4")),
        ("169.254.55.53 oif Tunnel1", Question { output_interface: Some(tunnel), ..peer() }),
        ("169.254.55.53 from 169.254.55.54", Question { source: Some(inside), ..peer() }),
        ("169.254.55.53 mark 1", Question { mark: 1, ..peer() }),
        ("169.254.55.53 uid 4711", Question { uid: Some(4711), ..peer() }),
        ("169.254.55.53 ipproto tcp dport 179", Question { destination_port: Some(179), ..bgp(peer()) }),
        ("169.254.55.53 ipproto tcp sport 179", Question { source_port: Some(179), ..bgp(peer()) }),
        ("169.254.55.53 tos 0x10", Question { tos: 0x10, ..peer() }),
        (
            "169.254.55.54 from 169.254.55.53 iif Tunnel1",
            Question { source: Some(peer().destination), input_interface: Some(tunnel), ..plain("169.254.55.54") },
        ),
        (
            "8.8.8.8 from 192.168.12.77 iif ens5",
            Question {
                source: Some("192.168.12.77".parse().unwrap()),
                input_interface: Some(card),
                ..plain("8.8.8.8")
            },
        ),
        (
            "192.168.12.49 from 127.0.0.1 iif ens5",
            Question {
                source: Some("127.0.0.1".parse().unwrap()),
                input_interface: Some(card),
                ..plain("192.168.12.49")
            },
        ),
        ("fd00:55::1", plain("fd00:55::1")),
        ("2001:db8:12::49", plain("2001:db8:12::49")),
        ("2001:db8:78::1", plain("2001:db8:78::1")),
        (
            "2001:db8:99::1 from fd00:55::2",
            Question { source: Some("fd00:55::2".parse().unwrap()), ..plain("2001:db8:99::1") },
        ),
        ("fd00:55::1 oif Tunnel1", Question { output_interface: Some(tunnel), ..plain("fd00:55::1") }),
    ];
    let questions: Vec<Question> = asked.iter().map(|(_, question)| question.clone()).collect();
    let answers = namespace::within(&namespace.target(), || {
        let thread = Queries::on_a_thread().unwrap();
        assert_ne!(thread.thread_id(), nix::unistd::gettid().as_raw().cast_unsigned());
        thread.ask(questions.clone()).unwrap()
    })
    .unwrap();
    let snapshot = namespace.snapshot();
    assert_eq!(answers.iter().map(|answer| answer.question.clone()).collect::<Vec<_>>(), questions);
    for ((arguments, _), answer) in asked.iter().zip(&answers) {
        compare_answer(&namespace, &snapshot, arguments, answer);
    }
}

fn compare_answer(namespace: &Namespace, snapshot: &Snapshot, arguments: &str, answer: &Answer) {
    match (their_answer(namespace, arguments), &answer.reply) {
        (Ok(theirs), Reply::Arrives(Arrival { table, ifindex, gateway, source, local })) => {
            let text = |key: &str| theirs[key].as_str().unwrap_or_default().to_string();
            // Where `ip` was given a source it shows that as `from`, and main goes unsaid.
            let given = answer.question.source.map(|source| source.to_string());
            assert_eq!(source.map(|source| source.to_string()), given.or(Some(text("prefsrc"))), "{arguments}");
            assert_eq!(table.to_string(), theirs["table"].as_str().unwrap_or("254"), "{arguments}");
            assert_eq!(snapshot.device_name(*ifindex), text("dev"), "{arguments}");
            assert_eq!(gateway.map_or(String::new(), |gateway| gateway.to_string()), text("gateway"), "{arguments}");
            assert_eq!(*local, theirs["type"] == "2", "{arguments}");
            let entry = answer.entry.as_ref().unwrap();
            assert_eq!(entry.table, *table, "{arguments}");
            let matched = their_answer(namespace, &format!("fibmatch {arguments}")).unwrap();
            let listed = their_route(&matched, entry.table.into());
            assert_eq!(our_route(snapshot, entry), listed, "{arguments}");
        }
        (Err(text), Reply::Refused(errno)) => {
            let said = nix::errno::Errno::from_raw(*errno).desc();
            assert!(text.to_lowercase().contains(&said.to_lowercase()), "{arguments}: {text} and {said}");
        }
        (theirs, ours) => panic!("{arguments}: {theirs:?} and {ours:?}"),
    }
}

#[test]
fn the_thread_that_opened_the_way_asks_by_itself_and_no_other() {
    if !is_able("questions of the own thread") {
        return;
    }
    let namespace = Namespace::gateway();
    let question = Question::plain("169.254.55.53".parse().unwrap());
    namespace::within(&namespace.target(), || {
        let here = Queries::here().unwrap();
        assert_eq!(here.thread_id(), nix::unistd::gettid().as_raw().cast_unsigned());
        let own = here.ask(vec![question.clone()]).unwrap();
        assert_eq!(own, Queries::on_a_thread().unwrap().ask(vec![question.clone()]).unwrap());
        let other = std::thread::scope(|scope| scope.spawn(|| here.ask(vec![question.clone()])).join().unwrap());
        assert!(matches!(other, Err(NetlinkError::OtherThread)), "{other:?}");
    })
    .unwrap();
}

#[test]
fn a_malformed_question_is_an_error_and_the_thread_lives_on() {
    if !is_able("malformed question") {
        return;
    }
    let namespace = Namespace::gateway();
    namespace::within(&namespace.target(), || {
        let thread = Queries::on_a_thread().unwrap();
        let peer = Question::plain("169.254.55.53".parse().unwrap());
        let odd = Question { ip_protocol: Some(89), ..peer.clone() };
        let error = thread.ask(vec![odd]).unwrap_err();
        assert!(error.to_string().starts_with("look up the route to 169.254.55.53"), "{error}");
        let answer = thread.ask(vec![peer]).unwrap().remove(0);
        assert!(matches!(answer.reply, Reply::Arrives(_)));
    })
    .unwrap();
}
