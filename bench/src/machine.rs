//! Where it is measured, and what else the machine was doing.

use std::fs;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::process;

/// The machine's facts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Release of the kernel.
    pub kernel: String,
    /// Model of the processor.
    pub processor: String,
    /// How many processors there are.
    pub processors: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// It is a guest of a hypervisor.
    pub virtual_machine: bool,
    /// The distribution.
    pub system: String,
}

impl Machine {
    /// In one line.
    pub fn told(&self) -> String {
        let Self { processor, processors, memory_mib, system, .. } = self;
        let guest = if self.virtual_machine { ", a virtual machine" } else { "" };
        format!("{processor}, {processors} processors, {memory_mib} MiB of memory{guest}; {system}.")
    }
}

/// Reads them.
pub fn facts() -> Result<Machine> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("read /proc/cpuinfo")?;
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.split([':', '=']).next().is_some_and(|key| key.trim() == name))?;
        Some(line.split_once([':', '='])?.1.trim().trim_matches('"').to_owned())
    };
    let meminfo = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let kib = field(&meminfo, "MemTotal").and_then(|total| total.split(' ').next()?.parse::<u64>().ok());
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    Ok(Machine {
        kernel: kernel()?,
        processor: field(&cpuinfo, "model name").unwrap_or_else(|| std::env::consts::ARCH.into()),
        processors: processors()?,
        memory_mib: kib.unwrap_or(0) / 1024,
        virtual_machine: field(&cpuinfo, "flags")
            .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
        system: field(&release, "PRETTY_NAME").unwrap_or_default(),
    })
}

fn kernel() -> Result<String> {
    Ok(nix::sys::utsname::uname().context("ask for the kernel's release")?.release().to_string_lossy().into_owned())
}

/// How many processors there are.
pub fn processors() -> Result<usize> {
    Ok(std::thread::available_parallelism().context("count the processors")?.get())
}

/// When something was measured, and beside what.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Circumstances {
    /// UTC.
    pub time: String,
    /// What else ran, as processors on average over the minute before it began.
    pub load_before: f64,
}

impl Circumstances {
    /// Now.
    pub fn now() -> Result<Self> {
        let load = fs::read_to_string("/proc/loadavg").context("read /proc/loadavg")?;
        let load_before =
            load.split(' ').next().and_then(|load| load.parse().ok()).context("no load in /proc/loadavg")?;
        let time = process::output("date", &["--utc", "+%Y-%m-%d %H:%M UTC"])?.trim().to_owned();
        Ok(Self { time, load_before })
    }

    /// In one line.
    pub fn told(&self, quick: bool) -> String {
        let Self { time, load_before } = self;
        let quick = if quick { " A quick run: the figures prove that it runs, and little more." } else { "" };
        format!("Measured {time}; load before it {load_before:.2}.{quick}")
    }
}
