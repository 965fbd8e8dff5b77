//! Adding a plan's rules, and taking rules back, with the undo journal ahead of each step and the audit trail behind it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use thiserror::Error;

use super::audit::{self, Action, Author};
use super::journal::{JournalError, JournalFile};
use crate::core::journal::{Header, Recorded, Stage};
use crate::core::model::Rule;
use crate::core::plan::Step;
use crate::system::host;
use crate::system::netlink::{Netlink, NetlinkError};

/// How often a rule that stands is tried to be taken back where the kernel is only busy or short of memory.
const ATTEMPTS: u32 = 6;
/// Pause before the next attempt, times the number of the attempt.
const PAUSE: Duration = Duration::from_millis(30);

/// Why a step was not taken.
#[derive(Debug, Error)]
pub enum StepError {
    /// The kernel refused it, or did not answer.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// It was taken and could not be written down.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// A plan that could not be applied.
#[derive(Debug, Error)]
#[error("step {step} of {steps}")]
pub struct ApplyError {
    /// Number of the step, from 1.
    pub step: usize,
    /// How many steps there are.
    pub steps: usize,
    /// Why.
    #[source]
    pub source: StepError,
}

/// A rule that could not be taken back.
#[derive(Debug, Error)]
#[error("`{}`", rule.delete_command())]
pub struct LeftBehind {
    /// The rule.
    pub rule: Rule,
    /// Why; `None` where the kernel deleted it and it stands again.
    #[source]
    pub source: Option<NetlinkError>,
}

impl LeftBehind {
    /// The command, and why it failed.
    #[must_use]
    pub fn told(&self) -> String {
        let Some(source) = &self.source else { return format!("{self}: it was deleted, and others added it again") };
        let mut told = format!("{self}: {source}");
        if let Some(cause) = std::error::Error::source(source) {
            told.push_str(&format!(": {cause}"));
        }
        told
    }
}

/// What came of taking rules back.
#[derive(Debug, Default)]
pub struct TakenBack {
    /// Rules that were deleted, in the order of that.
    pub removed: Vec<Rule>,
    /// Rules that still stand.
    pub left: Vec<LeftBehind>,
    /// The rules could not be read at the end, so that it is not known what stands.
    pub unread: Option<NetlinkError>,
}

impl TakenBack {
    /// Read back: none of them stands.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.left.is_empty() && self.unread.is_none()
    }

    /// What is left, in words.
    #[must_use]
    pub fn told(&self) -> Vec<String> {
        let unread = self.unread.as_ref().map(|error| format!("the rules could not be read back: {error}"));
        self.left.iter().map(LeftBehind::told).chain(unread).collect()
    }
}

/// A change of rules that is under way, with its journal. The namespace's lock is held meanwhile.
pub struct Change<'a> {
    netlink: &'a Netlink,
    author: &'a Author,
    rules: Vec<Recorded>,
    /// How many of them stood before and stay; the others are this change's.
    kept: usize,
    /// None where a change goes on without: taking back must not fail for want of it.
    journal: Option<JournalFile>,
    /// When the kernel had acknowledged each rule that was added, nanoseconds of `CLOCK_MONOTONIC`.
    added_at: Vec<u64>,
}

impl<'a> Change<'a> {
    /// Writes the journal: the rules that stand and stay, and those that are about to be added.
    ///
    /// # Errors
    /// The journal cannot be written. Nothing was changed then.
    pub fn begin(
        netlink: &'a Netlink,
        author: &'a Author,
        directory: &Path,
        header: &Header,
        kept: &[Rule],
        steps: &[Step],
    ) -> Result<Self, JournalError> {
        let first = kept.len();
        let kept = kept.iter().map(|rule| Recorded { rule: rule.clone(), stage: Stage::Kept });
        let intended = steps.iter().map(|step| Recorded { rule: step.rule.clone(), stage: Stage::Intended });
        let rules: Vec<Recorded> = kept.chain(intended).collect();
        let journal = Some(JournalFile::begin(directory, header, &rules)?);
        Ok(Self { netlink, author, rules, kept: first, journal, added_at: Vec::new() })
    }

    /// Writes the journal of rules that stand and are about to be taken back. Without a journal (a full or read-only file
    /// system) they are taken back all the same: they carry vpnfix's protocol number, and that is told.
    #[must_use]
    pub fn begin_taking_back(
        netlink: &'a Netlink,
        author: &'a Author,
        directory: &Path,
        header: &Header,
        kept: &[Rule],
        doomed: &[Rule],
    ) -> Self {
        let stages = kept.iter().map(|rule| (rule, Stage::Kept)).chain(doomed.iter().map(|rule| (rule, Stage::Doomed)));
        let rules: Vec<Recorded> = stages.map(|(rule, stage)| Recorded { rule: rule.clone(), stage }).collect();
        let journal = JournalFile::begin(directory, header, &rules);
        let journal = journal.inspect_err(tell_unwritten).ok();
        Self { netlink, author, rules, kept: kept.len(), journal, added_at: Vec::new() }
    }

    /// Adds the rules of the steps, in order. On an error the caller takes back what may have been added.
    ///
    /// # Errors
    /// A rule that the kernel refuses or does not answer about, or a step that cannot be written down.
    pub async fn add(&mut self, steps: &[Step]) -> Result<(), ApplyError> {
        for (index, step) in steps.iter().enumerate() {
            let failed = |source| ApplyError { step: index + 1, steps: steps.len(), source };
            self.netlink.add_rule(&step.rule).await.map_err(|error| failed(error.into()))?;
            self.added_at.push(host::monotonic_ns());
            audit::tell(self.author, Action::Add, &step.rule, &step.why);
            self.note(&[self.kept + index], Stage::Added).map_err(|error| failed(error.into()))?;
        }
        Ok(())
    }

    /// When the kernel had acknowledged each rule that was added, in their order: nanoseconds of `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn added_at(&self) -> &[u64] {
        &self.added_at
    }

    /// Writes down that the rules are checked and stay.
    ///
    /// # Errors
    /// It cannot be written: the next run would take them for unfinished.
    pub fn keep(&mut self) -> Result<(), JournalError> {
        self.note(&self.own(), Stage::Kept)
    }

    /// Takes back every rule of this change, the last first, until none is read back or trying on is of no use. A rule
    /// that is gone already is fine.
    pub async fn take_back(&mut self, action: Action, why: &str) -> TakenBack {
        let doomed = self.own();
        self.note_or_tell(&doomed, Stage::Doomed);
        let mut taken = TakenBack::default();
        let mut unanswered = BTreeSet::new();
        for attempt in 0..=ATTEMPTS {
            // None of these waits is on the way of a change that goes well.
            tokio::time::sleep(PAUSE * attempt.saturating_sub(1)).await;
            let there = match self.netlink.rules().await {
                Ok(there) => there,
                Err(error) => {
                    taken.unread = Some(error);
                    continue;
                }
            };
            taken.unread = None;
            let standing: Vec<usize> = doomed
                .iter()
                .copied()
                .filter(|number| self.rule(*number).is_some_and(|rule| there.contains(rule)))
                .collect();
            let gone: Vec<usize> = doomed.iter().copied().filter(|number| !standing.contains(number)).collect();
            self.note_gone(&unanswered, &gone, &mut taken, (action, why));
            if standing.is_empty() {
                taken.left.clear();
                break;
            }
            if attempt == ATTEMPTS || !self.delete_all(&standing, &mut unanswered, &mut taken, (action, why)).await {
                taken.left.extend(self.standing_again(&standing, &taken.left));
                break;
            }
        }
        taken
    }

    /// Deletes these rules, the last first. False if trying again is of no use.
    async fn delete_all(
        &self,
        standing: &[usize],
        unanswered: &mut BTreeSet<usize>,
        taken: &mut TakenBack,
        (action, why): (Action, &str),
    ) -> bool {
        let mut worth_trying = false;
        taken.left.clear();
        for number in standing.iter().rev() {
            let Some(rule) = self.rule(*number) else { continue };
            match self.netlink.delete_rule(rule).await {
                Ok(()) => {
                    worth_trying = true;
                    audit::tell(self.author, action, rule, why);
                    taken.removed.push(rule.clone());
                }
                Err(error) if error.is_missing() => worth_trying = true,
                Err(source) => {
                    worth_trying |= source.is_passing() || source.is_unanswered();
                    if source.is_unanswered() {
                        unanswered.insert(*number);
                    }
                    taken.left.push(LeftBehind { rule: rule.clone(), source: Some(source) });
                }
            }
        }
        worth_trying
    }

    /// Writes down which rules are read back as gone, and tells of those whose deletion had no answer.
    fn note_gone(
        &mut self,
        unanswered: &BTreeSet<usize>,
        gone: &[usize],
        taken: &mut TakenBack,
        (action, why): (Action, &str),
    ) {
        let is_new = |number: &usize| self.rules.get(*number).is_some_and(|recorded| recorded.stage != Stage::Removed);
        let fresh: Vec<usize> = gone.iter().copied().filter(is_new).collect();
        self.note_or_tell(&fresh, Stage::Removed);
        for number in fresh.iter().rev().filter(|number| unanswered.contains(number)) {
            let Some(rule) = self.rule(*number).cloned() else { continue };
            audit::tell(self.author, action, &rule, why);
            taken.removed.push(rule);
        }
    }

    /// Rules that stand although their deletion was acknowledged: others add them again.
    fn standing_again(&self, standing: &[usize], told: &[LeftBehind]) -> Vec<LeftBehind> {
        let rules = standing.iter().filter_map(|number| self.rule(*number));
        let untold = rules.filter(|rule| !told.iter().any(|left| left.rule == **rule));
        untold.map(|rule| LeftBehind { rule: rule.clone(), source: None }).collect()
    }

    fn rule(&self, number: usize) -> Option<&Rule> {
        self.rules.get(number).map(|recorded| &recorded.rule)
    }

    /// Numbers of this change's rules.
    fn own(&self) -> Vec<usize> {
        (self.kept..self.rules.len()).collect()
    }

    fn note(&mut self, numbers: &[usize], stage: Stage) -> Result<(), JournalError> {
        for number in numbers {
            if let Some(recorded) = self.rules.get_mut(*number) {
                recorded.stage = stage;
            }
        }
        let numbers: Vec<u32> = numbers.iter().filter_map(|number| u32::try_from(*number).ok()).collect();
        match &mut self.journal {
            Some(journal) if !numbers.is_empty() => journal.note(&numbers, stage),
            _ => Ok(()),
        }
    }

    /// Where the journal cannot be written any more, taking back goes on without.
    fn note_or_tell(&mut self, numbers: &[usize], stage: Stage) {
        if let Err(error) = self.note(numbers, stage) {
            tell_unwritten(&error);
            self.journal = None;
        }
    }

    /// Ends the journal where nothing of ours stands any more; otherwise it stays for the next undo.
    pub fn end(self, taken: &TakenBack) {
        let nothing_stands = self.rules.iter().all(|recorded| recorded.stage == Stage::Removed);
        if taken.complete()
            && nothing_stands
            && let Some(Err(error)) = self.journal.map(JournalFile::remove)
        {
            tell_unwritten(&error);
        }
    }
}

/// Taking back goes on without a journal: the rules carry vpnfix's protocol number.
fn tell_unwritten(error: &JournalError) {
    let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
    tracing::warn!("{error}{cause}; the rules are known by their protocol number");
}

/// Which of these rules do not stand now?
///
/// # Errors
/// The rules cannot be read.
pub async fn missing(netlink: &Netlink, wanted: &[Rule]) -> Result<Vec<Rule>, NetlinkError> {
    let there = netlink.rules().await?;
    Ok(wanted.iter().filter(|rule| !there.contains(rule)).cloned().collect())
}
