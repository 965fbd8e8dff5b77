//! Tunnels enslaved to a VRF.

use super::*;
use crate::core::fixture::healthy_rules;

/// Index of the VRF's device.
const RED: u32 = 9;
/// The VRF's table.
const RED_TABLE: u32 = 500;
const L3MDEV: &str = "ip rule add priority 219 from all l3mdev protocol 118";

/// The tunnel is enslaved to a VRF, and everything is hijacked before the VRFs' rule.
fn in_vrf() -> Snapshot {
    let mut host = gateway();
    host.links[2].master = Some(RED);
    host.links.push(link(RED, "red", LinkKind::Vrf { table: RED_TABLE }));
    for route in host.routes.iter_mut().filter(|route| route.leaves_by(VTI1)) {
        route.table = RED_TABLE;
    }
    host.rules.insert(2, Rule { l3mdev: true, protocol: 2, ..Rule::lookup(Family::V4, 1000, 0) });
    host
}

#[test]
fn one_rule_gives_vrfs_their_flows_back() {
    for strategy in [Strategy::Vrf, Strategy::Auto] {
        let plan = planned(&in_vrf(), strategy, None).expect("a plan");
        assert_eq!((commands(&plan), plan.repairs.len(), plan.left_out.len()), (vec![L3MDEV.into()], 2, 0), "{plan:?}");
    }
}

#[test]
fn the_engine_sees_the_repair_and_a_second_run_nothing_to_do() {
    let mut host = in_vrf();
    let plan = planned(&host, Strategy::Vrf, None).expect("a plan");
    host.rules.insert(1, plan.steps[0].rule.clone());
    assert_eq!(steps(&host, Strategy::Vrf), Vec::<String>::new());
    let fib = Fib::new(&host);
    let flow = crate::core::walk::Flow {
        oif: Some(RED),
        ..crate::core::walk::Flow::plain("10.20.0.1".parse().expect("an address"))
    };
    let end = crate::core::walk::walk(&fib, &fib.policy(Family::V4), &flow);
    assert!(end.leaves_by(VTI1), "{end:?}");
}

#[test]
fn auto_overtakes_nobody_for_a_vrf() {
    // A rule of others between ours and the kernel's, and a policy-based child of the hijacker's table.
    let mut overtaken = in_vrf();
    overtaken.rules.insert(2, Rule { from: "10.9.0.0/24".parse().ok(), ..Rule::lookup(Family::V4, 500, 300) });
    let mut child = in_vrf();
    child.routes.push(route(220, "172.31.5.0/24", ENS5));
    let narrow =
        ["169.254.55.52/30", "10.20.0.0/16"].map(|to| L3MDEV.replace("from all", &format!("from all to {to}")));
    for host in [overtaken, child] {
        assert_eq!(steps(&host, Strategy::Auto), narrow);
        assert_eq!(steps(&host, Strategy::Vrf), [L3MDEV]);
    }
}

#[test]
fn other_strategies_say_which_one_is_for_vrfs() {
    for strategy in [Strategy::Inside, Strategy::Prefixes, Strategy::MainFirst] {
        let plan = planned(&in_vrf(), strategy, None).expect("a plan");
        assert_eq!(commands(&plan), Vec::<String>::new());
        assert!(plan.left_out.iter().all(|left| left.why.contains("`vrf`")), "{plan:?}");
    }
    let plan = planned(&gateway(), Strategy::Vrf, None).expect("a plan");
    assert_eq!((commands(&plan).len(), plan.left_out.len()), (0, 2), "{plan:?}");
}

#[test]
fn without_the_kernels_own_rule_nothing_is_guessed() {
    let mut host = in_vrf();
    host.rules = healthy_rules();
    assert_eq!(steps(&host, Strategy::Auto), Vec::<String>::new());
}

#[test]
fn beside_mains_own_destinations_the_flows_of_vrfs_find_their_table_first() {
    const VTI2: u32 = 10;
    let mut host = in_vrf();
    host.links.push(Link { index: VTI2, name: "vti2".into(), master: None, ..host.links[2].clone() });
    host.routes.push(route(TABLE_MAIN, "10.30.0.0/16", VTI2));
    assert_eq!(steps(&host, Strategy::Auto), [L3MDEV, MAIN_FIRST]);
}
