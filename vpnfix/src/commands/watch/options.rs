//! What holds for this watch: the options and the configuration file together.

use std::net::SocketAddr;
use std::time::Duration;

use crate::action::incidents::Incidents;
use crate::commands::cli::WatchArgs;
use crate::commands::settings::Settings;
use crate::core::plan::{Strategy, Wanted};
use crate::core::watch::{Limits, Mode};

/// What holds for this watch.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) mode: Mode,
    pub(super) wanted: Wanted,
    pub(super) undo_on_exit: bool,
    pub(super) probe: bool,
    pub(super) wait: Duration,
    pub(super) metrics: Option<SocketAddr>,
    /// Program and arguments; none where it is empty.
    pub(super) on_event: Vec<String>,
    pub(super) limits: Limits,
    pub(super) incidents: Incidents,
}

impl Options {
    /// Options come first.
    pub(super) fn resolve(settings: &Settings, args: &WatchArgs) -> Self {
        let watch = &settings.watch;
        let keep = usize::try_from(watch.incidents.keep).unwrap_or(usize::MAX);
        Self {
            mode: if args.fix || watch.fix { Mode::Fix } else { Mode::Report },
            wanted: Wanted {
                strategy: args.strategy.map_or(watch.strategy, Strategy::from),
                priority: None,
                fail_closed: args.fail_closed || watch.fail_closed,
            },
            undo_on_exit: args.undo_on_exit || watch.undo_on_exit,
            probe: watch.probe && !args.no_probe,
            wait: args.wait.unwrap_or(watch.wait.0),
            metrics: args.metrics.or(watch.metrics),
            on_event: args.on_event.as_ref().map_or_else(|| watch.on_event.clone(), |program| vec![program.clone()]),
            limits: watch.limits.into(),
            incidents: Incidents {
                directory: args.incidents.clone().unwrap_or_else(|| watch.incidents.directory.clone()),
                keep,
                bytes: u64::from(watch.incidents.megabytes) * 1_000_000,
            },
        }
    }
}
