//! `vpnfix undo`.

use super::assess::{in_namespace, netlink_failure};
use super::cli::UndoArgs;
use super::failure::Failure;
use super::fix::lock;
use super::own_files;
use super::settings::Settings;
use super::standing::Standing;
use crate::action::apply::TakenBack;
use crate::action::hold;
use crate::action::lock::run_directory;
use crate::core::finding::{Note, NoteId};
use crate::core::model::{Netns, Rule};
use crate::core::report::fix::{UNDO_SCHEMA, UndoReport};
use crate::core::report::{Outcome, VERSION};
use crate::render;
use crate::system::managers;

/// Takes back every rule of vpnfix that stands: those that carry its protocol number, whatever the journal says of them; and the files of its own.
///
/// # Errors
/// The rules cannot be read, nothing could be taken back, or another vpnfix is changing them.
pub fn run(settings: &Settings, args: &UndoArgs) -> Result<Outcome, Failure> {
    let report = in_namespace(settings, async |access| {
        // Taken before the rules are read: a `fix` that runs may be about to add its own.
        let _lock = lock(&access.netns)?;
        let mut standing = Standing::read(&access).await?;
        let mut notes = standing.notes(false);
        // Before the first rule goes: a `watch` that runs would bring it back.
        let held = hold::set_if_watched(&run_directory(), access.netns.inode);
        if held.map_err(|error| Failure::of("hold `vpnfix watch`", &error))? {
            notes.push(Note {
                id: NoteId::WatchHeld,
                text: "`vpnfix watch` runs here: it repairs nothing more until `vpnfix fix`, or until it is stopped and started".into(),
            });
        }
        let taken = standing.undo().await;
        nothing_done(&taken)?;
        let mut report = UndoReport { notes, ..of(access.netns.clone(), &taken) };
        own_files::take_back(&mut report, args.all, managers::in_own_namespace() == Some(true))?;
        Ok(report)
    })?;
    settings.output.report(&report, render::fix::undo_text)?;
    Ok(report.outcome)
}

/// An undo that took nothing back is a failure, not a report.
fn nothing_done(taken: &TakenBack) -> Result<(), Failure> {
    if !taken.removed.is_empty() || taken.complete() {
        return Ok(());
    }
    let first = taken.left.iter().find_map(|left| left.source.as_ref()).or(taken.unread.as_ref());
    let failure = first.map_or_else(
        || Failure::unable(format!("undo: {}", taken.told().join(", "))),
        |source| netlink_failure("undo", source),
    );
    Err(match taken.left.len() {
        0 | 1 => failure,
        more => Failure { message: format!("{} (and {} more rules)", failure.message, more - 1), ..failure },
    })
}

fn of(netns: Netns, taken: &TakenBack) -> UndoReport {
    UndoReport {
        schema: UNDO_SCHEMA.into(),
        version: VERSION.into(),
        outcome: if taken.complete() { Outcome::Ok } else { Outcome::Unconfirmed },
        netns,
        removed: taken.removed.iter().map(Rule::delete_command).collect(),
        left: taken.told(),
        files: Vec::new(),
        notes: Vec::new(),
    }
}
