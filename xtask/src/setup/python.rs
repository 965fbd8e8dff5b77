//! virtme-ng, which boots a kernel on the host's own root file system, in a Python environment under `target/`.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use super::{Need, Remedy, State};
use crate::{process, workspace};

/// The version of virtme-ng that the test machines were proven with.
pub const VERSION: &str = "1.42";
/// Debian's own Python: one that a version manager put on PATH may lack `venv`.
const PYTHON: &str = "/usr/bin/python3";

/// The installed virtme-ng.
pub struct VirtmeNg {
    /// The folder of its programs, which must be on its PATH: it starts its parts by name.
    pub programs: PathBuf,
}

impl VirtmeNg {
    /// Where the set-up puts it.
    pub fn installed() -> Self {
        Self { programs: environment().join("bin") }
    }
}

fn environment() -> PathBuf {
    workspace::vm().join(format!("virtme-ng-{VERSION}"))
}

/// Written last, so that an interrupted installation does not pass for a finished one.
fn finished() -> PathBuf {
    environment().join("finished")
}

pub(super) fn need() -> Need {
    let state = if finished().is_file() {
        State::There(format!("virtme-ng {VERSION}"))
    } else if has_venv() {
        State::Missing(vec![Remedy::CreateVirtmeNg])
    } else {
        State::Missing(vec![Remedy::Packages(&["python3-venv"]), Remedy::CreateVirtmeNg])
    };
    Need { what: "kernel boot tool", state }
}

fn has_venv() -> bool {
    process::output(process::command(PYTHON).args(["-c", "import venv, ensurepip"])).is_ok()
}

pub(super) fn create() -> Result<()> {
    let environment = environment();
    process::run(process::command(PYTHON).args(["-m", "venv", "--clear"]).arg(&environment))?;
    let wanted = format!("virtme-ng=={VERSION}");
    process::run(process::command(environment.join("bin/pip")).args(["install", "--quiet", &wanted]))?;
    fs::write(finished(), "").with_context(|| format!("write {}", finished().display()))
}
