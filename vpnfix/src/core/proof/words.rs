//! A counter-example in words.

use super::{Breach, CounterExample};
use crate::core::model::rule::{prefix_words, table_word};
use crate::core::model::{Route, RouteKind, Rule};
use crate::core::walk::{Doubt, End, Fib, Flow, LOOPBACK_INDEX};

/// What is told.
pub(super) struct Told<'t, 'a> {
    pub(super) fib: &'t Fib<'a>,
    pub(super) hijackers: &'t [&'t Rule],
    pub(super) flow: &'t Flow,
    pub(super) breach: Breach,
}

impl Told<'_, '_> {
    pub(super) fn counter_example(&self, now: &End<'_>, home: &End<'_>, with_rule: &End<'_>) -> CounterExample {
        let traffic = traffic(self.fib, self.flow);
        let (now, without_hijacker, with_rule) = (self.decision(now), self.decision(home), self.decision(with_rule));
        let hijackers: Vec<String> = self.hijackers.iter().map(|rule| format!("`{rule}`")).collect();
        let hijackers = hijackers.join(" and ");
        let sentence = match self.breach {
            Breach::WithoutHijacker => {
                format!("{traffic} would {with_rule} instead of {without_hijacker}, also once {hijackers} is gone")
            }
            Breach::NotHome => {
                format!("{traffic} would {with_rule}, where it would {without_hijacker} if {hijackers} were gone")
            }
            Breach::RouteOfHijacker => {
                format!("{traffic} would {with_rule} instead of {now}: a route that was made for it")
            }
        };
        let flow = self.flow.clone();
        CounterExample { flow, breach: self.breach, sentence, traffic, now, without_hijacker, with_rule }
    }

    /// What becomes of the flow: `leave by eth0 (rule 150, route default of table 300)`.
    fn decision(&self, end: &End<'_>) -> String {
        let by = |rule: &Rule, route: &Route| {
            format!("rule {}, route {} of table {}", rule.priority, route_words(route), table_word(route.table))
        };
        match end {
            End::Route { rule, route, .. } if matches!(route.kind, RouteKind::Local | RouteKind::Broadcast) => {
                format!("be delivered here ({})", by(rule, route))
            }
            End::Route { rule, route, .. } => {
                let mut names: Vec<String> =
                    end.devices().iter().map(|index| self.fib.snapshot().device_name(*index)).collect();
                names.dedup();
                let devices = if names.is_empty() { "no device".into() } else { names.join(" or ") };
                format!("leave by {devices} ({})", by(rule, route))
            }
            End::RefusedByRule(rule) => format!("be refused (rule {})", rule.priority),
            End::RefusedByRoute { rule, route } => format!("be refused ({})", by(rule, route)),
            End::AssumedOnLink(device) => {
                format!("leave by {} as if on its link (no route)", self.fib.snapshot().device_name(*device))
            }
            End::NoRoute => "find no route".into(),
            End::Undecided { rule, doubt } => format!("go where vpnfix cannot tell ({})", self::doubt(rule, doubt)),
        }
    }
}

fn route_words(route: &Route) -> String {
    if route.destination.prefix_len() == 0 { "default".into() } else { route.destination.to_string() }
}

/// Why a walk could not be decided.
pub(super) fn doubt(rule: &Rule, doubt: &Doubt) -> String {
    format!("what rule `{rule}` does cannot be told: {doubt}")
}

/// A flow in words: `traffic from 10.9.0.99 to 10.9.0.0`. What is as in ordinary traffic is not mentioned.
fn traffic(fib: &Fib<'_>, flow: &Flow) -> String {
    let plain = Flow::plain(flow.to);
    let mut words = vec!["traffic".to_string()];
    if flow.iif != LOOPBACK_INDEX {
        words.push(format!("that comes in by {}", fib.snapshot().device_name(flow.iif)));
    }
    if let Some(source) = flow.from {
        words.push(format!("from {source}"));
    }
    words.push(format!("to {}", prefix_words(&flow.to.into())));
    if let Some(device) = flow.oif {
        words.push(format!("bound to {}", fib.snapshot().device_name(device)));
    }
    let further = [
        (flow.mark != plain.mark, format!("with mark {:#x}", flow.mark)),
        (flow.uid != plain.uid, format!("of user {}", flow.uid)),
        (flow.protocol != plain.protocol, format!("of IP protocol {}", flow.protocol)),
        (flow.source_port != plain.source_port, format!("from port {}", flow.source_port)),
        (flow.destination_port != plain.destination_port, format!("to port {}", flow.destination_port)),
        (flow.tos != plain.tos, format!("with type of service {:#04x}", flow.tos)),
        (flow.flow_label != plain.flow_label, format!("with flow label {:#x}", flow.flow_label)),
        (flow.tunnel_id != plain.tunnel_id, format!("with tunnel id {}", flow.tunnel_id)),
    ];
    words.extend(further.into_iter().filter_map(|(is_special, words)| is_special.then_some(words)));
    words.join(" ")
}
