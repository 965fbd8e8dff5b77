//! Random policies and flows. All values come from small pools, so that selectors, prefixes and priorities really meet.

mod flow;
mod pool;
mod route;
mod rule;
mod words;

use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::select;
use vpnfix::core::model::Family;

use self::flow::ask;
use self::pool::{Pool, V4, V6};
use self::route::{objects, readable, route};
use self::rule::{masked, rule};
use self::words::optional;
use crate::FLOWS;
use crate::ask::Ask;
use crate::kernel::Kernel;
use crate::scene::{Scene, Step};

/// Scenes of both families.
pub(crate) fn scenes(kernel: Kernel) -> impl Strategy<Value = Scene> {
    prop_oneof![scene(V4, kernel), scene(V6, kernel)]
}

fn scene(pool: Pool, kernel: Kernel) -> BoxedStrategy<Scene> {
    let asks = prop::collection::vec(ask(pool, kernel), 4..=(2 * FLOWS as usize - 4));
    let devices = (vrf(pool, kernel), settings(pool), select(DOWN.to_vec()), any::<bool>());
    let policy = (
        prop::collection::vec(route(pool, kernel), 2..18),
        prop::collection::vec(rule(pool, kernel), 0..8),
        optional(0.12, masked(pool, kernel)),
        optional(0.1, select(vec![2_u32, 150, 32000])),
        optional(0.1, select(DELETED.to_vec())),
    );
    (devices, policy, asks)
        .prop_map(move |((vrf, settings, down, is_late), (routes, rules, masked, local, deleted), asks)| {
            let ip = |line: &&str| Step::Ip((*line).to_string());
            let mut steps: Vec<Step> = vrf.iter().map(ip).chain(settings).collect();
            if !is_late {
                steps.extend(down.iter().map(ip));
            }
            let routes = readable(routes);
            steps.extend(objects(pool, &routes));
            steps.extend(routes.into_iter().map(Step::Ip));
            steps.extend(rules.into_iter().map(Step::Ip));
            if let Some(priority) = local {
                steps.push(Step::Ip(format!("rule add pref {priority} lookup local")));
                steps.push(Step::Ip("rule del pref 0".into()));
            }
            steps.extend(deleted.iter().map(ip));
            if is_late {
                steps.extend(down.iter().map(ip));
            }
            steps.extend(masked.map(Step::Rule));
            let is_meant = |ask: &Ask| if vrf.is_empty() { !names_vrf(ask) } else { !is_link_scope(ask) };
            let asks = asks.into_iter().filter(is_meant).collect();
            Scene { family: pool.family, steps, asks }
        })
        .boxed()
}

/// Rules that go again: the kernel's own, and the first one that a `goto` may lead to.
const DELETED: [&str; 4] = ["rule del pref 32766", "rule del pref 32767", "rule del pref 220", "rule del pref 100"];

fn names_vrf(ask: &Ask) -> bool {
    [&ask.iif, &ask.oif].into_iter().any(|name| name.as_deref() == Some("v0"))
}

/// Where there are VRFs they are asked themselves about bound link-local flows, and no rule.
fn is_link_scope(ask: &Ask) -> bool {
    ask.oif.is_some() && matches!(ask.to, IpAddr::V6(to) if to.is_unicast_link_local())
}

/// Devices that go down and take the carrier from their far end, before the routes are made or after.
const DOWN: [&[&str]; 6] = [&[], &[], &[], &["link set d3 down"], &["link set d1 down"], &["link set d0 down"]];

/// A VRF with one port, where the kernel has them.
fn vrf(pool: Pool, kernel: Kernel) -> BoxedStrategy<Vec<&'static str>> {
    if !kernel.vrf {
        return Just(Vec::new()).boxed();
    }
    let address = if pool.family == Family::V4 {
        "address add 172.16.0.1/12 dev d3"
    } else {
        "address add fd00:2::1/64 dev d3 nodad"
    };
    let lines = vec![
        "link add v0 type vrf table 400",
        "link set v0 up",
        "link set d3 master v0",
        // Enslaving takes IPv6 addresses away; for IPv4 this is refused, and that is meant.
        address,
    ];
    prop_oneof![2 => Just(Vec::new()), 1 => Just(lines)].boxed()
}

fn settings(pool: Pool) -> impl Strategy<Value = Vec<Step>> {
    let ignore: &[&str] = match pool.family {
        Family::V4 => &["ipv4/conf/all/ignore_routes_with_linkdown", "ipv4/conf/d2/ignore_routes_with_linkdown"],
        Family::V6 => &["ipv6/conf/d0/ignore_routes_with_linkdown", "ipv6/conf/d2/ignore_routes_with_linkdown"],
    };
    let compat =
        optional(0.2, Just("ipv4/nexthop_compat_mode".to_string()).prop_map(|file| Step::Set(file, "0".into())));
    let ignore = optional(0.4, select(ignore.to_vec()).prop_map(|file| Step::Set(file.into(), "1".into())));
    (compat, ignore).prop_map(|(compat, ignore)| compat.into_iter().chain(ignore).collect())
}
