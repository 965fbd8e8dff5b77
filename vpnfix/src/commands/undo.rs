//! `vpnfix undo`.

use super::assess::{in_namespace, netlink_failure};
use super::cli::UndoArgs;
use super::failure::Failure;
use super::fix::lock;
use super::own_files;
use super::settings::Settings;
use crate::action::apply;
use crate::core::report::fix::{UNDO_SCHEMA, UndoReport};
use crate::core::report::{Outcome, VERSION};
use crate::render;

/// Takes back every rule that carries vpnfix's protocol number, and the files of its own.
///
/// # Errors
/// The rules cannot be read, or another vpnfix is changing them.
pub fn run(settings: &Settings, args: &UndoArgs) -> Result<Outcome, Failure> {
    let mut report = in_namespace(settings, async |access| {
        // Taken before the rules are read: a `fix` that runs may be about to add its own.
        let _lock = lock(&access.netns)?;
        let own = apply::own_rules(&access.netlink).await.map_err(|error| netlink_failure("read the rules", &error))?;
        let (removed, left) = apply::take_back(&access.netlink, &own).await;
        if removed.is_empty()
            && let Some(first) = left.first()
        {
            let failure = netlink_failure("undo", &first.source);
            return Err(match left.len() {
                1 => failure,
                more => Failure { message: format!("{} (and {} more rules)", failure.message, more - 1), ..failure },
            });
        }
        Ok(UndoReport {
            schema: UNDO_SCHEMA.into(),
            version: VERSION.into(),
            outcome: if left.is_empty() { Outcome::Ok } else { Outcome::Unconfirmed },
            netns: access.netns,
            removed: removed.iter().map(crate::core::model::Rule::delete_command).collect(),
            left: left.iter().map(apply::LeftBehind::told).collect(),
            files: Vec::new(),
            notes: Vec::new(),
        })
    })?;
    own_files::take_back(&mut report, args.all)?;
    settings.output.report(&report, render::fix::undo_text)?;
    Ok(report.outcome)
}
