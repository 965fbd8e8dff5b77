//! Classes of flows to one destination: what else of a flow the rules and routes can tell apart.
//!
//! A flow's other parts are taken one after the other. Of each, every value is tried that could be told from the others;
//! those that all rules treat alike are one. Then the parts are joined: what counts is only which rules still can match, so
//! that combinations in which the same rules have dropped out are one class again. No rule is asked in another way than by
//! the walk itself, with all its other selectors taken away.

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, Ipv6Addr};

use super::bits::{self, Bits};
use super::destinations::{Destinations, boundaries};
use super::scope::Scope;
use crate::core::model::{Family, Link, LinkKind, Ports, Rule};
use crate::core::walk::{self, Fib, Flow, LOOPBACK_INDEX, Match};

/// Classes at the most.
const LIMIT: usize = 10_000;
/// Combinations of parts that are tried at the most, for each part.
const JOINS: usize = 500_000;
/// The bits of a type of service that are the DSCP (RFC 2474).
const DSCP_BITS: u8 = 0xfc;

/// One flow of each class; the destination is still to be filled in.
pub(super) struct Classes {
    pub(super) flows: Vec<Flow>,
    /// No class is missing.
    pub(super) whole: bool,
}

/// The classes of flows that the rules of the scope, and the routes to its destinations, can tell apart. The ordinary
/// flow comes first.
pub(super) fn classes(fib: &Fib<'_>, scope: &Scope<'_>, destinations: &Destinations) -> Classes {
    let any = match scope.family {
        Family::V4 => IpAddr::from([0_u8; 4]),
        Family::V6 => IpAddr::from([0_u8; 16]),
    };
    let ground = Ground { fib, scope, destinations, plain: Flow::plain(any) };
    let mut whole = true;
    let mut all = vec![Class { flow: ground.plain.clone(), traits: Vec::new() }];
    for part in Part::ALL {
        let Some(values) = ground.values(part) else {
            // Not all values are known, but the ordinary one is.
            whole = false;
            continue;
        };
        let selectors = ground.selectors(part);
        let values = values.into_iter().map(|flow| Class { traits: ground.traits(part, &selectors, &flow), flow });
        let (values, all_values) = distinct(values);
        let tried = all.len().saturating_mul(values.len()).min(JOINS);
        whole &= all_values && tried == all.len().saturating_mul(values.len());
        let joined = all.iter().flat_map(|class| values.iter().map(|value| class.join(part, value)));
        let (joined, all_joined) = distinct(joined.take(tried));
        whole &= all_joined;
        all = joined;
    }
    Classes { flows: all.into_iter().map(|class| class.flow).collect(), whole }
}

/// A part of a flow beside its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Source,
    Devices,
    Mark,
    User,
    Protocol,
    SourcePort,
    DestinationPort,
    Tos,
    FlowLabel,
    TunnelId,
}

impl Part {
    const ALL: [Self; 10] = [
        Self::Source,
        Self::Devices,
        Self::Mark,
        Self::User,
        Self::Protocol,
        Self::SourcePort,
        Self::DestinationPort,
        Self::Tos,
        Self::FlowLabel,
        Self::TunnelId,
    ];

    /// Sets this part of one flow to that of another.
    fn copy(self, from: &Flow, to: &mut Flow) {
        match self {
            Self::Source => to.from = from.from,
            Self::Devices => (to.iif, to.oif) = (from.iif, from.oif),
            Self::Mark => to.mark = from.mark,
            Self::User => to.uid = from.uid,
            Self::Protocol => to.protocol = from.protocol,
            Self::SourcePort => to.source_port = from.source_port,
            Self::DestinationPort => to.destination_port = from.destination_port,
            Self::Tos => to.tos = from.tos,
            Self::FlowLabel => to.flow_label = from.flow_label,
            Self::TunnelId => to.tunnel_id = from.tunnel_id,
        }
    }

    /// A rule with the selectors of this part alone; nothing if it has none.
    fn only(self, rule: &Rule) -> Option<Rule> {
        let blank = Rule::lookup(rule.family, rule.priority, 0);
        let rule = rule.clone();
        let selectors = match self {
            Self::Source => Rule { from: rule.from, find_source: rule.find_source, ..blank.clone() },
            Self::Devices => Rule {
                iif: rule.iif,
                iif_detached: rule.iif_detached,
                oif: rule.oif,
                oif_detached: rule.oif_detached,
                l3mdev: rule.l3mdev,
                ..blank.clone()
            },
            Self::Mark => Rule { mark: rule.mark, ..blank.clone() },
            Self::User => Rule { uid_range: rule.uid_range, ..blank.clone() },
            Self::Protocol => Rule { ip_protocol: rule.ip_protocol, ..blank.clone() },
            Self::SourcePort => Rule { source_ports: rule.source_ports, ..blank.clone() },
            Self::DestinationPort => Rule { destination_ports: rule.destination_ports, ..blank.clone() },
            Self::Tos => Rule { tos: rule.tos, dscp: rule.dscp, ..blank.clone() },
            Self::FlowLabel => Rule { flow_label: rule.flow_label, ..blank.clone() },
            Self::TunnelId => Rule { tunnel_id: rule.tunnel_id, ..blank.clone() },
        };
        Some(selectors).filter(|selectors| *selectors != blank)
    }
}

/// A flow, and all of it that the walk can see.
struct Class {
    flow: Flow,
    traits: Vec<Trait>,
}

/// Something of a flow that the walk can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Trait {
    /// The rule of this place in the scope cannot match (before its `not` is heeded).
    Drops(usize),
    /// It cannot be told whether the rule matches.
    Doubtful(usize),
    /// Bound to this device, by which one of the routes leads.
    Bound(u32),
    /// Bound to a device by which none does.
    BoundElsewhere,
    /// Bound to this device, or came in by it, and it is special for another reason.
    By(u32),
    /// Comes from this VRF, or is bound to it, or to a port of it (by the index of the master).
    Vrf(u32),
    /// No source is chosen yet.
    NoSource,
    /// The source lies in this source prefix of a route, by its place.
    InSource(usize),
    /// The type of service.
    Tos(u8),
}

impl Class {
    /// This class with one more part.
    fn join(&self, part: Part, value: &Self) -> Self {
        let mut flow = self.flow.clone();
        part.copy(&value.flow, &mut flow);
        let traits: BTreeSet<Trait> = self.traits.iter().chain(&value.traits).copied().collect();
        Self { flow, traits: traits.into_iter().collect() }
    }
}

/// The first of each class, and whether these are all.
fn distinct(classes: impl Iterator<Item = Class>) -> (Vec<Class>, bool) {
    let mut seen = HashSet::new();
    let mut first: Vec<Class> = classes.filter(|class| seen.insert(class.traits.clone())).take(LIMIT + 1).collect();
    let whole = first.len() <= LIMIT;
    first.truncate(LIMIT);
    (first, whole)
}

/// What flows are divided by.
struct Ground<'g, 'a> {
    fib: &'g Fib<'a>,
    scope: &'g Scope<'g>,
    destinations: &'g Destinations,
    plain: Flow,
}

impl Ground<'_, '_> {
    /// The rules that have selectors of a part, with those alone, and their places in the scope.
    fn selectors(&self, part: Part) -> Vec<(usize, Rule)> {
        let rules = self.scope.rules.iter().enumerate();
        rules.filter_map(|(place, rule)| Some((place, part.only(rule)?))).collect()
    }

    /// What the walk can see of one part of a flow.
    fn traits(&self, part: Part, selectors: &[(usize, Rule)], flow: &Flow) -> Vec<Trait> {
        let asked = selectors.iter().map(|(place, rule)| (*place, walk::matches(self.fib, rule, flow)));
        let mut seen: BTreeSet<Trait> = asked
            .filter_map(|(place, answer)| match answer {
                Match::Yes => None,
                Match::No(_) => Some(Trait::Drops(place)),
                Match::Unknown(_) => Some(Trait::Doubtful(place)),
            })
            .collect();
        match part {
            Part::Devices => seen.extend(self.device_traits(flow)),
            Part::Source if self.scope.family == Family::V6 => seen.extend(self.source_traits(flow)),
            Part::Tos if self.destinations.by_tos => drop(seen.insert(Trait::Tos(flow.tos & DSCP_BITS))),
            _ => {}
        }
        seen.into_iter().collect()
    }

    /// A link-local destination of IPv6 is looked for on the link by which the packet came in.
    fn device_traits(&self, flow: &Flow) -> Vec<Trait> {
        let has_routes = |index: &u32| *index == LOOPBACK_INDEX || self.destinations.devices.contains(index);
        let bound = flow.oif.map(|index| if has_routes(&index) { Trait::Bound(index) } else { Trait::BoundElsewhere });
        let incoming = Some(flow.iif).filter(|iif| *iif > LOOPBACK_INDEX);
        let index = flow.oif.or(incoming);
        let link = index.and_then(|index| self.fib.link(index));
        // Whether the master is a VRF is the walk's to say; a bridge's ports are told apart here for nothing.
        let master = link.and_then(|link| if is_vrf(link) { Some(link.index) } else { link.master });
        let itself = link.filter(|link| is_vrf(link)).map(|link| link.index);
        let came = incoming.filter(|index| self.scope.family == Family::V6 && has_routes(index)).or(itself);
        bound.into_iter().chain(master.map(Trait::Vrf)).chain(came.map(Trait::By)).collect()
    }

    fn source_traits(&self, flow: &Flow) -> Vec<Trait> {
        let source = flow.from.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        let inside = self.destinations.sources.iter().enumerate().filter(|(_, prefix)| prefix.contains(&source));
        let none = flow.from.is_none().then_some(Trait::NoSource);
        none.into_iter().chain(inside.map(|(place, _)| Trait::InSource(place))).collect()
    }

    /// Flows that differ in one part only, with every value of it that could make a difference; the ordinary one first.
    /// Nothing if there are too many.
    fn values(&self, part: Part) -> Option<Vec<Flow>> {
        let plain = &self.plain;
        let with = |change: &dyn Fn(&mut Flow)| {
            let mut flow = plain.clone();
            change(&mut flow);
            flow
        };
        let rules = &self.scope.rules;
        let mut flows = vec![plain.clone()];
        match part {
            Part::Source => flows.extend(self.sources().into_iter().map(|from| with(&|flow| flow.from = Some(from)))),
            Part::Devices => {
                flows.extend(
                    self.devices().into_iter().map(|(iif, oif)| with(&|flow| (flow.iif, flow.oif) = (iif, oif))),
                );
            }
            Part::Mark => {
                let marks = rules.iter().filter_map(|rule| rule.mark);
                let marks = bits_of(marks.map(|mark| Bits { value: mark.value, mask: mark.mask }))?;
                flows.extend(marks.into_iter().map(|mark| with(&|flow| flow.mark = mark)));
            }
            Part::FlowLabel => {
                let labels = rules.iter().filter_map(|rule| rule.flow_label);
                let labels = bits_of(labels.map(|label| Bits { value: label.value, mask: label.mask }))?;
                flows.extend(labels.into_iter().map(|label| with(&|flow| flow.flow_label = label)));
            }
            Part::User => flows.extend(self.users().into_iter().map(|uid| with(&|flow| flow.uid = uid))),
            Part::Protocol if rules.iter().any(|rule| rule.ip_protocol.is_some()) => {
                flows.extend((0..=u8::MAX).map(|protocol| with(&|flow| flow.protocol = protocol)));
            }
            Part::SourcePort => {
                let ports = ports_of(rules.iter().filter_map(|rule| rule.source_ports));
                flows.extend(ports.into_iter().map(|port| with(&|flow| flow.source_port = port)));
            }
            Part::DestinationPort => {
                let ports = ports_of(rules.iter().filter_map(|rule| rule.destination_ports));
                flows.extend(ports.into_iter().map(|port| with(&|flow| flow.destination_port = port)));
            }
            Part::Tos if self.destinations.by_tos || rules.iter().any(|rule| rule.tos != 0 || rule.dscp.is_some()) => {
                flows.extend((0..=u8::MAX).map(|tos| with(&|flow| flow.tos = tos)));
            }
            Part::TunnelId => flows.extend(self.tunnel_ids().into_iter().map(|id| with(&|flow| flow.tunnel_id = id))),
            Part::Protocol | Part::Tos => {}
        }
        Some(flows)
    }

    /// The first source of each stretch between the boundaries of rules' and routes' source prefixes.
    fn sources(&self) -> Vec<IpAddr> {
        let prefixes = self.scope.rules.iter().filter_map(|rule| rule.from);
        let starts: BTreeSet<IpAddr> =
            prefixes.chain(self.destinations.sources.iter().copied()).flat_map(boundaries).collect();
        std::iter::once(self.plain.to).chain(starts).collect()
    }

    /// Input and output interfaces: the host's own packets are bound to one device or to none, those that come in by a
    /// device are not bound (`ip_route_input_slow`, `net/ipv4/route.c`; `ip6_route_input`, `net/ipv6/route.c`). Devices
    /// that no rule names, no route leads by, and that have the same master are alike.
    fn devices(&self) -> Vec<(u32, Option<u32>)> {
        let names: HashSet<&str> =
            self.scope.rules.iter().flat_map(|rule| [&rule.iif, &rule.oif]).flatten().map(String::as_str).collect();
        let mut seen = HashSet::new();
        let alone = |link: &Link| {
            let is_special = names.contains(link.name.as_str())
                || is_vrf(link)
                || link.index == LOOPBACK_INDEX
                || self.destinations.devices.contains(&link.index);
            is_special.then_some(link.index)
        };
        let links: Vec<u32> = self
            .fib
            .snapshot()
            .links
            .iter()
            .filter(|link| seen.insert((alone(link), link.master)))
            .map(|link| link.index)
            .collect();
        let bound = links.iter().map(|index| (LOOPBACK_INDEX, Some(*index)));
        let incoming = links.iter().filter(|index| **index != LOOPBACK_INDEX).map(|index| (*index, None));
        incoming.chain(bound).collect()
    }

    /// The first user of each stretch between the boundaries of rules' ranges.
    fn users(&self) -> BTreeSet<u32> {
        let ranges = self.scope.rules.iter().filter_map(|rule| rule.uid_range);
        ranges.flat_map(|range| [Some(range.start), range.end.checked_add(1)]).flatten().collect()
    }

    /// The tunnel ids that rules name, and one that none does.
    fn tunnel_ids(&self) -> BTreeSet<u64> {
        let mut ids: BTreeSet<u64> = self.scope.rules.iter().filter_map(|rule| rule.tunnel_id).collect();
        ids.extend((1..=u64::MAX).find(|id| !ids.contains(id)));
        ids
    }
}

fn bits_of(selectors: impl Iterator<Item = Bits>) -> Option<Vec<u32>> {
    bits::representatives(&selectors.collect::<Vec<_>>())
}

/// One port of each class: where a mask is compared, simply all.
fn ports_of(selectors: impl Iterator<Item = Ports>) -> BTreeSet<u16> {
    let mut found = BTreeSet::new();
    for ports in selectors {
        match ports {
            Ports::Range { start, end } => found.extend([Some(start), end.checked_add(1)].into_iter().flatten()),
            Ports::Masked { .. } => return (0..=u16::MAX).collect(),
        }
    }
    found
}

fn is_vrf(link: &Link) -> bool {
    matches!(link.kind, LinkKind::Vrf { .. })
}
