//! `--fail-closed`.

use super::*;
use crate::core::fixture::healthy_rules;
use crate::core::walk::{self, End, Flow};

fn closed(host: &Snapshot, strategy: Strategy, priority: Option<u32>) -> Result<Plan, PlanError> {
    planned_as(host, &Neighbours::default(), Wanted { strategy, priority, fail_closed: true })
}

fn closed_steps(host: &Snapshot, strategy: Strategy) -> Vec<String> {
    commands(&closed(host, strategy, None).expect("a plan"))
}

fn lookup(priority: u32, to: &str, length: u32) -> String {
    format!("ip rule add priority {priority} from all to {to} lookup main suppress_prefixlength {length} protocol 118")
}

fn refusal(priority: u32, to: &str) -> String {
    format!("ip rule add priority {priority} from all to {to} unreachable protocol 118")
}

/// The host with a plan's rules in place.
fn with_plan(host: &Snapshot, plan: &Plan) -> Snapshot {
    let mut host = host.clone();
    host.rules.extend(plan.steps.iter().map(|step| step.rule.clone()));
    host.rules.sort_by_key(|rule| rule.priority);
    host
}

/// The kernel takes a device's routes away with it.
fn with_tunnel_down(host: &Snapshot) -> Snapshot {
    let mut host = host.clone();
    host.links[2].up = false;
    host.routes.retain(|route| !route.leaves_by(VTI1));
    host
}

#[track_caller]
fn is_refused(host: &Snapshot, to: &str) {
    let fib = Fib::new(host);
    let end = walk::walk(&fib, &fib.policy(Family::V4), &Flow::plain(to.parse().expect("an address")));
    assert!(matches!(end, End::RefusedByRule(_)), "{to}: {end:?}");
}

const P1: &str = "169.254.55.52/30";
const P2: &str = "10.20.0.0/16";

#[test]
fn each_prefix_has_a_lookup_and_a_refusal() {
    assert_eq!(closed_steps(&gateway(), Strategy::Inside), [lookup(100, P1, 29), refusal(101, P1)]);
    let both = [lookup(218, P2, 15), lookup(218, P1, 29), refusal(219, P2), refusal(219, P1)];
    assert_eq!(closed_steps(&gateway(), Strategy::Prefixes), both);
}

#[test]
fn main_first_stands_behind_the_pairs() {
    let all = [lookup(100, P1, 29), refusal(101, P1), lookup(217, P2, 15), refusal(218, P2), MAIN_FIRST.into()];
    assert_eq!(closed_steps(&gateway(), Strategy::Auto), all);
}

#[test]
fn a_tunnel_that_goes_down_leaks_nothing_also_by_a_wider_route_of_main() {
    for strategy in [Strategy::Auto, Strategy::Prefixes, Strategy::MainFirst] {
        let mut host = gateway();
        host.routes.push(route(TABLE_MAIN, "10.0.0.0/8", LAN));
        let plan = closed(&host, strategy, None).expect("a plan");
        let after = with_plan(&host, &plan);
        let down = with_tunnel_down(&after);
        for to in ["169.254.55.53", "10.20.0.1"] {
            is_refused(&down, to);
        }
        // A second run finds all of it there.
        assert_eq!(closed_steps(&after, strategy), Vec::<String>::new(), "{strategy:?}");
    }
}

#[test]
fn what_lies_in_a_closed_prefix_is_closed_with_it_and_keeps_the_wider_way() {
    let mut host = gateway();
    host.routes.push(via(route(TABLE_MAIN, "10.0.0.0/8", VTI1), "169.254.55.53"));
    let plan = closed(&host, Strategy::Prefixes, None).expect("a plan");
    let wide = "10.0.0.0/8";
    let all = [lookup(218, P1, 29), lookup(218, wide, 7), refusal(219, P1), refusal(219, wide)];
    let mut planned = commands(&plan);
    planned.sort();
    let mut all = all.to_vec();
    all.sort();
    assert_eq!((planned, plan.repairs.len()), (all, 3));
    // BGP withdraws the narrow one: the tunnel still has a way.
    let mut after = with_plan(&host, &plan);
    after.routes.retain(|route| route.destination.to_string() != P2);
    let fib = Fib::new(&after);
    let end = walk::walk(&fib, &fib.policy(Family::V4), &Flow::plain("10.20.0.1".parse().expect("an address")));
    assert!(end.leaves_by(VTI1), "{end:?}");
    is_refused(&with_tunnel_down(&after), "10.20.0.1");
}

#[test]
fn a_tunnel_that_is_down_already_is_closed_and_not_promised_to_work() {
    let host = with_tunnel_down(&gateway());
    let plan = closed(&host, Strategy::Auto, None).expect("a plan");
    assert_eq!(commands(&plan), [lookup(100, P1, 29), refusal(101, P1)]);
    assert_eq!(plan.repairs, Vec::<usize>::new());
    is_refused(&with_plan(&host, &plan), "169.254.55.53");
    assert_eq!(closed_steps(&with_plan(&host, &plan), Strategy::Auto), Vec::<String>::new());
}

#[test]
fn also_a_host_without_hijacker_is_closed() {
    let mut host = gateway();
    host.rules = healthy_rules();
    let plan = closed(&host, Strategy::Prefixes, None).expect("a plan");
    assert!(plan.steps.iter().all(|step| (32764..32766).contains(&step.rule.priority)), "{plan:?}");
    is_refused(&with_tunnel_down(&with_plan(&host, &plan)), "10.20.0.1");
}

#[test]
fn an_open_rule_of_an_earlier_run_is_preceded() {
    let host = with_plan(&gateway(), &planned(&gateway(), Strategy::Auto, None).expect("a plan"));
    let plan = closed(&host, Strategy::Auto, None).expect("a plan");
    assert!(plan.steps.iter().all(|step| step.rule.priority < 100), "{plan:?}");
    is_refused(&with_tunnel_down(&with_plan(&host, &plan)), "169.254.55.53");
}

#[test]
fn the_recipe_by_hand_is_enough() {
    let mut host = gateway();
    let to = P1.parse().ok();
    let by_hand = [
        Rule { to, suppress_prefix_length: Some(0), ..Rule::lookup(Family::V4, 150, TABLE_MAIN) },
        Rule { to, action: RuleAction::Prohibit, ..Rule::lookup(Family::V4, 151, 0) },
    ];
    host.rules.splice(1..1, by_hand);
    let plan = closed(&host, Strategy::Inside, Some(160)).expect("a plan");
    assert_eq!((commands(&plan).len(), plan.satisfied.len()), (0, 2), "{plan:?}");
}

#[test]
fn a_control_inside_is_not_refused() {
    // The operator's client lies in the prefix; without the tunnel's route it is reached by the hijacker.
    let mut host = gateway();
    let ssh = connection_from("192.168.12.49");
    let wanted = Wanted { strategy: Strategy::Prefixes, fail_closed: true, priority: None };
    let plan = planned_as(&host, &ssh, wanted).expect("a plan");
    assert_eq!(commands(&plan), [lookup(218, P1, 29), refusal(219, P1)]);
    assert!(plan.left_out[0].why.contains("10.20.7.7"), "{plan:?}");
    // Where the tunnel is down, and only the inside prefix is known, a client in it keeps its way.
    host = with_tunnel_down(&host);
    let ends = TcpConnection {
        local: "192.168.12.49".parse().expect("an address"),
        peer: "169.254.55.53".parse().expect("an address"),
    };
    let client = Neighbours { connections: vec![ends], ..Neighbours::default() };
    let plan = planned_as(&host, &client, wanted).expect("a plan");
    assert_eq!(commands(&plan), [lookup(218, P1, 29)]);
    assert!(plan.left_out.iter().any(|left| left.why.contains("unreachable")), "{plan:?}");
}

#[test]
fn two_places_are_needed_where_one_is_asked_for() {
    let plan = closed(&gateway(), Strategy::Auto, Some(150)).expect("a plan");
    let mut places: Vec<u32> = plan.steps.iter().map(|step| step.rule.priority).collect();
    places.dedup();
    assert_eq!(places, [150, 151, 152]);
    let late = closed(&gateway(), Strategy::Prefixes, Some(219)).expect_err("the second would be too late");
    assert!(matches!(late, PlanError::TooLate { asked: 219, .. }), "{late:?}");
    assert_eq!(late.free_priority(), Some(218));
    let mut host = gateway();
    host.rules.insert(1, Rule { from: "10.9.0.0/24".parse().ok(), ..Rule::lookup(Family::V4, 151, 300) });
    let taken = closed(&host, Strategy::Prefixes, Some(150)).expect_err("the second is taken");
    assert!(matches!(taken, PlanError::Taken { asked: 151, .. }), "{taken:?}");
    assert_eq!(taken.free_priority(), Some(218));
}
