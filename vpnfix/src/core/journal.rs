//! The undo journal of rule changes: its values, and what follows from it together with the rules that stand.
//!
//! Two sources tell what vpnfix did to a namespace: the journal, and the protocol number that its rules carry. The number
//! alone allows a deletion; the journal tells which of those rules belong to a change that did not come to its end. So a
//! journal that is lost, broken or of another time can make vpnfix take back less or more of its own, never another's.

use serde::{Deserialize, Serialize};

use super::model::Rule;
use super::owner::VPNFIX_PROTOCOL;

pub mod text;

#[cfg(test)]
mod tests;

/// The journal's format. It goes up whenever an older vpnfix could misread what is written, a new selector in [`Rule`]
/// included.
pub const FORMAT: u32 = 1;

/// Where a journal's rules stand: the running kernel's boot and the namespace. The kernel gives a namespace's inode number
/// again after its end, so a journal may name one that is gone; what it says is then told, and deletes nothing but what
/// carries the protocol number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// `/proc/sys/kernel/random/boot_id`: rules die with the kernel that has them.
    pub boot_id: String,
    /// Inode number of the namespace.
    pub netns_inode: u64,
}

/// The first entry of a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Its format; only this and the version are read where the format is a newer one.
    pub format: u32,
    /// Version of the vpnfix that wrote it.
    pub vpnfix: String,
    /// Where its rules stand.
    #[serde(flatten)]
    pub place: Place,
    /// The namespace as the user named it.
    pub netns_name: Option<String>,
    /// Process that wrote it.
    pub pid: u32,
    /// When it was begun, seconds since the Unix epoch.
    pub began: u64,
}

/// How far a change of one rule went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// About to be added, or just added without word of it.
    Intended,
    /// The kernel acknowledged it.
    Added,
    /// Checked, and left in place.
    Kept,
    /// About to be taken back, or just taken back without word of it.
    Doomed,
    /// Taken back.
    Removed,
}

impl Stage {
    /// Was the change of which it is a part under way?
    #[must_use]
    pub fn is_unfinished(self) -> bool {
        match self {
            Self::Intended | Self::Added | Self::Doomed => true,
            Self::Kept | Self::Removed => false,
        }
    }
}

/// A rule of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// The rule.
    pub rule: Rule,
    /// How far it went.
    pub stage: Stage,
}

/// An entry behind the header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// One more rule.
    Rule(Box<Recorded>),
    /// A rule, by its number from 0 in the order of the entries, went on to this stage.
    Stage(u32, Stage),
}

/// A journal as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// What it is about.
    pub header: Header,
    /// Its rules.
    pub rules: Vec<Recorded>,
}

impl Journal {
    /// Takes in an entry. False if it makes no sense here: a number without a rule.
    pub fn take(&mut self, entry: Entry) -> bool {
        match entry {
            Entry::Rule(recorded) => self.rules.push(*recorded),
            Entry::Stage(number, stage) => {
                let recorded = usize::try_from(number).ok().and_then(|number| self.rules.get_mut(number));
                let Some(recorded) = recorded else { return false };
                recorded.stage = stage;
            }
        }
        true
    }
}

/// What lies where the journal should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Nothing.
    None,
    /// A journal; a last entry that was cut short by the end of its writer is left out.
    Whole(Journal),
    /// Something that cannot be understood, and why.
    Broken(String),
    /// The journal of a newer vpnfix.
    Newer {
        /// Its format.
        format: u32,
        /// The version that wrote it.
        vpnfix: String,
    },
}

/// What is odd about a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It cannot be understood.
    Broken(String),
    /// It was written before the host was booted.
    OtherBoot,
    /// It is about another namespace.
    OtherNamespace(u64),
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Broken(why) => write!(f, "the undo journal cannot be understood ({why})")?,
            Self::OtherBoot => write!(f, "the undo journal is from before the host was booted")?,
            Self::OtherNamespace(inode) => {
                write!(f, "the undo journal is of another network namespace (inode {inode})")?;
            }
        }
        write!(f, "; what counts are the rules that carry vpnfix's protocol number, {VPNFIX_PROTOCOL}")
    }
}

/// What to make of the journal and the rules that stand. Every rule in `unfinished` and `kept` stands and carries the
/// protocol number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciliation {
    /// Rules of a change that did not come to its end: they stand unchecked, or are half taken back.
    pub unfinished: Vec<Rule>,
    /// All other rules of ours.
    pub kept: Vec<Rule>,
    /// A change did not come to its end, whether or not a rule of it stands.
    pub interrupted: bool,
    /// Rules that the journal says stand, and do not: others deleted them.
    pub gone: Vec<Rule>,
    /// Rules that do what one in the journal did, at its priority, and are not ours: others made them, they stay.
    pub taken_over: Vec<Rule>,
    /// What is odd about the journal.
    pub doubt: Option<Doubt>,
}

impl Reconciliation {
    /// All rules of ours, in the kernel's order as far as `standing` was.
    #[must_use]
    pub fn own(&self) -> Vec<Rule> {
        self.kept.iter().chain(&self.unfinished).cloned().collect()
    }
}

/// A journal that only its writer understands: it may hold changes of kinds that this version cannot take back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it was written by vpnfix {vpnfix}, in format {format}; this is vpnfix {}, which reads up to {FORMAT}",
    super::report::VERSION
)]
pub struct NewerJournal {
    /// Its format.
    pub format: u32,
    /// The version that wrote it.
    pub vpnfix: String,
}

/// Decides what is ours, and what of it was left unfinished.
///
/// # Errors
/// A journal of a newer format: nothing is decided then.
pub fn reconcile(record: &Record, here: &Place, standing: &[Rule]) -> Result<Reconciliation, NewerJournal> {
    let own: Vec<Rule> = standing.iter().filter(|rule| rule.protocol == VPNFIX_PROTOCOL).cloned().collect();
    let untold = |doubt| Reconciliation { kept: own.clone(), doubt, ..Reconciliation::default() };
    match record {
        Record::None => Ok(untold(None)),
        Record::Newer { format, vpnfix } => Err(NewerJournal { format: *format, vpnfix: vpnfix.clone() }),
        // Which of them were checked is not known, so none counts as checked.
        Record::Broken(why) => Ok(Reconciliation {
            interrupted: !own.is_empty(),
            unfinished: own,
            doubt: Some(Doubt::Broken(why.clone())),
            ..Reconciliation::default()
        }),
        Record::Whole(journal) if journal.header.place.boot_id != here.boot_id => Ok(untold(Some(Doubt::OtherBoot))),
        Record::Whole(journal) if journal.header.place.netns_inode != here.netns_inode => {
            Ok(untold(Some(Doubt::OtherNamespace(journal.header.place.netns_inode))))
        }
        Record::Whole(journal) => Ok(compare(journal, own, standing)),
    }
}

fn compare(journal: &Journal, own: Vec<Rule>, standing: &[Rule]) -> Reconciliation {
    let recorded = |rule: &Rule| journal.rules.iter().rev().find(|recorded| recorded.rule == *rule);
    let is_unfinished = |rule: &Rule| recorded(rule).is_some_and(|recorded| recorded.stage != Stage::Kept);
    let (unfinished, kept) = own.into_iter().partition(is_unfinished);
    let lost = |recorded: &&Recorded| {
        matches!(recorded.stage, Stage::Added | Stage::Kept) && !standing.contains(&recorded.rule)
    };
    let gone: Vec<Rule> = journal.rules.iter().filter(lost).map(|recorded| recorded.rule.clone()).collect();
    let replaces = |rule: &&Rule| {
        rule.protocol != VPNFIX_PROTOCOL
            && journal.rules.iter().any(|recorded| recorded.stage != Stage::Removed && recorded.rule.same_effect(rule))
    };
    Reconciliation {
        unfinished,
        kept,
        interrupted: journal.rules.iter().any(|recorded| recorded.stage.is_unfinished()),
        gone,
        taken_over: standing.iter().filter(replaces).cloned().collect(),
        doubt: None,
    }
}
