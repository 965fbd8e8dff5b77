//! The programs that manage this host's network: which run, and what each manages. What cannot be read or asked is not
//! there, and never an error: rules are then kept by another.

mod files;

use std::path::Path;
use std::time::Duration;

use crate::core::model::Link;
use crate::core::persist::{
    Connection, Ifupdown, ManagedLink, Managers, Netplan, NetworkManager, Networkd, Release, foreign_rules_kept,
};
use crate::system::program::{self, Bounds};
use files::{drop_ins, is_active, read};

/// How long a program may take to tell what it manages. D-Bus itself waits 25 s for an answer.
const BOUNDS: Bounds = Bounds { patience: Duration::from_secs(30), most: 1024 * 1024 };

/// Asks which managers run, and what they manage of these links. Only in the host's own network namespace do the answers
/// mean anything.
#[must_use]
pub fn gather(links: &[Link]) -> Managers {
    Managers {
        // sd_booted(3).
        systemd: Path::new("/run/systemd/system").is_dir().then(release),
        networkd: networkd(links),
        network_manager: network_manager(),
        netplan: netplan(),
        ifupdown: read("/run/network/ifstate".as_ref()).map(|state| Ifupdown::of_state(&state)),
    }
}

/// The same, from files alone: enough to say whether rules are in danger.
#[must_use]
pub fn glance(links: &[Link]) -> Managers {
    Managers { networkd: networkd(links), ..Managers::default() }
}

/// Is the calling thread in the network namespace of the host's first process? `None` if that cannot be told: reading
/// another process's takes the right to trace it (proc(5)).
#[must_use]
pub fn in_own_namespace() -> Option<bool> {
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    let here = namespace("thread-self")?;
    match namespace("1") {
        Some(hosts) => Some(here == hosts),
        // One that was asked for by `--netns`, and is not what vpnfix was started in, is taken for another.
        None => (here != namespace("self")?).then_some(false),
    }
}

fn release() -> Release {
    // `systemd 252 (252.39-1~deb12u1)`, then what it was built with.
    let said = program::output("systemctl", &["--version"], BOUNDS).unwrap_or_default();
    Release(said.split_whitespace().nth(1).and_then(|number| number.parse().ok()))
}

fn networkd(links: &[Link]) -> Option<Networkd> {
    if !is_active("systemd-networkd.service") {
        return None;
    }
    let link = |link: &Link| {
        // systemd-networkd's own picture of a link (`link_save` in src/network/networkd-state-file.c).
        let state = read(format!("/run/systemd/netif/links/{}", link.index).as_ref())?;
        let file = state.lines().find_map(|line| line.strip_prefix("NETWORK_FILE="))?;
        Some(ManagedLink { interface: link.name.clone(), file: file.into() })
    };
    let texts = drop_ins("networkd.conf");
    Some(Networkd {
        links: links.iter().filter_map(link).collect(),
        keeps_foreign_rules: foreign_rules_kept(texts.iter().map(String::as_str)),
    })
}

fn network_manager() -> Option<NetworkManager> {
    if !is_active("NetworkManager.service") {
        return None;
    }
    let fields = "UUID,DEVICE,FILENAME,NAME";
    let said = program::output("nmcli", &["-t", "-f", fields, "connection", "show", "--active"], BOUNDS).ok()?;
    let connection = |line: &str| {
        let [uuid, interface, file, name] = <[String; 4]>::try_from(terse(line)).ok()?;
        Some(Connection { interface, uuid, name, file })
    };
    Some(NetworkManager { connections: said.lines().filter_map(connection).collect() })
}

/// The fields of a line that `nmcli -t` prints: colons part them, and a backslash takes the next character as it is.
fn terse(line: &str) -> Vec<String> {
    let (mut fields, mut field) = (Vec::new(), String::new());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => field.extend(characters.next()),
            ':' => fields.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    fields.push(field);
    fields
}

fn netplan() -> Option<Netplan> {
    let has_files = |directory: &str| {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| entry.path().extension().is_some_and(|extension| extension == "yaml"))
    };
    if !["/etc/netplan", "/run/netplan", "/lib/netplan"].into_iter().any(has_files) {
        return None;
    }
    Some(Netplan::of_configuration(&program::output("netplan", &["get"], BOUNDS).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_what_parts_fields() {
        assert_eq!(
            terse(r"0a5b:ens5:/etc/a.nmconnection:up\: link\\"),
            ["0a5b", "ens5", "/etc/a.nmconnection", r"up: link\"]
        );
        assert_eq!(terse(""), [""]);
        assert_eq!(terse(r"a:\"), ["a", ""]);
    }
}
