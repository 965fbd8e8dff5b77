//! Prefixes that the configuration adds to what belongs into a tunnel, or takes out of it.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::core::destination::{Class, Destination};
use crate::core::model::Family;
use crate::core::tunnel::Tunnel;
use crate::core::walk::Fib;

/// What the configuration says of prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Prefixes {
    /// Prefixes that belong into a tunnel though no route says so.
    pub add: Vec<Added>,
    /// Destinations inside these prefixes are not judged, and no rule is made for them.
    pub leave: Vec<IpNet>,
}

/// A prefix that belongs into a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Added {
    /// The prefix.
    pub prefix: IpNet,
    /// Name of the tunnel's device.
    pub tunnel: String,
}

impl Prefixes {
    /// Adds and takes out. An added prefix whose tunnel is not there, or whose addresses are all the host's own, is left
    /// out; one that a route sends there anyway is there already.
    pub fn apply(&self, fib: &Fib<'_>, tunnels: &[Tunnel], destinations: &mut Vec<Destination>) {
        for added in &self.add {
            let prefix = added.prefix.trunc();
            let known = destinations.iter().any(|destination| destination.prefix == prefix);
            let tunnel = tunnels.iter().find(|tunnel| tunnel.name == added.tunnel);
            if let Some(tunnel) = tunnel.filter(|_| !known) {
                destinations.extend(destination(fib, tunnel, prefix));
            }
        }
        destinations.retain(|destination| !self.leave.iter().any(|leave| leave.contains(&destination.prefix)));
    }
}

fn destination(fib: &Fib<'_>, tunnel: &Tunnel, prefix: IpNet) -> Option<Destination> {
    let address = prefix.hosts().take(3).find(|address| !fib.is_own(*address))?;
    let inside = tunnel.inside.iter().find(|inside| Family::of(inside.local) == Family::of(address));
    Some(Destination {
        class: if prefix.prefix_len() == 0 { Class::Default } else { Class::Routed },
        prefix,
        address,
        peer: None,
        inside_source: inside.map(|inside| inside.local),
        tunnels: vec![tunnel.ifindex],
        table: tunnel.table,
        vrf: tunnel.vrf,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::model::Snapshot;

    #[test]
    fn prefixes_are_added_once_and_left_alone_with_all_inside() {
        let snapshot = Snapshot::default();
        let fib = Fib::new(&snapshot);
        let tunnel = Tunnel {
            ifindex: 3,
            name: "vti1".into(),
            kind: "vti".into(),
            up: true,
            key: None,
            outer_peer: None,
            table: 254,
            vrf: None,
            inside: Vec::new(),
        };
        let add =
            |prefix: &str, tunnel: &str| Added { prefix: prefix.parse().expect("a prefix"), tunnel: tunnel.into() };
        let prefixes = Prefixes {
            add: vec![
                add("10.1.0.7/16", "vti1"),
                add("10.1.0.0/16", "vti1"),
                add("10.2.0.0/16", "gone"),
                add("10.9.3.0/24", "vti1"),
            ],
            leave: vec!["10.9.0.0/16".parse().expect("a prefix")],
        };
        let mut found = Vec::new();
        prefixes.apply(&fib, &[tunnel], &mut found);
        let told: Vec<String> = found.iter().map(|found| found.prefix.to_string()).collect();
        assert_eq!(told, ["10.1.0.0/16"]);
        assert_eq!(found[0].tunnels, [3]);
    }
}
