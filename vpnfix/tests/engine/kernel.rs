//! What this kernel has, found out by trying in a namespace of its own.

use std::net::{IpAddr, Ipv6Addr};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use vpnfix::core::model::{Dscp, Family, FlowLabel, Ports, Question, Rule};
use vpnfix::system::netlink::{Netlink, Queries};

/// What the engine knows of and not every kernel has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    pub(crate) vrf: bool,
    pub(crate) dscp: bool,
    pub(crate) dscp_mask: bool,
    pub(crate) flow_label: bool,
    pub(crate) port_mask: bool,
    /// Source-specific IPv6 routes (`CONFIG_IPV6_SUBTREES`).
    pub(crate) source_routes: bool,
}

impl Kernel {
    pub(crate) fn probe() -> Self {
        std::thread::scope(|scope| scope.spawn(probe).join()).expect("the kernel is probed")
    }
}

fn probe() -> Kernel {
    unshare(CloneFlags::CLONE_NEWNET).expect("a namespace");
    let ip = |arguments: &str| {
        let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
        output.status.success()
    };
    assert!(ip("link set lo up"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let netlink = {
        let _inside = runtime.enter();
        Netlink::connect().unwrap()
    };
    let has_rule = |rule: Rule| runtime.block_on(netlink.add_rule(&rule)).is_ok();
    let plain = Rule::lookup(Family::V6, 5, 254);
    let dscp = |mask| Rule { dscp: Some(Dscp { value: 8, mask }), ..plain.clone() };
    let label = Rule { flow_label: Some(FlowLabel { value: 1, mask: 1 }), ..plain.clone() };
    let label_question = Question { flow_label: 1, ..Question::plain(IpAddr::V6(Ipv6Addr::LOCALHOST)) };
    Kernel {
        vrf: ip("link add probe type vrf table 77"),
        dscp: has_rule(dscp(0x3f)),
        dscp_mask: has_rule(dscp(0x38)),
        flow_label: has_rule(label) && Queries::on_a_thread().unwrap().ask(vec![label_question]).is_ok(),
        port_mask: has_rule(Rule { source_ports: Some(Ports::Masked { value: 16, mask: 0xf0 }), ..plain.clone() }),
        source_routes: ip("-6 route add 2001:db8::/64 from 2001:db8:1::/64 dev lo"),
    }
}
