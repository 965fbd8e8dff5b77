//! Packets that come in by a tunnel while the way back is by another. AWS may send by either tunnel of a connection, so
//! that is normal (its documentation asks for loose source validation); a tunnel that validates strictly drops them.

use std::collections::{BTreeMap, HashMap};

use ipnet::IpNet;

use super::cause::{filter_value, loosen};
use super::is_exempt_from_validation;
use super::known::Known;
use super::question::{Asked, Subject, reverse};
use crate::core::destination::Class;
use crate::core::finding::{Note, NoteId, few};
use crate::core::model::{Answer, Family, Reply};
use crate::core::walk::Flow;

/// So many destinations are asked about for each tunnel: validation is the tunnel's, not the prefix's.
const ASKED: usize = 4;

/// For prefixes that two tunnels have a route to: a packet from there that comes in by the second best.
pub(super) fn questions(known: &Known<'_>) -> Vec<Asked> {
    let mut asked = Vec::new();
    let mut counts: HashMap<u32, usize> = HashMap::new();
    let fib = known.case.fib;
    for (index, destination) in known.case.destinations.iter().enumerate() {
        let (Some(own), Class::Routed | Class::Default) = (destination.inside_source, destination.class) else {
            continue;
        };
        if Family::of(destination.address) == Family::V6 {
            continue;
        }
        let covering = fib.covering(destination.table, destination.prefix).into_iter().next().unwrap_or_default();
        let same_prefix = covering.into_iter().filter(|route| route.destination == destination.prefix);
        for tunnel in same_prefix.flat_map(|route| &route.nexthops).filter_map(|hop| hop.ifindex) {
            let other = !destination.tunnels.contains(&tunnel) && known.tunnel(tunnel).is_some();
            let count = counts.entry(tunnel).or_default();
            if other && *count < ASKED && !is_exempt_from_validation(known, tunnel) {
                *count += 1;
                let subject = Subject::SecondWay { destination: index, tunnel };
                asked.push(Asked { subject, question: reverse(destination, tunnel, own) });
            }
        }
    }
    asked
}

/// One note for each tunnel that drops them. Where the way back is wrong anyway, that is what is told.
pub(super) fn notes<'q>(known: &Known<'_>, answered: impl Iterator<Item = (&'q Asked, &'q Answer)>) -> Vec<Note> {
    let mut dropped: BTreeMap<u32, Vec<IpNet>> = BTreeMap::new();
    for (asked, answer) in answered {
        let (Subject::SecondWay { destination, tunnel }, Reply::Refused(22 | 18)) = (&asked.subject, &answer.reply)
        else {
            continue;
        };
        let Some(destination) = known.case.destinations.get(*destination) else { continue };
        let back = known.walk(&Flow { from: destination.inside_source, ..Flow::plain(destination.address) });
        if destination.tunnels.iter().any(|own| back.leaves_by(*own)) {
            dropped.entry(*tunnel).or_default().push(destination.prefix);
        }
    }
    let note = |(tunnel, prefixes): (u32, Vec<IpNet>)| Note {
        id: NoteId::StrictSecondWay,
        text: format!(
            "{} has the second best way to {}; what comes in from there by it would be dropped by {}. AWS may send by \
             either tunnel: {}",
            known.name(tunnel),
            few(&prefixes, 3),
            filter_value(known, tunnel),
            loosen(known, tunnel)
        ),
    };
    dropped.into_iter().map(note).collect()
}
