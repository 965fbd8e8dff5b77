//! A trace that goes on while something is done: as `capture` needs it, with its lines kept and a timeline made.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{LOOK_AROUND, STORIES, Session, ticking};
use crate::commands::failure::Failure;
use crate::commands::known::known;
use crate::commands::signals::Signals;
use crate::commands::trace::command::Running;
use crate::commands::trace::sink::{KeptLines, Sink};
use crate::core::bundle::timeline::{BgpSource, MarkKind, Recorder, Side, SoFar, Timeline, milliseconds_between};
use crate::core::decode;
use crate::core::live::Standing;
use crate::core::observation::{Observation, TcpState};
use crate::core::report::fix::FixReport;
use crate::core::report::trace::{CommandReport, PacketCount, Summary, TraceLine};
use crate::core::verify::{self, Bgp, BgpState, Known};
use crate::render::trace::tcp_state;
use crate::system::{bgp, host, sockets};

/// How often packets are counted for the timeline.
const SAMPLE: Duration = Duration::from_millis(500);
/// How often BGP's daemon is asked: each time may start a program.
const ASKING: Duration = Duration::from_millis(1500);
/// BGP's port.
const BGP: u16 = 179;

/// What is done amid the trace.
pub enum Job {
    /// Nothing.
    Nothing,
    /// A repair. It is done by a thread of its own, as it is without a trace.
    Fix(Box<dyn FnOnce() -> Result<FixReport, Failure> + Send>),
    /// A command, until it ends or for so long.
    Command(Vec<OsString>, Option<Duration>),
}

/// How long it is traced.
#[derive(Clone, Copy, Debug)]
pub struct Phases {
    /// Before the job.
    pub before: Duration,
    /// And after it.
    pub after: Duration,
}

/// What came of it.
pub struct Accompanied {
    /// The last line.
    pub summary: Summary,
    /// What happened when.
    pub timeline: Timeline,
    /// All lines.
    pub lines: KeptLines,
    /// What the repair came to.
    pub fix: Option<Result<FixReport, Failure>>,
    /// A signal ended it before its time.
    pub interrupted: bool,
    /// The recording or the packets could not be written.
    pub unkept: Option<Failure>,
}

/// A job that runs.
enum Busy {
    Fix(oneshot::Receiver<Result<FixReport, Failure>>),
    Command(Box<Running>, Option<Instant>),
}

/// What a job came to.
enum Done {
    Fix(Box<Result<FixReport, Failure>>),
    Command(CommandReport),
}

impl Busy {
    async fn end(&mut self) -> Result<Done, Failure> {
        match self {
            Self::Fix(report) => {
                let gone = |_closed| Err(Failure::unable("fix: its thread ended without a report"));
                Ok(Done::Fix(Box::new(report.await.unwrap_or_else(gone))))
            }
            Self::Command(command, deadline) => {
                let expired = async {
                    match deadline {
                        Some(deadline) => tokio::time::sleep_until((*deadline).into()).await,
                        None => std::future::pending().await,
                    }
                };
                let ended = tokio::select! {
                    ended = command.end() => Some(ended?),
                    () = expired => None,
                };
                let report = match ended {
                    Some(report) => report,
                    None => command.finish().await?,
                };
                Ok(Done::Command(report))
            }
        }
    }
}

/// Where an accompanied trace stands.
struct Progress {
    began: Instant,
    recorder: Recorder,
    began_at: String,
    job: Option<Job>,
    running: Option<Busy>,
    /// When the present phase ends; none while the job runs.
    until: Option<Instant>,
    command: Option<CommandReport>,
    fix: Option<Result<FixReport, Failure>>,
    interrupted: bool,
    unkept: Option<Failure>,
    daemon: Option<JoinHandle<Known<Bgp>>>,
    has_daemon: bool,
}

impl Progress {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Takes what the kernel tells of BGP's connections.
    fn connection(&mut self, observation: &Observation, own: u64) {
        let Observation::Tcp(seen) = observation else { return };
        if u64::from(seen.netns) != own {
            return;
        }
        let (state, up) = (tcp_state(seen.new), seen.new == TcpState::Established);
        self.recorder.bgp(self.now(), &seen.flow.destination.to_string(), BgpSource::Tcp, state, up);
    }

    /// How BGP's connections stand at the beginning: only their changes are seen.
    fn connections(&mut self) {
        for socket in sockets::tcp().unwrap_or_default() {
            let state = match socket.state {
                verify::TcpState::Established => TcpState::Established,
                verify::TcpState::SynSent => TcpState::SynSent,
                verify::TcpState::SynReceived => TcpState::SynReceived,
                verify::TcpState::Listen | verify::TcpState::Closing => continue,
            };
            if socket.peer.port() == BGP || socket.local.port() == BGP {
                let up = state == TcpState::Established;
                self.recorder.bgp(0, &socket.peer.ip().to_string(), BgpSource::Tcp, tcp_state(state), up);
            }
        }
    }

    /// Takes what BGP's daemon said. Where there is none it is not asked again.
    fn daemon(&mut self, answer: Known<Bgp>) {
        let Ok(bgp) = answer else {
            self.has_daemon = false;
            return;
        };
        for neighbour in bgp.neighbours {
            let up = neighbour.state == BgpState::Established;
            let state = format!("{:?}", neighbour.state);
            self.recorder.bgp(self.now(), &neighbour.address.to_string(), BgpSource::Daemon, &state, up);
        }
    }

    fn ask_daemon(&mut self) {
        if self.has_daemon && self.daemon.is_none() {
            self.daemon = Some(tokio::task::spawn_blocking(|| known(bgp::neighbours())));
        }
    }

    /// The present phase is over: the job is next, or the end. False at the end.
    fn go_on(&mut self, apart: bool) -> Result<bool, Failure> {
        match self.job.take() {
            None | Some(Job::Nothing) => return Ok(false),
            Some(Job::Fix(work)) => {
                self.recorder.mark(self.now(), MarkKind::RepairBegan, "vpnfix fix");
                let (report, came) = oneshot::channel();
                let thread = std::thread::Builder::new().name("vpnfix-fix".into()).spawn(move || {
                    // Nobody waits any more only where the trace itself has failed.
                    let _unheard = report.send(work());
                });
                thread.map_err(|error| Failure::of("start the repair", &error))?;
                self.running = Some(Busy::Fix(came));
            }
            Some(Job::Command(words, period)) => {
                let told: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
                self.recorder.mark(self.now(), MarkKind::CommandBegan, told.join(" "));
                let deadline = period.and_then(|period| Instant::now().checked_add(period));
                let command = Running::start(&words, apart)?;
                self.running = command.map(|command| Busy::Command(Box::new(command), deadline));
            }
        }
        self.until = None;
        Ok(self.running.is_some())
    }

    /// The job is done: the last phase begins.
    fn done(&mut self, done: Done, after: Duration) {
        let now = self.now();
        match done {
            Done::Fix(report) => {
                if let Ok(report) = report.as_ref() {
                    for (command, time) in report.applied.iter().zip(&report.applied_at) {
                        let at = milliseconds_between(&self.began_at, time).unwrap_or(now);
                        self.recorder.mark(at, MarkKind::RuleAdded, command.clone());
                    }
                }
                self.recorder.mark(now, MarkKind::RepairEnded, "vpnfix fix");
                self.fix = Some(*report);
            }
            Done::Command(report) => {
                self.recorder.mark(now, MarkKind::CommandEnded, report.words.join(" "));
                self.command = Some(report);
            }
        }
        self.running = None;
        self.until = if self.interrupted { Some(Instant::now()) } else { Instant::now().checked_add(after) };
    }
}

impl Session<'_> {
    /// Traces before, during and after a job.
    ///
    /// # Errors
    /// The kernel's events or the host cannot be read. A repair that was begun is waited for all the same.
    pub async fn accompany(mut self, mut signals: Signals, job: Job, phases: Phases) -> Result<Accompanied, Failure> {
        let start = TraceLine::Start(self.intake.telling.start());
        self.print(&start)?;
        let began_at = self.intake.telling.setup().clock.tell(host::monotonic_ns());
        let mut progress = Progress {
            began: self.intake.began(),
            recorder: Recorder::new(began_at.clone()),
            began_at,
            job: Some(job),
            running: None,
            until: Instant::now().checked_add(phases.before),
            command: None,
            fix: None,
            interrupted: false,
            unkept: None,
            daemon: None,
            has_daemon: true,
        };
        progress.connections();
        let followed = self.keep_up(&mut signals, &mut progress, phases.after).await;
        if let Some(running) = progress.running.take() {
            let running: &mut Busy = &mut { running };
            // The trace has failed; what was begun is not left alone.
            if let Ok(Done::Fix(report)) = running.end().await {
                progress.fix = Some(*report);
            }
        }
        if let Err(failure) = followed {
            // Whoever reads that the trace has failed must not take it for a host that was left alone.
            let stands = matches!(&progress.fix, Some(Ok(fix)) if fix.rollback.is_none() && !fix.applied.is_empty());
            let told = "the repair was made all the same: `vpnfix verify` tells how it stands";
            return Err(if stands { failure.hint(told) } else { failure });
        }
        self.tell_stories(u64::MAX)?;
        let summary = self.finish(&mut progress)?;
        let now = progress.now();
        // The last sample is made from the summary's own counts, so that both say the same.
        progress.recorder.sample(now, of_summary(&summary.packets));
        self.print(&TraceLine::Summary(summary.clone()))?;
        let lines = match self.sink {
            Sink::Kept(kept) => kept,
            Sink::Standard(_) | Sink::File { .. } => KeptLines::default(),
        };
        let Progress { recorder, fix, interrupted, unkept, .. } = progress;
        Ok(Accompanied { summary, timeline: recorder.end(now), lines, fix, interrupted, unkept })
    }

    /// The summary, with which what is kept ends. A disk that takes no more of that spoils nothing else.
    fn finish(&mut self, progress: &mut Progress) -> Result<Summary, Failure> {
        let command = progress.command.take();
        if progress.unkept.is_none() {
            match self.intake.finish(command.clone()) {
                Ok(summary) => return Ok(summary),
                Err(failure) => progress.unkept = Some(failure),
            }
        }
        Ok(Summary { command, ..self.intake.summary()? })
    }

    async fn keep_up(
        &mut self,
        signals: &mut Signals,
        progress: &mut Progress,
        after: Duration,
    ) -> Result<(), Failure> {
        let (mut look_around, mut stories) = (ticking(LOOK_AROUND), ticking(STORIES));
        let (mut samples, mut asking) = (ticking(SAMPLE), ticking(ASKING));
        let mut seen = Vec::new();
        loop {
            if progress.unkept.is_none() {
                progress.unkept = self.intake.flush().err();
            }
            let (until, running, daemon) = (progress.until, &mut progress.running, &mut progress.daemon);
            let expired = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            };
            let ended = async {
                match running {
                    Some(running) => running.end().await,
                    None => std::future::pending().await,
                }
            };
            let answered = async {
                match daemon {
                    Some(daemon) => daemon.await,
                    None => std::future::pending().await,
                }
            };
            let mut settled = false;
            tokio::select! {
                biased;
                signal = signals.next() => {
                    progress.interrupted = true;
                    progress.until = Some(Instant::now());
                    match &progress.running {
                        // Both decide for themselves what the signal means, and end.
                        Some(Busy::Command(command, _)) => command.forward(signal),
                        Some(Busy::Fix(_)) => {}
                        None => progress.job = None,
                    }
                    if progress.running.is_some() {
                        progress.until = None;
                    }
                }
                done = ended => progress.done(done?, after),
                () = expired => if !progress.go_on(self.intake.settings.output.is_json())? {
                    self.intake.drain(&mut seen);
                    self.take_in(&mut seen, progress).await?;
                    return Ok(());
                },
                answer = answered => {
                    progress.daemon = None;
                    if let Ok(answer) = answer {
                        progress.daemon(answer);
                    }
                }
                _ = asking.tick() => progress.ask_daemon(),
                _ = look_around.tick() => self.intake.refresh().await?,
                _ = samples.tick() => self.sample(progress)?,
                _ = stories.tick() => {
                    self.intake.drain(&mut seen);
                    settled = true;
                }
                events = self.intake.next(&mut seen) => events?,
            }
            self.take_in(&mut seen, progress).await?;
            if settled {
                self.tell_stories(host::monotonic_ns())?;
            }
        }
    }

    async fn take_in(&mut self, seen: &mut Vec<Box<[u8]>>, progress: &mut Progress) -> Result<(), Failure> {
        let own = self.intake.telling.basis().snapshot.netns.inode;
        // What cannot be decoded is counted where it is told.
        for observation in seen.iter().filter_map(|record| decode::observation(record).ok()) {
            progress.connection(&observation, own);
        }
        self.tell(seen).await.map(drop)
    }

    fn sample(&mut self, progress: &mut Progress) -> Result<(), Failure> {
        let totals = self.intake.totals()?;
        let telling = &self.intake.telling;
        let view = telling.basis().view(telling.setup().knows_outcomes);
        let mut counts: BTreeMap<(String, Side), SoFar> = BTreeMap::new();
        for (key, tally) in &totals.packets {
            let device = view.device(Some(key.netns), key.ifindex);
            add(&mut counts, device, view.packet(key), (tally.count, tally.bytes));
        }
        progress.recorder.sample(progress.now(), counts);
        Ok(())
    }
}

fn of_summary(packets: &[PacketCount]) -> BTreeMap<(String, Side), SoFar> {
    let mut counts = BTreeMap::new();
    for count in packets {
        add(&mut counts, count.device.clone(), count.standing, (count.count, count.bytes));
    }
    counts
}

/// Only what is judged has a side: packets bound to a device by their sender have none.
fn add(counts: &mut BTreeMap<(String, Side), SoFar>, device: String, standing: Standing, (packets, bytes): (u64, u64)) {
    let side = match standing {
        Standing::Right => Side::Right,
        Standing::Wrong => Side::Misrouted,
        _ => return,
    };
    let so_far = counts.entry((device, side)).or_default();
    so_far.add(packets, bytes);
}
