//! A file that says that a command is ready.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A file with this process's id; it goes with the value.
#[derive(Debug)]
pub struct ReadyFile {
    path: PathBuf,
}

impl ReadyFile {
    /// Takes away what an earlier run may have left: nobody shall take it for this one's.
    ///
    /// # Errors
    /// It is there and cannot be removed.
    pub fn clear(path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes it, whole from its first sight on.
    ///
    /// # Errors
    /// It cannot be written or put in its place.
    pub fn write(path: &Path) -> io::Result<Self> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        let beside = PathBuf::from(beside);
        let written = fs::write(&beside, format!("{}\n", std::process::id())).and_then(|()| fs::rename(&beside, path));
        if written.is_err() {
            // The error is about the file that was asked for.
            let _ = fs::remove_file(&beside);
        }
        written.map(|()| Self { path: path.to_owned() })
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        // Nothing can be done about a file that somebody took away.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_as_long_as_the_value() {
        let path = std::env::temp_dir().join(format!("vpnfix-ready-{}", std::process::id()));
        fs::write(&path, "stale").unwrap();
        ReadyFile::clear(&path).unwrap();
        ReadyFile::clear(&path).unwrap();
        let ready = ReadyFile::write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(ready);
        assert!(!path.exists());
        assert!(ReadyFile::write(Path::new("/nonexistent/ready")).is_err());
    }
}
