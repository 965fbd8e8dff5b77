//! `vpnfix watch`: detection for good, and with `--fix` repair on detection.
//!
//! `core/watch` decides; this is the loop around it. `eyes` hears the kernel, `session` is the loop, `judging` asks and judges,
//! `repairing` repairs by the same steps as `fix`, `telling` tells.

mod clues;
mod eyes;
mod judging;
mod known;
mod on_event;
mod options;
mod repairing;
mod scrape;
mod seeing;
mod session;
mod signals;
mod telling;

use super::assess::{Access, Host, in_namespace};
use super::attach;
use super::cli::{Global, WatchArgs};
use super::failure::Failure;
use super::settings::{DEFAULT_CONFIG, Settings};
use crate::action::hold::Presence;
use crate::action::lock::run_directory;
use crate::core::destination;
use crate::core::live;
use crate::core::report::Outcome;
use crate::core::report::VERSION;
use crate::core::report::trace::HookReport;
use crate::core::report::watch::{SCHEMA, Start, WatchLine};
use crate::core::walk::Fib;
use crate::core::watch::Mode;
use crate::system::bpf::{Request, Tracer};
use crate::system::netlink::Monitor;
use crate::system::privilege::{self, Needs};
use crate::system::service;
use eyes::Eyes;
use options::Options;
use session::Session;
use signals::Signals;
use telling::Teller;

/// The target of the events that go to journald.
pub const TARGET: &str = "vpnfix::watch";

/// Watches until a signal ends it.
///
/// # Errors
/// The kernel cannot be traced or heard, another `watch` repairs here already, or the configuration is wrong.
pub fn run(settings: &Settings, args: &WatchArgs, global: &Global) -> Result<Outcome, Failure> {
    let options = Options::resolve(settings, args);
    if args.check_config {
        let file = global.config.clone().unwrap_or_else(|| DEFAULT_CONFIG.into());
        let there = if file.exists() { "is fine" } else { "is not there; the defaults hold" };
        settings.output.print(format!("{} {there}\n", file.display()))?;
        return Ok(Outcome::Ok);
    }
    in_namespace(settings, async |access| watch(&access, settings, args, global, options).await)
}

async fn watch(
    access: &Access,
    settings: &Settings,
    args: &WatchArgs,
    global: &Global,
    options: Options,
) -> Result<Outcome, Failure> {
    // Listened for from the beginning: a signal that comes while the programs attach must end it in order too.
    let signals = Signals::listen()?;
    let presence = match options.mode {
        Mode::Report => None,
        Mode::Fix => Some(presence(access)?),
    };
    let scrapes = scrape::serve(options.metrics).await?;
    // What changes while the host is read is heard.
    let monitor = Monitor::open().map_err(|error| super::assess::netlink_failure("listen for changes", &error))?;
    let host = Host::read_present(access, settings).await?;
    let watches = live::watches(&host.destinations, &[]);
    let tracer = attach::attach(&Request {
        watches: watches.iter().map(|watch| watch.prefix).collect(),
        holes: destination::holes(&Fib::new(&host.snapshot), &host.destinations),
        vrfs: live::vrfs(&watches, &host.tunnels),
        query_thread: Some(access.queries.thread_id()),
        log_level: settings.kernel_log,
        ..attach::request(&access.netns, false)
    })?;
    let needs = if options.mode == Mode::Fix { Needs::Repairing } else { Needs::Reading };
    let capabilities = privilege::narrow(needs).map_err(|why| Failure::unable(format!("give up privileges: {why}")))?;
    let mut teller = Teller::new(settings.output, &options);
    teller.line(WatchLine::Start(Start {
        schema: SCHEMA.into(),
        version: VERSION.into(),
        time: teller.time(),
        host: host.snapshot.host.clone(),
        netns: host.snapshot.netns.clone(),
        mode: options.mode,
        hooks: hooks(&tracer),
        prefixes: watches.len(),
        tunnels: host.tunnels.iter().map(|tunnel| tunnel.name.clone()).collect(),
        capabilities,
    }));
    let eyes = Eyes::new(monitor, tracer, watches);
    let session = Session::new(access, settings.clone(), options, host, eyes, teller);
    let outcome = session.run(signals, scrapes, &|| reread(args, global)).await;
    service::stopping();
    // A hold is over with a watch that ends in order.
    if presence.is_some()
        && let Err(error) = crate::action::hold::lift(&run_directory(), access.netns.inode)
    {
        tracing::warn!("the hold stays: {error}");
    }
    outcome
}

fn presence(access: &Access) -> Result<Presence, Failure> {
    Presence::take(&run_directory(), access.netns.inode)
        .map_err(|error| Failure::of("watch and repair here", &error).hint_privilege(error.is_privilege()))
}

/// The configuration as it is now.
fn reread(args: &WatchArgs, global: &Global) -> Result<(Settings, Options), Failure> {
    let settings = Settings::resolve(global)?;
    let options = Options::resolve(&settings, args);
    Ok((settings, options))
}

fn hooks(tracer: &Tracer) -> Vec<HookReport> {
    let report = |hook: &crate::system::bpf::HookStatus| HookReport {
        name: hook.name.to_string(),
        attached: hook.attached,
        why: hook.note.clone(),
    };
    tracer.hooks().iter().map(report).collect()
}
