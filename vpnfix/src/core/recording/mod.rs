//! A trace as a file: what the kernel was seen doing, as it came, and everything that it is judged by, in the order in which
//! the running trace took it. Replayed, it is told by the same code ([`crate::core::telling`]).
//!
//! ```text
//! file   = magic (8 bytes) · format (u16) · zero (u16) · frame ...
//! frame  = kind (u8) · packing (u8) · zero (u16) · stored (u32) · whole (u32) · CRC-32 (u32) · payload (stored bytes)
//! ```
//!
//! Numbers are little-endian. The checksum (IEEE) is that of the frame's first 12 bytes and its payload as stored. Packing 1
//! is Zstandard, and `whole` the size unpacked. Payloads are JSON, but for what was seen: the bytes of `vpnfix-common`'s
//! records as the kernel side made them. The first frame is the head; a basis comes part by part, and holds from its
//! closing frame on; the last frame is the end. A file without it was cut short.
//!
//! Keys are in none of it: the model of security associations has no place for them.

mod check;
mod frame;
mod read;
mod replay;
mod write;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::telling::{End, Setup};

pub use read::{Entry, Reader};
pub use replay::{Replayed, Unplayed, replay};
pub use write::{Encoder, Unrecorded};

/// Version of the format; changes with each change that an older vpnfix would misread.
pub const FORMAT: u16 = 1;
/// Bytes that a recording may have unless told otherwise; the closing frame with the counts comes on top.
pub const DEFAULT_LIMIT: u64 = 256 << 20;
/// Most that may be asked for: a replay holds the file in memory.
pub const LIMIT_MAX: u64 = 1 << 30;

/// The first frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Version of the kernel side's records ([`vpnfix_common::ABI_VERSION`]).
    pub abi: u16,
    /// Byte order of the machine, and so of these records.
    pub byte_order: ByteOrder,
    /// What of the traffic was vpnfix's own.
    pub own: Own,
    /// What holds for the whole trace.
    pub setup: Setup,
}

/// Byte order of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ByteOrder {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

impl ByteOrder {
    /// This machine's.
    pub const NATIVE: Self = if cfg!(target_endian = "big") { Self::Big } else { Self::Little };
}

/// The tasks of vpnfix itself, which the kernel side leaves out or labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// Process id.
    pub process: u32,
    /// The thread whose route queries are left out.
    pub query_thread: Option<u32>,
}

/// What found no room within the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Records of the kernel.
    pub records: u64,
    /// Changes of what they are judged by.
    pub bases: u64,
}

impl LeftOut {
    /// Was anything left out?
    #[must_use]
    pub fn is_any(&self) -> bool {
        *self != Self::default()
    }
}

/// The last frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Closing {
    end: End,
    left_out: LeftOut,
}

/// Why a recording cannot be read, or not further.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RecordingError {
    /// Another kind of file.
    #[error("it is no recording of vpnfix{}", if *.is_lines { ": these are the lines of a trace, not its records (--record)" } else { "" })]
    Foreign {
        /// It looks like what `trace --format json` tells.
        is_lines: bool,
    },
    /// A later format.
    #[error("its format is {got}, and this version of vpnfix reads up to {FORMAT}: a newer one is needed")]
    Newer {
        /// Its format.
        got: u16,
    },
    /// Records of another kernel side.
    #[error("its records are of ABI version {got}, and this version of vpnfix reads {want}: vpnfix {vpnfix} made it")]
    Abi {
        /// Their version.
        got: u16,
        /// The version that is read.
        want: u16,
        /// Version of the vpnfix that made them.
        vpnfix: String,
    },
    /// Records of a machine with another byte order.
    #[error("it was made on a machine with another byte order")]
    ByteOrder,
    /// It ends before its end.
    #[error("it is cut short at byte {at}: the trace was killed, or the file is not whole")]
    CutShort {
        /// Where the last whole frame ends.
        at: u64,
    },
    /// A frame that is not as it was written, or makes no sense.
    #[error("it is damaged at byte {at}: {what}")]
    Damaged {
        /// Where the frame begins.
        at: u64,
        /// What is wrong.
        what: String,
    },
}

#[cfg(test)]
mod tests;
