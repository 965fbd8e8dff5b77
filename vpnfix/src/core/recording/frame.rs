//! Frames: payloads with a kind, a size and a checksum.

use std::io::Read as _;

use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::{FORMAT, RecordingError};

/// What each recording begins with. The first byte is none of ASCII, and the last one a line feed: a transfer as text breaks
/// it visibly.
pub(super) const MAGIC: [u8; 8] = *b"\x89VPNFIX\n";
/// Bytes before the first frame.
pub(super) const PREAMBLE: usize = MAGIC.len() + 4;
/// Bytes of a frame before its payload.
const HEADER: usize = 16;
/// Bytes of the header that the checksum covers.
const CHECKED: usize = 12;
/// Largest payload of the end, packed or not: all counts that the kernel side has room for.
const END_MAX: usize = 16 << 20;
/// The same of all others. Larger lists come in several frames: JSON of short elements takes many times its size in memory.
const PAYLOAD_MAX: usize = 4 << 20;
/// Most elements of one list: more routes than the whole internet has today.
pub(super) const ITEMS_MAX: usize = 1_500_000;
/// Smaller payloads are not worth packing.
const WORTH_PACKING: usize = 256;

/// What a payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// [`super::Head`].
    Head,
    /// A part of a basis.
    Part,
    /// More of the list of the part before.
    MoreOfPart,
    /// The parts so far are in force from here on. Empty.
    Basis,
    /// Names of functions.
    Names,
    /// A record of the kernel side.
    Seen,
    /// Counts of flows.
    Counted,
    /// Stories were told.
    Stories,
    /// [`super::Closing`].
    End,
}

impl Kind {
    const ALL: [(Self, u8); 9] = [
        (Self::Head, 1),
        (Self::Part, 2),
        (Self::MoreOfPart, 3),
        (Self::Basis, 4),
        (Self::Names, 5),
        (Self::Seen, 6),
        (Self::Counted, 7),
        (Self::Stories, 8),
        (Self::End, 9),
    ];

    /// Largest payload, packed or not: what a reader must be ready to hold.
    pub(super) fn payload_max(self) -> usize {
        if self == Self::End { END_MAX } else { PAYLOAD_MAX }
    }

    fn number(self) -> u8 {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or(0, |(_, number)| *number)
    }

    fn of(number: u8) -> Option<Self> {
        Self::ALL.iter().find(|(_, other)| *other == number).map(|(kind, _)| *kind)
    }
}

/// What stands before the first frame.
pub(super) fn preamble() -> Vec<u8> {
    [MAGIC.as_slice(), &FORMAT.to_le_bytes(), &[0; 2]].concat()
}

/// Is this the beginning of a recording that can be read?
pub(super) fn check_preamble(bytes: &[u8]) -> Result<(), RecordingError> {
    let Some((magic, rest)) = bytes.split_first_chunk::<8>() else {
        let is_begun = !bytes.is_empty() && MAGIC.starts_with(bytes);
        return Err(if is_begun { RecordingError::CutShort { at: 0 } } else { foreign(bytes) });
    };
    if *magic != MAGIC {
        return Err(foreign(bytes));
    }
    let Some(format) = rest.first_chunk().filter(|_| bytes.len() >= PREAMBLE) else {
        return Err(RecordingError::CutShort { at: 0 });
    };
    match u16::from_le_bytes(*format) {
        FORMAT => Ok(()),
        0 => Err(RecordingError::Damaged { at: 0, what: "format 0".into() }),
        got => Err(RecordingError::Newer { got }),
    }
}

fn foreign(bytes: &[u8]) -> RecordingError {
    RecordingError::Foreign { is_lines: bytes.starts_with(b"{\"type\":") }
}

/// A payload as a frame.
pub(super) fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let packed = (payload.len() >= WORTH_PACKING).then(|| compress_to_vec(payload, CompressionLevel::Fastest));
    let packed = packed.filter(|packed| packed.len() < payload.len());
    let stored = packed.as_deref().unwrap_or(payload);
    // Callers keep payloads below the largest; a reader would refuse a larger one.
    let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut frame = Vec::with_capacity(HEADER + stored.len());
    frame.extend_from_slice(&[kind.number(), u8::from(packed.is_some()), 0, 0]);
    frame.extend_from_slice(&size(stored));
    frame.extend_from_slice(&size(payload));
    let checksum = checksum(&frame, stored);
    frame.extend_from_slice(&checksum.to_le_bytes());
    frame.extend_from_slice(stored);
    frame
}

fn checksum(header: &[u8], stored: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(stored);
    hasher.finalize()
}

/// A frame that was read.
pub(super) struct Frame {
    pub kind: Kind,
    pub payload: Vec<u8>,
    /// Bytes of the file that it takes.
    pub size: usize,
}

/// The frame at the front of these bytes, which begin `at` so many of the file.
pub(super) fn take(bytes: &[u8], at: u64) -> Result<Frame, RecordingError> {
    let cut_short = || RecordingError::CutShort { at };
    let damaged = |what: String| RecordingError::Damaged { at, what };
    let (header, rest) = bytes.split_first_chunk::<HEADER>().ok_or_else(cut_short)?;
    let number = |from: usize| {
        let bytes = header.get(from..).and_then(<[u8]>::first_chunk);
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize)
    };
    let (stored, whole, expected) = (number(4), number(8), number(12));
    let kind = Kind::of(header[0]).ok_or_else(|| damaged(format!("a frame of kind {}", header[0])))?;
    let most = kind.payload_max();
    if stored > most || whole > most {
        return Err(damaged(format!("a frame of {} bytes, where {most} are the most", stored.max(whole))));
    }
    let payload = rest.get(..stored).ok_or_else(cut_short)?;
    let (checked, _) = header.split_at(CHECKED);
    if checksum(checked, payload) as usize != expected {
        return Err(damaged("its checksum is wrong".into()));
    }
    let payload = match header[1] {
        0 if stored == whole => payload.to_vec(),
        1 => unpack(payload, whole).map_err(damaged)?,
        packing => return Err(damaged(format!("packing {packing}"))),
    };
    Ok(Frame { kind, payload, size: HEADER + stored })
}

/// Unpacks to exactly so many bytes, and holds no more of them than one too many.
fn unpack(packed: &[u8], whole: usize) -> Result<Vec<u8>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("it cannot be unpacked: {error}");
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(END_MAX as u64);
    let decoder = StreamingDecoder::new_with_decoder(packed, decoder).map_err(|error| failed(&error))?;
    let mut payload = Vec::with_capacity(whole);
    decoder.take(whole as u64 + 1).read_to_end(&mut payload).map_err(|error| failed(&error))?;
    if payload.len() == whole { Ok(payload) } else { Err("it unpacks to another size than it says".into()) }
}
