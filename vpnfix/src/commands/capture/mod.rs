//! `vpnfix capture`: before and after evidence in one bundle. It changes the system only with `--fix`, and then as `fix`
//! does.

mod evidence;
mod state;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::assess::{Access, Asking, Host, in_namespace_asking};
use super::cli::{CaptureArgs, FixArgs, TraceArgs};
use super::failure::Failure;
use super::settings::Settings;
use super::signals::Signals;
use super::trace::record::Files;
use super::trace::session::{Accompanied, Job, Phases};
use super::trace::sink::{KeptLines, Sink};
use super::trace::{self, Asked};
use super::{fix, report};
use crate::core::bundle::contents::Changes;
use crate::core::bundle::manifest::Manifest;
use crate::core::bundle::name;
use crate::core::bundle::state::{Moment, Part, State};
use crate::core::live::Verdict;
use crate::core::report::Outcome;
use crate::core::report::diagnose::{DiagnoseReport, HostVerdict};
use crate::core::report::fix::FixReport;
use crate::system::host;
use evidence::Evidence;

/// Largest recording of a bundle.
const RECORDING_BYTES: u64 = 32 << 20;
/// How long it is traced unless told.
const PERIOD: Duration = Duration::from_secs(10);

/// Captures, and says where the bundle is.
///
/// # Errors
/// The bundle cannot be written, the host not be read, or the repair not be begun. A repair that was made stands all the
/// same, and its report is told.
pub fn run(settings: &Settings, args: &CaptureArgs, quiet: bool) -> Result<Outcome, Failure> {
    in_namespace_asking(settings, Asking::OnAThread, async |access| {
        let signals = Signals::listen()?;
        let capture = Capture { settings, args, quiet };
        capture.run(&access, signals).await
    })
}

struct Capture<'a> {
    settings: &'a Settings,
    args: &'a CaptureArgs,
    quiet: bool,
}

/// Now, RFC 3339, UTC.
fn now() -> String {
    host::wall_clock().tell(host::monotonic_ns())
}

impl Capture<'_> {
    async fn run(&self, access: &Access, signals: Signals) -> Result<Outcome, Failure> {
        let host = Host::read_for_judging(access, self.settings, &[]).await?;
        if self.args.before.is_none() {
            host.has_destinations("capture")?;
        }
        let earlier = self.args.before.as_deref().map(|path| Earlier::read(path, &host)).transpose()?;
        let began = earlier.as_ref().map_or_else(now, |earlier| earlier.began.clone());
        let manifest = Manifest::begun(host.snapshot.host.clone(), host.snapshot.netns.clone(), began);
        let mut evidence = Evidence::begin(self.args, manifest)?;
        let mut before = None;
        let mut focus = Vec::new();
        match earlier {
            Some(earlier) => {
                self.tell("the state before is that of the bundle given");
                focus = earlier.focus;
                earlier.files.into_iter().for_each(|(name, contents)| evidence.put(&name, contents));
            }
            None => {
                self.tell("taking the state before");
                let taken = state::take(access, self.settings, &focus).await?;
                focus.clone_from(&taken.focus);
                evidence.state(Moment::Before, taken.parts);
                before = taken.diagnose;
            }
        }
        evidence.save();
        let traced = self.trace(access, &host, signals, &mut evidence).await;
        let (watched, trace_failure) = match traced {
            Ok(watched) => (watched, None),
            Err(failure) => (None, Some(failure)),
        };
        if let Some(failure) = &trace_failure {
            evidence.lacks(name::TRACE, &failure.message);
            evidence.cut_short();
        }
        let after = if self.has_after() {
            self.tell("taking the state after");
            match state::take(access, self.settings, &focus).await {
                Ok(taken) => {
                    evidence.state(Moment::After, taken.parts);
                    taken.diagnose
                }
                Err(failure) => {
                    evidence.lacks("after/", &failure.message);
                    evidence.cut_short();
                    None
                }
            }
        } else {
            None
        };
        let end = End { before, after, watched, trace_failure };
        self.conclude(evidence, end)
    }

    fn has_after(&self) -> bool {
        self.args.fix || self.args.before.is_some() || !self.args.command.is_empty()
    }

    fn tell(&self, what: &str) {
        if !self.quiet {
            eprintln!("vpnfix: capture: {what}");
        }
    }

    /// Traces, with what is to be done amid that. What comes of it is put into the bundle.
    async fn trace(
        &self,
        access: &Access,
        host: &Host,
        signals: Signals,
        evidence: &mut Evidence,
    ) -> Result<Option<Accompanied>, Failure> {
        if host.destinations.is_empty() {
            evidence.lacks(name::TRACE, "nothing is routed through a tunnel, so there was nothing to watch");
            return Ok(None);
        }
        let args = TraceArgs {
            record: evidence.path_of(name::RECORDING),
            record_limit: RECORDING_BYTES,
            packets: evidence.path_of(name::PACKETS),
            ..TraceArgs::default()
        };
        let asked = Asked { args: &args, every_namespace: false, only: Vec::new() };
        // The trace reads all routes, and has ways to the kernel of its own.
        let own = Access::open(&self.settings.netns, Arc::clone(&access.queries))?;
        let whole = Host::read(&own, self.settings, &[]).await?;
        self.tell("attaching to the kernel");
        let files = match Files::create(&args) {
            Ok(files) => files,
            Err(failure) => {
                evidence.fails(failure);
                Files::create(&TraceArgs::default())?
            }
        };
        let session = trace::attached(self.settings, asked, own, whole, files, Sink::Kept(KeptLines::default()))?;
        let (job, phases) = self.plan(access);
        self.tell(&phases_told(&job, phases));
        let mut watched = session.accompany(signals, job, phases).await?;
        if let Some(failure) = watched.unkept.take() {
            evidence.fails(failure);
        }
        evidence.adopt(name::RECORDING);
        evidence.adopt(name::PACKETS);
        self.put_trace(&watched, evidence);
        Ok(Some(watched))
    }

    /// What is done, and how long it is traced before and after.
    fn plan(&self, access: &Access) -> (Job, Phases) {
        let period = self.args.period.unwrap_or(PERIOD);
        if self.args.fix {
            let (settings, args) = (self.settings.clone(), self.fix_args());
            let queries = Arc::clone(&access.queries);
            let work = move || fix::report_asking(&settings, &args, Asking::By(queries));
            return (Job::Fix(Box::new(work)), Phases { before: period / 2, after: period / 2 });
        }
        if self.args.command.is_empty() {
            return (Job::Nothing, Phases { before: period, after: Duration::ZERO });
        }
        let job = Job::Command(self.args.command.clone(), self.args.period);
        (job, Phases { before: Duration::ZERO, after: Duration::ZERO })
    }

    fn fix_args(&self) -> FixArgs {
        FixArgs {
            strategy: self.args.strategy,
            dry_run: false,
            priority: None,
            fail_closed: self.args.fail_closed,
            no_probe: self.args.no_probe,
            wait: self.args.wait,
            cure: false,
            restart: false,
        }
    }

    fn put_trace(&self, watched: &Accompanied, evidence: &mut Evidence) {
        evidence.put(name::TRACE, watched.lines.text.clone());
        if watched.lines.left_out > 0 {
            evidence.lacks(
                name::TRACE,
                format!("{} lines found no room; the summary has all counts", watched.lines.left_out),
            );
        }
        evidence.document(name::TIMELINE, &watched.timeline);
        if watched.interrupted {
            let seconds = watched.summary.seconds;
            evidence.lacks(name::TRACE, format!("it was ended by a signal after {seconds:.1} s, before its time"));
            evidence.cut_short();
        }
        match &watched.fix {
            Some(Ok(fix)) => {
                self.tell(&format!("the repair ended: {}", outcome_words(fix)));
                evidence.document(name::FIX, fix);
                evidence.document(name::CHANGES, &Changes::of(fix));
            }
            Some(Err(failure)) => {
                self.tell(&format!("no repair: {}", failure.message));
                evidence.lacks(name::FIX, &failure.message);
            }
            None if self.args.fix => evidence.lacks(name::FIX, "it was not begun"),
            None => {}
        }
        evidence.save();
    }

    /// Finishes the bundle, and says with what it ended.
    fn conclude(&self, evidence: Evidence, end: End) -> Result<Outcome, Failure> {
        let outcome = end.outcome();
        let fix = end.watched.as_ref().and_then(|watched| watched.fix.as_ref());
        let stands = fix.and_then(|fix| fix.as_ref().ok()).map(outcome_words);
        let path = evidence.finish(outcome, now(), host::unix_time()).map_err(|failure| match stands {
            Some(stands) => failure.hint(format!("the repair itself is not affected: {stands}")),
            None => failure,
        })?;
        self.tell(&format!("the bundle is {}", path.display()));
        match end.watched.map(|watched| watched.fix) {
            Some(Some(Err(failure))) => Err(failure),
            _ => match end.trace_failure {
                Some(failure) => Err(failure),
                None => Ok(outcome),
            },
        }
    }
}

fn phases_told(job: &Job, phases: Phases) -> String {
    let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    match job {
        Job::Nothing => format!("tracing for {}", seconds(phases.before)),
        Job::Fix(_) => {
            format!("tracing: {} before the repair, and {} after it", seconds(phases.before), seconds(phases.after))
        }
        Job::Command(..) => "tracing while the command runs".into(),
    }
}

fn outcome_words(fix: &FixReport) -> &'static str {
    match fix.outcome {
        Outcome::Ok if fix.applied.is_empty() => "there was nothing to do",
        Outcome::Ok => "the rules stand, and live packets confirm it",
        Outcome::Unconfirmed => "the rules stand, but not everything is repaired and confirmed",
        Outcome::RolledBack => "the change was taken back",
        Outcome::FaultFound => "nothing could be done by rules",
        Outcome::Usage | Outcome::Unable => "it could not be done",
    }
}

/// What a capture came to.
struct End {
    before: Option<DiagnoseReport>,
    after: Option<DiagnoseReport>,
    watched: Option<Accompanied>,
    trace_failure: Option<Failure>,
}

impl End {
    fn outcome(&self) -> Outcome {
        let fix = self.watched.as_ref().and_then(|watched| watched.fix.as_ref());
        match fix {
            Some(Ok(fix)) => return fix.outcome,
            Some(Err(failure)) => return failure.outcome,
            None => {}
        }
        if let Some(failure) = &self.trace_failure {
            return failure.outcome;
        }
        let verdicts = self.watched.iter().flat_map(|watched| &watched.summary.verdicts);
        let misrouted = verdicts.into_iter().any(|verdict| verdict.verdict == Verdict::Misrouted);
        // The state at the end counts, and only where there is none what was seen on the way.
        match self.after.as_ref().map(|after| after.verdict) {
            Some(HostVerdict::Healthy) => Outcome::Ok,
            Some(HostVerdict::Misrouted) => Outcome::FaultFound,
            Some(HostVerdict::Unknown) | None => {
                let wrong = self.before.as_ref().is_some_and(|before| before.verdict == HostVerdict::Misrouted);
                if misrouted || wrong { Outcome::FaultFound } else { Outcome::Ok }
            }
        }
    }
}

/// The state of a bundle that was made before.
struct Earlier {
    began: String,
    files: Vec<(String, Vec<u8>)>,
    focus: Vec<IpAddr>,
}

impl Earlier {
    fn read(path: &Path, host: &Host) -> Result<Self, Failure> {
        let bundle = report::read(path)?;
        let wrong = |why: &str| Failure::unable(format!("capture --before {}: {why}", path.display()));
        if let Some(fault) = bundle.faults().first() {
            return Err(wrong(&fault.to_string()).hint("`vpnfix report --check` tells more"));
        }
        if bundle.manifest.redacted {
            return Err(wrong("it is redacted, and stand-ins cannot be compared with what is here now"));
        }
        let here = &host.snapshot;
        if bundle.manifest.host.hostname != here.host.hostname {
            return Err(wrong(&format!("it is of another host, {:?}", bundle.manifest.host.hostname)));
        }
        let mut damaged = Vec::new();
        let state = State::read(&bundle.files, Moment::Before, &mut damaged);
        let state = state.ok_or_else(|| wrong("it has no state"))?;
        if let Some(damaged) = damaged.first() {
            return Err(wrong(damaged));
        }
        let walks = state.explain.unwrap_or_default();
        let of_state = |name: &String| Part::ALL.iter().any(|part| Moment::Before.file(*part) == *name);
        let mut files: Vec<(String, Vec<u8>)> = bundle
            .files
            .iter()
            .filter(|(name, _)| of_state(name))
            .map(|(name, contents)| (name.clone(), contents.clone()))
            .collect();
        if let Some(trace) = bundle.files.get(name::TRACE) {
            files.push((format!("{}/{}", Moment::Before.folder(), name::TRACE), trace.clone()));
        }
        let focus = walks.iter().map(|walk| walk.flow.to).collect();
        Ok(Self { began: bundle.manifest.began, files, focus })
    }
}
