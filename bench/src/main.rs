//! Measures what vpnfix costs and how fast it is, beside what people use today. `cargo xtask bench` builds and runs it.
//!
//! In the order of the work: [`machine`] (where it is measured), [`scene`] (a host in a network namespace), [`load`] (its
//! traffic), [`tracer`] (the programs that are compared), [`statistics`] (the kernel's own of BPF programs), [`sample`] (medians
//! and spread), [`results`] (tables and goals). Each part of the measurement is a file under [`part`].
//!
//! Everything happens in namespaces of this process, which end with it.

mod floor;
mod load;
mod machine;
mod part;
mod process;
mod results;
mod rules;

mod sample;
mod scene;
mod statistics;
mod tools;
mod tracer;
mod tun;
mod watching;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;

use part::{Bench, Part};
use results::Results;

#[derive(Parser)]
#[command(name = "vpnfix-bench", about = "Measures vpnfix; `cargo xtask bench` runs this")]
struct Cli {
    /// The release build of vpnfix
    #[arg(long)]
    vpnfix: PathBuf,
    /// Folder into which the tools to compare with were unpacked
    #[arg(long)]
    tools: PathBuf,
    /// Folder for the results
    #[arg(long)]
    results: PathBuf,
    /// Few and short measurements: that all of it runs
    #[arg(long)]
    quick: bool,
    /// Only these parts; the others' results stay as they are
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    scene::own_mounts().context("enter a mount namespace (run this as root)")?;
    let bench = Bench::new(&cli.vpnfix, &cli.tools, cli.quick)?;
    let mut results = Results::open(&cli.results, machine::facts()?)?;
    let parts = if cli.only.is_empty() { Part::ALL.to_vec() } else { cli.only };
    for part in parts {
        eprintln!("bench: {}", part.title());
        let measured = part.measure(&bench).with_context(|| format!("measure {part:?}"))?;
        print!("{}", measured.markdown());
        results.keep(part, measured);
        // After each part: what was measured is not lost with what fails later.
        results.write()?;
    }
    print!("{}", results.goals());
    Ok(())
}
