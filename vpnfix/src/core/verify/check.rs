//! One check, as the report tells it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// Where it belongs.
    pub area: Area,
    /// What was looked at.
    pub id: CheckId,
    /// Of what: a tunnel, a neighbour, a cause; `null` for the host as a whole.
    pub subject: Option<String>,
    /// Names of the tunnels that it concerns; empty for all of them.
    pub tunnels: Vec<String>,
    /// How it stands.
    pub state: State,
    /// What that rests on, in words.
    pub found: String,
    /// What to do.
    pub advice: Option<String>,
    /// The failed check that most likely is its cause, as `id` or `id subject`.
    pub consequence_of: Option<String>,
}

/// Where a check belongs, in the order in which areas are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Area {
    /// SAs, policies, IKE.
    Ipsec,
    /// The tunnels' interfaces.
    Interface,
    /// Rules and routes.
    Routing,
    /// BGP.
    Bgp,
    /// What the peers answer.
    Reachability,
    /// What lasts, and the clock.
    Host,
}

impl Area {
    /// As a heading.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Ipsec => "IPsec",
            Self::Interface => "Interface",
            Self::Routing => "Routing",
            Self::Bgp => "BGP",
            Self::Reachability => "Reachability",
            Self::Host => "Host",
        }
    }
}

/// How a check stands. In the order in which they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Wrong.
    Failed,
    /// Works, but not for long or not for all.
    Warning,
    /// Right.
    Ok,
    /// Could not be told, or is not asked of this host.
    Skipped,
}

/// What was looked at: stable identifiers. In the order of causes: what fails first in this list most likely makes what
/// comes later fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CheckId {
    /// Is there a tunnel interface here for what IPsec has?
    TunnelPresent,
    /// Is the tunnel's interface up, with a carrier?
    LinkUp,
    /// Has it an address inside?
    Address,
    /// Has no other tunnel the same inside prefix?
    InsideUnique,
    /// Is IPsec switched on for it (`disable_xfrm`)?
    DisableXfrm,
    /// Is there an IKE association with its peer?
    IkeSa,
    /// Is there an outbound policy for its key or if_id?
    OutboundPolicy,
    /// Is there an inbound policy for its key or if_id?
    InboundPolicy,
    /// Do the policies' addresses cover what is to go through it?
    Selectors,
    /// Are the interface's outer addresses those of its policies?
    Endpoints,
    /// Is there an outbound SA?
    OutboundSa,
    /// Is there an inbound SA?
    InboundSa,
    /// How long do they last?
    SaLifetime,
    /// Do both directions go through NAT the same way?
    NatTraversal,
    /// Do packets fail the integrity check?
    Integrity,
    /// Are packets dropped as repeated or late?
    Replay,
    /// Does every destination go into its tunnel?
    Destinations,
    /// Are vpnfix's own rules in place and in the right order?
    OwnRules,
    /// Does the tunnel lead its own encrypted packets into itself?
    Loop,
    /// Does source validation let the tunnel's packets in?
    RpFilter,
    /// Are inside packets let in without a second policy (`disable_policy`)?
    DisablePolicy,
    /// Is what comes from the tunnel forwarded?
    Forwarding,
    /// Is the interface's largest packet small enough for the way?
    Mtu,
    /// Do large packets get through?
    PathMtu,
    /// Does the interface fail to send for want of an SA or a policy?
    CarrierErrors,
    /// Does it fail to send for another reason?
    SendErrors,
    /// What does the kernel's IPsec count as errors?
    XfrmErrors,
    /// Are packets dropped by source validation?
    ReversePathDrops,
    /// Does it leave by the tunnel what is sent to the peer?
    Egress,
    /// Do packets come in while none go out?
    OneWay,
    /// Does the peer answer?
    PeerAnswers,
    /// Do both ends have the same BGP password?
    BgpPassword,
    /// Does the peer speak BGP's port?
    BgpPort,
    /// Is the peer's autonomous system the one that is configured?
    BgpAsn,
    /// Is a BGP daemon there, and can be asked?
    BgpDaemon,
    /// Has each tunnel's peer a BGP session configured?
    BgpNeighbour,
    /// Is the session established?
    BgpSession,
    /// Are prefixes exchanged?
    BgpPrefixes,
    /// Is the clock sane?
    Clock,
    /// Does a cure wait for a restart?
    CurePending,
    /// Does the repair outlive a reboot?
    FixPersisted,
    /// Does systemd-networkd delete the repair?
    Networkd,
}

impl Check {
    /// A check that stands so.
    #[must_use]
    pub fn new(area: Area, id: CheckId, state: State, found: impl Into<String>) -> Self {
        let found = found.into();
        Self { area, id, subject: None, tunnels: Vec::new(), state, found, advice: None, consequence_of: None }
    }

    /// Of one tunnel.
    #[must_use]
    pub fn of_tunnel(mut self, name: &str) -> Self {
        self.subject = Some(name.into());
        self.tunnels = vec![name.into()];
        self
    }

    /// Of something that concerns these tunnels.
    #[must_use]
    pub fn about(mut self, subject: impl Into<String>, tunnels: Vec<String>) -> Self {
        self.subject = Some(subject.into());
        self.tunnels = tunnels;
        self
    }

    /// With what to do.
    #[must_use]
    pub fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// The identifier as the documents spell it.
    #[must_use]
    pub fn name(&self) -> String {
        serde_json::to_value(self.id).ok().and_then(|value| value.as_str().map(String::from)).unwrap_or_default()
    }

    /// The identifier and the subject.
    #[must_use]
    pub fn label(&self) -> String {
        match &self.subject {
            Some(subject) => format!("{} {subject}", self.name()),
            None => self.name(),
        }
    }
}
