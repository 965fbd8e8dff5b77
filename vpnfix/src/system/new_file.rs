//! A new file for what is nobody else's business: readable by its owner alone, and never in the place of another.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A new file. If nothing was written to it, it goes with the value.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    file: File,
    is_written: bool,
}

impl NewFile {
    /// Creates it with mode 0600, at once, so that a command that cannot write it ends before it has begun.
    ///
    /// # Errors
    /// Something is there already, be it a dangling link; or the file cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self { path: path.to_owned(), file, is_written: false })
    }

    /// Its name, for messages.
    #[must_use]
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Writes at its end. What was written outlives this process, however that ends.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.is_written = true;
        self.file.write_all(bytes)
    }

    /// Brings it to the disk.
    ///
    /// # Errors
    /// It cannot be.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_written {
            // An empty file would only be in the way of the next run.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    #[test]
    fn it_is_the_owners_and_replaces_nothing() {
        let path = std::env::temp_dir().join(format!("vpnfix-new-file-{}", std::process::id()));
        drop(NewFile::create(&path).unwrap());
        assert!(!path.exists(), "nothing was written");
        let mut file = NewFile::create(&path).unwrap();
        file.write(b"one").unwrap();
        file.write(b" two").unwrap();
        file.sync().unwrap();
        assert_eq!(NewFile::create(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"one two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let link = path.with_extension("link");
        symlink("/nonexistent/place", &link).unwrap();
        assert_eq!(NewFile::create(&link).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        fs::remove_file(link).unwrap();
        fs::remove_file(path).unwrap();
    }
}
