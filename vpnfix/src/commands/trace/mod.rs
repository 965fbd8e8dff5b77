//! `vpnfix trace`.

mod command;
mod intake;
pub(super) mod record;
mod screen;
pub(super) mod session;
pub(super) mod sink;
mod symbols;

use ipnet::IpNet;

use super::assess::{Access, Asking, Host, in_namespace_asking};
use super::attach;
use super::cli::{Protocol, TraceArgs};
use super::failure::Failure;
use super::settings::Settings;
use super::signals::Signals;
use crate::core::destination::{self, Destination};
use crate::core::filter::Filter;
use crate::core::live::{self, Watch};
use crate::core::model::Family;
use crate::core::report::Outcome;
use crate::core::walk::{self, Fib};
use crate::system::bpf::Request;
use crate::system::namespace::Target;
use crate::system::ready_file::ReadyFile;
use crate::system::terminal;
use intake::Intake;
use record::Files;
use session::Session;
use sink::Sink;

/// ICMP's IP protocol number; the kernel side takes it for ICMPv6's too.
const ICMP: u8 = 1;

/// Traces until its time is over, enough events came, the command ended, or a signal ends it.
///
/// # Errors
/// The kernel cannot be traced, the host's routing cannot be read, or a file or the command is at fault.
pub fn run(settings: &Settings, args: &TraceArgs) -> Result<Outcome, Failure> {
    let every_namespace = settings.netns == Target::Named("all".into());
    let settings = &if every_namespace { settings.in_current_namespace() } else { settings.clone() };
    let asked = Asked { args, every_namespace, only: [args.prefixes.as_slice(), &args.to].concat() };
    in_namespace_asking(settings, Asking::OnAThread, async |access| {
        // Listened for from the beginning: a signal that comes while the programs attach must end the trace in order too.
        let signals = Signals::listen()?;
        if let Some(path) = &args.ready_file {
            ReadyFile::clear(path).map_err(|error| Failure::of(&format!("remove {}", path.display()), &error))?;
        }
        let sink = Sink::open(settings.output, args)?;
        let files = Files::create(args)?;
        let host = Host::read(&access, settings, &[]).await?;
        let live = asked.is_live(settings);
        let session = attached(settings, asked, access, host, files, sink)?;
        if live { session.show(signals).await } else { session.run(signals).await }
    })
}

/// Attaches to the kernel for what was asked for.
///
/// # Errors
/// There is nothing to watch, or the kernel cannot be traced.
pub(super) fn attached<'a>(
    settings: &'a Settings,
    asked: Asked<'a>,
    access: Access,
    host: Host,
    files: Files,
    sink: Sink,
) -> Result<Session<'a>, Failure> {
    let (watches, holes) = asked.watched(&host)?;
    let tracer = attach::attach(&Request {
        watches: watches.iter().map(|watch| watch.prefix).collect(),
        holes,
        vrfs: live::vrfs(&watches, &host.tunnels),
        query_thread: Some(access.queries.thread_id()),
        log_level: settings.kernel_log,
        protocol: asked.args.proto.map(|protocol| match protocol {
            Protocol::Icmp => ICMP,
            Protocol::Number(number) => number,
        }),
        port: asked.args.port,
        by_flow: true,
        by_destination: true,
        headers: files.want_packets(),
        ..attach::request(&access.netns, asked.every_namespace)
    })?;
    let intake = Intake::new(settings, asked, access, host, watches, tracer, files)?;
    Ok(Session::new(intake, sink))
}

/// What was asked for.
pub struct Asked<'a> {
    /// The options.
    pub args: &'a TraceArgs,
    /// Other namespaces are told of too.
    pub every_namespace: bool,
    /// The destinations asked for; all if there are none.
    pub only: Vec<IpNet>,
}

impl Asked<'_> {
    /// What is told of what is seen.
    #[must_use]
    pub fn filter(&self) -> Filter {
        Filter { table: self.args.table, device: self.args.device.clone(), wrong_only: self.args.wrong_only }
    }

    /// Is there a person at a terminal, who was promised no lines? What a command prints would run into the view.
    fn is_live(&self, settings: &Settings) -> bool {
        let TraceArgs { plain, out, ready_file, limit, command, .. } = self.args;
        let wants_lines = *plain || out.is_some() || ready_file.is_some() || limit.is_some() || !command.is_empty();
        !wants_lines && !settings.output.is_json() && terminal::is_interactive()
    }

    /// The host's destinations as far as they are asked for.
    #[must_use]
    pub fn destinations(&self, host: &Host) -> Vec<Destination> {
        live::narrowed(&host.destinations, &self.only)
    }

    /// What to watch, and the holes in it. With `--all` the holes are watched too, though nothing is judged there; so is
    /// what was asked for by its prefix.
    fn watched(&self, host: &Host) -> Result<(Vec<Watch>, Vec<IpNet>), Failure> {
        let destinations = self.destinations(host);
        if self.args.all {
            let everything = Family::ALL.map(walk::everything);
            let holes = destination::holes(&Fib::new(&host.snapshot), &destinations);
            let only_watched: Vec<IpNet> = everything.into_iter().chain(holes).collect();
            return Ok((live::watches(&destinations, &only_watched), Vec::new()));
        }
        if self.only.is_empty() {
            host.has_destinations("trace").map_err(|failure| {
                failure.hint("name the device with --tunnel DEV, a destination, or watch everything with --all")
            })?;
        }
        Ok((live::watches(&destinations, &self.only), self.holes(host, &destinations)))
    }

    /// The holes in these destinations; none where everything is watched. What was asked for by its prefix is no hole.
    #[must_use]
    pub fn holes(&self, host: &Host, destinations: &[Destination]) -> Vec<IpNet> {
        if self.args.all {
            return Vec::new();
        }
        let mut holes = destination::holes(&Fib::new(&host.snapshot), destinations);
        holes.retain(|hole| !self.only.contains(hole));
        holes
    }
}
