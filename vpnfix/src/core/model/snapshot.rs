//! Everything that judging needs of a host, taken at one moment.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Address, Family, Link, LinkKind, Route, Rule};

/// The network state of one namespace at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The host.
    pub host: HostFacts,
    /// The namespace.
    pub netns: Netns,
    /// Interfaces.
    pub links: Vec<Link>,
    /// Addresses.
    pub addresses: Vec<Address>,
    /// Rules of both families, each in the kernel's order.
    pub rules: Vec<Rule>,
    /// Routes of the tables that a rule names, and of local, main and default. Those of one table stand together, and those
    /// of one prefix in the kernel's order.
    pub routes: Vec<Route>,
    /// Tables of which only some routes were read.
    #[serde(default)]
    pub partial: Vec<PartialTable>,
}

/// A table of which only the routes by some devices were read: a router may hold millions of others in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartialTable {
    /// Family.
    pub family: Family,
    /// Table.
    pub table: u32,
}

/// The host that a snapshot is of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostFacts {
    /// Kernel release (`uname -r`).
    pub kernel: String,
    /// Host name.
    pub hostname: String,
    /// Maker of the machine as its firmware tells (DMI `sys_vendor`): `Amazon EC2`, `Google`.
    #[serde(default)]
    pub vendor: Option<String>,
}

/// A network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Netns {
    /// Its name under /run/netns, or the path given; `null` for the one that vpnfix was started in.
    pub name: Option<String>,
    /// Inode number, the kernel's own identity of it.
    pub inode: u64,
}

impl Snapshot {
    /// The interface of this index.
    #[must_use]
    pub fn link(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// The interface of this name.
    #[must_use]
    pub fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The name of the interface of this index, `if7` where there is none.
    #[must_use]
    pub fn device_name(&self, index: u32) -> String {
        self.link(index).map_or_else(|| format!("if{index}"), |link| link.name.clone())
    }

    /// The rules of a family in the order in which the kernel asks them.
    pub fn rules_of(&self, family: Family) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |rule| rule.family == family)
    }

    /// The routes of a table.
    pub fn table(&self, family: Family, table: u32) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(move |route| route.family == family && route.table == table)
    }

    /// Were all routes of this table read?
    #[must_use]
    pub fn is_whole(&self, family: Family, table: u32) -> bool {
        !self.partial.iter().any(|partial| partial.family == family && partial.table == table)
    }

    /// The table of the VRF that an interface is enslaved to.
    #[must_use]
    pub fn vrf_table(&self, link: &Link) -> Option<u32> {
        match self.link(link.master?)?.kind {
            LinkKind::Vrf { table } => Some(table),
            _ => None,
        }
    }
}
