//! What SAs count, how long they last, and the kernel's counters of IPsec's errors.

use std::time::Duration;

use super::check::{Area, Check, CheckId, State};
use super::facts::{Facts, NotKnown};
use super::ipsec::Bound;
use super::{answered, change};
use crate::core::model::{Encapsulation, SaUsage, SecurityAssociation};

/// A daemon replaces an SA between its soft and its hard limit; with less than this left, nobody did.
const LAST_SECONDS: u64 = 30;

/// Bytes and packets of an SA, and their change.
pub(super) fn figures(facts: &Facts<'_>, association: &SecurityAssociation, word: &str) -> String {
    let SecurityAssociation { spi, usage: SaUsage { bytes, packets, .. }, .. } = association;
    let before = earlier(facts, association);
    let more = before.map_or_else(String::new, |before| {
        format!(", {} in {}", change(before.usage.packets, *packets), seconds(facts.measured.window))
    });
    format!("{word} SA {spi:#010x}: {bytes} bytes, {packets} packets{more}")
}

/// The same SA in the first sample.
pub(super) fn earlier<'a>(facts: &Facts<'a>, association: &SecurityAssociation) -> Option<&'a SecurityAssociation> {
    let same = |other: &&SecurityAssociation| {
        (other.spi, other.destination, other.protocol)
            == (association.spi, association.destination, association.protocol)
    };
    facts.measured.before.associations.as_ref().ok()?.iter().find(same)
}

fn seconds(window: Duration) -> String {
    format!("{:.1} s", window.as_secs_f64())
}

/// A time in words, to two units.
pub(super) fn time(seconds: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let mut rest = seconds;
    let mut words = Vec::new();
    for (size, unit) in units {
        if rest >= size && words.len() < 2 {
            words.push(format!("{} {unit}", rest / size));
            rest %= size;
        }
    }
    if words.is_empty() { "0 s".into() } else { words.join(" ") }
}

/// How long the SAs last. What the kernel has beyond its hard limit, it takes away itself.
pub(super) fn lifetime(facts: &Facts<'_>, bound: &Bound<'_>) -> Option<Check> {
    let check = |state, text| Check::new(Area::Ipsec, CheckId::SaLifetime, state, text);
    let age = |association: &SecurityAssociation| facts.measured.machine.now.saturating_sub(association.usage.added);
    let left = |association: &SecurityAssociation| {
        association.hard_limits.seconds_after_adding.map(|limit| limit.saturating_sub(age(association)))
    };
    let both = || [bound.out_sa, bound.in_sa].into_iter().flatten();
    both().next()?;
    let Some(shortest) = both().filter_map(left).min() else {
        return Some(check(State::Ok, "the SAs have no end in time".into()));
    };
    let overdue = both()
        .any(|association| association.soft_limits.seconds_after_adding.is_some_and(|limit| age(association) > limit));
    let text = format!("the SAs last {} more", time(shortest));
    Some(match (shortest, overdue) {
        (0, _) => check(State::Failed, "an SA has reached its hard limit and was not replaced".into())
            .advice("rekeying fails: see the daemon's log; `swanctl --rekey --child NAME` tries it now"),
        (1..=LAST_SECONDS, true) => check(State::Warning, format!("{text}, and no new ones are there"))
            .advice("rekeying is overdue: see the daemon's log"),
        _ => check(State::Ok, text),
    })
}

/// Both directions must be wrapped alike, or neither.
pub(super) fn nat(bound: &Bound<'_>) -> Option<Check> {
    let (out, inward) = (bound.out_sa?, bound.in_sa?);
    let check = |state, text: String| Check::new(Area::Ipsec, CheckId::NatTraversal, state, text);
    let ports =
        |Encapsulation { source_port, destination_port, .. }| format!("UDP {source_port} to {destination_port}");
    Some(match (out.encapsulation, inward.encapsulation) {
        (None, None) => check(State::Ok, "plain ESP, no NAT on the way".into()),
        (Some(out), Some(_)) => check(State::Ok, format!("ESP in {} (NAT traversal)", ports(out))),
        (Some(out), None) => {
            check(State::Warning, format!("out it is ESP in {}, in it is plain ESP", ports(out))).advice(ALIKE)
        }
        (None, Some(inward)) => {
            check(State::Warning, format!("in it is ESP in {}, out it is plain ESP", ports(inward))).advice(ALIKE)
        }
    })
}

const ALIKE: &str = "have the daemon negotiate anew; behind NAT `encap = yes` makes both sides use UDP";

/// Packets that failed the integrity check, and those that came twice or too late, by their change.
pub(super) fn losses(facts: &Facts<'_>, bound: &Bound<'_>) -> Vec<Check> {
    let Some(association) = bound.in_sa else { return Vec::new() };
    let Some(before) = earlier(facts, association) else { return Vec::new() };
    let grown = |before: u32, after: u32| change(before.into(), after.into());
    let failed = grown(before.usage.failed_integrity, association.usage.failed_integrity);
    let late = |association: &SecurityAssociation| {
        u64::from(association.usage.replayed).saturating_add(association.usage.outside_window.into())
    };
    let replayed = change(late(before), late(association));
    let check = |id, state, text: String| Check::new(Area::Ipsec, id, state, text);
    let integrity = if failed > 0 {
        let text = format!("{failed} packets failed the integrity check meanwhile");
        check(CheckId::Integrity, State::Failed, text)
            .advice("the two ends have different ESP keys or algorithms: have them negotiate anew")
    } else {
        check(CheckId::Integrity, State::Ok, "no packet failed the integrity check meanwhile".into())
    };
    let replay = if replayed > 0 {
        let text = format!("{replayed} packets were dropped as repeated or too late meanwhile");
        check(CheckId::Replay, State::Warning, text)
            .advice("a larger window (`replay_window = 128`) helps where the way reorders packets")
    } else {
        check(CheckId::Replay, State::Ok, "no packet was dropped as repeated or late meanwhile".into())
    };
    vec![integrity, replay]
}

/// The symptom of the incident: packets come in by the tunnel, and none ever went out by it. Of SAs that were just made it
/// may be so by chance, unless something was sent meanwhile.
pub(super) fn one_way(facts: &Facts<'_>, bound: &Bound<'_>) -> Option<Check> {
    let (out, _) = (bound.out_sa?, bound.in_sa?);
    let check = |state, text: String| Check::new(Area::Ipsec, CheckId::OneWay, state, text);
    let sent = earlier(facts, out).map_or(0, |before| change(before.usage.packets, out.usage.packets));
    let (out_bytes, in_bytes) = (bound.out_bytes, bound.in_bytes);
    let text = format!("{out_bytes} bytes out, {in_bytes} bytes in");
    let asked = answered(facts, bound.tunnel).is_some();
    Some(match (out_bytes, in_bytes) {
        (0, 1..) => check(
            if asked { State::Failed } else { State::Warning },
            format!("{text}: what should go out does not get here"),
        )
        .advice("something else takes the packets away before the tunnel: `vpnfix diagnose`"),
        (1.., 0) if sent > 0 => check(State::Warning, format!("{text}: nothing comes back"))
            .advice("does the peer answer? Is ESP, or UDP 4500, let in here?"),
        _ => check(State::Ok, text),
    })
}

/// What each of the kernel's counters of IPsec errors means (Documentation/networking/xfrm_proc.rst), and whether its rise
/// alone is a fault: strangers can make some of them rise from outside.
fn meaning(name: &str) -> Option<(&'static str, State)> {
    Some(match name {
        "XfrmInNoStates" => {
            ("packets for an SPI that is not here: an old SA of the peer's, or a stray", State::Warning)
        }
        "XfrmInStateProtoError" => ("packets that could not be decrypted: another key at the far end", State::Failed),
        "XfrmInStateModeError" => ("packets wrapped otherwise than the SA says", State::Failed),
        "XfrmInStateSeqError" => ("packets repeated or too late for the window", State::Warning),
        "XfrmInStateExpired" => ("packets for an SA that has ended", State::Warning),
        "XfrmInStateMismatch" => ("packets whose UDP encapsulation or selector is not the SA's", State::Failed),
        "XfrmInStateInvalid" => ("packets for an SA that is not valid yet or any more", State::Warning),
        "XfrmInTmplMismatch" => ("packets that no policy lets in as they came: mark, if_id or reqid", State::Failed),
        "XfrmInNoPols" => ("decrypted packets for which there is no inbound policy", State::Failed),
        "XfrmInPolBlock" => ("packets that an inbound policy drops", State::Failed),
        "XfrmOutNoStates" => ("packets for which a policy has no SA", State::Failed),
        "XfrmOutPolBlock" => ("packets that an outbound policy drops", State::Failed),
        "XfrmOutStateProtoError" => ("packets that could not be encrypted", State::Failed),
        "XfrmOutStateExpired" => ("packets for an SA that has ended", State::Failed),
        "XfrmOutStateSeqError" => ("packets for an SA whose sequence numbers are used up", State::Failed),
        "XfrmFwdHdrError" => ("packets that may not be forwarded", State::Failed),
        "XfrmAcquireError" => ("packets that waited for an SA in vain", State::Failed),
        _ => return None,
    })
}

/// `/proc/net/xfrm_stat`, by change alone.
pub(super) fn errors(facts: &Facts<'_>) -> Check {
    let check = |state, text: String| Check::new(Area::Ipsec, CheckId::XfrmErrors, state, text);
    let (before, after) = match (&facts.measured.before.xfrm, &facts.measured.after.xfrm) {
        (Ok(before), Ok(after)) => (before, after),
        (Err(NotKnown(why)), _) | (_, Err(NotKnown(why))) => {
            return check(State::Skipped, format!("the kernel's counters of IPsec errors could not be read: {why}"));
        }
    };
    let mut worst = State::Ok;
    let mut told = Vec::new();
    for (name, after) in after {
        // A counter that was not there before was not there to rise.
        let risen = before.get(name).map_or(0, |before| change(*before, *after));
        if risen == 0 {
            continue;
        }
        let (words, state) = meaning(name).unwrap_or(("a counter that vpnfix does not know", State::Warning));
        worst = worst.min(state);
        told.push(format!("{name} +{risen} ({words})"));
    }
    if told.is_empty() {
        return check(
            State::Ok,
            format!("none of its counters of IPsec errors rose in {}", seconds(facts.measured.window)),
        );
    }
    check(worst, told.join("; ")).advice("`ip xfrm monitor` and `nstat -az 'Xfrm*'` show them live")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_two_units() {
        assert_eq!([0, 59, 60, 3661, 90_061].map(time), ["0 s", "59 s", "1 min", "1 h 1 min", "1 d 1 h"]);
    }
}
