//! The host's network state over rtnetlink: reading it, and adding and deleting single rules.

mod asker;
mod attribute;
mod change;
mod channel;
mod error;
mod link;
mod monitor;
mod neighbour;
mod netconf;
mod nexthop;
mod query;
mod route;
mod rule;

use std::collections::{BTreeSet, HashSet};

use netlink_packet_core::NLM_F_DUMP;
use tokio::sync::Mutex;

use self::attribute::family_number;
use self::channel::{Channel, Decoded, Failure, Request};
use self::rule::NotExact;
use crate::core::model::{
    Address, Family, Link, LinkKind, NeighbourEntry, Netns, PartialTable, Route, Rule, Snapshot, TABLE_DEFAULT,
    TABLE_LOCAL, TABLE_MAIN,
};
use crate::system::host;

pub use self::error::{NetlinkError, Operation};
pub use self::monitor::{Change, Monitor};
pub use self::query::Queries;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWRULE: u16 = 32;
const RTM_GETRULE: u16 = 34;
const RTA_OIF: u16 = 4;
const RTA_TABLE: u16 = 15;
/// For so many devices the kernel is asked for the routes of each by itself.
const FILTERED_DUMPS: usize = 8;

/// A connection to the kernel's rtnetlink, in the namespace of the thread that made it.
///
/// Its methods may be called from several tasks; they take turns.
pub struct Netlink {
    channel: Mutex<Channel>,
}

impl Netlink {
    /// Connects. Must be called within a tokio runtime that has I/O and time enabled.
    ///
    /// # Errors
    /// [`NetlinkError::Open`] if there is no such socket to be had.
    pub fn connect() -> Result<Self, NetlinkError> {
        Ok(Self { channel: Mutex::new(Channel::open()?) })
    }

    /// Everything that judging needs: host, links, addresses, rules, and the routes of each table that a rule or a VRF
    /// names, and of local, main and default. Other tables are not read: a router may hold millions of routes in them.
    /// `netns` is entered as given.
    ///
    /// # Errors
    /// Whatever list could not be read. A family that the kernel does not have is empty.
    pub async fn snapshot(&self, netns: Netns) -> Result<Snapshot, NetlinkError> {
        let mut snapshot = self.outline(netns).await?;
        self.fill(&mut snapshot).await?;
        Ok(snapshot)
    }

    /// A snapshot without routes.
    ///
    /// # Errors
    /// Whatever list could not be read.
    pub async fn outline(&self, netns: Netns) -> Result<Snapshot, NetlinkError> {
        Ok(Snapshot {
            host: host::facts(),
            netns,
            links: self.links().await?,
            addresses: self.addresses().await?,
            rules: self.rules().await?,
            ..Snapshot::default()
        })
    }

    /// Reads all routes of the tables that count, in place of those that the snapshot had.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn fill(&self, snapshot: &mut Snapshot) -> Result<(), NetlinkError> {
        let mut routes = Vec::new();
        for (family, table) in tables(snapshot) {
            routes.extend(self.routes(family, table).await?);
        }
        self.resolve_nexthop_objects(&mut routes).await?;
        (snapshot.routes, snapshot.partial) = (routes, Vec::new());
        Ok(())
    }

    /// The same, but of a table with more than `limit` routes only those by some devices, and IPv4's default routes; the
    /// table is then marked as partial.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn fill_through(
        &self,
        snapshot: &mut Snapshot,
        devices: &[u32],
        limit: usize,
    ) -> Result<(), NetlinkError> {
        let (mut routes, mut partial) = (Vec::new(), Vec::new());
        for (family, table) in tables(snapshot) {
            let (first, whole) = self.first_routes(family, table, limit).await?;
            if whole {
                routes.extend(first);
                continue;
            }
            routes.extend(self.routes_through(family, table, devices, &first).await?);
            partial.push(PartialTable { family, table });
        }
        self.resolve_nexthop_objects(&mut routes).await?;
        (snapshot.routes, snapshot.partial) = (routes, partial);
        Ok(())
    }

    /// The first routes of a table, and whether that was all.
    async fn first_routes(&self, family: Family, table: u32, limit: usize) -> Result<(Vec<Route>, bool), NetlinkError> {
        let request = route_dump(family, table, None);
        let (outcome, whole) = match Channel::open()?.first(&request, of_table(family, table), limit).await {
            Ok((routes, whole)) => (Ok(routes), whole),
            Err(failure) => (or_none(family, RTM_GETROUTE, Err(failure)), true),
        };
        let routes = outcome.map_err(|failure| failure.of(Operation::ListRoutes(family, table)))?;
        Ok((routes, whole))
    }

    /// The routes of a large table by these devices, and its default routes. The kernel goes through the whole table for
    /// each filtered dump, so for many devices one dump of all is sifted here.
    async fn routes_through(
        &self,
        family: Family,
        table: u32,
        devices: &[u32],
        first: &[Route],
    ) -> Result<Vec<Route>, NetlinkError> {
        let operation = Operation::ListRoutes(family, table);
        let wanted: HashSet<u32> = devices.iter().copied().collect();
        if devices.len() > FILTERED_DUMPS {
            let keep = |route: &Route| leaves_by_any(route, &wanted) || route.destination.prefix_len() == 0;
            let decode = |kind, payload: &[u8]| Ok(of_table(family, table)(kind, payload)?.filter(keep));
            return self
                .dump_family(family, operation, RTM_GETROUTE, route_dump(family, table, None).body, decode)
                .await;
        }
        // IPv4 lists its default routes first (`fib_table_dump`); IPv6 last (`fib6_walk`), so there they are missing.
        let is_other = |route: &&Route| route.destination.prefix_len() == 0 && !leaves_by_any(route, &wanted);
        let mut routes: Vec<Route> = first.iter().filter(is_other).cloned().collect();
        let mut seen = HashSet::new();
        for device in devices {
            // A multipath route by two of the devices is listed for each.
            let decode = |kind, payload: &[u8]| {
                let route = of_table(family, table)(kind, payload)?;
                Ok(route.filter(|route| !leaves_by_any(route, &seen)))
            };
            let body = route_dump(family, table, Some(*device)).body;
            routes.extend(self.dump_family(family, operation.clone(), RTM_GETROUTE, body, decode).await?);
            seen.insert(*device);
        }
        Ok(routes)
    }

    /// All interfaces, with their settings. Where the kernel refuses to tell these, they are what it starts with.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        let decode = |kind, payload: &[u8]| if kind == RTM_NEWLINK { link::link(payload) } else { Ok(None) };
        let mut links = self.dump(Operation::ListLinks, RTM_GETLINK, vec![0; 16], decode).await?;
        for family in Family::ALL {
            netconf::enter(&mut links, family, &self.settings(family).await?);
        }
        Ok(links)
    }

    async fn settings(&self, family: Family) -> Result<Vec<netconf::Settings>, NetlinkError> {
        let mut body = vec![0; netconf::HEADER_BYTES];
        set_family(&mut body, family);
        // Where the kernel has no IPv6 it answers for all families.
        let decode = move |kind, payload: &[u8]| match kind {
            netconf::RTM_NEWNETCONF if is_of(family, payload) => netconf::settings(payload),
            _ => Ok(None),
        };
        let request = Request { kind: netconf::RTM_GETNETCONF, flags: NLM_F_DUMP, body };
        match self.channel.lock().await.exchange(&request, decode).await {
            Err(Failure::Refused { .. }) => Ok(Vec::new()),
            outcome => outcome.map_err(|failure| failure.of(Operation::ListSettings(family))),
        }
    }

    /// All addresses of both families.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn addresses(&self) -> Result<Vec<Address>, NetlinkError> {
        let mut addresses = Vec::new();
        for family in Family::ALL {
            let body = vec![family_number(family), 0, 0, 0, 0, 0, 0, 0];
            let decode = move |kind, payload: &[u8]| match kind {
                RTM_NEWADDR if is_of(family, payload) => link::interface_address(payload),
                _ => Ok(None),
            };
            let operation = Operation::ListAddresses(family);
            addresses.extend(self.dump_family(family, operation, RTM_GETADDR, body, decode).await?);
        }
        Ok(addresses)
    }

    /// All neighbour entries of both families.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn neighbours(&self) -> Result<Vec<NeighbourEntry>, NetlinkError> {
        let mut neighbours = Vec::new();
        for family in Family::ALL {
            let mut body = vec![0; neighbour::HEADER_BYTES];
            body.splice(..1, [family_number(family)]);
            let decode = move |kind, payload: &[u8]| match kind {
                neighbour::RTM_NEWNEIGH if is_of(family, payload) => neighbour::neighbour(payload),
                _ => Ok(None),
            };
            let operation = Operation::ListNeighbours(family);
            neighbours.extend(self.dump_family(family, operation, neighbour::RTM_GETNEIGH, body, decode).await?);
        }
        Ok(neighbours)
    }

    /// All rules of both families, IPv4 first, each in the kernel's order.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn rules(&self) -> Result<Vec<Rule>, NetlinkError> {
        let mut rules = Vec::new();
        for family in Family::ALL {
            rules.extend(self.rules_of(family).await?);
        }
        Ok(rules)
    }

    async fn rules_of(&self, family: Family) -> Result<Vec<Rule>, NetlinkError> {
        let mut body = vec![0; 12];
        set_family(&mut body, family);
        let decode = move |kind, payload: &[u8]| match kind {
            RTM_NEWRULE if is_of(family, payload) => rule::rule(payload),
            _ => Ok(None),
        };
        let request = Request { kind: RTM_GETRULE, flags: NLM_F_DUMP, body };
        // `dump_rules` has no mark for an interruption, and goes on by counting: a rule could be missing or there twice.
        let outcome = self.channel.lock().await.exchange_steady(&request, decode).await;
        or_none(family, RTM_GETRULE, outcome).map_err(|failure| failure.of(Operation::ListRules(family)))
    }

    /// The routes of one table, none if there is no such table.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn routes(&self, family: Family, table: u32) -> Result<Vec<Route>, NetlinkError> {
        let body = route_dump(family, table, None).body;
        let decode = of_table(family, table);
        self.dump_family(family, Operation::ListRoutes(family, table), RTM_GETROUTE, body, decode).await
    }

    /// Adds exactly this rule, at exactly its priority.
    ///
    /// # Errors
    /// [`NetlinkError::is_exists`] where the same rule, protocol included, is there already;
    /// [`NetlinkError::Collides`] where the kernel takes another for the same;
    /// [`NetlinkError::is_privilege`] without `CAP_NET_ADMIN`.
    pub async fn add_rule(&self, rule: &Rule) -> Result<(), NetlinkError> {
        let operation = Operation::AddRule(Box::new(rule.clone()));
        let outcome = change::add(operation.clone(), rule).await;
        match outcome {
            Err(error) if error.is_exists() => {
                let other = rule::collision(&self.rules_of(rule.family).await?, rule).cloned().map(Box::new);
                Err(other.map_or(error, |other| NetlinkError::Collides { operation, other }))
            }
            outcome => outcome,
        }
    }

    /// Deletes exactly this rule. The kernel takes what a request leaves out for "any" and deletes the first match, so the
    /// rules are read before: if another would go, nothing is deleted. Between that look and the deletion others can still
    /// change the rules; the caller reads back.
    ///
    /// # Errors
    /// [`NetlinkError::Missing`] where this rule is not there, [`NetlinkError::Ambiguous`] where another would go in its
    /// stead; [`NetlinkError::is_privilege`] without `CAP_NET_ADMIN`.
    pub async fn delete_rule(&self, rule: &Rule) -> Result<(), NetlinkError> {
        let operation = Operation::DeleteRule(Box::new(rule.clone()));
        match rule::check_deletion(&self.rules_of(rule.family).await?, rule) {
            Ok(()) => change::delete(operation, rule).await,
            Err(NotExact::Missing) => Err(NetlinkError::Missing { operation }),
            Err(NotExact::Another(other)) => Err(NetlinkError::Ambiguous { operation, other }),
        }
    }

    /// Where `net.ipv4.nexthop_compat_mode` is 0, routes tell only the id of their nexthop object.
    async fn resolve_nexthop_objects(&self, routes: &mut [Route]) -> Result<(), NetlinkError> {
        if !routes.iter().any(nexthop::is_unresolved) {
            return Ok(());
        }
        let decode = |kind, payload: &[u8]| match kind {
            nexthop::RTM_NEWNEXTHOP => nexthop::object(payload),
            _ => Ok(None),
        };
        let objects = self.dump(Operation::ListNexthops, nexthop::RTM_GETNEXTHOP, vec![0; 8], decode).await?;
        nexthop::resolve(routes, &objects);
        Ok(())
    }

    async fn dump<T>(
        &self,
        operation: Operation,
        kind: u16,
        body: Vec<u8>,
        decode: impl Fn(u16, &[u8]) -> Decoded<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        let request = Request { kind, flags: NLM_F_DUMP, body };
        let outcome = self.channel.lock().await.exchange(&request, decode).await;
        outcome.map_err(|failure| failure.of(operation))
    }

    /// A dump where "there is no such thing" means "none": IPv6 absent from the kernel, or a table that does not exist.
    async fn dump_family<T>(
        &self,
        family: Family,
        operation: Operation,
        kind: u16,
        body: Vec<u8>,
        decode: impl Fn(u16, &[u8]) -> Decoded<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        let request = Request { kind, flags: NLM_F_DUMP, body };
        let outcome = self.channel.lock().await.exchange(&request, decode).await;
        or_none(family, kind, outcome).map_err(|failure| failure.of(operation))
    }
}

/// Nothing, where the kernel says that there is no such family or table.
fn or_none<T>(family: Family, kind: u16, outcome: Result<Vec<T>, Failure>) -> Result<Vec<T>, Failure> {
    match outcome {
        Err(Failure::Refused { errno: libc::EAFNOSUPPORT | libc::EOPNOTSUPP, .. }) if family == Family::V6 => {
            Ok(Vec::new())
        }
        Err(Failure::Refused { errno: libc::ENOENT, .. }) if kind == RTM_GETROUTE => Ok(Vec::new()),
        outcome => outcome,
    }
}

/// The tables to read: those that a rule or a VRF names, and the kernel's own three.
fn tables(snapshot: &Snapshot) -> BTreeSet<(Family, u32)> {
    let named = snapshot.rules.iter().filter_map(|rule| Some((rule.family, rule.table()?)));
    let of_vrfs = snapshot.links.iter().filter_map(|link| match link.kind {
        LinkKind::Vrf { table } => Some(table),
        _ => None,
    });
    let of_both = [TABLE_LOCAL, TABLE_MAIN, TABLE_DEFAULT].into_iter().chain(of_vrfs);
    let of_both = of_both.flat_map(|table| Family::ALL.map(|family| (family, table)));
    // Table 0 in a request means all tables.
    named.chain(of_both).filter(|(_, table)| *table != 0).collect()
}

/// The request for the routes of a table, of those by one device where one is given. Strict checking makes the kernel
/// filter (`ip_valid_fib_dump_req`, `net/ipv4/fib_frontend.c`).
fn route_dump(family: Family, table: u32, device: Option<u32>) -> Request {
    let mut body = vec![0; 12];
    set_family(&mut body, family);
    for (attribute, value) in [(RTA_TABLE, Some(table)), (RTA_OIF, device)] {
        let Some(value) = value else { continue };
        body.extend_from_slice(&8_u16.to_ne_bytes());
        body.extend_from_slice(&attribute.to_ne_bytes());
        body.extend_from_slice(&value.to_ne_bytes());
    }
    Request { kind: RTM_GETROUTE, flags: NLM_F_DUMP, body }
}

/// Decodes the routes of one table. Where the kernel has no IPv6 it answers for all families; where it cannot filter, with
/// all tables.
fn of_table(family: Family, table: u32) -> impl Fn(u16, &[u8]) -> Decoded<Route> {
    move |kind, payload| match kind {
        RTM_NEWROUTE if is_of(family, payload) => Ok(route::route(payload)?.filter(|route| route.table == table)),
        _ => Ok(None),
    }
}

/// One by an unresolved nexthop object may leave by any device.
fn leaves_by_any(route: &Route, devices: &HashSet<u32>) -> bool {
    nexthop::is_unresolved(route)
        || route.nexthops.iter().any(|nexthop| nexthop.ifindex.is_some_and(|index| devices.contains(&index)))
}

/// Is it a message of this family? The family is the first byte of every rtnetlink header.
fn is_of(family: Family, payload: &[u8]) -> bool {
    payload.first() == Some(&family_number(family))
}

fn set_family(body: &mut [u8], family: Family) {
    if let Some(first) = body.first_mut() {
        *first = family_number(family);
    }
}
