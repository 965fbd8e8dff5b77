//! systemd's manager, by D-Bus (org.freedesktop.systemd1(5)).

use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use thiserror::Error;
use zbus::{Connection, OwnedObjectPath, Proxy};

use super::clues;
use crate::core::strongswan::unit::Unit;

const BUS: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
/// There while systemd is the init (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";
/// How long systemd may take to answer what it only has to look up.
const ANSWER: Duration = Duration::from_secs(10);

/// A way to the manager.
#[derive(Clone, Debug)]
pub struct Systemd {
    connection: Connection,
}

/// systemd cannot be asked, or refuses.
#[derive(Debug, Error)]
pub enum SystemdError {
    /// It does not run on this host.
    #[error("systemd does not run here")]
    Absent,
    /// A request failed.
    #[error("{what}")]
    Bus {
        /// What was asked.
        what: &'static str,
        /// Why.
        #[source]
        source: zbus::Error,
    },
    /// No answer in time.
    #[error("{what}: no answer within {} s", bound.as_secs())]
    Late {
        /// What was asked.
        what: &'static str,
        /// How long it was waited for.
        bound: Duration,
    },
}

impl Systemd {
    /// Connects to the system's bus.
    ///
    /// # Errors
    /// systemd does not run, or the bus cannot be reached.
    pub async fn connect() -> Result<Self, SystemdError> {
        if !Path::new(BOOTED).is_dir() {
            return Err(SystemdError::Absent);
        }
        let what = "reach the system's bus";
        within(what, ANSWER, Connection::system()).await.map(|connection| Self { connection })
    }

    /// The unit that holds a process.
    ///
    /// # Errors
    /// systemd does not answer, or knows of no unit.
    pub async fn unit_of(&self, pid: u32) -> Result<Unit, SystemdError> {
        let what = "ask systemd for the daemon's unit";
        within(what, ANSWER, async {
            let path: OwnedObjectPath = self.manager().await?.call("GetUnitByPID", &(pid,)).await?;
            let unit = Proxy::new(&self.connection, BUS, path.clone(), "org.freedesktop.systemd1.Unit").await?;
            let name: String = unit.get_property("Id").await?;
            let service = Proxy::new(&self.connection, BUS, path, "org.freedesktop.systemd1.Service").await?;
            // Other kinds of units have none.
            let main: u32 = service.get_property("MainPID").await.unwrap_or(0);
            let main = (main != 0).then(|| (main, clues::process_name(main)));
            Ok(Unit { name, main })
        })
        .await
    }

    /// Restarts a unit and waits for the end of the job. Gives its result: `done`, or what went wrong.
    ///
    /// # Errors
    /// systemd refuses, or the job does not end in time.
    pub async fn restart(&self, unit: &str, bound: Duration) -> Result<String, SystemdError> {
        within("restart the unit", bound, async {
            let manager = self.manager().await?;
            // Before the job is queued: it may end at once.
            manager.call::<_, _, ()>("Subscribe", &()).await?;
            let mut ended = manager.receive_signal("JobRemoved").await?;
            let job: OwnedObjectPath = manager.call("RestartUnit", &(unit, "replace")).await?;
            while let Some(signal) = ended.next().await {
                let body = signal.body();
                let (_, path, _, result): (u32, OwnedObjectPath, String, String) = body.deserialize()?;
                if path == job {
                    return Ok(result);
                }
            }
            Err(zbus::Error::Failure("the bus was closed before the job had ended".into()))
        })
        .await
    }

    async fn manager(&self) -> zbus::Result<Proxy<'_>> {
        Proxy::new(&self.connection, BUS, MANAGER_PATH, MANAGER).await
    }
}

async fn within<T>(
    what: &'static str,
    bound: Duration,
    request: impl Future<Output = zbus::Result<T>>,
) -> Result<T, SystemdError> {
    match tokio::time::timeout(bound, request).await {
        Ok(answer) => answer.map_err(|source| SystemdError::Bus { what, source }),
        Err(_) => Err(SystemdError::Late { what, bound }),
    }
}
