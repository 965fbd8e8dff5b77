//! Taking vpnfix's own files back, for `undo`.

use super::failure::Failure;
use crate::action::files::{Left, OwnFiles};
use crate::core::finding::{Note, NoteId};
use crate::core::own_file::Purpose;
use crate::core::report::Outcome;
use crate::core::report::fix::UndoReport;

/// Takes the cure's file back, with `all` whatever else vpnfix wrote, and adds to the report what came of it.
///
/// # Errors
/// The files cannot be told, and nothing else was undone either.
pub(super) fn take_back(report: &mut UndoReport, all: bool) -> Result<(), Failure> {
    let files = OwnFiles::of_host();
    let mut of_cure = false;
    let removal = files.remove(|record| {
        of_cure |= record.purpose == Purpose::Cure;
        all || record.purpose == Purpose::Cure
    });
    match removal {
        Ok(removal) => {
            report.files = removal.removed.iter().map(|path| path.display().to_string()).collect();
            report.left.extend(removal.left.iter().map(left));
            if of_cure && !report.files.is_empty() {
                report.notes.push(note(
                    NoteId::RestartDue,
                    "strongSwan installs its own routes again once its daemon is restarted: until then it keeps to \
                     what it read when it started",
                ));
            }
        }
        Err(error) => {
            let failure = Failure::of("take back vpnfix's own files", &error).hint_privilege(error.is_privilege());
            if report.removed.is_empty() {
                return Err(failure);
            }
            report.left.push(failure.message);
        }
    }
    if !report.left.is_empty() {
        report.outcome = Outcome::Unconfirmed;
    }
    let stays = files.recorded().is_ok_and(|records| records.iter().any(|record| record.purpose != Purpose::Cure));
    if stays && !all {
        let text = "what `persist` wrote stays: `vpnfix unpersist` or `vpnfix undo --all` takes it back";
        report.notes.push(note(NoteId::PersistenceStays, text));
    }
    Ok(())
}

fn note(id: NoteId, text: &str) -> Note {
    Note { id, text: text.into() }
}

fn left(left: &Left) -> String {
    Failure::of("left", left).message
}
