//! A case with what judging looks up again and again, so that its time grows no faster than the host.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;

use super::Case;
use crate::core::destination::Destination;
use crate::core::finding::Owner;
use crate::core::model::{Family, Reply, Route, Rule};
use crate::core::owner;
use crate::core::tunnel::Tunnel;
use crate::core::walk::{self, End, Flow, Policy};

/// A case, indexed.
pub(super) struct Known<'a> {
    pub(super) case: Case<'a>,
    policies: [Policy<'a>; 2],
    tunnels: HashMap<u32, &'a Tunnel>,
    addresses: HashMap<IpAddr, u32>,
    owners: RefCell<HashMap<Option<&'a Rule>, Owner>>,
}

impl<'a> Known<'a> {
    pub(super) fn new(case: Case<'a>) -> Self {
        let addresses = &case.fib.snapshot().addresses;
        Self {
            case,
            policies: Family::ALL.map(|family| case.fib.policy(family)),
            tunnels: case.tunnels.iter().map(|tunnel| (tunnel.ifindex, tunnel)).collect(),
            addresses: addresses.iter().map(|address| (address.local, address.ifindex)).collect(),
            owners: RefCell::default(),
        }
    }

    fn policy(&self, family: Family) -> &Policy<'a> {
        let [v4, v6] = &self.policies;
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }

    /// The rules of a family in the kernel's order.
    pub(super) fn rules(&self, family: Family) -> &[&'a Rule] {
        self.policy(family).rules()
    }

    /// Where the engine says that a flow goes.
    pub(super) fn walk(&self, flow: &Flow) -> End<'a> {
        walk::walk(self.case.fib, self.policy(flow.family()), flow)
    }

    /// The tunnel with this index.
    pub(super) fn tunnel(&self, ifindex: u32) -> Option<&'a Tunnel> {
        self.tunnels.get(&ifindex).copied()
    }

    /// The tunnel that a destination belongs to; of a multipath route, the first.
    pub(super) fn tunnel_of(&self, destination: &Destination) -> Option<&'a Tunnel> {
        destination.tunnels.first().and_then(|index| self.tunnel(*index))
    }

    /// A device's name, `if7` where there is none.
    pub(super) fn name(&self, ifindex: u32) -> String {
        self.case.fib.link(ifindex).map_or_else(|| format!("if{ifindex}"), |link| link.name.clone())
    }

    /// Name of the device that has this address of the host.
    pub(super) fn device_with(&self, address: IpAddr) -> Option<String> {
        self.addresses.get(&address).map(|ifindex| self.name(*ifindex))
    }

    /// Who decided: the owner of the rule, or of the route where the rule is everybody's. Telling a rule's owner may read a
    /// whole table, so each is told once.
    pub(super) fn owner(&self, rule: Option<&'a Rule>, route: Option<&Route>) -> Owner {
        let (snapshot, clues) = (self.case.fib.snapshot(), self.case.clues);
        if rule.is_some_and(Rule::is_kernel_default) && route.is_some() {
            return owner::of_decision(snapshot, clues, rule, route);
        }
        let tell = || owner::owner(snapshot, clues, rule);
        self.owners.borrow_mut().entry(rule).or_insert_with(tell).clone()
    }

    /// Does an answer lead into a tunnel of the destination?
    pub(super) fn goes_right(&self, destination: &Destination, reply: &Reply) -> bool {
        matches!(reply, Reply::Arrives(arrival) if !arrival.local && destination.tunnels.contains(&arrival.ifindex))
    }
}
