//! The state of the host at one moment.

use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use super::now;
use crate::commands::assess::{Access, Host};
use crate::commands::cli::{DiagnoseArgs, VerifyArgs};
use crate::commands::failure::Failure;
use crate::commands::known::known;
use crate::commands::settings::Settings;
use crate::commands::{diagnose, explain, verify};
use crate::core::bundle::state::{
    AddressState, AssociationState, BgpState, LinkState, NeighbourState, Part, PolicyState, Routes, RuleState, Taken,
};
use crate::core::model::{Question, Snapshot};
use crate::core::report::diagnose::{DestinationClass, DiagnoseReport};
use crate::core::verify::{Known, NotKnown};
use crate::render;
use crate::system::{bgp, counters, sysctl, xfrm};

/// Time between the two looks at the counters that `verify` takes.
const SAMPLE: Duration = Duration::from_secs(1);

/// A state that was taken.
pub(super) struct State {
    /// Each part's document, or why there is none.
    pub(super) parts: Vec<(Part, Known<Vec<u8>>)>,
    /// What `diagnose` says.
    pub(super) diagnose: Option<DiagnoseReport>,
    /// The destinations whose walks are in it.
    pub(super) focus: Vec<IpAddr>,
}

/// Takes the state. It sends no packet: what is counted elsewhere is the host's own.
///
/// # Errors
/// The host's routing cannot be read: then nothing can be told.
pub(super) async fn take(access: &Access, settings: &Settings, focus: &[IpAddr]) -> Result<State, Failure> {
    let began = now();
    let host = Host::read_for_judging(access, settings, &[]).await?;
    let snapshot = &host.snapshot;
    let diagnose = diagnose::of(access, settings, &DiagnoseArgs { to: Vec::new() }).await;
    let args = VerifyArgs { wait: None, sample: SAMPLE, no_probe: true };
    let verify = verify::report(access, settings, &args).await;
    let focus = match (&diagnose, focus.is_empty()) {
        (Ok(diagnose), true) => telling(diagnose),
        _ => focus.to_vec(),
    };
    let walk = |to: &IpAddr| explain::of(access, &host, &Question { uid: Some(0), ..Question::plain(*to) });
    let walks: Result<Vec<_>, Failure> = focus.iter().map(walk).collect();
    let rules: Vec<RuleState> = snapshot.rules.iter().map(RuleState::of).collect();
    let associations = known(xfrm::associations());
    let policies = known(xfrm::policies());
    let daemon = known(bgp::neighbours());
    let devices = snapshot.links.iter().map(|link| link.name.as_str());
    let parts = vec![
        (Part::Rules, document(Ok(rules))),
        (Part::Routes, document(Ok(Routes::of(snapshot)))),
        (Part::Links, document(Ok(LinkState::all(snapshot)))),
        (Part::Addresses, document(Ok(AddressState::all(snapshot)))),
        (Part::Neighbours, document(neighbours(access, snapshot).await)),
        (
            Part::Associations,
            document(associations.map(|all| all.iter().map(AssociationState::of).collect::<Vec<_>>())),
        ),
        (Part::Policies, document(policies.map(|all| all.iter().map(PolicyState::of).collect::<Vec<_>>()))),
        (Part::Sysctls, document(Ok(sysctl::read(devices)))),
        (Part::XfrmStat, document(known(counters::xfrm()))),
        (Part::Network, document(known(counters::network()))),
        (Part::Bgp, document(daemon.map(|bgp| BgpState { daemon: bgp.daemon, neighbours: bgp.neighbours }))),
        (Part::Diagnose, document(told(&diagnose))),
        (Part::Verify, document(told(&verify))),
        (Part::Explain, document(told(&walks))),
        (Part::Taken, document(Ok(Taken { began, ended: now() }))),
    ];
    Ok(State { parts, diagnose: diagnose.ok(), focus })
}

/// A destination of each class: the first that is wrong, else the first.
fn telling(diagnose: &DiagnoseReport) -> Vec<IpAddr> {
    let of = |class| {
        let mut all = diagnose.destinations.iter().filter(move |destination| destination.class == class);
        all.clone().find(|destination| !destination.right).or_else(|| all.next())
    };
    let classes = [DestinationClass::Inside, DestinationClass::Routed, DestinationClass::Default];
    classes.into_iter().filter_map(of).map(|destination| destination.destination).collect()
}

fn told<T>(result: &Result<T, Failure>) -> Known<&T> {
    result.as_ref().map_err(|failure| NotKnown(failure.message.clone()))
}

fn document<T: Serialize>(value: Known<T>) -> Known<Vec<u8>> {
    let text = render::document(&value?).map_err(|error| NotKnown(error.to_string()))?;
    Ok(text.into_bytes())
}

/// The neighbour entries of gateways and peers. Others tell of hosts that have nothing to do with it.
async fn neighbours(access: &Access, snapshot: &Snapshot) -> Known<Vec<NeighbourState>> {
    let entries = known(access.netlink.neighbours().await)?;
    let gateways = snapshot.routes.iter().flat_map(|route| &route.nexthops).filter_map(|nexthop| nexthop.gateway);
    let peers = snapshot.addresses.iter().filter_map(|address| address.peer);
    let concerned: std::collections::BTreeSet<IpAddr> = gateways.chain(peers).collect();
    let state = |entry: crate::core::model::NeighbourEntry| NeighbourState {
        device: snapshot.device_name(entry.ifindex),
        address: entry.address,
        state: entry.state_name(),
        hardware: entry.hardware,
    };
    Ok(entries.into_iter().filter(|entry| concerned.contains(&entry.address)).map(state).collect())
}
