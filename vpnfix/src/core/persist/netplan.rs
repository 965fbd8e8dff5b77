//! netplan: a file of our own, which netplan merges with the others (netplan(5), `routing-policy`).

use std::fmt::Write as _;
use std::path::Path;

use super::choice::Choice;
use super::facts::{Managers, NetplanInterface};
use super::shape::{Does, Shape};
use super::{Arrangement, PersistError, PersistFile, heading};
use crate::core::model::Rule;
use crate::core::own_file::Backend;

/// Read after the files of cloud-init (50) and of installers (00, 01).
const FILE: &str = "/etc/netplan/90-vpnfix.yaml";

impl Managers {
    /// netplan's definition of an interface: the one that the .network file in use was made from.
    pub(super) fn definition(&self, interface: &str) -> Option<&NetplanInterface> {
        let file = Path::new(&self.networkd.as_ref()?.link(interface)?.file).file_name()?.to_str()?;
        let id = file.strip_prefix("10-netplan-")?.strip_suffix(".network")?;
        self.netplan.as_ref()?.interfaces.iter().find(|definition| definition.id == id)
    }
}

pub(super) fn arrange(rules: &[Rule], managers: &Managers, choice: Choice) -> Result<Arrangement, PersistError> {
    let definition = choice.interface.as_deref().and_then(|interface| managers.definition(interface));
    let Some(definition) = definition else {
        return Err(PersistError::not_here(Backend::Netplan, "defines no interface that the rules could come with"));
    };
    let NetplanInterface { id, section } = definition;
    let mut text = heading();
    // Writing to a string cannot fail.
    let _ = write!(text, "network:\n  version: 2\n  {section}:\n    \"{id}\":\n      routing-policy:\n");
    for rule in rules {
        entry(&mut text, rule)?;
    }
    Ok(Arrangement {
        backend: Backend::Netplan,
        why: choice.why,
        interface: choice.interface,
        rules: rules.to_vec(),
        connection: None,
        files: vec![PersistFile { path: FILE.into(), text, mode: 0o600 }],
        commands: Vec::new(),
        effect:
            "netplan reads its files at the next boot, and with `netplan apply`, which configures the interface anew"
                .into(),
        notes: Vec::new(),
    })
}

fn entry(text: &mut String, rule: &Rule) -> Result<(), PersistError> {
    let refused = |why: &str| Err(PersistError::inexpressible(Backend::Netplan, rule, why));
    let shape = Shape::of(rule, Backend::Netplan)?;
    if shape.suppress_prefix_length.is_some() {
        return refused("its routing-policy knows no suppress_prefixlength");
    }
    let Does::Lookup(table) = shape.does else {
        return refused("its routing-policy knows rules that look up a table only");
    };
    if shape.from.is_none() && shape.to.is_none() {
        return refused("its routing-policy needs a source or a destination");
    }
    let mut lead = "- ";
    for (key, prefix) in [("from", shape.from), ("to", shape.to)] {
        if let Some(prefix) = prefix {
            let _ = writeln!(text, "        {lead}{key}: \"{prefix}\"");
            lead = "  ";
        }
    }
    let _ = write!(text, "          table: {table}\n          priority: {}\n", shape.priority);
    Ok(())
}
