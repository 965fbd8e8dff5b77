//! A running trace: events in, lines out.

mod accompanied;

pub use accompanied::{Accompanied, Job, Phases};

use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::time::MissedTickBehavior;

use super::Asked;
use super::command::Running;
use super::sink::Sink;
use super::symbols::Reader;
use crate::commands::assess::{Access, Host};
use crate::commands::attach;
use crate::commands::failure::Failure;
use crate::commands::output::Printed;
use crate::commands::settings::Settings;
use crate::commands::signals::Signals;
use crate::core::filter::Filter;
use crate::core::flows::{Associations, Case, Flows};
use crate::core::live::{self, Others, View, Watch};
use crate::core::model::SecurityAssociation;
use crate::core::observation::{Act, LookupKind, Observation, Totals};
use crate::core::origin;
use crate::core::report::trace::{CommandReport, HookReport, SCHEMA, Start, Summary, TraceLine, Watched};
use crate::core::report::{Outcome, VERSION};
use crate::core::story::{Teller, WallClock};
use crate::core::walk::Fib;
use crate::system::bpf::{HookStatus, Tracer};
use crate::system::ready_file::ReadyFile;
use crate::system::{host, namespace};

/// Rules and routes are read again before new events are judged, but not more often than this.
const REFRESH: Duration = Duration::from_millis(200);
/// And this often without events: a prefix that BGP learns later is not watched, and makes none.
const LOOK_AROUND: Duration = Duration::from_secs(1);
/// How often stories that have settled are looked for.
const STORIES: Duration = Duration::from_millis(200);
/// How often other namespaces are looked at.
const SURVEY: Duration = Duration::from_secs(5);

/// A running trace.
pub struct Session<'a> {
    pub(super) settings: &'a Settings,
    pub(super) asked: Asked<'a>,
    filter: Filter,
    access: Access,
    pub(super) host: Host,
    watches: Vec<Watch>,
    pub(super) tracer: Tracer,
    teller: Teller,
    flows: Flows,
    others: Others,
    symbols: Reader,
    associations_before: Vec<SecurityAssociation>,
    pub(super) clock: WallClock,
    sink: Sink,
    refreshed: Instant,
    surveyed: Instant,
    told: u64,
}

/// Why a trace ends.
enum End {
    /// Its time is over, enough came, or a signal.
    Done,
    /// The command ended.
    Command(CommandReport),
    /// Nobody reads any more.
    ReaderGone,
}

/// What the live view shows of a session.
impl<'a> Session<'a> {
    /// Waits for events. May be cancelled.
    pub(super) async fn next(&mut self, into: &mut Vec<Observation>) -> Result<(), Failure> {
        self.tracer.next(into).await.map_err(|error| attach::bpf_failure("read the kernel's events", &error))
    }

    /// Takes an event without telling it as a line.
    pub(super) fn take(&mut self, observation: &Observation) {
        self.note(observation);
        let view = View {
            snapshot: &self.host.snapshot,
            watches: &self.watches,
            knows_outcomes: self.tracer.knows_outcomes(),
            others: &self.others,
        };
        // The verdicts go on; their lines are the screen's.
        drop(self.teller.tell(&view, &self.host.clues, observation));
    }

    /// Takes the counts so far.
    pub(super) fn count(&mut self, totals: &Totals) {
        self.flows.counted(&totals.flows);
    }
}

impl<'a> Session<'a> {
    /// Everything is attached; nothing was told yet.
    pub fn new(
        settings: &'a Settings,
        asked: Asked<'a>,
        access: Access,
        host: Host,
        watches: Vec<Watch>,
        tracer: Tracer,
        sink: Sink,
    ) -> Self {
        let clock = WallClock { offset_ns: i128::try_from(host::wall_clock_offset().as_nanos()).unwrap_or(0) };
        Self {
            settings,
            filter: asked.filter(),
            others: if asked.every_namespace { namespace::survey() } else { Others::default() },
            asked,
            access,
            teller: Teller::new(clock, watches.len()),
            watches,
            tracer,
            flows: Flows::default(),
            symbols: Reader::start(),
            associations_before: host.associations.clone().unwrap_or_default(),
            host,
            clock,
            sink,
            refreshed: Instant::now(),
            surveyed: Instant::now(),
            told: 0,
        }
    }

    /// Tells what is seen until the end, and what it was altogether.
    ///
    /// # Errors
    /// The kernel's events or the host cannot be read, the lines not be written, or the command not be started.
    pub async fn run(mut self, signals: Signals) -> Result<Outcome, Failure> {
        let began = Instant::now();
        let start = TraceLine::Start(self.start());
        if self.print(&start)? == Printed::ReaderGone {
            return Ok(Outcome::Ok);
        }
        let ready = self.asked.args.ready_file.as_ref().map(|path| {
            ReadyFile::write(path).map_err(|error| Failure::of(&format!("write {}", path.display()), &error))
        });
        let _ready = ready.transpose()?;
        let mut command = Running::start(&self.asked.args.command, self.settings.output.is_json())?;
        let end = self.follow(signals, began, &mut command).await;
        let report = match (&end, &mut command) {
            (Ok(End::Command(report)), _) => Some(report.clone()),
            (_, Some(command)) => Some(command.finish().await?),
            (_, None) => None,
        };
        let end = end?;
        let summary = self.summary(began, report)?;
        let outcome = summary.outcome;
        if !matches!(end, End::ReaderGone) {
            self.print(&TraceLine::Summary(summary))?;
        }
        Ok(outcome)
    }

    pub(super) fn start(&self) -> Start {
        let name = |index: &u32| self.host.snapshot.device_name(*index);
        Start {
            schema: SCHEMA.into(),
            version: VERSION.into(),
            time: self.clock.tell(host::monotonic_ns()),
            host: self.host.snapshot.host.clone(),
            netns: self.host.snapshot.netns.clone(),
            every_netns: self.asked.every_namespace,
            hooks: self.tracer.hooks().iter().map(hook_report).collect(),
            knows_outcomes: self.tracer.knows_outcomes(),
            watched: self
                .watches
                .iter()
                .map(|watch| Watched { prefix: watch.prefix, tunnels: watch.tunnels.iter().map(name).collect() })
                .collect(),
        }
    }

    /// Tells events as they come, until the end.
    async fn follow(
        &mut self,
        mut signals: Signals,
        began: Instant,
        command: &mut Option<Running>,
    ) -> Result<End, Failure> {
        let period = self.asked.args.period;
        let deadline = period.and_then(|period| began.checked_add(period)).map(tokio::time::Instant::from_std);
        let mut look_around = ticking(LOOK_AROUND);
        let mut stories = ticking(STORIES);
        let mut seen = Vec::new();
        let mut over = None;
        loop {
            let expired = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let ended = async {
                match command.as_mut() {
                    Some(command) => command.end().await,
                    None => std::future::pending().await,
                }
            };
            let mut settled = false;
            tokio::select! {
                biased;
                signal = signals.next() => match command.as_ref() {
                    // It decides for itself what the signal means; the trace ends with it.
                    Some(command) => command.forward(signal),
                    None => over = Some(End::Done),
                },
                () = expired => over = Some(End::Done),
                report = ended => over = Some(End::Command(report?)),
                _ = look_around.tick() => self.refresh().await?,
                _ = stories.tick() => settled = true,
                events = self.tracer.next(&mut seen) => {
                    events.map_err(|error| attach::bpf_failure("read the kernel's events", &error))?;
                }
            }
            if over.is_some() {
                // What came between the last wake-up and the end is told too.
                self.tracer
                    .drain(&mut seen)
                    .map_err(|error| attach::bpf_failure("read the kernel's events", &error))?;
            }
            if let Some(end) = self.tell(&mut seen).await? {
                return Ok(end);
            }
            if settled && let Some(end) = self.tell_stories(host::monotonic_ns())? {
                return Ok(end);
            }
            if let Some(end) = over {
                return Ok(self.tell_stories(u64::MAX)?.unwrap_or(end));
            }
        }
    }

    /// Tells what was seen; the end if enough was told or nobody reads.
    async fn tell(&mut self, seen: &mut Vec<Observation>) -> Result<Option<End>, Failure> {
        if seen.is_empty() {
            return Ok(None);
        }
        self.refresh().await?;
        for observation in seen.drain(..) {
            self.note(&observation);
            let view = View {
                snapshot: &self.host.snapshot,
                watches: &self.watches,
                knows_outcomes: self.tracer.knows_outcomes(),
                others: &self.others,
            };
            let mut lines = self.teller.tell(&view, &self.host.clues, &observation);
            lines.retain(|line| self.filter.passes(line));
            for line in &lines {
                if self.print(line)? == Printed::ReaderGone {
                    return Ok(Some(End::ReaderGone));
                }
            }
            self.told += u64::from(!lines.is_empty());
            if self.asked.args.limit.is_some_and(|limit| self.told >= limit) {
                return Ok(Some(End::Done));
            }
        }
        Ok(None)
    }

    /// Puts an observation into its flow's story.
    fn note(&mut self, observation: &Observation) {
        match observation {
            Observation::Flow(event) => {
                let symbols = self.symbols.get();
                let functions = || event.stack.iter().filter_map(|address| symbols.function(*address));
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

    /// Tells the stories that have settled by this time.
    fn tell_stories(&mut self, now_ns: u64) -> Result<Option<End>, Failure> {
        let due = self.flows.due(now_ns);
        if due.is_empty() {
            return Ok(None);
        }
        let totals = attach::totals(&self.tracer)?;
        self.flows.counted(&totals.flows);
        let told_at = host::monotonic_ns();
        let mut lines: Vec<TraceLine> = self.with_case(|flows, case| {
            let lines = due.into_iter().filter_map(|index| flows.tell(index, case, told_at));
            lines.map(|line| TraceLine::Story(Box::new(line))).collect()
        });
        lines.retain(|line| self.filter.passes(line));
        for line in &lines {
            if self.print(line)? == Printed::ReaderGone {
                return Ok(Some(End::ReaderGone));
            }
        }
        Ok(None)
    }

    pub(super) fn with_case<T>(&mut self, work: impl FnOnce(&mut Flows, &Case<'_>) -> T) -> T {
        let view = View {
            snapshot: &self.host.snapshot,
            watches: &self.watches,
            knows_outcomes: self.tracer.knows_outcomes(),
            others: &self.others,
        };
        let symbols = self.symbols.get();
        let case = Case {
            view: &view,
            fib: &Fib::new(&self.host.snapshot),
            clues: &self.host.clues,
            associations: Associations {
                now: self.host.associations.as_deref().ok(),
                before: &self.associations_before,
            },
            reasons: self.tracer.drop_reasons(),
            function: &|address| symbols.function(address).map(str::to_owned),
            clock: self.clock,
        };
        work(&mut self.flows, &case)
    }

    pub(super) fn summary(&mut self, began: Instant, command: Option<CommandReport>) -> Result<Summary, Failure> {
        let totals = attach::totals(&self.tracer)?;
        self.flows.counted(&totals.flows);
        let stories = self.with_case(|flows, case| flows.reports(case));
        let view = View {
            snapshot: &self.host.snapshot,
            watches: &self.watches,
            knows_outcomes: self.tracer.knows_outcomes(),
            others: &self.others,
        };
        let mut summary = self.teller.summary(&view, &totals, host::monotonic_ns(), began.elapsed().as_secs_f64());
        summary.stories = stories;
        summary.stories_untold = self.flows.untold();
        summary.command = command;
        Ok(self.filter.of_summary(summary))
    }

    /// Events mean that something may have changed: a hit is judged by the rules that stand now, and by the tunnels and
    /// prefixes there are now.
    pub(super) async fn refresh(&mut self) -> Result<(), Failure> {
        if self.refreshed.elapsed() < REFRESH {
            return Ok(());
        }
        self.refreshed = Instant::now();
        if self.asked.every_namespace && self.surveyed.elapsed() >= SURVEY {
            self.surveyed = Instant::now();
            self.others = namespace::survey();
        }
        // A device named with --tunnel may be gone for a moment: the last state still explains what is seen.
        let Some(host) = Host::read_again(&self.access, self.settings, &[]).await? else { return Ok(()) };
        self.host = host;
        let destinations = self.asked.destinations(&self.host);
        let added = live::rebind(&mut self.watches, &destinations);
        if added > 0 {
            let further: Vec<IpNet> = self.watches.iter().rev().take(added).rev().map(|watch| watch.prefix).collect();
            let holes = self.asked.holes(&self.host, &destinations);
            self.tracer
                .watch_too(&further, &holes)
                .map_err(|error| attach::bpf_failure("watch further prefixes", &error))?;
            self.teller.extend_to(self.watches.len());
        }
        Ok(())
    }

    pub(super) fn print(&mut self, line: &TraceLine) -> Result<Printed, Failure> {
        self.sink.line(line)
    }
}

pub(super) fn ticking(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

fn hook_report(hook: &HookStatus) -> HookReport {
    HookReport { name: hook.name.to_string(), attached: hook.attached, why: hook.note.clone() }
}
