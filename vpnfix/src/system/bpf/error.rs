//! What can go wrong between vpnfix and the kernel's BPF.

use std::io;

use aya::{BtfError as AyaBtfError, EbpfError, maps::MapError, programs::ProgramError};
use thiserror::Error;

use super::Program;
use crate::system::btf::BtfError;

/// Why tracing does not work.
#[derive(Debug, Error)]
pub enum BpfError {
    /// The user may not trace.
    #[error("tracing needs CAP_BPF and CAP_PERFMON, or root")]
    Privilege {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// There are no kernel types.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// A hook that nothing works without is not there, or cannot be used.
    #[error("cannot trace {}: {reason}", program.hook())]
    Required {
        /// The program.
        program: Program,
        /// Why.
        reason: String,
    },
    /// Too many prefixes.
    #[error("{got} prefixes to watch, at most {most} can be")]
    TooManyWatches {
        /// Watches and holes of one family.
        got: usize,
        /// How many fit.
        most: u32,
    },
    /// The object does not load.
    #[error("cannot load the eBPF object")]
    Load(#[source] Box<EbpfError>),
    /// aya does not understand the kernel's types.
    #[error("cannot read the kernel's types")]
    Types(#[source] Box<AyaBtfError>),
    /// A map is not what it should be.
    #[error("cannot {operation} the eBPF map {map}")]
    Map {
        /// What was tried.
        operation: &'static str,
        /// The map.
        map: &'static str,
        /// Why.
        #[source]
        source: Box<MapError>,
    },
    /// The object lacks a map: it is not of this version.
    #[error("the eBPF object has no map {0}")]
    NoMap(&'static str),
    /// Waiting for events failed.
    #[error("cannot wait for the kernel's events")]
    Wait(#[source] io::Error),
}

impl BpfError {
    pub(super) fn map(operation: &'static str, map: &'static str) -> impl Fn(MapError) -> Self {
        move |source| Self::Map { operation, map, source: Box::new(source) }
    }

    /// What a user can do about it, where that is known.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Privilege { .. } => Some("run vpnfix as root"),
            Self::Btf(error) => Some(error.advice()),
            Self::TooManyWatches { .. } => Some("name fewer tunnels by --tunnel"),
            _ => None,
        }
    }
}

/// An error of loading the object, told apart by what it means.
pub(super) fn of_load(error: EbpfError) -> BpfError {
    match io_error(&error) {
        Some(code) if is_privilege(code) => BpfError::Privilege { source: io::Error::from_raw_os_error(code) },
        _ => BpfError::Load(Box::new(error)),
    }
}

/// A program's error in a few words, without the verifier's log, which goes to the debug log.
pub(super) fn reason(program: Program, error: &ProgramError) -> String {
    if let ProgramError::LoadError { verifier_log, .. } = error {
        tracing::debug!(hook = program.hook(), "verifier: {verifier_log}");
    }
    match error {
        ProgramError::LoadError { io_error, .. } => match io_error.raw_os_error() {
            Some(code) if is_privilege(code) => format!("the kernel does not allow it ({io_error})"),
            Some(libc::EINVAL | libc::EACCES) => format!("the kernel refuses the program ({io_error})"),
            _ => io_error.to_string(),
        },
        ProgramError::SyscallError(error) => format!("{}: {}", error.call, error.io_error),
        other => other.to_string(),
    }
}

/// The errno at the bottom of a chain of errors.
pub(super) fn io_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(code) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(code);
        }
        current = error.source();
    }
    None
}

pub(super) fn is_privilege(code: i32) -> bool {
    code == libc::EPERM
}
