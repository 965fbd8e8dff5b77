//! The record of vpnfix's own files, on disk: written before the first file and after each.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::disk::{Directory, Over};
use crate::core::own_file::Purpose;

/// Version of the format that is written, and the newest that is understood.
const FORMAT: u32 = 1;
/// Name of the record in the state directory.
pub(super) const NAME: &str = "files.json";
/// No record is as large.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// What is recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Recorded {
    /// The files that may be there.
    pub(super) files: Vec<Entry>,
    /// The directories that were made for them, and are taken away with them when they are empty.
    pub(super) directories: Vec<PathBuf>,
}

/// A file that was written, or is about to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) path: PathBuf,
    pub(super) purpose: Purpose,
    /// SHA-256 of its contents, hexadecimal.
    pub(super) sha256: String,
    /// The same of the version of ours that it replaces, while it is being written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) replaces: Option<String>,
    /// It was seen through to the disk.
    pub(super) complete: bool,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds since the Unix epoch.
    pub(super) time: u64,
    /// The version of vpnfix.
    pub(super) version: String,
}

/// The record cannot be used. Nothing is deleted then: what it covers is not known.
#[derive(Debug, Error)]
pub enum RecordError {
    /// It cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It was written by a newer vpnfix.
    #[error("it has format {0}, and this vpnfix knows {FORMAT}: use the newer vpnfix that wrote it")]
    Newer(u32),
    /// It is no record.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    files: Vec<Entry>,
    directories: Vec<PathBuf>,
}

/// The one thing that every format has.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Recorded {
    /// Reads the record of a state directory; an empty one if there is none.
    pub(super) fn read(state: &Path) -> Result<Self, RecordError> {
        let mut text = String::new();
        match File::open(state.join(NAME)) {
            Ok(file) => file.take(MAX_BYTES).read_to_string(&mut text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error.into()),
        };
        let damaged = |error: serde_json::Error| RecordError::Damaged(error.to_string());
        let Format { format } = serde_json::from_str(&text).map_err(damaged)?;
        if format > FORMAT {
            return Err(RecordError::Newer(format));
        }
        let Document { files, directories, .. } = serde_json::from_str(&text).map_err(damaged)?;
        let mut paths = files.iter().map(|entry| &entry.path).chain(&directories);
        match paths.find(|path| !is_plain(path)) {
            Some(path) => Err(RecordError::Damaged(format!("{} is no path that vpnfix writes", path.display()))),
            None => Ok(Self { files, directories }),
        }
    }

    /// Writes it, making the state directory if there is none. An empty record is taken away, and so is the directory
    /// with it, unless it holds something else.
    pub(super) fn write(&self, state: &Path) -> Result<(), RecordError> {
        if self.files.is_empty() && self.directories.is_empty() {
            return Ok(take_away(state)?);
        }
        // Not secret: an unprivileged `diagnose` tells what is there.
        match DirBuilder::new().mode(0o755).create(state) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
        let document = Document { format: FORMAT, files: self.files.clone(), directories: self.directories.clone() };
        let text = serde_json::to_string_pretty(&document).map_err(|error| RecordError::Damaged(error.to_string()))?;
        Ok(Directory::open(state)?.write(NAME, format!("{text}\n").as_bytes(), 0o644, Over::Own)?)
    }

    pub(super) fn of(&self, path: &Path) -> Option<&Entry> {
        self.files.iter().find(|entry| entry.path == path)
    }

    /// Takes an entry in, in the place of one of the same path.
    pub(super) fn take_in(&mut self, entry: Entry) {
        self.forget(&entry.path);
        self.files.push(entry);
    }

    pub(super) fn take_in_directory(&mut self, path: &Path) {
        if !self.directories.iter().any(|made| made == path) {
            self.directories.push(path.to_owned());
        }
    }

    pub(super) fn forget(&mut self, path: &Path) {
        self.files.retain(|entry| entry.path != path);
    }
}

fn take_away(state: &Path) -> io::Result<()> {
    match Directory::open(state) {
        Ok(directory) => _ = directory.remove(NAME)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    // Whatever else lies in it keeps it.
    let _kept = fs::remove_dir(state);
    Ok(())
}

/// An absolute path of names alone, the last of them not hidden, all of it text.
pub(super) fn is_plain(path: &Path) -> bool {
    let mut components = path.components();
    components.next() == Some(Component::RootDir)
        && components.all(|component| matches!(component, Component::Normal(_)))
        && path.to_str().is_some_and(|text| !text.ends_with('/') && !text.contains("/./") && !text.contains('\0'))
        && path.file_name().and_then(|name| name.to_str()).is_some_and(|name| !name.starts_with('.'))
}
