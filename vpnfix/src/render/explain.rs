//! `explain` as text.

use std::fmt::Write as _;

use super::diagnose::{cure, heading, notes, plan};
use super::{Palette, counted, table_name};
use crate::core::finding::{Confidence, Reason};
use crate::core::report::explain::{
    AddressKind, AgreementState, Did, Effect, ExplainReport, KernelAnswer, Obstacle, Packet, PacketVerdict, Remedy,
    RemedyName, RouteReport, Suppressor, WalkStep, Way, WayEnd,
};

/// More rules in a row than this that do not match are folded into one line.
const FOLD_ABOVE: usize = 3;

/// The report as a person reads it. `every_rule`: nothing is folded.
#[must_use]
pub fn text(report: &ExplainReport, every_rule: bool, palette: Palette) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{}", palette.faint(packet(&report.flow)));
    heading(&mut out, "The walk", palette);
    walk(&mut out, &report.steps, every_rule, palette);
    if matches!(report.reading.end, WayEnd::NoRoute | WayEnd::AssumedOnLink) {
        let _ = writeln!(out, "  {}", palette.strong(format!("end: {}", way(&report.reading))));
    }
    heading(&mut out, "The kernel's answer", palette);
    kernel(&mut out, report, palette);
    let _ = writeln!(out, "\n{}", verdict(report, palette));
    if let Some(obstacle) = &report.obstacle {
        heading(&mut out, "What stands in the way", palette);
        self::obstacle(&mut out, obstacle);
    }
    if !report.remedies.is_empty() {
        heading(&mut out, &format!("What would change it, tried on {}", report.flow.to), palette);
        for remedy in &report.remedies {
            self::remedy(&mut out, report, remedy, palette);
        }
    }
    if let Some(part) = report.plan.as_ref().filter(|plan| !(plan.steps.is_empty() && plan.left_out.is_empty())) {
        heading(&mut out, "The plan", palette);
        plan(&mut out, part, palette);
        if !part.steps.is_empty() {
            out.push_str("  `vpnfix fix` does this, and proves it on live packets; `vpnfix undo` takes it back.\n");
        }
    }
    cure(&mut out, &report.cure, palette);
    notes(&mut out, report.notes.iter().map(String::as_str), palette);
    out
}

/// The walk and the kernel's answer alone, as plain text.
pub(super) fn walk_text(report: &ExplainReport) -> String {
    let palette = Palette::new(false);
    let mut out = format!("{}\n", packet(&report.flow));
    walk(&mut out, &report.steps, false, palette);
    out.push_str("The kernel's answer\n");
    kernel(&mut out, report, palette);
    let _ = writeln!(out, "{}", verdict(report, palette));
    out
}

/// The packet in one line, as far as it is other than plain.
fn packet(flow: &Packet) -> String {
    let mut words = vec![format!("a packet to {}", flow.to)];
    if let Some(from) = flow.from {
        words.push(format!("from {from}"));
    }
    match (&flow.iif, &flow.oif) {
        (Some(iif), _) => words.push(format!("that came in by {iif}")),
        (None, Some(oif)) => words.push(format!("of this host, bound to {oif}")),
        (None, None) => words.push("of this host".into()),
    }
    let mut more = Vec::new();
    if flow.iif.is_none() {
        more.push(format!("user {}", flow.uid));
    }
    if flow.protocol != 0 {
        more.push(format!("IP protocol {}", protocol_name(flow.protocol)));
    }
    for (name, value) in [("source port", flow.source_port), ("destination port", flow.destination_port)] {
        if value != 0 {
            more.push(format!("{name} {value}"));
        }
    }
    if flow.mark != 0 {
        more.push(format!("mark {:#x}", flow.mark));
    }
    if flow.tos != 0 {
        more.push(format!("tos {:#04x}", flow.tos));
    }
    let more = if more.is_empty() { String::new() } else { format!(" ({})", more.join(", ")) };
    words.join(" ") + &more
}

fn protocol_name(protocol: u8) -> String {
    match protocol {
        1 => "ICMP".into(),
        6 => "TCP".into(),
        17 => "UDP".into(),
        58 => "ICMPv6".into(),
        number => number.to_string(),
    }
}

/// The rules in order; long runs of those that were passed over in one line each.
fn walk(out: &mut String, steps: &[WalkStep], every_rule: bool, palette: Palette) {
    let class = |step: &WalkStep| match step.did {
        Did::NoMatch { .. } => Passed::NoMatch,
        Did::JumpedOver => Passed::JumpedOver,
        Did::NotAsked => Passed::NotAsked,
        _ => Passed::No,
    };
    for run in steps.chunk_by(|a, b| class(a) == class(b)) {
        let passed = run.first().map_or(Passed::No, class);
        let fold = match passed {
            Passed::No => false,
            Passed::NoMatch => run.len() > FOLD_ABOVE,
            Passed::JumpedOver | Passed::NotAsked => true,
        };
        if fold && !every_rule {
            let rules = counted(run.len() as u64, "rule");
            let line = match passed {
                Passed::JumpedOver => format!("… {rules} jumped over"),
                Passed::NotAsked => format!("… {rules} after it, not asked any more"),
                _ => format!("… {rules} that do not match"),
            };
            let _ = writeln!(out, "  {}", palette.faint(line));
            continue;
        }
        for step in run {
            self::step(out, step, palette);
        }
    }
}

/// How a rule was passed over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Passed {
    No,
    NoMatch,
    JumpedOver,
    NotAsked,
}

fn step(out: &mut String, step: &WalkStep, palette: Palette) {
    let rule = format!("{:<7}{}", format!("{}:", step.priority), step.rule);
    let did = did(&step.did);
    let (rule, did) = match (&step.did, step.decided) {
        (_, true) => (palette.strong(rule), palette.strong(format!("{did}  <- this decides"))),
        (Did::CannotTell { .. }, _) => (rule, palette.doubtful(did)),
        (Did::NoMatch { .. } | Did::JumpedOver | Did::NotAsked, _) => (palette.faint(rule), palette.faint(did)),
        _ => (rule, did),
    };
    let _ = writeln!(out, "  {rule}\n         {did}");
}

pub(super) fn did(did: &Did) -> String {
    match did {
        Did::NotAsked => "not asked any more".into(),
        Did::JumpedOver => "jumped over".into(),
        Did::NoMatch { why, .. } => format!("not: {why}"),
        Did::Nothing { why } => format!("matches, but {why}"),
        Did::Jumped { to } => format!("matches: on to rule {to}"),
        Did::NoRoute { table, empty: true } => format!("matches, but table {} is empty", table_name(*table)),
        Did::NoRoute { table, empty: false } => {
            format!("matches, but table {} has no route for it", table_name(*table))
        }
        Did::Thrown { route } => format!("matches, but {} sends the walk on", route_words(route)),
        Did::Suppressed { route, by } => {
            let by = match by {
                Suppressor::SuppressPrefixlength(length) => format!("suppress_prefixlength {length}"),
                Suppressor::SuppressIfgroup(group) => format!("suppress_ifgroup {group}"),
            };
            format!("finds {}, and discards it ({by})", route_words(route))
        }
        Did::Took { route } => format!("takes {}", route_words(route)),
        Did::Refused { route: Some(route) } => format!("refuses by {}", route_words(route)),
        Did::Refused { route: None } => "refuses".into(),
        Did::CannotTell { why } => format!("cannot be told: {why}"),
    }
}

fn route_words(route: &RouteReport) -> String {
    let nexthops: Vec<String> = route
        .nexthops
        .iter()
        .map(|nexthop| {
            let via = nexthop.gateway.map_or_else(String::new, |gateway| format!(" via {gateway}"));
            let dev = nexthop.device.as_ref().map_or_else(String::new, |device| format!(" dev {device}"));
            format!("{via}{dev}")
        })
        .collect();
    format!("{}{}, protocol {}", route.route, nexthops.join(" or"), route.protocol)
}

fn kernel(out: &mut String, report: &ExplainReport, palette: Palette) {
    match &report.kernel {
        Some(answer) => {
            let _ = writeln!(out, "  {}", palette.strong(answered(answer)));
            if let (Some(route), Some(protocol)) = (&answer.route, &answer.route_protocol) {
                let table = answer.table.map_or_else(String::new, |table| format!(" of table {}", table_name(table)));
                let _ = writeln!(out, "  by {route}{table}, protocol {protocol}");
            }
        }
        None => {
            let _ = writeln!(out, "  none; by the rules above: {}", way(&report.reading));
        }
    }
    let agreement = format!("{}: {}", agreement_word(report.agreement.state), report.agreement.text);
    let agreement = match report.agreement.state {
        AgreementState::Agree => palette.faint(agreement),
        AgreementState::Differ | AgreementState::NotAccepted => palette.bad(agreement),
        AgreementState::KernelAlone | AgreementState::ReadingAlone => palette.doubtful(agreement),
    };
    let _ = writeln!(out, "  {agreement}");
    if report.agreement.state == AgreementState::Differ {
        let _ = writeln!(out, "  vpnfix read: {}", way(&report.reading));
    }
}

fn answered(answer: &KernelAnswer) -> String {
    let Some(device) = &answer.device else {
        return format!("refused: {}", answer.error.as_deref().unwrap_or("no reason given"));
    };
    if answer.local {
        return format!("delivered here ({device})");
    }
    let via = answer.gateway.map_or_else(String::new, |gateway| format!(" via {gateway}"));
    let source = answer.source.map_or_else(String::new, |source| format!(", source {source}"));
    format!("leaves by {device}{via}{source}")
}

fn agreement_word(state: AgreementState) -> &'static str {
    match state {
        AgreementState::Agree => "agrees",
        AgreementState::Differ => "differs",
        AgreementState::KernelAlone => "not compared",
        AgreementState::NotAccepted => "not accepted",
        AgreementState::ReadingAlone => "not asked",
    }
}

/// Where a walk ends.
fn way(way: &Way) -> String {
    let by = way.priority.map_or_else(String::new, |priority| format!(" (rule {priority})"));
    let devices = way.devices.join(" or ");
    match way.end {
        WayEnd::Leaves => format!("leaves by {devices}{by}"),
        WayEnd::DeliveredHere => format!("delivered here{by}"),
        WayEnd::Refused => format!("refused{by}"),
        WayEnd::NoRoute => "no rule leads to a route: the network is unreachable".into(),
        WayEnd::AssumedOnLink => format!("no route; taken to be on the link of {devices}, to which it is bound"),
        WayEnd::CannotTell => {
            format!("cannot be told{by}: {}", way.doubt.as_deref().unwrap_or("the rules are not understood"))
        }
    }
}

fn verdict(report: &ExplainReport, palette: Palette) -> String {
    let to = report.flow.to;
    let whose = report.belongs.as_ref().map_or_else(String::new, |belongs| {
        format!("\n  it lies in {}, which belongs to {}", belongs.prefix, belongs.tunnels.join(" and "))
    });
    match report.verdict {
        PacketVerdict::Right => palette.good(format!("RIGHT: {to} goes into its tunnel")) + &whose,
        PacketVerdict::Wrong => palette.bad(format!("WRONG: {to} does not go into its tunnel")) + &whose,
        PacketVerdict::Unknown => palette.doubtful(format!("UNKNOWN: whether {to} goes right cannot be told")) + &whose,
        PacketVerdict::NoTunnel => match report.address {
            AddressKind::Unicast => format!("{to} belongs to no tunnel: nothing to judge"),
            AddressKind::Own => format!("{to} is one of this host's own addresses, and no tunnel's"),
            AddressKind::Loopback => format!("{to} is a loopback address: it never leaves this host"),
            AddressKind::Broadcast => format!("{to} is a broadcast address, and no tunnel's"),
            AddressKind::Multicast => {
                format!("{to} is a multicast group: its senders choose the device, no tunnel has it to itself")
            }
            AddressKind::LinkLocal => format!("{to} is link-local, on every link: its sender names one (--oif)"),
        },
    }
}

fn obstacle(out: &mut String, obstacle: &Obstacle) {
    let _ = writeln!(out, "  {}", reason(obstacle.reason));
    if let Some(rule) = &obstacle.rule {
        let _ = writeln!(out, "  rule:  {}: {}", rule.priority, rule.text);
    }
    if let Some(route) = &obstacle.route {
        let _ = writeln!(out, "  route: {}\n  table: {}", route_words(route), table_name(route.table));
    }
    let owner = &obstacle.owner;
    if owner.confidence > Confidence::Unknown {
        let sure = match owner.confidence {
            Confidence::Certain => "certain",
            Confidence::Likely => "likely",
            Confidence::Possible | Confidence::Unknown => "possible",
        };
        let _ = writeln!(out, "  owner: {} ({sure})", owner.name);
        for evidence in &owner.evidence {
            let _ = writeln!(out, "         {evidence}");
        }
    }
}

fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::HijackedByRule => "a policy rule sends it elsewhere before the tunnel's table is asked",
        Reason::ShadowedByRoute => "the tunnel's own table has a better route elsewhere; no rule cures that",
        Reason::UnreachableRule => "a policy rule refuses it",
        Reason::UnreachableRoute => "a route refuses it",
        Reason::NoRoute => "no table has a route for it",
        Reason::TunnelDown => "the tunnel's interface is down",
        _ => "the kernel's answer cannot be explained from the rules",
    }
}

fn remedy(out: &mut String, report: &ExplainReport, remedy: &Remedy, palette: Palette) {
    let effect = match remedy.effect {
        Effect::Cures => palette.good("cures it        "),
        Effect::DoesNotCure => palette.bad("does not cure it"),
        Effect::CannotTell => palette.doubtful("cannot be told  "),
    };
    let _ = writeln!(out, "  {effect}  {}", remedy_name(report, remedy.remedy));
    // The plan's rules stand under their own heading.
    if remedy.remedy != RemedyName::Plan {
        for rule in &remedy.rules {
            let _ = writeln!(out, "{:20}{}", "", palette.faint(rule));
        }
        for rule in &remedy.standing {
            let _ = writeln!(out, "{:20}{}", "", palette.faint(format!("stands already: {rule}")));
        }
    }
    if remedy.effect != Effect::Cures {
        let _ = writeln!(out, "{:20}it then {}", "", then(&remedy.way));
    }
}

/// What a packet then does that still does not go right.
fn then(way: &Way) -> String {
    match way.end {
        WayEnd::Leaves => self::way(way),
        WayEnd::DeliveredHere | WayEnd::Refused => format!("is {}", self::way(way)),
        _ => format!("ends so: {}", self::way(way)),
    }
}

fn remedy_name(report: &ExplainReport, remedy: RemedyName) -> String {
    match remedy {
        RemedyName::Inside => "rules for the tunnels' inside prefixes alone, the usual advice".into(),
        RemedyName::Prefix => {
            let prefix = report.belongs.as_ref().map_or_else(String::new, |belongs| format!(" {}", belongs.prefix));
            format!("a rule for its prefix{prefix}")
        }
        RemedyName::MainFirst => "one rule: main first, but for its default route".into(),
        RemedyName::Plan => "what `vpnfix fix` would do".into(),
        RemedyName::Root => {
            let rule = report.obstacle.as_ref().and_then(|obstacle| obstacle.rule.as_ref());
            let what =
                rule.map_or_else(String::new, |rule| format!(": rule {} gone, or its table empty", rule.priority));
            format!("the cure at the root{what}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::explain::incident::{captured, explained, with_bgp};
    use crate::core::model::{Family, Rule};
    use crate::render;

    /// Compares with an expected file, which a person has read; `VPNFIX_BLESS` set writes it anew.
    fn is_as_written(name: &str, text: &str) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/render/golden").join(name);
        if std::env::var_os("VPNFIX_BLESS").is_some() {
            std::fs::write(&path, text).expect("the expected file cannot be written");
        }
        let expected = std::fs::read_to_string(&path).expect("no expected file");
        assert_eq!(text, expected, "{name} differs");
    }

    #[test]
    fn the_incident_reads_as_written() {
        let report = ExplainReport { version: "0".into(), ..explained(&with_bgp(), &captured("10.20.0.1")) };
        is_as_written("explain-incident.txt", &text(&report, false, Palette::new(false)));
        is_as_written("explain-incident.json", &render::document(&report).expect("a document"));
    }

    #[test]
    fn long_runs_are_folded_and_told_when_asked_for() {
        let mut snapshot = with_bgp();
        let others = (1..=37).map(|n| Rule { from: "10.9.0.0/16".parse().ok(), ..Rule::lookup(Family::V4, n, 254) });
        snapshot.rules.splice(1..1, others);
        let report = explained(&snapshot, &captured("10.20.0.1"));
        let folded = text(&report, false, Palette::new(false));
        assert!(folded.contains("… 37 rules that do not match"), "{folded}");
        let all = text(&report, true, Palette::new(false));
        assert_eq!(all.matches("not: only for source 10.9.0.0/16").count(), 37, "{all}");
        let document = serde_json::to_value(&report).expect("a document");
        assert_eq!(document["steps"].as_array().map(Vec::len), Some(41));
    }
}
