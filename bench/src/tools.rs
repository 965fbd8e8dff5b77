//! The tools that are compared with: the machine's own, or those that were unpacked for the bench.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

/// Where they lie.
pub struct Tools {
    unpacked: PathBuf,
}

impl Tools {
    /// Those of a folder into which Debian packages were unpacked, and the machine's.
    pub fn beside(unpacked: &Path) -> Self {
        Self { unpacked: unpacked.to_owned() }
    }

    /// A command that runs one of them.
    pub fn command(&self, program: &str) -> Result<Command> {
        let own = self.unpacked.join("usr/bin").join(program);
        if own.is_file() {
            let mut command = Command::new(own);
            command.env("LD_LIBRARY_PATH", self.unpacked.join(format!("usr/lib/{}-linux-gnu", env::consts::ARCH)));
            return Ok(command);
        }
        let path = env::var_os("PATH").unwrap_or_default();
        match env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file()) {
            Some(file) => Ok(Command::new(file)),
            None => bail!("{program} is not there"),
        }
    }
}
