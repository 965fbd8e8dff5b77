//! What a command ends with when it cannot do its work: one line that says what failed and why, and one that says what
//! to do where that is known.

use std::error::Error;
use std::fmt;

use crate::core::report::Outcome;

/// A command that could not do its work.
#[derive(Debug)]
pub struct Failure {
    /// What the command ends with.
    pub outcome: Outcome,
    /// What failed and why, one line.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// What to do without the privilege.
pub const BE_ROOT: &str = "run it as root (`sudo vpnfix …`)";

impl Failure {
    /// Something cannot be told or done.
    #[must_use]
    pub fn unable(message: impl Into<String>) -> Self {
        Self { outcome: Outcome::Unable, message: message.into(), hint: None }
    }

    /// The command was not used rightly.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self { outcome: Outcome::Usage, message: message.into(), hint: None }
    }

    /// What failed, with the error and its causes.
    #[must_use]
    pub fn of(what: &str, error: &dyn Error) -> Self {
        let mut message = what.to_string();
        let mut cause: Option<&dyn Error> = Some(error);
        while let Some(error) = cause {
            let text = one_line(&error.to_string());
            // Some errors repeat their source in their own text.
            if !message.ends_with(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = error.source();
        }
        Self::unable(message)
    }

    /// With what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With the advice to be root, if that is what lacks.
    #[must_use]
    pub fn hint_privilege(self, lacks: bool) -> Self {
        if lacks { self.hint(BE_ROOT) } else { self }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vpnfix: {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\nvpnfix: {hint}")?;
        }
        Ok(())
    }
}

impl Error for Failure {}
