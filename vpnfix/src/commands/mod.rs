//! One file a command: read what was asked, call the parts in the order of the data, hand the result to render.

pub mod assess;
pub mod attach;
pub mod capture;
pub mod cli;
pub mod diagnose;
pub mod doctor;
pub mod explain;
pub mod failure;
pub mod fix;
pub mod generate;
mod known;
pub mod lab;
pub mod output;
mod own_files;
pub mod persist;
pub mod replay;
pub mod report;
pub mod settings;
pub mod signals;
pub mod standing;
pub mod trace;
pub mod undo;
pub mod verify;
pub mod watch;

use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::action::audit;
use crate::core::report::Outcome;
use cli::{Cli, Command, Format, Global};
use failure::Failure;
use settings::Settings;

/// Parses the command line, runs the command, and says with what it ended.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    start_log(&cli.global);
    let outcome = run(cli).unwrap_or_else(|failure| {
        eprintln!("{failure}");
        failure.outcome
    });
    ExitCode::from(outcome.status())
}

/// What is wrong with the command line, in the form of every error. Help and version that were asked for are no error,
/// and neither is a reader that went away.
fn usage(error: &clap::Error) -> ExitCode {
    let is_mistake = error.use_stderr() && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if is_mistake {
        // clap's first paragraph is what is wrong; usage and advice follow.
        let text = error.render().to_string();
        let first: Vec<&str> = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
        let message = first.join(" ");
        let message = message.strip_prefix("error: ").unwrap_or(&message);
        eprintln!("{}", Failure::usage(message).hint("`vpnfix --help` lists commands and options"));
        return ExitCode::from(Outcome::Usage.status());
    }
    let status = if error.use_stderr() { Outcome::Usage } else { Outcome::Ok };
    match error.print() {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::from(Outcome::Unable.status()),
        _ => ExitCode::from(status.status()),
    }
}

/// Logs go to standard error: errors, warnings and the audit trail always, more with `-v`, nothing but errors with `-q`. The
/// audit trail also goes to journald where that runs, whatever the options.
fn start_log(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error".into(),
        // What `watch` tells stands on standard output and in the journal already.
        (false, 0) => format!("warn,{}=info,{}=off", audit::TARGET, watch::TARGET),
        (false, 1) => "vpnfix=info,warn".into(),
        (false, 2) => "vpnfix=debug,warn".into(),
        (false, _) => "vpnfix=trace,debug".into(),
    };
    let stderr = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(output::is_colored(global.color, &std::io::stderr()))
        .with_target(false)
        .without_time()
        .with_filter(EnvFilter::new(level));
    // Without a journald there is no socket, and nothing to do about it.
    let journald = tracing_journald::layer().ok().map(|layer| {
        let for_good = Targets::new().with_target(audit::TARGET, Level::INFO).with_target(watch::TARGET, Level::INFO);
        layer.with_field_prefix(Some("VPNFIX".into())).with_syslog_identifier("vpnfix".into()).with_filter(for_good)
    });
    tracing_subscriber::registry().with(stderr).with(journald).init();
}

fn run(cli: Cli) -> Result<Outcome, Failure> {
    if matches!(cli.global.format, Format::Html | Format::Markdown) && !matches!(cli.command, Command::Report(_)) {
        return Err(Failure::usage("--format html and md are for `report` alone"));
    }
    let settings = || Settings::resolve(&cli.global);
    match cli.command {
        Command::Doctor => doctor::run(&settings()?),
        Command::Diagnose(args) => diagnose::run(&settings()?, &args),
        Command::Explain(args) => explain::run(&settings()?, &args, cli.global.verbose > 0),
        Command::Trace(args) => trace::run(&settings()?, &args),
        Command::Replay(args) => replay::run(&settings()?, &args),
        Command::Fix(args) => fix::run(&settings()?, &args),
        Command::Undo(args) => undo::run(&settings()?, &args),
        Command::Verify(args) => verify::run(&settings()?, &args, cli.global.quiet),
        Command::Capture(args) => capture::run(&settings()?, &args, cli.global.quiet),
        Command::Report(args) => {
            report::run(&args, cli.global.format, output::is_colored(cli.global.color, &std::io::stdout()))
        }
        Command::Watch(args) => watch::run(&settings()?, &args, &cli.global),
        Command::Persist(args) => persist::run(&settings()?, &args),
        Command::Unpersist => persist::release(&settings()?),
        Command::Lab(args) => lab_outcome(lab::run(&args)),
        Command::Completions { shell } => generate::completions(shell, &settings()?.output),
        Command::Man => generate::manual(&settings()?.output),
        Command::Schema { name } => generate::schema(name, &settings()?.output),
    }
}

/// The lab's exit status and error as a command's.
fn lab_outcome(result: anyhow::Result<u8>) -> Result<Outcome, Failure> {
    match result {
        Ok(lab::DONE) => Ok(Outcome::Ok),
        Ok(lab::STEP_FAILED) => Ok(Outcome::FaultFound),
        Ok(_) => Ok(Outcome::Unable),
        Err(error) => Err(Failure::unable(format!("{error:#}"))),
    }
}
