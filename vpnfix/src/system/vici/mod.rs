//! strongSwan's IKE associations by its control interface, vici (`src/libcharon/plugins/vici/README.md` of strongSwan).
//!
//! A client of our own: the one crate with a permissive licence bounds neither the size of a message nor what it keeps of
//! it. Only the command `list-sas` is sent, which changes nothing; of the answer only the fields named here are kept.

mod wire;

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::core::verify::IkeAssociation;
use wire::Packet;

/// The largest message that charon sends (`VICI_MESSAGE_SIZE_MAX`).
const LARGEST: usize = 512 * 1024;
/// So many associations are read.
const MOST: usize = 10_000;
/// The daemon answers at once, unless it is stuck.
const PATIENCE: Duration = Duration::from_secs(5);

/// strongSwan cannot be asked.
#[derive(Debug, Error)]
pub enum ViciError {
    /// No connection.
    #[error("connect to {}", .path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke, or the daemon was silent for too long.
    #[error("ask the daemon at {}", .path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It does not know the command.
    #[error("the daemon at {} does not know `list-sas`", .path.display())]
    Unknown {
        /// The socket.
        path: PathBuf,
    },
}

/// The IKE associations of the daemon that listens there.
///
/// # Errors
/// It does not listen, or does not speak vici.
pub fn associations(path: &Path) -> Result<Vec<IkeAssociation>, ViciError> {
    let stream = UnixStream::connect(path).map_err(|source| ViciError::Connect { path: path.into(), source })?;
    let mut session = Session { stream, deadline: Instant::now() + PATIENCE };
    match session.list() {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(ViciError::Unknown { path: path.into() }),
        Err(source) => Err(ViciError::Broken { path: path.into(), source }),
    }
}

struct Session {
    stream: UnixStream,
    deadline: Instant,
}

impl Session {
    /// Registers for the event that carries the associations, asks for them, and takes them in until the answer ends them.
    fn list(&mut self) -> io::Result<Option<Vec<IkeAssociation>>> {
        self.send(&wire::register("list-sa"))?;
        match self.receive()? {
            Packet::EventConfirmed => {}
            _ => return Ok(None),
        }
        self.send(&wire::request("list-sas"))?;
        let mut found = Vec::new();
        loop {
            match self.receive()? {
                Packet::Event(body) => {
                    found.extend(wire::associations(&body).map_err(invalid)?);
                    if found.len() > MOST {
                        return Err(invalid("too many associations"));
                    }
                }
                Packet::Response => return Ok(Some(found)),
                Packet::EventConfirmed | Packet::Other => return Ok(None),
            }
        }
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        self.bound()?;
        let length = u32::try_from(packet.len()).map_err(|_large| invalid("a request too large"))?;
        self.stream.write_all(&[&length.to_be_bytes(), packet].concat())
    }

    fn receive(&mut self) -> io::Result<Packet> {
        let mut length = [0; 4];
        self.fill(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_large| invalid("a message too large"))?;
        if length > LARGEST {
            return Err(invalid("a message too large"));
        }
        let mut message = vec![0; length];
        self.fill(&mut message)?;
        wire::packet(&message).map_err(invalid)
    }

    /// As `read_exact`, but a daemon that sends a byte now and then gets no more time than another.
    fn fill(&mut self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            self.bound()?;
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => buffer = buffer.get_mut(read..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn bound(&self) -> io::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.set_write_timeout(Some(left))
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests;
