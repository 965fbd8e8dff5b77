//! Owners of rules and routes as the programs really make them; where a test says so, as seen on a host or in a
//! program's source.

use super::*;
use crate::core::fixture::{ENS5, LAN, address, gateway, healthy_rules, link, route, via};
use crate::core::model::{Family, LinkKind, Mark, Ports, RouteKind, RuleAction, TABLE_LOCAL, TABLE_MAIN, UidRange};

mod cures;
mod programs;
mod strongswan;
mod unnamed;

/// Index of a device that a test adds.
const DEVICE: u32 = 9;

/// A host with an uplink and a LAN, and the kernel's rules alone, with the kernel's protocol as it gives them.
fn host() -> Snapshot {
    let mut host = gateway();
    host.rules = healthy_rules().into_iter().map(|rule| Rule { protocol: 2, ..rule }).collect();
    host.routes.retain(|route| route.table != 220);
    host
}

/// The same with a device of this kind and name.
fn host_with(kind: &str, name: &str) -> Snapshot {
    let mut host = host();
    host.links.push(link(DEVICE, name, LinkKind::Other(kind.into())));
    host
}

/// A rule of IPv4 that looks up `table`.
fn rule(priority: u32, table: u32) -> Rule {
    Rule::lookup(Family::V4, priority, table)
}

fn from(rule: Rule, from: &str) -> Rule {
    Rule { from: from.parse().ok(), ..rule }
}

fn to(rule: Rule, to: &str) -> Rule {
    Rule { to: to.parse().ok(), ..rule }
}

fn marked(rule: Rule, value: u32, mask: u32) -> Rule {
    Rule { mark: Some(Mark { value, mask }), ..rule }
}

fn not(rule: Rule) -> Rule {
    Rule { invert: true, ..rule }
}

fn specific(rule: Rule) -> Rule {
    Rule { suppress_prefix_length: Some(0), ..rule }
}

fn of_protocol(route: Route, protocol: u8) -> Route {
    Route { protocol, ..route }
}

/// A process in the namespace that is judged.
fn runs(name: &str) -> Process {
    Process { name: name.into(), pid: 812, whereabouts: Whereabouts::Here, started: Some(1_700_000_000) }
}

/// Signs of a host on which these processes run, all of which could be seen.
fn with_processes(names: &[&str]) -> Clues {
    Clues { processes: names.iter().map(|name| runs(name)).collect(), all_processes: true, ..Clues::default() }
}

/// Name and confidence of the owner of a rule that is added to a host.
fn owner_on(mut host: Snapshot, clues: &Clues, rules: &[Rule], asked: usize) -> (String, Confidence) {
    host.rules.extend(rules.iter().cloned());
    host.rules.sort_by_key(|rule| rule.priority);
    let owner = of_rule(&host, clues, &rules[asked]);
    assert!(owner.confidence == Confidence::Unknown || !owner.evidence.is_empty());
    (owner.name, owner.confidence)
}

fn route_owner(host: &Snapshot, clues: &Clues, route: &Route) -> (String, Confidence) {
    let owner = of_route(host, clues, route);
    (owner.name, owner.confidence)
}

fn is(program: Program, confidence: Confidence) -> (String, Confidence) {
    (program.name().into(), confidence)
}

#[test]
fn every_program_has_a_name_of_its_own() {
    for program in Program::ALL {
        assert_eq!(Program::named(program.name()), Some(program));
    }
    assert_eq!(Program::named("unknown"), None);
    // What /proc/PID/comm can hold.
    let long = Program::ALL.iter().flat_map(|program| program.signs().processes).find(|name| name.len() > 15);
    assert_eq!(long, None);
}

#[test]
fn confidence_follows_from_the_kinds_of_evidence() {
    let of = |kinds: &[Kind]| {
        let none = Candidate::of(Program::Frr);
        kinds.iter().fold(none, |candidate, kind| candidate.with(*kind, "x")).confidence()
    };
    assert_eq!(of(&[]), Confidence::Unknown);
    assert_eq!(of(&[Kind::Host, Kind::Host, Kind::Told]), Confidence::Unknown);
    assert_eq!(of(&[Kind::Number, Kind::Number, Kind::Told]), Confidence::Possible);
    assert_eq!(of(&[Kind::Shape]), Confidence::Possible);
    assert_eq!(of(&[Kind::Number, Kind::Shape]), Confidence::Likely);
    assert_eq!(of(&[Kind::Number, Kind::Host]), Confidence::Likely);
    assert_eq!(of(&[Kind::Shape, Kind::Host]), Confidence::Likely);
    assert_eq!(of(&[Kind::Own]), Confidence::Certain);
    assert_eq!(of(&[Kind::Own, Kind::Number, Kind::Against]), Confidence::Possible);
}

#[test]
fn of_several_the_one_with_the_best_evidence_is_named() {
    let candidate = |program, kinds: &[Kind]| {
        kinds
            .iter()
            .enumerate()
            .fold(Candidate::of(program), |candidate, (index, kind)| candidate.with(*kind, index.to_string()))
    };
    let networkd = candidate(Program::Networkd, &[Kind::Number, Kind::Host]);
    let strongswan = candidate(Program::StrongSwan, &[Kind::Number, Kind::Shape]);
    let frr = candidate(Program::Frr, &[Kind::Number, Kind::Shape, Kind::Host]);
    let name = |candidates: Vec<Candidate>| best(candidates).map(|owner| owner.name);
    assert_eq!(name(vec![networkd.clone(), strongswan.clone()]).as_deref(), Some("strongSwan"));
    assert_eq!(name(vec![strongswan.clone(), networkd.clone()]).as_deref(), Some("strongSwan"));
    assert_eq!(name(vec![networkd, strongswan, frr]).as_deref(), Some("FRR"));
    assert_eq!(name(vec![candidate(Program::Bird, &[Kind::Host])]), None);
}

#[test]
fn clues_go_through_json() {
    let mut clues = with_processes(&["charon"]);
    clues.table_names.insert(220, "ipsec".into());
    clues.protocol_names.insert(118, "vpnfix".into());
    clues.pid_files.push(PidFile { path: "/run/charon.pid".into(), pid: Some(812), alive: true });
    let text = serde_json::to_string(&clues).expect("it is data");
    assert_eq!(serde_json::from_str::<Clues>(&text).expect("it was written so"), clues);
    assert_eq!(clues.table_name(220), Some("ipsec"));
    assert_eq!(clues.table_name(221), None);
    assert_eq!(serde_json::from_str::<Clues>("{}").expect("all of it may lack"), Clues::default());
}

#[test]
fn only_what_stands_right_in_front_of_ours_landed_there() {
    let lookup = |priority, table| Rule::lookup(Family::V4, priority, table);
    let ours = Rule { protocol: VPNFIX_PROTOCOL, ..lookup(100, TABLE_MAIN) };
    let host = [lookup(0, TABLE_LOCAL), lookup(50, 7), lookup(98, 8), lookup(99, 9), ours.clone(), lookup(220, 220)];
    let priorities = |rules: &[Rule]| {
        let rules: Vec<&Rule> = rules.iter().collect();
        in_front_of_ours(&rules).iter().map(|rule| rule.priority).collect::<Vec<_>>()
    };
    assert_eq!(priorities(&host), [98, 99]);
    assert_eq!(priorities(&[lookup(0, TABLE_LOCAL), Rule { priority: 1, ..ours }]), Vec::<u32>::new());
    assert_eq!(priorities(&[lookup(0, TABLE_LOCAL), lookup(99, 9)]), Vec::<u32>::new());
}
