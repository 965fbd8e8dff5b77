//! Which failed check comes first: the one that makes the others fail.

use super::check::{Check, CheckId, State};
use crate::core::finding::Reason;

/// Failed ones first, by cause; then warnings; then what is right and what was skipped, area by area.
pub(super) fn sorted(mut checks: Vec<Check>) -> Vec<Check> {
    // The sort is stable: checks of one kind keep the order of the tunnels, causes that of their weight.
    checks.sort_by_key(|check| match check.state {
        State::Failed => (0, rank(check), check.area),
        State::Warning => (1, rank(check), check.area),
        State::Ok | State::Skipped => (2, 0, check.area),
    });
    link(&mut checks);
    checks
}

/// Place in the chain of causes.
fn rank(check: &Check) -> u32 {
    let of = |id: CheckId| id as u32 * 2;
    let by_validation =
        check.id == CheckId::Destinations && check.subject.as_deref() == Some(Reason::ReversePath.name());
    if by_validation { of(CheckId::RpFilter) + 1 } else { of(check.id) }
}

/// Can this be the consequence of another failure?
fn is_symptom(check: &Check) -> bool {
    match check.id {
        CheckId::CarrierErrors
        | CheckId::XfrmErrors
        | CheckId::OneWay
        | CheckId::Egress
        | CheckId::PeerAnswers
        | CheckId::PathMtu
        | CheckId::BgpPort
        | CheckId::BgpSession => true,
        // The routes of a tunnel that is down, or that shares its prefix, go elsewhere for that reason.
        CheckId::Destinations => {
            let of = |reason: Reason| check.subject.as_deref() == Some(reason.name());
            [Reason::TunnelDown, Reason::TunnelWithoutCarrier, Reason::DuplicateInside, Reason::ReversePath]
                .into_iter()
                .any(of)
        }
        CheckId::OutboundSa | CheckId::InboundSa => true,
        _ => false,
    }
}

/// Names for each failed symptom the first failed check that concerns the same tunnel.
fn link(checks: &mut [Check]) {
    let failed: Vec<Check> = checks.iter().filter(|check| check.state == State::Failed).cloned().collect();
    for check in checks.iter_mut().filter(|check| check.state == State::Failed && is_symptom(check)) {
        let before = failed.iter().filter(|cause| rank(cause) < rank(check));
        let same = |cause: &&Check| {
            cause.tunnels.is_empty()
                || check.tunnels.is_empty()
                || cause.tunnels.iter().any(|tunnel| check.tunnels.contains(tunnel))
        };
        let cause =
            before.filter(same).find(|cause| !(cause.id == CheckId::OutboundSa && check.id == CheckId::InboundSa));
        check.consequence_of = cause.map(Check::label);
    }
}
