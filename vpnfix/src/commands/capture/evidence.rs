//! What is collected, on its way into the bundle.
//!
//! A disk that is full must not keep a repair from being made: the first failure is remembered, nothing more is written,
//! and at the end it is told.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use serde::Serialize;

use crate::action::bundle::{BundleError, Draft};
use crate::commands::cli::CaptureArgs;
use crate::commands::failure::Failure;
use crate::core::bundle::contents::Contents;
use crate::core::bundle::manifest::{Manifest, Missing};
use crate::core::bundle::state::{Moment, Part};
use crate::core::bundle::{Files, name};
use crate::core::redact::Redactor;
use crate::core::report::Outcome;
use crate::core::report::incident::IncidentReport;
use crate::core::verify::Known;
use crate::render::{self, Palette};
use crate::system::new_file::NewFile;

/// A bundle's evidence while it is collected.
pub(super) struct Evidence {
    draft: Draft,
    failed: Option<Failure>,
    cut_short: bool,
    redaction: Option<Redaction>,
}

/// With stand-ins nothing is written before all is known: no file on disk ever holds what is to be hidden.
struct Redaction {
    hostname: String,
    map: Option<PathBuf>,
    files: Files,
    missing: Vec<Missing>,
}

/// Room that must be on the disk for what is written while the trace runs.
const ROOM: u64 = 64 << 20;
/// What the host is called in a bundle's manifest until its stand-in is known.
const HIDDEN: &str = "host-1";

impl Evidence {
    /// Begins the bundle.
    ///
    /// # Errors
    /// Its target is there already, or the disk refuses.
    pub(super) fn begin(args: &CaptureArgs, mut manifest: Manifest) -> Result<Self, Failure> {
        let hostname = manifest.host.hostname.clone();
        if args.redact {
            manifest.redacted = true;
            manifest.host.hostname = HIDDEN.into();
        }
        if let Some(map) = args.redact_map.as_ref().filter(|map| map.symlink_metadata().is_ok()) {
            return Err(Failure::unable(format!("capture: {} exists already", map.display())));
        }
        let redaction = args.redact.then(|| Redaction {
            hostname,
            map: args.redact_map.clone(),
            files: Files::new(),
            missing: Vec::new(),
        });
        let draft = Draft::begin(&args.output, manifest).map_err(|error| {
            let failure = Failure::of("begin the bundle", &error);
            match error {
                BundleError::LeftBehind(_) => {
                    failure.hint("look at it with `vpnfix report`, then remove it, or name another target with -o")
                }
                BundleError::Exists(_) => failure.hint("name another target with -o"),
                _ => failure,
            }
        })?;
        Ok(Self { draft, failed: None, cut_short: false, redaction })
    }

    /// Puts a file into the bundle.
    pub(super) fn put(&mut self, name: &str, contents: Vec<u8>) {
        match &mut self.redaction {
            Some(redaction) => drop(redaction.files.insert(name.into(), contents)),
            None => self.write(name, contents),
        }
    }

    fn write(&mut self, name: &str, contents: Vec<u8>) {
        if self.failed.is_none() {
            self.failed = self.draft.put(name, contents).err().map(|error| unwritten(&error));
        }
    }

    /// Puts a document into the bundle.
    pub(super) fn document<T: Serialize>(&mut self, name: &str, value: &T) {
        match render::document(value) {
            Ok(text) => self.put(name, text.into_bytes()),
            Err(error) => self.lacks(name, error.to_string()),
        }
    }

    /// Puts a state into the bundle.
    pub(super) fn state(&mut self, moment: Moment, parts: Vec<(Part, Known<Vec<u8>>)>) {
        for (part, document) in parts {
            match document {
                Ok(document) => self.put(&moment.file(part), document),
                Err(why) => self.lacks(&moment.file(part), why.0),
            }
        }
    }

    /// Says why a file is not in it, or not whole.
    pub(super) fn lacks(&mut self, name: &str, why: impl Into<String>) {
        match &mut self.redaction {
            Some(redaction) => redaction.missing.push(Missing { file: name.into(), why: why.into() }),
            None => self.draft.lacks(name, why),
        }
    }

    /// The capture did not come to its end.
    pub(super) fn cut_short(&mut self) {
        self.cut_short = true;
    }

    /// Where a file is to be written bit by bit; nowhere where none may hold what the host is really called, and on a disk
    /// that is nearly full: what is traced must not fail for want of room.
    pub(super) fn path_of(&mut self, name: &str) -> Option<PathBuf> {
        if self.redaction.is_some() || self.failed.is_some() {
            return None;
        }
        let path = self.draft.path_of(name);
        let room = path.parent().and_then(|directory| statvfs(directory).ok());
        let free = room.map_or(0, |room| room.blocks_available().saturating_mul(room.fragment_size()));
        if free < ROOM {
            self.draft.lacks(name, format!("there are only {free} bytes of room on the disk"));
            return None;
        }
        Some(path)
    }

    /// Takes in what was written there.
    pub(super) fn adopt(&mut self, name: &str) {
        if self.failed.is_none() && self.redaction.is_none() {
            self.failed = self.draft.adopt(name).err().map(|error| unwritten(&error));
        }
    }

    /// Something could not be written: it is told at the end.
    pub(super) fn fails(&mut self, failure: Failure) {
        self.failed.get_or_insert(failure);
    }

    /// Brings the manifest on disk up to what is there.
    pub(super) fn save(&mut self) {
        if self.failed.is_none() {
            self.failed = self.draft.save().err().map(|error| unwritten(&error));
        }
    }

    /// Writes the reports, and gives the bundle its name.
    ///
    /// # Errors
    /// The disk refused something, now or before: then no bundle is left.
    pub(super) fn finish(mut self, outcome: Outcome, ended: String, unix_time: u64) -> Result<PathBuf, Failure> {
        let map = match self.redaction.take() {
            Some(redaction) => self.redact(redaction),
            None => Ok(None),
        };
        let map = match map {
            Ok(map) => map,
            Err(failure) => {
                self.draft.abandon();
                return Err(failure);
            }
        };
        for raw in [name::RECORDING, name::PACKETS] {
            if !self.draft.files().contains_key(raw) {
                let hidden = self.draft.manifest().redacted;
                let why = if hidden {
                    "left out of a redacted bundle: it holds addresses as they are"
                } else {
                    "nothing was traced"
                };
                self.draft.lacks(raw, why);
            }
        }
        self.reports(outcome, &ended);
        let Self { draft, failed, cut_short, .. } = self;
        if let Some(failure) = failed {
            draft.abandon();
            return Err(failure);
        }
        let path = draft.finish(outcome, ended, unix_time, !cut_short).map_err(|error| unwritten(&error))?;
        if let Some((path, text)) = map {
            write_map(&path, &text)?;
        }
        Ok(path)
    }

    /// Puts the files with stand-ins into the bundle. Gives back what is to be kept of what was replaced, and where.
    fn redact(&mut self, redaction: Redaction) -> Result<Option<(PathBuf, String)>, Failure> {
        let Redaction { hostname, map, files, missing } = redaction;
        let mut redactor = Redactor::new(&files, &hostname, secret()?)
            .map_err(|error| Failure::of("replace addresses by stand-ins", &error))?;
        let hidden = redactor.files(&files);
        for name in files.keys().filter(|name| !hidden.contains_key(*name)) {
            self.draft.lacks(name, "left out of a redacted bundle: its addresses cannot be replaced");
        }
        for (name, contents) in hidden {
            self.write(&name, contents);
        }
        for missing in missing {
            let why = redactor.text(&missing.why);
            self.draft.lacks(&missing.file, why);
        }
        let text = render::document(&redactor.mapping()).map_err(|error| Failure::of("keep the mapping", &error))?;
        Ok(map.map(|path| (path, text)))
    }

    fn reports(&mut self, outcome: Outcome, ended: &str) {
        let mut contents = Contents::read(self.draft.files());
        contents.manifest = Some(Manifest {
            outcome: Some(outcome),
            ended: Some(ended.into()),
            complete: !self.cut_short,
            ..self.draft.manifest().clone()
        });
        let report = IncidentReport::of(&contents);
        self.write(name::HTML, render::incident::html(&report).into_bytes());
        self.write(name::MARKDOWN, render::incident::markdown(&report).into_bytes());
        self.write(name::TEXT, render::incident::text(&report, Palette::new(false)).into_bytes());
    }
}

fn unwritten(error: &BundleError) -> Failure {
    Failure::of("write the bundle", error)
}

/// Bits that nobody can guess.
fn secret() -> Result<[u8; 16], Failure> {
    let mut secret = [0; 16];
    let read = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut secret));
    read.map_err(|error| Failure::of("read /dev/urandom", &error))?;
    Ok(secret)
}

fn write_map(path: &Path, text: &str) -> Result<(), Failure> {
    let written = NewFile::create(path).and_then(|mut file| file.write(text.as_bytes()));
    written.map_err(|error| Failure::of(&format!("write {}", path.display()), &error))
}
