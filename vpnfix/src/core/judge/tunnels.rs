//! What is wrong with a tunnel itself, whatever the routes say.

use std::collections::{HashMap, HashSet};

use super::cause::{Cause, duplicate};
use super::known::Known;
use super::{About, finding};
use crate::core::destination::{Class, Destination};
use crate::core::finding::{Finding, Reason};
use crate::core::tunnel::Tunnel;

/// Tunnels without carrier, and inside prefixes that two tunnels have. `found` are the findings so far: a duplicate that
/// the kernel's answer showed is not told again.
pub(super) fn findings(known: &Known<'_>, found: &[Finding]) -> Vec<Finding> {
    let mut findings = without_carrier(known);
    let of = |finding: &Finding| (finding.tunnel.clone(), finding.prefix);
    let told: HashSet<_> = found.iter().filter(|finding| finding.reason == Reason::DuplicateInside).map(of).collect();
    findings.extend(duplicates(known).into_iter().filter(|finding| !told.contains(&of(finding))));
    findings
}

/// What is said of a tunnel is said of the first destination that it has.
fn without_carrier(known: &Known<'_>) -> Vec<Finding> {
    let mut firsts: HashMap<u32, &Destination> = HashMap::new();
    for destination in known.case.destinations {
        for tunnel in &destination.tunnels {
            firsts.entry(*tunnel).or_insert(destination);
        }
    }
    let of = |tunnel: &Tunnel| {
        let link = known.case.fib.link(tunnel.ifindex)?;
        let first = firsts.get(&tunnel.ifindex).filter(|_| tunnel.up && !link.carrier)?;
        let cause = Cause::of(Reason::TunnelWithoutCarrier)
            .detail(format!("{} is up and has no carrier: what is sent into it is lost", tunnel.name))
            .advice("look at what the interface rests on: its lower device, or the program that holds it open");
        let about = About { tunnel: tunnel.name.clone(), ..About::destination(known, first) };
        Some(finding(known, about, cause, None))
    };
    known.case.tunnels.iter().filter_map(of).collect()
}

/// All tunnels but the first of each inside prefix.
fn duplicates(known: &Known<'_>) -> Vec<Finding> {
    let mut firsts: HashMap<_, u32> = HashMap::new();
    let mut findings = Vec::new();
    for destination in known.case.destinations.iter().filter(|destination| destination.class == Class::Inside) {
        let Some(own) = destination.tunnels.first() else { continue };
        let first = *firsts.entry((destination.prefix, destination.table)).or_insert(*own);
        if first != *own {
            let cause = duplicate(destination, &known.name(first));
            let about = About::destination(known, destination);
            findings.push(finding(known, about, cause, None));
        }
    }
    findings
}
