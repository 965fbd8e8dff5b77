//! Plans for the incident's gateway and for hosts where a careless one would do harm.

use super::*;
use crate::core::control::{Neighbours, TcpConnection, controls};
use crate::core::destination::destinations;
use crate::core::fixture::{ENS5, LAN, VTI1, answer, gateway, hijacked_rules, link, route, via};
use crate::core::judge::{Case, judge, questions};
use crate::core::model::{Link, LinkKind, RuleAction};
use crate::core::owner::Clues;
use crate::core::proof::Proof;
use crate::core::tunnel::tunnels;

mod closing;
mod passing;
mod vrf;

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
    planned_as(snapshot, neighbours, Wanted { strategy, priority, fail_closed: false })
}

fn planned_as(snapshot: &Snapshot, neighbours: &Neighbours, wanted: Wanted) -> Result<Plan, PlanError> {
    planned_against(snapshot, neighbours, wanted).map(|(plan, _)| plan)
}

/// The same with the rules that hijack.
fn planned_against(
    snapshot: &Snapshot,
    neighbours: &Neighbours,
    wanted: Wanted,
) -> Result<(Plan, Vec<Rule>), PlanError> {
    let tunnels = tunnels(snapshot, &[]).expect("no device is named");
    let fib = Fib::new(snapshot);
    let destinations = destinations(&fib, &tunnels);
    let asked = questions(&destinations, &vec![true; destinations.len()]);
    let answers: Vec<_> = asked.iter().map(|asked| answer(snapshot, &asked.question)).collect();
    let case = Case { fib: &fib, tunnels: &tunnels, destinations: &destinations, clues: &Clues::default() };
    let findings = judge(case, &asked, &answers).findings;
    let hijackers = hijackers(snapshot, &findings);
    let controls = controls(&fib, &tunnels, &destinations, neighbours, &hijackers);
    let situation = Situation {
        fib: &fib,
        tunnels: &tunnels,
        destinations: &destinations,
        findings: &findings,
        controls: &controls,
    };
    plan_as(situation, wanted).map(|plan| (plan, hijackers))
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

/// A second network interface's address with a table of its own, as cloud hosts have them.
fn second_interface(host: &mut Snapshot, priority: u32) {
    let rule = Rule {
        from: "192.168.12.99".parse::<std::net::IpAddr>().ok().map(IpNet::from),
        ..Rule::lookup(Family::V4, priority, 300)
    };
    host.rules.push(rule);
    host.rules.sort_by_key(|rule| rule.priority);
    host.routes.push(via(route(300, "0.0.0.0/0", LAN), "192.168.12.1"));
}

/// Checks that `auto` keeps away from main-first, and what it says of it.
#[track_caller]
fn does_without(host: &Snapshot, steps: &[&str], said: &[&str]) {
    let plan = planned(host, Strategy::Auto, None).expect("a plan");
    assert_eq!(commands(&plan), steps);
    let [main_first] = plan.main_first.as_slice() else { panic!("{:?}", plan.main_first) };
    assert!(!main_first.used);
    let objection = main_first.objection.as_deref().expect("an objection");
    assert!(said.iter().all(|said| objection.contains(said)), "{objection}");
    // Who asks for it all the same gets it, with a warning.
    let forced = planned(host, Strategy::MainFirst, None).expect("a plan");
    assert!(forced.steps.iter().any(|step| step.rule.to.is_none()), "{forced:?}");
    assert_eq!(forced.main_first, [MainFirst { used: true, ..main_first.clone() }]);
}

#[test]
fn auto_overtakes_no_rule_of_a_second_interface() {
    let mut host = gateway();
    second_interface(&mut host, 10001);
    let said = [
        "traffic from 192.168.12.99",
        "leave by vti1 (rule 219",
        "leave by lan0 (rule 10001, route default of table 300)",
    ];
    let passing =
        |to: &str, at: u32| format!("ip rule add priority {at} from 192.168.12.99 to {to} goto 10001 protocol 118");
    let passing = [passing("169.254.55.52/30", 100), passing("10.20.0.0/16", 219)];
    does_without(&host, &[&passing[0], INSIDE, &passing[1], LEARNED], &said);
}

#[test]
fn rules_before_ours_are_not_overtaken() {
    let mut host = gateway();
    second_interface(&mut host, 150);
    let plan = planned(&host, Strategy::Auto, None).expect("a plan");
    let passing = "ip rule add priority 100 from 192.168.12.99 to 169.254.55.52/30 goto 150 protocol 118";
    assert_eq!(commands(&plan), [passing, INSIDE, MAIN_FIRST]);
    assert!(matches!(plan.main_first[0].proof, Proof::Proven { lasting: true, .. }), "{:?}", plan.main_first);
}

#[test]
fn rules_between_ours_and_the_hijackers_are_not_overtaken() {
    // NetBird's stand at 105 and 110, charon-nm's at 210: here ours is the one that has to stand before them.
    let mut host = gateway();
    host.rules[1].priority = 105;
    host.rules.insert(1, Rule::lookup(Family::V4, 103, 7120));
    host.rules.insert(
        2,
        Rule {
            mark: Some(crate::core::model::Mark { value: 0x1_bd00, mask: u32::MAX }),
            ..Rule::lookup(Family::V4, 104, 7120)
        },
    );
    host.routes.push(route(7120, "192.168.12.128/25", LAN));
    let inside = INSIDE.to_string();
    let learned = LEARNED.replace("219", "102");
    does_without(&host, &[&inside, &learned], &["192.168.12.128", "rule 103", "7120"]);
}

#[test]
fn auto_respects_what_the_hijackers_table_routes_on_purpose() {
    // A wider route of main would lead the child's traffic out in the clear.
    let mut host = gateway();
    host.routes.push(route(TABLE_MAIN, "172.16.0.0/12", LAN));
    host.routes.push(route(220, "172.31.0.0/16", ENS5));
    let said = [
        "to 172.31.0.0 would",
        "leave by lan0 (rule 219, route 172.16.0.0/12 of table main)",
        "172.31.0.0/16 of table 220",
    ];
    does_without(&host, &[INSIDE, LEARNED], &said);
}

#[test]
fn a_route_of_the_hijackers_table_that_main_knows_nothing_of_is_no_obstacle() {
    let mut host = gateway();
    host.routes.push(route(220, "172.31.0.0/16", ENS5));
    let plan = planned(&host, Strategy::Auto, None).expect("a plan");
    assert_eq!(commands(&plan), [INSIDE, MAIN_FIRST]);
    // It would be one if main learned a route to it.
    assert!(matches!(plan.main_first[0].proof, Proof::Proven { lasting: false, .. }), "{:?}", plan.main_first);
}

#[test]
fn auto_leaves_the_flows_of_a_vrf_alone() {
    let mut host = gateway();
    host.links.push(link(9, "red", LinkKind::Vrf { table: 500 }));
    host.links.push(Link { master: Some(9), ..link(10, "red1", LinkKind::Plain) });
    host.rules.push(Rule { l3mdev: true, protocol: 2, ..Rule::lookup(Family::V4, 1000, 0) });
    host.rules.sort_by_key(|rule| rule.priority);
    host.routes.push(route(500, "10.20.0.0/16", 10));
    // The VRF has a route of its own for the learned prefix, and none for the inside one.
    let passing = "ip rule add priority 219 from all to 10.20.0.0/16 l3mdev protocol 118";
    let said = ["that comes in by red", "to 10.20.0.0", "vti1", "table 500"];
    does_without(&host, &[INSIDE, passing, LEARNED], &said);
}

#[test]
fn families_are_judged_apart() {
    let mut host = gateway();
    second_interface(&mut host, 10001);
    let v6 = |table| Rule::lookup(Family::V6, if table == TABLE_MAIN { 32766 } else { table }, table);
    host.rules.extend([Rule::lookup(Family::V6, 0, 255), v6(220), v6(TABLE_MAIN)]);
    host.routes.extend([route(220, "::/0", ENS5), route(TABLE_MAIN, "fd00:20::/64", VTI1)]);
    let plan = planned(&host, Strategy::Auto, None).expect("a plan");
    let used: Vec<(Family, bool)> = plan.main_first.iter().map(|judged| (judged.family, judged.used)).collect();
    assert_eq!(used, [(Family::V4, false), (Family::V6, true)]);
}

#[test]
fn main_is_read_wholly_only_where_the_proof_needs_it() {
    let needed = |host: &Snapshot| {
        let finding = |priority| {
            let rule = host.rules.iter().find(|rule| rule.priority == priority).expect("the hijacker");
            crate::core::proof::needs_whole_main(&Fib::new(host), &[rule], &main_first::rule(Family::V4, 219))
        };
        finding(220)
    };
    let mut host = gateway();
    host.partial.push(crate::core::model::PartialTable { family: Family::V4, table: TABLE_MAIN });
    assert!(!needed(&host));
    second_interface(&mut host, 150);
    assert!(!needed(&host));
    host.routes.push(route(220, "172.31.0.0/16", ENS5));
    assert!(needed(&host));
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

#[test]
fn a_policy_based_child_of_the_hijackers_table_is_not_stolen() {
    let mut host = gateway();
    let mut child = via(route(220, "10.20.5.0/24", ENS5), "192.168.12.1");
    child.preferred_source = "192.168.12.49".parse().ok();
    host.routes.push(child);
    let plan = planned(&host, Strategy::Auto, None).expect("a plan");
    assert_eq!(commands(&plan), [INSIDE]);
    assert!(plan.left_out.iter().any(|left| left.why.contains("10.20.5.0/24")), "{plan:?}");
}

#[test]
fn a_route_as_wide_as_the_destination_is_the_hijack_itself() {
    let mut host = gateway();
    host.routes.retain(|route| route.table != 220);
    host.routes.push(via(route(220, "10.20.0.0/15", ENS5), "192.168.12.1"));
    assert_eq!(steps(&host, Strategy::Auto), [LEARNED]);
}

#[test]
fn a_rule_that_names_the_destination_was_meant() {
    let mut host = gateway();
    host.rules = crate::core::fixture::healthy_rules();
    let firewall =
        Rule { to: "10.20.0.0/16".parse().ok(), action: RuleAction::Prohibit, ..Rule::lookup(Family::V4, 50, 0) };
    host.rules.insert(1, firewall);
    let plan = planned(&host, Strategy::Auto, None).expect("a plan");
    assert_eq!(commands(&plan), Vec::<String>::new());
    assert!(plan.left_out[0].why.contains("meant"), "{plan:?}");
}

#[test]
fn a_table_before_main_that_refuses_everything_is_preceded() {
    let mut host = gateway();
    for route in host.routes.iter_mut().filter(|route| route.table == 220) {
        route.kind = crate::core::model::RouteKind::Unreachable;
        route.nexthops.clear();
    }
    assert_eq!(steps(&host, Strategy::Auto), [INSIDE, MAIN_FIRST]);
}

#[test]
fn two_tunnels_with_the_same_inside_prefix_need_its_rule_once() {
    let mut host = gateway();
    let twin = crate::core::model::LinkKind::Xfrm { if_id: 7 };
    host.links.push(crate::core::fixture::link(9, "ipsec7", twin));
    host.addresses.push(crate::core::fixture::address(9, "169.254.55.54", 30));
    assert_eq!(steps(&host, Strategy::Inside), [INSIDE]);
}

#[test]
fn no_rule_stands_before_table_locals() {
    let mut host = gateway();
    host.rules[0].priority = 150;
    host.rules.sort_by_key(|rule| rule.priority);
    let plan = planned(&host, Strategy::Auto, None).expect("a plan");
    assert!(plan.steps.iter().all(|step| step.rule.priority > 150), "{plan:?}");
    let early = planned(&host, Strategy::Inside, Some(100)).expect_err("too early");
    assert!(matches!(early, PlanError::TooEarly { asked: 100, local: 150, .. }), "{early:?}");
}

#[test]
fn a_second_run_with_the_same_priority_is_no_error() {
    let mut host = gateway();
    let first = planned(&host, Strategy::Inside, Some(150)).expect("a plan");
    host.rules.insert(1, first.steps[0].rule.clone());
    let second = planned(&host, Strategy::Auto, Some(150)).expect("a plan");
    let learned = LEARNED.replace("priority 219", "priority 150");
    assert_eq!(commands(&second), [learned]);
}

#[test]
fn with_one_priority_for_all_the_wider_rule_comes_first() {
    let plan = planned(&gateway(), Strategy::Auto, Some(150)).expect("a plan");
    let destinations: Vec<bool> = plan.steps.iter().map(|step| step.rule.to.is_some()).collect();
    assert_eq!(destinations, [false, true]);
}

#[test]
fn main_first_is_not_chosen_where_it_would_steer_a_shared_prefix() {
    let mut host = gateway();
    host.routes.push(via(route(TABLE_MAIN, "169.254.100.0/24", VTI1), "169.254.55.53"));
    let plan = planned(&host, Strategy::Auto, None).expect("a plan");
    assert_eq!(commands(&plan), [INSIDE, LEARNED]);
    assert!(plan.left_out.iter().any(|left| left.prefix.to_string() == "169.254.100.0/24"), "{plan:?}");
}
