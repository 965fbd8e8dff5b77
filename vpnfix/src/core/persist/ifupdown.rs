//! ifupdown: a script of our own in if-up.d (interfaces(5)). A stanza of our own would need a `source` line in
//! /etc/network/interfaces, which is not ours to write.
//!
//! There is none in if-down.d: rules that went with one uplink would leave the traffic hijacked over another, and would open
//! what is to stay closed.

use super::choice::Choice;
use super::script::{self, script};
use super::{Arrangement, PersistError, PersistFile};
use crate::core::model::Rule;
use crate::core::own_file::Backend;

/// run-parts(8) takes names of letters, digits, hyphens and underscores only.
const FILE: &str = "/etc/network/if-up.d/vpnfix";

pub(super) fn arrange(rules: &[Rule], choice: Choice) -> Result<Arrangement, PersistError> {
    for rule in rules {
        script::check(rule, Backend::Ifupdown)?;
    }
    let Some(interface) = &choice.interface else {
        return Err(PersistError::not_here(Backend::Ifupdown, "has no interface that the rules could come with"));
    };
    // An interface's name may hold anything but a slash and white space (`dev_valid_name` in net/core/dev.c).
    let quoted = interface.replace('\'', r"'\''");
    // A hook that fails would make the interface count as down.
    let text = script(rules, &format!("[ \"$IFACE\" = '{quoted}' ] || exit 0\n"), "exit 0");
    Ok(Arrangement {
        backend: Backend::Ifupdown,
        why: choice.why,
        effect: format!("ifupdown runs the script whenever {interface} comes up"),
        interface: choice.interface,
        rules: rules.to_vec(),
        connection: None,
        files: vec![PersistFile { path: FILE.into(), text, mode: 0o755 }],
        commands: Vec::new(),
        notes: Vec::new(),
    })
}
