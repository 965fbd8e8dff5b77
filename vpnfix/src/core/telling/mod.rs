//! A trace as values: steps in, lines out. A running trace takes its steps from the kernel, a replayed one from a file;
//! what is told of them is made here alone, so that both tell the same.

mod basis;
mod why;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::filter::Filter;
use super::flows::{Associations, Case, Flows};
use super::model::SecurityAssociation;
use super::observation::{Act, FlowKey, LookupKind, Observation, Tally, Totals};
use super::origin;
use super::report::trace::{CommandReport, HookReport, SCHEMA, Start, Summary, TraceLine, Watched};
use super::story::{Teller, WallClock};
use super::walk::Fib;

pub use basis::{Basis, Part};
pub use why::Why;

/// What holds for the whole of a trace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Version of the vpnfix that traces.
    pub vpnfix: String,
    /// When everything was attached, nanoseconds of `CLOCK_MONOTONIC`.
    pub began_ns: u64,
    /// From that clock to the wall clock.
    pub clock: WallClock,
    /// Other namespaces are told of too.
    pub every_netns: bool,
    /// The hooks.
    pub hooks: Vec<HookReport>,
    /// The outcome of whole walks is seen, not only each table's.
    pub knows_outcomes: bool,
    /// The kernel's names of its reasons for dropping packets.
    pub reasons: Vec<(i32, String)>,
    /// Which lines are told.
    pub filter: Filter,
}

/// What comes in, in the order in which it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The host was read again: the parts that changed.
    Basis(Vec<Part>),
    /// Functions of the kernel, by addresses that the next observations or counts name.
    Names(Vec<(u64, String)>),
    /// Something was seen.
    Seen(Observation),
    /// Counts of flows were read: those that changed.
    Counted(Vec<(FlowKey, Tally)>),
    /// It was time to tell the stories that had settled by `settled_ns`, and it was `now_ns`.
    Stories {
        /// Nanoseconds of `CLOCK_MONOTONIC`; the largest number settles all.
        settled_ns: u64,
        /// The same clock.
        now_ns: u64,
    },
}

/// How a trace ends: what the summary is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// When, nanoseconds of `CLOCK_MONOTONIC`.
    pub now_ns: u64,
    /// How long the trace ran, in nanoseconds.
    pub ran_ns: u64,
    /// Everything that was counted.
    pub totals: Totals,
    /// The command that was run, if one was.
    pub command: Option<CommandReport>,
}

/// A trace as far as it came.
#[derive(Debug)]
pub struct Telling {
    setup: Setup,
    basis: Basis,
    associations_before: Vec<SecurityAssociation>,
    teller: Teller,
    flows: Flows,
    names: HashMap<u64, String>,
    ways: why::Ways,
}

/// Most names of functions that are kept: the kernel has fewer places that a call may come from than would fit.
const NAMES_MAX: usize = 1 << 16;

impl Telling {
    /// Nothing was seen yet. The first step must be the basis.
    #[must_use]
    pub fn new(setup: Setup, basis: Basis) -> Self {
        Self {
            teller: Teller::new(setup.clock, basis.watches.len()),
            associations_before: basis.associations.clone().unwrap_or_default(),
            setup,
            basis,
            flows: Flows::default(),
            names: HashMap::new(),
            ways: why::Ways::default(),
        }
    }

    /// What is judged by now.
    #[must_use]
    pub fn basis(&self) -> &Basis {
        &self.basis
    }

    /// What holds for all of it.
    #[must_use]
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The first line.
    #[must_use]
    pub fn start(&self) -> Start {
        let Setup { vpnfix, began_ns, clock, every_netns, hooks, knows_outcomes, .. } = &self.setup;
        let snapshot = &self.basis.snapshot;
        let name = |index: &u32| snapshot.device_name(*index);
        let watched = self.basis.watches.iter();
        Start {
            schema: SCHEMA.into(),
            version: vpnfix.clone(),
            time: clock.tell(*began_ns),
            host: snapshot.host.clone(),
            netns: snapshot.netns.clone(),
            every_netns: *every_netns,
            hooks: hooks.clone(),
            knows_outcomes: *knows_outcomes,
            watched: watched
                .map(|watch| Watched { prefix: watch.prefix, tunnels: watch.tunnels.iter().map(name).collect() })
                .collect(),
        }
    }

    /// Takes a step; the lines that it makes, as far as they are asked for.
    pub fn take(&mut self, step: Step) -> Vec<TraceLine> {
        let mut lines = match step {
            Step::Basis(parts) => {
                // The associations' counts change all the time.
                if parts.iter().any(Part::bears_on_rules) {
                    self.ways.forget();
                }
                self.basis.apply(parts);
                self.teller.extend_to(self.basis.watches.len());
                Vec::new()
            }
            Step::Names(names) => {
                let room = NAMES_MAX.saturating_sub(self.names.len());
                self.names.extend(names.into_iter().take(room));
                Vec::new()
            }
            Step::Seen(observation) => {
                self.note(&observation);
                let view = self.basis.view(self.setup.knows_outcomes);
                self.ways.note(&view, &observation);
                self.teller.tell(&view, &self.basis.clues, &observation)
            }
            Step::Counted(flows) => {
                self.flows.counted(&flows);
                Vec::new()
            }
            Step::Stories { settled_ns, now_ns } => {
                let due = self.flows.due(settled_ns);
                if due.is_empty() {
                    return Vec::new();
                }
                self.with_case(|flows, case| {
                    let lines = due.into_iter().filter_map(|index| flows.tell(index, case, now_ns));
                    lines.map(|line| TraceLine::Story(Box::new(line))).collect()
                })
            }
        };
        lines.retain(|line| self.setup.filter.passes(line));
        lines
    }

    /// Is there a story to tell that has settled by this time?
    #[must_use]
    pub fn has_due(&self, settled_ns: u64) -> bool {
        !self.flows.due(settled_ns).is_empty()
    }

    /// The counts that differ from those taken last.
    #[must_use]
    pub fn uncounted(&self, flows: &[(FlowKey, Tally)]) -> Vec<(FlowKey, Tally)> {
        flows.iter().filter(|(key, tally)| self.flows.tally(key) != Some(*tally)).copied().collect()
    }

    /// The last line.
    #[must_use]
    pub fn summary(&mut self, end: &End) -> Summary {
        self.flows.counted(&end.totals.flows);
        let stories = self.with_case(|flows, case| flows.reports(case));
        let view = self.basis.view(self.setup.knows_outcomes);
        // Whole nanoseconds of what a trace can last fit the number's 52 bits for a month, and its digits for longer.
        #[expect(clippy::cast_precision_loss, reason = "a run time is told in seconds")]
        let seconds = end.ran_ns as f64 / 1e9;
        let mut summary = self.teller.summary(&view, &end.totals, end.now_ns, seconds);
        summary.stories = stories;
        summary.stories_untold = self.flows.untold();
        summary.command.clone_from(&end.command);
        self.setup.filter.of_summary(summary)
    }

    /// Works with the flows, and with what they are told from.
    pub fn with_case<T>(&mut self, work: impl FnOnce(&mut Flows, &Case<'_>) -> T) -> T {
        let Self { setup, basis, associations_before, flows, names, .. } = self;
        let view = basis.view(setup.knows_outcomes);
        let case = Case {
            view: &view,
            fib: &Fib::new(&basis.snapshot),
            clues: &basis.clues,
            associations: Associations { now: basis.associations.as_deref().ok(), before: associations_before },
            reasons: &setup.reasons,
            function: &|address| names.get(&address).cloned(),
            clock: setup.clock,
        };
        work(flows, &case)
    }

    /// Why a packet of this prefix left by this device, as far as a lookup that was seen says so.
    pub fn why(&mut self, watch: u32, ifindex: u32) -> Option<Why> {
        let view = self.basis.view(self.setup.knows_outcomes);
        self.ways.why(&view, &self.basis.clues, watch, ifindex)
    }

    /// Puts an observation into its flow's story.
    fn note(&mut self, observation: &Observation) {
        match observation {
            Observation::Flow(event) => {
                let functions = || event.stack.iter().filter_map(|address| self.names.get(address).map(String::as_str));
                let by_fields = match event.key.act {
                    Act::Lookup { kind, .. } => kind,
                    _ => LookupKind::Output,
                };
                let (context, purpose) = (origin::context(functions()), origin::purpose(functions(), by_fields));
                self.flows.event(event, context, purpose);
            }
            Observation::Tcp(seen) => self.flows.state(seen),
            Observation::Lookup(_) | Observation::Packet(_) => {}
        }
    }
}
