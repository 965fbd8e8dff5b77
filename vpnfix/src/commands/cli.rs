//! The command line, as clap parses it. It also makes the manual page and the shell completions.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::core::config::duration;
use crate::core::model::{TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN};
use crate::core::own_file::Backend;
use crate::core::plan::Strategy;

use super::lab::LabArgs;

const AFTER_HELP: &str = "\
Exit status:
  0  healthy; nothing to do; done and confirmed (trace: nothing misrouted seen)
  1  a fault found and not repaired (trace: misrouted packets seen)
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
    /// Repair by policy rules, and confirm it on live packets.
    Fix(FixArgs),
    /// Take back every rule that vpnfix added, and the cure's file.
    Undo(UndoArgs),
    /// Check the whole VPN: IPsec, interfaces, routing, BGP, reachability, host.
    Verify(VerifyArgs),
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
#[derive(Clone, Debug, Args)]
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

/// An address or a prefix; an address stands for itself alone.
fn prefix(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse() {
        return Ok(IpNet::from(std::net::IpAddr::clone(&address)));
    }
    IpNet::from_str(text).map(|prefix| prefix.trunc()).map_err(|_| "not an address or a prefix (10.20.0.0/16)".into())
}

/// An address that a packet can go to.
fn destination(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| "not an address (10.20.0.1, fd00::1)".to_string())?;
    if address.is_unspecified() { Err("no packet goes to the unspecified address".into()) } else { Ok(address) }
}

/// An address that a packet can come from.
fn source(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| "not an address (10.20.0.1, fd00::1)".to_string())?;
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    if address.is_unspecified() || address.is_multicast() || broadcast {
        return Err("no packet comes from the unspecified address, a group or a broadcast".into());
    }
    Ok(address)
}

/// A number, decimal or hexadecimal with `0x`.
fn number(text: &str) -> Result<u32, String> {
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let parsed = match hexadecimal {
        // `from_str_radix` would take a sign.
        Some(digits) if !digits.starts_with('+') => u32::from_str_radix(digits, 16),
        _ => text.parse(),
    };
    parsed.map_err(|_| "not a number of 32 bits (16, 0x10)".into())
}

/// A type of service. The two lowest bits are congestion notification (RFC 3168) and no part of routing.
fn tos(text: &str) -> Result<u8, String> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    match u8::from_str_radix(digits, 16) {
        Ok(tos) if tos & 3 == 0 && !digits.starts_with('+') => Ok(tos),
        Ok(_) => Err("the two lowest bits are congestion notification, not routing".into()),
        Err(_) => Err("not a byte in hexadecimal (0x10)".into()),
    }
}

/// An IP protocol by name or number.
fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "tcp" => Ok(Protocol::Number(6)),
        "udp" => Ok(Protocol::Number(17)),
        "icmp" => Ok(Protocol::Icmp),
        number => number.parse().map(Protocol::Number).map_err(|_| "not tcp, udp, icmp or a number up to 255".into()),
    }
}

/// A table's number, or the name of one of the kernel's own.
fn table(text: &str) -> Result<u32, String> {
    match text {
        "main" => Ok(TABLE_MAIN),
        "local" => Ok(TABLE_LOCAL),
        "default" => Ok(TABLE_DEFAULT),
        number => number.parse().map_err(|_| "not a table's number, nor main, local or default".into()),
    }
}

/// A size in bytes, with K, M or G for powers of 1024.
fn size(text: &str) -> Result<u64, String> {
    let (number, shift) = match text.strip_suffix(['K', 'M', 'G']) {
        Some(number) if text.ends_with('K') => (number, 10),
        Some(number) if text.ends_with('M') => (number, 20),
        Some(number) => (number, 30),
        None => (text, 0),
    };
    let number: u64 = number.parse().map_err(|_| "not a size (65536, 64K, 10M, 1G)".to_string())?;
    // Below this a file would hold hardly more than its first line.
    number.checked_mul(1 << shift).filter(|size| *size >= 4096).ok_or_else(|| "at least 4K, and less than 2^64".into())
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
    fn packets_have_values_that_can_be() {
        assert_eq!(number("0x10"), Ok(16));
        assert_eq!(number("10"), Ok(10));
        assert_eq!(number("0xffffffff"), Ok(u32::MAX));
        assert!(["", "0x", "0x+1", "-1", "0x1ffffffff", "x"].iter().all(|bad| number(bad).is_err()));
        assert_eq!((tos("0x10"), tos("b8")), (Ok(0x10), Ok(0xb8)));
        assert!(["0x11", "0x100", "", "+10", "tos"].iter().all(|bad| tos(bad).is_err()));
        assert_eq!((protocol("tcp"), protocol("47")), (Ok(Protocol::Number(6)), Ok(Protocol::Number(47))));
        assert!(["256", "gre", ""].iter().all(|bad| protocol(bad).is_err()));
        assert!(destination("0.0.0.0").is_err() && destination("::").is_err() && destination("10.0.0.1/24").is_err());
        assert!(["255.255.255.255", "224.0.0.1", "::", "x"].iter().all(|bad| source(bad).is_err()));
    }

    #[test]
    fn tables_and_sizes_have_words() {
        assert_eq!((table("main"), table("220")), (Ok(254), Ok(220)));
        assert!(["-1", "", "strongswan", "4294967296"].iter().all(|bad| table(bad).is_err()));
        assert_eq!((size("64K"), size("1G"), size("4096")), (Ok(65536), Ok(1 << 30), Ok(4096)));
        assert!(["", "K", "1", "10T", "-1K", "99999999999999G"].iter().all(|bad| size(bad).is_err()));
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

    #[test]
    fn an_address_is_a_prefix_of_its_own() {
        assert_eq!(prefix("10.20.0.1").map(|p| p.to_string()), Ok("10.20.0.1/32".into()));
        assert_eq!(prefix("10.20.0.1/16").map(|p| p.to_string()), Ok("10.20.0.0/16".into()));
        assert!(prefix("169.254.55.").is_err());
    }
}
