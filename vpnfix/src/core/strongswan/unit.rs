//! Which unit of systemd may be restarted for a daemon: its own, and nothing that does other work besides.

use thiserror::Error;

use crate::core::owner::Process;

/// The program that `ipsec start` runs, which runs charon in turn.
const STARTER: &str = "starter";

/// The unit that systemd holds a process in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its name, with its kind.
    pub name: String,
    /// Its main process (`MainPID`), if it has one, with its name where that could be read.
    pub main: Option<(u32, Option<String>)>,
}

/// Why a unit is not restarted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotRestarted {
    /// It was started by hand, in a container or in a session.
    #[error("{process} runs in {unit}, which is no service")]
    NoService {
        /// The process.
        process: String,
        /// The unit.
        unit: String,
    },
    /// The service is another program's that runs the daemon besides.
    #[error("{process} runs in {unit}, whose main process is another{}", main.as_ref().map_or(String::new(), |main| format!(" ({main})")))]
    OthersService {
        /// The process.
        process: String,
        /// The unit.
        unit: String,
        /// The name of its main process.
        main: Option<String>,
    },
}

/// May this unit be restarted for the daemon? Told by its main process, not by its name: distributions name the same
/// service `strongswan`, `strongswan-starter`, `strongswan-swanctl` or `ipsec`, and people have units of their own.
///
/// # Errors
/// Why not.
pub fn restartable(unit: &Unit, daemon: &Process) -> Result<(), NotRestarted> {
    let (process, name) = (daemon.to_string(), unit.name.clone());
    if !unit.name.ends_with(".service") {
        return Err(NotRestarted::NoService { process, unit: name });
    }
    match &unit.main {
        Some((pid, _)) if *pid == daemon.pid => Ok(()),
        Some((_, Some(main))) if main == STARTER => Ok(()),
        main => {
            let main = main.clone().and_then(|(_, name)| name);
            Err(NotRestarted::OthersService { process, unit: name, main })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::owner::Whereabouts;

    fn daemon(name: &str, pid: u32) -> Process {
        Process { name: name.into(), pid, whereabouts: Whereabouts::Here, started: None }
    }

    fn unit(name: &str, main: Option<(u32, &str)>) -> Unit {
        Unit { name: name.into(), main: main.map(|(pid, name)| (pid, Some(name.into()))) }
    }

    #[test]
    fn the_daemons_own_service_is_restarted_whatever_its_name() {
        for name in ["strongswan.service", "strongswan-swanctl.service", "site-vpn.service"] {
            assert_eq!(restartable(&unit(name, Some((7, "charon-systemd"))), &daemon("charon-systemd", 7)), Ok(()));
        }
        for name in ["strongswan-starter.service", "ipsec.service", "strongswan.service"] {
            assert_eq!(restartable(&unit(name, Some((6, "starter"))), &daemon("charon", 7)), Ok(()));
        }
        let unnamed = Unit { name: "strongswan.service".into(), main: Some((7, None)) };
        assert_eq!(restartable(&unnamed, &daemon("charon-systemd", 7)), Ok(()));
    }

    #[test]
    fn nothing_else_is_restarted() {
        for name in ["session-3.scope", "docker-1f.scope", "user@0.slice", "init.scope"] {
            let refused = restartable(&unit(name, Some((7, "charon"))), &daemon("charon", 7));
            assert!(matches!(refused, Err(NotRestarted::NoService { .. })), "{name}");
        }
        let others = [
            unit("NetworkManager.service", Some((5, "NetworkManager"))),
            unit("ssh.service", Some((5, "sshd"))),
            unit("everything.service", None),
            Unit { name: "everything.service".into(), main: Some((5, None)) },
        ];
        for unit in others {
            let refused = restartable(&unit, &daemon("charon-nm", 7));
            assert!(matches!(refused, Err(NotRestarted::OthersService { .. })), "{unit:?}");
        }
        let told = restartable(&unit("ssh.service", Some((5, "sshd"))), &daemon("charon", 7)).unwrap_err();
        assert_eq!(told.to_string(), "charon (7) runs in ssh.service, whose main process is another (sshd)");
    }
}
