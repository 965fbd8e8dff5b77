//! A bundle as one file: tar, compressed with Zstandard.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::Path;

use ruzstd::decoding::StreamingDecoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use tar::{EntryType, Header};

use super::TOP;
use super::error::BundleError;
use crate::core::bundle::{BUNDLE_BYTES, FILE_BYTES, FILES, Files, is_plain};

/// The first bytes of a Zstandard frame (RFC 8878, section 3.1.1).
pub(super) const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Most bytes of an archive once it is unpacked: the files, and a head and padding of each.
const UNPACKED_BYTES: u64 = (BUNDLE_BYTES + (FILES + 16) * 1024) as u64;

/// The archive of these files, all of this time (seconds since 1970).
///
/// # Errors
/// None so far: all is memory.
pub(super) fn pack(files: &Files, time: u64) -> io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut folders = BTreeSet::from([format!("{TOP}/")]);
    folders.extend(files.keys().filter_map(|name| Some(format!("{TOP}/{}/", name.split_once('/')?.0))));
    for folder in folders {
        append(&mut builder, &folder, (EntryType::Directory, 0o700), time, &[])?;
    }
    for (name, contents) in files {
        append(&mut builder, &format!("{TOP}/{name}"), (EntryType::Regular, 0o600), time, contents)?;
    }
    let tar = builder.into_inner()?;
    Ok(compress_to_vec(tar.as_slice(), CompressionLevel::Fastest))
}

fn append(
    builder: &mut tar::Builder<Vec<u8>>,
    name: &str,
    (kind, mode): (EntryType, u32),
    time: u64,
    contents: &[u8],
) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(time);
    header.set_size(contents.len() as u64);
    header.set_path(name)?;
    header.set_cksum();
    builder.append(&header, contents)
}

/// The files of an archive. `path` is for errors.
///
/// # Errors
/// A damaged archive, one that is too large, and entries that no bundle has.
pub(super) fn unpack(path: &Path, archive: impl Read) -> Result<Files, BundleError> {
    let damaged = |why: &dyn std::fmt::Display| BundleError::Damaged { path: path.to_owned(), why: why.to_string() };
    let too_large = |what| BundleError::TooLarge { path: path.to_owned(), what };
    let decoder = StreamingDecoder::new(archive).map_err(|error| damaged(&error))?;
    // One byte more than may be, so that the bound is seen to be met.
    let mut unpacked = decoder.take(UNPACKED_BYTES + 1);
    let mut files = Files::new();
    let mut total = 0_usize;
    {
        let mut tar = tar::Archive::new(&mut unpacked);
        // Raw: extensions for long names are entries of their own then, and no bundle has them.
        for entry in tar.entries().map_err(|error| damaged(&error))?.raw(true) {
            let mut entry = entry.map_err(|error| damaged(&error))?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let hostile = |why| BundleError::Hostile { path: path.to_owned(), name: name.clone(), why };
            let plain = own_name(&name).ok_or_else(|| hostile("is a name that no bundle has"))?;
            match entry.header().entry_type() {
                EntryType::Directory => continue,
                EntryType::Regular => {}
                EntryType::Link | EntryType::Symlink => return Err(hostile("is a link")),
                _ => return Err(hostile("is no plain file")),
            }
            let size = usize::try_from(entry.size()).unwrap_or(usize::MAX);
            if size > FILE_BYTES {
                return Err(too_large("one file"));
            }
            total = total.saturating_add(size);
            if total > BUNDLE_BYTES || files.len() >= FILES {
                return Err(too_large("all files together"));
            }
            let mut contents = Vec::new();
            entry.read_to_end(&mut contents).map_err(|error| damaged(&error))?;
            if contents.len() != size {
                return Err(damaged(&format!("{name:?} is cut short")));
            }
            if plain.is_empty() || files.insert(plain.to_owned(), contents).is_some() {
                return Err(hostile("is there twice"));
            }
        }
    }
    if unpacked.limit() == 0 {
        return Err(too_large("the archive"));
    }
    Ok(files)
}

/// The name in the bundle; empty for the folder that all lies in.
fn own_name(name: &str) -> Option<&str> {
    let inside = name.strip_prefix(TOP)?;
    let inside = inside.strip_prefix('/')?;
    let plain = inside.strip_suffix('/').unwrap_or(inside);
    (plain.is_empty() || is_plain(plain)).then_some(plain)
}
