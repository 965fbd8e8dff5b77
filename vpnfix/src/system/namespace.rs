//! Network namespaces: naming one, working inside it, telling which one it is.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns};
use thiserror::Error;

use crate::core::live::Others;
use crate::core::model::Netns;

/// Where `ip netns` keeps its names (ip-netns(8)).
const NAME_DIRECTORIES: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// The namespace that the calling thread is in. Not `/proc/self`, which is the process's main thread's.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace as the user names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// The one that vpnfix was started in.
    #[default]
    Current,
    /// A name of `ip netns`.
    Named(String),
    /// A file that stands for it: `/proc/PID/ns/net`, or where a container runtime mounts it.
    Path(PathBuf),
}

impl Target {
    /// The meaning of `--netns NAME|PATH`: what has a slash is a path.
    #[must_use]
    pub fn parse(value: &str) -> Self {
        if value.contains('/') { Self::Path(value.into()) } else { Self::Named(value.into()) }
    }

    /// As the user gave it; `None` for the current one.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        match self {
            Self::Current => None,
            Self::Named(name) => Some(name.clone()),
            Self::Path(path) => Some(path.display().to_string()),
        }
    }

    fn open(&self) -> Result<File, NamespaceError> {
        match self {
            Self::Current => open(Path::new(OWN)),
            Self::Path(path) => open(path),
            Self::Named(name) => open_named(name),
        }
    }
}

/// A namespace that cannot be entered or told.
#[derive(Debug, Error)]
pub enum NamespaceError {
    /// No namespace of this name.
    #[error("no network namespace named `{name}` in /run/netns ({})", known_words(known))]
    Unknown {
        /// The name looked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// Its file cannot be opened.
    #[error("open the network namespace {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be entered; that needs `CAP_SYS_ADMIN`. `EINVAL`: the file is not a network namespace.
    #[error("enter the network namespace {name}")]
    Enter {
        /// As the user gave it.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No thread to work in it.
    #[error("start a thread for the network namespace")]
    Thread {
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn known_words(known: &[String]) -> String {
    if known.is_empty() { "there is none".into() } else { format!("there are: {}", known.join(", ")) }
}

impl NamespaceError {
    /// Is a privilege missing (`EPERM`, `EACCES`)?
    #[must_use]
    pub fn is_privilege(&self) -> bool {
        match self {
            Self::Unknown { .. } => false,
            Self::Open { source, .. } | Self::Enter { source, .. } | Self::Thread { source } => {
                source.kind() == io::ErrorKind::PermissionDenied
            }
        }
    }
}

/// Runs `work` in a thread of its own that has entered the namespace; in the calling thread where that is in it already.
/// Threads that it starts and sockets that it opens belong to the namespace; the caller's threads stay where they are. A
/// panic inside goes on in the caller.
///
/// # Errors
/// If the namespace is not there or cannot be entered (`CAP_SYS_ADMIN`); `work` did not run then. The current one needs
/// no privilege.
pub fn within<T: Send>(target: &Target, work: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
    let entry = match target {
        Target::Current => return Ok(work()),
        other => other.open()?,
    };
    let run = || {
        setns(entry, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| NamespaceError::Enter { name: target.name().unwrap_or_default(), source: errno.into() })?;
        Ok(work())
    };
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("vpnfix-netns".into());
        let handle = builder.spawn_scoped(scope, run).map_err(|source| NamespaceError::Thread { source })?;
        handle.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}

/// The namespace of a target by its inode. Entering it is not needed for that.
///
/// # Errors
/// If it is not there or may not be looked at.
pub fn identify(target: &Target) -> Result<Netns, NamespaceError> {
    let path = PathBuf::from(target.name().unwrap_or_else(|| OWN.into()));
    let metadata = target.open()?.metadata().map_err(|source| NamespaceError::Open { path, source })?;
    Ok(Netns { name: target.name(), inode: metadata.ino() })
}

fn open(path: &Path) -> Result<File, NamespaceError> {
    File::open(path).map_err(|source| NamespaceError::Open { path: path.to_owned(), source })
}

fn open_named(name: &str) -> Result<File, NamespaceError> {
    let unknown = || NamespaceError::Unknown { name: name.to_owned(), known: known() };
    // The directory itself and its parent are no names.
    if matches!(name, "" | "." | "..") {
        return Err(unknown());
    }
    for directory in NAME_DIRECTORIES {
        match open(&Path::new(directory).join(name)) {
            Err(NamespaceError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            outcome => return outcome,
        }
    }
    Err(unknown())
}

/// The names of `ip netns`, sorted; none if they cannot be listed.
#[must_use]
pub fn known() -> Vec<String> {
    let listed = NAME_DIRECTORIES.iter().filter_map(|directory| fs::read_dir(directory).ok()).flatten();
    let mut names: Vec<_> =
        listed.filter_map(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names.dedup();
    names
}

/// All namespaces that can be named, and their devices: those of `ip netns` by their names, others by a process in them.
/// What cannot be looked at is left out.
#[must_use]
pub fn survey() -> Others {
    let mut others = Others::default();
    for name in known() {
        let target = Target::Named(name.clone());
        if let Some(inode) = inode_of(&target) {
            others.names.entry(inode).or_insert(name);
            add_devices(&mut others, inode, &target);
        }
    }
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    for process in processes.filter(|entry| entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit())) {
        let target = Target::Path(process.path().join("ns/net"));
        let Some(inode) = inode_of(&target).filter(|inode| !others.names.contains_key(inode)) else { continue };
        let comm = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        others.names.insert(inode, format!("{}/{}", comm.trim(), process.file_name().to_string_lossy()));
        add_devices(&mut others, inode, &target);
    }
    others
}

fn inode_of(target: &Target) -> Option<u32> {
    identify(target).ok().and_then(|netns| u32::try_from(netns.inode).ok())
}

fn add_devices(others: &mut Others, inode: u32, target: &Target) {
    let devices = within(target, || {
        let listed = nix::net::if_::if_nameindex().ok()?;
        Some(listed.iter().map(|one| (one.index(), one.name().to_string_lossy().into_owned())).collect::<Vec<_>>())
    });
    for (index, name) in devices.ok().flatten().into_iter().flatten() {
        others.devices.insert((inode, index), name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_makes_a_path() {
        assert_eq!(Target::parse("vpn"), Target::Named("vpn".into()));
        assert_eq!(Target::parse("/proc/1/ns/net"), Target::Path("/proc/1/ns/net".into()));
    }

    #[test]
    fn an_unknown_name_is_told_with_those_there_are() {
        let error = identify(&Target::Named("no-such-namespace".into())).unwrap_err();
        assert!(error.to_string().starts_with("no network namespace named `no-such-namespace`"), "{error}");
        assert!(!error.is_privilege());
        assert!(identify(&Target::Named("..".into())).is_err());
    }

    #[test]
    fn the_current_one_is_the_calling_threads() {
        let outside = identify(&Target::Current).unwrap();
        let inside = within(&Target::Current, || identify(&Target::Current).unwrap()).unwrap();
        assert_eq!(outside, inside);
        assert!(outside.inode > 0);
    }

    #[test]
    fn the_survey_names_this_one_with_its_devices() {
        let own = u32::try_from(identify(&Target::Current).unwrap().inode).unwrap();
        let others = survey();
        assert!(others.names.contains_key(&own), "{:?}", others.names);
    }

    #[test]
    fn a_file_that_is_no_namespace_cannot_be_entered() {
        let error = within(&Target::Path("/dev/null".into()), || ()).unwrap_err();
        assert!(matches!(error, NamespaceError::Enter { .. }), "{error}");
    }

    #[test]
    #[should_panic(expected = "inside")]
    fn a_panic_goes_on_in_the_caller() {
        let _never = within(&Target::Current, || panic!("inside"));
    }
}
