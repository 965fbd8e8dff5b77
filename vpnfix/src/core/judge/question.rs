//! What the kernel is asked.

use std::net::IpAddr;

use super::known::Known;
use super::{Case, second_way, selected};
use crate::core::control::{self, Outside};
use crate::core::destination::{Class, Destination};
use crate::core::finding::Variant;
use crate::core::model::Question;

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
    /// A packet from behind a destination that comes in by a tunnel which has the second best way there.
    SecondWay {
        /// Index of the destination.
        destination: usize,
        /// Index of the tunnel's device.
        tunnel: u32,
    },
    /// What works outside of tunnels only.
    Outside(Outside),
}

/// TCP's IP protocol number.
pub(super) const TCP: u8 = 6;
/// BGP's TCP port (RFC 4271).
pub(super) const BGP_PORT: u16 = 179;

/// Every question to ask about those of the destinations that are chosen.
#[must_use]
pub fn questions(destinations: &[Destination], chosen: &[bool]) -> Vec<Asked> {
    let all = destinations.iter().enumerate().zip(chosen).filter(|(_, chosen)| **chosen);
    all.flat_map(|((index, destination), _)| {
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
        if let Some(tunnel) = destination.tunnels.first() {
            asked.push((Variant::Reverse, reverse(destination, *tunnel, source)));
        }
    }
    if let Some(tunnel) = destination.tunnels.first() {
        asked.push((Variant::BoundToTunnel, Question { output_interface: Some(*tunnel), ..plain }));
    }
    asked
}

/// A packet of the other side for an own address, coming in by the tunnel: the kernel validates its source on the way.
pub(super) fn reverse(destination: &Destination, tunnel: u32, own: IpAddr) -> Question {
    Question { source: Some(destination.address), input_interface: Some(tunnel), ..Question::plain(own) }
}

/// What to ask beside the destinations: about the traffic that rules for some traffic alone select, about what may enter
/// no tunnel, and about packets that come in where the way back is by another tunnel.
#[must_use]
pub fn further_questions(case: Case<'_>) -> Vec<Asked> {
    let known = Known::new(case);
    let mut asked = selected::questions(&known);
    asked.extend(second_way::questions(&known));
    let outside = control::outside(case.fib, case.tunnels).into_iter();
    asked.extend(
        outside.map(|outside| Asked { question: Question::plain(outside.address), subject: Subject::Outside(outside) }),
    );
    asked
}
