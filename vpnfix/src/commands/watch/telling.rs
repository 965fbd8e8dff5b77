//! Telling: lines on standard output, events in the journal, metrics, the operator's program, incidents on disk.

use std::collections::HashMap;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::TARGET;
use super::eyes::Leak;
use super::on_event::OnEvent;
use super::options::Options;
use super::session::now;
use crate::action::incidents::Incidents;
use crate::commands::assess::Host;
use crate::commands::output::{Output, Printed};
use crate::core::confirm::Confirmation;
use crate::core::finding::Finding;
use crate::core::observation::Losses;
use crate::core::report::VERSION;
use crate::core::report::fix::FixReport;
use crate::core::report::watch::{
    INCIDENT_SCHEMA, Incident, ProblemLine, RepairLine, RepairOutcome, StateLine, WatchLine, WokenBy, begins_incident,
};
use crate::core::watch::{Flood, Transition, TunnelState, Watcher};
use crate::render;
use crate::render::metrics::{Form, Metrics};
use crate::system::host;

/// Lines that wait for a reader; more are left out, for a reader that is slow must not keep a repair.
const WAITING: usize = 1024;
/// Changes of state that are told at once, and one more each second: a storm is told by its number.
const AT_ONCE: u32 = 200;
/// Problems that are told at once, and one more each ten seconds.
const PROBLEMS: u32 = 20;
/// Changes of state that an incident keeps.
const KEPT: usize = 500;
/// How long the end waits for a slow reader.
const FAREWELL: Duration = Duration::from_secs(2);

/// Tells.
pub(super) struct Teller {
    lines: Option<SyncSender<WatchLine>>,
    writer: Option<JoinHandle<()>>,
    states: Flood,
    problems: Flood,
    metrics: Metrics,
    on_event: OnEvent,
    incidents: Incidents,
    incident: Option<Open>,
    number: u64,
    findings: Vec<Finding>,
    leaked: Leak,
    /// A fight has been told.
    pub(super) fighting: bool,
}

/// An incident that is not over.
struct Open {
    name: String,
    incident: Incident,
    written: bool,
}

impl Teller {
    pub(super) fn new(output: Output, options: &Options) -> Self {
        let (lines, waiting) = sync_channel::<WatchLine>(WAITING);
        let write = move || {
            for line in waiting {
                match output.line(&line, render::watch::text) {
                    Ok(Printed::Written) => {}
                    // Nobody reads any more; the watch goes on.
                    Ok(Printed::ReaderGone) => return,
                    Err(failure) => return tracing::warn!("{}", failure.message),
                }
            }
        };
        Self {
            lines: Some(lines),
            writer: thread::Builder::new().name("vpnfix-lines".into()).spawn(write).ok(),
            states: Flood::new(AT_ONCE, Duration::from_secs(1)),
            problems: Flood::new(PROBLEMS, Duration::from_secs(10)),
            metrics: Metrics::new(),
            on_event: OnEvent::new(&options.on_event),
            incidents: options.incidents.clone(),
            incident: None,
            number: 0,
            findings: Vec::new(),
            leaked: Leak::default(),
            fighting: false,
        }
    }

    pub(super) fn configure(&mut self, options: &Options) {
        self.on_event.configure(&options.on_event);
        self.incidents = options.incidents.clone();
    }

    /// Wall-clock time now.
    pub(super) fn time(&self) -> String {
        host::wall_clock().tell(host::monotonic_ns())
    }

    /// Tells a line, everywhere that it belongs.
    pub(super) fn line(&mut self, line: WatchLine) {
        log(&line);
        if is_event(&line)
            && let Ok(json) = render::line(&line)
        {
            self.on_event.tell(json);
        }
        if let Some(lines) = &self.lines {
            // A full queue or a reader that is gone: the journal and the metrics have it.
            let _told = lines.try_send(line);
        }
    }

    /// Tells what did not work this time.
    pub(super) fn problem(&mut self, what: String) {
        if self.problems.admit(now()).is_some() {
            let line = ProblemLine { time: self.time(), what };
            self.line(WatchLine::Problem(line));
        }
    }

    /// Tells a change of state.
    pub(super) fn state(&mut self, host: &Host, transition: Transition, woken_by: WokenBy) {
        let text = transition.evidence.to_string();
        let begins = self.incident.is_none() && begins_incident(&transition);
        let mut line = StateLine { time: self.time(), transition, text, woken_by, untold: 0 };
        if begins {
            self.begin_incident(host, &line);
        }
        if let Some(open) = self.incident.as_mut().filter(|open| open.incident.states.len() < KEPT) {
            open.incident.states.push(line.clone());
        }
        if let Some(untold) = self.states.admit(now()) {
            line.untold = untold;
            self.line(WatchLine::State(line));
        }
    }

    pub(super) fn states<'a>(&mut self, states: impl Iterator<Item = (&'a str, TunnelState)>) {
        self.metrics.states(states);
    }

    pub(super) fn held(&mut self, held: bool) {
        self.metrics.held(held);
    }

    pub(super) fn resynced(&mut self) {
        self.metrics.resynced();
        self.problem("notifications were lost; everything is looked at anew".into());
    }

    pub(super) fn taken_away(&mut self, by: &str) {
        self.metrics.taken_away(by);
    }

    pub(super) fn judged(&mut self, prefixes: usize, findings: &[Finding]) {
        let unix = Duration::from_nanos(host::monotonic_ns()) + host::wall_clock_offset();
        self.metrics.judged(unix.as_secs_f64(), prefixes);
        self.findings = findings.iter().filter(|finding| finding.reason.is_wrong_way()).cloned().collect();
        if let Some(open) = self.incident.as_mut().filter(|open| open.incident.findings.is_empty()) {
            open.incident.findings = self.findings.clone();
        }
    }

    /// Takes in what leaked; gives what leaked since the incident began.
    pub(super) fn leaks(&mut self, leaks: &HashMap<String, Leak>, losses: &Losses) -> Leak {
        for (tunnel, leak) in leaks {
            self.metrics.misrouted(tunnel, leak.lookups, leak.packets, leak.bytes);
            self.leaked.packets += leak.packets;
            self.leaked.bytes += leak.bytes;
        }
        self.metrics.losses(losses);
        self.leaked
    }

    /// The rules stand.
    pub(super) fn applied(&mut self, report: &FixReport, woken_by: WokenBy, seconds: f64, leak: Leak) {
        self.metrics.repair(RepairOutcome::Applied, Some(seconds));
        if let Some(open) = &mut self.incident {
            open.incident.seconds = Some(seconds);
            open.incident.repair = Some(report.clone());
        }
        let line = RepairLine {
            rules: report.applied.clone(),
            seconds: Some(seconds),
            ..self.repair_line(RepairOutcome::Applied, woken_by, leak)
        };
        self.line(WatchLine::Repair(line));
    }

    /// Nothing stands.
    pub(super) fn not_repaired(
        &mut self,
        outcome: RepairOutcome,
        why: String,
        woken_by: WokenBy,
        report: Option<FixReport>,
    ) {
        self.metrics.repair(outcome, None);
        if let (Some(open), Some(report)) = (&mut self.incident, report) {
            open.incident.repair = Some(report);
        }
        let line = RepairLine { why: Some(why), ..self.repair_line(outcome, woken_by, self.leaked) };
        self.line(WatchLine::Repair(line));
    }

    pub(super) fn confirmations(&mut self, confirmations: &[Confirmation]) {
        self.metrics.confirmations(confirmations);
    }

    /// The confirmation has come to its end.
    pub(super) fn ended(&mut self, outcome: RepairOutcome, why: Option<String>, report: &FixReport, leak: Leak) {
        self.metrics.repair(outcome, None);
        if let Some(open) = &mut self.incident {
            open.incident.repair = Some(report.clone());
        }
        self.write_incident();
        let line = RepairLine { why, ..self.repair_line(outcome, WokenBy::Timer, leak) };
        self.line(WatchLine::Repair(line));
    }

    fn repair_line(&self, outcome: RepairOutcome, woken_by: WokenBy, leak: Leak) -> RepairLine {
        RepairLine {
            time: self.time(),
            outcome,
            rules: Vec::new(),
            woken_by,
            seconds: None,
            leaked_packets: leak.packets,
            leaked_bytes: leak.bytes,
            why: None,
            incident: self.incident.as_ref().map(|open| open.name.clone()),
        }
    }

    fn begin_incident(&mut self, host: &Host, line: &StateLine) {
        self.metrics.incident();
        self.leaked = Leak::default();
        self.number += 1;
        let stamp: String = line.time.chars().filter(char::is_ascii_alphanumeric).collect();
        let incident = Incident {
            schema: INCIDENT_SCHEMA.into(),
            version: VERSION.into(),
            began: line.time.clone(),
            woken_by: line.woken_by,
            host: host.snapshot.host.clone(),
            netns: host.snapshot.netns.clone(),
            findings: self.findings.clone(),
            states: Vec::new(),
            seconds: None,
            leaked_packets: 0,
            leaked_bytes: 0,
            repair: None,
        };
        // The process makes names of two watches differ.
        let name = format!("{stamp}-{}-{}", std::process::id(), self.number);
        self.incident = Some(Open { name, incident, written: false });
    }

    /// After a judging: an incident is over when nothing is wrong and no confirmation is under way. One that goes on is on
    /// disk all the same.
    pub(super) fn settle(&mut self, watcher: &Watcher, climbing: bool) {
        let Some(open) = &self.incident else { return };
        let wrong = watcher.states().any(|(_, state)| state.is_wrong());
        if wrong && !open.written {
            self.write_incident();
        } else if !wrong && !climbing {
            self.end_incident();
        }
    }

    /// Have rules been added in the incident that is open?
    pub(super) fn is_repaired(&self) -> bool {
        self.incident.as_ref().is_some_and(|open| open.incident.seconds.is_some())
    }

    /// The incident is over.
    pub(super) fn end_incident(&mut self) {
        self.write_incident();
        self.incident = None;
    }

    fn write_incident(&mut self) {
        let Some(open) = &mut self.incident else { return };
        (open.incident.leaked_packets, open.incident.leaked_bytes) = (self.leaked.packets, self.leaked.bytes);
        open.written = true;
        let name = open.name.clone();
        let kept = match render::document(&open.incident) {
            Ok(document) => self.incidents.keep(&name, &document).map_err(|error| {
                let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
                format!("the incident is not kept: {error}{cause}")
            }),
            Err(error) => Err(format!("the incident is not kept: {error}")),
        };
        if let Err(why) = kept {
            self.problem(why);
        }
    }

    /// Incidents, applied repairs, judgements and resyncs so far.
    pub(super) fn counts(&self) -> [u64; 4] {
        self.metrics.counts()
    }

    /// The metrics as text.
    pub(super) fn metrics(&self, form: Form) -> String {
        self.metrics.text(form).unwrap_or_default()
    }

    /// The end: what is open is written, and readers get what waits for them, within bounds.
    pub(super) async fn close(&mut self) {
        self.write_incident();
        self.on_event.farewell().await;
        drop(self.lines.take());
        let until = Instant::now() + FAREWELL;
        while self.writer.as_ref().is_some_and(|writer| !writer.is_finished()) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Is the operator's program told of it?
fn is_event(line: &WatchLine) -> bool {
    matches!(
        line,
        WatchLine::State(_) | WatchLine::Repair(_) | WatchLine::Fight(_) | WatchLine::Hold(_) | WatchLine::TakenAway(_)
    )
}

/// The line as an event of the log, with its fields.
fn log(line: &WatchLine) {
    match line {
        WatchLine::State(StateLine { transition, text, woken_by, .. }) => tracing::info!(
            target: TARGET,
            event = "state",
            tunnel = transition.tunnel.as_str(),
            from = transition.from.name(),
            to = transition.to.name(),
            woken_by = woken_by.name(),
            "{}: {}, was {}: {text}",
            transition.tunnel,
            transition.to,
            transition.from
        ),
        WatchLine::Repair(line) => tracing::info!(
            target: TARGET,
            event = "repair",
            outcome = line.outcome.name(),
            woken_by = line.woken_by.name(),
            seconds = line.seconds,
            leaked_packets = line.leaked_packets,
            leaked_bytes = line.leaked_bytes,
            incident = line.incident.as_deref(),
            "repair {}{}",
            line.outcome.name(),
            line.why.as_ref().map_or_else(String::new, |why| format!(": {why}"))
        ),
        WatchLine::TakenAway(line) => tracing::warn!(
            target: TARGET, event = "taken-away", by = line.by.as_str(), rule = line.rule.as_str(),
            remedy = line.remedy.as_deref(),
            "{} deleted a rule of vpnfix's", line.by
        ),
        WatchLine::Fight(line) => tracing::error!(
            target: TARGET, event = "fight", by = line.by.as_str(), times = line.times, remedy = line.remedy.as_str(),
            "rules that are needed are deleted again and again, last by {}; nothing more is repaired. {}",
            line.by, line.remedy
        ),
        WatchLine::Hold(line) => tracing::warn!(
            target: TARGET, event = "hold", held = line.held,
            "{}", if line.held { "held by an undo by hand" } else { "the hold is lifted" }
        ),
        WatchLine::Problem(line) => tracing::warn!(target: TARGET, event = "problem", "{}", line.what),
        other => {
            let text = render::watch::text(other, render::Palette::new(false));
            tracing::info!(target: TARGET, event = "watch", "{}", text.trim_end());
        }
    }
}
