//! Restarting one daemon of strongSwan by its own unit.

use std::time::Duration;

use thiserror::Error;

use crate::core::owner::Process;
use crate::core::strongswan::unit::{NotRestarted, Unit, restartable};
use crate::system::systemd::{Systemd, SystemdError};

/// Longest time that a restart may take: systemd itself gives a unit 90 s to stop (`DefaultTimeoutStopSec`).
const BOUND: Duration = Duration::from_secs(120);

/// The daemon was not restarted.
#[derive(Debug, Error)]
pub enum RestartError {
    /// systemd cannot do it.
    #[error(transparent)]
    Systemd(#[from] SystemdError),
    /// The unit is not the daemon's own.
    #[error(transparent)]
    NotOurs(#[from] NotRestarted),
    /// The job failed.
    #[error("restart {unit}: systemd's job ended with `{result}`; see `systemctl status {unit}`")]
    Job {
        /// The unit.
        unit: String,
        /// How the job ended.
        result: String,
    },
}

/// The unit that a restart of this daemon would restart, and the way to do it.
///
/// # Errors
/// systemd does not run or answer, or the daemon has no unit of its own.
pub async fn unit_of(daemon: &Process) -> Result<(Systemd, Unit), RestartError> {
    let systemd = Systemd::connect().await?;
    let unit = systemd.unit_of(daemon.pid).await?;
    restartable(&unit, daemon)?;
    Ok((systemd, unit))
}

/// Restarts the daemon's unit, and waits until systemd has done it.
///
/// # Errors
/// As [`unit_of`], or the job fails.
pub async fn restart(daemon: &Process) -> Result<Unit, RestartError> {
    let (systemd, unit) = unit_of(daemon).await?;
    tracing::info!(unit = unit.name, daemon = %daemon, "systemctl restart {}", unit.name);
    let result = systemd.restart(&unit.name, BOUND).await?;
    if result == "done" { Ok(unit) } else { Err(RestartError::Job { unit: unit.name, result }) }
}
