//! From the kernel to the steps of a trace: what was seen, the host as it is read again, counts, names of functions.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::Asked;
use super::record::{Files, Keeping};
use super::symbols::Reader;
use crate::commands::assess::{self, Access, Host};
use crate::commands::attach;
use crate::commands::failure::Failure;
use crate::commands::settings::Settings;
use crate::core::decode;
use crate::core::live::{self, Others, Watch};
use crate::core::observation::{Act, FlowKey, Observation, Totals};
use crate::core::recording::{ByteOrder, Head, Own};
use crate::core::report::VERSION;
use crate::core::report::trace::{CommandReport, HookReport, Summary, TraceLine};
use crate::core::telling::{Basis, End, Part, Setup, Step, Telling};
use crate::core::tunnel::Tunnel;
use crate::system::bpf::{HookStatus, Tracer};
use crate::system::{host, namespace};

/// Rules and routes are read again before new events are judged, but not more often than this.
const REFRESH: Duration = Duration::from_millis(200);
/// How often other namespaces are looked at.
const SURVEY: Duration = Duration::from_secs(5);

/// A trace's eyes, and what it knows by them. Every step is kept, where that is asked for, before it is told.
pub struct Intake<'a> {
    pub(super) settings: &'a Settings,
    pub(super) asked: Asked<'a>,
    pub(super) telling: Telling,
    pub(super) tunnels: Vec<Tunnel>,
    access: Access,
    tracer: Tracer,
    symbols: Reader,
    named: HashSet<u64>,
    keeping: Keeping,
    others: Others,
    began: Instant,
    refreshed: Instant,
    surveyed: Instant,
}

impl<'a> Intake<'a> {
    /// Everything is attached; nothing was seen yet.
    ///
    /// # Errors
    /// The recording's limit does not hold the host.
    pub fn new(
        settings: &'a Settings,
        asked: Asked<'a>,
        access: Access,
        host: Host,
        watches: Vec<Watch>,
        tracer: Tracer,
        files: Files,
    ) -> Result<Self, Failure> {
        let others = if asked.every_namespace { namespace::survey() } else { Others::default() };
        let setup = setup(&asked, &tracer);
        let own = Own { process: std::process::id(), query_thread: Some(access.queries.thread_id()) };
        let abi = vpnfix_common::ABI_VERSION;
        let head = Head { abi, byte_order: ByteOrder::NATIVE, own, setup: setup.clone() };
        let (basis, tunnels) = basis(host, watches, &others);
        let first = Step::Basis(Basis::default().changes(basis.clone()));
        let telling = Telling::new(setup, basis);
        let mut keeping = files.begin(&head, asked.args.record_limit, &telling);
        keeping.step(&first)?;
        keeping.flush()?;
        let now = Instant::now();
        Ok(Self {
            settings,
            asked,
            telling,
            tunnels,
            access,
            tracer,
            symbols: Reader::start(),
            named: HashSet::new(),
            keeping,
            others,
            began: now,
            refreshed: now,
            surveyed: now,
        })
    }

    /// When everything was attached.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Waits for records of the kernel side. May be cancelled.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn next(&mut self, into: &mut Vec<Box<[u8]>>) -> Result<(), Failure> {
        self.tracer.next_records(into).await.map_err(|error| attach::bpf_failure("read the kernel's events", &error))
    }

    /// Takes those that are there, without waiting; packets' headers first, because a packet's lookup is told before it.
    pub fn drain(&mut self, into: &mut Vec<Box<[u8]>>) {
        self.keeping.fetch_packets(&mut self.tracer);
        self.tracer.drain_records(into);
    }

    /// Takes a record; the lines that it makes.
    ///
    /// # Errors
    /// It cannot be kept.
    pub fn see(&mut self, record: &[u8]) -> Result<Vec<TraceLine>, Failure> {
        let observation = match decode::observation(record) {
            Ok(observation) => observation,
            Err(error) => {
                tracing::debug!("undecodable record: {error}");
                self.tracer.undecodable();
                self.keeping.record(record);
                return Ok(Vec::new());
            }
        };
        if let Observation::Flow(event) = &observation {
            self.name(event.stack.iter().copied().chain(location(&event.key)).collect())?;
        }
        self.keeping.record(record);
        Ok(self.telling.take(Step::Seen(observation)))
    }

    /// Tells the stories that have settled by this time.
    ///
    /// # Errors
    /// The counts cannot be read.
    pub fn stories(&mut self, settled_ns: u64) -> Result<Vec<TraceLine>, Failure> {
        self.keeping.take_packets(&mut self.telling);
        if !self.telling.has_due(settled_ns) {
            return Ok(Vec::new());
        }
        self.totals()?;
        self.step(Step::Stories { settled_ns, now_ns: host::monotonic_ns() })
    }

    /// Reads the counts, and takes those of the flows.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn totals(&mut self) -> Result<Totals, Failure> {
        let totals = attach::totals(&self.tracer)?;
        let changed = self.telling.uncounted(&totals.flows);
        if !changed.is_empty() {
            self.name(changed.iter().filter_map(|(key, _)| location(key)).collect())?;
            self.step(Step::Counted(changed))?;
        }
        self.count_associations()?;
        Ok(totals)
    }

    /// Reads the security associations again, and their counts with them: after those of the flows, so that what was
    /// encrypted is never behind what was handed to the tunnel.
    fn count_associations(&mut self) -> Result<(), Failure> {
        let now = assess::associations();
        if now == self.telling.basis().associations {
            return Ok(());
        }
        self.step(Step::Basis(vec![Part::associations(now)]))?;
        Ok(())
    }

    /// Events mean that something may have changed: a hit is judged by the rules that stand now, and by the tunnels and
    /// prefixes there are now.
    ///
    /// # Errors
    /// The host cannot be read, or further prefixes not be watched.
    pub async fn refresh(&mut self) -> Result<(), Failure> {
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
        let watches = self.watch_too(&host)?;
        let (newer, tunnels) = basis(host, watches, &self.others);
        self.tunnels = tunnels;
        let changes = self.telling.basis().changes(newer);
        if !changes.is_empty() {
            self.step(Step::Basis(changes))?;
        }
        Ok(())
    }

    /// Watches what belongs into tunnels since; all that is watched then.
    fn watch_too(&mut self, host: &Host) -> Result<Vec<Watch>, Failure> {
        let destinations = self.asked.destinations(host);
        let mut watches = self.telling.basis().watches.clone();
        let added = live::rebind(&mut watches, &destinations);
        if added > 0 {
            let further: Vec<IpNet> = watches.iter().rev().take(added).rev().map(|watch| watch.prefix).collect();
            let holes = self.asked.holes(host, &destinations);
            self.tracer
                .watch_too(&further, &holes)
                .map_err(|error| attach::bpf_failure("watch further prefixes", &error))?;
        }
        let vrfs = live::vrfs(&watches, &host.tunnels);
        self.tracer.know_vrfs(vrfs).map_err(|error| attach::bpf_failure("tell the VRFs", &error))?;
        Ok(watches)
    }

    /// The summary so far; the trace goes on.
    ///
    /// # Errors
    /// The counts cannot be read.
    pub fn summary(&mut self) -> Result<Summary, Failure> {
        let end = self.end(None)?;
        Ok(self.telling.summary(&end))
    }

    /// The summary at the end, with which what is kept ends too.
    ///
    /// # Errors
    /// The counts cannot be read, or what is kept not be written.
    pub fn finish(&mut self, command: Option<CommandReport>) -> Result<Summary, Failure> {
        self.keeping.fetch_packets(&mut self.tracer);
        self.keeping.take_packets(&mut self.telling);
        let end = self.end(command)?;
        let lost = self.tracer.headers_lost();
        let lost = lost.map_err(|error| attach::bpf_failure("read the kernel's counts", &error))?;
        let left_out = self.keeping.end(&end, lost, &self.telling)?;
        if left_out.is_any() {
            tracing::warn!(
                "the recording reached its limit: {} records and {} changes of what they are judged by were left out",
                left_out.records,
                left_out.bases
            );
        }
        Ok(self.telling.summary(&end))
    }

    /// Writes what was kept so far.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.keeping.flush()
    }

    fn end(&mut self, command: Option<CommandReport>) -> Result<End, Failure> {
        let totals = self.totals()?;
        let ran_ns = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Ok(End { now_ns: host::monotonic_ns(), ran_ns, totals, command })
    }

    fn step(&mut self, step: Step) -> Result<Vec<TraceLine>, Failure> {
        self.keeping.step(&step)?;
        Ok(self.telling.take(step))
    }

    /// Finds the functions at these addresses, each but once.
    fn name(&mut self, addresses: Vec<u64>) -> Result<(), Failure> {
        let symbols = self.symbols.get();
        let mut names = Vec::new();
        for address in addresses {
            if self.named.insert(address) {
                names.extend(symbols.function(address).map(|name| (address, name.to_owned())));
            }
        }
        if !names.is_empty() {
            self.step(Step::Names(names))?;
        }
        Ok(())
    }
}

/// Where a packet was dropped.
fn location(key: &FlowKey) -> Option<u64> {
    match key.act {
        Act::Drop(place) => Some(place.location),
        _ => None,
    }
}

/// What is judged by, and the tunnels, which only the screen shows.
fn basis(host: Host, watches: Vec<Watch>, others: &Others) -> (Basis, Vec<Tunnel>) {
    let Host { snapshot, tunnels, clues, associations, .. } = host;
    (Basis { snapshot, clues, associations, watches, others: others.clone() }, tunnels)
}

fn setup(asked: &Asked<'_>, tracer: &Tracer) -> Setup {
    Setup {
        vpnfix: VERSION.into(),
        began_ns: host::monotonic_ns(),
        clock: host::wall_clock(),
        every_netns: asked.every_namespace,
        hooks: tracer.hooks().iter().map(hook_report).collect(),
        knows_outcomes: tracer.knows_outcomes(),
        reasons: tracer.drop_reasons().to_vec(),
        filter: asked.filter(),
    }
}

fn hook_report(hook: &HookStatus) -> HookReport {
    HookReport { name: hook.name.to_string(), attached: hook.attached, why: hook.note.clone() }
}
