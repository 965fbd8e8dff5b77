//! Bundles on disk: a directory, or a Zstandard-compressed tar archive. Written aside and renamed whole at the end; read
//! with bounds and mistrust, for they come from others.

mod archive;
mod draft;
mod error;
mod read;
#[cfg(test)]
mod tests;

pub use draft::Draft;
pub use error::BundleError;
pub use read::{Bundle, read};

/// The folder that all of an archive lies in, so that unpacking it spills nothing.
const TOP: &str = "vpnfix-capture";
/// What a draft writes aside in its own directory, and a kill may leave there.
const ASIDE: [&str; 2] = [".manifest.json.new", ".archive.new"];
