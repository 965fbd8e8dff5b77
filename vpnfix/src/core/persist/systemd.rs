//! systemd: a unit that adds the rules after network and strongSwan, and again with systemd-networkd.
//!
//! It is started by drop-ins of our own for the units that want it, not by links: all that is written is files. It has no
//! `ExecStop=`: a restart of systemd-networkd restarts the unit as well, and rules that were taken away for that while would
//! let traffic out in the clear. `vpnfix undo` takes them away.

use super::choice::Choice;
use super::script::{self, SCRIPT, script};
use super::{Arrangement, Invocation, PersistError, PersistFile, heading};
use crate::core::model::Rule;
use crate::core::own_file::Backend;

/// Name of the unit.
pub const UNIT: &str = "vpnfix-rules.service";

const UNITS: &str = "/etc/systemd/system";
/// What starts it: the boot, and whoever starts systemd-networkd, which may drop rules as it configures interfaces.
const WANTED_BY: [&str; 2] = ["multi-user.target", "systemd-networkd.service"];

pub(super) fn arrange(rules: &[Rule], choice: Choice) -> Result<Arrangement, PersistError> {
    for rule in rules {
        script::check(rule, Backend::Systemd)?;
    }
    let mut files = vec![
        PersistFile { path: SCRIPT.into(), text: script(rules, "", "exit $failed"), mode: 0o755 },
        PersistFile { path: format!("{UNITS}/{UNIT}").into(), text: unit(), mode: 0o644 },
    ];
    for wanting in WANTED_BY {
        let path = format!("{UNITS}/{wanting}.d/90-vpnfix.conf").into();
        let text = format!("{}\n[Unit]\nWants={UNIT}\n", heading());
        files.push(PersistFile { path, text, mode: 0o644 });
    }
    Ok(Arrangement {
        backend: Backend::Systemd,
        why: choice.why,
        interface: None,
        rules: rules.to_vec(),
        connection: None,
        files,
        commands: vec![
            reload(),
            Invocation::new(&["systemctl", "start", UNIT], "let systemd-networkd's restarts reach it"),
        ],
        effect: "the unit adds the rules at each boot, and again whenever systemd-networkd is restarted".into(),
        notes: Vec::new(),
    })
}

/// Makes systemd read its units again.
pub(super) fn reload() -> Invocation {
    Invocation::new(&["systemctl", "daemon-reload"], "let systemd read its units again")
}

/// After the files are gone: systemd forgets the unit. The rules stay.
pub(super) fn release() -> Vec<Invocation> {
    vec![
        reload(),
        Invocation::new(&["systemctl", "stop", UNIT], "let systemd forget the unit, which has no file any more"),
    ]
}

fn unit() -> String {
    let heading = heading();
    let after = "network-online.target systemd-networkd.service NetworkManager.service networking.service \
                 strongswan.service strongswan-starter.service";
    format!(
        "{heading}\n\
         [Unit]\n\
         Description=Policy rules that keep VPN traffic in its tunnels\n\
         After={after}\n\
         PartOf=systemd-networkd.service\n\
         ConditionFileIsExecutable={SCRIPT}\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart=/bin/sh {SCRIPT}\n"
    )
}
