//! What is known of the programs that manage this host's network.

/// The programs that run here and could keep rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managers {
    /// systemd is the init system; with its version where that is known.
    pub systemd: Option<Release>,
    /// systemd-networkd runs.
    pub networkd: Option<Networkd>,
    /// NetworkManager runs.
    pub network_manager: Option<NetworkManager>,
    /// netplan writes systemd-networkd's files here.
    pub netplan: Option<Netplan>,
    /// ifupdown brought interfaces up.
    pub ifupdown: Option<Ifupdown>,
}

/// systemd's version; `None` where it did not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release(pub Option<u32>);

impl Release {
    /// Is it this version or a later one? An unknown one is taken for old.
    #[must_use]
    pub fn since(self, version: u32) -> bool {
        self.0.is_some_and(|own| own >= version)
    }
}

/// systemd-networkd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networkd {
    /// The interfaces that it manages.
    pub links: Vec<ManagedLink>,
    /// `ManageForeignRoutingPolicyRules=no` holds (networkd.conf(5)).
    pub keeps_foreign_rules: bool,
}

/// An interface that systemd-networkd manages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedLink {
    /// Its name.
    pub interface: String,
    /// The .network file that holds for it.
    pub file: String,
}

/// NetworkManager.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkManager {
    /// Its active profiles.
    pub connections: Vec<Connection>,
}

/// A connection profile of NetworkManager.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct Connection {
    /// The device that it is active on.
    pub interface: String,
    /// Its UUID.
    pub uuid: String,
    /// Its name.
    pub name: String,
    /// The file that holds it; empty where it has none.
    pub file: String,
}

impl Connection {
    /// Lies on disk. A profile under /run is NetworkManager's own picture of what others configured, or is gone at reboot.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        !self.file.is_empty() && !self.file.starts_with("/run/")
    }
}

/// netplan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Netplan {
    /// The definitions of its configuration.
    pub interfaces: Vec<NetplanInterface>,
}

/// One definition of netplan's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetplanInterface {
    /// Its id, mostly the interface's name.
    pub id: String,
    /// The part of the configuration that it stands in: `ethernets`, `bonds` …
    pub section: String,
}

impl Netplan {
    /// Reads what `netplan get` prints: the whole configuration, merged, in block style with two spaces a level.
    #[must_use]
    pub fn of_configuration(text: &str) -> Self {
        let (mut interfaces, mut section) = (Vec::new(), None);
        for line in text.lines() {
            let Some(key) = line.trim_end().strip_suffix(':') else { continue };
            match key.len() - key.trim_start().len() {
                2 => section = Some(key.trim()),
                4 => {
                    let id = key.trim().trim_matches('"');
                    let parts = section.filter(|section| section.ends_with('s'));
                    interfaces.extend(parts.map(|section| NetplanInterface { id: id.into(), section: section.into() }));
                }
                _ => {}
            }
        }
        Self { interfaces }
    }
}

/// ifupdown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ifupdown {
    /// The interfaces that it brought up.
    pub interfaces: Vec<String>,
}

impl Ifupdown {
    /// Reads ifupdown's state (`/run/network/ifstate`): `INTERFACE=DEFINITION`, a line each.
    #[must_use]
    pub fn of_state(text: &str) -> Self {
        let names = text.lines().filter_map(|line| Some(line.split_once('=')?.0.trim()));
        Self { interfaces: names.filter(|name| !name.is_empty() && *name != "lo").map(Into::into).collect() }
    }
}

/// Does `ManageForeignRoutingPolicyRules=no` hold? The texts are networkd.conf and its drop-ins in the order in which they
/// are read; the last one that sets it wins.
#[must_use]
pub fn foreign_rules_kept<'t>(texts: impl Iterator<Item = &'t str>) -> bool {
    let mut manages = true;
    for text in texts {
        let mut section = "";
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                section = line;
            } else if section == "[Network]"
                && let Some((key, value)) = line.split_once('=')
                && key.trim() == "ManageForeignRoutingPolicyRules"
            {
                // An empty value takes back what was set; one that is no boolean changes nothing.
                match value.trim().to_ascii_lowercase().as_str() {
                    "" | "1" | "yes" | "y" | "true" | "t" | "on" => manages = true,
                    "0" | "no" | "n" | "false" | "f" | "off" => manages = false,
                    _ => {}
                }
            }
        }
    }
    !manages
}
