//! The story of a flow as a paragraph.

use std::fmt::Write as _;

use super::trace::{clock, flow_words, tcp_state};
use super::{Palette, counted, short_table_name};
use crate::core::live::Standing;
use crate::core::origin::Purpose;
use crate::core::report::explain::Did;
use crate::core::report::flow::{
    Encryption, Fate, Sender, StoryAnswer, StoryDrop, StoryEgress, StoryLine, StoryLookup, StoryReport,
};
use crate::core::report::trace::LookupResult;

/// A story told when it has settled, or told again.
pub(super) fn line(line: &StoryLine, palette: Palette) -> String {
    let mut out = String::new();
    let again = if line.changed.is_empty() { "" } else { ", told again" };
    let _ = writeln!(out, "{}  story    {}{again}", clock(&line.time), heading(&line.story, palette));
    for changed in &line.changed {
        let _ = writeln!(out, "    {:<11} {}", "changed", palette.strong(changed));
    }
    out + &body(&line.story, palette)
}

/// A story as it stands at the end.
pub(super) fn standing(story: &StoryReport, palette: Palette) -> String {
    format!("{}\n{}", heading(story, palette), body(story, palette))
}

/// Which flow, and what it came to.
fn heading(story: &StoryReport, palette: Palette) -> String {
    let fate = match story.fate {
        Fate::Misrouted => palette.bad("MISROUTED"),
        Fate::Dropped => palette.bad("DROPPED"),
        Fate::Refused => palette.bad("REFUSED"),
        Fate::Unanswered => palette.doubtful("no answer"),
        Fate::Right => palette.good("right"),
        Fate::NotJudged => palette.faint("not judged"),
    };
    let netns = story.netns_name.as_ref().map_or_else(String::new, |name| format!("  in {name}"));
    let probe = if story.probe { "  vpnfix's own probe" } else { "" };
    format!("{}  {fate}{netns}{probe}", palette.strong(flow_words(&story.flow)))
}

/// What a person wants to know, in the order in which it happened.
#[must_use]
pub fn body(story: &StoryReport, palette: Palette) -> String {
    let mut out = String::new();
    let mut tell = |what: &str, told: String| {
        let _ = writeln!(out, "    {what:<11} {told}");
    };
    tell("sent by", sender(&story.sender));
    if !story.tunnels.is_empty() {
        tell("belongs to", format!("{} ({})", story.tunnels.join(" and "), story.prefix));
    }
    for lookup in story.lookups.iter().filter(|lookup| lookup.standing != Standing::Step) {
        tell("looked up", self::lookup(lookup, palette));
    }
    if let Some(rule) = &story.rule {
        let owner = story.owner.as_ref().map_or_else(String::new, |owner| format!(", most likely {owner}'s"));
        tell("by rule", format!("`{rule}`{owner}"));
    }
    for step in &story.walk {
        tell("walk", walk_step(&step.rule, step.priority, &step.did, step.decided));
    }
    if story.walk_agrees == Some(false) {
        tell("", palette.doubtful("the kernel decided otherwise than these rules and routes say"));
    }
    if let Some(source) = story.flow.source {
        let of = story.source_device.as_ref().map_or_else(String::new, |device| format!(", an address of {device}"));
        tell("source", format!("{source}{of}"));
    }
    for egress in &story.egress {
        tell("left by", self::egress(egress, &story.tunnels, palette));
    }
    for drop in &story.drops {
        tell("dropped", dropped(drop, palette));
    }
    if story.retransmissions > 0 {
        tell("sent again", format!("{} by TCP", counted(story.retransmissions, "segment")));
    }
    if !story.tcp.is_empty() {
        let mut states: Vec<&str> = story.tcp.first().map(|first| tcp_state(first.old)).into_iter().collect();
        states.extend(story.tcp.iter().map(|state| tcp_state(state.new)));
        tell("tcp", states.join(" -> "));
    }
    tell("answered", answered(&story.answers));
    out
}

fn sender(sender: &Sender) -> String {
    match sender {
        Sender::Process(task) => format!("{} (process {})", task.name, task.pid),
        Sender::Forwarded { device } => format!("another host: it came in by {device} and is forwarded"),
        Sender::Softirq => "not known: the kernel sent it by itself, from a timer or as an answer (softirq)".into(),
        Sender::Unknown => "not known".into(),
    }
}

fn purpose(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Output => "to send",
        Purpose::Input => "for a packet that came in",
        Purpose::SourceValidation => "to check where an answer may come from (source validation)",
        Purpose::IcmpReply => "for an ICMP message of the kernel's",
        Purpose::RouteQuery => "for somebody who asked (`ip route get`)",
        Purpose::NotProvable => "for the kernel itself; for what is not provable",
    }
}

fn lookup(lookup: &StoryLookup, palette: Palette) -> String {
    let found = match (lookup.outcome, &lookup.device) {
        (LookupResult::Hit, Some(device)) => format!("dev {device}"),
        (LookupResult::Hit, None) => "a route without a device".into(),
        (LookupResult::Miss, _) => "no route".into(),
        (LookupResult::Refused, _) => palette.bad(format!("refused (errno {})", lookup.errno.unwrap_or(0))),
    };
    let standing = match lookup.standing {
        Standing::Wrong => palette.bad("  WRONG"),
        Standing::Provisional => palette.doubtful("  may have been discarded"),
        _ => String::new(),
    };
    format!(
        "table {}: {found}, {}, {}{standing}",
        short_table_name(lookup.table),
        counted(lookup.count, "time"),
        purpose(lookup.purpose)
    )
}

fn walk_step(rule: &str, priority: u32, did: &Did, decided: bool) -> String {
    let mark = if decided { "  <- this decides" } else { "" };
    format!("{priority}: {rule}: {}{mark}", super::explain::did(did))
}

fn egress(egress: &StoryEgress, tunnels: &[String], palette: Palette) -> String {
    let amount = format!("{}, {} bytes", counted(egress.packets, "packet"), egress.bytes);
    let how = match (&egress.encryption, egress.standing) {
        (Some(Encryption::By { spi, source, destination, packets, bytes }), _) => format!(
            "; encrypted by SA {spi:#010x} from {source} to {destination}, which took {} ({bytes} bytes) meanwhile",
            counted(*packets, "packet")
        ),
        (Some(Encryption::None), _) => palette.bad("; no security association fits it: the kernel drops them"),
        (None, Standing::Wrong) => palette.bad(format!("; IN THE CLEAR, they belong to {}", tunnels.join(" and "))),
        (None, Standing::Bound) => "; the sender chose the device".into(),
        (None, _) => String::new(),
    };
    format!("{}: {amount}{how}", egress.device)
}

fn dropped(drop: &StoryDrop, palette: Palette) -> String {
    let what = if drop.incoming { "answer" } else { "packet" };
    let reason = match &drop.reason {
        Some(reason) => match meaning(reason) {
            Some(meaning) => format!("{reason} ({meaning})"),
            None => reason.clone(),
        },
        None => "no reason given by this kernel".into(),
    };
    let place =
        drop.function.as_ref().map_or_else(|| ", in a function that is not known".into(), |f| format!(", in {f}"));
    let device = drop.device.as_ref().map_or_else(String::new, |device| format!(", at {device}"));
    palette.bad(format!("{}: {reason}{place}{device}", counted(drop.packets, what)))
}

/// The kernel's reasons that a VPN's packets meet, in words (`include/net/dropreason-core.h`).
fn meaning(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "IP_RPFILTER" => "source validation: the way back is not the way it came in, see rp_filter",
        "IP_OUTNOROUTES" => "there is no route to the destination",
        "IP_INNOROUTES" => "there is no route for a packet that came in",
        "IP_INADDRERRORS" => "not for this host, which may not forward it",
        "XFRM_POLICY" => "no IPsec policy lets it pass",
        "NETFILTER_DROP" => "a firewall rule",
        "NO_SOCKET" => "nobody listens there",
        "TCP_RESET" => "the connection was reset",
        "NEIGH_FAILED" | "NEIGH_QUEUEFULL" | "NEIGH_CREATEFAIL" => "the next hop's hardware address is not known",
        "PKT_TOO_BIG" => "larger than the way allows",
        "NOT_SPECIFIED" => "the kernel names none; the function says where",
        "DEV_READY" => "the device is not up",
        "RECURSION_LIMIT" => "a tunnel routed into itself",
        _ => return None,
    })
}

fn answered(answers: &[StoryAnswer]) -> String {
    if answers.is_empty() {
        return "no packet came back".into();
    }
    let by = |answer: &StoryAnswer| {
        format!("{}, {} bytes, by {}", counted(answer.packets, "packet"), answer.bytes, answer.device)
    };
    answers.iter().map(by).collect::<Vec<_>>().join("; ")
}
