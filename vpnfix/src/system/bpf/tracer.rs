//! The running tracer.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use aya::{
    Btf,
    maps::{Array, MapData, RingBuf},
};
use aya_log::EbpfLogger;
use ipnet::IpNet;
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    BpfError, HookStatus, Program, Request,
    load::{self, Loaded, map_mut},
    totals,
};
use crate::core::{
    decode,
    observation::{HeadersSeen, Observation, Totals},
};

/// Programs attached to the kernel. Dropping it detaches them.
pub struct Tracer {
    loaded: Loaded,
    events: RingBuf<MapData>,
    headers: RingBuf<MapData>,
    /// Readiness of `events`, made at the first wait, as it needs a runtime.
    readiness: Option<AsyncFd<OwnedFd>>,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    hooks: Vec<HookStatus>,
    undecodable: u64,
    request: Request,
}

impl Tracer {
    /// Loads the programs, attaches them and starts to count.
    ///
    /// The hooks for IPv4 tables and for transmitted packets must attach; of the others the status tells.
    ///
    /// # Errors
    ///
    /// See [`BpfError`].
    pub fn attach(request: &Request) -> Result<Self, BpfError> {
        let (mut loaded, btf) = load::load(request)?;
        let (events, headers) = (ring(&mut loaded, "EVENTS")?, ring(&mut loaded, "HEADERS")?);
        let logger = match request.log_level {
            0 => None,
            _ => EbpfLogger::init(&mut loaded.ebpf)
                .inspect_err(|error| tracing::warn!("the eBPF programs' log cannot be read: {error}"))
                .ok(),
        };
        // All are loaded before the first is attached: the kernel checks a program for much longer than it attaches it, and
        // lookups seen meanwhile without their packets would look like packets that never left.
        let mut prepared = Vec::new();
        for program in Program::ALL.into_iter().filter(|program| request.by_flow || !program.is_by_flow()) {
            prepared.push(prepare(&mut loaded, &btf, program, request)?);
        }
        drop(btf);
        give_memory_back();
        let mut hooks = Vec::new();
        for status in prepared {
            hooks.push(attach(&mut loaded, status, request)?);
        }
        Ok(Self { loaded, events, headers, readiness: None, logger, hooks, undecodable: 0, request: request.clone() })
    }

    /// Watches further prefixes, with the indices that follow those watched so far, and takes further holes. What was a
    /// hole stays one unless it is watched now.
    ///
    /// # Errors
    ///
    /// Too many prefixes, or a map that cannot be filled.
    pub fn watch_too(&mut self, watches: &[IpNet], holes: &[IpNet]) -> Result<(), BpfError> {
        self.request.watches.extend_from_slice(watches);
        self.request.holes = holes.to_vec();
        load::fill(&mut self.loaded.ebpf, &self.request)
    }

    /// Takes these for the VRFs of watched prefixes ([`Request::vrfs`]).
    ///
    /// # Errors
    ///
    /// The map cannot be read or changed.
    pub fn know_vrfs(&mut self, vrfs: Vec<(u32, u32)>) -> Result<(), BpfError> {
        if self.request.vrfs != vrfs {
            load::fill_vrfs(&mut self.loaded.ebpf, &vrfs)?;
            self.request.vrfs = vrfs;
        }
        Ok(())
    }

    /// Every hook and whether it is attached.
    #[must_use]
    pub fn hooks(&self) -> &[HookStatus] {
        &self.hooks
    }

    /// The kernel's names of its reasons for dropping packets, by number; empty where it gives none (before 5.17).
    #[must_use]
    pub fn drop_reasons(&self) -> &[(i32, String)] {
        self.loaded.layout.drop_reasons()
    }

    /// Are outcomes of whole IPv4 walks seen (`fexit` of `__fib_lookup`), where there are custom rules?
    #[must_use]
    pub fn knows_outcomes(&self) -> bool {
        self.hooks.iter().any(|hook| hook.program == Program::FibRules && hook.attached)
    }

    /// Waits until something was seen, and puts all of it into `into`.
    ///
    /// May be cancelled at any time: what is not delivered by then stays for the next call.
    ///
    /// # Errors
    ///
    /// [`BpfError::Wait`].
    pub async fn next(&mut self, into: &mut Vec<Observation>) -> Result<(), BpfError> {
        let before = into.len();
        loop {
            // The readiness is edge-triggered: what came before the wait is no edge.
            self.drain(into)?;
            if into.len() > before {
                return Ok(());
            }
            self.ready().await?;
        }
    }

    /// The same, as the kernel side's own bytes ([`decode::observation`] reads them).
    ///
    /// # Errors
    ///
    /// [`BpfError::Wait`].
    pub async fn next_records(&mut self, into: &mut Vec<Box<[u8]>>) -> Result<(), BpfError> {
        let before = into.len();
        loop {
            self.drain_records(into);
            if into.len() > before {
                return Ok(());
            }
            self.ready().await?;
        }
    }

    /// Waits until there may be events.
    async fn ready(&mut self) -> Result<(), BpfError> {
        if self.readiness.is_none() {
            let events = self.events.as_fd().try_clone_to_owned().map_err(BpfError::Wait)?;
            // SAFETY: an `OwnedFd` names the same open file for as long as it lives.
            let readiness = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) }
                .map_err(|error| BpfError::Wait(error.into()))?;
            self.readiness = Some(readiness);
            // What came before this was registered is no edge either.
            return Ok(());
        }
        let Some(readiness) = &self.readiness else { return Ok(()) };
        let mut ready = readiness.readable().await.map_err(BpfError::Wait)?;
        // Cleared before the buffer is emptied: an event that comes meanwhile makes it ready again.
        ready.clear_ready();
        Ok(())
    }

    /// Puts all that was seen so far into `into`, without waiting. Records that make no sense are counted
    /// ([`crate::core::observation::Losses::undecodable_records`]).
    ///
    /// # Errors
    ///
    /// None so far; the kernel's buffer is memory.
    pub fn drain(&mut self, into: &mut Vec<Observation>) -> Result<(), BpfError> {
        while let Some(record) = self.events.next() {
            match decode::observation(&record) {
                Ok(observation) => into.push(observation),
                Err(error) => {
                    tracing::debug!("undecodable record: {error}");
                    self.undecodable += 1;
                }
            }
        }
        self.log();
        Ok(())
    }

    /// The same as the kernel side's own bytes. One that cannot be decoded is to be told by [`Tracer::undecodable`].
    pub fn drain_records(&mut self, into: &mut Vec<Box<[u8]>>) {
        while let Some(record) = self.events.next() {
            into.push(Box::from(&*record));
        }
        self.log();
    }

    /// Counts a record that could not be decoded.
    pub fn undecodable(&mut self) {
        self.undecodable += 1;
    }

    /// Puts the headers of packets that were seen so far into `into`; none unless they were asked for.
    pub fn drain_headers(&mut self, into: &mut Vec<HeadersSeen>) {
        while let Some(record) = self.headers.next() {
            match decode::headers(&record) {
                Ok(headers) => into.push(headers),
                Err(error) => {
                    tracing::debug!("undecodable headers: {error}");
                    self.undecodable += 1;
                }
            }
        }
    }

    /// How many headers were lost on their way.
    ///
    /// # Errors
    ///
    /// [`BpfError::Map`] or [`BpfError::NoMap`].
    pub fn headers_lost(&self) -> Result<u64, BpfError> {
        totals::headers_lost(&self.loaded.ebpf)
    }

    fn log(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }

    /// Everything counted since the tracer was attached.
    ///
    /// # Errors
    ///
    /// [`BpfError::Map`] or [`BpfError::NoMap`].
    pub fn totals(&self) -> Result<Totals, BpfError> {
        let mut totals = totals::read(&self.loaded.ebpf)?;
        totals.losses.undecodable_records += self.undecodable;
        totals.passed_over.hook_runs_skipped =
            self.hooks.iter().filter_map(|hook| self.skipped_runs(hook.program)).sum();
        Ok(totals)
    }

    /// How often the kernel skipped a program since it would have interrupted itself; unknown before 5.12.
    fn skipped_runs(&self, program: Program) -> Option<u64> {
        let handle = self.loaded.ebpf.program(program.symbol())?;
        let fd = handle.fd().ok()?.as_fd();
        recursion_misses(fd)
    }
}

fn ring(loaded: &mut Loaded, name: &'static str) -> Result<RingBuf<MapData>, BpfError> {
    let map = loaded.ebpf.take_map(name).ok_or(BpfError::NoMap(name))?;
    RingBuf::try_from(map).map_err(BpfError::map("open", name))
}

/// From the program's `fdinfo` (`bpf_prog_show_fdinfo`, `kernel/bpf/syscall.c`).
fn recursion_misses(program: BorrowedFd<'_>) -> Option<u64> {
    use std::os::fd::AsRawFd as _;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
}

fn prepare(loaded: &mut Loaded, btf: &Btf, program: Program, request: &Request) -> Result<HookStatus, BpfError> {
    if program == Program::FibRules && !request.use_fexit {
        let note = Some("not asked for".into());
        return Ok(HookStatus { program, name: program.hook(), attached: false, note });
    }
    require(load::prepare(loaded, btf, program)?)
}

fn attach(loaded: &mut Loaded, status: HookStatus, request: &Request) -> Result<HookStatus, BpfError> {
    let mut status = require(load::attach(loaded, status))?;
    if status.attached && status.program == Program::FibRules {
        let mut known: Array<&mut MapData, u32> = map_mut(&mut loaded.ebpf, "OUTCOMES_KNOWN")?;
        known.set(0, 1, 0).map_err(BpfError::map("fill", "OUTCOMES_KNOWN"))?;
    }
    if status.attached && status.program == Program::Drop && loaded.layout.drop_reasons().is_empty() {
        status.note =
            Some("this kernel gives no reasons (they came with 5.17): drops are told by their function alone".into());
    }
    let tells_own = status.attached && status.program == Program::FibTable && request.query_thread.is_some();
    if tells_own && !loaded.knows_queries {
        status.note = Some("own queries are told by their thread alone: /proc/kallsyms hides its addresses".into());
    }
    Ok(status)
}

/// The kernel's types are hundreds of thousands of small pieces, which the allocator would keep for as long as the process lives.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it frees what nobody holds, and may be called at any time (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Without some hooks there is nothing to tell.
fn require(status: HookStatus) -> Result<HookStatus, BpfError> {
    if !status.attached && status.program.is_required() {
        return Err(BpfError::Required { program: status.program, reason: status.note.unwrap_or_default() });
    }
    Ok(status)
}
