//! The first page: seven questions, answered from what a bundle holds.

use super::{Cost, Fact, Told, Tone, Topic};
use crate::core::bundle::state::BgpState;
use crate::core::bundle::timeline::{MarkKind, Side, Timeline};
use crate::core::confirm::{Confirmation, RungState};
use crate::core::finding::{Confidence, Finding, NoteId};
use crate::core::live::Standing;
use crate::core::report::Outcome;
use crate::core::report::cause;
use crate::core::report::diagnose::{DiagnoseReport, HostVerdict};
use crate::core::report::fix::FixReport;
use crate::core::report::trace::Summary;

/// More findings are counted only; the evidence has all.
const MOST_FINDINGS: usize = 6;
/// What was on its way at the change has left after this, milliseconds.
const SETTLING_MS: u64 = 200;

/// What is known of an incident.
pub(super) struct Known<'a> {
    pub(super) complete: bool,
    pub(super) began: &'a str,
    pub(super) before: Option<&'a DiagnoseReport>,
    pub(super) after: Option<&'a DiagnoseReport>,
    pub(super) bgp: [Option<&'a BgpState>; 2],
    pub(super) trace: Option<&'a Summary>,
    pub(super) timeline: Option<&'a Timeline>,
    pub(super) fix: Option<&'a FixReport>,
    pub(super) cost: &'a Cost,
    pub(super) findings: &'a [Finding],
}

impl Known<'_> {
    fn is_right_now(&self) -> bool {
        self.after.is_some_and(|after| after.verdict == HostVerdict::Healthy)
    }

    /// What there is to say where nothing was found.
    fn nothing(&self) -> Told {
        match self.before {
            Some(_) => Told::new(Tone::Plain, "Nothing that vpnfix finds was wrong."),
            None => Told::new(Tone::Doubtful, "It was not looked at."),
        }
    }

    fn was_changed(&self) -> bool {
        self.fix.is_some_and(|fix| !fix.applied.is_empty())
    }
}

/// The whole in one sentence.
pub(super) fn headline(known: &Known<'_>) -> Told {
    let count = known.findings.len();
    let were = plural(count, "destination was led astray", "destinations were led astray");
    let told = match (known.fix.map(|fix| fix.outcome), known.after) {
        (Some(Outcome::Ok), _) if known.was_changed() => {
            Told::new(Tone::Good, format!("Repaired, and confirmed on live packets: {were}, and now go by the tunnel"))
        }
        (Some(Outcome::RolledBack), _) => {
            Told::new(Tone::Bad, format!("Not repaired: {were}; the change was taken back, the host is as it was"))
        }
        (Some(_), _) if known.was_changed() => {
            Told::new(Tone::Doubtful, format!("Changed, but not all is confirmed: {were}"))
        }
        (_, Some(after)) => match (count, after.verdict) {
            (0, HostVerdict::Healthy) => Told::new(Tone::Good, "Every destination goes into its tunnel"),
            (_, HostVerdict::Healthy) => Told::new(Tone::Good, format!("Right now; before, {were}")),
            (_, HostVerdict::Misrouted) => {
                let count = after.findings.len();
                Told::new(Tone::Bad, plural(count, "destination is led astray", "destinations are led astray"))
            }
            (_, HostVerdict::Unknown) => Told::new(Tone::Doubtful, "Nothing to judge: no tunnel has a destination"),
        },
        (_, None) => match (count, known.before.map(|before| before.verdict)) {
            (0, Some(HostVerdict::Healthy)) => Told::new(Tone::Good, "Every destination goes into its tunnel"),
            (0, _) => Told::new(Tone::Doubtful, "It is not known whether anything is wrong"),
            _ => Told::new(Tone::Bad, plural(count, "destination is led astray", "destinations are led astray")),
        },
    };
    if known.complete {
        return told;
    }
    Told::new(Tone::Doubtful, format!("This capture was interrupted, and is not whole. {}", told.text))
}

/// The seven questions.
pub(super) fn page(known: &Known<'_>) -> Vec<Fact> {
    vec![
        Fact { topic: Topic::Wrong, lines: wrong(known) },
        Fact { topic: Topic::Since, lines: since(known) },
        Fact { topic: Topic::Cost, lines: cost(known) },
        Fact { topic: Topic::Why, lines: why(known) },
        Fact { topic: Topic::Changed, lines: changed(known) },
        Fact { topic: Topic::Proof, lines: proof(known) },
        Fact { topic: Topic::Remains, lines: remains(known) },
    ]
}

fn wrong(known: &Known<'_>) -> Vec<Told> {
    let Some(first) = known.findings.first() else {
        return vec![known.nothing()];
    };
    let mut lines: Vec<Told> = match known.before.map(|before| before.causes.as_slice()) {
        Some(causes) if !causes.is_empty() => {
            causes.iter().map(|cause| Told::new(Tone::Bad, sentence(&cause.sentence))).collect()
        }
        _ => vec![Told::new(Tone::Bad, sentence(&cause::sentence(first, known.findings.len())))],
    };
    lines.extend(known.findings.iter().take(MOST_FINDINGS).map(|finding| Told::new(Tone::Plain, one(finding))));
    let more = known.findings.len().saturating_sub(MOST_FINDINGS);
    lines.extend((more > 0).then(|| Told::new(Tone::Plain, format!("… and {more} more"))));
    lines
}

fn one(finding: &Finding) -> String {
    let way = match (&finding.actual.device, &finding.actual.error) {
        (Some(device), _) if finding.reason.is_wrong_way() => format!("left by {device}, in the clear"),
        (None, Some(error)) => format!("was refused: {error}"),
        _ => finding.detail.clone().unwrap_or_else(|| finding.reason.name().into()),
    };
    format!("{} belongs to {}, and {way}", finding.prefix, finding.expected.device)
}

fn since(known: &Known<'_>) -> Vec<Told> {
    if known.findings.is_empty() {
        return vec![known.nothing()];
    }
    let mut lines =
        vec![Told::new(Tone::Plain, format!("It was so when vpnfix first looked, at {}.", clock(known.began)))];
    if let Some(trace) = known.trace {
        let wrong = |standing| standing == Standing::Wrong;
        let packets = trace.packets.iter().filter(|count| wrong(count.standing)).map(|count| count.first.as_str());
        let lookups = trace.lookups.iter().filter(|count| wrong(count.standing)).map(|count| count.first.as_str());
        let first = packets.min().map(|time| ("packet was seen to leave by the wrong device", time));
        let first = first.or(lookups.min().map(|time| ("lookup was seen to end at the wrong device", time)));
        let told = first.map(|(what, time)| Told::new(Tone::Plain, format!("The first {what} at {}.", clock(time))));
        lines.extend(told);
    }
    lines.push(Told::new(Tone::Plain, "When it began the kernel does not tell: rules and routes carry no time."));
    lines
}

fn cost(known: &Known<'_>) -> Vec<Told> {
    let cost = known.cost;
    let mut lines = Vec::new();
    match cost.watched_seconds {
        None => lines.push(Told::new(Tone::Doubtful, "No packets were watched.")),
        Some(seconds) => {
            let tone = if cost.packets > 0 { Tone::Bad } else { Tone::Plain };
            let least = if cost.at_least { "at least " } else { "" };
            let by = if cost.devices.is_empty() { String::new() } else { format!(" by {}", cost.devices.join(", ")) };
            let packets = plural_number(cost.packets, "packet", "packets");
            let text = match cost.packets {
                0 => format!("No packet was seen to leave in the clear in the {seconds:.1} s that were watched."),
                _ => format!(
                    "{least}{packets} ({} bytes) left in the clear{by} in the {seconds:.1} s that were watched.",
                    cost.bytes
                ),
            };
            lines.push(Told::new(tone, sentence(&text)));
        }
    }
    if let Some(timeline) = known.timeline {
        lines.extend(timeline.peers().into_iter().filter_map(|peer| downtime(timeline, peer)));
    }
    lines.extend(sessions(known));
    lines
}

fn downtime(timeline: &Timeline, peer: &str) -> Option<Told> {
    let (down, up) = timeline.downtime(peer)?;
    let of = std::time::Duration::from_millis(timeline.length_ms).as_secs_f64();
    let seconds = std::time::Duration::from_millis(down).as_secs_f64();
    let text = match (down, up) {
        (0, true) => return None,
        (_, true) => format!("BGP with {peer} was down for {seconds:.1} of the {of:.1} s watched, and came up."),
        (_, false) => format!("BGP with {peer} was down for {seconds:.1} of the {of:.1} s watched, and still is."),
    };
    Some(Told::new(if up { Tone::Plain } else { Tone::Bad }, text))
}

/// BGP's state by its daemon's word, before and after.
fn sessions(known: &Known<'_>) -> Vec<Told> {
    let [before, after] = known.bgp;
    let Some(now) = after.or(before) else { return Vec::new() };
    let was = |address| before?.neighbours.iter().find(|neighbour| neighbour.address == address);
    let told = |neighbour: &crate::core::verify::Neighbour| {
        let (address, state) = (neighbour.address, neighbour.state);
        let up = state == crate::core::verify::BgpState::Established;
        let text = match was(address).map(|was| was.state).filter(|was| after.is_some() && *was != state) {
            Some(was) => format!("BGP with {address} was {was:?} at the beginning and is {state:?} at the end."),
            None => format!("BGP with {address} is {state:?}."),
        };
        Told::new(if up { Tone::Good } else { Tone::Bad }, text)
    };
    now.neighbours.iter().take(MOST_FINDINGS).map(told).collect()
}

fn why(known: &Known<'_>) -> Vec<Told> {
    let mut lines: Vec<Told> = Vec::new();
    for finding in known.findings {
        let mut told = Vec::new();
        if let Some(rule) = &finding.rule {
            told.push(Told::command("Rule", format!("{}: {}", rule.priority, rule.text)));
        }
        if let (Some(route), Some(table)) = (&finding.actual.route, finding.actual.table) {
            let by = finding.actual.device.as_ref().map_or_else(String::new, |device| format!(" dev {device}"));
            let via = finding.actual.gateway.map_or_else(String::new, |gateway| format!(" via {gateway}"));
            let protocol = finding.actual.route_protocol.as_deref().unwrap_or("unknown");
            told.push(Told::command("Route", format!("table {table}: {route}{via}{by} proto {protocol}")));
        }
        if finding.owner.confidence != Confidence::Unknown {
            let sure = match finding.owner.confidence {
                Confidence::Certain => "certain",
                Confidence::Likely => "likely",
                _ => "possible",
            };
            let evidence = finding.owner.evidence.join("; ");
            told.push(Told::new(Tone::Plain, format!("Whose: {} ({sure}: {evidence})", finding.owner.name)));
        }
        told.extend(finding.detail.iter().map(|detail| Told::new(Tone::Plain, sentence(detail))));
        lines.extend(told.into_iter().filter(|told| !lines.contains(told)).collect::<Vec<_>>());
    }
    if known.findings.iter().any(|finding| finding.right_when_bound) {
        let text = "Bound to the tunnel's device it goes right, so `ping -I` hides this.";
        lines.push(Told::new(Tone::Plain, text));
    }
    if lines.is_empty() {
        lines.push(known.nothing());
    }
    lines
}

fn changed(known: &Known<'_>) -> Vec<Told> {
    let Some(fix) = known.fix else { return vec![Told::new(Tone::Plain, "Nothing, by vpnfix.")] };
    if fix.applied.is_empty() && fix.rollback.is_none() {
        return vec![Told::new(Tone::Plain, "Nothing: there was nothing to do, or nothing that could be done.")];
    }
    let mut lines: Vec<Told> = Vec::new();
    for (index, command) in fix.applied.iter().enumerate() {
        let at = fix.applied_at.get(index).map_or_else(|| "Added".into(), |time| format!("Added at {}", clock(time)));
        lines.push(Told::command(at, command.clone()));
    }
    if let Some(rollback) = &fix.rollback {
        let tone = if rollback.complete { Tone::Doubtful } else { Tone::Bad };
        lines.push(Told::new(tone, "It was taken back again, because the kernel answered otherwise than planned."));
        lines.extend(rollback.differences.iter().map(|difference| {
            let text = format!("{}: expected {}, found {}", difference.name, difference.expected, difference.found);
            Told::new(Tone::Bad, text)
        }));
        lines.extend(rollback.left.iter().map(|left| Told::new(Tone::Bad, format!("Still there: {left}"))));
    } else {
        lines.push(Told::command("To take it back", "vpnfix undo"));
    }
    lines
}

fn proof(known: &Known<'_>) -> Vec<Told> {
    let mut lines = Vec::new();
    if let Some(after) = known.after {
        let right = after.destinations.iter().filter(|destination| destination.right).count();
        let all = after.destinations.len();
        let tone = if known.is_right_now() { Tone::Good } else { Tone::Bad };
        lines.push(Told::new(
            tone,
            format!("The kernel was asked again at the end: {right} of {all} destinations go right."),
        ));
    }
    if let Some(fix) = known.fix.filter(|fix| fix.rollback.is_none()) {
        lines.extend(fix.confirmations.iter().map(rungs));
    }
    lines.extend(known.timeline.and_then(since_change));
    if lines.is_empty() {
        lines.push(Told::new(Tone::Plain, "None was taken: this is one state, not a comparison."));
    }
    lines
}

fn rungs(confirmation: &Confirmation) -> Told {
    let asked = confirmation.rungs.iter().filter(|rung| rung.state != RungState::NotApplicable);
    let confirmed = confirmation.rungs.iter().filter(|rung| rung.state == RungState::Confirmed).count();
    let tone = if confirmation.confirmed() { Tone::Good } else { Tone::Doubtful };
    let state = if confirmation.confirmed() { "confirmed" } else { "not confirmed" };
    let via = confirmation.tunnels.join(" and ");
    let all = asked.count();
    Told::new(tone, format!("{} by {via}: {state}, {confirmed} of {all} rungs of the ladder.", confirmation.prefix))
}

/// What left by which side once the change had settled.
fn since_change(timeline: &Timeline) -> Option<Told> {
    let changed = timeline.marks.iter().rfind(|mark| mark.what == MarkKind::RuleAdded)?.at_ms;
    // A step counts whose beginning lies behind the change: what left before is not its concern.
    let begins = std::iter::once(0).chain(timeline.samples.iter().map(|sample| sample.at_ms));
    let settled = changed.saturating_add(SETTLING_MS);
    let later = timeline.samples.iter().zip(begins).filter(|(_, begin)| *begin >= settled);
    let (mut right, mut wrong) = (0_u64, 0_u64);
    for egress in later.flat_map(|(sample, _)| &sample.egress) {
        match egress.side {
            Side::Right => right = right.saturating_add(egress.packets),
            Side::Misrouted => wrong = wrong.saturating_add(egress.packets),
        }
    }
    let tone = match (right, wrong) {
        (_, 1..) => Tone::Bad,
        (0, 0) => Tone::Doubtful,
        (1.., 0) => Tone::Good,
    };
    let text =
        format!("Once the change had settled, {right} packets were seen to leave by the tunnels, {wrong} elsewhere.");
    Some(Told::new(tone, text))
}

fn remains(known: &Known<'_>) -> Vec<Told> {
    let mut lines = Vec::new();
    let left = match (known.after, known.fix) {
        (Some(after), _) => after.findings.as_slice(),
        (None, Some(fix)) => fix.remaining.as_slice(),
        (None, None) => known.findings,
    };
    lines.extend(left.iter().take(MOST_FINDINGS).map(|finding| {
        let advice = finding.advice.as_ref().map_or_else(String::new, |advice| format!(": {advice}"));
        Told::new(Tone::Bad, format!("{} of {} is still wrong{advice}", finding.prefix, finding.expected.device))
    }));
    if known.fix.is_none() && !left.is_empty() {
        lines.push(Told::command("The plan that would repair it", "vpnfix fix --dry-run"));
    }
    let stands = known.fix.is_some_and(|fix| !fix.applied.is_empty() && fix.rollback.is_none());
    let notes = known.after.or(known.before).map_or(&[][..], |report| report.notes.as_slice());
    let kept = |id: NoteId| matches!(id, NoteId::NotPersisted | NoteId::PersistedDiffers | NoteId::DroppedByNetworkd);
    lines.extend(notes.iter().filter(|note| kept(note.id)).map(|note| Told::new(Tone::Doubtful, sentence(&note.text))));
    if stands {
        lines.push(Told::command("The rules last until the next reboot, unless they are kept", "vpnfix persist"));
    }
    let cures = known.fix.map(|fix| &fix.cure).or(known.before.map(|before| &before.cure));
    for cure in cures.into_iter().flatten() {
        lines.push(Told::command(format!("The cure at the root: {}, in {}", cure.what, cure.place), cure.how.clone()));
    }
    if lines.is_empty() {
        let is_known = known.before.is_some() || known.after.is_some() || known.fix.is_some();
        lines.push(if is_known {
            Told::new(Tone::Good, "Nothing.")
        } else {
            Told::new(Tone::Doubtful, "It is not known.")
        });
    }
    lines
}

/// A text as a sentence: with a capital, and a full stop at its end.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().collect::<String>()).unwrap_or_default();
    let text = first + letters.as_str();
    if text.ends_with(['.', '!', '?', ':']) { text } else { text + "." }
}

/// A time of RFC 3339 as people read it: `2026-11-27 23:05:26.123 UTC`.
#[must_use]
pub fn clock(time: &str) -> String {
    let Some((date, rest)) = time.trim_end_matches('Z').split_once('T') else { return time.into() };
    let short = rest.split_once('.').map_or(rest.to_string(), |(whole, fraction)| {
        format!("{whole}.{}", fraction.chars().take(3).collect::<String>())
    });
    format!("{date} {short} UTC")
}

fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn plural_number(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
