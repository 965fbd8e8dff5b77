//! The command line, as clap parses it. It also makes the manual page and the shell completions.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

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
    /// Network namespace to work in: a name under /run/netns, or a path.
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
    /// Watch live who looks up what, and by which device the packets leave.
    Trace(TraceArgs),
    /// Repair by policy rules, and confirm it on live packets.
    Fix(FixArgs),
    /// Take back every rule that vpnfix added.
    Undo,
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
    /// One line of `trace`.
    Trace,
    /// What `fix` prints.
    Fix,
    /// What `undo` prints.
    Undo,
    /// What `doctor` prints.
    Doctor,
}

/// Options of `diagnose`.
#[derive(Clone, Debug, Args)]
pub struct DiagnoseArgs {
    /// Only destinations that hold, or lie in, this address or prefix; may be given several times.
    #[arg(long = "to", value_name = "PREFIX", value_parser = prefix)]
    pub to: Vec<IpNet>,
}

/// Options of `trace`.
#[derive(Clone, Debug, Args)]
pub struct TraceArgs {
    /// Only destinations that hold, or lie in, this address or prefix; may be given several times.
    #[arg(long = "to", value_name = "PREFIX", value_parser = prefix, conflicts_with = "all")]
    pub to: Vec<IpNet>,
    /// End after this time (`10s`, `2m`, `1h`).
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub period: Option<Duration>,
    /// End after so many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Watch every destination, not the tunnels' alone.
    #[arg(long)]
    pub all: bool,
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
    /// Send no echo requests to the peers; wait for traffic of others.
    #[arg(long)]
    pub no_probe: bool,
    /// How long to wait for live packets that confirm the repair.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s")]
    pub wait: Duration,
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
}

impl From<StrategyName> for Strategy {
    fn from(name: StrategyName) -> Self {
        match name {
            StrategyName::Auto => Self::Auto,
            StrategyName::Inside => Self::Inside,
            StrategyName::Prefixes => Self::Prefixes,
            StrategyName::MainFirst => Self::MainFirst,
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

/// A year: more than anyone waits, and far from where clocks overflow.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// A time with its unit: `500ms`, `10s`, `2m`, `1h`; a bare number counts seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("unknown unit; use ms, s, m or h".into()),
    };
    let number: f64 = number.parse().map_err(|_| "not a time (10s, 2m, 500ms)".to_string())?;
    Duration::try_from_secs_f64(number * factor)
        .ok()
        .filter(|time| !time.is_zero() && *time <= LONGEST)
        .ok_or_else(|| "not a time that can be waited for".into())
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
    fn times_have_units() {
        assert_eq!(duration("3s"), Ok(Duration::from_secs(3)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
        for bad in ["", "s", "3 s", "-1s", "0", "1e400h", "3d", "4000000000000000h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_is_a_prefix_of_its_own() {
        assert_eq!(prefix("10.20.0.1").map(|p| p.to_string()), Ok("10.20.0.1/32".into()));
        assert_eq!(prefix("10.20.0.1/16").map(|p| p.to_string()), Ok("10.20.0.0/16".into()));
        assert!(prefix("169.254.55.").is_err());
    }
}
