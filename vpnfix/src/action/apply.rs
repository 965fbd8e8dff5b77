//! Adding a plan's rules, and taking rules back.

use thiserror::Error;

use crate::core::model::Rule;
use crate::core::owner::VPNFIX_PROTOCOL;
use crate::core::plan::Plan;
use crate::system::netlink::{Netlink, NetlinkError};

/// A plan that could not be applied.
#[derive(Debug, Error)]
#[error("step {step} of {steps}")]
pub struct ApplyError {
    /// Number of the step, from 1.
    pub step: usize,
    /// How many steps there are.
    pub steps: usize,
    /// The rules that had been added before.
    pub added: Vec<Rule>,
    /// What the kernel said.
    #[source]
    pub source: NetlinkError,
}

/// Adds the plan's rules in order.
///
/// # Errors
/// A rule that the kernel refuses; those before it are in place and named in the error.
pub async fn apply(netlink: &Netlink, plan: &Plan) -> Result<Vec<Rule>, ApplyError> {
    let mut added = Vec::new();
    for (index, step) in plan.steps.iter().enumerate() {
        tracing::info!("{}", step.rule.add_command());
        if let Err(source) = netlink.add_rule(&step.rule).await {
            return Err(ApplyError { step: index + 1, steps: plan.steps.len(), added, source });
        }
        added.push(step.rule.clone());
    }
    Ok(added)
}

/// A rule that could not be taken back.
#[derive(Debug, Error)]
#[error("`{}`", rule.delete_command())]
pub struct LeftBehind {
    /// The rule.
    pub rule: Rule,
    /// What the kernel said.
    #[source]
    pub source: NetlinkError,
}

impl LeftBehind {
    /// The command, and why it failed.
    #[must_use]
    pub fn told(&self) -> String {
        let mut told = format!("{self}: {}", self.source);
        if let Some(cause) = std::error::Error::source(&self.source) {
            told.push_str(&format!(": {cause}"));
        }
        told
    }
}

/// Takes rules back, the last first. A rule that is gone already is fine.
pub async fn take_back(netlink: &Netlink, rules: &[Rule]) -> (Vec<Rule>, Vec<LeftBehind>) {
    let (mut removed, mut left) = (Vec::new(), Vec::new());
    for rule in rules.iter().rev() {
        tracing::info!("{}", rule.delete_command());
        match netlink.delete_rule(rule).await {
            Ok(()) => removed.push(rule.clone()),
            Err(error) if error.is_missing() => {}
            Err(source) => left.push(LeftBehind { rule: rule.clone(), source }),
        }
    }
    (removed, left)
}

/// The rules of vpnfix that stand now, told by their protocol number.
///
/// # Errors
/// The rules cannot be read.
pub async fn own_rules(netlink: &Netlink) -> Result<Vec<Rule>, NetlinkError> {
    let rules = netlink.rules().await?;
    Ok(rules.into_iter().filter(|rule| rule.protocol == VPNFIX_PROTOCOL).collect())
}

/// Which of these rules do not stand now?
///
/// # Errors
/// The rules cannot be read.
pub async fn missing(netlink: &Netlink, wanted: &[Rule]) -> Result<Vec<Rule>, NetlinkError> {
    let there = netlink.rules().await?;
    Ok(wanted.iter().filter(|rule| !there.contains(rule)).cloned().collect())
}
