//! Networks of containers: the Amazon VPC CNI plugin, Cilium, Calico.

use super::kernel::KERNEL;
use super::{Candidate, Kind, Program, Route, Rule, Seen};
use crate::core::model::{Link, Mark, TABLE_LOCAL, TABLE_MAIN};
use crate::core::owner::seen::{is_kind, is_only_from, plain};

/// The mark of what the VPC CNI plugin keeps on the primary interface (`network.go`: `defaultConnmark`).
const VPC_CNI_MARK: Mark = Mark { value: 0x80, mask: 0x80 };
/// `RTPROT` of routes that Felix programs for VXLAN and for hosts (`dataplanedefs`: `DefaultRouteProto`).
const CALICO_PROTOCOL: u8 = 80;
/// Where Calico's rule for WireGuard stands (`WireguardRoutingRulePriority`), and the tables that Felix takes.
const CALICO_PRIORITY: u32 = 99;
const CALICO_TABLES: std::ops::RangeInclusive<u32> = 1..=250;
/// Cilium's tables with fixed numbers (`linux_defaults.go`): IPsec, WireGuard, VTEP, the proxies.
const CILIUM_TABLES: [u32; 5] = [200, 201, 202, 2004, 2005];

/// Rules for pods, as the plugin's priorities order them (`network.go`, `driver.go`).
pub(super) fn vpc_cni_rule(seen: &Seen<'_>, rule: &Rule) -> Option<Candidate> {
    let to_main = |to, from| Rule { to, from, ..plain(rule, TABLE_MAIN) };
    let as_made = match rule.priority {
        // A pod's branch interface, and the local table behind it.
        10 => rule.iif.as_deref().is_some_and(|iif| iif.starts_with("vlan")),
        20 => rule.same_effect(&plain(rule, TABLE_LOCAL)),
        // To a pod, and what came in by the primary interface.
        512 => rule.to.is_some() && rule.same_effect(&to_main(rule.to, None)),
        1024 => rule.same_effect(&Rule { mark: Some(VPC_CNI_MARK), ..plain(rule, TABLE_MAIN) }),
        // From a pod of another interface.
        1535 => rule.from.is_some() && rule.same_effect(&to_main(rule.to, rule.from)),
        1536 => rule.from.is_some() && rule.table().is_some_and(|table| table != TABLE_MAIN),
        _ => return None,
    };
    as_made.then(|| {
        let candidate = Candidate::of(Program::VpcCni)
            .with(Kind::Number, format!("priority {} is one of the VPC CNI plugin's", rule.priority))
            .with_if(rule.priority != 1536 || is_only_from(rule), Kind::Shape, "the rule is as the plugin makes it");
        with_pod_device(seen, candidate, is_eni)
    })
}

pub(super) fn vpc_cni_route(seen: &Seen<'_>, route: &Route) -> Option<Candidate> {
    let device = seen.device(route)?;
    if route.table == TABLE_MAIN
        && is_eni(device)
        && route.destination.prefix_len() == route.destination.max_prefix_len()
    {
        let shape =
            format!("the route leads one pod's address to {}, a device named as the plugin names pods'", device.name);
        return Some(
            Candidate::of(Program::VpcCni).with(Kind::Shape, shape).with(Kind::Host, "pods' devices are there"),
        );
    }
    let of_plugin = route.table != TABLE_MAIN && route.table != TABLE_LOCAL;
    of_plugin.then(|| super::by_rule(seen, route, Program::VpcCni, vpc_cni_rule)).flatten()
}

fn is_eni(link: &Link) -> bool {
    (link.name.starts_with("eni") && is_kind(link, "veth")) || link.name.starts_with("vlan.eth")
}

fn with_pod_device(seen: &Seen<'_>, candidate: Candidate, of_pod: fn(&Link) -> bool) -> Candidate {
    match seen.link(of_pod) {
        Some(link) => candidate.with(Kind::Host, format!("{} is a device named as it names its own", link.name)),
        None => candidate,
    }
}

/// Cilium gives its rules the kernel's protocol, so that networkd leaves them alone (`linux_defaults.go`: `RTProto`).
/// The rule of the local table is moved from 0 to 100.
pub(super) fn cilium_rule(seen: &Seen<'_>, rule: &Rule) -> Option<Candidate> {
    let own_table = rule.table().is_some_and(|table| CILIUM_TABLES.contains(&table));
    let as_made = match rule.priority {
        1 | 9 | 109..=112 => rule.table().is_some_and(|table| table != TABLE_MAIN),
        // Of what comes from its proxy; the VPC CNI uses the number too.
        10 => own_table,
        20 => rule.to.is_some() && rule.table() == Some(TABLE_MAIN),
        100 => rule.same_effect(&plain(rule, TABLE_LOCAL)),
        _ => false,
    };
    let of_kernel = rule.protocol == KERNEL && !rule.is_kernel_default() && !rule.l3mdev;
    (as_made && (of_kernel || own_table || seen.link(is_ciliums).is_some())).then(|| {
        let candidate = Candidate::of(Program::Cilium)
            .with(Kind::Number, format!("priority {} is one of Cilium's", rule.priority))
            .with_if(of_kernel, Kind::Shape, "the rule bears the kernel's protocol, as Cilium's do");
        with_pod_device(seen, candidate, is_ciliums)
    })
}

pub(super) fn cilium_route(seen: &Seen<'_>, route: &Route) -> Option<Candidate> {
    let candidate = super::by_rule(seen, route, Program::Cilium, cilium_rule)
        .filter(|_| route.table != TABLE_LOCAL && route.table != TABLE_MAIN);
    let Some(device) = seen.device(route).filter(|link| is_ciliums(link)) else { return candidate };
    let shape = format!("the route leaves by {}, a device of Cilium's by its name", device.name);
    Some(candidate.unwrap_or_else(|| Candidate::of(Program::Cilium)).with(Kind::Shape, shape))
}

fn is_ciliums(link: &Link) -> bool {
    link.name.starts_with("cilium_") || (link.name.starts_with("lxc") && is_kind(link, "veth"))
}

/// `99: not from all fwmark MARK/MARK lookup TABLE`, for the traffic between nodes that WireGuard encrypts.
pub(super) fn calico_rule(seen: &Seen<'_>, rule: &Rule) -> Option<Candidate> {
    let table = rule.table().filter(|table| CALICO_TABLES.contains(table))?;
    let mark = rule.mark.filter(|mark| mark.value == mark.mask && mark.mask.count_ones() == 1);
    let shape = Rule { invert: true, mark, ..Rule::lookup(rule.family, CALICO_PRIORITY, table) };
    let device = seen.table_device(table, is_calico_wireguard);
    (rule.priority == CALICO_PRIORITY || device.is_some()).then(|| {
        let candidate = Candidate::of(Program::Calico)
            .with_if(
                rule.priority == CALICO_PRIORITY,
                Kind::Number,
                "priority 99 is the one of Calico's rule for WireGuard",
            )
            .with_if(
                mark.is_some() && rule.same_effect(&shape),
                Kind::Shape,
                "the rule is for all that lacks one mark bit",
            );
        match device {
            Some(link) => candidate.with(Kind::Host, format!("its table's routes leave by Calico's {}", link.name)),
            None => candidate,
        }
    })
}

fn is_calico_wireguard(link: &Link) -> bool {
    matches!(link.name.as_str(), "wireguard.cali" | "wg-v6.cali")
}

pub(super) fn calico_route(seen: &Seen<'_>, route: &Route) -> Option<Candidate> {
    let device = seen.device(route);
    let of_pod = |link: &&Link| link.name.starts_with("cali") && is_kind(link, "veth");
    let own = |link: &&Link| {
        of_pod(link) || is_calico_wireguard(link) || link.name.starts_with("vxlan") && link.name.ends_with(".calico")
    };
    let number = "protocol 80 is the one that Felix gives its routes";
    let candidate = Candidate::of(Program::Calico).with_if(route.protocol == CALICO_PROTOCOL, Kind::Number, number);
    match device.filter(own) {
        Some(link) => {
            let shape = format!("the route leaves by {}, a device of Calico's by its name", link.name);
            Some(candidate.with(Kind::Shape, shape))
        }
        None => (route.protocol == CALICO_PROTOCOL).then_some(candidate),
    }
}
