//! What came from the kernel, as events of the state machine and reasons to judge anew.

use super::clues;
use super::session::{Session, now};
use crate::core::live::Standing;
use crate::core::model::{LinkKind, Rule, TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN};
use crate::core::observation::{FlowSeen, Observation};
use crate::core::owner::VPNFIX_PROTOCOL;
use crate::core::report::watch::{TakenAwayLine, WatchLine, WokenBy};
use crate::core::watch::{Event, Mode, Moment, Sight};
use crate::system::netlink::Change;

impl Session<'_> {
    /// Takes in the notifications that came.
    pub(super) fn take_changes(&mut self) {
        for change in std::mem::take(&mut self.eyes.changes) {
            match change {
                Change::RuleAdded(rule) if self.ledger.has(&rule) => {}
                Change::RuleAdded(_) => self.wake(WokenBy::Rule),
                Change::RuleDeleted { rule, by } => self.rule_deleted(&rule, by),
                Change::Route { table, .. } if self.is_asked(table) => self.wake(WokenBy::Route),
                Change::Route { .. } => {}
                Change::Link => self.wake(WokenBy::Link),
                Change::Address => self.wake(WokenBy::Address),
                Change::Nexthop => self.wake(WokenBy::Route),
                Change::Lost => {
                    self.teller.resynced();
                    self.wake(WokenBy::Resync);
                }
            }
        }
    }

    /// Is this table asked by a rule, or that of a VRF?
    fn is_asked(&self, table: u32) -> bool {
        let snapshot = &self.host.snapshot;
        matches!(table, TABLE_MAIN | TABLE_LOCAL | TABLE_DEFAULT)
            || snapshot.rules.iter().any(|rule| rule.table() == Some(table))
            || snapshot.links.iter().any(|link| matches!(link.kind, LinkKind::Vrf { table: of } if of == table))
    }

    fn rule_deleted(&mut self, rule: &Rule, by: u32) {
        self.wake(WokenBy::Rule);
        if rule.protocol == VPNFIX_PROTOCOL && self.ledger.lose(rule) {
            let by = clues::who(by, &self.host.clues);
            self.lost_rule(rule, by);
        }
    }

    /// A rule that we answer for is gone, and it was not this process that took it back.
    pub(super) fn lost_rule(&mut self, rule: &Rule, by: String) {
        if self.options.mode == Mode::Report {
            return;
        }
        // An undo sets the hold before it deletes.
        self.check_hold();
        if self.watcher.is_held() {
            return;
        }
        self.teller.taken_away(&by);
        let time = self.teller.time();
        let line = TakenAwayLine { time, rule: rule.to_string(), by: by.clone(), remedy: clues::known_remedy(&by) };
        self.teller.line(WatchLine::TakenAway(line));
        self.event(Event::TakenAway { by });
    }

    /// Takes in what the tracer saw.
    pub(super) fn take_seen(&mut self) {
        for observation in std::mem::take(&mut self.eyes.seen) {
            let view = self.eyes.view(&self.host.snapshot);
            let (standing, watch, device, at, flow) = match &observation {
                Observation::Lookup(seen) if view.is_final(&seen.key) => {
                    (view.lookup(&seen.key), seen.key.watch, seen.key.ifindex, seen.time_ns, seen.flow)
                }
                Observation::Packet(seen) => {
                    (view.packet(&seen.key), seen.key.watch, Some(seen.key.ifindex), seen.time_ns, seen.flow)
                }
                _ => continue,
            };
            let is_packet = matches!(observation, Observation::Packet(_));
            let sight = match (standing, is_packet) {
                (Standing::Wrong, true) => Sight::WrongPacket,
                (Standing::Wrong, false) => Sight::WrongLookup,
                (Standing::Right, true) => Sight::RightPacket,
                _ => continue,
            };
            self.sighting(sight, (watch, device), Moment::from_nanos(at), &flow);
        }
    }

    fn sighting(&mut self, sight: Sight, (watch, device): (u32, Option<u32>), at: Moment, flow: &FlowSeen) {
        let wrong = sight != Sight::RightPacket;
        let key = (watch, device.unwrap_or(0));
        if wrong && self.eyes.dismissed.contains(&key) {
            return;
        }
        let Some(tunnel) = self.eyes.tunnel_of(&self.host.snapshot, watch) else { return };
        let way = match device {
            Some(index) => format!("by {}", self.host.snapshot.device_name(index)),
            None => "nowhere".into(),
        };
        let noticed = if sight == Sight::WrongPacket { WokenBy::Packet } else { WokenBy::Lookup };
        let before = self.reason();
        if wrong && before.is_none() {
            self.woken_now = Some(noticed);
        }
        let changed = self.event(Event::Seen { tunnel, sight, at, what: format!("{} {way}", flow.destination) });
        if wrong && changed {
            self.eyes.unjudged.insert(key);
            self.wake(noticed);
        }
    }

    /// What woke us that was not judged yet.
    pub(super) fn reason(&self) -> Option<WokenBy> {
        self.woken.map(|woken| woken.by)
    }

    /// Feeds the state machine and tells what changes. True if anything did.
    pub(super) fn event(&mut self, event: Event) -> bool {
        let told = self.watcher.take(now(), event);
        let changed = !told.is_empty();
        self.tell_transitions(told);
        changed
    }
}
