//! `trace` as lines of text.

use std::fmt::Write as _;

use super::{Palette, counted, short_table_name, story};
use crate::core::live::{Standing, Verdict};
use crate::core::observation::{LookupKind, Losses, TcpState};
use crate::core::report::trace::{
    CommandReport, EgressLine, FlowReport, LookupLine, LookupResult, Start, Summary, TcpLine, TraceLine, VerdictLine,
};

/// One line as a person reads it; the summary is several.
#[must_use]
pub fn text(line: &TraceLine, palette: Palette) -> String {
    let text = match line {
        TraceLine::Start(start) => self::start(start, palette),
        TraceLine::Lookup(lookup) => self::lookup(lookup, palette),
        TraceLine::Egress(egress) => self::egress(egress, palette),
        TraceLine::Tcp(tcp) => self::tcp(tcp, palette),
        TraceLine::Verdict(verdict) => self::verdict(verdict, palette),
        TraceLine::Story(line) => story::line(line, palette),
        TraceLine::Summary(summary) => self::summary(summary, palette),
    };
    // Where there is nothing to remark, the columns end early.
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn start(start: &Start, palette: Palette) -> String {
    let mut out = String::new();
    let attached: Vec<&str> = start.hooks.iter().filter(|hook| hook.attached).map(|hook| hook.name.as_str()).collect();
    let _ = writeln!(out, "{}", palette.faint(format!("attached: {}", attached.join(", "))));
    for hook in start.hooks.iter().filter(|hook| !hook.attached || hook.why.is_some()) {
        let state = if hook.attached { "reduced" } else { "not attached" };
        let why = hook.why.as_deref().unwrap_or("unknown");
        let _ = writeln!(out, "{}", palette.faint(format!("{state}: {} ({why})", hook.name)));
    }
    let judged = start.watched.iter().filter(|watched| !watched.tunnels.is_empty());
    let told: Vec<String> =
        judged.map(|watched| format!("{} of {}", watched.prefix, watched.tunnels.join(" and "))).collect();
    let _ = writeln!(out, "watching {}", if told.is_empty() { "everything".into() } else { told.join(", ") });
    out
}

/// `09:34:02.578943` of a time in RFC 3339.
pub(super) fn clock(time: &str) -> &str {
    time.split_once('T').map_or(time, |(_, rest)| rest.trim_end_matches('Z'))
}

/// A flow in a few words: `tcp 10.0.0.1:40000 -> 10.0.0.2:179`.
#[must_use]
pub fn flow_words(flow: &FlowReport) -> String {
    let end = |address: &str, port: u16| match (port, address.contains(':')) {
        (0, _) => address.to_string(),
        (port, false) => format!("{address}:{port}"),
        (port, true) => format!("[{address}]:{port}"),
    };
    let protocol = match flow.protocol {
        0 => String::new(),
        1 => "icmp ".into(),
        6 => "tcp ".into(),
        17 => "udp ".into(),
        58 => "icmpv6 ".into(),
        number => format!("proto {number} "),
    };
    let source = flow.source.map_or_else(|| "*".to_string(), |source| source.to_string());
    format!(
        "{protocol}{} -> {}",
        end(&source, flow.source_port),
        end(&flow.destination.to_string(), flow.destination_port)
    )
}

fn marks(standing: Standing, traits: Traits, kind: Option<LookupKind>, palette: Palette) -> String {
    let mut words = Vec::new();
    words.push(match standing {
        Standing::Right => palette.good("right"),
        Standing::Wrong => palette.bad("WRONG"),
        Standing::Step => palette.faint("step"),
        Standing::Provisional => palette.doubtful("provisional"),
        Standing::Bound => palette.faint("bound"),
        Standing::Internal => palette.faint("source validation"),
        Standing::NamespaceUnknown => palette.faint("namespace unknown"),
        Standing::OtherNamespace => palette.faint("another namespace"),
        Standing::Unjudged => String::new(),
    });
    if traits.bgp {
        words.push("bgp".into());
    }
    if traits.bound && standing != Standing::Bound {
        words.push("bound".into());
    }
    if traits.probe {
        words.push("probe".into());
    }
    if kind == Some(LookupKind::Input) {
        words.push("incoming".into());
    }
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

/// What sets a flow apart.
#[derive(Clone, Copy)]
struct Traits {
    bgp: bool,
    bound: bool,
    probe: bool,
}

/// A lookup that cannot be told whose it is says nothing to a person; the summary counts them, and JSON has them all.
fn lookup(line: &LookupLine, palette: Palette) -> String {
    if line.standing == Standing::NamespaceUnknown {
        return String::new();
    }
    let found = match (line.outcome, &line.device) {
        (LookupResult::Hit, Some(device)) => {
            let via = line.gateway.map_or_else(String::new, |gateway| format!(" via {gateway}"));
            format!("dev {device}{via}")
        }
        (LookupResult::Hit, None) => "a route without a device".into(),
        (LookupResult::Miss, _) => "no route".into(),
        (LookupResult::Refused, _) => format!("refused (errno {})", line.errno.unwrap_or(0)),
    };
    let before = line.before.as_ref().map_or_else(String::new, |before| {
        format!(" (was {}, {})", short_table_name(before.table), before.device.as_deref().unwrap_or("no device"))
    });
    let told = format!("table {}: {found}{before}", short_table_name(line.table));
    let traits = Traits { bgp: line.bgp, bound: line.bound, probe: line.probe };
    columns(
        &line.time,
        "lookup",
        &line.flow,
        &told,
        &format!(
            "{}  {}{}",
            marks(line.standing, traits, Some(line.kind), palette),
            palette.faint(format!("[{} {}]", line.task.name, line.task.pid)),
            namespace(line.netns_name.as_deref(), palette),
        ),
    )
}

/// The columns of an event: time, kind, flow, what was told of it, what it means.
fn columns(time: &str, kind: &str, flow: &FlowReport, told: &str, means: &str) -> String {
    format!("{}  {kind:<7}  {:<FLOW_COLUMN$}  {told:<TOLD_COLUMN$}  {means}\n", clock(time), flow_words(flow))
}

/// Two IPv4 addresses with ports and a protocol.
const FLOW_COLUMN: usize = 48;
/// Table, device and gateway.
const TOLD_COLUMN: usize = 46;

fn namespace(name: Option<&str>, palette: Palette) -> String {
    name.map_or_else(String::new, |name| palette.faint(format!("  in {name}")))
}

fn egress(line: &EgressLine, palette: Palette) -> String {
    let before = line.before.as_ref().map_or_else(String::new, |before| format!(" (was {before})"));
    let told = format!("by {}{before}, {} bytes", line.device, line.bytes);
    let traits = Traits { bgp: line.bgp, bound: line.bound, probe: line.probe };
    let means = marks(line.standing, traits, None, palette) + &namespace(line.netns_name.as_deref(), palette);
    columns(&line.time, "egress", &line.flow, &told, &means)
}

fn tcp(line: &TcpLine, palette: Palette) -> String {
    let told = format!("{} -> {}", tcp_state(line.old), tcp_state(line.new));
    columns(&line.time, "tcp", &line.flow, &told, &namespace(line.netns_name.as_deref(), palette))
}

/// The names of RFC 9293, as `ss` and `netstat` have them; the last two are Linux's own.
#[must_use]
pub fn tcp_state(state: TcpState) -> &'static str {
    match state {
        TcpState::Established => "ESTABLISHED",
        TcpState::SynSent => "SYN-SENT",
        TcpState::SynReceived => "SYN-RECEIVED",
        TcpState::FinWait1 => "FIN-WAIT-1",
        TcpState::FinWait2 => "FIN-WAIT-2",
        TcpState::TimeWait => "TIME-WAIT",
        TcpState::Close => "CLOSED",
        TcpState::CloseWait => "CLOSE-WAIT",
        TcpState::LastAck => "LAST-ACK",
        TcpState::Listen => "LISTEN",
        TcpState::Closing => "CLOSING",
        TcpState::NewSynReceived => "NEW-SYN-RECEIVED",
        TcpState::BoundInactive => "BOUND-INACTIVE",
    }
}

fn verdict_word(verdict: Verdict, palette: Palette) -> String {
    match verdict {
        Verdict::Right => palette.good("right"),
        Verdict::Suspected => palette.doubtful("SUSPECTED"),
        Verdict::Misrouted => palette.bad("MISROUTED"),
    }
}

fn verdict(line: &VerdictLine, palette: Palette) -> String {
    let device = line.device.as_deref().unwrap_or("nowhere");
    let how = match line.verdict {
        Verdict::Right => format!("goes to {device}"),
        Verdict::Suspected => {
            format!("belongs to {}, looked up to {device} (no packet seen yet)", line.tunnels.join(" and "))
        }
        Verdict::Misrouted => format!("belongs to {}, a packet left by {device}", line.tunnels.join(" and ")),
    };
    let rule = match (&line.rule, &line.owner) {
        (Some(rule), Some(owner)) => format!("; rule `{rule}` of {owner}"),
        (Some(rule), None) => format!("; rule `{rule}`"),
        _ => String::new(),
    };
    format!("{}  verdict  {}  {} {how}{rule}\n", clock(&line.time), verdict_word(line.verdict, palette), line.prefix)
}

/// Most stories that are told in full at the end of a text.
const STORIES_TOLD: usize = 12;

/// The flows as they stand at the end, the worst first.
fn stories(out: &mut String, summary: &Summary, palette: Palette) {
    if summary.stories.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{}", palette.strong("What became of each flow, the worst first"));
    for story in summary.stories.iter().take(STORIES_TOLD) {
        out.push_str("  ");
        out.push_str(&story::standing(story, palette));
    }
    let more = summary.stories.len().saturating_sub(STORIES_TOLD) as u64;
    if more > 0 {
        let _ = writeln!(out, "  … and {} (`--format json` has all)", counted(more, "flow"));
    }
    if summary.stories_untold > 0 {
        let _ = writeln!(out, "  {} found no room for a story", counted(summary.stories_untold, "further event"));
    }
}

fn command(command: &CommandReport) -> String {
    let end = match (command.status, command.signal) {
        (Some(status), _) => format!("ended with status {status}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".into(),
    };
    format!("`{}` (process {}) {end}\n", command.words.join(" "), command.pid)
}

fn summary(summary: &Summary, palette: Palette) -> String {
    let mut out = String::new();
    stories(&mut out, summary, palette);
    let _ = writeln!(out, "\n{}", palette.strong(format!("Seen in {:.1} s", summary.seconds)));
    let untold = |standing| matches!(standing, Standing::Step | Standing::NamespaceUnknown);
    for count in summary.lookups.iter().filter(|count| !untold(count.standing)) {
        let device = count.device.as_deref().unwrap_or("-");
        let _ = writeln!(
            out,
            "  {:>9} lookups  {:<20} table {} dev {device}  {}",
            count.count,
            count.prefix.to_string(),
            short_table_name(count.table),
            marks(
                count.standing,
                Traits { bgp: count.bgp, bound: count.bound, probe: count.probe },
                Some(count.kind),
                palette
            ),
        );
    }
    for count in &summary.packets {
        let _ = writeln!(
            out,
            "  {:>9} packets  {:<20} by {} ({} bytes)  {}",
            count.count,
            count.prefix.to_string(),
            count.device,
            count.bytes,
            marks(count.standing, Traits { bgp: count.bgp, bound: count.bound, probe: count.probe }, None, palette),
        );
    }
    if summary.verdicts.is_empty() {
        out.push_str("  no traffic of a tunnel was seen\n");
    }
    for verdict in &summary.verdicts {
        let told = match verdict.verdict {
            Verdict::Right => format!("went to {}", verdict.tunnels.join(" and ")),
            Verdict::Suspected => format!(
                "{} ended at {}; no packet was seen to leave",
                counted(verdict.wrong_lookups, "lookup"),
                verdict.wrong_devices.join(", "),
            ),
            Verdict::Misrouted => format!(
                "{} ({} bytes) left by {} in the clear",
                counted(verdict.misrouted_packets, "packet"),
                verdict.misrouted_bytes,
                verdict.wrong_devices.join(", "),
            ),
        };
        let _ = writeln!(out, "{}  {}  {told}", verdict_word(verdict.verdict, palette), verdict.prefix);
    }
    if let Some(command) = &summary.command {
        out.push_str(&self::command(command));
    }
    let _ = writeln!(out, "{}", losses(&summary.lost, palette));
    let unknown = summary.lookups.iter().filter(|count| count.standing == Standing::NamespaceUnknown);
    let unknown: u64 = unknown.map(|count| count.count).sum();
    if unknown > 0 {
        let told = format!("not judged: {} of a namespace that cannot be told", counted(unknown, "refused lookup"));
        let _ = writeln!(out, "{}", palette.faint(told));
    }
    let skipped = summary.passed_over.hook_runs_skipped;
    if skipped > 0 {
        let told =
            format!("the kernel skipped {} amid others: the counts lack at most these", counted(skipped, "event"));
        let _ = writeln!(out, "{}", palette.faint(told));
    }
    out
}

fn losses(lost: &Losses, palette: Palette) -> String {
    let kinds = [
        (lost.events_lost, "events not told"),
        (lost.lookups_uncounted, "lookups not counted"),
        (lost.packets_uncounted, "packets not counted"),
        (lost.destinations_uncounted, "destinations not told apart"),
        (lost.outcomes_untracked, "changes not followed"),
        (lost.flows_uncounted, "events of flows not told apart"),
        (lost.unreadable_packets, "packets not readable"),
        (lost.undecodable_records, "records not decoded"),
    ];
    let told: Vec<String> =
        kinds.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    if told.is_empty() {
        palette.faint("lost: nothing")
    } else {
        palette.doubtful(format!("lost: {}", told.join(", ")))
    }
}
