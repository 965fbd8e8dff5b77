//! What of vpnfix's own stands already, by its journal and by the rules themselves, before anything is changed.

use std::path::PathBuf;

use super::assess::{Access, netlink_failure};
use super::failure::Failure;
use crate::action::apply::{Change, TakenBack};
use crate::action::audit::{Action, Author};
use crate::action::journal::{self, JournalError};
use crate::action::lock;
use crate::core::finding::{Note, NoteId, few};
use crate::core::journal::{FORMAT, Header, Place, Reconciliation, reconcile};
use crate::core::model::Rule;
use crate::core::plan::Step;
use crate::core::report::VERSION;
use crate::system::host;

/// More of a list is not told in a note.
const TOLD: usize = 3;

/// What stands, and what a change of it is signed with.
pub struct Standing<'a> {
    access: &'a Access,
    directory: PathBuf,
    author: Author,
    header: Header,
    /// What is ours.
    pub found: Reconciliation,
    /// All rules that stood when this was read.
    pub rules: Vec<Rule>,
}

impl<'a> Standing<'a> {
    /// Reads the journal and the rules.
    ///
    /// # Errors
    /// Either cannot be read, or the journal is of a newer format.
    pub async fn read(access: &'a Access) -> Result<Self, Failure> {
        let boot_id = host::boot_id().map_err(|error| Failure::of("tell this boot from others", &error))?;
        let place = Place { boot_id, netns_inode: access.netns.inode };
        let directory = lock::run_directory();
        let path = journal::path(&directory, access.netns.inode);
        let record = journal::read(&directory, access.netns.inode).map_err(|error| journal_failure(&error))?;
        let rules = access.netlink.rules().await.map_err(|error| netlink_failure("read the rules", &error))?;
        let found = reconcile(&record, &place, &rules).map_err(|error| {
            Failure::of(&format!("understand the undo journal {}", path.display()), &error).hint(format!(
                "use that version; or, to take back only what carries protocol 118, delete {} and run `vpnfix undo`",
                path.display()
            ))
        })?;
        let header = Header {
            format: FORMAT,
            vpnfix: VERSION.into(),
            place,
            netns_name: access.netns.name.clone(),
            pid: std::process::id(),
            began: host::unix_time(),
        };
        let author = Author {
            pid: std::process::id(),
            uid: host::uid(),
            login_uid: host::login_uid(),
            netns: access.netns.name.clone().unwrap_or_else(|| format!("inode {}", access.netns.inode)),
        };
        Ok(Self { access, directory, author, header, found, rules })
    }

    /// Takes back what a run before left unfinished, so that the host is as that run found it: what was asked of the kernel
    /// with half a repair in place would be no measure for what a whole one may not spoil.
    ///
    /// # Errors
    /// A rule of it still stands.
    pub async fn take_back_unfinished(&mut self) -> Result<(), Failure> {
        if !self.found.interrupted {
            return Ok(());
        }
        let doomed = std::mem::take(&mut self.found.unfinished);
        let taken = self.take_back(&doomed, Action::TakeBack, "a repair that did not come to its end").await;
        match taken.told().as_slice() {
            [] => Ok(()),
            told => Err(Failure::unable(format!("take back an unfinished repair: {}", few(told, 1)))
                .hint("`vpnfix undo` tries again")),
        }
    }

    /// Takes back everything of ours.
    pub async fn undo(&mut self) -> TakenBack {
        let own = self.found.own();
        self.found.kept.clear();
        self.take_back(&own, Action::Undo, "asked for by `vpnfix undo`").await
    }

    /// Takes back rules of ours that stand for nothing any more.
    pub async fn withdraw(&mut self, rules: &[Rule]) -> TakenBack {
        let doomed: Vec<Rule> = self.found.kept.extract_if(.., |kept| rules.contains(kept)).collect();
        self.take_back(&doomed, Action::Withdraw, "no tunnel's traffic goes there any more").await
    }

    async fn take_back(&self, doomed: &[Rule], action: Action, why: &str) -> TakenBack {
        let (header, kept) = (&self.header, &self.found.kept);
        let netlink = &self.access.netlink;
        let mut change = Change::begin_taking_back(netlink, &self.author, &self.directory, header, kept, doomed);
        let taken = change.take_back(action, why).await;
        change.end(&taken);
        taken
    }

    /// Begins a change with its journal.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn change(&'a self, steps: &[Step]) -> Result<Change<'a>, Failure> {
        let (header, kept) = (&self.header, &self.found.kept);
        Change::begin(&self.access.netlink, &self.author, &self.directory, header, kept, steps)
            .map_err(|error| journal_failure(&error))
    }

    /// What is worth telling.
    #[must_use]
    pub fn notes(&self, dry_run: bool) -> Vec<Note> {
        let Reconciliation { unfinished, interrupted, gone, taken_over, doubt, .. } = &self.found;
        let note = |text: String| Note { id: NoteId::UndoJournal, text };
        let rules = |rules: &[Rule]| few(&rules.iter().map(|rule| format!("`{rule}`")).collect::<Vec<_>>(), TOLD);
        let mut notes: Vec<Note> = doubt.iter().map(|doubt| note(doubt.to_string())).collect();
        if *interrupted {
            let stands = match unfinished.len() {
                0 => "nothing of it stands".into(),
                _ => format!("it left {}", rules(unfinished)),
            };
            let then = if dry_run { "`fix` takes that back before it plans" } else { "that was taken back first" };
            let then = if unfinished.is_empty() { String::new() } else { format!("; {then}") };
            notes.push(note(format!("a repair before did not come to its end: {stands}{then}")));
        }
        if !gone.is_empty() && !*interrupted {
            notes.push(note(format!("others deleted what vpnfix had added: {}", rules(gone))));
        }
        if !taken_over.is_empty() {
            notes
                .push(note(format!("others have made the same rules as vpnfix, and they stay: {}", rules(taken_over))));
        }
        notes
    }
}

fn journal_failure(error: &JournalError) -> Failure {
    Failure::of("keep the undo journal", error).hint_privilege(error.is_privilege())
}
