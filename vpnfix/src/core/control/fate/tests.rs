//! Controls before and after changes of the incident's gateway.

use super::*;
use crate::core::fixture::{ENS5, LAN, VTI1, answer, gateway, route, via};
use crate::core::model::{Arrival, Question, Snapshot, TABLE_MAIN};
use crate::core::plan::hijackers;
use crate::core::tunnel::tunnels;

fn control(to: &str, freedom: Freedom) -> Control {
    Control { name: "it".into(), question: Question::plain(to.parse().expect("an address")), freedom }
}

fn main_first() -> Rule {
    Rule { suppress_prefix_length: Some(0), ..Rule::lookup(Family::V4, 219, TABLE_MAIN) }
}

/// The rule of table 220.
fn hijacker(host: &Snapshot) -> Vec<Rule> {
    assert_eq!(hijackers(host, &[]), []);
    host.rules.iter().filter(|rule| rule.priority == 220).cloned().collect()
}

/// The kernel's answers before and after main came first.
fn compared(host: &Snapshot, control: &Control) -> Option<Spoiled> {
    let mut after = host.clone();
    after.rules.insert(1, main_first());
    let (before, after) = (answer(host, &control.question), answer(&after, &control.question));
    let tunnels = tunnels(host, &[]).expect("no device is named");
    compare(&Fib::new(host), &tunnels, &hijacker(host), control, &before, &after)
}

fn harmed(host: &Snapshot, control: &Control) -> Option<Harm> {
    let tunnels = tunnels(host, &[]).expect("no device is named");
    harm(&Fib::new(host), &tunnels, &hijacker(host), control, &[main_first()])
}

#[test]
fn coming_home_is_a_freedom_and_entering_a_tunnel_a_greater_one() {
    let host = gateway();
    // A neighbour on the LAN comes home to main's connected route, by the same device.
    for freedom in [Freedom::MayComeHome, Freedom::NeverInTunnel] {
        let neighbour = control("192.168.12.77", freedom);
        assert_eq!((compared(&host, &neighbour), harmed(&host, &neighbour)), (None, None));
    }
    let behind = control("10.20.0.2", Freedom::MayComeHome);
    assert_eq!((compared(&host, &behind), harmed(&host, &behind)), (None, None));
    let never = control("10.20.0.2", Freedom::NeverInTunnel);
    let spoiled = compared(&host, &never).expect("it is drawn into the tunnel");
    assert!(
        spoiled.expected.starts_with("ens5 (table 220") && spoiled.found.starts_with("vti1 (table main"),
        "{spoiled:?}"
    );
    assert_eq!(harmed(&host, &never), Some(Harm::Drawn));
}

#[test]
fn what_is_fixed_may_not_even_change_its_table() {
    let host = gateway();
    let fixed = control("192.168.12.77", Freedom::Fixed);
    let spoiled = compared(&host, &fixed).expect("another table decides");
    assert!(spoiled.found.contains("table main"), "{spoiled:?}");
    assert!(matches!(harmed(&host, &fixed), Some(Harm::Moved { .. })));
}

#[test]
fn a_way_that_is_neither_the_old_one_nor_home_spoils() {
    let host = gateway();
    let internet = control("198.51.100.1", Freedom::MayComeHome);
    let before = answer(&host, &internet.question);
    let tunnels = tunnels(&host, &[]).expect("no device is named");
    let compare = |reply: Reply| {
        let after = Answer { reply, ..before.clone() };
        compare(&Fib::new(&host), &tunnels, &hijacker(&host), &internet, &before, &after)
    };
    let by = |ifindex, table, source: &str| {
        let source = source.parse().ok();
        Reply::Arrives(Arrival { table, ifindex, gateway: None, source, local: false })
    };
    assert_eq!(compare(by(ENS5, TABLE_MAIN, "192.168.12.49")), None, "home");
    for elsewhere in [
        by(LAN, TABLE_MAIN, "192.168.12.49"),
        by(ENS5, 300, "192.168.12.49"),
        by(ENS5, TABLE_MAIN, "10.0.0.1"),
        by(VTI1, TABLE_MAIN, "169.254.55.54"),
        Reply::Refused(101),
    ] {
        assert!(compare(elsewhere.clone()).is_some(), "{elsewhere:?}");
    }
}

#[test]
fn a_control_that_would_become_unreachable_is_seen_beforehand() {
    let host = gateway();
    let internet = control("198.51.100.1", Freedom::MayComeHome);
    let refusal = Rule {
        to: "198.51.100.0/24".parse().ok(),
        action: crate::core::model::RuleAction::Unreachable,
        ..Rule::lookup(Family::V4, 219, 0)
    };
    let found = harm(&Fib::new(&host), &[], &hijacker(&host), &internet, std::slice::from_ref(&refusal));
    assert_eq!(found, Some(Harm::Refused));
    let before = answer(&host, &internet.question);
    let told = harms(&Fib::new(&host), &[], &hijacker(&host), &[(&internet, &before)], &[refusal]);
    assert_eq!(told, ["it would make it (198.51.100.1) unreachable"]);
}

#[test]
fn a_control_whose_way_the_engine_does_not_explain_is_left_to_the_kernel() {
    let mut host = gateway();
    let never = control("10.20.0.2", Freedom::NeverInTunnel);
    let told = |host: &Snapshot, before: &Answer| {
        let tunnels = tunnels(host, &[]).expect("no device is named");
        harms(&Fib::new(host), &tunnels, &hijacker(host), &[(&never, before)], &[main_first()])
    };
    let before = answer(&host, &never.question);
    assert_eq!(told(&host, &before).len(), 1);
    let unexplained = Answer { reply: Reply::Refused(101), ..before.clone() };
    assert_eq!(told(&host, &unexplained), Vec::<String>::new());
    // One of several nexthops for another is no change.
    host.routes.retain(|route| route.table != 220);
    let mut both = via(route(220, "0.0.0.0/0", ENS5), "192.168.12.1");
    both.nexthops.push(crate::core::model::Nexthop { ifindex: Some(LAN), ..Default::default() });
    host.routes.push(both);
    let internet = control("198.51.100.1", Freedom::Fixed);
    let by = |ifindex| Answer {
        reply: Reply::Arrives(Arrival { table: 220, ifindex, gateway: None, source: None, local: false }),
        ..answer(&host, &internet.question)
    };
    assert_eq!(compare(&Fib::new(&host), &[], &hijacker(&host), &internet, &by(ENS5), &by(LAN)), None);
}
