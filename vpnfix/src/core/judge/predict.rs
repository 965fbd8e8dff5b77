//! The engine's answers: where the kernel was not asked, and to compare with the kernel's where it was.

use super::known::Known;
use super::question::{Asked, Subject, variants};
use crate::core::destination::Destination;
use crate::core::finding::{Note, NoteId, Variant, few};
use crate::core::model::{Answer, Arrival, Question, Reply, RouteKind};
use crate::core::predict::Prediction;
use crate::core::walk::{Doubt, End, Flow};

/// ENETUNREACH: what a walk that finds nothing ends with.
const UNREACHABLE: i32 = 101;
/// EHOSTUNREACH: what an unreachable route ends with.
const HOST_UNREACHABLE: i32 = 113;

/// What the engine would answer to the questions about a destination. Source validation it does not model.
pub(super) fn answers(known: &Known<'_>, destination: &Destination) -> Vec<(Variant, Answer)> {
    let forward = variants(destination).into_iter().filter(|(variant, _)| *variant != Variant::Reverse);
    forward.map(|(variant, question)| (variant, answer(known, destination, question))).collect()
}

/// Of several nexthops that may be taken, one that is wrong, if any is.
fn answer(known: &Known<'_>, destination: &Destination, question: Question) -> Answer {
    let arrives = |table, ifindex, gateway, local| {
        Reply::Arrives(Arrival { table, ifindex, gateway, source: question.source, local })
    };
    let (reply, entry) = match known.walk(&Flow::from(&question)) {
        End::Route { table, route, nexthops, .. } => {
            let is_right = |index: Option<u32>| index.is_some_and(|index| destination.tunnels.contains(&index));
            let worst = nexthops.iter().find(|hop| !is_right(hop.ifindex)).or(nexthops.first());
            let (ifindex, gateway) = worst.map_or((None, None), |hop| (hop.ifindex, hop.gateway));
            let local = route.kind == RouteKind::Local;
            (arrives(table, ifindex.unwrap_or(0), gateway, local), Some(route.clone()))
        }
        End::AssumedOnLink(device) => (arrives(0, device, None, false), None),
        End::RefusedByRoute { route, .. } => (Reply::Refused(HOST_UNREACHABLE), Some(route.clone())),
        // The destination comes from a route of this very table; of those beside it not all are known.
        End::Undecided { doubt: Doubt::PartialTable(table), .. } if table == destination.table => {
            let tunnel = destination.tunnels.first().copied().unwrap_or(0);
            (arrives(table, tunnel, None, false), None)
        }
        End::RefusedByRule(_) | End::NoRoute | End::Undecided { .. } => (Reply::Refused(UNREACHABLE), None),
    };
    Answer { question, reply, entry }
}

/// Engine and kernel should agree; where they do not, it is said.
pub(super) fn disagreements<'a>(
    known: &Known<'_>,
    answered: impl Iterator<Item = (&'a Asked, &'a Answer)>,
) -> Option<Note> {
    let mut differ: Vec<std::net::IpAddr> = answered
        .filter(
            |(asked, _)| matches!(&asked.subject, Subject::Destination { variant, .. } if *variant != Variant::Reverse),
        )
        .filter(|(_, answer)| !is_bound_to_a_device_that_is_down(known, answer) && !agrees(known, answer))
        .map(|(_, answer)| answer.question.destination)
        .collect();
    differ.dedup();
    (!differ.is_empty()).then(|| Note {
        id: NoteId::EngineDisagrees,
        text: format!(
            "for {} the kernel's answer differs from what the rules and routes say by vpnfix's reading; the kernel's holds",
            few(&differ, 3)
        ),
    })
}

/// The kernel refuses such a question before it asks any rule (`ip_route_output_key_hash_rcu`, `net/ipv4/route.c`).
fn is_bound_to_a_device_that_is_down(known: &Known<'_>, answer: &Answer) -> bool {
    let bound = answer.question.output_interface.and_then(|index| known.case.fib.link(index));
    bound.is_some_and(|link| !link.up)
}

/// Questions about destinations that were answered otherwise than the engine would, the source included.
pub(super) fn unexplained<'a>(
    known: &Known<'_>,
    answered: impl Iterator<Item = (&'a Asked, &'a Answer)>,
) -> Vec<Question> {
    let of_destinations = answered.filter(
        |(asked, _)| matches!(&asked.subject, Subject::Destination { variant, .. } if *variant != Variant::Reverse),
    );
    of_destinations
        .filter(|(_, answer)| !expected(known, answer).admits(&answer.reply))
        .map(|(asked, _)| asked.question.clone())
        .collect()
}

fn agrees(known: &Known<'_>, answer: &Answer) -> bool {
    expected(known, answer).admits_way(&answer.reply)
}

fn expected(known: &Known<'_>, answer: &Answer) -> Prediction {
    Prediction::of(known.case.fib, &known.walk(&Flow::from(&answer.question)), &answer.question)
}
