use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use tar::{EntryType, Header};

use super::*;
use crate::core::bundle::Files;
use crate::core::bundle::manifest::{Fault, Manifest};
use crate::core::model::{HostFacts, Netns};
use crate::core::report::Outcome;
use crate::core::report::incident::IncidentReport;
use crate::render;

/// A directory of the test's own; it goes with this.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vpnfix-bundle-{name}-{}", std::process::id()));
        let _left = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn draft(target: &Path) -> Draft {
    let manifest = Manifest::begun(HostFacts::default(), Netns::default(), "2026-01-01T00:00:00Z".into());
    let mut draft = Draft::begin(target, manifest).unwrap();
    draft.put("trace.jsonl", b"{}\n".to_vec()).unwrap();
    draft.put("before/rules.json", b"[]\n".to_vec()).unwrap();
    draft.lacks("before/bgp.json", "no daemon");
    draft
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn both_forms_are_read_as_they_were_written() {
    let place = Place::new("forms");
    for name in ["bundle", "bundle.tar.zst"] {
        let path = place.path(name);
        let draft = draft(&path);
        assert!(!path.exists() && place.path(&format!("{name}.partial")).exists());
        draft.finish(Outcome::Ok, "2026-01-01T00:00:09Z".into(), 1, true).unwrap();
        assert!(!place.path(&format!("{name}.partial")).exists());
        let bundle = read(&path).unwrap();
        assert_eq!(bundle.faults(), []);
        assert_eq!(bundle.files["before/rules.json"], b"[]\n");
        assert_eq!(bundle.manifest.missing[0].why, "no daemon");
        assert_eq!(mode(&path), if name == "bundle" { 0o700 } else { 0o600 });
        assert!(matches!(Draft::begin(&path, bundle.manifest.clone()), Err(BundleError::Exists(_))));
    }
    assert_eq!(mode(&place.path("bundle/before")), 0o700);
    assert_eq!(mode(&place.path("bundle/before/rules.json")), 0o600);
}

#[test]
fn a_draft_says_that_it_is_none_yet() {
    let place = Place::new("draft");
    let path = place.path("b.tar.zst");
    let mut draft = draft(&path);
    draft.save().unwrap();
    let partial = place.path("b.tar.zst.partial");
    assert_eq!(read(&partial).unwrap().faults(), [Fault::NotComplete]);
    let again = Draft::begin(&path, draft.manifest().clone());
    assert!(matches!(again, Err(BundleError::LeftBehind(_))), "{again:?}");
    draft.abandon();
    assert!(!partial.exists());
}

#[test]
fn what_is_too_large_is_left_out_and_said() {
    let place = Place::new("large");
    let path = place.path("b");
    let mut draft = draft(&path);
    draft.put("recording.vpnfix", vec![0; crate::core::bundle::FILE_BYTES + 1]).unwrap();
    draft.finish(Outcome::Ok, String::new(), 0, true).unwrap();
    let bundle = read(&path).unwrap();
    assert_eq!(bundle.faults(), []);
    assert!(bundle.manifest.missing.iter().any(|missing| missing.file == "recording.vpnfix"));
}

fn archive(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, contents) in entries {
        let mut header = Header::new_ustar();
        header.set_entry_type(*kind);
        header.set_size(contents.len() as u64);
        // As the crate would refuse to: straight into the field.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, *contents).unwrap();
    }
    compress_to_vec(builder.into_inner().unwrap().as_slice(), CompressionLevel::Fastest)
}

#[test]
fn hostile_archives_are_refused() {
    let place = Place::new("hostile");
    let path = place.path("b.tar.zst");
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        read(&path).unwrap_err()
    };
    for name in ["/etc/passwd", "../x", "vpnfix-capture/../x", "vpnfix-capture/a/b/c", "vpnfix-capture/.x", "other/x"] {
        let error = refused(&archive(&[(name, EntryType::Regular, b"x")]));
        assert!(matches!(error, BundleError::Hostile { .. }), "{name}: {error}");
    }
    for kind in [EntryType::Symlink, EntryType::Link, EntryType::Char, EntryType::Block, EntryType::Fifo] {
        let error = refused(&archive(&[("vpnfix-capture/x", kind, b"")]));
        assert!(matches!(error, BundleError::Hostile { .. }), "{kind:?}: {error}");
    }
    let twice = [("vpnfix-capture/x", EntryType::Regular, b"1".as_slice()); 2];
    assert!(matches!(refused(&archive(&twice)), BundleError::Hostile { .. }));
    let many: Vec<String> = (0..200).map(|number| format!("vpnfix-capture/f{number}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), EntryType::Regular, b"".as_slice())).collect();
    assert!(matches!(refused(&archive(&many)), BundleError::TooLarge { .. }));
    // A head that promises more than any bundle holds, with nothing behind it.
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_size(1 << 40);
    header.set_path("vpnfix-capture/x").unwrap();
    header.set_cksum();
    let huge = compress_to_vec(header.as_bytes().as_slice(), CompressionLevel::Fastest);
    assert!(matches!(refused(&huge), BundleError::TooLarge { .. }));
    assert!(matches!(refused(b"no archive at all"), BundleError::NotABundle(_)));
    assert!(matches!(refused(&archive(&[])), BundleError::NoManifest(_)));
}

/// 300 MiB of zeros are some kilobytes when packed.
#[test]
fn an_archive_that_grows_without_end_is_refused() {
    let place = Place::new("bomb");
    let path = place.path("b.tar.zst");
    let zeros = vec![0_u8; 47 << 20];
    let names: Vec<String> = (0..4).map(|number| format!("vpnfix-capture/f{number}")).collect();
    let entries: Vec<_> = names.iter().map(|name| (name.as_str(), EntryType::Regular, zeros.as_slice())).collect();
    fs::write(&path, archive(&entries)).unwrap();
    assert!(matches!(read(&path).unwrap_err(), BundleError::TooLarge { .. }));
}

#[test]
fn hostile_directories_are_refused() {
    let place = Place::new("hostile-directory");
    let path = place.path("b");
    draft(&path).finish(Outcome::Ok, String::new(), 0, true).unwrap();
    symlink("/etc/passwd", path.join("link")).unwrap();
    assert!(matches!(read(&path).unwrap_err(), BundleError::Hostile { .. }));
    fs::remove_file(path.join("link")).unwrap();
    nix::unistd::mkfifo(&path.join("pipe"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert!(matches!(read(&path).unwrap_err(), BundleError::Hostile { .. }));
}

/// A report of whatever is there, in every form. Nothing of it may panic.
fn render_all(files: &Files) {
    let report = IncidentReport::of(&crate::core::bundle::contents::Contents::read(files));
    drop(render::incident::html(&report));
    drop(render::incident::markdown(&report));
    drop(render::incident::text(&report, render::Palette::new(true)));
}

/// So many mutated bundles are read, unless `VPNFIX_FUZZ_CASES` says another number.
fn cases() -> u32 {
    std::env::var("VPNFIX_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300)
}

fn example() -> Files {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/example/incident.tar.zst");
    read(&path).unwrap().files
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn mutated_archives_are_read_or_refused(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20), cut in any::<prop::sample::Index>(), cuts in any::<bool>()) {
        let mut small = example();
        small.retain(|_, contents| contents.len() < 4096);
        let mut bytes = super::archive::pack(&small, 0).unwrap();
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(files) = super::archive::unpack(Path::new("mutated"), bytes.as_slice()) {
            render_all(&files);
        }
    }

    #[test]
    fn mutated_contents_make_a_report(file in any::<prop::sample::Index>(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut files = example();
        let name = files.keys().nth(file.index(files.len())).unwrap().clone();
        let contents = files.get_mut(&name).unwrap();
        for (index, byte) in changes {
            let index = index.index(contents.len());
            // Digits for digits often make another document that is one: numbers without bounds are the point.
            contents[index] = if contents[index].is_ascii_digit() { b'0' + byte % 10 } else { byte };
        }
        render_all(&files);
    }
}
