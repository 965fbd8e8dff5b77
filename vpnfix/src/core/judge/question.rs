//! What the kernel is asked.

use std::collections::HashMap;
use std::net::IpAddr;

use super::known::Known;
use super::{Case, selected};
use crate::core::control::{self, Outside};
use crate::core::destination::{Class, Destination};
use crate::core::finding::Variant;
use crate::core::model::{Family, Question};

/// A question, and what an answer to it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What it is about.
    pub subject: Subject,
    /// The question itself.
    pub question: Question,
}

/// What a question is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A destination.
    Destination {
        /// Its index.
        index: usize,
        /// Which of the questions about it.
        variant: Variant,
    },
    /// The traffic to a destination that a rule for some traffic alone selects.
    Selected {
        /// Index of the rule in the snapshot.
        rule: usize,
        /// Index of the destination.
        destination: usize,
    },
    /// What works outside of tunnels only.
    Outside(Outside),
}

/// TCP's IP protocol number.
pub(super) const TCP: u8 = 6;
/// BGP's TCP port (RFC 4271).
pub(super) const BGP_PORT: u16 = 179;
/// Scope of addresses that are valid everywhere (`RT_SCOPE_UNIVERSE`).
const SCOPE_UNIVERSE: u8 = 0;

/// Every question to ask about the destinations (design §4).
#[must_use]
pub fn questions(destinations: &[Destination]) -> Vec<Asked> {
    let all = destinations.iter().enumerate();
    all.flat_map(|(index, destination)| {
        let about = move |(variant, question)| Asked { subject: Subject::Destination { index, variant }, question };
        variants(destination).into_iter().map(about)
    })
    .collect()
}

/// The questions about one destination.
pub(super) fn variants(destination: &Destination) -> Vec<(Variant, Question)> {
    let plain = Question { output_interface: destination.vrf, ..Question::plain(destination.address) };
    let mut asked = vec![(Variant::Plain, plain.clone())];
    if let Some(source) = destination.inside_source {
        let from_inside = Question { source: Some(source), ..plain.clone() };
        asked.push((Variant::FromInside, from_inside.clone()));
        if destination.class == Class::Inside {
            let tcp = Question { ip_protocol: Some(TCP), ..from_inside };
            asked.push((Variant::BgpActive, Question { destination_port: Some(BGP_PORT), ..tcp.clone() }));
            asked.push((Variant::BgpPassive, Question { source_port: Some(BGP_PORT), ..tcp }));
        }
        asked.push((Variant::Reverse, reverse(destination, source)));
    }
    if let Some(tunnel) = destination.tunnels.first() {
        asked.push((Variant::BoundToTunnel, Question { output_interface: Some(*tunnel), ..plain }));
    }
    asked
}

/// A packet of the other side for an own address, coming in by the tunnel: the kernel validates its source on the way.
fn reverse(destination: &Destination, own: IpAddr) -> Question {
    Question {
        source: Some(destination.address),
        input_interface: destination.tunnels.first().copied(),
        ..Question::plain(own)
    }
}

/// What to ask beside the destinations: about the traffic that rules for some traffic alone select, about what may enter
/// no tunnel, and about packets that come in by tunnels without an address.
#[must_use]
pub fn further_questions(case: Case<'_>) -> Vec<Asked> {
    let mut asked = selected::questions(&Known::new(case));
    asked.extend(without_address(case));
    let outside = control::outside(case.fib, case.tunnels).into_iter();
    asked.extend(
        outside.map(|outside| Asked { question: Question::plain(outside.address), subject: Subject::Outside(outside) }),
    );
    asked
}

/// For each tunnel without an address, whether packets that come in by it pass the source validation: any address of
/// the host will do as destination, and one prefix behind the tunnel as source.
fn without_address(case: Case<'_>) -> Vec<Asked> {
    let vrf_of = |ifindex: u32| {
        let master = case.fib.link(ifindex).and_then(|link| link.master);
        master.filter(|master| case.fib.link(*master).is_some_and(|link| link.kind.name() == "vrf"))
    };
    let mut own: HashMap<(Family, Option<u32>), IpAddr> = HashMap::new();
    let of_everywhere = |address: &&crate::core::model::Address| address.scope == SCOPE_UNIVERSE;
    for address in case.fib.snapshot().addresses.iter().filter(of_everywhere) {
        own.entry((Family::of(address.local), vrf_of(address.ifindex))).or_insert(address.local);
    }
    let mut asked: HashMap<(Family, u32), Asked> = HashMap::new();
    for (index, destination) in case.destinations.iter().enumerate().filter(|(_, left)| left.inside_source.is_none()) {
        let family = Family::of(destination.address);
        if let (Some(tunnel), Some(own)) = (destination.tunnels.first(), own.get(&(family, destination.vrf))) {
            let subject = Subject::Destination { index, variant: Variant::Reverse };
            let question = reverse(destination, *own);
            asked.entry((family, *tunnel)).or_insert(Asked { subject, question });
        }
    }
    let mut asked: Vec<Asked> = asked.into_values().collect();
    asked.sort_by_key(|asked| (asked.question.input_interface, asked.question.destination));
    asked
}
