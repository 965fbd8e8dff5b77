//! The locks that let one vpnfix at a time change the rules of a namespace, and the files on this host.

use std::env;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, open, openat};
use nix::sys::stat::Mode;
use thiserror::Error;

/// Names another directory for the lock, for tests.
pub const RUN_DIRECTORY_VARIABLE: &str = "VPNFIX_RUN_DIR";
const RUN_DIRECTORY: &str = "/run/vpnfix";

/// The directory for the lock: `/run/vpnfix`, or what `VPNFIX_RUN_DIR` says.
#[must_use]
pub fn run_directory() -> PathBuf {
    env::var_os(RUN_DIRECTORY_VARIABLE)
        .filter(|value| !value.is_empty())
        .map_or_else(|| RUN_DIRECTORY.into(), Into::into)
}

/// Held while rules of one namespace, or files of vpnfix's own, are changed. The kernel releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    file: Flock<File>,
}

/// The lock cannot be had.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another vpnfix holds it.
    #[error("another vpnfix is making changes{}", by.map_or(String::new(), |pid| format!(" (process {pid})")))]
    Held {
        /// Its process id, where it could be read.
        by: Option<u32>,
    },
    /// The directory is not there and cannot be made, or is no directory.
    #[error("open the directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The lock's file cannot be used. `ELOOP`: it is a symbolic link, which is never followed.
    #[error("lock {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl LockError {
    /// Is a privilege missing (`EPERM`, `EACCES`)?
    #[must_use]
    pub fn is_privilege(&self) -> bool {
        match self {
            Self::Held { .. } => false,
            Self::Directory { source, .. } | Self::File { source, .. } => {
                source.kind() == io::ErrorKind::PermissionDenied
            }
        }
    }
}

impl Lock {
    /// Takes the lock of the namespace with this inode, without waiting, in [`run_directory`]. The directory is made
    /// (0700) if it is missing.
    ///
    /// # Errors
    /// [`LockError::Held`] if another holds it; otherwise what cannot be opened.
    pub fn take(netns_inode: u64) -> Result<Self, LockError> {
        Self::take_in(&run_directory(), netns_inode)
    }

    /// The same in another directory.
    ///
    /// # Errors
    /// As [`Lock::take`].
    pub fn take_in(directory: &Path, netns_inode: u64) -> Result<Self, LockError> {
        Self::take_named(directory, &format!("lock-{netns_inode}"))
    }

    /// Takes the lock of vpnfix's own files on disk, in this run directory. Files belong to no network namespace.
    ///
    /// # Errors
    /// As [`Lock::take`].
    pub fn take_of_files_in(directory: &Path) -> Result<Self, LockError> {
        Self::take_named(directory, "lock-files")
    }

    pub(super) fn take_named(directory: &Path, name: &str) -> Result<Self, LockError> {
        let path = directory.join(name);
        let failed = |source: io::Error| LockError::File { path: path.clone(), source };
        let holder = open_directory(directory)?;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&holder, name, flags, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|errno| failed(errno.into()))?;
        match Flock::lock(File::from(file), FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                // Only for the other's message: what is written here decides nothing.
                file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
                Ok(Self { file })
            }
            Err((mut file, Errno::EWOULDBLOCK)) => Err(LockError::Held { by: read_pid(&mut file) }),
            Err((_file, errno)) => Err(failed(errno.into())),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The file stays (removing it would let two hold "the" lock); the process id in it must not outlive the lock.
        if let Err(error) = self.file.set_len(0) {
            tracing::debug!(%error, "could not empty the lock's file");
        }
    }
}

/// Opens the run directory, made (0700) if it is missing.
pub(super) fn open_directory(directory: &Path) -> Result<OwnedFd, LockError> {
    let failed = |source: io::Error| LockError::Directory { path: directory.to_owned(), source };
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    open(directory, flags, Mode::empty()).map_err(|errno| failed(errno.into()))
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok().filter(|pid| *pid != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A directory that goes with its owner.
    struct Directory(PathBuf);

    impl Directory {
        fn new(test: &str) -> Self {
            let path = env::temp_dir().join(format!("vpnfix-lock-{test}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _cleaned = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_second_taker_is_told_who_holds_it() {
        let directory = Directory::new("twice");
        let run = directory.0.join("run");
        let lock = Lock::take_in(&run, 42).unwrap();
        let error = Lock::take_in(&run, 42).unwrap_err();
        assert!(matches!(error, LockError::Held { by: Some(pid) } if pid == std::process::id()), "{error}");
        let _another_namespace = Lock::take_in(&run, 43).unwrap();
        drop(lock);
        assert_eq!(fs::read(run.join("lock-42")).unwrap(), b"");
        let _again = Lock::take_in(&run, 42).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&run), mode(&run.join("lock-42"))), (0o700, 0o600));
    }

    #[test]
    fn what_is_in_the_file_is_not_believed() {
        let directory = Directory::new("content");
        let _lock = Lock::take_in(&directory.0, 1).unwrap();
        for content in [&b"\x1b[31mroot\n"[..], b"99999999999999999999", b"", b"\xff\xfe", b"0"] {
            fs::write(directory.0.join("lock-1"), content).unwrap();
            let error = Lock::take_in(&directory.0, 1).unwrap_err();
            assert!(matches!(error, LockError::Held { by: None }), "{error}");
        }
    }

    #[test]
    fn symbolic_links_are_not_followed() {
        let directory = Directory::new("link");
        let target = directory.0.join("target");
        fs::write(&target, "precious").unwrap();
        symlink(&target, directory.0.join("lock-1")).unwrap();
        assert!(matches!(Lock::take_in(&directory.0, 1), Err(LockError::File { .. })));
        assert_eq!(fs::read(&target).unwrap(), b"precious");
        symlink(&directory.0, directory.0.join("run")).unwrap();
        assert!(matches!(Lock::take_in(&directory.0.join("run"), 1), Err(LockError::Directory { .. })));
    }
}
