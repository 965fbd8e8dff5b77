//! The undo journal as a file in the run directory, one a namespace.
//!
//! It is made whole under another name and put in its place by a rename, so that none is ever seen without its header and
//! all that is intended; then a line is appended for each step. All of it is synced before the kernel is asked to change
//! anything: /run is mostly a memory file system, but `VPNFIX_RUN_DIR` may name a disk.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use thiserror::Error;

use super::lock::{LockError, open_directory};
use crate::core::journal::text::{self, LARGEST};
use crate::core::journal::{Entry, Header, Record, Recorded, Stage};

/// The journal cannot be read or written.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The run directory cannot be used.
    #[error(transparent)]
    Directory(#[from] LockError),
    /// The file cannot be used.
    #[error("{doing} the undo journal {}", path.display())]
    File {
        /// What was attempted.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl JournalError {
    /// Is a privilege missing (`EPERM`, `EACCES`)?
    #[must_use]
    pub fn is_privilege(&self) -> bool {
        match self {
            Self::Directory(error) => error.is_privilege(),
            Self::File { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
        }
    }
}

/// The file's name in the run directory.
fn name(netns_inode: u64) -> String {
    format!("journal-{netns_inode}")
}

/// Where the journal of the namespace with this inode lies.
#[must_use]
pub fn path(directory: &Path, netns_inode: u64) -> PathBuf {
    directory.join(name(netns_inode))
}

/// Reads what lies in the journal's place. Links are not followed, and what is no plain file is not opened for good.
///
/// # Errors
/// It is there and cannot be read.
pub fn read(directory: &Path, netns_inode: u64) -> Result<Record, JournalError> {
    let path = path(directory, netns_inode);
    let failed = |source: io::Error| JournalError::File { doing: "read", path: path.clone(), source };
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = match openat(nix::fcntl::AT_FDCWD, &path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::ENOENT) => return Ok(Record::None),
        Err(Errno::ELOOP) => return Ok(Record::Broken("it is a symbolic link".into())),
        Err(errno) => return Err(failed(errno.into())),
    };
    if !file.metadata().map_err(&failed)?.is_file() {
        return Ok(Record::Broken("it is no plain file".into()));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST as u64 + 1).read_to_end(&mut bytes).map_err(&failed)?;
    Ok(text::read(&bytes))
}

/// A journal that is being written. It stays when this goes; only [`JournalFile::remove`] ends it.
#[derive(Debug)]
pub struct JournalFile {
    directory: OwnedFd,
    path: PathBuf,
    name: String,
    file: File,
}

impl JournalFile {
    /// Writes a journal in the place of what lies there, whatever that is. The caller holds the namespace's lock.
    ///
    /// # Errors
    /// It cannot be written whole; what was there before is still there.
    pub fn begin(directory: &Path, header: &Header, rules: &[Recorded]) -> Result<Self, JournalError> {
        let name = name(header.place.netns_inode);
        let path = directory.join(&name);
        let holder = open_directory(directory)?;
        let failed = |source: io::Error| JournalError::File { doing: "write", path: path.clone(), source };
        let mut lines = text::header_line(header).map_err(|error| failed(error.into()))?;
        for recorded in rules {
            lines +=
                &text::entry_line(&Entry::Rule(Box::new(recorded.clone()))).map_err(|error| failed(error.into()))?;
        }
        let draft = format!("{name}.new");
        // What a killed writer left, or a link that somebody laid.
        match unlinkat(&holder, draft.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
        let flags =
            OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&holder, draft.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|errno| failed(errno.into()))?;
        let mut file = File::from(file);
        file.write_all(lines.as_bytes()).and_then(|()| file.sync_all()).map_err(&failed)?;
        renameat(&holder, draft.as_str(), &holder, name.as_str()).map_err(|errno| failed(errno.into()))?;
        nix::unistd::fsync(&holder).map_err(|errno| failed(errno.into()))?;
        Ok(Self { directory: holder, path, name, file })
    }

    /// Appends that rules, by their numbers, went on to this stage.
    ///
    /// # Errors
    /// It cannot be written or synced.
    pub fn note(&mut self, numbers: &[u32], stage: Stage) -> Result<(), JournalError> {
        let mut lines = String::new();
        for number in numbers {
            lines += &text::entry_line(&Entry::Stage(*number, stage)).map_err(|error| self.failed(error.into()))?;
        }
        let written = self.file.write_all(lines.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|source| self.failed(source))
    }

    /// Deletes the file: nothing of ours is left to undo.
    ///
    /// # Errors
    /// It cannot be deleted.
    pub fn remove(self) -> Result<(), JournalError> {
        match unlinkat(&self.directory, self.name.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(self.failed(errno.into())),
        }
    }

    fn failed(&self, source: io::Error) -> JournalError {
        JournalError::File { doing: "write", path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::core::journal::{FORMAT, Place};
    use crate::core::model::{Family, Rule};

    /// A directory that goes with its owner.
    struct Directory(PathBuf);

    impl Directory {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("vpnfix-journal-{test}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _cleaned = fs::remove_dir_all(&self.0);
        }
    }

    fn header() -> Header {
        let place = Place { boot_id: "b".into(), netns_inode: 5 };
        Header { format: FORMAT, vpnfix: "0.1.0".into(), place, netns_name: None, pid: 1, began: 2 }
    }

    fn intended() -> [Recorded; 1] {
        [Recorded { rule: Rule::lookup(Family::V4, 100, 254), stage: Stage::Intended }]
    }

    #[test]
    fn what_is_begun_and_noted_is_read_and_removed() {
        let directory = Directory::new("whole");
        assert_eq!(read(&directory.0, 5).unwrap(), Record::None);
        let mut journal = JournalFile::begin(&directory.0, &header(), &intended()).unwrap();
        journal.note(&[0], Stage::Added).unwrap();
        let Record::Whole(found) = read(&directory.0, 5).unwrap() else { panic!("not whole") };
        assert_eq!((found.header, found.rules[0].stage), (header(), Stage::Added));
        let mode = fs::metadata(path(&directory.0, 5)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        journal.remove().unwrap();
        assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 0);
    }

    #[test]
    fn links_are_neither_followed_nor_written_through() {
        let directory = Directory::new("link");
        let target = directory.0.join("target");
        fs::write(&target, "precious").unwrap();
        for name in ["journal-5", "journal-5.new"] {
            symlink(&target, directory.0.join(name)).unwrap();
        }
        assert!(matches!(read(&directory.0, 5).unwrap(), Record::Broken(_)));
        let _journal = JournalFile::begin(&directory.0, &header(), &intended()).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"precious");
        assert!(matches!(read(&directory.0, 5).unwrap(), Record::Whole(_)));
    }

    #[test]
    fn what_is_no_file_does_not_hang_and_is_told() {
        let directory = Directory::new("fifo");
        nix::unistd::mkfifo(&path(&directory.0, 5), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        assert!(matches!(read(&directory.0, 5).unwrap(), Record::Broken(_)));
        fs::create_dir(path(&directory.0, 6)).unwrap();
        assert!(matches!(read(&directory.0, 6).unwrap(), Record::Broken(_)));
    }
}
