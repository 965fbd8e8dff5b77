//! Bringing the object into the kernel: offsets and settings into its read-only globals, prefixes into its maps.

use std::{collections::HashSet, io, path::Path, thread};

use aya::{
    Btf, Ebpf, EbpfLoader, Endianness, include_bytes_aligned,
    maps::{Array, HashMap, LpmTrie, MapData, lpm_trie::Key},
    programs::{BtfTracePoint, FExit, ProgramError},
};
use ipnet::IpNet;
use vpnfix_common::{WATCH_NONE, WATCHES_MAX};

use super::{
    BpfError, HookStatus, Program, Request,
    error::{io_error, is_privilege, of_load, reason},
    kallsyms::{self, Functions},
    request::bitmap,
};
use crate::system::btf::{self, BtfError, Types, layout::Layout};

/// The eBPF object, built by the build script.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/vpnfix-ebpf"));

/// The size in bytes of a ring buffer that nothing goes through; aya makes it a whole page.
const SMALLEST_RING: u32 = 4096;

/// The object in the kernel, with its maps, and no program yet.
pub(super) struct Loaded {
    pub ebpf: Ebpf,
    pub layout: Layout,
    /// The programs can tell vpnfix's own queries by the call stack, not by the thread alone.
    pub knows_queries: bool,
}

/// The kernel's types: for offsets by our own reader, for attaching by aya.
pub(super) fn read_types(path: &Path) -> Result<(Layout, Btf), BpfError> {
    let bytes = btf::read(path)?;
    let types = Types::parse(&bytes).map_err(|source| BtfError::Format { path: path.to_owned(), source })?;
    let layout = Layout::resolve(&types);
    let btf = Btf::parse(&bytes, Endianness::default()).map_err(|error| BpfError::Types(Box::new(error)))?;
    Ok((layout, btf))
}

/// Loads the object: its maps are made and filled, its programs not loaded yet. The kernel's types, which loading them takes,
/// come with it: they are large, and of no use afterwards.
pub(super) fn load(request: &Request) -> Result<(Loaded, Btf), BpfError> {
    // The kernel writes the addresses out for as long as it takes to read its types.
    let (functions, types) = thread::scope(|scope| {
        let functions = request.query_thread.map(|_| scope.spawn(query_functions));
        let types = read_types(&btf::path());
        (functions.and_then(|reader| reader.join().ok().flatten()), types)
    });
    let (layout, btf) = types?;
    let mut loader = EbpfLoader::new();
    loader.btf(Some(&btf));
    let offsets: Vec<(&str, u32)> = layout.globals().collect();
    for (name, offset) in &offsets {
        loader.override_global(name, offset, true);
    }
    let settings = Settings::new(request, functions, !layout.drop_reasons().is_empty());
    settings.apply(&mut loader);
    if !request.headers {
        loader.map_max_entries("HEADERS", SMALLEST_RING);
    }
    let mut ebpf = loader.load(OBJECT).map_err(of_load)?;
    fill(&mut ebpf, request)?;
    fill_vrfs(&mut ebpf, &request.vrfs)?;
    Ok((Loaded { ebpf, layout, knows_queries: functions.is_some() }, btf))
}

/// What vpnfix's own queries are told by.
fn query_functions() -> Option<Functions> {
    kallsyms::functions().unwrap_or_else(|error| {
        tracing::debug!("/proc/kallsyms: {error}");
        None
    })
}

fn check_numbers(request: &Request) -> Result<(), BpfError> {
    let prefixes = || request.watches.iter().chain(&request.holes);
    let v4 = prefixes().filter(|prefix| matches!(prefix, IpNet::V4(_))).count();
    let got = v4.max(prefixes().count() - v4);
    if got > WATCHES_MAX as usize {
        return Err(BpfError::TooManyWatches { got, most: WATCHES_MAX });
    }
    Ok(())
}

/// The globals beside the offsets.
struct Settings {
    log_level: u8,
    words: [(&'static str, u32); 10],
    addresses: [(&'static str, u64); 6],
}

impl Settings {
    fn new(request: &Request, functions: Option<Functions>, has_drop_reason: bool) -> Self {
        let Functions { getroute4, getroute6, softirq } = functions.unwrap_or_default();
        Self {
            log_level: request.log_level,
            words: [
                ("TARGET_NETNS", request.netns.unwrap_or(0)),
                ("QUERY_THREAD", request.query_thread.unwrap_or(0)),
                ("PROBE_THREAD", request.probe.map_or(0, |probe| probe.thread)),
                ("PROBE_ICMP_ID", request.probe.map_or(0, |probe| u32::from(probe.icmp_id))),
                ("ONLY_PROTOCOL", request.protocol.map_or(0, u32::from)),
                ("ONLY_PORT", request.port.map_or(0, u32::from)),
                ("BY_FLOW", u32::from(request.by_flow)),
                ("TELL_HEADERS", u32::from(request.headers)),
                ("BY_DESTINATION", u32::from(request.by_destination)),
                ("HAS_DROP_REASON", u32::from(has_drop_reason)),
            ],
            addresses: [
                ("GETROUTE4_START", getroute4.start),
                ("GETROUTE4_END", getroute4.end),
                ("GETROUTE6_START", getroute6.start),
                ("GETROUTE6_END", getroute6.end),
                ("SOFTIRQ_START", softirq.start),
                ("SOFTIRQ_END", softirq.end),
            ],
        }
    }

    fn apply<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        loader.override_global(aya_log::LEVEL, &self.log_level, true);
        for (name, value) in &self.words {
            loader.override_global(name, value, true);
        }
        for (name, value) in &self.addresses {
            loader.override_global(name, value, true);
        }
    }
}

/// Puts the prefixes into the tries and bitmaps. Holes come last, so that a prefix that is both is a hole.
pub(super) fn fill(ebpf: &mut Ebpf, request: &Request) -> Result<(), BpfError> {
    check_numbers(request)?;
    let watches = request.watches.iter().zip(0..).map(|(prefix, index)| (*prefix, index));
    let entries: Vec<(IpNet, u32)> = watches.chain(request.holes.iter().map(|hole| (*hole, WATCH_NONE))).collect();
    let mut trie4: LpmTrie<&mut MapData, [u8; 4], u32> = map_mut(ebpf, "WATCHES4")?;
    for (prefix, watch) in &entries {
        if let IpNet::V4(prefix) = prefix {
            let key = Key::new(u32::from(prefix.prefix_len()), prefix.network().octets());
            trie4.insert(&key, watch, 0).map_err(BpfError::map("fill", "WATCHES4"))?;
        }
    }
    let mut trie6: LpmTrie<&mut MapData, [u8; 16], u32> = map_mut(ebpf, "WATCHES6")?;
    for (prefix, watch) in &entries {
        if let IpNet::V6(prefix) = prefix {
            let key = Key::new(u32::from(prefix.prefix_len()), prefix.network().octets());
            trie6.insert(&key, watch, 0).map_err(BpfError::map("fill", "WATCHES6"))?;
        }
    }
    let (v4, v6): (Vec<IpNet>, Vec<IpNet>) = request.watches.iter().partition(|prefix| matches!(prefix, IpNet::V4(_)));
    for (name, prefixes) in [("BITMAP4", v4), ("BITMAP6", v6)] {
        let mut map: Array<&mut MapData, super::request::Bitmap> = map_mut(ebpf, name)?;
        map.set(0, bitmap(prefixes.into_iter()), 0).map_err(BpfError::map("fill", name))?;
    }
    Ok(())
}

/// Makes these the VRFs that are known.
pub(super) fn fill_vrfs(ebpf: &mut Ebpf, vrfs: &[(u32, u32)]) -> Result<(), BpfError> {
    let wanted: HashSet<u64> = vrfs.iter().map(|(watch, vrf)| u64::from(*watch) << 32 | u64::from(*vrf)).collect();
    let mut map: HashMap<&mut MapData, u64, u8> = map_mut(ebpf, "VRFS")?;
    let known: HashSet<u64> = map.keys().collect::<Result<_, _>>().map_err(BpfError::map("read", "VRFS"))?;
    for gone in known.difference(&wanted) {
        map.remove(gone).map_err(BpfError::map("empty", "VRFS"))?;
    }
    for new in wanted.difference(&known) {
        map.insert(new, 1, 0).map_err(BpfError::map("fill", "VRFS"))?;
    }
    Ok(())
}

/// A map of the object, as what it is.
pub(super) fn map_mut<'a, T>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<T, BpfError>
where
    T: TryFrom<&'a mut aya::maps::Map, Error = aya::maps::MapError>,
{
    let map = ebpf.map_mut(name).ok_or(BpfError::NoMap(name))?;
    T::try_from(map).map_err(BpfError::map("open", name))
}

/// Loads a program into the kernel, which checks it. What cannot be is said in the status; only the want of privilege,
/// which would fail all of them alike, is an error.
pub(super) fn prepare(loaded: &mut Loaded, btf: &Btf, program: Program) -> Result<HookStatus, BpfError> {
    let refused = |reason| Ok(refused(program, reason));
    if !loaded.layout.has_target(program) {
        return refused("this kernel does not have it".into());
    }
    let lacking = loaded.layout.lacking(program);
    if !lacking.is_empty() {
        return refused(format!("this kernel has no usable {}", lacking.join(", ")));
    }
    match into_kernel(&mut loaded.ebpf, btf, program) {
        Ok(()) => Ok(HookStatus { program, name: program.hook(), attached: true, note: None }),
        Err(error) => {
            let code = io_error(&error);
            // A kernel may refuse trampolines to everybody, root too; a tracepoint is refused for want of privilege.
            if program != Program::FibRules
                && let Some(code) = code.filter(|code| is_privilege(*code))
            {
                return Err(BpfError::Privilege { source: io::Error::from_raw_os_error(code) });
            }
            refused(reason(program, &error))
        }
    }
}

fn refused(program: Program, reason: String) -> HookStatus {
    HookStatus { program, name: program.hook(), attached: false, note: Some(reason) }
}

fn into_kernel(ebpf: &mut Ebpf, btf: &Btf, program: Program) -> Result<(), ProgramError> {
    let handle = ebpf.program_mut(program.symbol()).ok_or(ProgramError::UnexpectedProgramType)?;
    match program {
        Program::FibRules => <&mut FExit>::try_from(handle)?.load(program.hook(), btf),
        _ => <&mut BtfTracePoint>::try_from(handle)?.load(program.hook(), btf),
    }
}

/// Attaches a program that was prepared. From then on it counts.
pub(super) fn attach(loaded: &mut Loaded, status: HookStatus) -> HookStatus {
    if !status.attached {
        return status;
    }
    let program = status.program;
    let mut attached = || -> Result<(), ProgramError> {
        let handle = loaded.ebpf.program_mut(program.symbol()).ok_or(ProgramError::UnexpectedProgramType)?;
        match program {
            Program::FibRules => <&mut FExit>::try_from(handle)?.attach().map(drop),
            _ => <&mut BtfTracePoint>::try_from(handle)?.attach().map(drop),
        }
    };
    match attached() {
        Ok(()) => status,
        Err(error) => refused(program, reason(program, &error)),
    }
}
