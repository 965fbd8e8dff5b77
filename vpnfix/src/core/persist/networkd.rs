//! systemd-networkd: a drop-in for the .network file of an interface that it manages (systemd.network(5)).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::choice::Choice;
use super::facts::{ManagedLink, Managers, Networkd, Release};
use super::shape::{Does, Shape};
use super::{Arrangement, PersistError, PersistFile, heading};
use crate::core::model::{Family, Rule};
use crate::core::own_file::Backend;

/// Where an administrator's drop-ins lie, whichever directory the .network file is in (systemd.network(5)).
const DROP_INS: &str = "/etc/systemd/network";
const FOREIGN_RULES: &str = "/etc/systemd/networkd.conf.d/90-vpnfix.conf";

// Versions of systemd that brought a setting (systemd.network(5), networkd.conf(5)).
const FAMILY: u32 = 243;
const SUPPRESS_PREFIX_LENGTH: u32 = 245;
const TYPE: u32 = 248;
const MANAGE_FOREIGN_RULES: u32 = 249;
const L3_MASTER_DEVICE: u32 = 256;

impl Networkd {
    pub(super) fn link(&self, interface: &str) -> Option<&ManagedLink> {
        self.links.iter().find(|link| link.interface == interface)
    }
}

pub(super) fn arrange(rules: &[Rule], managers: &Managers, choice: Choice) -> Result<Arrangement, PersistError> {
    let release = managers.systemd.unwrap_or(Release(None));
    let link = choice.interface.as_deref().and_then(|interface| managers.networkd.as_ref()?.link(interface));
    let file = link.and_then(|link| Path::new(&link.file).file_name()?.to_str());
    let Some(file) = file.filter(|file| file.ends_with(".network")) else {
        return Err(PersistError::not_here(Backend::Networkd, "names no .network file for the interface"));
    };
    let mut text = heading();
    for rule in rules {
        section(&mut text, rule, release)?;
    }
    let path = PathBuf::from(DROP_INS).join(format!("{file}.d")).join("90-vpnfix.conf");
    let effect =
        "systemd-networkd reads the drop-in at its next start, and with `networkctl reload`, which configures the \
                  interface anew"
            .into();
    Ok(Arrangement {
        backend: Backend::Networkd,
        why: choice.why,
        interface: choice.interface,
        rules: rules.to_vec(),
        connection: None,
        files: vec![PersistFile { path, text, mode: 0o644 }],
        commands: Vec::new(),
        effect,
        notes: Vec::new(),
    })
}

fn section(text: &mut String, rule: &Rule, release: Release) -> Result<(), PersistError> {
    let shape = Shape::of(rule, Backend::Networkd)?;
    let needs = |version: u32, setting: &str| {
        let own = release.0.map_or("an unknown version".into(), |own| format!("version {own}"));
        if release.since(version) {
            return Ok(());
        }
        let why = format!("{setting}= came with version {version}, and this is {own}");
        Err(PersistError::inexpressible(Backend::Networkd, rule, why))
    };
    // Writing to a string cannot fail.
    let _ = write!(text, "\n[RoutingPolicyRule]\nPriority={}\n", shape.priority);
    for (key, prefix) in [("From", shape.from), ("To", shape.to)] {
        let _ = prefix.map(|prefix| writeln!(text, "{key}={prefix}"));
    }
    if shape.from.is_none() && shape.to.is_none() {
        needs(FAMILY, "Family")?;
        let family = match shape.family {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        };
        let _ = writeln!(text, "Family={family}");
    }
    match shape.does {
        Does::Lookup(table) => {
            let _ = writeln!(text, "Table={table}");
        }
        Does::Master => {
            needs(L3_MASTER_DEVICE, "L3MasterDevice")?;
            text.push_str("L3MasterDevice=yes\n");
        }
        Does::Refuse(how) => {
            needs(TYPE, "Type")?;
            let _ = writeln!(text, "Type={how}");
        }
    }
    if let Some(length) = shape.suppress_prefix_length {
        needs(SUPPRESS_PREFIX_LENGTH, "SuppressPrefixLength")?;
        let _ = writeln!(text, "SuppressPrefixLength={length}");
    }
    Ok(())
}

/// What systemd-networkd does to rules that are not its own: it is told, and stopped where that was asked for.
pub(super) fn about_foreign_rules(
    arrangement: &mut Arrangement,
    networkd: &Networkd,
    release: Option<Release>,
    keep: bool,
) -> Result<(), PersistError> {
    if keep {
        if !release.is_some_and(|release| release.since(MANAGE_FOREIGN_RULES)) {
            let why = format!("ManageForeignRoutingPolicyRules= came with version {MANAGE_FOREIGN_RULES}");
            return Err(PersistError::not_here(Backend::Networkd, why));
        }
        let text = format!("{}\n[Network]\nManageForeignRoutingPolicyRules=no\n", heading());
        arrangement.files.push(PersistFile { path: FOREIGN_RULES.into(), text, mode: 0o644 });
        arrangement.notes.push(
            "from its next start on systemd-networkd keeps rules that are not its own: vpnfix's, strongSwan's and all \
             others"
                .into(),
        );
    } else if !networkd.keeps_foreign_rules {
        let kept = match arrangement.backend {
            Backend::Networkd | Backend::Netplan => "the rules persisted here are its own, and stay",
            _ => "the rules persisted here are among those, until they are made anew",
        };
        arrangement.notes.push(format!(
            "systemd-networkd drops rules that are not its own, strongSwan's among them, when it configures an interface \
             anew (ManageForeignRoutingPolicyRules= in networkd.conf(5)); {kept}. `vpnfix persist --keep-foreign-rules` \
             stops it from that"
        ));
    }
    Ok(())
}
