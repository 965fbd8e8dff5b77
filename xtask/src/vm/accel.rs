//! Whether this machine's KVM is worth using.
//!
//! `/dev/kvm` may be there and yet run nothing, or run it slower than software would, as nested virtualisation does on
//! some clouds. So a boot sector of three instructions is tried, which takes a tenth of a second where KVM is real.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{process, workspace};

/// How QEMU runs a guest's code.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// By the processor.
    Kvm,
    /// In software.
    Emulation,
}

impl Accelerator {
    /// In words, for the log.
    pub fn told(self) -> &'static str {
        match self {
            Self::Kvm => "by KVM",
            Self::Emulation => "by emulation (no usable KVM)",
        }
    }
}

/// `mov al, 0x10; out 0xf4, al; hlt`, at the start of a boot sector: writes 0x10 to QEMU's debug-exit device.
const BOOT_CODE: [u8; 5] = [0xb0, 0x10, 0xe6, 0xf4, 0xf4];
const SECTOR: usize = 512;
const BOOT_SIGNATURE: [u8; 2] = [0x55, 0xaa];
/// The device ends QEMU with the written value doubled, plus one.
const EXPECTED_STATUS: i32 = 0x21;
/// A KVM that needs longer than this for the firmware and three instructions is slower than emulation.
const LIMIT: Duration = Duration::from_millis(1500);

/// The faster way that works here.
pub fn probe() -> Accelerator {
    if !Path::new("/dev/kvm").exists() {
        return Accelerator::Emulation;
    }
    match boots() {
        Ok(true) => Accelerator::Kvm,
        Ok(false) => Accelerator::Emulation,
        Err(error) => {
            eprintln!("vm: KVM not tried: {error:#}");
            Accelerator::Emulation
        }
    }
}

fn boots() -> Result<bool> {
    let image = workspace::vm().join("kvm-probe.img");
    let mut sector = BOOT_CODE.to_vec();
    sector.resize(SECTOR - BOOT_SIGNATURE.len(), 0);
    sector.extend(BOOT_SIGNATURE);
    fs::create_dir_all(workspace::vm()).context("create the machines' folder")?;
    fs::write(&image, sector).with_context(|| format!("write {}", image.display()))?;

    let mut child = qemu(&image).spawn().context("start qemu-system-x86_64")?;
    let status = wait(&mut child);
    if let Ok(None) = status {
        child.kill().context("end the KVM probe")?;
        child.wait().context("end the KVM probe")?;
    }
    Ok(status?.is_some_and(|code| code == EXPECTED_STATUS))
}

fn qemu(image: &Path) -> Command {
    let mut command = process::command("qemu-system-x86_64");
    command
        .args(["-accel", "kvm", "-nodefaults", "-display", "none", "-serial", "none", "-monitor", "none", "-m", "16"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-drive"])
        .arg(format!("file={},format=raw,if=ide", image.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// The exit status, or nothing if the limit passed first.
fn wait(child: &mut Child) -> Result<Option<i32>> {
    let began = Instant::now();
    while began.elapsed() < LIMIT {
        if let Some(status) = child.try_wait().context("wait for the KVM probe")? {
            return Ok(status.code());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(None)
}
