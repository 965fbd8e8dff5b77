//! What `watch` decides: the state of each tunnel, when to repair, and when to stop.
//!
//! Pure: time comes in with each event, and what is to be done comes out. The loop in `commands/watch` feeds it with what
//! the kernel tells, and does what it allows. `docs/watch.md` shows the states and the ways between them.

mod flood;
mod guard;
mod health;
mod ledger;
mod state;

use std::collections::BTreeMap;
use std::time::Duration;

pub use flood::Flood;
pub use guard::{Guard, Limits};
pub use health::{Health, Wrong, health};
pub use ledger::Ledger;
pub use state::{Evidence, TunnelState};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Time since the boot (`CLOCK_MONOTONIC`).
pub type Moment = Duration;

/// May the host be changed?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Only tell.
    #[default]
    Report,
    /// Repair on detection.
    Fix,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The kernel was asked about every destination: the tunnels that are there, and how each fares.
    Judged(Vec<Health>),
    /// A lookup or a packet was seen.
    Seen {
        /// The tunnel that it belongs to.
        tunnel: String,
        /// What was seen.
        sight: Sight,
        /// When the kernel saw it.
        at: Moment,
        /// What it was, in words.
        what: String,
    },
    /// Rules of ours were deleted by others.
    TakenAway {
        /// By whom, as far as is known.
        by: String,
    },
    /// The repair that was begun has come to its end.
    RepairEnded(RepairEnd),
    /// Every required rung of the ladder is confirmed for what was repaired.
    Confirmed(String),
    /// The confirmation ended without that; why.
    NotConfirmed(String),
    /// An `undo` by hand holds the repairs, or that was lifted.
    Held(bool),
    /// Somebody asked for a fresh start: the configuration was read again.
    Reset,
    /// Time has passed.
    Tick,
}

/// What was seen of a tunnel's traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// A lookup that went elsewhere.
    WrongLookup,
    /// A packet handed to another device.
    WrongPacket,
    /// A packet handed to the tunnel.
    RightPacket,
}

/// What came of a repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepairEnd {
    /// The rules stand and the kernel answers rightly.
    Applied {
        /// How many rules were added.
        rules: usize,
    },
    /// Nothing was changed, or all was taken back.
    Failed(String),
}

/// A step from one state to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Transition {
    /// Name of the tunnel.
    pub tunnel: String,
    /// State before.
    pub from: TunnelState,
    /// State now.
    pub to: TunnelState,
    /// What it rests on.
    pub evidence: Evidence,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Nothing, until something happens.
    Nothing,
    /// A repair.
    Repair,
    /// To look again at this moment.
    WaitUntil(Moment),
}

/// The right to one repair. There is no other way to one than [`Watcher::begin`].
#[derive(Debug)]
#[must_use]
pub struct Permit(());

/// Packets that were on their way at a change have left after this: what the kernel saw before proves nothing about it.
const SETTLING: Duration = Duration::from_millis(200);
/// So many tunnels that are gone are remembered.
const GONE_KEPT: usize = 64;

#[derive(Clone, Debug)]
struct Tracked {
    state: TunnelState,
    /// A repair may help.
    curable: bool,
    /// Its repair was confirmed on live packets.
    confirmed: bool,
    /// Rules of ours stand for it.
    steered: bool,
}

/// The states of all tunnels of a namespace, and the guard of the repairs.
#[derive(Clone, Debug)]
pub struct Watcher {
    mode: Mode,
    held: bool,
    tunnels: BTreeMap<String, Tracked>,
    guard: Guard,
    repairing: bool,
    /// What the kernel saw until then is from before the last change.
    settled_after: Moment,
    /// Rules were taken away, and it is not known yet whether that matters.
    taken_by: Option<String>,
}

impl Watcher {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(mode: Mode, limits: Limits) -> Self {
        Self {
            mode,
            held: false,
            tunnels: BTreeMap::new(),
            guard: Guard::new(limits),
            repairing: false,
            settled_after: Duration::ZERO,
            taken_by: None,
        }
    }

    /// Other limits from now on; what was done so far still counts.
    pub fn configure(&mut self, mode: Mode, limits: Limits) {
        self.mode = mode;
        self.guard.configure(limits);
    }

    /// The state of each tunnel, by name.
    pub fn states(&self) -> impl Iterator<Item = (&str, TunnelState)> {
        self.tunnels.iter().map(|(name, tracked)| (name.as_str(), tracked.state))
    }

    /// The state of one tunnel.
    #[must_use]
    pub fn state(&self, tunnel: &str) -> Option<TunnelState> {
        self.tunnels.get(tunnel).map(|tracked| tracked.state)
    }

    /// Does an `undo` by hand hold the repairs?
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// How often rules that were needed have been taken away of late, and by whom last.
    #[must_use]
    pub fn losses(&self) -> (usize, Option<&str>) {
        self.guard.losses()
    }

    /// Takes in an event; tells every change of state.
    pub fn take(&mut self, now: Moment, event: Event) -> Vec<Transition> {
        let mut told = Vec::new();
        self.end_of_calm(now, &mut told);
        match event {
            Event::Judged(tunnels) => self.judged(now, &tunnels, &mut told),
            Event::Seen { tunnel, sight, at, what } if at > self.settled_after => {
                self.seen(&tunnel, sight, what, &mut told);
            }
            Event::Seen { .. } | Event::Tick => {}
            Event::TakenAway { by } => self.taken_by = Some(by),
            Event::RepairEnded(end) => self.ended(now, &end, &mut told),
            Event::Confirmed(how) => {
                self.move_all(TunnelState::Unconfirmed, TunnelState::Repaired, &Evidence::Confirmed(how), &mut told);
            }
            // They stay unconfirmed; that is no change.
            Event::NotConfirmed(_why) => {}
            Event::Held(held) => self.held = held,
            Event::Reset => {
                self.guard.reset();
                self.taken_by = None;
                self.move_all(TunnelState::Fighting, TunnelState::Misrouted, &Evidence::FreshStart, &mut told);
            }
        }
        told
    }

    /// What to do now.
    #[must_use]
    pub fn want(&self, now: Moment) -> Want {
        if self.mode == Mode::Report || self.held || self.repairing {
            return Want::Nothing;
        }
        if self.tunnels.values().any(is_waiting) {
            return match self.guard.next_repair() {
                next if next <= now => Want::Repair,
                next => Want::WaitUntil(next),
            };
        }
        let fights = self.tunnels.values().any(|tracked| tracked.state == TunnelState::Fighting);
        match self.guard.end_of_calm() {
            Some(end) if fights => Want::WaitUntil(end),
            _ => Want::Nothing,
        }
    }

    /// Begins a repair, if there is to be one now.
    pub fn begin(&mut self, now: Moment) -> Option<(Permit, Vec<Transition>)> {
        if self.want(now) != Want::Repair {
            return None;
        }
        self.guard.attempt(now);
        self.repairing = true;
        let mut told = Vec::new();
        for (name, tracked) in &mut self.tunnels {
            if is_waiting(tracked) {
                change(name, tracked, TunnelState::Repairing, Evidence::RepairBegan, &mut told);
            }
        }
        Some((Permit(()), told))
    }

    fn judged(&mut self, now: Moment, present: &[Health], told: &mut Vec<Transition>) {
        let taken_by = self.taken_by.take();
        let needed = present.iter().any(|health| health.wrong.as_ref().is_some_and(|wrong| wrong.curable));
        let fight = match taken_by {
            Some(by) if needed && self.mode == Mode::Fix && !self.held => self.guard.loss(now, by),
            _ => None,
        };
        for (name, tracked) in &mut self.tunnels {
            // One that is being repaired is settled by the repair's end; it is not lost from sight meanwhile.
            if !present.iter().any(|health| health.tunnel == *name) && tracked.state != TunnelState::Repairing {
                (tracked.steered, tracked.confirmed) = (false, false);
                change(name, tracked, TunnelState::Gone, Evidence::Gone, told);
            }
        }
        for health in present {
            self.judged_one(health, fight.as_ref(), told);
        }
        self.forget_gone();
    }

    /// Tunnels may come and go under ever new names.
    fn forget_gone(&mut self) {
        let gone = self.tunnels.iter().filter(|(_, tracked)| tracked.state == TunnelState::Gone);
        let names: Vec<String> = gone.map(|(name, _)| name.clone()).collect();
        for name in names.iter().take(names.len().saturating_sub(GONE_KEPT)) {
            self.tunnels.remove(name);
        }
    }

    fn judged_one(&mut self, health: &Health, fight: Option<&Evidence>, told: &mut Vec<Transition>) {
        let fresh = Tracked { state: TunnelState::Gone, curable: false, confirmed: false, steered: false };
        let tracked = self.tunnels.entry(health.tunnel.clone()).or_insert(fresh);
        if tracked.state == TunnelState::Repairing {
            return;
        }
        let tracked_before = tracked.state;
        tracked.steered = health.steered;
        tracked.confirmed &= health.steered;
        let Some(wrong) = &health.wrong else {
            tracked.curable = false;
            let to = match (health.steered, tracked.confirmed) {
                (false, _) => TunnelState::Healthy,
                (true, false) => TunnelState::Unconfirmed,
                (true, true) => TunnelState::Repaired,
            };
            let evidence = if health.steered { Evidence::RightByRules } else { Evidence::Right };
            return change(&health.tunnel, tracked, to, evidence, told);
        };
        tracked.curable = wrong.curable;
        tracked.confirmed = false;
        let evidence = Evidence::Answers(wrong.what.clone());
        let to = match (tracked_before, fight) {
            (_, Some(_)) if wrong.curable => TunnelState::Fighting,
            (TunnelState::Fighting, _) => TunnelState::Fighting,
            _ if self.mode == Mode::Report => TunnelState::Misrouted,
            // It stays failed until a repair was tried again: the guard says when.
            (TunnelState::Failed, _) => TunnelState::Failed,
            _ if !wrong.curable => TunnelState::Failed,
            _ => TunnelState::Misrouted,
        };
        let evidence = match (to, fight) {
            (TunnelState::Fighting, Some(fight)) => fight.clone(),
            _ => evidence,
        };
        change(&health.tunnel, tracked, to, evidence, told);
    }

    fn seen(&mut self, tunnel: &str, sight: Sight, what: String, told: &mut Vec<Transition>) {
        let Some(tracked) = self.tunnels.get_mut(tunnel) else { return };
        use TunnelState::{Healthy, Misrouted, Repaired, Suspected, Unconfirmed};
        let (to, evidence) = match (sight, tracked.state) {
            (Sight::WrongLookup, Healthy | Repaired | Unconfirmed) => (Suspected, Evidence::Lookup(what)),
            (Sight::WrongPacket, Healthy | Repaired | Unconfirmed | Suspected) => (Misrouted, Evidence::Packet(what)),
            (Sight::RightPacket, Unconfirmed) => {
                tracked.confirmed = true;
                (Repaired, Evidence::Confirmed(what))
            }
            _ => return,
        };
        // Whether a rule would cure it is not known before the kernel was asked.
        tracked.curable &= to != Misrouted;
        change(tunnel, tracked, to, evidence, told);
    }

    fn ended(&mut self, now: Moment, end: &RepairEnd, told: &mut Vec<Transition>) {
        self.repairing = false;
        self.guard.ended(matches!(end, RepairEnd::Applied { .. }));
        match end {
            RepairEnd::Applied { rules } => {
                self.settled_after = now + SETTLING;
                let evidence = Evidence::Added { rules: *rules };
                for tracked in self.tunnels.values_mut().filter(|tracked| tracked.state == TunnelState::Repairing) {
                    (tracked.steered, tracked.curable) = (true, false);
                }
                self.move_all(TunnelState::Repairing, TunnelState::Unconfirmed, &evidence, told);
            }
            RepairEnd::Failed(why) => {
                let evidence = Evidence::Failed(why.clone());
                self.move_all(TunnelState::Repairing, TunnelState::Failed, &evidence, told);
            }
        }
    }

    /// A fight that was left alone for long enough is tried once more.
    fn end_of_calm(&mut self, now: Moment, told: &mut Vec<Transition>) {
        if self.guard.end_of_calm().is_some_and(|end| end <= now) {
            self.guard.calm();
            self.move_all(TunnelState::Fighting, TunnelState::Misrouted, &Evidence::CalmOver, told);
        }
    }

    fn move_all(&mut self, from: TunnelState, to: TunnelState, evidence: &Evidence, told: &mut Vec<Transition>) {
        for (name, tracked) in self.tunnels.iter_mut().filter(|(_, tracked)| tracked.state == from) {
            tracked.confirmed = to == TunnelState::Repaired;
            change(name, tracked, to, evidence.clone(), told);
        }
    }
}

/// Does it wait for a repair?
fn is_waiting(tracked: &Tracked) -> bool {
    tracked.curable && matches!(tracked.state, TunnelState::Misrouted | TunnelState::Failed)
}

fn change(name: &str, tracked: &mut Tracked, to: TunnelState, evidence: Evidence, told: &mut Vec<Transition>) {
    let from = std::mem::replace(&mut tracked.state, to);
    if from != to {
        told.push(Transition { tunnel: name.into(), from, to, evidence });
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
