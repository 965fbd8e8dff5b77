//! Work inside a named network namespace, on a thread of its own.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns};

/// Why something could not be done inside a namespace.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The file that names the namespace could not be opened.
    #[error("open namespace {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The thread could not enter.
    #[error("enter namespace {}", path.display())]
    Enter {
        /// The file that names the namespace.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: nix::Error,
    },
    /// The thread could not be started, or panicked.
    #[error("a thread in namespace {} did not come to its end", path.display())]
    Thread {
        /// The file that names the namespace.
        path: PathBuf,
    },
    /// A sysctl could not be set.
    #[error("set {} in namespace {}", key.display(), path.display())]
    Sysctl {
        /// File of the sysctl.
        key: PathBuf,
        /// The file that names the namespace.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Moves the calling thread into the namespace that `path` names. The thread stays there: use one made for it.
pub fn enter(path: &Path) -> Result<(), NetnsError> {
    let file = File::open(path).map_err(|source| NetnsError::Open { path: path.to_owned(), source })?;
    setns(&file, CloneFlags::CLONE_NEWNET).map_err(|source| NetnsError::Enter { path: path.to_owned(), source })
}

/// Runs `work` on a new thread inside the namespace and waits for its result.
pub fn inside<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    let dead = || NetnsError::Thread { path: path.to_owned() };
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, || enter(path).map(|()| work())).map_err(|_| dead())?;
        thread.join().map_err(|_| dead())?
    })
}

/// Sets sysctls below `/proc/sys/net`, which shows the namespace of the thread that reads it.
pub fn set_sysctls(path: &Path, sysctls: &[(&str, &str)]) -> Result<(), NetnsError> {
    inside(path, || {
        for (key, value) in sysctls {
            let key = Path::new("/proc/sys/net").join(key);
            fs::write(&key, value).map_err(|source| NetnsError::Sysctl { key, path: path.to_owned(), source })?;
        }
        Ok(())
    })?
}
