//! How each program's rules and routes look. Each function names its program as a candidate if anything of it fits;
//! signs on the host are added to all of them alike.

mod cloud;
mod container;
mod ipsec;
mod kernel;
mod network_manager;
mod routing_daemon;
mod tun;
mod wireguard;

use super::evidence::{Candidate, Kind};
use super::program::Program;
use super::seen::{self, Seen};
use crate::core::model::{Route, Rule};

/// Looks at a rule.
pub(super) type OfRule = fn(&Seen<'_>, &Rule) -> Option<Candidate>;
/// Looks at a route.
pub(super) type OfRoute = fn(&Seen<'_>, &Route) -> Option<Candidate>;

/// All that look at rules.
pub(super) const RULES: [OfRule; 21] = [
    kernel::vpnfix_rule,
    kernel::default_rule,
    kernel::vrf_rule,
    ipsec::strongswan_rule,
    ipsec::charon_nm_rule,
    ipsec::libreswan_rule,
    wireguard::tailscale_rule,
    wireguard::netbird_rule,
    wireguard::mullvad_rule,
    wireguard::wg_quick_rule,
    tun::proxy_rule,
    container::vpc_cni_rule,
    container::cilium_rule,
    container::calico_rule,
    cloud::ec2_net_utils_rule,
    cloud::cloud_init_rule,
    routing_daemon::frr_rule,
    routing_daemon::bird_rule,
    routing_daemon::keepalived_rule,
    network_manager::network_manager_rule,
    network_manager::networkd_rule,
];

/// All that look at routes.
pub(super) const ROUTES: [OfRoute; 20] = [
    kernel::vpnfix_route,
    kernel::kernel_route,
    ipsec::strongswan_route,
    ipsec::charon_nm_route,
    ipsec::libreswan_route,
    wireguard::tailscale_route,
    wireguard::netbird_route,
    wireguard::mullvad_route,
    wireguard::wg_quick_route,
    tun::proxy_route,
    tun::openvpn_route,
    container::vpc_cni_route,
    container::cilium_route,
    container::calico_route,
    cloud::ec2_net_utils_route,
    cloud::cloud_init_route,
    routing_daemon::frr_route,
    routing_daemon::daemon_route,
    network_manager::network_manager_route,
    network_manager::networkd_route,
];

/// For a program whose tables hold nothing but its own: what speaks for it at a rule into the route's table.
fn by_rule(seen: &Seen<'_>, route: &Route, program: Program, of_rule: OfRule) -> Option<Candidate> {
    let leads_there = |rule: &&Rule| rule.family == route.family && rule.table() == Some(route.table);
    let rule = seen.snapshot.rules.iter().filter(leads_there).find(|rule| of_rule(seen, rule).is_some())?;
    Some(seen::by_table(program, route.table, rule))
}
