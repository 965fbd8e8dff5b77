//! Reading a bundle, which may come from anybody.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read as _, Seek as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::ASIDE;
use super::archive;
use super::error::BundleError;
use crate::core::bundle::contents::Contents;
use crate::core::bundle::manifest::{Fault, Manifest, SCHEMA, faults};
use crate::core::bundle::name::MANIFEST;
use crate::core::bundle::{BUNDLE_BYTES, FILE_BYTES, FILES, Files, is_plain};

/// A bundle that was read.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// Its manifest.
    pub manifest: Manifest,
    /// All files, the manifest among them.
    pub files: Files,
}

impl Bundle {
    /// What is wrong with it; nothing if it is whole and as it was written.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        faults(&self.manifest, &self.files)
    }

    /// What it holds.
    #[must_use]
    pub fn contents(&self) -> Contents {
        Contents::read(&self.files)
    }
}

/// Reads a bundle: a directory, or an archive. Nothing is unpacked onto the disk.
///
/// # Errors
/// It cannot be read, is no bundle, is larger than one may be, or holds what none does.
pub fn read(path: &Path) -> Result<Bundle, BundleError> {
    let facts = fs::metadata(path).map_err(BundleError::io("read", path))?;
    let files = if facts.is_dir() { directory(path)? } else { file(path)? };
    let manifest = files.get(MANIFEST).ok_or_else(|| BundleError::NoManifest(path.to_owned()))?;
    let wrong = |why: String| BundleError::Manifest { path: path.to_owned(), why };
    let manifest: Manifest = serde_json::from_slice(manifest).map_err(|error| wrong(error.to_string()))?;
    if manifest.schema != SCHEMA {
        return Err(wrong(format!("its schema is {:?}, this version knows {SCHEMA:?}", manifest.schema)));
    }
    Ok(Bundle { manifest, files })
}

fn file(path: &Path) -> Result<Files, BundleError> {
    let failed = || BundleError::io("read", path);
    let mut file = File::open(path).map_err(failed())?;
    let mut magic = [0; 4];
    let is_archive = file.read_exact(&mut magic).is_ok() && magic == archive::MAGIC;
    if !is_archive {
        return Err(BundleError::NotABundle(path.to_owned()));
    }
    file.rewind().map_err(failed())?;
    archive::unpack(path, BufReader::new(file))
}

fn directory(path: &Path) -> Result<Files, BundleError> {
    let mut files = Files::new();
    let mut bytes = 0;
    collect(path, path, "", &mut files, &mut bytes)?;
    Ok(files)
}

fn collect(
    bundle: &Path,
    directory: &Path,
    prefix: &str,
    files: &mut Files,
    bytes: &mut usize,
) -> Result<(), BundleError> {
    let failed = |path: &Path| BundleError::io("read", path);
    let too_large = |what| BundleError::TooLarge { path: bundle.to_owned(), what };
    for entry in fs::read_dir(directory).map_err(failed(directory))? {
        let entry = entry.map_err(failed(directory))?;
        let base = entry.file_name().to_string_lossy().into_owned();
        let name = format!("{prefix}{base}");
        let hostile = |why| BundleError::Hostile { path: bundle.to_owned(), name: name.clone(), why };
        if prefix.is_empty() && ASIDE.contains(&base.as_str()) {
            continue;
        }
        if !is_plain(&name) {
            return Err(hostile("is a name that no bundle has"));
        }
        let kind = entry.file_type().map_err(failed(&entry.path()))?;
        if kind.is_dir() && prefix.is_empty() {
            collect(bundle, &entry.path(), &format!("{name}/"), files, bytes)?;
            continue;
        }
        if !kind.is_file() {
            return Err(hostile("is no plain file"));
        }
        let contents = contents(&entry.path()).map_err(failed(&entry.path()))?;
        if contents.len() > FILE_BYTES {
            return Err(too_large("one file"));
        }
        *bytes = bytes.saturating_add(contents.len());
        if *bytes > BUNDLE_BYTES || files.len() >= FILES {
            return Err(too_large("all files together"));
        }
        files.insert(name, contents);
    }
    Ok(())
}

/// A plain file, up to one byte more than may be. Not through a link, and without waiting for anything but the disk.
fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut contents = Vec::new();
    file.take(FILE_BYTES as u64 + 1).read_to_end(&mut contents)?;
    Ok(contents)
}
