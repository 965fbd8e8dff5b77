//! A bundle as values: what a report is made from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::manifest::Manifest;
use super::state::{Moment, State, document};
use super::timeline::Timeline;
use super::{Files, name};
use crate::core::report::fix::FixReport;
use crate::core::report::trace::{Summary, TraceLine};

/// Name of the schema of `changes.json`.
pub const CHANGES_SCHEMA: &str = "vpnfix.changes/1";

/// The steps of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Changes {
    /// Always `vpnfix.changes/1`.
    pub schema: String,
    /// The steps, in order.
    pub steps: Vec<ChangeStep>,
}

/// One step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChangeStep {
    /// The command that did it.
    #[serde(rename = "do")]
    pub apply: String,
    /// The command that takes it back.
    pub undo: String,
    /// Why.
    pub why: String,
    /// When the kernel had acknowledged it, RFC 3339, UTC; `null` for a step that was not taken.
    pub time: Option<String>,
    /// It was taken back again.
    pub taken_back: bool,
}

impl Changes {
    /// Those of a repair.
    #[must_use]
    pub fn of(fix: &FixReport) -> Self {
        let step = |(index, step): (usize, &crate::core::report::diagnose::StepReport)| ChangeStep {
            apply: step.apply.clone(),
            undo: step.undo.clone(),
            why: step.why.clone(),
            time: fix.applied_at.get(index).cloned(),
            taken_back: fix.rollback.is_some() && fix.applied_at.len() > index,
        };
        Self { schema: CHANGES_SCHEMA.into(), steps: fix.plan.steps.iter().enumerate().map(step).collect() }
    }
}

/// What a bundle holds; what it lacks is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    /// The manifest.
    pub manifest: Option<Manifest>,
    /// The state at the beginning.
    pub before: Option<State>,
    /// The state at the end.
    pub after: Option<State>,
    /// The last line of the trace.
    pub trace: Option<Summary>,
    /// What `fix` did.
    pub fix: Option<FixReport>,
    /// The steps.
    pub changes: Option<Changes>,
    /// What happened when.
    pub timeline: Option<Timeline>,
    /// Files that could not be understood, and why.
    pub damaged: Vec<String>,
}

impl Contents {
    /// Reads them. What cannot be understood is named, and the rest is read all the same.
    #[must_use]
    pub fn read(files: &Files) -> Self {
        let mut damaged = Vec::new();
        let mut contents = Self {
            manifest: document(files, name::MANIFEST, &mut damaged),
            before: State::read(files, Moment::Before, &mut damaged),
            after: State::read(files, Moment::After, &mut damaged),
            trace: None,
            fix: document(files, name::FIX, &mut damaged),
            changes: document(files, name::CHANGES, &mut damaged),
            timeline: document(files, name::TIMELINE, &mut damaged),
            damaged: Vec::new(),
        };
        contents.trace = files.get(name::TRACE).and_then(|lines| summary(lines, &mut damaged));
        contents.damaged = damaged;
        contents
    }
}

/// The summary at the end of a trace's lines.
fn summary(lines: &[u8], damaged: &mut Vec<String>) -> Option<Summary> {
    let last = lines.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty())?;
    match serde_json::from_slice(last) {
        Ok(TraceLine::Summary(summary)) => Some(summary),
        Ok(_) => None,
        Err(error) => {
            damaged.push(format!("{}: its last line: {error}", name::TRACE));
            None
        }
    }
}
