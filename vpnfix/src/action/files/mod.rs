//! Files of vpnfix's own on disk: written whole, recorded before they are there, and taken back only as they were written.
//!
//! The record (`files.json` in [`state_directory`]) is on disk before the first file, and again after each. A kill at any
//! point thus leaves a record of everything that may be there; the next change settles what was interrupted. A file that
//! is not recorded is not vpnfix's: it is never overwritten and never removed.

mod disk;
mod error;
mod fault;
mod record;
#[cfg(test)]
mod tests;

use std::env;
use std::io;
use std::path::{Path, PathBuf};

pub use error::{FilesError, Left};
pub use record::RecordError;

use super::lock::{self, Lock};
use crate::core::own_file::{Purpose, Standing};
use crate::core::report::VERSION;
use crate::system::host;
use disk::{Directory, Found, Over, Seen, sha256};
use record::{Entry, Recorded, is_plain};

/// Names another state directory, for tests.
pub const STATE_DIRECTORY_VARIABLE: &str = "VPNFIX_STATE_DIR";
const STATE_DIRECTORY: &str = "/var/lib/vpnfix";

/// Where the record lies: `/var/lib/vpnfix`, or what `VPNFIX_STATE_DIR` says.
#[must_use]
pub fn state_directory() -> PathBuf {
    env::var_os(STATE_DIRECTORY_VARIABLE)
        .filter(|value| !value.is_empty())
        .map_or_else(|| STATE_DIRECTORY.into(), Into::into)
}

/// A file to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnFile {
    /// Where: an absolute path without `.` and `..`, its name not hidden. Missing directories are made.
    pub path: PathBuf,
    /// What it holds, whole.
    pub contents: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
    /// What for.
    pub purpose: Purpose,
}

/// What writing a file came to, or would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// There was none.
    Written,
    /// An earlier version of vpnfix's was there.
    Replaced,
    /// It was there already as it should be.
    Unchanged,
}

/// A file that is recorded, and how it stands now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it is.
    pub path: PathBuf,
    /// What for.
    pub purpose: Purpose,
    /// When it was written, in seconds since the Unix epoch.
    pub time: u64,
    /// The version of vpnfix that wrote it.
    pub version: String,
    /// How it stands.
    pub standing: Standing,
}

/// What was removed.
#[derive(Debug, Default)]
pub struct Removal {
    /// The files that were there and are gone.
    pub removed: Vec<PathBuf>,
    /// Those that stay. They stay recorded, too.
    pub left: Vec<Left>,
}

/// vpnfix's own files on this host, by their record.
#[derive(Clone, Debug)]
pub struct OwnFiles {
    state: PathBuf,
    run: PathBuf,
}

impl OwnFiles {
    /// Those of this host.
    #[must_use]
    pub fn of_host() -> Self {
        Self { state: state_directory(), run: lock::run_directory() }
    }

    /// Those that are recorded in another state directory, with the lock in another run directory.
    #[must_use]
    pub fn of(state: PathBuf, run: PathBuf) -> Self {
        Self { state, run }
    }

    /// What [`OwnFiles::put`] would do, file by file. Takes no lock and changes nothing.
    ///
    /// # Errors
    /// As [`OwnFiles::put`] before its first change.
    pub fn examine(&self, files: &[OwnFile]) -> Result<Vec<Put>, FilesError> {
        examine(&self.read()?, files)
    }

    /// Writes files, or nothing at all where one of them may not be written. Those that are there already as they
    /// should be stay untouched. What fails on the way is settled: files that are there stay, whole and recorded.
    ///
    /// # Errors
    /// A file that is not vpnfix's or was changed since, a path of another form, a record that cannot be used, and what
    /// the disk refuses.
    pub fn put(&self, files: &[OwnFile]) -> Result<Vec<Put>, FilesError> {
        let _lock = Lock::take_of_files_in(&self.run)?;
        let mut record = self.read()?;
        let all_there = |puts: &[Put]| puts.iter().all(|put| *put == Put::Unchanged);
        if record.files.iter().all(|entry| entry.complete) && all_there(&examine(&record, files)?) {
            return Ok(vec![Put::Unchanged; files.len()]);
        }
        self.settle(&mut record)?;
        let puts = examine(&record, files)?;
        let due: Vec<&OwnFile> =
            files.iter().zip(&puts).filter(|(_, put)| **put != Put::Unchanged).map(|(file, _)| file).collect();
        let written = self.write_all(&mut record, &due);
        if written.is_err()
            && let Err(error) = self.settle(&mut record)
        {
            tracing::debug!(%error, "what was interrupted is not settled");
        }
        written.map(|()| puts)
    }

    fn write_all(&self, record: &mut Recorded, due: &[&OwnFile]) -> Result<(), FilesError> {
        let mut missing = Vec::new();
        for file in due {
            missing_parents(&file.path, &mut missing)?;
            let entry = planned(record, file)?;
            record.take_in(entry);
        }
        missing.iter().for_each(|path| record.take_in_directory(path));
        self.write(record)?;
        for path in &missing {
            if !within(path, |parent, name| parent.make(name)).map_err(failed("make", path))? {
                // Someone else was faster: it is theirs.
                record.directories.retain(|made| made != path);
            }
        }
        for file in due {
            let over = record.of(&file.path).and_then(|entry| entry.replaces.as_ref());
            let over = if over.is_some() { Over::Own } else { Over::Nothing };
            let seen = within(&file.path, |parent, name| {
                parent.write(name, &file.contents, file.mode, over)?;
                parent.find(name)
            });
            let seen = seen.map_err(failed("write", &file.path))?;
            tell("written", &file.path, file.purpose);
            complete(record, &file.path, seen);
            self.write(record)?;
        }
        Ok(())
    }

    /// Removes the recorded files that `which` picks, and the directories that were made for them where they are empty
    /// now. A file that was changed since stays, recorded; one that is gone already is fine.
    ///
    /// # Errors
    /// The lock cannot be had, or the record cannot be used: then nothing is removed.
    pub fn remove(&self, which: impl Fn(&Record) -> bool) -> Result<Removal, FilesError> {
        let _lock = Lock::take_of_files_in(&self.run)?;
        let mut record = self.read()?;
        self.settle(&mut record)?;
        let mut removal = Removal::default();
        for told in standings(&record)?.into_iter().filter(which) {
            let Record { path, purpose, standing, .. } = told;
            if standing == Standing::Changed {
                removal.left.push(Left::Changed(path));
                continue;
            }
            if standing == Standing::AsWritten {
                if let Err(source) = within(&path, |parent, name| parent.remove(name)) {
                    removal.left.push(Left::Io { path, source });
                    continue;
                }
                tell("removed", &path, purpose);
                removal.removed.push(path.clone());
            }
            record.forget(&path);
            self.write(&record)?;
        }
        remove_directories(&mut record)?;
        // Also where nothing was recorded: the writing of the first record may have been interrupted.
        self.write(&record)?;
        Ok(removal)
    }

    /// The recorded files, and how each stands now. Takes no lock: the record is replaced as a whole.
    ///
    /// # Errors
    /// The record cannot be used, or a file cannot be read.
    pub fn recorded(&self) -> Result<Vec<Record>, FilesError> {
        standings(&self.read()?)
    }

    /// Brings a record in line with the disk where a change was interrupted: files are there or not, nothing between.
    fn settle(&self, record: &mut Recorded) -> Result<(), FilesError> {
        let before = record.clone();
        for told in standings(record)? {
            let Some(index) = record.files.iter().position(|entry| entry.path == told.path && !entry.complete) else {
                continue;
            };
            match within(&told.path, |parent, name| parent.remove_temporary(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("clean up beside", &told.path)(error));
                }
                _ => {}
            }
            let Some(entry) = record.files.get_mut(index) else { continue };
            match (told.standing, entry.replaces.take()) {
                (Standing::Missing, _) => record.forget(&told.path),
                (Standing::Earlier, Some(earlier)) => (entry.sha256, entry.complete) = (earlier, true),
                // Not there when the writing began, and not ours now.
                (Standing::Changed, None) => record.forget(&told.path),
                _ => entry.complete = true,
            }
        }
        remove_directories(record)?;
        if *record == before { Ok(()) } else { self.write(record) }
    }

    fn read(&self) -> Result<Recorded, FilesError> {
        Recorded::read(&self.state).map_err(|source| self.unusable(source))
    }

    fn write(&self, record: &Recorded) -> Result<(), FilesError> {
        record.write(&self.state).map_err(|source| self.unusable(source))
    }

    fn unusable(&self, source: RecordError) -> FilesError {
        FilesError::Record { path: self.state.join(record::NAME), source }
    }
}

/// The one place where a change of the disk is told.
fn tell(what: &'static str, path: &Path, purpose: Purpose) {
    tracing::info!(file = %path.display(), ?purpose, "{what}");
}

fn failed<'p>(what: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> FilesError + use<'p> {
    move |source| FilesError::Io { what, path: path.to_owned(), source }
}

/// Does something in the directory of a path, with the last name of it.
fn within<T>(path: &Path, act: impl FnOnce(&Directory, &str) -> io::Result<T>) -> io::Result<T> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    act(&Directory::open(parent)?, name)
}

fn find(path: &Path) -> Result<Found, FilesError> {
    match within(path, Directory::find) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
        found => found.map_err(failed("read", path)),
    }
}

fn examine(record: &Recorded, files: &[OwnFile]) -> Result<Vec<Put>, FilesError> {
    let twice = |index: usize, file: &OwnFile| files.iter().take(index).any(|other| other.path == file.path);
    let mut puts = Vec::new();
    for (index, file) in files.iter().enumerate() {
        if !is_plain(&file.path) || twice(index, file) {
            return Err(FilesError::Path(file.path.clone()));
        }
        let entry = record.of(&file.path);
        puts.push(match (find(&file.path)?, entry) {
            (Found::Nothing, _) => Put::Written,
            (Found::File(seen), Some(entry)) if is_ours(entry, &seen) => {
                let same = seen.sha256 == sha256(&file.contents) && seen.mode == file.mode;
                if same && entry.purpose == file.purpose { Put::Unchanged } else { Put::Replaced }
            }
            (_, Some(entry)) if entry.complete || entry.replaces.is_some() => {
                return Err(FilesError::Changed(file.path.clone()));
            }
            (_, _) => return Err(FilesError::NotOurs(file.path.clone())),
        });
    }
    Ok(puts)
}

fn is_ours(entry: &Entry, seen: &Seen) -> bool {
    entry.sha256 == seen.sha256 || entry.replaces.as_ref() == Some(&seen.sha256)
}

fn standings(record: &Recorded) -> Result<Vec<Record>, FilesError> {
    let told = |entry: &Entry| {
        let standing = match find(&entry.path)? {
            Found::Nothing => Standing::Missing,
            Found::File(seen) if seen.sha256 == entry.sha256 => Standing::AsWritten,
            Found::File(seen) if is_ours(entry, &seen) => Standing::Earlier,
            Found::File(_) | Found::Other => Standing::Changed,
        };
        let Entry { path, purpose, time, version, .. } = entry.clone();
        Ok(Record { path, purpose, time, version, standing })
    };
    record.files.iter().map(told).collect()
}

/// The entry of a file that is about to be written.
fn planned(record: &Recorded, file: &OwnFile) -> Result<Entry, FilesError> {
    let replaces = match (find(&file.path)?, record.of(&file.path)) {
        (Found::Nothing, _) => None,
        (Found::File(seen), Some(entry)) if is_ours(entry, &seen) => Some(seen.sha256),
        (_, _) => return Err(FilesError::NotOurs(file.path.clone())),
    };
    Ok(Entry {
        path: file.path.clone(),
        purpose: file.purpose,
        sha256: sha256(&file.contents),
        replaces,
        complete: false,
        mode: file.mode,
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
        time: host::unix_time(),
        version: VERSION.into(),
    })
}

fn complete(record: &mut Recorded, path: &Path, seen: Found) {
    if let Some(entry) = record.files.iter_mut().find(|entry| entry.path == path) {
        (entry.complete, entry.replaces) = (true, None);
        if let Found::File(seen) = seen {
            (entry.mode, entry.uid, entry.gid) = (seen.mode, seen.uid, seen.gid);
        }
    }
}

/// Adds the directories above a path that do not exist, the uppermost first.
fn missing_parents(path: &Path, missing: &mut Vec<PathBuf>) -> Result<(), FilesError> {
    let mut above = Vec::new();
    for parent in path.ancestors().skip(1) {
        match parent.symlink_metadata() {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound => above.push(parent.to_owned()),
            Err(error) => return Err(failed("look at", parent)(error)),
        }
    }
    above.reverse();
    above.retain(|path| !missing.contains(path));
    missing.extend(above);
    Ok(())
}

/// Removes the directories of ours that no recorded file needs any more, the lowest first. One that holds something
/// else stays, and is no longer ours.
fn remove_directories(record: &mut Recorded) -> Result<(), FilesError> {
    let mut directories = std::mem::take(&mut record.directories);
    directories.sort();
    while let Some(path) = directories.pop() {
        if record.files.iter().any(|entry| entry.path.starts_with(&path)) {
            record.directories.push(path);
            continue;
        }
        match within(&path, |parent, name| parent.remove_empty(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &path)(error)),
            _ => {}
        }
    }
    record.directories.reverse();
    Ok(())
}
