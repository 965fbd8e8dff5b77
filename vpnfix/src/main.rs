//! The command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use vpnfix::commands::lab;

#[derive(Parser)]
#[command(name = "vpnfix", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The incident on any Linux machine, in namespaces of its own
    Lab(lab::LabArgs),
}

fn main() -> ExitCode {
    let Command::Lab(args) = Cli::parse().command;
    match lab::run(&args) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("vpnfix: {error:#}");
            ExitCode::from(lab::CANNOT)
        }
    }
}
