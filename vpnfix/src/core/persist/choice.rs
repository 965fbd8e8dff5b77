//! Who keeps the rules: whoever really manages the interface that the hijacked traffic left by.

use super::facts::Managers;
use super::{PersistError, name};
use crate::core::model::{Link, LinkKind, Snapshot, TABLE_MAIN};
use crate::core::own_file::Backend;
use crate::core::tunnel::Tunnel;

/// A backend, the interface that the rules come with, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Who.
    pub backend: Backend,
    /// The interface; none where rules come with the boot.
    pub interface: Option<String>,
    /// Why.
    pub why: String,
}

/// The interfaces that rules may come with: those of main's default routes, the smallest metric first, then all others
/// that are up. No tunnel and no loopback.
#[must_use]
pub fn uplinks(snapshot: &Snapshot, tunnels: &[Tunnel]) -> Vec<String> {
    let mut defaults: Vec<_> = snapshot
        .routes
        .iter()
        .filter(|route| route.table == TABLE_MAIN && route.destination.prefix_len() == 0)
        .collect();
    defaults.sort_by_key(|route| (route.family, route.metric));
    let by_default = defaults.iter().flat_map(|route| &route.nexthops).filter_map(|nexthop| nexthop.ifindex);
    let others = snapshot.links.iter().filter(|link| link.up).map(|link| link.index);
    let mut names: Vec<String> = Vec::new();
    for index in by_default.chain(others) {
        let link = snapshot.links.iter().find(|link| link.index == index);
        if let Some(link) = link.filter(|link| may_carry(link, tunnels))
            && !names.contains(&link.name)
        {
            names.push(link.name.clone());
        }
    }
    names
}

fn may_carry(link: &Link, tunnels: &[Tunnel]) -> bool {
    let is_tunnel = matches!(link.kind, LinkKind::Vti { .. } | LinkKind::Xfrm { .. } | LinkKind::Loopback);
    !is_tunnel && tunnels.iter().all(|tunnel| tunnel.ifindex != link.index)
}

/// All that come into question, the best first.
pub(super) fn choices(managers: &Managers, uplinks: &[String]) -> Vec<Choice> {
    let order = [Backend::Netplan, Backend::Networkd, Backend::NetworkManager, Backend::Ifupdown];
    let mut choices = Vec::new();
    for uplink in uplinks {
        for backend in order {
            if manages(backend, managers, uplink) {
                let why = match backend {
                    Backend::Netplan => format!("netplan configures {uplink}, and can express the rules"),
                    _ => format!("{} manages {uplink}", name(backend)),
                };
                choices.push(Choice { backend, interface: Some(uplink.clone()), why });
            }
        }
    }
    if managers.systemd.is_some() {
        let why = "a unit needs nobody who manages the interface".into();
        choices.push(Choice { backend: Backend::Systemd, interface: None, why });
    }
    choices
}

/// The interface that rules come with under the backend that was asked for.
pub(super) fn interface(
    backend: Backend,
    managers: &Managers,
    uplinks: &[String],
) -> Result<Option<String>, PersistError> {
    if backend == Backend::Systemd {
        let lacks = || PersistError::not_here(backend, "is not the init system here");
        return managers.systemd.map(|_| None).ok_or_else(lacks);
    }
    let found = uplinks.iter().find(|uplink| manages(backend, managers, uplink));
    found.map(|uplink| Some(uplink.clone())).ok_or_else(|| {
        let among = if uplinks.is_empty() { "no interface that is up".into() } else { uplinks.join(", ") };
        PersistError::not_here(backend, format!("manages none of the interfaces that rules could come with ({among})"))
    })
}

fn manages(backend: Backend, managers: &Managers, interface: &str) -> bool {
    match backend {
        Backend::Networkd => managers.networkd.as_ref().is_some_and(|networkd| networkd.link(interface).is_some()),
        Backend::NetworkManager => managers.network_manager.as_ref().is_some_and(|manager| {
            manager.connections.iter().any(|active| active.is_persistent() && active.interface == interface)
        }),
        Backend::Netplan => managers.definition(interface).is_some(),
        Backend::Ifupdown => {
            managers.ifupdown.as_ref().is_some_and(|ifupdown| ifupdown.interfaces.iter().any(|up| up == interface))
        }
        Backend::Systemd => managers.systemd.is_some(),
    }
}
