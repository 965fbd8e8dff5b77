use super::*;

/// A VRF `v9` with table 400 and port `d3`; its rule at 1000, as the kernel makes it.
fn with_vrf(kernel: &str, extra: Vec<Rule>) -> Snapshot {
    let of_vrf = Rule { l3mdev: true, action: RuleAction::Lookup(0), ..Rule::lookup(Family::V4, 1000, 0) };
    let main = Rule::lookup(Family::V4, 32766, TABLE_MAIN);
    let rules = extra.into_iter().chain([of_vrf, main]).collect();
    let routes = vec![route(TABLE_MAIN, "0.0.0.0/0", 2), route(400, "10.0.0.0/8", 3), route(400, "10.1.0.0/16", 4)];
    let mut snapshot = host(rules, routes);
    snapshot.host.kernel = kernel.into();
    snapshot.links.push(link(9, "v9", LinkKind::Vrf { table: 400 }));
    snapshot.links[2].master = Some(9);
    snapshot
}

fn bound(to: &str, device: u32) -> Flow {
    Flow { oif: Some(device), ..flow(to) }
}

#[test]
fn flows_of_a_vrf_use_its_table_and_others_do_not() {
    let snapshot = with_vrf("6.1.0", Vec::new());
    assert_eq!(end_of(&snapshot, &flow("10.0.0.1")), "254 default [2]");
    assert_eq!(end_of(&snapshot, &bound("10.0.0.1", 9)), "400 10.0.0.0/8 [3]");
    assert_eq!(end_of(&snapshot, &bound("10.0.0.1", 3)), "400 10.0.0.0/8 [3]");
    let incoming = |to| Flow { iif: 3, ..flow(to) };
    assert_eq!(end_of(&snapshot, &incoming("10.1.0.1")), "400 10.1.0.0/16 [4]");
    assert_eq!(end_of(&snapshot, &incoming("11.0.0.1")), "254 default [2]");
}

#[test]
fn a_flow_bound_to_a_port_takes_its_routes_alone_since_5_19() {
    assert_eq!(end_of(&with_vrf("6.1.0", Vec::new()), &bound("10.1.0.1", 3)), "400 10.0.0.0/8 [3]");
    assert_eq!(end_of(&with_vrf("5.10.0", Vec::new()), &bound("10.1.0.1", 3)), "400 10.1.0.0/16 [4]");
}

#[test]
fn in_a_vrf_nothing_is_assumed_on_link() {
    let mut snapshot = with_vrf("6.1.0", Vec::new());
    snapshot.routes.clear();
    assert_eq!(end_of(&snapshot, &bound("10.0.0.1", 3)), "none");
    assert_eq!(end_of(&snapshot, &bound("10.0.0.1", 2)), "on link 2");
}

#[test]
fn a_rule_for_a_port_sees_its_packets_since_5_19_and_one_for_the_vrf_is_in_doubt() {
    let rule = |iif: &str| vec![Rule { iif: Some(iif.into()), ..Rule::lookup(Family::V4, 5, TABLE_MAIN) }];
    let incoming = Flow { iif: 3, ..flow("10.0.0.1") };
    assert_eq!(end_of(&with_vrf("6.1.0", rule("d3")), &incoming), "254 default [2]");
    assert_eq!(end_of(&with_vrf("5.10.0", rule("d3")), &incoming), "400 10.0.0.0/8 [3]");
    assert_eq!(end_of(&with_vrf("6.1.0", rule("v9")), &incoming), "VrfSelector");
}
