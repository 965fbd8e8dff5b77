//! What becomes of control targets: by the engine before a change, by the kernel's answers after it.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::{Control, Freedom, device};
use crate::core::model::{Answer, Family, Reply, Rule};
use crate::core::predict::{Prediction, Predictor, predict, reply_words};
use crate::core::tunnel::Tunnel;
use crate::core::walk::{Fib, Policy};

/// A control target that a change spoiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spoiled {
    /// What it is.
    pub name: String,
    /// Its address.
    pub destination: IpAddr,
    /// What was expected, in words.
    pub expected: String,
    /// What was found, in words.
    pub found: String,
}

/// Compares a control before and after by device, table and source. It is spoiled if it became unreachable, if it now
/// enters a tunnel that it was not in, or if it left its way for another than the one it has without the hijackers.
/// Coming home is fine as far as the control has the freedom.
#[must_use]
pub fn compare(
    fib: &Fib<'_>,
    tunnels: &[Tunnel],
    hijackers: &[Rule],
    control: &Control,
    before: &Answer,
    after: &Answer,
) -> Option<Spoiled> {
    let policy = fib.policy(Family::of(control.question.destination));
    let stays = predict(fib, &policy, &control.question);
    // Of several nexthops the kernel may take another one now.
    let is_same = decides_alike(&before.reply, &after.reply)
        || (stays != Prediction::Unknown && stays.admits(&before.reply) && stays.admits(&after.reply));
    let home = predict(fib, &policy.without(|rule| hijackers.contains(rule)), &control.question);
    let came_home = device(after).is_some() && home != Prediction::Unknown && home.admits(&after.reply);
    let enters = device(after).is_some_and(|index| is_tunnel(tunnels, index) && device(before) != Some(index));
    if is_same || (came_home && may_come_home(control, enters)) {
        return None;
    }
    Some(Spoiled {
        name: control.name.clone(),
        destination: control.question.destination,
        expected: reply_words(fib.snapshot(), &before.reply),
        found: reply_words(fib.snapshot(), &after.reply),
    })
}

/// The same outcome, device, table and source. Which of two tables refuses is nobody's concern.
fn decides_alike(one: &Reply, other: &Reply) -> bool {
    match (one, other) {
        (Reply::Arrives(one), Reply::Arrives(other)) => {
            (one.ifindex, one.table, one.source, one.local) == (other.ifindex, other.table, other.source, other.local)
        }
        (Reply::Refused(_), Reply::Refused(_)) => true,
        _ => false,
    }
}

fn may_come_home(control: &Control, enters_tunnel: bool) -> bool {
    match control.freedom {
        Freedom::MayComeHome => true,
        Freedom::NeverInTunnel => !enters_tunnel,
        Freedom::Fixed => false,
    }
}

fn is_tunnel(tunnels: &[Tunnel], ifindex: u32) -> bool {
    tunnels.iter().any(|tunnel| tunnel.ifindex == ifindex)
}

/// What rules would do to a control that may not be done to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Harm {
    /// It would enter a tunnel.
    Drawn,
    /// It would become unreachable.
    Refused,
    /// It would leave its way for one that is not its own either.
    Moved {
        /// Where it goes, in words.
        from: String,
        /// Where it would go, in words.
        to: String,
    },
}

impl Harm {
    /// What the rules would do, in words; `tunnel` names what it would be drawn into.
    #[must_use]
    pub fn words(&self, control: &Control, tunnel: &str) -> String {
        let what = format!("{} ({})", control.name, control.question.destination);
        match self {
            Self::Drawn => format!("it would draw {what} into {tunnel}"),
            Self::Refused => format!("it would make {what} unreachable"),
            Self::Moved { from, to } => format!("it would move {what} from {from} to {to}"),
        }
    }
}

/// What rules would do to control targets that may not be done to them, as far as the engine can tell.
pub struct Outlook<'a> {
    fib: &'a Fib<'a>,
    tunnels: HashSet<u32>,
    /// Of each family the rules as they stand, with those to come, and without the hijackers.
    policies: HashMap<Family, [Policy<'a>; 3]>,
}

impl<'a> Outlook<'a> {
    /// Makes ready what is the same for all control targets: there is one for each tunnel's IKE peer at least.
    #[must_use]
    pub fn new(fib: &'a Fib<'a>, tunnels: &[Tunnel], hijackers: &'a [Rule], rules: &'a [Rule]) -> Self {
        let hijackers: HashSet<&Rule> = hijackers.iter().collect();
        let of_family = |family| {
            let policy = fib.policy(family);
            let (then, home) = (policy.with(rules), policy.without(|rule| hijackers.contains(rule)));
            (family, [policy, then, home])
        };
        Self {
            fib,
            tunnels: tunnels.iter().map(|tunnel| tunnel.ifindex).collect(),
            policies: Family::ALL.into_iter().map(of_family).collect(),
        }
    }

    /// What would be done to this one.
    #[must_use]
    pub fn harm(&self, control: &Control) -> Option<Harm> {
        let question = &control.question;
        let [policy, with_rules, at_home] = self.policies.get(&Family::of(question.destination))?;
        let now = predict(self.fib, policy, question);
        let then = predict(self.fib, with_rules, question);
        if then == now || then == Prediction::Unknown {
            return None;
        }
        let enters = |prediction: &Prediction| {
            let Prediction::Leaves { devices, .. } = prediction else { return false };
            devices.iter().any(|index| self.tunnels.contains(index))
        };
        let home = || predict(self.fib, at_home, question);
        let enters_tunnel = enters(&then) && !enters(&now);
        if then != Prediction::Refused && may_come_home(control, enters_tunnel) && then == home() {
            return None;
        }
        match then {
            _ if enters_tunnel => Some(Harm::Drawn),
            Prediction::Refused => Some(Harm::Refused),
            _ if now == Prediction::Unknown => None,
            then => Some(Harm::Moved { from: now.words(self.fib.snapshot()), to: then.words(self.fib.snapshot()) }),
        }
    }
}

/// What these rules would do to controls that may not be done to them, in words. A control whose way the engine does not
/// explain is left to the kernel's answer after the change.
#[must_use]
pub fn harms(
    fib: &Fib<'_>,
    tunnels: &[Tunnel],
    hijackers: &[Rule],
    answered: &[(&Control, &Answer)],
    rules: &[Rule],
) -> Vec<String> {
    let predictor = Predictor::new(fib, rules);
    let outlook = Outlook::new(fib, tunnels, hijackers, rules);
    let explained = answered.iter().filter(|(_, before)| predictor.explains(before));
    explained.filter_map(|(control, _)| Some(outlook.harm(control)?.words(control, "a tunnel"))).collect()
}

#[cfg(test)]
mod tests;
