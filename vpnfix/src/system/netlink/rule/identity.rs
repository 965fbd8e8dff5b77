//! Which rule the kernel takes a message to mean.

use super::masked::dscp_fits;
use super::message::kernel_action;
use crate::core::model::Rule;

/// Why the kernel would not delete exactly this rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum NotExact {
    /// It is not there.
    Missing,
    /// This one stands before it and would go in its stead.
    Another(Box<Rule>),
}

/// Checks that a delete request made of `rule` would take that rule and no other: the kernel deletes the first rule that
/// equals the request in the fields that the request has (`rule_find`), and a missing selector cannot be asked for.
pub(in super::super) fn check_deletion(rules: &[Rule], rule: &Rule) -> Result<(), NotExact> {
    let same = |other: &Rule| attached(other) == attached(rule);
    if !rules.iter().any(same) {
        return Err(NotExact::Missing);
    }
    match rules.iter().find(|candidate| kernel_would_delete(rule, candidate)) {
        Some(first) if same(first) => Ok(()),
        Some(first) => Err(NotExact::Another(Box::new(first.clone()))),
        None => Err(NotExact::Missing),
    }
}

/// The rule that the kernel takes for the same as `rule` when that is to be added, although it is another; `None` if
/// exactly this rule is there.
pub(in super::super) fn collision<'a>(rules: &'a [Rule], rule: &Rule) -> Option<&'a Rule> {
    if rules.iter().any(|other| attached(other) == attached(rule)) {
        return None;
    }
    rules.iter().find(|candidate| kernel_would_delete(rule, candidate))
}

/// Whether its interfaces exist just now is no part of what a rule is.
fn attached(rule: &Rule) -> Rule {
    Rule { iif_detached: false, oif_detached: false, ..rule.clone() }
}

/// `rule_find` of `net/core/fib_rules.c` and the families' `compare`: what the request leaves out, or gives as 0, matches
/// anything; inversion, the search for a source and the target of a goto are not looked at.
fn kernel_would_delete(request: &Rule, candidate: &Rule) -> bool {
    fn asked<T: PartialEq>(request: &Option<T>, candidate: &Option<T>) -> bool {
        request.is_none() || request == candidate
    }
    let number = |request: u32, candidate: u32| request == 0 || request == candidate;
    let mark = |rule: &Rule| rule.mark.map_or((0, 0), |mark| (mark.value, mark.mask));
    request.family == candidate.family
        && kernel_action(request.action) == kernel_action(candidate.action)
        && number(request.table().unwrap_or(0), candidate.table().unwrap_or(0))
        && request.priority == candidate.priority
        && asked(&request.iif, &candidate.iif)
        && asked(&request.oif, &candidate.oif)
        && number(mark(request).0, mark(candidate).0)
        && number(mark(request).1, mark(candidate).1)
        && asked(&request.suppress_ifgroup, &candidate.suppress_ifgroup)
        && asked(&request.suppress_prefix_length, &candidate.suppress_prefix_length)
        && asked(&request.tunnel_id, &candidate.tunnel_id)
        && (!request.l3mdev || candidate.l3mdev)
        && asked(&request.uid_range, &candidate.uid_range)
        && asked(&request.ip_protocol, &candidate.ip_protocol)
        && number(request.protocol.into(), candidate.protocol.into())
        && asked(&request.source_ports, &candidate.source_ports)
        && asked(&request.destination_ports, &candidate.destination_ports)
        && asked(&request.from, &candidate.from)
        && asked(&request.to, &candidate.to)
        && number(request.tos.into(), candidate.tos.into())
        && dscp_fits(request.dscp, candidate.dscp)
        && asked(&request.flow_label, &candidate.flow_label)
}
