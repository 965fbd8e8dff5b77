//! Plans for the incident's gateway and for hosts where a careless one would do harm.

use super::*;
use crate::core::control::{Neighbours, TcpConnection, controls};
use crate::core::destination::destinations;
use crate::core::fixture::{ENS5, VTI1, answer, gateway, hijacked_rules, route, via};
use crate::core::judge::{Case, judge, questions};
use crate::core::model::RuleAction;
use crate::core::owner::Clues;
use crate::core::tunnel::tunnels;

fn planned(snapshot: &Snapshot, strategy: Strategy, priority: Option<u32>) -> Result<Plan, PlanError> {
    planned_beside(snapshot, &Neighbours::default(), strategy, priority)
}

/// Judges the host by the engine's own answers, and plans.
fn planned_beside(
    snapshot: &Snapshot,
    neighbours: &Neighbours,
    strategy: Strategy,
    priority: Option<u32>,
) -> Result<Plan, PlanError> {
    let tunnels = tunnels(snapshot, &[]).expect("no device is named");
    let destinations = destinations(snapshot, &tunnels);
    let asked = questions(&destinations);
    let answers: Vec<_> = asked.iter().map(|asked| answer(snapshot, &asked.question)).collect();
    let case = Case { snapshot, tunnels: &tunnels, destinations: &destinations, clues: &Clues::default() };
    let findings = judge(case, &asked, &answers).findings;
    let hijackers = hijackers(snapshot, &findings);
    let controls = controls(snapshot, &tunnels, &destinations, neighbours, &hijackers);
    let situation = Situation {
        snapshot,
        tunnels: &tunnels,
        destinations: &destinations,
        findings: &findings,
        controls: &controls,
    };
    plan(situation, strategy, priority)
}

fn commands(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|step| step.rule.add_command()).collect()
}

fn steps(snapshot: &Snapshot, strategy: Strategy) -> Vec<String> {
    commands(&planned(snapshot, strategy, None).expect("a plan"))
}

const INSIDE: &str = "ip rule add priority 100 from all to 169.254.55.52/30 lookup main protocol 118";
const MAIN_FIRST: &str = "ip rule add priority 219 from all lookup main suppress_prefixlength 0 protocol 118";
const LEARNED: &str =
    "ip rule add priority 219 from all to 10.20.0.0/16 lookup main suppress_prefixlength 0 protocol 118";

#[test]
fn auto_repairs_the_inside_prefix_and_puts_main_first() {
    assert_eq!(steps(&gateway(), Strategy::Auto), [INSIDE, MAIN_FIRST]);
}

#[test]
fn inside_says_what_it_leaves_wrong() {
    let plan = planned(&gateway(), Strategy::Inside, None).expect("a plan");
    assert_eq!(commands(&plan), [INSIDE]);
    assert_eq!(plan.left_out.len(), 1);
    assert_eq!(plan.left_out[0].prefix.to_string(), "10.20.0.0/16");
}

#[test]
fn prefixes_has_one_rule_for_each() {
    let inside =
        "ip rule add priority 219 from all to 169.254.55.52/30 lookup main suppress_prefixlength 0 protocol 118";
    assert_eq!(steps(&gateway(), Strategy::Prefixes), [inside, LEARNED]);
}

#[test]
fn auto_overtakes_nobody_elses_rule() {
    let mut host = gateway();
    host.rules.insert(1, Rule { from: "10.9.0.0/24".parse().ok(), ..Rule::lookup(Family::V4, 150, 300) });
    assert_eq!(steps(&host, Strategy::Auto), [INSIDE, LEARNED]);
}

#[test]
fn auto_respects_what_the_hijackers_table_routes_on_purpose() {
    let mut host = gateway();
    host.routes.push(route(220, "172.31.0.0/16", ENS5));
    assert_eq!(steps(&host, Strategy::Auto), [INSIDE, LEARNED]);
}

#[test]
fn a_taken_priority_is_an_error_that_names_a_free_one() {
    let mut host = gateway();
    host.rules.insert(1, Rule { from: "10.9.0.0/24".parse().ok(), ..Rule::lookup(Family::V4, 219, 300) });
    let error = planned(&host, Strategy::Prefixes, Some(219)).expect_err("it is taken");
    assert!(matches!(error, PlanError::Taken { asked: 219, .. }), "{error:?}");
    assert_eq!(error.free_priority(), Some(218));
    let late = planned(&host, Strategy::Prefixes, Some(220)).expect_err("it is too late");
    assert!(matches!(late, PlanError::TooLate { asked: 220, .. }), "{late:?}");
    assert_eq!(late.free_priority(), Some(218));
    let plan = planned(&host, Strategy::Prefixes, Some(50)).expect("50 is free");
    assert!(plan.steps.iter().all(|step| step.rule.priority == 50));
}

#[test]
fn a_foreign_rule_at_the_usual_priority_moves_ours() {
    let mut host = gateway();
    host.rules.insert(1, Rule { mark: None, from: "10.9.0.0/24".parse().ok(), ..Rule::lookup(Family::V4, 100, 300) });
    let inside = "ip rule add priority 219 from all to 169.254.55.52/30 lookup main protocol 118";
    assert_eq!(steps(&host, Strategy::Inside), [inside]);
}

#[test]
fn rules_stand_before_the_first_of_several_hijackers() {
    let mut host = gateway();
    host.rules.insert(1, Rule::lookup(Family::V4, 90, 90));
    host.routes.push(route(90, "10.0.0.0/8", ENS5));
    let plan = planned(&host, Strategy::Prefixes, None).expect("a plan");
    assert!(plan.steps.iter().all(|step| step.rule.priority == 89), "{plan:?}");
}

#[test]
fn without_room_before_the_hijacker_there_is_no_plan() {
    let mut host = gateway();
    host.rules[1].priority = 1;
    let error = planned(&host, Strategy::Auto, None).expect_err("no room");
    assert!(matches!(error, PlanError::NoRoom { .. }), "{error:?}");
}

#[test]
fn a_rule_that_refuses_is_preceded_too() {
    let mut host = gateway();
    host.rules[1].action = RuleAction::Unreachable;
    let inside =
        "ip rule add priority 219 from all to 169.254.55.52/30 lookup main suppress_prefixlength 0 protocol 118";
    assert_eq!(steps(&host, Strategy::Prefixes), [inside, LEARNED]);
}

#[test]
fn a_default_route_through_the_tunnel_is_left_to_the_cure() {
    let mut host = gateway();
    host.routes.retain(|route| route.table != TABLE_MAIN || route.destination.prefix_len() != 0);
    host.routes.push(route(TABLE_MAIN, "0.0.0.0/0", VTI1));
    let plan = planned(&host, Strategy::Auto, None).expect("a plan");
    assert!(plan.left_out.iter().any(|left| left.prefix.prefix_len() == 0), "{plan:?}");
}

#[test]
fn a_prefix_that_covers_the_ike_peer_is_not_drawn_into_its_own_tunnel() {
    let mut host = gateway();
    host.routes.push(via(route(TABLE_MAIN, "203.0.113.0/24", VTI1), "169.254.55.53"));
    let plan = planned(&host, Strategy::Auto, None).expect("a plan");
    assert_eq!(commands(&plan), [INSIDE, LEARNED]);
    assert_eq!(plan.left_out.len(), 1, "{plan:?}");
    assert_eq!(plan.left_out[0].prefix.to_string(), "203.0.113.0/24");
}

/// A connection from this address of the host to a client inside the learned prefix 10.20.0.0/16.
fn connection_from(local: &str) -> Neighbours {
    let ends =
        TcpConnection { local: local.parse().expect("an address"), peer: "10.20.7.7".parse().expect("an address") };
    Neighbours { connections: vec![ends], ..Neighbours::default() }
}

#[test]
fn the_operators_connection_is_not_drawn_into_a_tunnel() {
    let ssh = connection_from("192.168.12.49");
    let plan = planned_beside(&gateway(), &ssh, Strategy::Auto, None).expect("a plan");
    assert_eq!(commands(&plan), [INSIDE]);
    assert_eq!(plan.left_out.len(), 1, "{plan:?}");
    assert!(plan.left_out[0].why.contains("10.20.7.7"), "{plan:?}");
}

#[test]
fn a_connection_of_the_tunnel_itself_does_not_stand_in_the_way() {
    let stuck = connection_from("169.254.55.54");
    let plan = planned_beside(&gateway(), &stuck, Strategy::Auto, None).expect("a plan");
    assert_eq!(commands(&plan), [INSIDE, MAIN_FIRST]);
}

#[test]
fn a_name_server_behind_the_tunnel_may_come_home() {
    let resolver = Neighbours { resolvers: vec!["10.20.0.2".parse().expect("an address")], ..Neighbours::default() };
    let plan = planned_beside(&gateway(), &resolver, Strategy::Auto, None).expect("a plan");
    assert_eq!(commands(&plan), [INSIDE, MAIN_FIRST]);
}

#[test]
fn where_main_itself_leads_elsewhere_no_rule_is_added() {
    let mut host = gateway();
    host.routes.push(route(TABLE_MAIN, "169.254.55.53/32", ENS5));
    let plan = planned(&host, Strategy::Inside, None).expect("a plan");
    assert_eq!(commands(&plan), Vec::<String>::new());
    assert!(plan.left_out.iter().any(|left| left.why.contains("main itself")), "{plan:?}");
}

#[test]
fn a_healthy_host_needs_nothing() {
    let mut host = gateway();
    host.rules = hijacked_rules();
    host.rules.insert(1, Rule { suppress_prefix_length: Some(0), ..Rule::lookup(Family::V4, 100, TABLE_MAIN) });
    assert_eq!(steps(&host, Strategy::Auto), Vec::<String>::new());
}

#[test]
fn our_main_first_rule_shares_no_priority_with_our_narrower_ones() {
    // The kernel takes a wider rule for the same as a narrower one of its priority and refuses it.
    let mut host = gateway();
    let narrow = Rule {
        to: "10.30.0.0/16".parse().ok(),
        suppress_prefix_length: Some(0),
        protocol: VPNFIX_PROTOCOL,
        ..Rule::lookup(Family::V4, 219, TABLE_MAIN)
    };
    host.rules.insert(1, narrow);
    let wide = "ip rule add priority 218 from all lookup main suppress_prefixlength 0 protocol 118";
    assert_eq!(steps(&host, Strategy::MainFirst), [wide]);
}
