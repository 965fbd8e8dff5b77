//! A bundle of evidence as values: what lies in which file, what was to be there and is not, and whether all of it is as
//! it was written.

pub mod comparison;
pub mod contents;
pub mod manifest;
pub mod state;
pub mod timeline;

use std::collections::BTreeMap;

/// The files of a bundle by their names in it (`before/rules.json`).
pub type Files = BTreeMap<String, Vec<u8>>;

/// Most bytes of one file.
pub const FILE_BYTES: usize = 48 << 20;
/// Most bytes of all files together.
pub const BUNDLE_BYTES: usize = 128 << 20;
/// Most files.
pub const FILES: usize = 128;
/// Most bytes of a name.
const NAME_BYTES: usize = 80;

/// Names of the files beside those of the states.
pub mod name {
    /// What the bundle is, and the sums of all other files.
    pub const MANIFEST: &str = "manifest.json";
    /// Everything that was traced, as `trace --format json` prints it.
    pub const TRACE: &str = "trace.jsonl";
    /// The trace as the kernel told it, for `replay`.
    pub const RECORDING: &str = "recording.vpnfix";
    /// Packets for Wireshark.
    pub const PACKETS: &str = "packets.pcapng";
    /// What `fix` did, whole.
    pub const FIX: &str = "fix.json";
    /// The steps of the change.
    pub const CHANGES: &str = "changes.json";
    /// Packets a second by device, BGP's states, what happened when.
    pub const TIMELINE: &str = "timeline.json";
    /// The report as a page for a browser.
    pub const HTML: &str = "report.html";
    /// The report for a ticket.
    pub const MARKDOWN: &str = "report.md";
    /// The report for a terminal.
    pub const TEXT: &str = "report.txt";
}

/// Is this the name of a file in a bundle: at most one folder, plain letters, nothing hidden, nothing that leads out of it?
#[must_use]
pub fn is_plain(name: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
    };
    name.len() <= NAME_BYTES && name.split('/').count() <= 2 && name.split('/').all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_not_plain() {
        for good in ["manifest.json", "before/rules.json", "recording.vpnfix"] {
            assert!(is_plain(good), "{good}");
        }
        let long = "a".repeat(100);
        for bad in
            ["", "/etc/passwd", "../x", "a/../b", "a/b/c", ".hidden", "a/.b", "a//b", "a\\b", "a b", "a\n", &long]
        {
            assert!(!is_plain(bad), "{bad}");
        }
    }
}
