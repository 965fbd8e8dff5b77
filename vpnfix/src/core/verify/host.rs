//! What lasts: the repair and the cure, and the clock.

use super::check::{Area, Check, CheckId, State};
use super::facts::Facts;
use super::traffic;
use crate::core::finding::{Note, NoteId};
use crate::core::model::Rule;
use crate::core::owner::VPNFIX_PROTOCOL;
use crate::core::persist;
use crate::core::strongswan::{self, State as Routes};

/// The first second of 2024: a clock before it was never set.
const CLOCK_WAS_SET: u64 = 1_704_067_200;
/// Clocks of daemon and kernel differ by their rounding.
const ROUNDING: u64 = 2;

/// All checks of the host.
pub(super) fn checks(facts: &Facts<'_>) -> Vec<Check> {
    let mut checks = vec![clock(facts), cure(facts)];
    checks.extend(persisted(facts));
    checks.extend(networkd(facts));
    checks
}

fn check(id: CheckId, state: State, found: impl Into<String>) -> Check {
    Check::new(Area::Host, id, state, found)
}

fn own_rules<'a>(facts: &Facts<'a>) -> impl Iterator<Item = &'a Rule> {
    facts.snapshot.rules.iter().filter(|rule| rule.protocol == VPNFIX_PROTOCOL)
}

/// IKE with certificates, and the lifetimes of SAs, go by the clock.
fn clock(facts: &Facts<'_>) -> Check {
    let machine = &facts.measured.machine;
    let set = "set it, and have NTP keep it (169.254.169.123 on AWS)";
    if machine.now < CLOCK_WAS_SET {
        return check(CheckId::Clock, State::Failed, "it was never set: certificates are not valid yet").advice(set);
    }
    let associations = facts.measured.after.associations.as_deref().unwrap_or_default();
    let latest = associations.iter().map(|association| association.usage.added).max().unwrap_or(0);
    if latest > machine.now + ROUNDING {
        let text =
            format!("an SA was made {} in the future: the clock was set back", traffic::time(latest - machine.now));
        return check(CheckId::Clock, State::Warning, text).advice(set);
    }
    let text = match machine.clock_synchronised {
        Some(true) => "it is set and synchronised",
        Some(false) | None => "it is set; the kernel does not hold it for synchronised",
    };
    check(CheckId::Clock, State::Ok, text)
}

/// Is the cure at the root made, and does it wait for a restart?
fn cure(facts: &Facts<'_>) -> Check {
    let tables = facts.snapshot.rules.iter().filter_map(Rule::table);
    let daemons = tables.filter_map(|table| Some((table, strongswan::daemon_of(facts.clues, table)?.daemon)));
    let states: Vec<Routes> =
        daemons.map(|(table, daemon)| strongswan::state(facts.snapshot, facts.clues, daemon, table)).collect();
    let pending = states.iter().find(|state| matches!(state, Routes::PendingRestart { .. }));
    if let Some(pending) = pending {
        return check(CheckId::CurePending, State::Warning, pending.to_string())
            .advice("restart the daemon at a quiet time (`systemctl restart strongswan`, or `strongswan-starter`): the tunnels go down for a moment");
    }
    match states.iter().find(|state| matches!(state, Routes::RuleAlone { .. })) {
        Some(done) => check(CheckId::CurePending, State::Ok, format!("made at the root: {done}")),
        None => check(CheckId::CurePending, State::Ok, "no cure waits for a restart"),
    }
}

/// Policy rules die at a reboot, and what is persisted may have been changed since.
fn persisted(facts: &Facts<'_>) -> Option<Check> {
    let id = CheckId::FixPersisted;
    let comparison = match facts.measured.machine.persistence.as_ref()? {
        Ok(comparison) => comparison,
        Err(why) => return Some(check(id, State::Skipped, why.0.clone())),
    };
    let differences: Vec<Note> =
        persist::notes(comparison).into_iter().filter(|note| note.id != NoteId::DroppedByNetworkd).collect();
    if differences.is_empty() {
        let backend = persist::name(comparison.backend?);
        return Some(check(id, State::Ok, format!("kept over a reboot by {backend}")));
    }
    let texts: Vec<String> = differences.into_iter().map(|note| note.text).collect();
    Some(
        check(id, State::Warning, texts.join("; "))
            .advice("`vpnfix persist` keeps what stands now; the cure at the root makes vpnfix's rules needless"),
    )
}

/// systemd-networkd drops rules that it did not make, unless told otherwise.
fn networkd(facts: &Facts<'_>) -> Option<Check> {
    let comparison = facts.measured.machine.persistence.as_ref()?.as_ref().ok()?;
    if let Some(note) = persist::notes(comparison).into_iter().find(|note| note.id == NoteId::DroppedByNetworkd) {
        return Some(
            check(CheckId::Networkd, State::Warning, note.text)
                .advice("`vpnfix persist`, or ManageForeignRoutingPolicyRules=no in a drop-in of networkd.conf"),
        );
    }
    let stand = own_rules(facts).next().is_some();
    stand.then(|| check(CheckId::Networkd, State::Ok, "systemd-networkd takes none of vpnfix's rules away"))
}
