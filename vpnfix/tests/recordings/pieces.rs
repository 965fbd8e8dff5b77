//! A recording taken into its frames and put together again, apart from vpnfix's own code: the format as its documentation
//! says it.

use std::io::Read as _;

use ruzstd::decoding::StreamingDecoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

/// Bytes before the first frame.
pub const PREAMBLE: usize = 12;

/// A frame, unpacked.
#[derive(Clone)]
pub struct Piece {
    pub kind: u8,
    pub payload: Vec<u8>,
}

pub fn take_apart(recording: &[u8]) -> Vec<Piece> {
    let mut rest = &recording[PREAMBLE..];
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let stored = u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize;
        let mut payload = rest[16..16 + stored].to_vec();
        if rest[1] == 1 {
            let packed = std::mem::take(&mut payload);
            StreamingDecoder::new(packed.as_slice()).unwrap().read_to_end(&mut payload).unwrap();
        }
        pieces.push(Piece { kind: rest[0], payload });
        rest = &rest[16 + stored..];
    }
    pieces
}

/// With right sizes and checksums, whatever the pieces are.
pub fn put_together(preamble: &[u8], pieces: &[Piece]) -> Vec<u8> {
    let mut recording = preamble.to_vec();
    for piece in pieces {
        recording.extend(frame(piece, piece.payload.len() > 1 << 16));
    }
    recording
}

pub fn frame(piece: &Piece, packed: bool) -> Vec<u8> {
    let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_le_bytes();
    let fastest = CompressionLevel::Fastest;
    let stored = if packed { compress_to_vec(piece.payload.as_slice(), fastest) } else { piece.payload.clone() };
    let mut frame = vec![piece.kind, u8::from(packed), 0, 0];
    frame.extend(size(&stored));
    frame.extend(size(&piece.payload));
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&frame);
    checksum.update(&stored);
    frame.extend(checksum.finalize().to_le_bytes());
    frame.extend(stored);
    frame
}
