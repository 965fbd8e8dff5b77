//! BGP daemons of this namespace, asked for their neighbours.
//!
//! Which daemon is this namespace's is told by its socket: the kernel lists Unix sockets by the namespace that they were
//! made in, while any process can connect to them.

mod bird;
mod frr;
mod port;

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::program::ProgramError;
use super::sockets;
use crate::core::verify::Bgp;

pub use port::connect;

/// No daemon told of its neighbours.
#[derive(Debug, Error)]
pub enum BgpError {
    /// There is none.
    #[error("neither FRR's bgpd nor BIRD listens in this namespace")]
    None,
    /// Whether there is one cannot be seen.
    #[error("list the sockets of daemons")]
    Sockets(#[source] std::io::Error),
    /// FRR's shell did not answer.
    #[error("ask FRR")]
    Vtysh(#[source] ProgramError),
    /// BIRD did not answer.
    #[error("ask BIRD at {}", .path.display())]
    Bird {
        /// Its socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What the daemon said is not understood.
    #[error("{daemon} answered what is not understood: {what}")]
    Malformed {
        /// Its name.
        daemon: &'static str,
        /// What is wrong with it.
        what: String,
    },
}

/// The neighbours of the daemon that runs in the calling thread's namespace.
///
/// # Errors
/// There is none, it may not be asked, or its answer is not understood.
pub fn neighbours() -> Result<Bgp, BgpError> {
    let listeners = sockets::unix_listeners().map_err(BgpError::Sockets)?;
    let named = |path: &&PathBuf, name: &str| path.file_name().is_some_and(|file| file == name);
    if let Some(directory) = listeners.iter().find(|path| named(path, "bgpd.vty")).and_then(|path| path.parent()) {
        return frr::neighbours(directory);
    }
    let is_bird = |path: &&PathBuf| {
        let file = path.file_name().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
        file.starts_with("bird") && Path::new(&file).extension().is_some_and(|end| end == "ctl")
    };
    match listeners.iter().find(is_bird) {
        Some(path) => bird::neighbours(path),
        None => Err(BgpError::None),
    }
}
