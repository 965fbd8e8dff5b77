//! One directory's files: read with care, written whole and atomically, never through a symbolic link.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, open, openat, renameat, renameat2};
use nix::sys::stat::{Mode, fchmod, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, fsync, linkat, unlinkat};
use sha2::{Digest, Sha256};

use super::fault;

/// No file of vpnfix's own is as large; what is larger is somebody else's.
const MAX_BYTES: u64 = 1024 * 1024;

/// SHA-256 in lower case hexadecimal.
pub(super) fn sha256(contents: &[u8]) -> String {
    Sha256::digest(contents).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is found under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// No entry.
    Nothing,
    /// A regular file.
    File(Seen),
    /// A symbolic link, a directory, or a file larger than any of ours.
    Other,
}

/// What a file was seen to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) sha256: String,
    /// Permission bits.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// May something already be there?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Nothing: what came meanwhile is left (`EEXIST`).
    Nothing,
    /// An earlier version of ours.
    Own,
}

/// An open directory: what is done in it does not follow the path again.
pub(super) struct Directory(OwnedFd);

impl Directory {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self(open(path, flags, Mode::empty())?))
    }

    /// Reads what stands under a name.
    pub(super) fn find(&self, name: &str) -> io::Result<Found> {
        // Without blocking: opening a named pipe would wait for a writer.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match openat(&self.0, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::ENOENT) => return Ok(Found::Nothing),
            // A symbolic link; a socket or a device without a driver.
            Err(Errno::ELOOP | Errno::ENXIO) => return Ok(Found::Other),
            Err(errno) => return Err(errno.into()),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() > MAX_BYTES {
            return Ok(Found::Other);
        }
        let mut contents = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut contents)?;
        Ok(Found::File(Seen {
            sha256: sha256(&contents),
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
        }))
    }

    /// Writes a file whole: after a crash at any moment the name shows all of it, or what it showed before. Written in
    /// the same directory, so that it gets the label that SELinux gives to files there.
    pub(super) fn write(&self, name: &str, contents: &[u8], mode: u32, over: Over) -> io::Result<()> {
        let temporary = temporary_name(name);
        self.unlink(&temporary)?;
        let written = self.write_at_once(&temporary, contents, mode).and_then(|()| {
            fault::point()?;
            match over {
                Over::Own => Ok(renameat(&self.0, temporary.as_str(), &self.0, name)?),
                Over::Nothing => self.rename_to_nothing(&temporary, name),
            }
        });
        if let Err(error) = written {
            if let Err(unlink) = self.unlink(&temporary) {
                tracing::debug!(error = %unlink, file = temporary, "a temporary file stays");
            }
            return Err(error);
        }
        self.sync()
    }

    fn write_at_once(&self, temporary: &str, contents: &[u8], mode: u32) -> io::Result<()> {
        fault::point()?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(&self.0, temporary, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        fault::point()?;
        file.write_all(contents)?;
        // By itself, because the umask takes bits from the mode that a file is opened with.
        fchmod(&file, Mode::from_bits_truncate(mode))?;
        file.sync_all()
    }

    fn rename_to_nothing(&self, temporary: &str, name: &str) -> io::Result<()> {
        match renameat2(&self.0, temporary, &self.0, name, RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => Ok(()),
            // A file system that knows no such flag (9p, NFS): a hard link is never made over something either.
            Err(Errno::EINVAL | Errno::ENOSYS) => {
                linkat(&self.0, temporary, &self.0, name, AtFlags::empty())?;
                self.unlink(temporary).map(drop)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Removes a file, and what an interrupted writing of it left. True if the file was there.
    pub(super) fn remove(&self, name: &str) -> io::Result<bool> {
        self.remove_temporary(name)?;
        let there = self.unlink(name)?;
        self.sync()?;
        Ok(there)
    }

    /// Removes what an interrupted writing of a file left.
    pub(super) fn remove_temporary(&self, name: &str) -> io::Result<()> {
        self.unlink(&temporary_name(name)).map(drop)
    }

    fn unlink(&self, name: &str) -> io::Result<bool> {
        // A file system that is read-only refuses to unlink also what is not there.
        if !self.holds(name)? {
            return Ok(false);
        }
        fault::point()?;
        match unlinkat(&self.0, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    fn holds(&self, name: &str) -> io::Result<bool> {
        match fstatat(&self.0, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes a directory in this one, 0755. False if something is there already.
    pub(super) fn make(&self, name: &str) -> io::Result<bool> {
        fault::point()?;
        let mode = Mode::from_bits_truncate(0o755);
        match mkdirat(&self.0, name, mode) {
            Ok(()) => {}
            Err(Errno::EEXIST) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
        // A daemon without privileges reads there, whatever the umask of the one who calls.
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        fchmod(openat(&self.0, name, flags, Mode::empty())?, mode)?;
        self.sync()?;
        Ok(true)
    }

    /// Removes an empty directory in this one. One that is not empty, or no directory, stays.
    pub(super) fn remove_empty(&self, name: &str) -> io::Result<()> {
        if !self.holds(name)? {
            return Ok(());
        }
        fault::point()?;
        match unlinkat(&self.0, name, UnlinkatFlags::RemoveDir) {
            Ok(()) => self.sync(),
            Err(Errno::ENOENT | Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        fault::point()?;
        Ok(fsync(&self.0)?)
    }
}

/// The name that a file has until it is whole. It begins with a dot and ends as no configuration does: neither glob(3)
/// nor systemd, NetworkManager, netplan or ifupdown read such a file.
fn temporary_name(name: &str) -> String {
    format!(".{name}.vpnfix-new")
}
