//! The document of `explain`.

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Outcome;
use super::diagnose::{DestinationClass, PlanReport};
use crate::core::finding::{Cure, NamedRule, Owner, Reason};
use crate::core::model::{HostFacts, Netns};

/// Name of the schema.
pub const SCHEMA: &str = "vpnfix.explain/1";

/// The walk of one packet, rule by rule, beside the kernel's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExplainReport {
    /// Always `vpnfix.explain/1`.
    pub schema: String,
    /// Version of vpnfix.
    pub version: String,
    /// The exit status in words.
    pub outcome: Outcome,
    /// The host.
    pub host: HostFacts,
    /// The namespace.
    pub netns: Netns,
    /// The packet.
    pub flow: Packet,
    /// What kind of address the destination is.
    pub address: AddressKind,
    /// Every rule of the family in order, with what it did.
    pub steps: Vec<WalkStep>,
    /// Where the walk ends, by vpnfix's reading.
    pub reading: Way,
    /// The kernel's own answer; `null` where it cannot be asked.
    pub kernel: Option<KernelAnswer>,
    /// Whether both agree.
    pub agreement: Agreement,
    /// Whether it goes where it should.
    pub verdict: PacketVerdict,
    /// The tunnel destination that the address lies in.
    pub belongs: Option<Belonging>,
    /// What keeps it out of the tunnel.
    pub obstacle: Option<Obstacle>,
    /// What each known remedy would do to this packet.
    pub remedies: Vec<Remedy>,
    /// What `vpnfix fix` would do, as far as it bears on this packet.
    pub plan: Option<PlanReport>,
    /// The cure at the root.
    pub cure: Vec<Cure>,
    /// What is worth knowing besides.
    pub notes: Vec<String>,
}

/// The packet, as the kernel sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Packet {
    /// Destination.
    pub to: IpAddr,
    /// Source, `null` while none is chosen.
    pub from: Option<IpAddr>,
    /// Device that it came in by; `null` for the host's own packets.
    pub iif: Option<String>,
    /// Device that its socket is bound to.
    pub oif: Option<String>,
    /// Firewall mark.
    pub mark: u32,
    /// User.
    pub uid: u32,
    /// IP protocol number. The kernel takes UDP (17) where an IPv4 question names none.
    pub protocol: u8,
    /// Source port, 0 without.
    pub source_port: u16,
    /// Destination port, 0 without.
    pub destination_port: u16,
    /// Type of service: the whole byte, DSCP in its upper six bits.
    pub tos: u8,
}

/// What kind of address a destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AddressKind {
    /// A loopback address.
    Loopback,
    /// One of the host's own.
    Own,
    /// A broadcast address.
    Broadcast,
    /// A multicast group.
    Multicast,
    /// An IPv6 link-local address, which every link has.
    LinkLocal,
    /// Any other.
    Unicast,
}

/// One rule and what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WalkStep {
    /// Priority.
    pub priority: u32,
    /// As `ip rule` shows it, without the priority.
    pub rule: String,
    /// It ended the walk.
    pub decided: bool,
    /// What it did.
    #[serde(flatten)]
    pub did: Did,
}

/// What a rule did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "did", rename_all = "kebab-case")]
pub enum Did {
    /// The walk had ended before it.
    NotAsked,
    /// It stands between a `goto` and its target.
    JumpedOver,
    /// It does not match.
    NoMatch {
        /// The first selector, in the kernel's order, that does not fit.
        selector: Selector,
        /// In words, with the packet's own value.
        why: String,
    },
    /// It matches and does nothing.
    Nothing {
        /// Why.
        why: String,
    },
    /// It matches, and the walk goes on at the first rule of this priority.
    Jumped {
        /// The priority.
        to: u32,
    },
    /// Its table has no route for the packet.
    NoRoute {
        /// The table.
        table: u32,
        /// The table has no routes at all.
        empty: bool,
    },
    /// Its table has a `throw` route: on to the next rule.
    Thrown {
        /// The route.
        route: RouteReport,
    },
    /// Its table has this route, and the rule discards it.
    Suppressed {
        /// The route.
        route: RouteReport,
        /// The option that discards it.
        by: Suppressor,
    },
    /// Its table has this route, and the packet takes it.
    Took {
        /// The route.
        route: RouteReport,
    },
    /// The packet is refused, by the rule or by a route of its table.
    Refused {
        /// The route, where it is not the rule itself.
        route: Option<RouteReport>,
    },
    /// What it does cannot be told.
    CannotTell {
        /// Why.
        why: String,
    },
}

/// A selector of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Selector {
    /// `iif`.
    Iif,
    /// `oif`.
    Oif,
    /// `fwmark`.
    Fwmark,
    /// `tun_id`.
    TunnelId,
    /// `l3mdev`.
    L3mdev,
    /// `uidrange`.
    Uid,
    /// `to`.
    To,
    /// `from`.
    From,
    /// `tos`.
    Tos,
    /// `dscp`.
    Dscp,
    /// `flowlabel`.
    FlowLabel,
    /// `ipproto`.
    Protocol,
    /// `sport`.
    SourcePort,
    /// `dport`.
    DestinationPort,
    /// `not`: all the others fit.
    Not,
}

/// An option by which a rule discards a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Suppressor {
    /// `suppress_prefixlength`: the route's prefix is this short or shorter.
    SuppressPrefixlength(u32),
    /// `suppress_ifgroup`: the route leaves by a device of this group.
    SuppressIfgroup(u32),
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RouteReport {
    /// Its prefix, with its kind before it where it is not unicast: `default`, `10.20.0.0/16`, `throw 10.0.0.0/8`.
    pub route: String,
    /// Table.
    pub table: u32,
    /// Who installed it (`static`, `bgp`, `kernel`, a number).
    pub protocol: String,
    /// Where it goes: several of a multipath route.
    pub nexthops: Vec<NexthopReport>,
}

/// One nexthop of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NexthopReport {
    /// Gateway, `null` on-link.
    pub gateway: Option<IpAddr>,
    /// Device.
    pub device: Option<String>,
}

/// Where a walk ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Way {
    /// How it ends.
    pub end: WayEnd,
    /// The devices that it may leave by; several of a multipath route.
    pub devices: Vec<String>,
    /// Table of the route.
    pub table: Option<u32>,
    /// Priority of the rule that decided.
    pub priority: Option<u32>,
    /// Why it cannot be told.
    pub doubt: Option<String>,
}

/// How a walk ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WayEnd {
    /// By a route out of a device.
    Leaves,
    /// By a route of this host: the packet is delivered here.
    DeliveredHere,
    /// Refused.
    Refused,
    /// No route anywhere.
    NoRoute,
    /// No route, but the packet is bound to a device and taken to be on its link.
    AssumedOnLink,
    /// It cannot be told.
    CannotTell,
}

/// The kernel's answer (`ip route get`) and the route behind it (`ip route get fibmatch`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KernelAnswer {
    /// Device, `null` where the lookup fails.
    pub device: Option<String>,
    /// Table that the kernel found the route in.
    pub table: Option<u32>,
    /// Gateway, `null` on-link.
    pub gateway: Option<IpAddr>,
    /// Source address that the kernel chooses, or was given.
    pub source: Option<IpAddr>,
    /// The packet is delivered here.
    pub local: bool,
    /// The matching route: `default`, `10.0.0.0/8`.
    pub route: Option<String>,
    /// Who installed that route (`static`, `bgp`, `kernel`, a number).
    pub route_protocol: Option<String>,
    /// Error of the lookup, where it fails.
    pub error: Option<String>,
}

/// Whether vpnfix's reading and the kernel's answer agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Agreement {
    /// In one word.
    pub state: AgreementState,
    /// In words.
    pub text: String,
}

/// Whether vpnfix's reading and the kernel's answer agree, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AgreementState {
    /// They do.
    Agree,
    /// They do not: the kernel's answer holds.
    Differ,
    /// vpnfix cannot tell what a rule does: the kernel's answer stands alone.
    KernelAlone,
    /// The kernel does not accept the packet at all, whatever the route.
    NotAccepted,
    /// The kernel cannot be asked this: vpnfix's reading stands alone.
    ReadingAlone,
}

/// Whether a packet goes where it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PacketVerdict {
    /// It goes into the tunnel that it belongs to.
    Right,
    /// A tunnel should have it, and it goes elsewhere or nowhere.
    Wrong,
    /// It belongs to no tunnel.
    NoTunnel,
    /// It cannot be told.
    Unknown,
}

/// The tunnel destination that an address lies in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Belonging {
    /// The prefix.
    #[schemars(with = "String")]
    pub prefix: IpNet,
    /// Why it belongs there.
    pub class: DestinationClass,
    /// Names of the tunnels.
    pub tunnels: Vec<String>,
    /// Table whose route leads there.
    pub table: u32,
}

/// What keeps a packet out of its tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Obstacle {
    /// Why.
    pub reason: Reason,
    /// The rule that decides it.
    pub rule: Option<NamedRule>,
    /// The route that takes or refuses it.
    pub route: Option<RouteReport>,
    /// Who put the rule there.
    pub owner: Owner,
}

/// A known remedy, and what it would do to this packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Remedy {
    /// Which.
    pub remedy: RemedyName,
    /// The rules that it adds, as `ip` commands.
    pub rules: Vec<String>,
    /// Its rules that stand already.
    pub standing: Vec<String>,
    /// What it would do.
    pub effect: Effect,
    /// Where the packet would go, by vpnfix's reading.
    pub way: Way,
}

/// A known remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RemedyName {
    /// Rules for the tunnels' inside prefixes alone: the usual advice.
    Inside,
    /// A rule for the destination's prefix.
    Prefix,
    /// One rule: main before the hijacker, but for its default route.
    MainFirst,
    /// What `vpnfix fix` would do.
    Plan,
    /// The cure at the root: the deciding rule finds nothing any more.
    Root,
}

/// What a remedy would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// The packet would go into its tunnel.
    Cures,
    /// It would not.
    DoesNotCure,
    /// It cannot be told.
    CannotTell,
}
