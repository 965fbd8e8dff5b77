//! The command line, as clap parses it. It also makes the manual page and the shell completions.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::core::config::duration;
use crate::core::own_file::Backend;
use crate::core::plan::Strategy;

use super::lab::LabArgs;

mod evidence;
mod values;

pub use evidence::{CaptureArgs, ReplayArgs, ReportArgs};
use values::{destination, number, prefix, protocol, record_limit, size, source, table, tos};

const AFTER_HELP: &str = "\
Exit status:
  0  healthy; nothing to do; done and confirmed (trace, capture: nothing misrouted seen)
  1  a fault found and not repaired (trace: misrouted packets seen; report --check: not whole)
  2  wrong usage
  3  changed, and the rules stay, but not everything is repaired and confirmed
  4  cannot tell or cannot do: a privilege, a kernel feature, a system call, a file
  5  the change was rolled back";

/// Sees a route-based VPN's traffic leave the wrong way, repairs it, and proves it on live packets.
#[derive(Debug, Parser)]
#[command(name = "vpnfix", version, after_help = AFTER_HELP, arg_required_else_help = true)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Network namespace to work in: a name under /run/netns, or a path. `trace` takes `all`: this one is judged, the others
    /// are told by name.
    #[arg(long, global = true, value_name = "NAME|PATH")]
    pub netns: Option<String>,
    /// A device that is a tunnel too (GRE, WireGuard, tun …); may be given several times.
    #[arg(long = "tunnel", global = true, value_name = "DEV")]
    pub tunnels: Vec<String>,
    /// Form of the report on standard output.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Colours in text.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub color: Color,
    /// Configuration file (TOML); /etc/vpnfix/config.toml is read where it exists.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// More on standard error: -v what is done, -vv each request, -vvv the kernel programs' own log.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Nothing on standard error but errors.
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// Form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs; streams are JSON Lines.
    Json,
    /// One page for a browser: `report` alone.
    Html,
    /// For a ticket: `report` alone.
    #[value(name = "md")]
    Markdown,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say what this host and this user lack to diagnose, trace and fix, and how to get it.
    Doctor,
    /// Judge every tunnel destination: where it goes, where it should, which rule and route do it.
    Diagnose(DiagnoseArgs),
    /// Walk one packet through the rules, beside the kernel's answer; with -v each rule, also those that do not match.
    Explain(ExplainArgs),
    /// Watch live who looks up what, and by which device the packets leave.
    Trace(TraceArgs),
    /// Judge a recorded trace again: the same lines and the same exit status. Needs no privilege.
    Replay(ReplayArgs),
    /// Repair by policy rules, and confirm it on live packets.
    Fix(FixArgs),
    /// Take back every rule that vpnfix added, and the cure's file.
    Undo(UndoArgs),
    /// Check the whole VPN: IPsec, interfaces, routing, BGP, reachability, host.
    Verify(VerifyArgs),
    /// Collect before and after evidence into one bundle; with --fix repair between the two.
    Capture(CaptureArgs),
    /// Render a bundle's report, or check that the bundle is whole; also what `watch` kept of an incident.
    Report(ReportArgs),
    /// Watch for good, as a service: detect, and with --fix repair on detection.
    Watch(WatchArgs),
    /// Make the rules that vpnfix added outlive a reboot, in the way of this host's network manager.
    Persist(PersistArgs),
    /// Take back what `persist` wrote; the rules that stand now stay.
    Unpersist,
    /// The incident as a scene in namespaces of its own.
    Lab(LabArgs),
    /// Print a shell's completion script.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page (roff).
    Man,
    /// Print the JSON Schema of a document.
    Schema {
        /// The document.
        #[arg(value_enum)]
        name: SchemaName,
    },
}

/// Documents that have a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchemaName {
    /// What `diagnose` prints.
    Diagnose,
    /// What `explain` prints.
    Explain,
    /// One line of `trace`.
    Trace,
    /// What `fix` prints.
    Fix,
    /// What `undo` prints.
    Undo,
    /// What `verify` prints.
    Verify,
    /// What `persist` prints.
    Persist,
    /// What `unpersist` prints.
    Unpersist,
    /// What `doctor` prints.
    Doctor,
    /// One line of `watch`.
    Watch,
    /// The manifest of a bundle.
    Bundle,
    /// The timeline of a bundle.
    Timeline,
    /// The steps of a change in a bundle.
    Changes,
    /// What `report` prints.
    Report,
    /// What `report --check` prints.
    Check,
}

/// Options of `diagnose`.
#[derive(Clone, Debug, Args)]
pub struct DiagnoseArgs {
    /// Only destinations that hold, or lie in, this address or prefix; may be given several times.
    #[arg(long = "to", value_name = "PREFIX", value_parser = prefix)]
    pub to: Vec<IpNet>,
}

/// Options of `explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// Destination address.
    #[arg(value_name = "ADDR", value_parser = destination)]
    pub to: IpAddr,
    /// Source address; without it the kernel chooses one.
    #[arg(long, value_name = "ADDR", value_parser = source)]
    pub from: Option<IpAddr>,
    /// Device that the packet came in by; `lo` for the host's own packets. IPv4 needs --from with it.
    #[arg(long, value_name = "DEV", conflicts_with = "oif")]
    pub iif: Option<String>,
    /// Device that the socket is bound to.
    #[arg(long, value_name = "DEV")]
    pub oif: Option<String>,
    /// Firewall mark (16, 0x10).
    #[arg(long, value_name = "N", value_parser = number)]
    pub mark: Option<u32>,
    /// User id of the sender; root unless told.
    #[arg(long, value_name = "UID")]
    pub uid: Option<u32>,
    /// IP protocol: tcp, udp, icmp or a number. The kernel takes UDP for IPv4 unless told.
    #[arg(long, value_name = "PROTO", value_parser = protocol)]
    pub proto: Option<Protocol>,
    /// Source port.
    #[arg(long, value_name = "PORT")]
    pub sport: Option<u16>,
    /// Destination port.
    #[arg(long, value_name = "PORT")]
    pub dport: Option<u16>,
    /// Type of service, the whole byte, hexadecimal as `ip` has it (0x10).
    #[arg(long, value_name = "TOS", value_parser = tos, conflicts_with = "dscp")]
    pub tos: Option<u8>,
    /// The same as DSCP, 0 to 63.
    #[arg(long, value_name = "DSCP", value_parser = clap::value_parser!(u8).range(..64))]
    pub dscp: Option<u8>,
}

/// An IP protocol as the command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// ICMP of the destination's family.
    Icmp,
    /// Any, by its number.
    Number(u8),
}

/// Options of `trace`.
#[derive(Clone, Debug, Default, Args)]
pub struct TraceArgs {
    /// Only destinations that lie in this address or prefix; of no tunnel, they are watched and not judged.
    #[arg(value_name = "PREFIX", value_parser = prefix, conflicts_with = "all")]
    pub prefixes: Vec<IpNet>,
    /// The same as an option; may be given several times.
    #[arg(long = "to", value_name = "PREFIX", value_parser = prefix, conflicts_with = "all")]
    pub to: Vec<IpNet>,
    /// Only this IP protocol: tcp, udp, icmp or a number. Lookups that name no protocol (forwarding) are left out then.
    #[arg(long, value_name = "PROTO", value_parser = protocol)]
    pub proto: Option<Protocol>,
    /// Only flows with this port on either side.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Only lookups in this table (number, or main, local, default), and stories of flows that were looked up there.
    #[arg(long, value_name = "TABLE", value_parser = table)]
    pub table: Option<u32>,
    /// Only what leads to this device.
    #[arg(long, value_name = "DEV")]
    pub device: Option<String>,
    /// Only what goes wrong: misrouted, refused, dropped.
    #[arg(long)]
    pub wrong_only: bool,
    /// End after this time (`10s`, `2m`, `1h`).
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub period: Option<Duration>,
    /// End after so many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Watch every destination, not the tunnels' alone.
    #[arg(long)]
    pub all: bool,
    /// Lines on a terminal too, no live view.
    #[arg(long)]
    pub plain: bool,
    /// Write the lines to this file (behind what it holds) instead of standard output.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Begin a new file when the present one would grow beyond this size (`64K`, `10M`, `1G`); older ones are FILE.1, FILE.2 …
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "out")]
    pub rotate_size: Option<u64>,
    /// How many older files are kept.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(..1000), requires = "rotate_size")]
    pub rotate_count: u32,
    /// Record everything that is judged, and by what, to this new file, for `vpnfix replay`.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Largest recording (`64M`, at most 1G). What finds no room is counted and said.
    #[arg(long, value_name = "SIZE", value_parser = record_limit, default_value = "256M", requires = "record")]
    pub record_limit: u64,
    /// Keep the headers of packets that went the wrong way, and of the first that went right, in this new file (pcapng), for
    /// Wireshark and tshark. It is written at the end.
    #[arg(long, value_name = "FILE")]
    pub packets: Option<PathBuf>,
    /// Write this file (it holds the process id) as soon as everything is attached, and remove it at the end.
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Start this command when everything is attached, and trace until it ends.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Options of `fix`.
#[derive(Clone, Debug, Args)]
pub struct FixArgs {
    /// How to repair.
    #[arg(long, value_enum, default_value_t = StrategyName::Auto)]
    pub strategy: StrategyName,
    /// Only say what would be done, as `ip rule` commands.
    #[arg(long)]
    pub dry_run: bool,
    /// Priority of the rules; a taken one, or one too late to help, is an error.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub priority: Option<u32>,
    /// Refuse what belongs into a tunnel, rather than let it leave in the clear, while the tunnel has no route for it.
    #[arg(long)]
    pub fail_closed: bool,
    /// Send no echo requests to the peers; wait for traffic of others.
    #[arg(long)]
    pub no_probe: bool,
    /// How long to wait for live packets that confirm the repair.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s")]
    pub wait: Duration,
    /// Also switch strongSwan's own routes off, by a file of vpnfix's own in its configuration.
    #[arg(long)]
    pub cure: bool,
    /// Restart strongSwan's daemon after that, by its unit: it reads the setting only when it starts.
    #[arg(long, requires = "cure")]
    pub restart: bool,
}

/// Options of `undo`.
#[derive(Clone, Debug, Default, Args)]
pub struct UndoArgs {
    /// Also what was written to keep the repair over a reboot.
    #[arg(long)]
    pub all: bool,
}

/// Options of `verify`.
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// Check again and again until nothing fails, for so long at the most (`60s`).
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub wait: Option<Duration>,
    /// Time between the two looks at the counters.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2s")]
    pub sample: Duration,
    /// Send nothing to the peers: no echo requests, no connection to BGP's port.
    #[arg(long)]
    pub no_probe: bool,
}

/// Options of `watch`; they come before what the configuration file says.
#[derive(Clone, Debug, Default, Args)]
pub struct WatchArgs {
    /// Repair on detection; without it nothing is changed.
    #[arg(long)]
    pub fix: bool,
    /// Only check the configuration file.
    #[arg(long)]
    pub check_config: bool,
    /// How to repair.
    #[arg(long, value_enum)]
    pub strategy: Option<StrategyName>,
    /// Refuse what belongs into a tunnel, rather than let it leave in the clear, while the tunnel has no route for it.
    #[arg(long)]
    pub fail_closed: bool,
    /// Take the rules back at the end; otherwise they stay.
    #[arg(long)]
    pub undo_on_exit: bool,
    /// Send no echo requests to the peers; wait for traffic of others.
    #[arg(long)]
    pub no_probe: bool,
    /// How long to wait for live packets that confirm a repair.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub wait: Option<Duration>,
    /// Serve metrics (OpenMetrics) at this address.
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<std::net::SocketAddr>,
    /// Run this program at each event, with the event's JSON on its standard input.
    #[arg(long, value_name = "PROGRAM")]
    pub on_event: Option<String>,
    /// Keep incidents in this directory.
    #[arg(long, value_name = "DIR")]
    pub incidents: Option<PathBuf>,
}

/// Strategies by their names on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StrategyName {
    /// `inside`, and beside it `main-first` where that is harmless, else `prefixes`.
    Auto,
    /// `to INSIDE-PREFIX lookup main` for each tunnel: brings BGP up, not what BGP learns.
    Inside,
    /// `to PREFIX lookup main suppress_prefixlength 0` for each prefix of a tunnel.
    Prefixes,
    /// One rule: `lookup main suppress_prefixlength 0` before the hijacker.
    MainFirst,
    /// An l3mdev rule before the hijacker, for tunnels that are enslaved to a VRF.
    Vrf,
}

impl From<StrategyName> for Strategy {
    fn from(name: StrategyName) -> Self {
        match name {
            StrategyName::Auto => Self::Auto,
            StrategyName::Inside => Self::Inside,
            StrategyName::Prefixes => Self::Prefixes,
            StrategyName::MainFirst => Self::MainFirst,
            StrategyName::Vrf => Self::Vrf,
        }
    }
}

/// Options of `persist`.
#[derive(Clone, Debug, Args)]
pub struct PersistArgs {
    /// Who keeps the rules.
    #[arg(long, value_enum, default_value_t = BackendName::Auto)]
    pub backend: BackendName,
    /// Also stop systemd-networkd from dropping rules that are not its own (ManageForeignRoutingPolicyRules=no).
    #[arg(long)]
    pub keep_foreign_rules: bool,
    /// Only print the files and the commands.
    #[arg(long)]
    pub dry_run: bool,
}

/// Who keeps rules, by the names on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackendName {
    /// Whoever manages the interface that the hijacked traffic leaves by; else a unit of systemd.
    Auto,
    /// A drop-in for the interface's .network file.
    Networkd,
    /// The connection profile that is active on the interface.
    #[value(name = "networkmanager")]
    NetworkManager,
    /// A file in /etc/netplan; it can express rules without suppression only.
    Netplan,
    /// A script in if-up.d.
    Ifupdown,
    /// A unit that adds the rules at boot, and again when systemd-networkd restarts.
    Systemd,
}

impl BackendName {
    /// The backend; none for `auto`.
    #[must_use]
    pub fn backend(self) -> Option<Backend> {
        match self {
            Self::Auto => None,
            Self::Networkd => Some(Backend::Networkd),
            Self::NetworkManager => Some(Backend::NetworkManager),
            Self::Netplan => Some(Backend::Netplan),
            Self::Ifupdown => Some(Backend::Ifupdown),
            Self::Systemd => Some(Backend::Systemd),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_trace_takes_prefixes_and_a_command() {
        let words = ["vpnfix", "trace", "10.0.0.0/8", "fd00::1", "--", "ping", "-c", "3", "10.0.0.1"];
        let Command::Trace(args) = Cli::parse_from(words).command else { panic!("no trace") };
        assert_eq!(args.prefixes.len(), 2);
        assert_eq!(args.command, ["ping", "-c", "3", "10.0.0.1"]);
        for bad in [["--rotate-size", "1M"].as_slice(), &["--port", "0"], &["--all", "10.0.0.0/8"], &["ping"]] {
            assert!(Cli::try_parse_from([&["vpnfix", "trace"], bad].concat()).is_err(), "{bad:?}");
        }
    }
}
