//! A file of lines that begins anew before it grows too large.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// When a file begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes that it may hold. A line that is larger has a file of its own.
    pub size: u64,
    /// How many older files are kept: FILE.1 is the latest of them.
    pub keep: u32,
}

/// A file that lines are written to.
#[derive(Debug)]
pub struct RotatingFile {
    path: PathBuf,
    rotation: Option<Rotation>,
    file: File,
    held: u64,
    /// The first line, which each file begins with.
    head: Option<Vec<u8>>,
}

impl RotatingFile {
    /// Opens it, to write behind what it holds.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path, rotation: Option<Rotation>) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let held = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), rotation, file, held, head: None })
    }

    /// Writes a line. The first one is written at the head of each later file too, so that each can be read alone.
    ///
    /// # Errors
    /// It cannot be written, or the files cannot be renamed.
    pub fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let head = self.head.get_or_insert_with(|| line.to_vec()).clone();
        let would_hold = self.held + line.len() as u64;
        if let Some(rotation) = self.rotation.filter(|rotation| self.held > 0 && would_hold > rotation.size) {
            self.begin_anew(rotation.keep)?;
            if head != line {
                self.append(&head)?;
            }
        }
        self.append(line)
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        self.file.write_all(line)?;
        self.held += line.len() as u64;
        Ok(())
    }

    fn begin_anew(&mut self, keep: u32) -> io::Result<()> {
        for number in (1..=keep).rev() {
            let older = if number == 1 { self.path.clone() } else { numbered(&self.path, number - 1) };
            match fs::rename(&older, numbered(&self.path, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let mut options = OpenOptions::new();
        options.create(true);
        // Without older files the present one is emptied.
        let options = if keep == 0 { options.write(true).truncate(true) } else { options.append(true) };
        self.file = options.open(&self.path)?;
        self.held = self.file.metadata()?.len();
        Ok(())
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("vpnfix-rotating-{}-{name}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn read(&self, name: &str) -> Option<String> {
            fs::read_to_string(self.0.join(name)).ok()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_oldest_goes_and_each_begins_with_the_head() {
        let folder = Folder::new("keep");
        let mut file = RotatingFile::open(&folder.0.join("t"), Some(Rotation { size: 12, keep: 2 })).unwrap();
        for line in ["head\n", "one\n", "two\n", "three\n", "four\n", "five\n"] {
            file.write(line.as_bytes()).unwrap();
        }
        assert_eq!(folder.read("t").unwrap(), "head\nfive\n");
        assert_eq!(folder.read("t.1").unwrap(), "head\nfour\n");
        assert_eq!(folder.read("t.2").unwrap(), "head\nthree\n");
        assert_eq!(folder.read("t.3"), None);
    }

    #[test]
    fn what_is_there_is_kept() {
        let folder = Folder::new("append");
        let path = folder.0.join("t");
        fs::write(&path, "before\n").unwrap();
        let mut file = RotatingFile::open(&path, None).unwrap();
        file.write(b"head\n").unwrap();
        file.write(b"more\n").unwrap();
        assert_eq!(folder.read("t").unwrap(), "before\nhead\nmore\n");
    }

    #[test]
    fn without_older_files_the_present_one_is_emptied() {
        let folder = Folder::new("none");
        let mut file = RotatingFile::open(&folder.0.join("t"), Some(Rotation { size: 10, keep: 0 })).unwrap();
        for line in ["head\n", "one\n", "two\n"] {
            file.write(line.as_bytes()).unwrap();
        }
        assert_eq!(folder.read("t").unwrap(), "head\ntwo\n");
        assert_eq!(folder.read("t.1"), None);
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut file = RotatingFile::open(Path::new("/dev/full"), None).unwrap();
        assert_eq!(file.write(b"line\n").unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    }
}
