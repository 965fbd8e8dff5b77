//! Taking vpnfix's own files back, for `undo`.

use super::failure::Failure;
use super::persist;
use crate::action::files::{Left, OwnFiles};
use crate::core::finding::{Note, NoteId};
use crate::core::own_file::Purpose;
use crate::core::report::Outcome;
use crate::core::report::fix::UndoReport;

/// Takes the cure's file back, with `all` also what is persisted, and adds to the report what came of it. The caller holds
/// the lock, in the host's own namespace where `persisted_here`.
///
/// # Errors
/// The files cannot be told, and nothing else was undone either.
pub(super) fn take_back(report: &mut UndoReport, all: bool, persisted_here: bool) -> Result<(), Failure> {
    let files = OwnFiles::of_host();
    match files.remove(|record| record.purpose == Purpose::Cure) {
        Ok(removal) => {
            if !removal.removed.is_empty() {
                report.notes.push(note(
                    NoteId::RestartDue,
                    "strongSwan installs its own routes again once its daemon is restarted: until then it keeps to \
                     what it read when it started",
                ));
            }
            report.files.extend(removal.removed.iter().map(|path| path.display().to_string()));
            report.left.extend(removal.left.iter().map(left));
        }
        Err(error) => {
            let failure = Failure::of("take back vpnfix's own files", &error).hint_privilege(error.is_privilege());
            left_or(report, failure)?;
        }
    }
    if all && persisted_here {
        match persist::withdraw() {
            Ok(withdrawn) => {
                report.files.extend(withdrawn.removed.iter().map(|path| path.display().to_string()));
                report.left.extend(withdrawn.left);
                report.notes.extend(withdrawn.notes.iter().map(|text| note(NoteId::PersistenceStays, text)));
            }
            Err(failure) => left_or(report, failure)?,
        }
    }
    if !report.left.is_empty() {
        report.outcome = Outcome::Unconfirmed;
    }
    let stays = files.recorded().is_ok_and(|records| records.iter().any(|record| record.purpose != Purpose::Cure));
    if stays && !(all && persisted_here) {
        let text = "what `persist` wrote stays: `vpnfix unpersist`, or `vpnfix undo --all` in the host's own network \
                    namespace, takes it back";
        report.notes.push(note(NoteId::PersistenceStays, text));
    }
    Ok(())
}

/// Where something was undone the report is owed, with what was left; else the failure is all there is to tell.
fn left_or(report: &mut UndoReport, failure: Failure) -> Result<(), Failure> {
    if report.removed.is_empty() && report.files.is_empty() {
        return Err(failure);
    }
    report.left.push(failure.message);
    Ok(())
}

fn note(id: NoteId, text: &str) -> Note {
    Note { id, text: text.into() }
}

fn left(left: &Left) -> String {
    Failure::of("left", left).message
}
