//! Whether `watch` runs in a namespace, and whether an `undo` by hand holds it: two small files in the run directory, one
//! of each a namespace.
//!
//! The first is locked by the `watch` that repairs, and holds its process id; one that ends in order leaves it empty. So
//! a file with something in it means that a `watch` runs or was killed, and in both cases an `undo` holds the repairs: the
//! service will be back. A hold ends with `vpnfix fix`, when `watch` ends in order, and with the boot.

use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::lock::{Lock, LockError, open_directory};

fn hold_name(netns_inode: u64) -> String {
    format!("hold-{netns_inode}")
}

fn watch_name(netns_inode: u64) -> String {
    format!("watch-{netns_inode}")
}

fn failed(directory: &Path, name: &str, source: io::Error) -> LockError {
    LockError::File { path: directory.join(name), source }
}

/// A `watch` that repairs, for as long as this lives.
#[derive(Debug)]
pub struct Presence {
    _lock: Lock,
}

impl Presence {
    /// Says that a `watch` repairs in this namespace. A hold that was set before is over, unless the `watch` before was
    /// killed.
    ///
    /// # Errors
    /// Another one does already ([`LockError::Held`]), or the run directory cannot be used.
    pub fn take(directory: &Path, netns_inode: u64) -> Result<Self, LockError> {
        let killed = is_marked(directory, netns_inode)?;
        let lock = Lock::take_named(directory, &watch_name(netns_inode))?;
        if !killed {
            lift(directory, netns_inode)?;
        }
        Ok(Self { _lock: lock })
    }
}

/// Has the file of the `watch` anything in it?
fn is_marked(directory: &Path, netns_inode: u64) -> Result<bool, LockError> {
    let name = watch_name(netns_inode);
    let holder = open_directory(directory)?;
    match fstatat(&holder, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(status) => Ok(status.st_size > 0),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(failed(directory, &name, errno.into())),
    }
}

/// Holds the `watch` of the namespace, if there is one that repairs. Says whether there is.
///
/// # Errors
/// The run directory cannot be used.
pub fn set_if_watched(directory: &Path, netns_inode: u64) -> Result<bool, LockError> {
    if !is_marked(directory, netns_inode)? {
        return Ok(false);
    }
    let name = hold_name(netns_inode);
    let holder = open_directory(directory)?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(&holder, name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)
        .map(|_file| true)
        .map_err(|errno| failed(directory, &name, errno.into()))
}

/// Is the `watch` of the namespace held?
///
/// # Errors
/// The run directory cannot be used.
pub fn is_set(directory: &Path, netns_inode: u64) -> Result<bool, LockError> {
    let name = hold_name(netns_inode);
    let holder = open_directory(directory)?;
    match fstatat(&holder, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(_status) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(failed(directory, &name, errno.into())),
    }
}

/// Ends a hold, if there is one.
///
/// # Errors
/// The run directory cannot be used.
pub fn lift(directory: &Path, netns_inode: u64) -> Result<(), LockError> {
    let name = hold_name(netns_inode);
    let holder = open_directory(directory)?;
    match unlinkat(&holder, name.as_str(), UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(failed(directory, &name, errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("vpnfix-hold-{test}-{}", std::process::id()));
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
    fn an_undo_holds_only_where_a_watch_runs() {
        let directory = Directory::new("where");
        assert!(!set_if_watched(&directory.0, 7).unwrap());
        assert!(!is_set(&directory.0, 7).unwrap());
        let watch = Presence::take(&directory.0, 7).unwrap();
        assert!(matches!(Presence::take(&directory.0, 7), Err(LockError::Held { .. })));
        assert!(set_if_watched(&directory.0, 7).unwrap() && is_set(&directory.0, 7).unwrap());
        assert!(!is_set(&directory.0, 8).unwrap());
        lift(&directory.0, 7).unwrap();
        assert!(!is_set(&directory.0, 7).unwrap());
        drop(watch);
        assert!(!set_if_watched(&directory.0, 7).unwrap());
    }

    #[test]
    fn a_hold_outlives_a_killed_watch_and_no_other() {
        let directory = Directory::new("outlives");
        drop(Presence::take(&directory.0, 7).unwrap());
        fs::write(directory.0.join("hold-7"), "").unwrap();
        let watch = Presence::take(&directory.0, 7).unwrap();
        assert!(!is_set(&directory.0, 7).unwrap(), "a fresh start ends a hold");
        drop(watch);
        // As a killed one leaves it.
        fs::write(directory.0.join("watch-7"), "4711\n").unwrap();
        assert!(set_if_watched(&directory.0, 7).unwrap());
        let _watch = Presence::take(&directory.0, 7).unwrap();
        assert!(is_set(&directory.0, 7).unwrap());
    }
}
