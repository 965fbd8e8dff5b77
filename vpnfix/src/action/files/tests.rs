//! On a directory of their own, with every change also broken off at each of its steps.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::core::own_file::Backend;

const PERSISTENCE: Purpose = Purpose::Persistence { backend: Backend::Networkd };

/// A directory that goes with its owner: `etc` with a foreign file, the state and the lock beside it.
struct Place(PathBuf);

impl Place {
    fn new(test: &str) -> Self {
        let path = env::temp_dir().join(format!("vpnfix-files-{test}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::create_dir(path.join("etc")).unwrap();
        fs::write(path.join("etc/foreign.conf"), "precious").unwrap();
        Self(path)
    }

    fn files(&self) -> OwnFiles {
        OwnFiles::of(self.0.join("state"), self.0.join("run"))
    }

    fn file(&self, name: &str, contents: &str) -> OwnFile {
        let path = self.0.join("etc").join(name);
        OwnFile { path, contents: contents.into(), mode: 0o644, purpose: Purpose::Cure }
    }

    /// All below `etc`, and the record.
    fn tree(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let mut tree = BTreeMap::new();
        let mut directories = vec![self.0.join("etc"), self.0.join("state")];
        while let Some(directory) = directories.pop() {
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            for entry in entries.map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    directories.push(entry.path());
                }
                tree.insert(entry.path(), fs::read(entry.path()).ok());
            }
        }
        tree
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.0.join("etc").join(name)).unwrap()
    }

    fn standings(&self) -> Vec<Standing> {
        self.files().recorded().unwrap().iter().map(|record| record.standing).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fault::after(None);
        let _cleaned = fs::remove_dir_all(&self.0);
    }
}

fn all(_: &Record) -> bool {
    true
}

#[test]
fn files_are_written_once_and_taken_back_without_a_trace() {
    let place = Place::new("once");
    let before = place.tree();
    let files = [place.file("a.conf", "one"), place.file("new/deep/b.conf", "two")];
    assert_eq!(place.files().examine(&files).unwrap(), [Put::Written; 2]);
    assert_eq!(place.tree(), before);
    assert_eq!(place.files().put(&files).unwrap(), [Put::Written; 2]);
    assert_eq!((place.text("a.conf"), place.text("new/deep/b.conf")), ("one".into(), "two".into()));
    let mode = |name: &str| fs::metadata(place.0.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("etc/a.conf"), mode("etc/new/deep"), mode("state/files.json")), (0o644, 0o755, 0o644));
    let after = place.tree();
    assert_eq!(place.files().put(&files).unwrap(), [Put::Unchanged; 2]);
    assert_eq!(place.tree(), after);
    assert_eq!(place.standings(), [Standing::AsWritten; 2]);
    let removal = place.files().remove(all).unwrap();
    assert_eq!(removal.removed, [place.0.join("etc/a.conf"), place.0.join("etc/new/deep/b.conf")]);
    assert!(removal.left.is_empty());
    assert_eq!(place.tree(), before);
    assert!(!place.0.join("state").exists());
    assert!(place.files().remove(all).unwrap().removed.is_empty());
}

#[test]
fn each_purpose_is_taken_back_by_itself_and_shared_directories_last() {
    let place = Place::new("purpose");
    let before = place.tree();
    let kept = OwnFile { purpose: PERSISTENCE, ..place.file("new/kept.conf", "kept") };
    place.files().put(&[place.file("new/cure.conf", "cure")]).unwrap();
    place.files().put(&[kept]).unwrap();
    let removal = place.files().remove(|record| record.purpose == Purpose::Cure).unwrap();
    assert_eq!(removal.removed, [place.0.join("etc/new/cure.conf")]);
    assert_eq!(place.text("new/kept.conf"), "kept");
    // A directory that others use by now stays.
    fs::write(place.0.join("etc/new/other.conf"), "other").unwrap();
    assert_eq!(place.files().remove(all).unwrap().removed.len(), 1);
    assert_eq!(place.text("new/other.conf"), "other");
    fs::remove_dir_all(place.0.join("etc/new")).unwrap();
    assert_eq!(place.tree(), before);
}

#[test]
fn a_later_version_replaces_ours() {
    let place = Place::new("later");
    place.files().put(&[place.file("a.conf", "one")]).unwrap();
    let later = OwnFile { mode: 0o600, ..place.file("a.conf", "two") };
    assert_eq!(place.files().put(&[later]).unwrap(), [Put::Replaced]);
    assert_eq!(place.text("a.conf"), "two");
    assert_eq!(place.standings(), [Standing::AsWritten]);
    assert_eq!(fs::metadata(place.0.join("etc/a.conf")).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn what_is_not_ours_is_neither_overwritten_nor_removed() {
    let place = Place::new("foreign");
    symlink(place.0.join("etc/foreign.conf"), place.0.join("etc/link.conf")).unwrap();
    fs::create_dir(place.0.join("etc/directory.conf")).unwrap();
    let before = place.tree();
    for name in ["foreign.conf", "link.conf", "directory.conf"] {
        // With another one that could be written: all or nothing.
        let files = [place.file("a.conf", "one"), place.file(name, "precious")];
        let error = place.files().put(&files).unwrap_err();
        assert!(matches!(&error, FilesError::NotOurs(path) if path.ends_with(name)), "{error}");
        assert_eq!(place.tree(), before);
    }
    for name in [".hidden.conf", "../etc/a.conf", ""] {
        let error = place.files().put(&[place.file(name, "one")]).unwrap_err();
        assert!(matches!(error, FilesError::Path(_)), "{name}: {error}");
    }
    let twice = [place.file("a.conf", "one"), place.file("a.conf", "two")];
    assert!(matches!(place.files().put(&twice), Err(FilesError::Path(_))));
    let relative = OwnFile { path: "a.conf".into(), ..place.file("a.conf", "one") };
    assert!(matches!(place.files().put(&[relative]), Err(FilesError::Path(_))));
    assert_eq!(place.tree(), before);
}

#[test]
fn what_was_edited_stays_and_is_told() {
    let place = Place::new("edited");
    let path = place.0.join("etc/a.conf");
    let edits: [fn(&Path); 3] = [
        |path| fs::write(path, "edited").unwrap(),
        |path| {
            fs::remove_file(path).unwrap();
            symlink("foreign.conf", path).unwrap();
        },
        |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        },
    ];
    for edit in edits {
        place.files().put(&[place.file("a.conf", "one"), place.file("b.conf", "two")]).unwrap();
        edit(&path);
        let edited = place.tree();
        assert_eq!(place.standings(), [Standing::Changed, Standing::AsWritten]);
        let error = place.files().put(&[place.file("a.conf", "three")]).unwrap_err();
        assert!(matches!(error, FilesError::Changed(_)), "{error}");
        assert_eq!(place.tree(), edited);
        let removal = place.files().remove(all).unwrap();
        assert_eq!(removal.removed, [place.0.join("etc/b.conf")]);
        assert!(matches!(removal.left.as_slice(), [Left::Changed(left)] if *left == path));
        assert!(path.symlink_metadata().is_ok());
        // By hand, as told: then the record goes, too.
        fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).unwrap();
        assert_eq!(place.standings(), [Standing::Missing]);
        assert!(place.files().remove(all).unwrap().left.is_empty());
        assert!(!place.0.join("state").exists());
        assert_eq!(place.text("foreign.conf"), "precious");
    }
}

#[test]
fn a_record_that_cannot_be_used_deletes_nothing() {
    let place = Place::new("record");
    place.files().put(&[place.file("a.conf", "one")]).unwrap();
    let record = place.0.join("state/files.json");
    let text = fs::read_to_string(&record).unwrap();
    let newer = text.replace("\"format\": 1", "\"format\": 2");
    let elsewhere = text.replace("/etc/a.conf", "/etc/../etc/a.conf");
    for bad in ["", "{", "[]", &text[..text.len() / 2], &newer, &elsewhere] {
        fs::write(&record, bad).unwrap();
        let before = place.tree();
        let error = place.files().remove(all).unwrap_err();
        assert!(matches!(error, FilesError::Record { .. }), "{error}");
        assert!(place.files().put(&[place.file("b.conf", "two")]).is_err());
        assert!(place.files().recorded().is_err());
        assert_eq!(place.tree(), before);
    }
    fs::write(&record, text).unwrap();
    assert_eq!(place.files().remove(all).unwrap().removed.len(), 1);
}

#[test]
fn only_one_at_a_time() {
    let place = Place::new("lock");
    let _held = Lock::take_of_files_in(&place.0.join("run")).unwrap();
    assert!(matches!(place.files().put(&[place.file("a.conf", "one")]), Err(FilesError::Lock(_))));
    assert!(matches!(place.files().remove(all), Err(FilesError::Lock(_))));
    assert!(place.files().recorded().unwrap().is_empty());
}

/// Runs a change with a kill after each of its steps in turn, until it is through; `after` is called after each.
fn kill_at_each_step(place: &Place, change: impl Fn(&Place) -> bool, mut after: impl FnMut(&Place)) -> u32 {
    for steps in 0.. {
        fault::after(Some(steps));
        let through = change(place);
        fault::after(None);
        after(place);
        if through {
            return steps;
        }
    }
    unreachable!()
}

/// Each file shows all of one version, or is not there; beside the temporary ones, which no daemon reads.
fn assert_whole(place: &Place, versions: &[&str]) {
    for name in ["a.conf", "new/deep/b.conf"] {
        if let Ok(text) = fs::read_to_string(place.0.join("etc").join(name)) {
            assert!(versions.contains(&text.as_str()), "{name}: {text}");
        }
    }
    // Nothing of it is there without a record that covers it.
    let recorded = place.files().recorded().unwrap();
    for path in place.tree().keys().filter(|path| path.extension().is_some_and(|extension| extension == "conf")) {
        assert!(path.ends_with("foreign.conf") || recorded.iter().any(|record| record.path == *path), "{path:?}");
    }
    assert!(recorded.iter().all(|record| record.standing != Standing::Changed));
}

#[test]
fn killed_while_writing_all_is_taken_back() {
    let place = Place::new("kill-put");
    let before = place.tree();
    let files = [place.file("a.conf", "one"), place.file("new/deep/b.conf", "one")];
    let steps = kill_at_each_step(
        &place,
        |place| place.files().put(&files).is_ok(),
        |place| {
            assert_whole(place, &["one"]);
            let removal = place.files().remove(all).unwrap();
            assert!(removal.left.is_empty());
            assert_eq!(place.tree(), before);
        },
    );
    assert!(steps > 20, "{steps}");
}

#[test]
fn killed_while_writing_it_is_finished_by_the_next_run() {
    let place = Place::new("kill-again");
    let before = place.tree();
    let files = [place.file("a.conf", "one"), place.file("new/deep/b.conf", "one")];
    kill_at_each_step(
        &place,
        |place| place.files().put(&files).is_ok(),
        |place| {
            place.files().put(&files).unwrap();
            assert_eq!(place.standings(), [Standing::AsWritten; 2]);
            let stray = place.tree().into_keys().find(|path| path.to_string_lossy().contains("vpnfix-new"));
            assert_eq!(stray, None);
            place.files().remove(all).unwrap();
            assert_eq!(place.tree(), before);
        },
    );
}

#[test]
fn killed_while_replacing_one_of_both_versions_stands() {
    let place = Place::new("kill-replace");
    let before = place.tree();
    let version = |text: &str| [place.file("a.conf", text), place.file("new/deep/b.conf", text)];
    place.files().put(&version("one")).unwrap();
    kill_at_each_step(
        &place,
        |place| place.files().put(&version("two")).is_ok(),
        |place| {
            assert_whole(place, &["one", "two"]);
            assert_eq!(place.standings().len(), 2);
            let removal = place.files().remove(all).unwrap();
            assert_eq!((removal.removed.len(), removal.left.len()), (2, 0));
            assert_eq!(place.tree(), before);
            place.files().put(&version("one")).unwrap();
        },
    );
    assert_eq!(place.files().remove(all).unwrap().removed.len(), 2);
}

#[test]
fn killed_while_removing_the_next_run_removes_the_rest() {
    let place = Place::new("kill-remove");
    let before = place.tree();
    let files = [place.file("a.conf", "one"), place.file("new/deep/b.conf", "one")];
    place.files().put(&files).unwrap();
    kill_at_each_step(
        &place,
        |place| place.files().remove(all).is_ok_and(|removal| removal.left.is_empty()),
        |place| {
            assert_whole(place, &["one"]);
            assert!(place.files().remove(all).unwrap().left.is_empty());
            assert_eq!(place.tree(), before);
            place.files().put(&files).unwrap();
        },
    );
}

#[test]
fn a_foreign_file_that_came_meanwhile_is_left() {
    let place = Place::new("meanwhile");
    // The record was written, the file not yet: then someone makes one of that name.
    fault::after(Some(6));
    assert!(place.files().put(&[place.file("a.conf", "one")]).is_err());
    fault::after(None);
    assert_eq!(place.standings(), [Standing::Missing]);
    fs::write(place.0.join("etc/a.conf"), "theirs").unwrap();
    let removal = place.files().remove(all).unwrap();
    assert!(removal.removed.is_empty() && removal.left.is_empty());
    assert_eq!(place.text("a.conf"), "theirs");
    let parent = Directory::open(&place.0.join("etc")).unwrap();
    let error = parent.write("a.conf", b"one", 0o644, Over::Nothing).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(place.text("a.conf"), "theirs");
    assert!(!place.0.join("etc/.a.conf.vpnfix-new").exists());
}
