//! Recordings kept as golden cases, and what becomes of damaged ones.
//!
//! | file of a case | made by | holds |
//! |---|---|---|
//! | `recording.vpnfix` | `vpnfix trace --record` on a real kernel | a trace |
//! | `lines.jsonl`, `lines.txt` | vpnfix | what its replay tells |
//!
//! `VPNFIX_BLESS=1` rewrites the lines, to be read as a diff. A recording is made anew by the scene `replay` with
//! `VPNFIX_KEEP_RECORDING=FOLDER`, which a change of the kernel side's ABI makes necessary.

mod fuzz;
mod memory;
mod pieces;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use vpnfix::core::recording::{Replayed, Unplayed, replay};
use vpnfix::core::report::Outcome;
use vpnfix::core::report::trace::TraceLine;
use vpnfix::render::{self, Palette};

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/cases");
    let mut cases: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

fn recording(case: &Path) -> Vec<u8> {
    fs::read(case.join("recording.vpnfix")).unwrap()
}

fn told(bytes: &[u8]) -> (Vec<TraceLine>, Result<Option<Replayed>, Unplayed>) {
    let mut lines = Vec::new();
    let outcome = replay(bytes, &mut |line| {
        lines.push(line.clone());
        ControlFlow::Continue(())
    });
    (lines, outcome)
}

fn compare(file: &Path, told: &str) {
    if std::env::var_os("VPNFIX_BLESS").is_some() {
        fs::write(file, told).unwrap();
    }
    let expected = fs::read_to_string(file).unwrap_or_default();
    for (number, (expected, told)) in expected.lines().zip(told.lines()).enumerate() {
        assert_eq!(expected, told, "{}:{} (VPNFIX_BLESS=1 rewrites it)", file.display(), number + 1);
    }
    assert_eq!(expected.lines().count(), told.lines().count(), "{}", file.display());
}

#[test]
fn recordings_are_told_as_expected() {
    for case in cases() {
        let (lines, outcome) = told(&recording(&case));
        let json: String = lines.iter().map(|line| render::line(line).unwrap()).collect();
        let text: String = lines.iter().map(|line| render::trace::text(line, Palette::new(false))).collect();
        compare(&case.join("lines.jsonl"), &json);
        compare(&case.join("lines.txt"), &text);
        assert_eq!(outcome.unwrap().unwrap().summary.outcome, Outcome::FaultFound);
    }
}

#[test]
fn a_reader_who_has_heard_enough_is_told_no_more() {
    let mut count = 0;
    let outcome = replay(&recording(&cases()[0]), &mut |_| {
        count += 1;
        if count < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert_eq!((outcome, count), (Ok(None), 3));
}
