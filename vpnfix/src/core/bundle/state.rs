//! The state of a host at one moment, as a bundle keeps it: a file for each thing that was looked at.

mod parts;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Files;
use crate::core::report::diagnose::DiagnoseReport;
use crate::core::report::explain::ExplainReport;
use crate::core::report::verify::VerifyReport;

pub use parts::{
    AddressState, AssociationState, BgpState, LinkState, MOST_ROUTES, NeighbourState, PolicyState, RouteState, Routes,
    RuleState, Taken,
};

/// Which of a bundle's states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Moment {
    /// At the beginning.
    Before,
    /// At the end.
    After,
}

impl Moment {
    /// Its folder in the bundle.
    #[must_use]
    pub fn folder(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
        }
    }

    /// Name of a part's file.
    #[must_use]
    pub fn file(self, part: Part) -> String {
        format!("{}/{}.json", self.folder(), part.name())
    }
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// When.
    Taken,
    /// Policy rules.
    Rules,
    /// Routes of the tables that rules name.
    Routes,
    /// Interfaces with their counters.
    Links,
    /// Addresses.
    Addresses,
    /// Neighbour entries of gateways and peers.
    Neighbours,
    /// Security associations, without keys.
    Associations,
    /// Policies of IPsec.
    Policies,
    /// Settings of the kernel that bear on it.
    Sysctls,
    /// IPsec's error counters.
    XfrmStat,
    /// IP's and TCP's counters.
    Network,
    /// BGP's neighbours by a daemon's word.
    Bgp,
    /// What `diagnose` says.
    Diagnose,
    /// What `verify` says.
    Verify,
    /// What `explain` says of some destinations.
    Explain,
}

impl Part {
    /// All, in the order in which they are written.
    pub const ALL: [Self; 15] = [
        Self::Taken,
        Self::Rules,
        Self::Routes,
        Self::Links,
        Self::Addresses,
        Self::Neighbours,
        Self::Associations,
        Self::Policies,
        Self::Sysctls,
        Self::XfrmStat,
        Self::Network,
        Self::Bgp,
        Self::Diagnose,
        Self::Verify,
        Self::Explain,
    ];

    /// Name of its file, without folder and ending.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Rules => "rules",
            Self::Routes => "routes",
            Self::Links => "links",
            Self::Addresses => "addresses",
            Self::Neighbours => "neighbours",
            Self::Associations => "associations",
            Self::Policies => "policies",
            Self::Sysctls => "sysctls",
            Self::XfrmStat => "xfrm_stat",
            Self::Network => "network",
            Self::Bgp => "bgp",
            Self::Diagnose => "diagnose",
            Self::Verify => "verify",
            Self::Explain => "explain",
        }
    }
}

/// A state as it was read from a bundle; what lacks is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// When.
    pub taken: Option<Taken>,
    /// Rules.
    pub rules: Option<Vec<RuleState>>,
    /// Routes.
    pub routes: Option<Routes>,
    /// Interfaces.
    pub links: Option<Vec<LinkState>>,
    /// Addresses.
    pub addresses: Option<Vec<AddressState>>,
    /// Neighbour entries.
    pub neighbours: Option<Vec<NeighbourState>>,
    /// SAs.
    pub associations: Option<Vec<AssociationState>>,
    /// Policies.
    pub policies: Option<Vec<PolicyState>>,
    /// Settings by name.
    pub sysctls: Option<BTreeMap<String, String>>,
    /// IPsec's error counters.
    pub xfrm_stat: Option<BTreeMap<String, u64>>,
    /// IP's and TCP's counters.
    pub network: Option<BTreeMap<String, u64>>,
    /// BGP.
    pub bgp: Option<BgpState>,
    /// `diagnose`.
    pub diagnose: Option<DiagnoseReport>,
    /// `verify`.
    pub verify: Option<VerifyReport>,
    /// `explain`.
    pub explain: Option<Vec<ExplainReport>>,
}

impl State {
    /// Reads a state from a bundle's files; nothing where it has none. What cannot be understood is named in `damaged`.
    #[must_use]
    pub fn read(files: &Files, moment: Moment, damaged: &mut Vec<String>) -> Option<Self> {
        let folder = format!("{}/", moment.folder());
        if !files.keys().any(|name| name.starts_with(&folder)) {
            return None;
        }
        let mut reader = Reader { files, moment, damaged };
        Some(Self {
            taken: reader.part(Part::Taken),
            rules: reader.part(Part::Rules),
            routes: reader.part(Part::Routes),
            links: reader.part(Part::Links),
            addresses: reader.part(Part::Addresses),
            neighbours: reader.part(Part::Neighbours),
            associations: reader.part(Part::Associations),
            policies: reader.part(Part::Policies),
            sysctls: reader.part(Part::Sysctls),
            xfrm_stat: reader.part(Part::XfrmStat),
            network: reader.part(Part::Network),
            bgp: reader.part(Part::Bgp),
            diagnose: reader.part(Part::Diagnose),
            verify: reader.part(Part::Verify),
            explain: reader.part(Part::Explain),
        })
    }
}

struct Reader<'a> {
    files: &'a Files,
    moment: Moment,
    damaged: &'a mut Vec<String>,
}

impl Reader<'_> {
    fn part<T: DeserializeOwned>(&mut self, part: Part) -> Option<T> {
        document(self.files, &self.moment.file(part), self.damaged)
    }
}

/// A JSON document of a bundle; one that cannot be understood is named in `damaged`.
#[must_use]
pub fn document<T: DeserializeOwned>(files: &Files, name: &str, damaged: &mut Vec<String>) -> Option<T> {
    match serde_json::from_slice(files.get(name)?) {
        Ok(value) => Some(value),
        Err(error) => {
            damaged.push(format!("{name}: {error}"));
            None
        }
    }
}
