//! The kernel's answer, and whether the walk agrees with it.

use super::{Case, is_local};
use crate::core::judge;
use crate::core::model::route::protocol_name;
use crate::core::model::{Answer, Arrival, Reply, RouteKind, TABLE_LOCAL, TABLE_MAIN};
use crate::core::report::explain::{Agreement, AgreementState, KernelAnswer};
use crate::core::walk::{End, Fib};

/// The answer as the report has it.
pub(super) fn answer(fib: &Fib<'_>, answer: &Answer) -> KernelAnswer {
    let arrival = match &answer.reply {
        Reply::Arrives(arrival) => Some(arrival),
        Reply::Refused(_) => None,
    };
    let entry = answer.entry.as_ref();
    KernelAnswer {
        device: arrival.map(|arrival| fib.snapshot().device_name(arrival.ifindex)),
        table: arrival.map(|arrival| arrival.table),
        gateway: arrival.and_then(|arrival| arrival.gateway),
        source: arrival.and_then(|arrival| arrival.source),
        local: arrival.is_some_and(|arrival| arrival.local),
        route: entry.map(ToString::to_string),
        route_protocol: entry.map(|route| protocol_name(route.protocol)),
        error: match answer.reply {
            Reply::Refused(errno) => Some(judge::refusal(errno).into()),
            Reply::Arrives(_) => None,
        },
    }
}

/// `EHOSTUNREACH`.
const NO_ROUTE_TO_HOST: i32 = 113;
/// `EINVAL` and `EXDEV`.
const INVALID: [i32; 2] = [22, 18];

/// Do the walk and the kernel agree?
pub(super) fn agreement(case: Case<'_>, end: &End<'_>) -> Agreement {
    let (state, text) = match (end, case.answer.map(|answer| &answer.reply)) {
        (_, None) => (AgreementState::ReadingAlone, not_asked(case)),
        (End::Undecided { rule, doubt }, Some(_)) => {
            let text = format!("rule {} cannot be judged: {}; the answer stands alone", rule.priority, doubt);
            (AgreementState::KernelAlone, text)
        }
        (End::Route { .. } | End::AssumedOnLink(_), Some(Reply::Refused(errno)))
            if case.question.input_interface.is_some() =>
        {
            (AgreementState::NotAccepted, not_accepted(case, *errno))
        }
        (end, Some(reply)) if agree(case, end, reply) => {
            (AgreementState::Agree, "this is what the rules above say".into())
        }
        _ => {
            let text = "vpnfix's reading of the rules above says otherwise; the kernel's answer holds";
            (AgreementState::Differ, text.into())
        }
    };
    Agreement { state, text }
}

fn not_asked(case: Case<'_>) -> String {
    let protocol = case.question.ip_protocol.unwrap_or(0);
    format!("the kernel answers no question about IP protocol {protocol}: this is vpnfix's reading alone")
}

/// A packet that comes in is refused before or after its route is found.
fn not_accepted(case: Case<'_>, errno: i32) -> String {
    let device = case.question.input_interface.map_or_else(String::new, |iif| case.fib.snapshot().device_name(iif));
    match errno {
        NO_ROUTE_TO_HOST => format!(
            "{device} does not forward (net.ipv4.conf.{device}.forwarding): no packet that comes in by it is routed on"
        ),
        errno if INVALID.contains(&errno) => {
            format!(
                "its source is not valid on {device}: source validation (rp_filter), or an address that no packet comes from"
            )
        }
        _ => format!("a packet that comes in by {device} in this way is not accepted"),
    }
}

fn agree(case: Case<'_>, end: &End<'_>, reply: &Reply) -> bool {
    match (end, reply) {
        (End::Route { table, route, nexthops, .. }, Reply::Arrives(arrival)) => {
            // Own addresses leave by the loopback device; groups and broadcasts have no gateway.
            let by_nexthop = nexthops.iter().any(|nexthop| {
                nexthop.ifindex == Some(arrival.ifindex)
                    && (nexthop.gateway == arrival.gateway || !is_to_one(arrival, case))
            });
            same_table(case, *table, arrival) && (by_nexthop || (arrival.local && is_local(route)))
        }
        (End::AssumedOnLink(device), Reply::Arrives(arrival)) => arrival.ifindex == *device,
        (End::RefusedByRule(_) | End::RefusedByRoute { .. } | End::NoRoute, Reply::Refused(_)) => true,
        _ => false,
    }
}

/// Is it for one host, so that a gateway is used?
fn is_to_one(arrival: &Arrival, case: Case<'_>) -> bool {
    let kind = case.answer.and_then(|answer| answer.entry.as_ref()).map(|entry| entry.kind);
    !arrival.local && !matches!(kind, Some(RouteKind::Broadcast | RouteKind::Multicast))
}

/// Until a namespace has its first rule of others, the kernel keeps local and main in one, and calls it main
/// (`fib_unmerge`, `net/ipv4/fib_frontend.c`).
fn same_table(case: Case<'_>, table: u32, arrival: &Arrival) -> bool {
    let merged = || case.fib.snapshot().rules.iter().all(|rule| rule.is_kernel_default());
    table == arrival.table || (table == TABLE_LOCAL && arrival.table == TABLE_MAIN && merged())
}
