//! What can go wrong with a bundle.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A bundle that cannot be written or read.
#[derive(Debug, Error)]
pub enum BundleError {
    /// There is something of this name already.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// A draft of this name is there: another capture writes it, or one that was killed left it.
    #[error("{} is there already: another capture writes it, or one that was killed has left it", .0.display())]
    LeftBehind(PathBuf),
    /// The disk refuses.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Of what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is neither a directory nor an archive.
    #[error("{} is no bundle: neither a directory nor a Zstandard archive", .0.display())]
    NotABundle(PathBuf),
    /// The archive is damaged.
    #[error("{}: the archive is damaged: {why}", path.display())]
    Damaged {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It holds what no bundle holds: a name that leads out of it, a link, a device.
    #[error("{}: refused: {name:?} {why}", path.display())]
    Hostile {
        /// The bundle.
        path: PathBuf,
        /// Name of the entry.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It is larger than any bundle may be.
    #[error("{}: refused: larger than a bundle may be ({what})", path.display())]
    TooLarge {
        /// The bundle.
        path: PathBuf,
        /// Of what there is too much.
        what: &'static str,
    },
    /// It has no manifest, so that nothing in it can be relied on.
    #[error("{} has no manifest.json: it is no bundle of vpnfix's", .0.display())]
    NoManifest(PathBuf),
    /// The manifest cannot be understood.
    #[error("{}: the manifest cannot be understood: {why}", path.display())]
    Manifest {
        /// The bundle.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

impl BundleError {
    /// From a refusal of the disk.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}
