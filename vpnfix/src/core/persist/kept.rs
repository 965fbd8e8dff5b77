//! What was persisted: kept as a file beside the record of vpnfix's own files.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::facts::Connection;
use super::{Arrangement, Invocation, network_manager, systemd};
use crate::core::model::Rule;
use crate::core::own_file::Backend;

/// Name of the form that it is kept in.
const FORM: &str = "vpnfix.kept/1";

/// What was persisted, and by whom it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    form: String,
    /// Who keeps it.
    pub backend: Backend,
    /// The interface that the rules come with.
    pub interface: Option<String>,
    /// The rules.
    pub rules: Vec<Rule>,
    /// NetworkManager's profile that they are in.
    pub connection: Option<Connection>,
}

/// What was kept cannot be read.
#[derive(Debug, Error)]
pub enum KeptError {
    /// Not JSON of this form.
    #[error("not what vpnfix writes")]
    Text(#[from] serde_json::Error),
    /// Written by another version.
    #[error("written in the form `{0}`, which this version does not know")]
    Form(String),
}

impl Kept {
    /// What an arrangement keeps.
    #[must_use]
    pub fn of(arrangement: &Arrangement) -> Self {
        Self {
            form: FORM.into(),
            backend: arrangement.backend,
            interface: arrangement.interface.clone(),
            rules: arrangement.rules.clone(),
            connection: arrangement.connection.clone(),
        }
    }

    /// Reads what [`Kept::text`] wrote.
    ///
    /// # Errors
    /// It is something else.
    pub fn read(text: &str) -> Result<Self, KeptError> {
        #[derive(Deserialize)]
        struct Form {
            form: String,
        }
        let Form { form } = serde_json::from_str(text)?;
        if form != FORM {
            return Err(KeptError::Form(form.chars().filter(|c| !c.is_control()).take(40).collect()));
        }
        Ok(serde_json::from_str(text)?)
    }

    /// As a file.
    ///
    /// # Errors
    /// A value that JSON cannot hold; there is none.
    pub fn text(&self) -> Result<String, KeptError> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Does a file belong to rules that are kept so, whoever keeps them now?
    #[must_use]
    pub fn is_of(backend: Backend, purpose: crate::core::own_file::Purpose) -> bool {
        matches!(purpose, crate::core::own_file::Purpose::Persistence { backend: own } if own == backend)
    }

    /// What has to run before the files are taken away.
    #[must_use]
    pub fn before_release(&self) -> Option<Invocation> {
        network_manager::release(self)
    }

    /// What has to run after the files were taken away.
    #[must_use]
    pub fn after_release(&self) -> Vec<Invocation> {
        if self.backend == Backend::Systemd { systemd::release() } else { Vec::new() }
    }

    /// The command that makes the manager take away the rules which it made, once it keeps them no more; none where the
    /// rules are vpnfix's own.
    #[must_use]
    pub fn now(&self) -> Option<String> {
        match self.backend {
            Backend::Networkd => Some("networkctl reload".into()),
            Backend::Netplan => Some("netplan apply".into()),
            Backend::NetworkManager => {
                self.connection.as_ref().map(|connection| format!("nmcli device reapply {}", connection.interface))
            }
            Backend::Ifupdown | Backend::Systemd => None,
        }
    }
}
