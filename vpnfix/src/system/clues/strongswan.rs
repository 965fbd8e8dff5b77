//! strongSwan's configuration files, as the daemon would open them.

use std::fs::{File as OpenFile, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::time::UNIX_EPOCH;

use glob::glob_with;

use crate::core::strongswan::{Configuration, File, pattern};

/// Where the daemons begin to read: on Debian and Ubuntu; on RHEL and Fedora, whose packages are built with
/// `--sysconfdir=/etc/strongswan`.
pub const ENTRIES: [&str; 2] = ["/etc/strongswan.conf", "/etc/strongswan/strongswan.conf"];
/// No configuration is as large; what is larger is not read.
const MAX_BYTES: u64 = 1024 * 1024;

/// The configuration as read now.
#[must_use]
pub fn configuration() -> Configuration {
    Configuration::read(&ENTRIES, &mut files)
}

/// The files of a pattern, in the order of glob(3).
#[must_use]
pub fn files(pattern: &str) -> Vec<File> {
    if !pattern::has_wildcards(pattern) {
        return read(pattern.into()).into_iter().collect();
    }
    let Ok(paths) = glob_with(&pattern::translated(pattern), pattern::OPTIONS) else { return Vec::new() };
    let found = paths.filter_map(|path| match path {
        Ok(path) => read(path.to_string_lossy().into_owned()),
        Err(error) => Some(unreadable(error.path().to_string_lossy().into_owned(), error.error())),
    });
    found.collect()
}

/// Does a running daemon read another configuration than the one that begins at this entry file? Then why: it was told to
/// (`STRONGSWAN_CONF`, read by `library_init`), or it has another file system before it. `None` also where that may not
/// be looked at.
#[must_use]
pub fn reads_other(pid: u32, entry: &str) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let told = environment.split(|byte| *byte == 0).find_map(|word| word.strip_prefix(b"STRONGSWAN_CONF="));
    if let Some(told) = told.filter(|told| *told != entry.as_bytes()) {
        return Some(format!("it was started with STRONGSWAN_CONF={}", String::from_utf8_lossy(told)));
    }
    let here = std::fs::metadata(entry).ok()?;
    // Not followed, as a link would lead out of its root.
    let its = std::fs::symlink_metadata(format!("/proc/{pid}/root{entry}"));
    match its {
        Ok(its) if its.is_symlink() || (its.dev(), its.ino()) == (here.dev(), here.ino()) => None,
        Ok(_) => Some(format!("{entry} is another file where it runs (a container, `ip netns exec`)")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(format!("{entry} does not exist where it runs")),
        Err(_) => None,
    }
}

/// A file that is not there is none.
fn read(path: String) -> Option<File> {
    match read_text(&path) {
        Ok((text, modified)) => Some(File { path, text: Ok(text), modified }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(unreadable(path, &error)),
    }
}

fn unreadable(path: String, error: &io::Error) -> File {
    File { path, text: Err(error.to_string()), modified: None }
}

fn read_text(path: &str) -> io::Result<(String, Option<u64>)> {
    // Without blocking: opening a named pipe would wait for a writer.
    let file: OpenFile = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_string());
    if !metadata.is_file() {
        return Err(invalid("not a regular file"));
    }
    let mut bytes = Vec::new();
    let length = file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if u64::try_from(length).is_ok_and(|length| length > MAX_BYTES) {
        return Err(invalid("larger than 1 MiB"));
    }
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    // One odd byte in a comment must not hide the settings.
    Ok((String::from_utf8_lossy(&bytes).into_owned(), modified.map(|time| time.as_secs())))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("vpnfix-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn put(&self, name: &str, text: &str) -> String {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_string()
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _left_behind = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_pattern_finds_what_glob_finds_in_its_order() {
        let directory = Directory::new("glob");
        for name in ["b.conf", "a.conf", "10.conf", ".hidden.conf", "a.txt"] {
            directory.put(name, name);
        }
        let pattern = directory.0.join("*.conf");
        let found = files(pattern.to_str().unwrap());
        let texts: Vec<&str> = found.iter().map(|file| file.text.as_deref().unwrap()).collect();
        assert_eq!(texts, ["10.conf", "a.conf", "b.conf"]);
        assert!(found.iter().all(|file| file.modified.is_some()));
        assert_eq!(files(directory.0.join("none.conf").to_str().unwrap()), []);
        assert_eq!(files(directory.0.join("[").to_str().unwrap()), []);
        let literal = files(&format!("{}/a\\.conf", directory.0.to_str().unwrap()));
        assert_eq!(literal.len(), 1);
    }

    #[test]
    fn what_is_no_file_or_too_large_is_told() {
        let directory = Directory::new("odd");
        let inside = directory.0.join("directory");
        fs::create_dir(&inside).unwrap();
        assert!(files(inside.to_str().unwrap()).remove(0).text.is_err());
        let large = directory.put("large.conf", &"#".repeat(1024 * 1024 + 1));
        assert!(files(&large).remove(0).text.unwrap_err().contains("larger"));
    }

    #[test]
    fn a_whole_configuration_is_read_with_its_includes() {
        let directory = Directory::new("whole");
        fs::create_dir_all(directory.0.join("strongswan.d")).unwrap();
        let entry = directory.put("strongswan.conf", "charon {\n load_modular = yes\n}\ninclude strongswan.d/*.conf\n");
        let charon =
            directory.put("strongswan.d/charon.conf", "charon {\n  # install_routes = yes\n  install_routes = no\n}\n");
        let configuration = Configuration::read(&[entry.as_str()], &mut files);
        assert_eq!(configuration.files, [entry, charon.clone()]);
        let setting = configuration.settings(crate::core::strongswan::Daemon::CharonSystemd).install_routes;
        let place = setting.place.unwrap();
        assert!(!setting.value);
        assert_eq!((place.file, place.line), (charon, 3));
    }
}
