//! What is wrong, as the report tells it. These are the values of the JSON documents.

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model::TunnelKey;

/// Stable identifier of a cause. In the order in which causes of equal severity are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// A policy rule sends it into another table before the right one is asked.
    HijackedByRule,
    /// A policy rule takes it out of its VRF: the rule of the VRFs (l3mdev) stands after it, or is not there.
    HijackedFromVrf,
    /// The right table itself has a better route elsewhere.
    ShadowedByRoute,
    /// The right table has the two halves of the prefix elsewhere, `0.0.0.0/1` and `128.0.0.0/1` say.
    ShadowedByHalves,
    /// The right table has no route of its own for it, and a wider one takes it elsewhere.
    MissingRoute,
    /// A policy rule of type unreachable, prohibit or blackhole refuses it.
    UnreachableRule,
    /// A route of type unreachable, prohibit or blackhole refuses it.
    UnreachableRoute,
    /// No table has a route for it.
    NoRoute,
    /// The tunnel's interface is down, so its routes are gone.
    TunnelDown,
    /// The tunnel's interface is up and has no carrier.
    TunnelWithoutCarrier,
    /// Another tunnel has the same inside prefix.
    DuplicateInside,
    /// The peer's inside address is one of this host's own.
    PeerIsOwn,
    /// The IKE peer's outer address is routed into its own tunnel.
    OuterLoop,
    /// A control target goes into a tunnel: a cloud's service address, the default gateway.
    ControlInTunnel,
    /// It goes into the tunnel, with a source address that the peer does not know.
    WrongSource,
    /// Packets that come in by the tunnel fail the source validation.
    ReversePath,
    /// The engine cannot explain the kernel's answer.
    Unexplained,
}

impl Reason {
    /// The identifier as the documents spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HijackedByRule => "hijacked-by-rule",
            Self::HijackedFromVrf => "hijacked-from-vrf",
            Self::ShadowedByRoute => "shadowed-by-route",
            Self::ShadowedByHalves => "shadowed-by-halves",
            Self::MissingRoute => "missing-route",
            Self::UnreachableRule => "unreachable-rule",
            Self::UnreachableRoute => "unreachable-route",
            Self::NoRoute => "no-route",
            Self::TunnelDown => "tunnel-down",
            Self::TunnelWithoutCarrier => "tunnel-without-carrier",
            Self::DuplicateInside => "duplicate-inside",
            Self::PeerIsOwn => "peer-is-own",
            Self::OuterLoop => "outer-loop",
            Self::ControlInTunnel => "control-in-tunnel",
            Self::WrongSource => "wrong-source",
            Self::ReversePath => "reverse-path",
            Self::Unexplained => "unexplained",
        }
    }

    /// Is it about the way out, which rules and routes decide? What else is wrong stays so whatever rules are added.
    #[must_use]
    pub fn is_wrong_way(self) -> bool {
        match self {
            Self::HijackedByRule
            | Self::HijackedFromVrf
            | Self::ShadowedByRoute
            | Self::ShadowedByHalves
            | Self::MissingRoute
            | Self::UnreachableRule
            | Self::UnreachableRoute
            | Self::NoRoute
            | Self::TunnelDown
            | Self::Unexplained => true,
            Self::TunnelWithoutCarrier
            | Self::DuplicateInside
            | Self::PeerIsOwn
            | Self::OuterLoop
            | Self::ControlInTunnel
            | Self::WrongSource
            | Self::ReversePath => false,
        }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Traffic of the tunnel leaves by another device, in the clear.
    Critical,
    /// Traffic of the tunnel is refused or dropped.
    Error,
}

/// Which of the questions to the kernel went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// Destination alone, as `ip route get ADDRESS`.
    Plain,
    /// With the tunnel's inside address as source.
    FromInside,
    /// TCP to port 179, from the inside address.
    BgpActive,
    /// TCP from port 179, from the inside address: the answer to a peer that connects to us.
    BgpPassive,
    /// Bound to the tunnel's device.
    BoundToTunnel,
    /// A packet of the peer coming in by the tunnel.
    Reverse,
    /// As a rule for some traffic alone selects it: with its mark, user, source or ports.
    Selected,
}

/// One thing that is wrong with one destination.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// Identifier, stable while reason, tunnel and prefix are the same.
    pub id: String,
    /// How bad it is.
    pub severity: Severity,
    /// Name of the tunnel that it belongs to (the first, of a multipath route), or that a control target goes into.
    pub tunnel: String,
    /// The address that the kernel was asked about.
    pub destination: IpAddr,
    /// The prefix that it stands for.
    #[schemars(with = "String")]
    pub prefix: IpNet,
    /// Why.
    pub reason: Reason,
    /// Where it should go.
    pub expected: Expected,
    /// Where it goes.
    pub actual: Actual,
    /// The rule that decides it.
    pub rule: Option<NamedRule>,
    /// Who put the rule there.
    pub owner: Owner,
    /// The questions that went wrong.
    pub variants: Vec<Variant>,
    /// Bound to the tunnel's device it goes right (`ping -I`): the split that hides this fault.
    pub right_when_bound: bool,
    /// What is known of the cause beside the rule and the route, in words: a setting's value, the other tunnel.
    pub detail: Option<String>,
    /// What cures it where no policy rule does, in words.
    pub advice: Option<String>,
}

/// Where a destination should go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Expected {
    /// Name of the tunnel.
    pub device: String,
    /// Table that has the route.
    pub table: u32,
}

/// Where a destination goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Actual {
    /// Device, `null` where the lookup fails.
    pub device: Option<String>,
    /// Table that the kernel found the route in.
    pub table: Option<u32>,
    /// Gateway, `null` on-link.
    pub gateway: Option<IpAddr>,
    /// Source address that the kernel chooses.
    pub source: Option<IpAddr>,
    /// The matching route: `default`, `10.0.0.0/8`.
    pub route: Option<String>,
    /// Who installed that route (`static`, `bgp`, `kernel`, a number).
    pub route_protocol: Option<String>,
    /// Error of the lookup, where it fails.
    pub error: Option<String>,
}

/// A rule by its priority and its words.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct NamedRule {
    /// Priority.
    pub priority: u32,
    /// As `ip rule` shows it, without the priority.
    pub text: String,
}

/// Who most likely put something there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Owner {
    /// Name of the program.
    pub name: String,
    /// How sure that is.
    pub confidence: Confidence,
    /// What it rests on.
    pub evidence: Vec<String>,
}

/// How sure an owner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// Nothing is known.
    Unknown,
    /// One sign points there.
    Possible,
    /// Several signs point there.
    Likely,
    /// It says so itself.
    Certain,
}

/// A tunnel as reports show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TunnelReport {
    /// Name.
    pub name: String,
    /// Kind of the link.
    pub kind: String,
    /// Interface index.
    pub ifindex: u32,
    /// Administratively up.
    pub up: bool,
    /// The host's inside address.
    pub local: Option<IpAddr>,
    /// The peer's inside address.
    pub peer: Option<IpAddr>,
    /// The inside prefix.
    #[schemars(with = "Option<String>")]
    pub prefix: Option<IpNet>,
    /// `key` of a VTI or `if_id` of an XFRM interface.
    #[serde(flatten)]
    pub binding: Option<TunnelKey>,
}

/// A control target and where it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ControlReport {
    /// What it is.
    pub name: String,
    /// Its address.
    pub destination: IpAddr,
    /// The device that it leaves by, `null` where it is unreachable.
    pub device: Option<String>,
}

/// The cure at the root, for a person to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cure {
    /// What to do.
    pub what: String,
    /// In which file.
    #[serde(rename = "where")]
    pub place: String,
    /// How.
    pub how: String,
}

/// Something worth knowing that is no fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Note {
    /// Stable identifier.
    pub id: NoteId,
    /// In words.
    pub text: String,
}

/// Stable identifier of a note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NoteId {
    /// A rule looks up a table without routes: no hook of the kernel ever shows it.
    RuleToEmptyTable,
    /// A tunnel has no address, so its inside prefix is not known.
    TunnelWithoutAddress,
    /// The kernel's answer differs from what the rules say by vpnfix's reading.
    EngineDisagrees,
    /// A tunnel through which nothing is routed, as far as is known.
    TunnelWithoutDestination,
    /// A more specific route or rule of others takes a part of a destination elsewhere, on purpose it seems.
    PartElsewhere,
    /// A rule of others decides for some traffic to a destination: of a source, a mark, a user, an input interface.
    SomeTrafficElsewhere,
    /// A multipath route leaves by tunnels and by other devices.
    MixedMultipath,
    /// A rule that already does what the plan would.
    AlreadyThere,
    /// A rule has selectors that this version of vpnfix does not know.
    RuleNotUnderstood,
    /// This host's own traffic into a tunnel has a source address of another device.
    SourceOfOtherDevice,
    /// A tunnel has the inside address that AWS keeps for its own end.
    SwappedInside,
    /// A tunnel has the second best way to a prefix, and would drop what comes in from there.
    StrictSecondWay,
    /// An IKE peer is reached by another tunnel.
    PeerByOtherTunnel,
    /// Service addresses of clouds go into a tunnel, and this is no cloud's machine as far as is known.
    ServiceInTunnel,
    /// Why there is no plan.
    NoPlan,
    /// What the plan would do to a control target, so that it will be refused.
    WouldBeRefused,
    /// Rules of others stand in front of vpnfix's own.
    InFrontOfOurs,
    /// A prefix that no tunnel has a route for now is refused by vpnfix's own rule (`--fail-closed`).
    KeptClosed,
    /// The peers of XFRM interfaces are not known.
    PeersNotKnown,
    /// Something went wrong after the change; the rules stand.
    AfterChange,
    /// What the undo journal tells of earlier changes, or what is wrong with it.
    UndoJournal,
    /// A daemon keeps to what it read when it started.
    RestartDue,
    /// Files that outlive the undo.
    PersistenceStays,
    /// Rules of vpnfix's that a reboot takes away.
    NotPersisted,
    /// What is persisted and what runs differ.
    PersistedDiffers,
    /// systemd-networkd will drop rules of vpnfix's.
    DroppedByNetworkd,
    /// `watch` repairs nothing after an undo by hand.
    WatchHeld,
}

/// The first few of a list in words, and how many more there are: `a, b and 7 more`.
#[must_use]
pub fn few<T: ToString>(list: &[T], most: usize) -> String {
    let shown: Vec<String> = list.iter().take(most).map(ToString::to_string).collect();
    match list.len().saturating_sub(most) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
