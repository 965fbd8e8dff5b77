//! What the decided cases have been about.

use std::collections::BTreeMap;
use std::fmt;

use vpnfix::core::model::{
    Family, LinkKind, Nexthop, Ports, Preference, Question, Route, RouteKind, Rule, RuleAction, Snapshot,
};
use vpnfix::core::walk::{Doubt, End, Mismatch, Outcome, Walk};

use crate::kernel::Kernel;

/// Counts of a run.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) policies: u64,
    pub(crate) flows: u64,
    /// Lines of the policies, and how many of them the kernel refused.
    pub(crate) lines: u64,
    pub(crate) refused_lines: u64,
    undecided: BTreeMap<String, u64>,
    seen: BTreeMap<(Family, String), u64>,
}

impl Tally {
    pub(crate) fn undecided(&mut self, doubt: &Doubt) {
        self.flows += 1;
        *self.undecided.entry(format!("{doubt:?}")).or_default() += 1;
    }

    pub(crate) fn undecided_percent(&self) -> u64 {
        (self.undecided.values().sum::<u64>() * 100).div_ceil(self.flows.max(1))
    }

    /// Counts what a case was about in which both agreed.
    pub(crate) fn agreed(&mut self, snapshot: &Snapshot, question: &Question, walk: &Walk<'_>) {
        self.flows += 1;
        let family = Family::of(question.destination);
        let mut features = of_question(question);
        for (rule, outcome) in &walk.steps {
            of_step(rule, outcome, &mut features);
        }
        of_end(snapshot, question, &walk.end, &mut features);
        for feature in features {
            *self.seen.entry((family, feature)).or_default() += 1;
        }
    }

    /// What should have been seen on this kernel and was not.
    pub(crate) fn missing(&self, kernel: Kernel) -> Vec<String> {
        let expected = Family::ALL.into_iter().flat_map(|family| {
            let both = SELECTORS.into_iter().flat_map(|name| [format!("matches {name}"), format!("misses {name}")]);
            let rest = OUTCOMES.into_iter().map(String::from);
            both.chain(rest).filter(move |name| exists(family, name, kernel)).map(move |name| (family, name))
        });
        expected
            .filter(|feature| !self.seen.contains_key(feature))
            .map(|(family, name)| format!("{family:?} {name}"))
            .collect()
    }
}

const SELECTORS: [&str; 18] = [
    "From",
    "To",
    "InputInterface",
    "OutputInterface",
    "Mark",
    "User",
    "Protocol",
    "SourcePort",
    "DestinationPort",
    "Tos",
    "Dscp",
    "DscpMask",
    "FlowLabel",
    "SourcePortMask",
    "DestinationPortMask",
    "Inverted",
    "L3mdev",
    "TunnelId",
];

const OUTCOMES: [&str; 48] = [
    "misses InputInterfaceGone",
    "misses OutputInterfaceGone",
    "misses NoSource",
    "rule of unknown protocol",
    "goto",
    "goto jumps over",
    "goto unresolved",
    "nop",
    "refused by rule Unreachable",
    "refused by rule Prohibit",
    "refused by rule Blackhole",
    "refused by route Unreachable",
    "refused by route Prohibit",
    "refused by route Blackhole",
    "refused by a nexthop object",
    "thrown",
    "suppressed by length",
    "suppressed by group",
    "suppressing rule, kept",
    "table without routes",
    "table without the route",
    "local moved",
    "no route",
    "assumed on link",
    "bound and down",
    "ends Local",
    "ends Unicast",
    "ends Broadcast",
    "local beside table local",
    "by gateway",
    "on link",
    "multipath",
    "nexthop object",
    "nexthop group",
    "route with tos",
    "route with metric",
    "route for a source",
    "preference High",
    "preference Low",
    "default route",
    "a nexthop is dead",
    "a nexthop has no carrier, used",
    "a nexthop has no carrier, passed over",
    "input",
    "bound",
    "bound, with source",
    "in a VRF",
    "bound to a VRF",
];

/// Can this be seen at all?
fn exists(family: Family, feature: &str, kernel: Kernel) -> bool {
    let v6 = family == Family::V6;
    match feature {
        // A flow of ours came by no tunnel.
        "matches TunnelId" => false,
        // Only IPv4 compares the unspecified address; only IPv4 assumes a destination on link and looks at the device.
        "misses NoSource" | "assumed on link" | "bound and down" | "route with tos" | "ends Broadcast" => {
            !v6 || feature == "misses NoSource"
        }
        // IPv6 removes routes by a device that goes down, and sets the dead member of a multipath aside.
        "route for a source" => v6 && kernel.source_routes,
        "preference High" | "preference Low" => v6,
        "matches Dscp" | "misses Dscp" => kernel.dscp,
        "matches DscpMask" | "misses DscpMask" => kernel.dscp_mask,
        "matches FlowLabel" | "misses FlowLabel" => v6 && kernel.flow_label,
        "matches L3mdev" | "misses L3mdev" | "in a VRF" | "bound to a VRF" => kernel.vrf,
        name if name.ends_with("PortMask") => kernel.port_mask,
        _ => true,
    }
}

fn of_question(question: &Question) -> Vec<String> {
    let mut features = Vec::new();
    let mut note = |is: bool, name: &str| features.extend(is.then(|| name.to_string()));
    note(question.input_interface.is_some(), "input");
    note(question.output_interface.is_some(), "bound");
    note(question.output_interface.is_some() && question.source.is_some(), "bound, with source");
    features
}

fn of_step(rule: &Rule, outcome: &Outcome<'_>, features: &mut Vec<String>) {
    let mut note = |name: &str| features.push(name.to_string());
    if let (Outcome::NoMatch(mismatch), false) = (outcome, rule.invert) {
        note(&format!("misses {mismatch:?}"));
        match mismatch {
            Mismatch::Dscp if rule.dscp.is_some_and(|dscp| dscp.mask != 0x3f) => note("misses DscpMask"),
            Mismatch::SourcePort if is_masked(rule.source_ports) => note("misses SourcePortMask"),
            Mismatch::DestinationPort if is_masked(rule.destination_ports) => note("misses DestinationPortMask"),
            _ => {}
        }
    }
    match outcome {
        Outcome::NoMatch(_) | Outcome::Unknown(_) if rule.invert => note("misses Inverted"),
        Outcome::NoMatch(_) | Outcome::Unknown(_) => {}
        Outcome::JumpedOver => note("goto jumps over"),
        _ if rule.invert => note("matches Inverted"),
        _ => selectors(rule).into_iter().for_each(|name| note(&format!("matches {name}"))),
    }
    match outcome {
        Outcome::Jumped(_) => note("goto"),
        Outcome::Nothing if matches!(rule.action, RuleAction::Goto(_)) => note("goto unresolved"),
        Outcome::Nothing => note("nop"),
        Outcome::NoRoute { empty: true, .. } => note("table without routes"),
        Outcome::NoRoute { .. } => note("table without the route"),
        Outcome::Thrown(_) => note("thrown"),
        Outcome::Suppressed(route) => {
            let length = u32::from(route.destination.prefix_len());
            let by_length = rule.suppress_prefix_length.is_some_and(|most| length <= most);
            note(if by_length { "suppressed by length" } else { "suppressed by group" });
        }
        _ => {}
    }
}

fn is_masked(ports: Option<Ports>) -> bool {
    matches!(ports, Some(Ports::Masked { .. }))
}

/// The selectors that a rule has, each by the mismatch that it can end in.
fn selectors(rule: &Rule) -> Vec<&'static str> {
    let list = [
        (rule.from.is_some(), "From"),
        (rule.to.is_some(), "To"),
        (rule.iif.is_some(), "InputInterface"),
        (rule.oif.is_some(), "OutputInterface"),
        (rule.mark.is_some(), "Mark"),
        (rule.uid_range.is_some(), "User"),
        (rule.ip_protocol.is_some(), "Protocol"),
        (rule.source_ports.is_some(), "SourcePort"),
        (rule.destination_ports.is_some(), "DestinationPort"),
        (is_masked(rule.source_ports), "SourcePortMask"),
        (is_masked(rule.destination_ports), "DestinationPortMask"),
        (rule.tos != 0, "Tos"),
        (rule.dscp.is_some(), "Dscp"),
        (rule.dscp.is_some_and(|dscp| dscp.mask != 0x3f), "DscpMask"),
        (rule.flow_label.is_some(), "FlowLabel"),
        (rule.l3mdev, "L3mdev"),
    ];
    list.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect()
}

fn of_end(snapshot: &Snapshot, question: &Question, end: &End<'_>, features: &mut Vec<String>) {
    let mut note = |name: &str| features.push(name.to_string());
    if let Some(rule) = end.rule() {
        if !matches!(rule.protocol, 0 | 2) {
            note("rule of unknown protocol");
        }
        if rule.priority != 0 && rule.table() == Some(255) {
            note("local moved");
        }
    }
    match end {
        End::NoRoute => note("no route"),
        End::AssumedOnLink(_) => note("assumed on link"),
        End::RefusedByRule(rule) => note(&format!("refused by rule {:?}", rule.action)),
        End::RefusedByRoute { route, .. } if route.nexthop_object.is_some() => note("refused by a nexthop object"),
        End::RefusedByRoute { route, .. } => note(&format!("refused by route {:?}", route.kind)),
        End::Route { rule, route, .. } => {
            if rule.suppress_prefix_length.is_some() || rule.suppress_ifgroup.is_some() {
                note("suppressing rule, kept");
            }
            of_route(snapshot, route, &mut note);
        }
        End::Undecided { .. } => {}
    }
    let link = question.output_interface.and_then(|index| snapshot.link(index));
    if link.is_some_and(|link| !link.up) {
        note("bound and down");
    }
    if link.is_some_and(|link| snapshot.vrf_table(link).is_some()) {
        note("in a VRF");
    }
    if link.is_some_and(|link| matches!(link.kind, LinkKind::Vrf { .. })) {
        note("bound to a VRF");
    }
}

fn of_route(snapshot: &Snapshot, route: &Route, note: &mut impl FnMut(&str)) {
    note(&format!("ends {:?}", route.kind));
    if route.kind == RouteKind::Local && route.table != 255 {
        note("local beside table local");
    }
    if route.kind != RouteKind::Unicast {
        return;
    }
    let is_ignored = |index: Option<u32>| {
        let settings = index.and_then(|index| snapshot.link(index)).map(|link| link.settings);
        settings.is_some_and(|settings| match route.family {
            Family::V4 => settings.ignores_linkdown,
            Family::V6 => settings.ignores_linkdown_v6,
        })
    };
    let is_down = |index: Option<u32>| index.and_then(|index| snapshot.link(index)).is_some_and(|link| !link.up);
    let any = |is: &dyn Fn(&Nexthop) -> bool| route.nexthops.iter().any(is);
    let is_object = route.nexthop_object.is_some();
    let is_several = route.nexthops.len() > 1;
    let list = [
        (any(&|nexthop| nexthop.gateway.is_some()), "by gateway"),
        (any(&|nexthop| nexthop.gateway.is_none()), "on link"),
        (any(&|nexthop| nexthop.dead && is_down(nexthop.ifindex)), "a nexthop is dead"),
        (any(&|nexthop| nexthop.linkdown && !is_ignored(nexthop.ifindex)), "a nexthop has no carrier, used"),
        (any(&|nexthop| nexthop.linkdown && is_ignored(nexthop.ifindex)), "a nexthop has no carrier, passed over"),
        (is_several && !is_object, "multipath"),
        (is_object && !is_several, "nexthop object"),
        (is_object && is_several, "nexthop group"),
        (route.tos != 0, "route with tos"),
        (route.metric != 0, "route with metric"),
        (route.source.is_some(), "route for a source"),
        (route.preference == Preference::High, "preference High"),
        (route.preference == Preference::Low, "preference Low"),
        (route.destination.prefix_len() == 0, "default route"),
    ];
    list.into_iter().filter(|(has, _)| *has).for_each(|(_, name)| note(name));
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let undecided: u64 = self.undecided.values().sum();
        let share = undecided as f64 * 100.0 / self.flows.max(1) as f64;
        writeln!(f, "{} flows in {} policies agreed", self.flows - undecided, self.policies)?;
        writeln!(f, "{undecided} undecided ({share:.1} %): {:?}", self.undecided)?;
        writeln!(f, "{} of {} lines of the policies refused by the kernel", self.refused_lines, self.lines)?;
        for ((family, feature), count) in &self.seen {
            writeln!(f, "  {family:?} {feature}: {count}")?;
        }
        Ok(())
    }
}
