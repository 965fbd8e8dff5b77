//! Chores of vpnfix's developers: `cargo xtask setup | lint | lab | test | golden | bench`.

mod archive;
mod bench;
mod golden;
mod lab;
mod lint;
mod process;
mod setup;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", about = "Chores of vpnfix's developers")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Make this machine ready to build and to test vpnfix; what is there already is left alone
    Setup(setup::Args),
    /// Formatting, clippy on both sides, documentation, licences of dependencies
    Lint,
    /// Build vpnfix and play the incident: `vpnfix lab run ARGS`
    Lab(lab::Args),
    /// Run the tests: unit tests, scenes in network namespaces, scenes in virtual machines
    Test(test::Args),
    /// Record the golden hosts anew, on Debian's kernel 6.1 in a virtual machine
    Golden(golden::Args),
    /// Measure what vpnfix costs and how fast it is, beside what people use today
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().chore {
        Chore::Setup(args) => setup::run(&args).map(|()| ExitCode::SUCCESS),
        Chore::Lint => lint::run().map(|()| ExitCode::SUCCESS),
        Chore::Lab(args) => lab::run(&args),
        Chore::Test(args) => test::run(&args),
        Chore::Golden(args) => golden::run(&args).map(|()| ExitCode::SUCCESS),
        Chore::Bench(args) => bench::run(&args).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
