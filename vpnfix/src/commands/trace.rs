//! `vpnfix trace`.

use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::time::MissedTickBehavior;

use super::assess::{Access, Host, in_namespace};
use super::attach;
use super::cli::TraceArgs;
use super::failure::Failure;
use super::output::Printed;
use super::settings::Settings;
use super::signals::Signals;
use crate::core::destination;
use crate::core::live::{self, View, Watch};
use crate::core::model::Family;
use crate::core::observation::Observation;
use crate::core::report::trace::{HookReport, SCHEMA, Start, TraceLine, Watched};
use crate::core::report::{Outcome, VERSION};
use crate::core::story::{Teller, WallClock};
use crate::core::walk;
use crate::core::walk::Fib;
use crate::render;
use crate::system::bpf::{Request, Tracer};
use crate::system::host;

/// Rules and routes are read again before new events are judged, but not more often than this.
const REFRESH: Duration = Duration::from_millis(200);
/// And this often without events: a prefix that BGP learns later is not watched, and makes none.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// Traces until its time is over, enough events came, or a signal ends it.
///
/// # Errors
/// The kernel cannot be traced, or the host's routing cannot be read.
pub fn run(settings: &Settings, args: &TraceArgs) -> Result<Outcome, Failure> {
    in_namespace(settings, async |access| {
        // Listened for from the beginning: a signal that comes while the programs attach must end the trace in order too.
        let signals = Signals::listen()?;
        let host = Host::read(&access, settings, &args.to).await?;
        let (watches, holes) = watched(&host, args)?;
        let tracer = attach::attach(&Request {
            watches: watches.iter().map(|watch| watch.prefix).collect(),
            holes,
            query_thread: Some(access.queries.thread_id()),
            log_level: settings.kernel_log,
            ..attach::request(&access.netns)
        })?;
        let clock = WallClock { offset_ns: i128::try_from(host::wall_clock_offset().as_nanos()).unwrap_or(0) };
        let teller = Teller::new(clock, watches.len());
        Session { settings, access, host, watches, tracer, teller, clock, refreshed: Instant::now(), told: 0 }
            .run(args, signals)
            .await
    })
}

/// What to watch, and the holes in it. With `--all` the holes are watched too, though nothing is judged there.
fn watched(host: &Host, args: &TraceArgs) -> Result<(Vec<Watch>, Vec<IpNet>), Failure> {
    let holes = destination::holes(&Fib::new(&host.snapshot), &host.destinations);
    if args.all {
        let everything = Family::ALL.map(walk::everything);
        let only_watched: Vec<IpNet> = everything.into_iter().chain(holes).collect();
        return Ok((live::watches(&host.destinations, &only_watched), Vec::new()));
    }
    host.has_destinations("trace")
        .map_err(|failure| failure.hint("name the device with --tunnel DEV, or watch everything with --all"))?;
    Ok((live::watches(&host.destinations, &[]), holes))
}

/// A running trace.
struct Session<'a> {
    settings: &'a Settings,
    access: Access,
    host: Host,
    watches: Vec<Watch>,
    tracer: Tracer,
    teller: Teller,
    clock: WallClock,
    refreshed: Instant,
    told: u64,
}

/// Why a trace ends.
enum End {
    /// Its time is over, enough came, or a signal.
    Done,
    /// Nobody reads any more.
    ReaderGone,
}

impl Session<'_> {
    async fn run(mut self, args: &TraceArgs, signals: Signals) -> Result<Outcome, Failure> {
        let began = Instant::now();
        if self.print(&TraceLine::Start(self.start()))? == Printed::ReaderGone {
            return Ok(Outcome::Ok);
        }
        let end = self.follow(args, signals, began).await?;
        let totals = attach::totals(&self.tracer)?;
        let view = View {
            snapshot: &self.host.snapshot,
            watches: &self.watches,
            knows_outcomes: self.tracer.knows_outcomes(),
        };
        let summary = self.teller.summary(&view, &totals, host::monotonic_ns(), began.elapsed().as_secs_f64());
        let outcome = summary.outcome;
        if matches!(end, End::Done) {
            self.print(&TraceLine::Summary(summary))?;
        }
        Ok(outcome)
    }

    fn start(&self) -> Start {
        let name = |index: &u32| self.host.snapshot.device_name(*index);
        Start {
            schema: SCHEMA.into(),
            version: VERSION.into(),
            time: self.clock.tell(host::monotonic_ns()),
            host: self.host.snapshot.host.clone(),
            netns: self.host.snapshot.netns.clone(),
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
    async fn follow(&mut self, args: &TraceArgs, mut signals: Signals, began: Instant) -> Result<End, Failure> {
        let deadline = args.period.and_then(|period| began.checked_add(period)).map(tokio::time::Instant::from_std);
        let mut look_around = tokio::time::interval(LOOK_AROUND);
        look_around.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = Vec::new();
        loop {
            let expired = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let over = tokio::select! {
                biased;
                () = signals.came() => true,
                () = expired => true,
                _ = look_around.tick() => {
                    self.refresh(args).await?;
                    false
                }
                events = self.tracer.next(&mut seen) => {
                    events.map_err(|error| attach::bpf_failure("read the kernel's events", &error))?;
                    false
                }
            };
            if over {
                // What came between the last wake-up and the end is told too.
                self.tracer
                    .drain(&mut seen)
                    .map_err(|error| attach::bpf_failure("read the kernel's events", &error))?;
            }
            if let Some(end) = self.tell(&mut seen, args).await? {
                return Ok(end);
            }
            if over {
                return Ok(End::Done);
            }
        }
    }

    /// Tells what was seen; the end if enough was told or nobody reads.
    async fn tell(&mut self, seen: &mut Vec<Observation>, args: &TraceArgs) -> Result<Option<End>, Failure> {
        if seen.is_empty() {
            return Ok(None);
        }
        self.refresh(args).await?;
        for observation in seen.drain(..) {
            let view = View {
                snapshot: &self.host.snapshot,
                watches: &self.watches,
                knows_outcomes: self.tracer.knows_outcomes(),
            };
            for line in self.teller.tell(&view, &self.host.clues, &observation) {
                if self.print(&line)? == Printed::ReaderGone {
                    return Ok(Some(End::ReaderGone));
                }
            }
            self.told += 1;
            if args.limit.is_some_and(|limit| self.told >= limit) {
                return Ok(Some(End::Done));
            }
        }
        Ok(None)
    }

    /// Events mean that something may have changed: a hit is judged by the rules that stand now, and by the tunnels and
    /// prefixes there are now.
    async fn refresh(&mut self, args: &TraceArgs) -> Result<(), Failure> {
        if self.refreshed.elapsed() < REFRESH {
            return Ok(());
        }
        self.refreshed = Instant::now();
        // A device named with --tunnel may be gone for a moment: the last state still explains what is seen.
        let Some(host) = Host::read_again(&self.access, self.settings, &args.to).await? else { return Ok(()) };
        self.host = host;
        let added = live::rebind(&mut self.watches, &self.host.destinations);
        if added > 0 {
            let further: Vec<IpNet> = self.watches.iter().rev().take(added).rev().map(|watch| watch.prefix).collect();
            let holes = if args.all {
                Vec::new()
            } else {
                destination::holes(&Fib::new(&self.host.snapshot), &self.host.destinations)
            };
            self.tracer
                .watch_too(&further, &holes)
                .map_err(|error| attach::bpf_failure("watch further prefixes", &error))?;
            self.teller.extend_to(self.watches.len());
        }
        Ok(())
    }

    fn print(&self, line: &TraceLine) -> Result<Printed, Failure> {
        self.settings.output.line(line, render::trace::text)
    }
}

fn hook_report(hook: &crate::system::bpf::HookStatus) -> HookReport {
    HookReport { name: hook.name.to_string(), attached: hook.attached, why: hook.note.clone() }
}
