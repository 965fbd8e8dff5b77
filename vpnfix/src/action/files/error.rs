//! What can go wrong with vpnfix's own files.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::RecordError;
use crate::action::lock::LockError;

/// A file that was not removed.
#[derive(Debug, Error)]
pub enum Left {
    /// Someone changed it.
    #[error("{} was changed since vpnfix wrote it: look at it, and delete it by hand", .0.display())]
    Changed(PathBuf),
    /// It cannot be removed.
    #[error("remove {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The files cannot be written, removed or told.
#[derive(Debug, Error)]
pub enum FilesError {
    /// Another vpnfix is at work.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Not a path for a file of ours.
    #[error("{}: not an absolute path of a file that is not hidden, or named twice", .0.display())]
    Path(PathBuf),
    /// There is something that vpnfix did not write.
    #[error("{} exists and is not vpnfix's", .0.display())]
    NotOurs(PathBuf),
    /// vpnfix wrote it, and someone changed it since.
    #[error("{} was changed since vpnfix wrote it", .0.display())]
    Changed(PathBuf),
    /// The record cannot be used.
    #[error("the record of vpnfix's own files, {}", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// Why.
        #[source]
        source: RecordError,
    },
    /// Something on disk fails.
    #[error("{what} {}", path.display())]
    Io {
        /// What was done.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl FilesError {
    /// Is a privilege missing (`EPERM`, `EACCES`)?
    #[must_use]
    pub fn is_privilege(&self) -> bool {
        let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        match self {
            Self::Lock(error) => error.is_privilege(),
            Self::Record { source: RecordError::Io(error), .. } | Self::Io { source: error, .. } => denied(error),
            Self::Path(_) | Self::NotOurs(_) | Self::Changed(_) | Self::Record { .. } => false,
        }
    }
}
