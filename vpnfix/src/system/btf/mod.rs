//! The kernel's own description of its types (BTF), from which the eBPF programs get the offsets of the fields that they
//! read.
//!
//! No permissively licensed crate that goes with aya gives the offsets of members, so the reader is our own: small, pure,
//! bounds-checked. The format is described in the kernel's `Documentation/bpf/btf.rst`.

pub mod layout;
pub mod types;

use std::{
    env,
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

pub use types::{Field, FieldKind, FormatError, Kind, Types};

/// Where kernels with `CONFIG_DEBUG_INFO_BTF` describe themselves.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Environment variable that names another file, for tests: what a kernel without BTF would do, say.
pub const BTF_VARIABLE: &str = "VPNFIX_BTF";

/// Why there are no types.
#[derive(Debug, Error)]
pub enum BtfError {
    /// The file is not there.
    #[error("{} is missing: this kernel was built without CONFIG_DEBUG_INFO_BTF, which tracing needs", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds no BTF.
    #[error("{} does not hold the kernel's types", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: FormatError,
    },
}

impl BtfError {
    /// What a user can do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Missing { .. } => {
                "boot a kernel with CONFIG_DEBUG_INFO_BTF=y (Debian's have it since 5.10); `vpnfix diagnose` works without"
            }
            Self::Read { .. } => "run vpnfix as root",
            Self::Format { .. } => "unset VPNFIX_BTF, or let it name a file with the running kernel's BTF",
        }
    }
}

/// The file that holds the kernel's types: [`KERNEL_BTF`], or what [`BTF_VARIABLE`] names.
#[must_use]
pub fn path() -> PathBuf {
    chosen_path(env::var_os(BTF_VARIABLE).as_deref())
}

fn chosen_path(variable: Option<&OsStr>) -> PathBuf {
    variable.filter(|name| !name.is_empty()).map_or_else(|| PathBuf::from(KERNEL_BTF), PathBuf::from)
}

/// Reads the file at `path` whole.
///
/// # Errors
///
/// See [`BtfError`].
pub fn read(path: &Path) -> Result<Vec<u8>, BtfError> {
    std::fs::read(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => BtfError::Missing { path: path.to_owned() },
        _ => BtfError::Read { path: path.to_owned(), source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_chooses_the_file_unless_empty() {
        assert_eq!(chosen_path(None), Path::new(KERNEL_BTF));
        assert_eq!(chosen_path(Some(OsStr::new(""))), Path::new(KERNEL_BTF));
        assert_eq!(chosen_path(Some(OsStr::new("/x"))), Path::new("/x"));
    }

    #[test]
    fn a_missing_file_is_told_from_an_unreadable_one() {
        let missing = read(Path::new("/nonexistent/btf")).unwrap_err();
        assert!(matches!(missing, BtfError::Missing { .. }), "{missing}");
        assert!(missing.to_string().contains("CONFIG_DEBUG_INFO_BTF"));
        assert!(matches!(read(Path::new("/")).unwrap_err(), BtfError::Read { .. }));
    }
}
