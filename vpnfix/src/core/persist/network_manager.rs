//! NetworkManager: rules in the profile that is active on an interface, written through nmcli and never into its files
//! (nm-settings-nmcli(5), `ipv4.routing-rules`).

use super::choice::Choice;
use super::facts::{Connection, Managers};
use super::kept::Kept;
use super::shape::{Does, Shape};
use super::{Arrangement, Invocation, PersistError};
use crate::core::model::{Family, Rule};
use crate::core::own_file::Backend;

pub(super) fn arrange(rules: &[Rule], managers: &Managers, choice: Choice) -> Result<Arrangement, PersistError> {
    let lacks = || PersistError::not_here(Backend::NetworkManager, "has no profile on disk that is active here");
    let active = managers.network_manager.iter().flat_map(|manager| &manager.connections);
    let on_interface = |active: &&Connection| choice.interface.as_deref() == Some(active.interface.as_str());
    let connection = active.filter(|active| active.is_persistent()).find(on_interface).ok_or_else(lacks)?.clone();
    let mut argv = modify(&connection);
    for rule in rules {
        argv.extend([format!("+{}", property(rule)), words(rule)?]);
    }
    let effect = format!(
        "NetworkManager makes the rules when the profile is activated: at the next boot, or now with `nmcli device reapply {}`",
        connection.interface
    );
    let why_command = format!("write the rules into the profile `{}`", connection.name);
    Ok(Arrangement {
        backend: Backend::NetworkManager,
        why: choice.why,
        interface: choice.interface,
        rules: rules.to_vec(),
        connection: Some(connection),
        files: Vec::new(),
        commands: vec![Invocation { argv, why: why_command }],
        effect,
        notes: Vec::new(),
    })
}

/// What takes kept rules out of the profile again. A rule that is not in it any more is no error for nmcli.
pub(super) fn release(kept: &Kept) -> Option<Invocation> {
    let connection = kept.connection.as_ref()?;
    let mut argv = modify(connection);
    for rule in &kept.rules {
        argv.extend([format!("-{}", property(rule)), words(rule).ok()?]);
    }
    Some(Invocation { argv, why: format!("take the rules out of the profile `{}`", connection.name) })
}

fn modify(connection: &Connection) -> Vec<String> {
    ["nmcli", "connection", "modify", "uuid", &connection.uuid].map(String::from).to_vec()
}

fn property(rule: &Rule) -> &'static str {
    match rule.family {
        Family::V4 => "ipv4.routing-rules",
        Family::V6 => "ipv6.routing-rules",
    }
}

fn words(rule: &Rule) -> Result<String, PersistError> {
    let shape = Shape::of(rule, Backend::NetworkManager)?;
    let mut words = vec![format!("priority {}", shape.priority)];
    words.extend(shape.from.map(|from| format!("from {from}")));
    words.extend(shape.to.map(|to| format!("to {to}")));
    if shape.from.is_none() && shape.to.is_none() {
        words.push(format!("from {}", shape.everything()));
    }
    words.push(match shape.does {
        Does::Lookup(table) => format!("table {table}"),
        Does::Refuse(how) => format!("type {how}"),
        Does::Master => {
            let why = "it has no word for rules that look up the VRF's table";
            return Err(PersistError::inexpressible(Backend::NetworkManager, rule, why));
        }
    });
    words.extend(shape.suppress_prefix_length.map(|length| format!("suppress_prefixlength {length}")));
    Ok(words.join(" "))
}
