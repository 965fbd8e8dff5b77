//! What is persisted beside what runs.

use std::path::PathBuf;

use super::facts::Managers;
use super::kept::Kept;
use super::name;
use crate::core::finding::{Note, NoteId, few};
use crate::core::model::Rule;
use crate::core::own_file::{Backend, Standing};
use crate::core::owner::VPNFIX_PROTOCOL;

/// What is persisted beside what runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Who keeps rules; none where nothing is persisted.
    pub backend: Option<Backend>,
    /// Rules of vpnfix's that run, and that a reboot takes away.
    pub not_persisted: Vec<Rule>,
    /// Rules that are persisted, and that nobody's rule of the same effect stands for now.
    pub not_running: Vec<Rule>,
    /// Files of the persistence that are not as vpnfix wrote them.
    pub files: Vec<(PathBuf, Standing)>,
    /// Rules of vpnfix's that systemd-networkd drops when it configures an interface anew.
    pub endangered: Vec<Rule>,
}

impl Comparison {
    /// Is everything that runs persisted, and everything that is persisted as it was?
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.not_persisted.is_empty() && self.not_running.is_empty() && self.files.is_empty()
    }
}

/// Compares. `files` are those of the persistence, with how they stand.
#[must_use]
pub fn compare(
    kept: Option<&Kept>,
    running: &[Rule],
    files: &[(PathBuf, Standing)],
    managers: &Managers,
) -> Comparison {
    let persisted = kept.map_or(&[][..], |kept| &kept.rules);
    let own = || running.iter().filter(|rule| rule.protocol == VPNFIX_PROTOCOL);
    let is_in = |rules: &[Rule], rule: &Rule| rules.iter().any(|other| other.same_effect(rule));
    let foreign =
        |rule: &&Rule| !running.iter().any(|other| other.protocol != VPNFIX_PROTOCOL && other.same_effect(rule));
    let drops =
        managers.networkd.as_ref().is_some_and(|networkd| !networkd.links.is_empty() && !networkd.keeps_foreign_rules);
    // Rules that systemd-networkd makes itself come back with what it drops.
    let comes_back = kept.is_some_and(|kept| matches!(kept.backend, Backend::Networkd | Backend::Netplan));
    Comparison {
        backend: kept.map(|kept| kept.backend),
        not_persisted: own().filter(|rule| !is_in(persisted, rule)).cloned().collect(),
        not_running: persisted.iter().filter(|rule| !is_in(running, rule)).cloned().collect(),
        files: files.iter().filter(|(_, standing)| *standing != Standing::AsWritten).cloned().collect(),
        endangered: if drops {
            own().filter(foreign).filter(|rule| !(comes_back && is_in(persisted, rule))).cloned().collect()
        } else {
            Vec::new()
        },
    }
}

/// The comparison as notes of a diagnosis.
#[must_use]
pub fn notes(comparison: &Comparison) -> Vec<Note> {
    let mut notes = Vec::new();
    let told = |rules: &[Rule]| few(&rules.iter().map(|rule| format!("`{rule}`")).collect::<Vec<_>>(), 3);
    let mut note = |id, text: String| notes.push(Note { id, text });
    if !comparison.not_persisted.is_empty() {
        let rules = told(&comparison.not_persisted);
        let text = format!("the repair does not outlive a reboot ({rules}): `vpnfix persist` makes it");
        note(NoteId::NotPersisted, text);
    }
    if let Some(backend) = comparison.backend
        && !comparison.not_running.is_empty()
    {
        let rules = told(&comparison.not_running);
        let by = name(backend);
        note(
            NoteId::PersistedDiffers,
            format!("persisted by {by}, and not there now: {rules}; `vpnfix unpersist` ends that"),
        );
    }
    for (path, standing) in &comparison.files {
        note(NoteId::PersistedDiffers, format!("{} of the persisted repair is {standing}", path.display()));
    }
    if !comparison.endangered.is_empty() {
        let rules = told(&comparison.endangered);
        let text = format!(
            "systemd-networkd will drop {rules} when it configures an interface anew, unless \
             ManageForeignRoutingPolicyRules=no is set (`vpnfix persist --keep-foreign-rules`)"
        );
        note(NoteId::DroppedByNetworkd, text);
    }
    notes
}
