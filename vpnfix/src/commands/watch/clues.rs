//! Who asked the kernel for a change, by the netlink port that its notification names.

use crate::core::owner::{Clues, Program};
use crate::system::clues::process_name;

/// A program that has ended, or one that took another port than its process id.
const UNKNOWN: &str = "a program that has ended (`ip` by hand or in a script, most likely)";

/// The program by its name, if it can be told. A port is the process id of whoever opened the socket, unless that was taken
/// (`netlink_autobind`, `net/netlink/af_netlink.c`); 0 is the kernel itself.
pub(super) fn who(port: u32, clues: &Clues) -> String {
    match port {
        0 => return "the kernel".into(),
        // systemd-networkd is handed its socket by systemd (systemd-networkd.socket), which touches no rule itself.
        INIT if process_name(port).is_some_and(|name| name == "systemd") => return Program::Networkd.name().into(),
        _ => {}
    }
    if let Some(process) = process_name(port) {
        return program(&process).map_or(process, |program| program.name().into());
    }
    // systemd-networkd's socket may have another port than its process id; nobody else lives on and has none.
    let daemon = clues.processes.iter().find(|process| process.name == NETWORKD).filter(|_| port > PIDS);
    daemon.map_or_else(|| UNKNOWN.into(), |_| format!("{} (likely)", Program::Networkd.name()))
}

/// Process id of the init.
const INIT: u32 = 1;
/// As /proc/PID/comm has it, cut to 15 bytes.
const NETWORKD: &str = "systemd-network";
/// Process ids are no larger (`PID_MAX_LIMIT`); a port that is no process id is drawn from above.
const PIDS: u32 = 1 << 22;

fn program(process: &str) -> Option<Program> {
    Program::ALL.into_iter().find(|program| program.signs().processes.contains(&process))
}

/// What to do about a program that takes rules away by design.
pub(super) fn known_remedy(by: &str) -> Option<String> {
    if by.contains(Program::Networkd.name()) {
        return Some(
            "It drops rules that are not its own when it configures an interface: set \
             ManageForeignRoutingPolicyRules=no in networkd.conf, or have it keep them: `vpnfix persist \
             --keep-foreign-rules`."
                .into(),
        );
    }
    by.contains(Program::NetworkManager.name())
        .then(|| "Have NetworkManager keep the rules itself: `vpnfix persist --backend networkmanager`.".into())
}

/// What to do about a fight.
pub(super) fn remedy(by: &str) -> String {
    known_remedy(by).unwrap_or_else(|| {
        "Find out what runs `ip rule del` or `ip rule flush` here; `vpnfix fix` or a reload (SIGHUP) starts anew."
            .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_is_named_and_a_dead_one_is_not() {
        let clues = Clues::default();
        let own = process_name(std::process::id()).unwrap();
        assert_eq!(who(std::process::id(), &clues), own);
        assert_eq!(who(0, &clues), "the kernel");
        assert_eq!(who(u32::MAX - 5, &clues), UNKNOWN);
        assert_eq!(program("systemd-network"), Some(Program::Networkd));
        assert!(remedy("systemd-networkd").contains("ManageForeignRoutingPolicyRules=no"));
    }
}
