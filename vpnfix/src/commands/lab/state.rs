//! The lab's own files: `/run/vpnfix/lab-PREFIX/` with the responders' pid files and the mark of a finished lab.
//!
//! The folder is also the lock (`flock(2)`): it goes with the process that holds it, however that one ends.

use std::env;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::layout::{HOSTS, Host, Names, TunnelKind};
use super::responder;

/// File that says a lab was finished, and how its tunnels are made.
const FINISHED: &str = "finished";

/// Why the lab's own files could not be worked with.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process builds, plays or removes this lab.
    #[error("another vpnfix is at work on this lab")]
    Busy,
    /// A file or folder could not be made, read or removed.
    #[error("{operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The locked files of one lab.
#[derive(Debug)]
pub struct LabState {
    names: Names,
    folder: PathBuf,
    _lock: Flock<File>,
}

impl LabState {
    /// Whether there are files of this lab.
    pub fn exists(names: &Names) -> bool {
        folder(names).exists()
    }

    /// Makes the folder if need be and locks it, or fails at once if another process has it.
    pub fn lock(names: &Names) -> Result<Self, StateError> {
        let folder = folder(names);
        loop {
            fs::create_dir_all(&folder).map_err(failed("make", &folder))?;
            let opened = File::open(&folder).map_err(failed("open", &folder))?;
            let inode = opened.metadata().map_err(failed("look at", &folder))?.ino();
            let lock = Flock::lock(opened, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
                nix::Error::EWOULDBLOCK => StateError::Busy,
                other => failed("lock", &folder)(other.into()),
            })?;
            // Whoever had the lock before may have removed the folder: then this is the lock of a folder without a name.
            if fs::metadata(&folder).is_ok_and(|now| now.ino() == inode) {
                return Ok(Self { names: names.clone(), folder, _lock: lock });
            }
        }
    }

    /// The pid file of a host's responder.
    pub fn pid_file(names: &Names, host: Host) -> PathBuf {
        folder(names).join(format!("{}.pid", names.of(host)))
    }

    /// Where commands that the lab runs keep their own state.
    pub fn commands_folder(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// How the tunnels of a whole, finished lab are made; `None` if there is none or a part of it is gone.
    pub fn finished(&self) -> Option<TunnelKind> {
        let kind = TunnelKind::from_word(fs::read_to_string(self.folder.join(FINISHED)).ok()?.trim())?;
        let whole = self.names.present().len() == HOSTS.len() && responder::all_alive(&self.names);
        whole.then_some(kind)
    }

    /// Says that the lab is whole.
    pub fn mark_finished(&self, kind: TunnelKind) -> Result<(), StateError> {
        let file = self.folder.join(FINISHED);
        fs::write(&file, format!("{}\n", kind.word())).map_err(failed("write", &file))
    }

    /// Says that the lab is no longer whole: before anything of it is removed or rebuilt.
    pub fn mark_unfinished(&self) -> Result<(), StateError> {
        let file = self.folder.join(FINISHED);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &file)(error)),
            _ => Ok(()),
        }
    }

    /// Removes the folder; the lock goes with it.
    pub fn discard(self) -> Result<(), StateError> {
        fs::remove_dir_all(&self.folder).map_err(failed("remove", &self.folder))
    }
}

/// `VPNFIX_RUN_DIR` stands in for `/run/vpnfix` in tests.
fn folder(names: &Names) -> PathBuf {
    let base = env::var_os("VPNFIX_RUN_DIR").map_or_else(|| PathBuf::from("/run/vpnfix"), PathBuf::from);
    base.join(format!("lab-{}", names.prefix()))
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::File { operation, path, source }
}
