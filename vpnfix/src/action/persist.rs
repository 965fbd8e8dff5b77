//! Making rules outlive a reboot, and taking that back.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use super::files::{FilesError, OwnFile, OwnFiles, Put, state_directory};
use super::lock::run_directory;
use crate::core::own_file::{Backend, Purpose, Standing};
use crate::core::persist::{Arrangement, Invocation, Kept, KeptError};
use crate::system::program::{self, Bounds, ProgramError};

/// What is persisted lies beside the record of vpnfix's own files.
const KEPT: &str = "persist.json";
/// More than any host's rules take.
const MOST: u64 = 4 * 1024 * 1024;
/// How long a manager may take to do what it was told.
const BOUNDS: Bounds = Bounds { patience: Duration::from_secs(60), most: 1024 * 1024 };

/// Rules cannot be persisted, or that cannot be taken back.
#[derive(Debug, Error)]
pub enum PersistFailure {
    /// A file.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A program.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The manager's own check refuses the file; nothing was written.
    #[error("check {} before it is put in place", path.display())]
    Check {
        /// The file.
        path: PathBuf,
        /// What the check said.
        #[source]
        source: ProgramError,
    },
    /// What is persisted cannot be read.
    #[error("read {}", path.display())]
    Kept {
        /// Where it lies.
        path: PathBuf,
        /// Why.
        #[source]
        source: KeptError,
    },
    /// Something on disk fails.
    #[error("{what} {}", path.display())]
    Io {
        /// What was done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl PersistFailure {
    /// Is a privilege missing (`EPERM`, `EACCES`)?
    #[must_use]
    pub fn is_privilege(&self) -> bool {
        match self {
            Self::Files(error) => error.is_privilege(),
            Self::Io { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            Self::Program(_) | Self::Check { .. } | Self::Kept { .. } => false,
        }
    }
}

fn kept_path() -> PathBuf {
    state_directory().join(KEPT)
}

/// What is persisted on this host.
///
/// # Errors
/// It cannot be read.
pub fn kept() -> Result<Option<Kept>, PersistFailure> {
    let path = kept_path();
    let failed = |source| PersistFailure::Io { what: "read", path: path.clone(), source };
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if !metadata.is_file() || metadata.len() > MOST => {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "not a file that vpnfix writes")));
        }
        other => other.map_err(failed)?,
    };
    let text = fs::read_to_string(&path).map_err(failed)?;
    Kept::read(&text).map(Some).map_err(|source| PersistFailure::Kept { path: path.clone(), source })
}

/// The files of the persistence that are recorded, and how each stands.
///
/// # Errors
/// The record cannot be used.
pub fn standings() -> Result<Vec<(PathBuf, Standing)>, PersistFailure> {
    let recorded = OwnFiles::of_host().recorded()?.into_iter();
    let ours = recorded.filter(|record| matches!(record.purpose, Purpose::Persistence { .. }));
    Ok(ours.map(|record| (record.path, record.standing)).collect())
}

/// The files of an arrangement, and last what it keeps.
fn files(arrangement: &Arrangement) -> Result<Vec<OwnFile>, PersistFailure> {
    let purpose = Purpose::Persistence { backend: arrangement.backend };
    let path = kept_path();
    let text = Kept::of(arrangement).text().map_err(|source| PersistFailure::Kept { path: path.clone(), source })?;
    let own = |file: &crate::core::persist::PersistFile| OwnFile {
        path: file.path.clone(),
        contents: file.text.clone().into_bytes(),
        mode: file.mode,
        purpose,
    };
    let mut files: Vec<OwnFile> = arrangement.files.iter().map(own).collect();
    files.push(OwnFile { path, contents: text.into_bytes(), mode: 0o600, purpose });
    Ok(files)
}

/// What [`establish`] would do with the arrangement's files, in their order. Nothing is changed.
///
/// # Errors
/// A file that may not be written.
pub fn examine(arrangement: &Arrangement) -> Result<Vec<Put>, PersistFailure> {
    let mut puts = OwnFiles::of_host().examine(&files(arrangement)?)?;
    puts.truncate(arrangement.files.len());
    Ok(puts)
}

/// Writes the files and runs the commands. What was persisted before, in another way or for other rules, is taken back.
///
/// # Errors
/// A file that may not be written, and then nothing is; a command that fails, and then the files are taken back.
pub fn establish(arrangement: &Arrangement, before: Option<&Kept>) -> Result<Vec<Put>, PersistFailure> {
    let own = OwnFiles::of_host();
    let files = files(arrangement)?;
    own.examine(&files)?;
    check(arrangement)?;
    if let Some(before) = before {
        if *before == Kept::of(arrangement) && own.examine(&files)?.iter().all(|put| *put == Put::Unchanged) {
            return Ok(vec![Put::Unchanged; arrangement.files.len()]);
        }
        if before.connection.is_some() || before.backend != arrangement.backend {
            release(Some(before))?;
        }
    }
    let mut puts = own.put(&files)?;
    own.remove(|record| {
        matches!(record.purpose, Purpose::Persistence { .. }) && files.iter().all(|file| file.path != record.path)
    })?;
    for command in &arrangement.commands {
        if let Err(error) = run(command) {
            release(Some(&Kept::of(arrangement)))?;
            return Err(error.into());
        }
    }
    puts.truncate(arrangement.files.len());
    Ok(puts)
}

/// What was taken back.
#[derive(Debug, Default)]
pub struct Released {
    /// Files that are gone.
    pub removed: Vec<PathBuf>,
    /// Commands that were run.
    pub ran: Vec<Invocation>,
    /// What stays, and why.
    pub left: Vec<String>,
}

/// Takes back what is persisted: the manager's copy first, because only the files say where it is. The rules that stand
/// now stay.
///
/// # Errors
/// The record of files cannot be used, or the manager refuses; then all files are still there.
pub fn release(kept: Option<&Kept>) -> Result<Released, PersistFailure> {
    let mut released = Released::default();
    if let Some(command) = kept.and_then(Kept::before_release) {
        match run(&command) {
            // The profile is gone, and the rules with it: status 10 (nmcli(1)).
            Err(ProgramError::Failed { status, .. }) if status.code() == Some(10) => {}
            ran => ran.map(|()| released.ran.push(command))?,
        }
    }
    let removal = OwnFiles::of_host().remove(|record| matches!(record.purpose, Purpose::Persistence { .. }))?;
    released.left = removal.left.iter().map(|left| told(left)).collect();
    released.removed = removal.removed;
    for command in kept.map(Kept::after_release).unwrap_or_default() {
        match run(&command) {
            Ok(()) => released.ran.push(command),
            Err(error) => released.left.push(format!("`{}`: {error}", command.words())),
        }
    }
    Ok(released)
}

fn told(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

fn run(command: &Invocation) -> Result<(), ProgramError> {
    tracing::info!("{}", command.words());
    let argv: Vec<&str> = command.argv.iter().map(String::as_str).collect();
    let (program, arguments) = argv.split_first().map_or(("", &[][..]), |(program, arguments)| (*program, arguments));
    program::output(program, arguments, BOUNDS).map(|_| ())
}

/// The manager's own check, where it has one that needs no change: netplan's, on a copy of its configuration.
fn check(arrangement: &Arrangement) -> Result<(), PersistFailure> {
    let Some(file) = arrangement.files.first().filter(|_| arrangement.backend == Backend::Netplan) else {
        return Ok(());
    };
    let root = Copy::make()?;
    root.fill(Path::new("/etc/netplan"), &file.path, &file.text)?;
    let checked = program::output("netplan", &["generate", "--root-dir", &root.0.to_string_lossy()], BOUNDS);
    checked.map(|_| ()).map_err(|source| PersistFailure::Check { path: file.path.clone(), source })
}

/// A directory for a copy of a manager's configuration. It goes with this.
struct Copy(PathBuf);

impl Copy {
    fn make() -> Result<Self, PersistFailure> {
        let path = run_directory().join(format!("check-{}", std::process::id()));
        // The configuration may hold keys of wireless networks.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|source| PersistFailure::Io { what: "make", path: path.clone(), source })?;
        Ok(Self(path))
    }

    /// Copies the files of a directory, and puts one more beside them.
    fn fill(&self, directory: &Path, path: &Path, text: &str) -> Result<(), PersistFailure> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| PersistFailure::Io { what, path, source }
        };
        let inside = |path: &Path| self.0.join(path.strip_prefix("/").unwrap_or(path));
        let copy = inside(directory);
        fs::create_dir_all(&copy).map_err(failed("make", &copy))?;
        for entry in fs::read_dir(directory).map_err(failed("list", directory))? {
            let source = entry.map_err(failed("list", directory))?.path();
            if source.extension().is_some_and(|end| end == "yaml") && source != path {
                fs::copy(&source, inside(&source)).map_err(failed("copy", &source))?;
            }
        }
        let target = inside(path);
        fs::write(&target, text).map_err(failed("write", &target))
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, "a copy of the configuration stays");
        }
    }
}
