//! The audit trail: one structured event for each change, as it was done.
//!
//! The events go out by `tracing` under a target of their own; the commands show them on standard error and, where
//! journald runs, hand them to it.

use std::fmt;

use crate::core::model::{Family, Rule};

/// The target of the events.
pub const TARGET: &str = "vpnfix::audit";

/// Who changes rules, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// This process.
    pub pid: u32,
    /// Its real user.
    pub uid: u32,
    /// The user who logged in, which sudo does not change; `None` for what no login started.
    pub login_uid: Option<u32>,
    /// The namespace as the user named it, and its inode.
    pub netns: String,
}

/// What was done to a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Added by a repair.
    Add,
    /// Taken back by the repair that added it.
    RollBack,
    /// Taken back because the repair that added it did not come to its end.
    TakeBack,
    /// Taken back by `undo`.
    Undo,
    /// Taken back by `watch`: its prefix is no tunnel's any more.
    Withdraw,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "add",
            Self::RollBack => "roll-back",
            Self::TakeBack => "take-back",
            Self::Undo => "undo",
            Self::Withdraw => "withdraw",
        })
    }
}

/// Tells of one change that was done.
pub fn tell(author: &Author, action: Action, rule: &Rule, why: &str) {
    let command = match action {
        Action::Add => rule.add_command(),
        Action::RollBack | Action::TakeBack | Action::Undo | Action::Withdraw => rule.delete_command(),
    };
    tracing::info!(
        target: TARGET,
        action = action.to_string().as_str(),
        family = match rule.family {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        },
        priority = rule.priority,
        rule = rule.words().as_str(),
        command = command.as_str(),
        netns = author.netns.as_str(),
        pid = author.pid,
        uid = author.uid,
        login_uid = author.login_uid,
        why,
        "{}",
        match action {
            Action::Add => "added a rule",
            Action::RollBack | Action::TakeBack | Action::Undo | Action::Withdraw => "deleted a rule",
        }
    );
}
