//! The loop: waits for what comes first, and does what is due.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::eyes::Eyes;
use super::known::Known;
use super::options::Options;
use super::scrape::Scrape;
use super::signals::{Heard, Signals};
use super::telling::Teller;
use crate::action::hold;
use crate::action::lock::{self, Lock, LockError};
use crate::commands::assess::{Access, Host, netlink_failure};
use crate::commands::attach;
use crate::commands::failure::Failure;
use crate::commands::fix::confirmation::Ladder;
use crate::commands::settings::Settings;
use crate::commands::standing::Standing;
use crate::core::model::Rule;
use crate::core::report::Outcome;
use crate::core::report::fix::FixReport;
use crate::core::report::watch::{HoldLine, ReloadLine, Summary, TunnelNow, WatchLine, WokenBy, begins_incident};
use crate::core::watch::{Event, Ledger, Mode, Moment, Transition, TunnelState, Want, Watcher};
use crate::system::{host, service};

/// The least time between the ends of two judgings, in a storm of changes.
const BREATH: Duration = Duration::from_millis(5);
/// What did not work is tried again after this.
const AGAIN: Duration = Duration::from_millis(500);
/// How long the end waits for another vpnfix that is changing rules.
const PATIENCE: Duration = Duration::from_secs(5);

/// Now, as the kernel's events have it.
pub(super) fn now() -> Moment {
    Duration::from_nanos(host::monotonic_ns())
}

/// What woke us, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Woken {
    pub(super) by: WokenBy,
    pub(super) at: Instant,
}

/// A confirmation that is under way.
pub(super) struct Climb {
    pub(super) ladder: Ladder,
    pub(super) report: FixReport,
    pub(super) next: Instant,
}

/// A running watch.
pub(super) struct Session<'a> {
    pub(super) access: &'a Access,
    pub(super) settings: Settings,
    pub(super) options: Options,
    pub(super) host: Host,
    pub(super) eyes: Eyes,
    pub(super) watcher: Watcher,
    pub(super) ledger: Ledger,
    pub(super) teller: Teller,
    /// Why the host is to be judged.
    pub(super) woken: Option<Woken>,
    /// What the changes of state are put down to that are told now.
    pub(super) woken_now: Option<WokenBy>,
    pub(super) climb: Option<Climb>,
    /// Rules that stand for nothing any more, and since when.
    pub(super) stale: Option<(HashSet<Rule>, Instant)>,
    /// Not before this is judged again.
    pub(super) not_before: Instant,
    sign_of_life: Option<(Duration, Instant)>,
    /// Whom the host talks to.
    pub(super) surroundings: Known,
    /// The rules of an earlier run are ours from the first judging on.
    pub(super) first: bool,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        access: &'a Access,
        settings: Settings,
        options: Options,
        host: Host,
        eyes: Eyes,
        teller: Teller,
    ) -> Self {
        let watcher = Watcher::new(options.mode, options.limits);
        let interval = service::watchdog_interval();
        Self {
            access,
            settings,
            options,
            host,
            eyes,
            watcher,
            ledger: Ledger::default(),
            teller,
            woken: Some(Woken { by: WokenBy::Start, at: Instant::now() }),
            woken_now: None,
            climb: None,
            stale: None,
            not_before: Instant::now(),
            sign_of_life: interval.map(|interval| (interval, Instant::now())),
            surroundings: Known::new(),
            first: true,
        }
    }

    /// Watches until the end. What an earlier run or `fix` left is picked up first.
    pub(super) async fn run(
        mut self,
        mut signals: Signals,
        mut scrapes: mpsc::Receiver<Scrape>,
        reread: &(dyn Fn() -> Result<(Settings, Options), Failure> + Sync),
    ) -> Result<Outcome, Failure> {
        self.check_hold();
        self.reconcile().await;
        self.step().await;
        service::ready(&self.status());
        loop {
            let due = tokio::time::Instant::from_std(self.due());
            tokio::select! {
                biased;
                heard = signals.next() => match heard {
                    Heard::End => break,
                    Heard::Reload => self.reload(reread),
                },
                Some(scrape) = scrapes.recv() => self.scraped(scrape),
                heard = self.eyes.monitor.next(&mut self.eyes.changes) => {
                    heard.map_err(|error| netlink_failure("listen for changes", &error))?;
                }
                seen = self.eyes.tracer.next(&mut self.eyes.seen) => {
                    seen.map_err(|error| attach::bpf_failure("read the kernel's events", &error))?;
                }
                () = tokio::time::sleep_until(due) => {}
            }
            self.eyes
                .tracer
                .drain(&mut self.eyes.seen)
                .map_err(|error| attach::bpf_failure("read the kernel's events", &error))?;
            self.take_changes();
            self.take_seen();
            self.step().await;
        }
        self.end().await
    }

    /// Takes back what an earlier run left half done. What it left whole is picked up by the first judging.
    async fn reconcile(&mut self) {
        if self.options.mode == Mode::Report {
            return;
        }
        let outcome = match Lock::take(self.access.netns.inode) {
            // Somebody is at it: the first repair looks again.
            Err(_held) => return,
            Ok(_lock) => match Standing::read(self.access).await {
                Ok(mut standing) => standing.take_back_unfinished().await,
                Err(failure) => Err(failure),
            },
        };
        if let Err(failure) = outcome {
            self.teller.problem(failure.message);
        }
    }

    /// When something is due although nothing happens.
    fn due(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        let judging = self.woken.map(|_| self.not_before);
        let pause = match self.watcher.want(now()) {
            Want::WaitUntil(then) => Some(Instant::now() + then.saturating_sub(now())),
            _ => None,
        };
        let look = self.climb.as_ref().map(|climb| climb.next);
        let life = self.sign_of_life.map(|(_, next)| next);
        let stale = self.stale.as_ref().map(|(_, since)| *since + super::judging::GRACE);
        let surroundings = Some(self.surroundings.next());
        [judging, pause, look, life, stale, surroundings].into_iter().flatten().fold(far, Instant::min)
    }

    /// Does what is due.
    async fn step(&mut self) {
        let instant = Instant::now();
        if let Some((interval, next)) = self.sign_of_life
            && next <= instant
        {
            service::alive();
            self.sign_of_life = Some((interval, instant + interval));
        }
        if self.woken.is_none() {
            // A pause is over, or a fight: the host is looked at anew before anything is done.
            let waited = matches!(self.watcher.want(now()), Want::Repair);
            if self.event(Event::Tick) || waited {
                self.wake(WokenBy::Timer);
            }
        }
        if self.woken.is_some() && self.not_before <= instant {
            let begun = Instant::now();
            if let Err(failure) = self.judge().await {
                self.teller.problem(failure.message);
                self.wake(WokenBy::Timer);
                self.not_before = Instant::now() + AGAIN;
            } else {
                // A large host takes long to judge; it is not judged more than half of the time.
                self.not_before = self.not_before.max(Instant::now() + BREATH.max(begun.elapsed()));
            }
        }
        self.surroundings.refresh().await;
        self.look_at_climb().await;
        self.withdraw_stale().await;
    }

    /// The host is to be judged. What came first is what counts.
    pub(super) fn wake(&mut self, by: WokenBy) {
        if self.woken.is_none() {
            self.woken = Some(Woken { by, at: Instant::now() });
        }
        if by == WokenBy::Link {
            self.surroundings.hurry();
        }
        if !matches!(by, WokenBy::Lookup | WokenBy::Packet | WokenBy::Timer) {
            // What went elsewhere on purpose may go there for another reason now.
            self.eyes.dismissed.clear();
        }
    }

    /// Looks whether an undo by hand holds the repairs.
    pub(super) fn check_hold(&mut self) {
        if self.options.mode == Mode::Report {
            return;
        }
        match hold::is_set(&lock::run_directory(), self.access.netns.inode) {
            Ok(held) if held != self.watcher.is_held() => {
                self.event(Event::Held(held));
                self.teller.held(held);
                self.teller.line(WatchLine::Hold(HoldLine { time: self.teller.time(), held }));
            }
            Ok(_same) => {}
            Err(error) => self.teller.problem(Failure::of("look for a hold", &error).message),
        }
    }

    pub(super) fn tell_transitions(&mut self, transitions: Vec<Transition>) {
        if transitions.is_empty() {
            return;
        }
        let by = self.woken_now.or(self.reason()).unwrap_or(WokenBy::Timer);
        if transitions.iter().any(begins_incident) && self.teller.is_repaired() {
            // It was repaired, and now it is wrong again: that is another incident.
            self.finish_climb("something went wrong again before the confirmation came to its end");
            self.teller.end_incident();
        }
        for transition in transitions {
            self.teller.state(&self.host, transition, by);
        }
        self.teller.states(self.watcher.states());
        service::status(&self.status());
    }

    /// One line for `systemctl status`.
    fn status(&self) -> String {
        let states: Vec<String> = self.watcher.states().map(|(name, state)| format!("{name} {state}")).collect();
        let held = if self.watcher.is_held() { "held by an undo; " } else { "" };
        let tunnels = if states.is_empty() { "no tunnel".into() } else { crate::core::finding::few(&states, 8) };
        format!("{held}{tunnels}")
    }

    /// Reads the configuration again; one that is wrong leaves all as it was.
    fn reload(&mut self, reread: &(dyn Fn() -> Result<(Settings, Options), Failure> + Sync)) {
        service::reloading();
        let line = match reread() {
            Ok((settings, options)) => {
                let fixed = options.mode != self.options.mode || options.metrics != self.options.metrics;
                let why = fixed.then(|| "`fix` and `metrics` hold from the next start on".to_string());
                let (mode, metrics) = (self.options.mode, self.options.metrics);
                self.options = Options { mode, metrics, ..options };
                self.settings = settings;
                self.watcher.configure(mode, self.options.limits);
                self.teller.configure(&self.options);
                self.event(Event::Reset);
                self.host.clues = crate::system::clues::gather();
                self.wake(WokenBy::Reload);
                ReloadLine { time: self.teller.time(), taken: true, why }
            }
            Err(failure) => ReloadLine { time: self.teller.time(), taken: false, why: Some(failure.message) },
        };
        self.teller.line(WatchLine::Reload(line));
        service::ready(&self.status());
    }

    fn scraped(&mut self, scrape: Scrape) {
        self.count_leaks();
        // Whoever asked may be gone.
        let _answered = scrape.answer.send(self.teller.metrics(scrape.form));
    }

    /// Takes into the metrics what the kernel side has counted. What leaked is given back.
    pub(super) fn count_leaks(&mut self) -> super::eyes::Leak {
        match self.eyes.leaks(&self.host.snapshot) {
            Ok((leaks, totals)) => self.teller.leaks(&leaks, &totals.losses),
            Err(failure) => {
                self.teller.problem(failure.message);
                super::eyes::Leak::default()
            }
        }
    }

    async fn end(mut self) -> Result<Outcome, Failure> {
        service::stopping();
        self.finish_climb("the watch has ended");
        let undone =
            if self.options.undo_on_exit && self.options.mode == Mode::Fix { self.undo().await? } else { Vec::new() };
        let states: Vec<TunnelNow> =
            self.watcher.states().map(|(tunnel, state)| TunnelNow { tunnel: tunnel.into(), state }).collect();
        let any = |fits: fn(TunnelState) -> bool| states.iter().any(|now| fits(now.state));
        let outcome = match () {
            () if any(TunnelState::is_wrong) => Outcome::FaultFound,
            () if any(|state| state == TunnelState::Unconfirmed) && undone.is_empty() => Outcome::Unconfirmed,
            () => Outcome::Ok,
        };
        let [incidents, repairs, judgements, resyncs] = self.teller.counts();
        let time = self.teller.time();
        self.teller.line(WatchLine::Summary(Summary {
            time,
            outcome,
            tunnels: states,
            repairs,
            incidents,
            judgements,
            resyncs,
            undone,
        }));
        self.teller.close().await;
        Ok(outcome)
    }

    /// Takes back what stands, at the end.
    async fn undo(&mut self) -> Result<Vec<String>, Failure> {
        let until = Instant::now() + PATIENCE;
        let _lock = loop {
            match Lock::take(self.access.netns.inode) {
                Ok(lock) => break lock,
                Err(LockError::Held { .. }) if Instant::now() < until => tokio::time::sleep(BREATH * 10).await,
                Err(error) => return Err(Failure::of("undo at the end", &error)),
            }
        };
        let taken = Standing::read(self.access).await?.undo().await;
        for left in taken.told() {
            self.teller.problem(format!("undo at the end: {left}"));
        }
        Ok(taken.removed.iter().map(Rule::delete_command).collect())
    }
}
