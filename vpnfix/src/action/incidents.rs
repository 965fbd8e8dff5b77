//! Incidents as files in a directory, with a bound on their number and their size.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// An incident that could not be kept.
#[derive(Debug, Error)]
#[error("{doing} {}", path.display())]
pub struct IncidentError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Where incidents are kept, and how many.
#[derive(Clone, Debug)]
pub struct Incidents {
    /// The directory; it is made (0700) if it is missing.
    pub directory: PathBuf,
    /// So many files at the most.
    pub keep: usize,
    /// So many bytes at the most, all together.
    pub bytes: u64,
}

impl Incidents {
    /// Keeps one under this name, which sorts by time, and removes the oldest that are too many. It is whole or not there.
    ///
    /// # Errors
    /// The directory or the file cannot be written.
    pub fn keep(&self, name: &str, document: &str) -> Result<Option<PathBuf>, IncidentError> {
        if self.keep == 0 {
            return Ok(None);
        }
        let failed = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| IncidentError { doing, path, source }
        };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        made.map_err(failed("make the directory", &self.directory))?;
        let path = self.directory.join(format!("{name}.json"));
        let draft = self.directory.join(format!(".{name}.new"));
        let _left = fs::remove_file(&draft);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(failed("make", &draft))?;
        file.write_all(document.as_bytes()).map_err(failed("write", &draft))?;
        fs::rename(&draft, &path).map_err(failed("write", &path))?;
        self.prune().map_err(failed("list", &self.directory))?;
        Ok(Some(path))
    }

    /// Removes the oldest until the bounds are kept; the newest stays whatever its size.
    fn prune(&self) -> io::Result<()> {
        let mut files: Vec<(PathBuf, u64)> = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "json") && entry.file_type()?.is_file() {
                files.push((path, entry.metadata()?.len()));
            }
        }
        files.sort();
        let mut bytes: u64 = files.iter().map(|(_, size)| size).sum();
        let mut count = files.len();
        for (path, size) in &files {
            if count <= 1 || (count <= self.keep && bytes <= self.bytes) {
                break;
            }
            fs::remove_file(path)?;
            (count, bytes) = (count - 1, bytes.saturating_sub(*size));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_within_the_bounds() {
        let directory = std::env::temp_dir().join(format!("vpnfix-incidents-{}", std::process::id()));
        let incidents = Incidents { directory: directory.join("a"), keep: 3, bytes: 10_000 };
        for number in 0..6 {
            assert!(incidents.keep(&format!("2026-{number}"), "{}").unwrap().is_some());
        }
        let names = || {
            let mut names: Vec<String> = fs::read_dir(&incidents.directory)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        };
        assert_eq!(names(), ["2026-3.json", "2026-4.json", "2026-5.json"]);
        incidents.keep("2026-6", &"x".repeat(9_999)).unwrap();
        assert_eq!(names(), ["2026-6.json"]);
        let none = Incidents { keep: 0, ..incidents.clone() };
        assert_eq!(none.keep("2026-7", "{}").unwrap(), None);
        fs::remove_dir_all(&directory).unwrap();
    }
}
