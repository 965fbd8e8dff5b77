//! The incident as it was captured on a real gateway (Debian 12, kernel 6.1, strongSwan 5.9.8, FRR 8.4): rules and
//! routes as `ip rule` and `ip route` printed them, and the kernel's answers as `ip route get` did.

use std::net::IpAddr;

use super::{Case, add_plan, explain};
use crate::core::control::{Neighbours, controls};
use crate::core::destination::destinations;
use crate::core::fixture::{address, answer, link, route, via};
use crate::core::judge::{Case as Judged, judge, questions};
use crate::core::model::{
    Answer, Arrival, Family, HostFacts, LinkKind, Netns, Question, Reply, Route, RouteKind, Rule, Snapshot,
    TABLE_LOCAL, TABLE_MAIN,
};
use crate::core::owner::Clues;
use crate::core::plan::{Situation, Strategy, hijackers, plan};
use crate::core::report::explain::{ExplainReport, PacketVerdict};
use crate::core::tunnel::tunnels;
use crate::core::walk::Fib;

const LO: u32 = 1;
const ENS5: u32 = 2;
const VTI1: u32 = 4;
const VTI2: u32 = 5;

/// After strongSwan came up: rule 220 in both families, and table 220's default. BGP has learned nothing.
pub fn after_charon() -> Snapshot {
    let vti = |remote: &str, key| LinkKind::Vti {
        v6: false,
        local: "192.168.12.49".parse().ok(),
        remote: remote.parse().ok(),
        input_key: key,
        output_key: key,
    };
    let kernels = |route: Route| Route { protocol: 2, ..route };
    let broadcast = |destination, device| Route { kind: RouteKind::Broadcast, ..own(destination, device) };
    let rule = Rule::lookup;
    Snapshot {
        host: HostFacts { kernel: "6.1.0-56-amd64".into(), hostname: "gateway".into(), vendor: None },
        netns: Netns::default(),
        links: vec![
            link(LO, "lo", LinkKind::Loopback),
            link(ENS5, "ens5", LinkKind::Plain),
            link(VTI1, "vti1", vti("203.0.113.10", 1)),
            link(VTI2, "vti2", vti("203.0.113.18", 2)),
        ],
        addresses: vec![
            address(ENS5, "192.168.12.49", 24),
            address(VTI1, "169.254.55.54", 30),
            address(VTI2, "169.254.253.50", 30),
        ],
        rules: vec![
            rule(Family::V4, 0, 255),
            rule(Family::V4, 220, 220),
            rule(Family::V4, 32766, 254),
            rule(Family::V4, 32767, 253),
            rule(Family::V6, 0, 255),
            rule(Family::V6, 220, 220),
            rule(Family::V6, 32766, 254),
        ],
        routes: vec![
            via(route(220, "0.0.0.0/0", ENS5), "192.168.12.1"),
            Route { protocol: 3, ..via(route(TABLE_MAIN, "0.0.0.0/0", ENS5), "192.168.12.1") },
            kernels(route(TABLE_MAIN, "169.254.55.52/30", VTI1)),
            kernels(route(TABLE_MAIN, "169.254.253.48/30", VTI2)),
            kernels(route(TABLE_MAIN, "192.168.12.0/24", ENS5)),
            own("127.0.0.0/8", LO),
            own("169.254.55.54/32", VTI1),
            broadcast("169.254.55.55/32", VTI1),
            own("169.254.253.50/32", VTI2),
            broadcast("169.254.253.51/32", VTI2),
            own("192.168.12.49/32", ENS5),
            broadcast("192.168.12.255/32", ENS5),
        ],
        partial: Vec::new(),
    }
}

fn own(destination: &str, device: u32) -> Route {
    Route { protocol: 2, ..route(TABLE_LOCAL, destination, device) }
}

/// The same with the prefix that BGP learns by the first tunnel.
pub fn with_bgp() -> Snapshot {
    let mut snapshot = after_charon();
    let learned = via(route(TABLE_MAIN, "10.20.0.0/16", VTI1), "169.254.55.53");
    snapshot.routes.push(Route { protocol: 186, metric: 20, ..learned });
    snapshot
}

/// The kernel's answer in that state to all that is no address of the host:
/// `… via 192.168.12.1 dev ens5 table 220 src 192.168.12.49`, by `default … proto static`.
pub fn captured(to: &str) -> Answer {
    let arrival = Arrival {
        table: 220,
        ifindex: ENS5,
        gateway: "192.168.12.1".parse().ok(),
        source: "192.168.12.49".parse().ok(),
        local: false,
    };
    let entry = via(route(220, "0.0.0.0/0", ENS5), "192.168.12.1");
    let question = Question { uid: Some(0), ..Question::plain(parsed(to)) };
    Answer { question, reply: Reply::Arrives(arrival), entry: Some(entry) }
}

pub fn parsed(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The whole report about an answer, with the plan, as the command makes it.
pub fn explained(snapshot: &Snapshot, given: &Answer) -> ExplainReport {
    explained_or_not(snapshot, &given.question, Some(given))
}

/// The same where the kernel may have given no answer.
pub fn explained_or_not(snapshot: &Snapshot, question: &Question, given: Option<&Answer>) -> ExplainReport {
    let fib = Fib::new(snapshot);
    let tunnels = tunnels(snapshot, &[]).expect("no device is named");
    let destinations = destinations(&fib, &tunnels);
    let clues = Clues::default();
    let case =
        Case { fib: &fib, tunnels: &tunnels, destinations: &destinations, clues: &clues, question, answer: given };
    let mut report = explain(case);
    if report.verdict == PacketVerdict::Wrong {
        let asked = questions(&destinations);
        let answers: Vec<Answer> = asked.iter().map(|asked| answer(snapshot, &asked.question)).collect();
        let judged = Judged { fib: &fib, tunnels: &tunnels, destinations: &destinations, clues: &clues };
        let findings = judge(judged, &asked, &answers).findings;
        let hijackers = hijackers(snapshot, &findings);
        let controls = controls(&fib, &tunnels, &destinations, &Neighbours::default(), &hijackers);
        let situation = Situation {
            fib: &fib,
            tunnels: &tunnels,
            destinations: &destinations,
            findings: &findings,
            controls: &controls,
        };
        add_plan(case, &mut report, &findings, &plan(situation, Strategy::Auto, None).expect("a plan"));
    }
    report
}
