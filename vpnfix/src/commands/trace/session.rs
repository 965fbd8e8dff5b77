//! A running trace: events in, lines out.

mod accompanied;

pub use accompanied::{Accompanied, Job, Phases};

use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::command::Running;
use super::intake::Intake;
use super::sink::Sink;
use crate::commands::failure::Failure;
use crate::commands::output::Printed;
use crate::commands::signals::Signals;
use crate::core::report::Outcome;
use crate::core::report::trace::{CommandReport, TraceLine};
use crate::system::host;
use crate::system::ready_file::ReadyFile;

/// The host is read this often without events: a prefix that BGP learns later is not watched, and makes none.
const LOOK_AROUND: Duration = Duration::from_secs(1);
/// How often stories that have settled are looked for.
const STORIES: Duration = Duration::from_millis(200);

/// A running trace.
pub struct Session<'a> {
    pub(super) intake: Intake<'a>,
    sink: Sink,
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

impl<'a> Session<'a> {
    /// Nothing was told yet.
    pub fn new(intake: Intake<'a>, sink: Sink) -> Self {
        Self { intake, sink, told: 0 }
    }

    /// Tells what is seen until the end, and what it was altogether.
    ///
    /// # Errors
    /// The kernel's events or the host cannot be read, the lines not be written, or the command not be started.
    pub async fn run(mut self, signals: Signals) -> Result<Outcome, Failure> {
        let start = TraceLine::Start(self.intake.telling.start());
        if self.print(&start)? == Printed::ReaderGone {
            return Ok(Outcome::Ok);
        }
        let args = self.intake.asked.args;
        let ready = args.ready_file.as_ref().map(|path| {
            ReadyFile::write(path).map_err(|error| Failure::of(&format!("write {}", path.display()), &error))
        });
        let _ready = ready.transpose()?;
        let mut command = Running::start(&args.command, self.intake.settings.output.is_json())?;
        let end = self.follow(signals, &mut command).await;
        let report = match (&end, &mut command) {
            (Ok(End::Command(report)), _) => Some(report.clone()),
            (_, Some(command)) => Some(command.finish().await?),
            (_, None) => None,
        };
        let end = end?;
        let summary = self.intake.finish(report)?;
        let outcome = summary.outcome;
        if !matches!(end, End::ReaderGone) {
            self.print(&TraceLine::Summary(summary))?;
        }
        Ok(outcome)
    }

    /// Tells events as they come, until the end.
    async fn follow(&mut self, mut signals: Signals, command: &mut Option<Running>) -> Result<End, Failure> {
        let period = self.intake.asked.args.period;
        let deadline = period.and_then(|period| self.intake.began().checked_add(period));
        let deadline = deadline.map(tokio::time::Instant::from_std);
        let mut look_around = ticking(LOOK_AROUND);
        let mut stories = ticking(STORIES);
        let mut seen = Vec::new();
        let mut over = None;
        loop {
            self.intake.flush()?;
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
                _ = look_around.tick() => self.intake.refresh().await?,
                _ = stories.tick() => settled = true,
                events = self.intake.next(&mut seen) => events?,
            }
            if over.is_some() || settled {
                // What came between the last wake-up and the end is told too; and a packet after its lookup.
                self.intake.drain(&mut seen);
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
    async fn tell(&mut self, seen: &mut Vec<Box<[u8]>>) -> Result<Option<End>, Failure> {
        if seen.is_empty() {
            return Ok(None);
        }
        self.intake.refresh().await?;
        for record in seen.drain(..) {
            let lines = self.intake.see(&record)?;
            if self.print_all(&lines)? == Printed::ReaderGone {
                return Ok(Some(End::ReaderGone));
            }
            self.told += u64::from(!lines.is_empty());
            if self.intake.asked.args.limit.is_some_and(|limit| self.told >= limit) {
                return Ok(Some(End::Done));
            }
        }
        Ok(None)
    }

    /// Tells the stories that have settled by this time.
    fn tell_stories(&mut self, settled_ns: u64) -> Result<Option<End>, Failure> {
        let lines = self.intake.stories(settled_ns)?;
        Ok((self.print_all(&lines)? == Printed::ReaderGone).then_some(End::ReaderGone))
    }

    fn print_all(&mut self, lines: &[TraceLine]) -> Result<Printed, Failure> {
        for line in lines {
            if self.print(line)? == Printed::ReaderGone {
                return Ok(Printed::ReaderGone);
            }
        }
        Ok(Printed::Written)
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
