//! What vpnfix's rules say, for those who write them down in other words.

use ipnet::IpNet;

use super::PersistError;
use crate::core::model::{Family, Rule, RuleAction};
use crate::core::own_file::Backend;

/// A rule of vpnfix's, taken apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) family: Family,
    pub(super) priority: u32,
    pub(super) from: Option<IpNet>,
    pub(super) to: Option<IpNet>,
    pub(super) does: Does,
    pub(super) suppress_prefix_length: Option<u32>,
}

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Does {
    /// Looks up this table.
    Lookup(u32),
    /// Looks up the table of the flow's VRF.
    Master,
    /// Refuses, in the word that networkd and NetworkManager have for it.
    Refuse(&'static str),
}

impl Shape {
    /// Takes a rule apart.
    ///
    /// # Errors
    /// It jumps, or has selectors of the rule of others that it leads to: what would be written down were another rule.
    pub(super) fn of(rule: &Rule, backend: Backend) -> Result<Self, PersistError> {
        let does = match rule.action {
            RuleAction::Lookup(_) if rule.l3mdev => Does::Master,
            RuleAction::Lookup(table) => Does::Lookup(table),
            RuleAction::Unreachable => Does::Refuse("unreachable"),
            RuleAction::Prohibit => Does::Refuse("prohibit"),
            RuleAction::Blackhole => Does::Refuse("blackhole"),
            RuleAction::Goto(_) => return Err(PersistError::inexpressible(backend, rule, "it has no jumps")),
            RuleAction::Nop | RuleAction::Other(_) => {
                return Err(PersistError::inexpressible(backend, rule, "vpnfix makes no such rules"));
            }
        };
        let told = Rule {
            from: rule.from,
            to: rule.to,
            action: rule.action,
            l3mdev: rule.l3mdev,
            suppress_prefix_length: rule.suppress_prefix_length,
            protocol: rule.protocol,
            ..Rule::lookup(rule.family, rule.priority, 0)
        };
        if told != *rule {
            return Err(PersistError::inexpressible(
                backend,
                rule,
                "its selectors have no words that are sure to be read alike",
            ));
        }
        let Rule { family, priority, from, to, suppress_prefix_length, .. } = *rule;
        Ok(Self { family, priority, from, to, does, suppress_prefix_length })
    }

    /// All sources, in the family's words: for those who tell the family of a rule by its addresses.
    pub(super) fn everything(self) -> &'static str {
        match self.family {
            Family::V4 => "0.0.0.0/0",
            Family::V6 => "::/0",
        }
    }
}
