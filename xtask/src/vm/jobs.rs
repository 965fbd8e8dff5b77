//! What runs in each machine: the one list of it.

use super::executables::Programs;
use crate::test::{BINARY_VARIABLE, ENGINE_CASES_VARIABLE};

/// Makes vpnfix leave `fexit` alone, so that it knows outcomes from the tracepoints only, as it must on kernels that
/// refuse trampolines.
const WITHOUT_FEXIT: (&str, &str) = ("VPNFIX_NO_FEXIT", "1");

/// Scenes that are played both ways: what they test hangs on how outcomes are known. For the others one way is enough.
const BOTH_WAYS: [&str; 7] = ["tracer", "counting", "flips", "truths", "proof", "story", "stories"];

/// The test of the golden hosts, which records them too.
pub const GOLDEN: &str = "golden";

/// The folder in the machine's own that recordings are written into.
pub const RECORDINGS: &str = "recordings";

/// Makes a scene that needs a kind of link a failure where it lacks: these kernels have all kinds.
const ALL_KINDS: (&str, &str) = ("VPNFIX_ALL_KINDS", "1");

/// Scenes about files, the journal, system calls, the terminal, the rules of others, and who made them: they hang on no kind
/// of tunnel, and a brief run plays them on the host's own kernel alone, where they take seconds instead of minutes.
const ON_ANY_KERNEL: [&str; 24] = [
    "audit",
    "bad_cases",
    "capture",
    "careless",
    "chaos",
    "coexistence",
    "cure",
    "documents",
    "engine",
    "explain",
    "faults",
    "guards",
    "journals",
    "kill",
    "live_view",
    "main_first",
    "metrics",
    "netlink",
    "persist",
    "races",
    "recordings",
    "trace_options",
    "watch",
    "many",
];

/// Scenes that a brief run leaves out everywhere: further VPNs with daemons of their own, each of which takes an emulated
/// machine minutes to start.
const IN_FULL_RUNS: [&str; 3] = ["vpn_capture", "vpn_story", "vpn_variants"];

/// Tells the VPN's scenes where the Debian root with its daemons lies.
const VPN_ROOT: &str = "VPNFIX_VPN_ROOT";

/// What real tunnels, and the VPN's scenes, need; loaded first, because the first load is the slowest.
const MODULES: [&str; 15] = [
    "overlay",
    "nft_chain_nat",
    "nf_tables",
    "ip_vti",
    "ip6_vti",
    "xfrm_interface",
    "xfrm_user",
    "esp4",
    "esp6",
    "veth",
    "dummy",
    "bridge",
    "vrf",
    "wireguard",
    "tcp_diag",
];

/// How long the engine's test may go on making cases, and how many it may make: in an emulated machine the first counts, in
/// a fast one the second.
const ENGINE_SECONDS: (&str, &str) = ("VPNFIX_ENGINE_SECONDS", "60");
const ENGINE_CASES: (&str, &str) = (ENGINE_CASES_VARIABLE, "4000");

/// How many runs the test of kills makes; the tests of faults and races then try less as well. The host's own kernel sees
/// them all.
const KILL_RUNS: (&str, &str) = ("VPNFIX_KILL_RUNS", "14");

/// The longest was seen to take 575 s beside the tests in namespaces.
const SCENE_LIMIT: u64 = 900;

/// The VPN with real daemons, and its faults one after another.
const VPN: &str = "vpn";
const VPN_LIMIT: u64 = 1200;

/// One command in a machine.
pub struct Job {
    /// A word that names it in the log, and names its files.
    pub name: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// What is added to the environment.
    pub env: Vec<(String, String)>,
    /// After how many seconds it is ended; times the series' patience.
    pub limit: u64,
}

impl Job {
    pub(super) fn new<S: Into<String>>(name: impl Into<String>, limit: u64, argv: impl IntoIterator<Item = S>) -> Self {
        let argv = argv.into_iter().map(Into::into).collect();
        // A scene that is skipped in a machine made for it is a failure.
        Self { name: name.into(), argv, env: Vec::new(), limit }.with(("CI", "true"))
    }

    fn with(mut self, (name, value): (&str, &str)) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// How much runs in a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Every scene.
    All,
    /// Every scene but those that the host's own kernel shows as well, and those of full runs.
    Thorough,
    /// Load, attach, trace, fix: `doctor`, and the lab's play both ways.
    Brief,
    /// The scenes that were named, and nothing else.
    Named,
}

impl Extent {
    /// In a brief run only the lab's play is: the host's own kernel may be one that knows outcomes from the tracepoints alone.
    fn plays_both_ways(self, scene: &str) -> bool {
        matches!(self, Self::All | Self::Named) && BOTH_WAYS.contains(&scene)
    }

    fn has(self, scene: &str) -> bool {
        match self {
            Self::All | Self::Named => true,
            Self::Thorough => !ON_ANY_KERNEL.contains(&scene) && !IN_FULL_RUNS.contains(&scene),
            Self::Brief => false,
        }
    }
}

/// All scenes of one kernel are shared among so many machines: in one alone they would take twice as long, while the
/// host's second processor waits.
const SHARES: usize = 2;

/// The jobs of each machine of a kernel, in their order.
pub fn all(programs: &Programs, extent: Extent) -> Vec<Vec<Job>> {
    let shares = match extent {
        Extent::All | Extent::Thorough => SHARES,
        Extent::Brief | Extent::Named => 1,
    };
    let mut machines: Vec<Vec<Job>> = (0..shares).map(|_| preparation(programs)).collect();
    for (index, job) in plays(programs, extent).into_iter().enumerate() {
        if let Some(jobs) = machines.get_mut(index % shares) {
            jobs.push(job);
        }
    }
    machines
}

/// The jobs of a machine that boots a system of its own.
pub fn with_system(job: Job) -> Vec<Job> {
    vec![Job::new("modules", 180, ["modprobe", "-a"].into_iter().chain(MODULES)), job]
}

/// What shows that a machine can play the scenes.
fn preparation(programs: &Programs) -> Vec<Job> {
    vec![
        Job::new("program", 60, ["bash", "-c", INTO_MEMORY, "bash", programs.vpnfix.as_str()]),
        Job::new("modules", 180, ["modprobe", "-a"].into_iter().chain(MODULES)),
        Job::new("btf", 20, ["stat", "--format=%n %s bytes", "/sys/kernel/btf/vmlinux"]),
        Job::new("vti", 20, VTI.split(' ')),
        Job::new("esp", 120, ESP.split('|')),
        Job::new("doctor", 60, [programs.vpnfix.as_str(), "doctor"]),
    ]
}

fn plays(programs: &Programs, extent: Extent) -> Vec<Job> {
    let vpnfix = programs.vpnfix.as_str();
    let lab = |name: &str| Job::new(name, 240, [vpnfix, "lab", "run"]);
    let mut jobs = match extent {
        Extent::Named => Vec::new(),
        Extent::All | Extent::Thorough | Extent::Brief => {
            vec![lab("lab"), lab("lab-without-fexit").with(WITHOUT_FEXIT)]
        }
    };
    for scene in programs.scenes.iter().filter(|scene| extent.has(&scene.name)) {
        let job = |name: String| {
            let limit = if scene.name == VPN { VPN_LIMIT } else { SCENE_LIMIT };
            let mut argv = vec![scene.path.as_str()];
            if extent == Extent::Named {
                // Someone looks at it: where one hangs is seen in its file while it hangs.
                argv.push("--nocapture");
            }
            let job = Job::new(name, limit, argv).with((BINARY_VARIABLE, vpnfix));
            let job = job.with(("RUST_BACKTRACE", "1")).with(ALL_KINDS).with((VPN_ROOT, &programs.vpn_root));
            job.with(ENGINE_SECONDS).with(ENGINE_CASES).with(KILL_RUNS)
        };
        jobs.push(job(format!("scenes-{}", scene.name)));
        if extent.plays_both_ways(&scene.name) {
            jobs.push(job(format!("scenes-{}-without-fexit", scene.name)).with(WITHOUT_FEXIT));
        }
    }
    jobs
}

/// What records golden hosts, all of them if none is named.
pub fn record(recorder: &str, hosts: &[String]) -> Vec<Job> {
    let into = format!("{RECORDINGS}:{}", hosts.join(","));
    vec![
        Job::new("modules", 180, ["modprobe", "-a"].into_iter().chain(MODULES)),
        Job::new(GOLDEN, 1200, [recorder, "--ignored", "--exact", "record", "--nocapture"])
            .with(("VPNFIX_RECORD", &into)),
    ]
}

/// Puts a copy in the machine's memory in a program's place: each start from the host's file system was seen to take 1.6 s,
/// from memory 0.13 s.
const INTO_MEMORY: &str =
    r#"set -e; mkdir -p /run/in-memory; copy=/run/in-memory/${1##*/}; cp "$1" "$copy"; mount --bind "$copy" "$1""#;

/// A real VTI can be made; addresses of the documentation ranges.
const VTI: &str = "ip link add dev probe type vti local 192.0.2.1 remote 198.51.100.1 key 42";

/// A real ESP association can be made, by the lab's algorithms; the first one loads them, which takes 5.10 some 20 s.
/// The keys protect nothing: they are zeros, or nearly.
const ESP: &str = "ip|xfrm|state|add|src|192.0.2.1|dst|198.51.100.1|proto|esp|spi|0x100|mode|tunnel\
|enc|cbc(aes)|0x00000000000000000000000000000001\
|auth-trunc|hmac(sha256)|0x0000000000000000000000000000000000000000000000000000000000000001|128";
