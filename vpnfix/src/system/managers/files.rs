//! Files by which managers tell of themselves, read with a bound.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// No such file is larger.
const LIMIT: u64 = 256 * 1024;
/// No directory of drop-ins is fuller.
const MOST: usize = 256;

/// A regular file's text, as far as the bound; nothing where it cannot be read.
pub(super) fn read(path: &Path) -> Option<String> {
    // Without blocking: opening a named pipe would wait for a writer.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(LIMIT).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Does a unit run? systemd keeps a link for each (`unit_export_invocation_id` in `src/core/unit.c`).
pub(super) fn is_active(unit: &str) -> bool {
    Path::new("/run/systemd/units").join(format!("invocation:{unit}")).symlink_metadata().is_ok()
}

/// A configuration file of systemd's and its drop-ins, in the order in which they are read: the file of the first
/// directory that has it, then all drop-ins by name, those of one name from the first directory only (systemd.conf(5)).
pub(super) fn drop_ins(name: &str) -> Vec<String> {
    let directories = ["/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd"].map(PathBuf::from);
    let main = directories.iter().find_map(|directory| read(&directory.join(name)));
    let mut found: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for directory in &directories {
        let entries = fs::read_dir(directory.join(format!("{name}.d"))).into_iter().flatten().flatten().take(MOST);
        for path in entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "conf")) {
            if let Some(name) = path.file_name() {
                found.entry(name.into()).or_insert(path);
            }
        }
    }
    main.into_iter().chain(found.values().filter_map(|path| read(path))).collect()
}
