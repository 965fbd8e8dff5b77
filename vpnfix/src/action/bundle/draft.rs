//! A bundle that is being written.
//!
//! It lies beside its target as `TARGET.partial`, a directory with a manifest that says from the first moment on that the
//! capture has not come to its end. Only when every file is on disk does the manifest say otherwise, and only then is
//! the whole renamed. A kill leaves a draft that says so itself.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::archive;
use super::error::BundleError;
use crate::core::bundle::manifest::{FileFacts, Manifest};
use crate::core::bundle::name::MANIFEST;
use crate::core::bundle::{BUNDLE_BYTES, FILE_BYTES, FILES, Files, is_plain};
use crate::core::report::Outcome;

/// A bundle that is being written.
#[derive(Debug)]
pub struct Draft {
    target: PathBuf,
    directory: PathBuf,
    is_archive: bool,
    manifest: Manifest,
    files: Files,
    bytes: usize,
}

impl Draft {
    /// Begins one for this target: an archive if its name ends in `.tar.zst`, a directory else.
    ///
    /// # Errors
    /// The target or a draft of it is there already, or the disk refuses.
    pub fn begin(target: &Path, manifest: Manifest) -> Result<Self, BundleError> {
        if fs::symlink_metadata(target).is_ok() {
            return Err(BundleError::Exists(target.to_owned()));
        }
        let directory = beside(target, ".partial");
        let made = DirBuilder::new().mode(0o700).create(&directory);
        made.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => BundleError::LeftBehind(directory.clone()),
            _ => BundleError::io("make the directory", &directory)(error),
        })?;
        let is_archive = target.to_string_lossy().ends_with(".tar.zst");
        let target = target.to_owned();
        let mut draft = Self { target, directory, is_archive, manifest, files: Files::new(), bytes: 0 };
        draft.save().inspect_err(|_| draft.remove())?;
        Ok(draft)
    }

    /// The manifest as far as it has come.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Says why a file is not there.
    pub fn lacks(&mut self, name: &str, why: impl Into<String>) {
        self.manifest.lacks(name, why);
    }

    /// Writes a file, or notes that it is larger than may be.
    ///
    /// # Errors
    /// A name that no bundle has, and what the disk refuses.
    pub fn put(&mut self, name: &str, contents: Vec<u8>) -> Result<(), BundleError> {
        let path = self.directory.join(name);
        if !is_plain(name) || name == MANIFEST || self.files.contains_key(name) {
            let source = io::ErrorKind::InvalidInput.into();
            return Err(BundleError::Io { doing: "write", path, source });
        }
        if !self.has_room_for(&contents) {
            self.lacks(name, format!("it has {} bytes: more than a bundle may hold", contents.len()));
            return Ok(());
        }
        if let Some(parent) = path.parent().filter(|parent| *parent != self.directory) {
            match DirBuilder::new().mode(0o700).create(parent) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(BundleError::io("make the directory", parent)(error));
                }
                _ => {}
            }
        }
        write_new(&path, &contents)?;
        self.take(name, contents);
        Ok(())
    }

    /// Where a file of this name will lie, for those that are written bit by bit; [`Draft::adopt`] takes them in.
    #[must_use]
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Takes in a file that was written at [`Draft::path_of`]. One that is too large is removed, and that is noted.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn adopt(&mut self, name: &str) -> Result<(), BundleError> {
        let path = self.path_of(name);
        let mut contents = Vec::new();
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file.map_err(BundleError::io("read", &path))?,
        };
        file.take(FILE_BYTES as u64 + 1).read_to_end(&mut contents).map_err(BundleError::io("read", &path))?;
        if !self.has_room_for(&contents) {
            self.lacks(name, "it is larger than a bundle may hold");
            return fs::remove_file(&path).map_err(BundleError::io("remove", &path));
        }
        self.take(name, contents);
        Ok(())
    }

    fn has_room_for(&self, contents: &[u8]) -> bool {
        contents.len() <= FILE_BYTES
            && self.bytes.saturating_add(contents.len()) <= BUNDLE_BYTES
            && self.files.len() < FILES
    }

    /// Takes in a file that is on the disk now.
    fn take(&mut self, name: &str, contents: Vec<u8>) {
        self.manifest.files.insert(name.into(), FileFacts::of(&contents));
        self.bytes += contents.len();
        self.files.insert(name.into(), contents);
    }

    /// The files so far.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Writes the manifest as far as it has come.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn save(&mut self) -> Result<(), BundleError> {
        let text = manifest_text(&self.manifest)?;
        let aside = self.directory.join(super::ASIDE[0]);
        let _left = fs::remove_file(&aside);
        write_new(&aside, &text)?;
        let path = self.directory.join(MANIFEST);
        fs::rename(&aside, &path).map_err(BundleError::io("write", &path))
    }

    /// Ends it: what was to be there is, or the manifest says why not. The bundle stands whole at its target then. One that
    /// is not `complete` says so itself.
    ///
    /// # Errors
    /// The disk refuses, or something of the target's name is there now. The draft is left as a draft.
    pub fn finish(
        mut self,
        outcome: Outcome,
        ended: String,
        unix_time: u64,
        complete: bool,
    ) -> Result<PathBuf, BundleError> {
        self.manifest.outcome = Some(outcome);
        self.manifest.ended = Some(ended);
        if self.is_archive {
            let last = Manifest { complete, ..self.manifest.clone() };
            let mut files = std::mem::take(&mut self.files);
            files.insert(MANIFEST.into(), manifest_text(&last)?);
            let aside = self.directory.join(super::ASIDE[1]);
            let packed = archive::pack(&files, unix_time).map_err(BundleError::io("pack", &aside))?;
            write_new(&aside, &packed)?;
            rename_new(&aside, &self.target)?;
            self.remove();
        } else {
            for file in self.files.keys() {
                let path = self.directory.join(file);
                File::open(&path).and_then(|file| file.sync_all()).map_err(BundleError::io("write", &path))?;
            }
            self.manifest.complete = complete;
            self.save()?;
            rename_new(&self.directory, &self.target)?;
        }
        if let Some(parent) = self.target.parent() {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            // The bundle stands; only a crash of the machine could still lose its name.
            let _lost_at_most_its_name = File::open(parent).and_then(|parent| parent.sync_all());
        }
        Ok(self.target)
    }

    /// Gives it up: nothing is left.
    pub fn abandon(self) {
        self.remove();
    }

    fn remove(&self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            tracing::warn!("{} is left: {error}", self.directory.display());
        }
    }
}

fn manifest_text(manifest: &Manifest) -> Result<Vec<u8>, BundleError> {
    let mut text = serde_json::to_vec_pretty(manifest)
        .map_err(|error| BundleError::io("write", Path::new(MANIFEST))(error.into()))?;
    text.push(b'\n');
    Ok(text)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

/// Writes a file that is not there yet, to the disk.
fn write_new(path: &Path, contents: &[u8]) -> Result<(), BundleError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(BundleError::io("make", path))?;
    file.write_all(contents).and_then(|()| file.sync_all()).map_err(BundleError::io("write", path))
}

/// Renames, and never over something else.
fn rename_new(from: &Path, to: &Path) -> Result<(), BundleError> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::EEXIST) => Err(BundleError::Exists(to.to_owned())),
        // A file system without that flag (NFS): looked for before, then.
        Err(Errno::EINVAL) if fs::symlink_metadata(to).is_err() => {
            fs::rename(from, to).map_err(BundleError::io("rename to", to))
        }
        Err(error) => Err(BundleError::io("rename to", to)(error.into())),
    }
}
