//! FRR's bgpd by `vtysh`, the one interface of it that stays the same. It is run without a shell.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::BgpError;
use crate::core::verify::{Bgp, BgpState, Neighbour};
use crate::system::program::{self, Bounds};

/// A neighbour is some 10 KB of JSON. vtysh takes 0.1 s on an idle host, and was seen to take 19 s in a busy emulated one.
const BOUNDS: Bounds = Bounds { patience: Duration::from_secs(30), most: 16 * 1024 * 1024 };
/// Both in one run: starting vtysh takes longer than the answers.
const COMMANDS: [&str; 2] = ["show bgp vrf all neighbors json", "show bgp vrf all summary json"];
/// Names of errors are short.
const ERROR_CHARACTERS: usize = 200;

/// Asks the bgpd whose socket lies in this directory.
///
/// # Errors
/// It does not answer, or not in JSON.
pub(super) fn neighbours(directory: &Path) -> Result<Bgp, BgpError> {
    let directory = directory.to_string_lossy();
    let [neighbours, summary] = COMMANDS;
    let arguments = ["--vty_socket", &directory, "-d", "bgpd", "-c", neighbours, "-c", summary];
    let said = program::output("vtysh", &arguments, BOUNDS).map_err(BgpError::Vtysh)?;
    parse(&said)
}

/// The documents of both commands, one after the other.
fn parse(said: &str) -> Result<Bgp, BgpError> {
    let mut documents = serde_json::Deserializer::from_str(said).into_iter::<Vrfs>();
    let mut next = || documents.next().unwrap_or_else(|| Ok(Vrfs::new())).map_err(|error| malformed(&error));
    let (neighbours, summary) = (neighbours_of(&next()?), summary_of(&next()?));
    Ok(Bgp { daemon: "FRR".into(), neighbours: merged(neighbours, &summary) })
}

/// What both commands answer with: an object for each VRF.
type Vrfs = BTreeMap<String, Value>;

/// What is wanted of a neighbour. Everything may lack: names come and go with FRR's versions.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Told {
    remote_as: Option<u32>,
    local_as: Option<u32>,
    bgp_state: Option<String>,
    admin_shut_down: Option<bool>,
    bgp_timer_up_msec: Option<u64>,
    bgp_timer_hold_time_msecs: Option<u64>,
    address_family_info: BTreeMap<String, Prefixes>,
    last_reset_due_to: Option<String>,
    last_notification_reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Prefixes {
    accepted_prefix_counter: Option<u64>,
    sent_prefix_counter: Option<u64>,
}

/// What is wanted of a peer in the summary.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Summed {
    pfx_rcd: Option<u64>,
    pfx_snt: Option<u64>,
    state: Option<String>,
    local_as: Option<u32>,
}

/// `show bgp vrf all neighbors json`: an object for each VRF, in it one for each neighbour beside other things.
fn neighbours_of(vrfs: &Vrfs) -> Vec<Neighbour> {
    let mut found = Vec::new();
    for vrf in vrfs.values().filter_map(Value::as_object) {
        for (key, value) in vrf {
            if let Ok(address) = key.parse()
                && let Ok(told) = serde_json::from_value(value.clone())
            {
                found.push(neighbour(address, told));
            }
        }
    }
    found
}

fn neighbour(address: IpAddr, told: Told) -> Neighbour {
    let named = told.bgp_state.as_deref().map_or(BgpState::Unknown, BgpState::named);
    let state = if told.admin_shut_down == Some(true) { BgpState::Disabled } else { named };
    let sum = |of: fn(&Prefixes) -> Option<u64>| {
        let counts = told.address_family_info.values().filter_map(of);
        counts.reduce(u64::saturating_add)
    };
    let up = state == BgpState::Established;
    let error = match (&told.last_notification_reason, &told.last_reset_due_to) {
        (Some(reason), _) => Some(reason),
        // Of a session that was never up it says so, which is no error.
        (None, due) => due.as_ref().filter(|due| !due.is_empty() && *due != "Waiting for peer OPEN"),
    };
    Neighbour {
        address,
        state,
        local_as: told.local_as,
        remote_as: told.remote_as,
        uptime: told.bgp_timer_up_msec.filter(|_| up).map(|time| time / 1000),
        received: sum(|prefixes| prefixes.accepted_prefix_counter).filter(|_| up),
        sent: sum(|prefixes| prefixes.sent_prefix_counter).filter(|_| up),
        hold_time: told.bgp_timer_hold_time_msecs.map(|time| time / 1000),
        last_error: error.map(|error| printable(error)),
    }
}

/// `show bgp vrf all summary json`: an object for each VRF, in it one for each address family, in it `peers`.
fn summary_of(vrfs: &Vrfs) -> BTreeMap<IpAddr, Summed> {
    let mut found: BTreeMap<IpAddr, Summed> = BTreeMap::new();
    for family in vrfs.values().filter_map(Value::as_object).flat_map(serde_json::Map::values) {
        for (key, value) in family.get("peers").and_then(Value::as_object).into_iter().flatten() {
            if let Ok(address) = key.parse()
                && let Ok(summed) = serde_json::from_value::<Summed>(value.clone())
            {
                let other = found.entry(address).or_default();
                let add = |one: Option<u64>, two: Option<u64>| match (one, two) {
                    (Some(one), Some(two)) => Some(one.saturating_add(two)),
                    (one, two) => one.or(two),
                };
                other.pfx_rcd = add(other.pfx_rcd, summed.pfx_rcd);
                other.pfx_snt = add(other.pfx_snt, summed.pfx_snt);
                other.state = other.state.take().or(summed.state);
                other.local_as = other.local_as.or(summed.local_as);
            }
        }
    }
    found
}

/// What the neighbours' own objects do not tell in some versions, the summary does.
fn merged(neighbours: Vec<Neighbour>, summary: &BTreeMap<IpAddr, Summed>) -> Vec<Neighbour> {
    let with_summary = |mut neighbour: Neighbour| {
        if let Some(summed) = summary.get(&neighbour.address) {
            if neighbour.state == BgpState::Unknown {
                neighbour.state = summed.state.as_deref().map_or(BgpState::Unknown, BgpState::named);
            }
            if neighbour.state == BgpState::Established {
                neighbour.received = summed.pfx_rcd.or(neighbour.received);
                neighbour.sent = summed.pfx_snt.or(neighbour.sent);
            }
            neighbour.local_as = neighbour.local_as.or(summed.local_as);
        }
        neighbour
    };
    neighbours.into_iter().map(with_summary).collect()
}

fn printable(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(ERROR_CHARACTERS).collect()
}

fn malformed(error: &serde_json::Error) -> BgpError {
    BgpError::Malformed { daemon: "FRR", what: error.to_string() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Cut down from what FRR 8.4 says; the names are its own (`bgpd/bgp_vty.c`).
    const NEIGHBOURS: &str = r#"{"default":{"vrfId":0,"vrfName":"default",
        "169.254.55.53":{"remoteAs":64512,"localAs":65000,"bgpVersion":4,"bgpState":"Established",
          "bgpTimerUpMsec":61000,"bgpTimerHoldTimeMsecs":30000,
          "addressFamilyInfo":{"ipv4Unicast":{"acceptedPrefixCounter":2,"sentPrefixCounter":1}},
          "lastResetDueTo":"BGP Notification send"},
        "169.254.253.49":{"remoteAs":64512,"localAs":65000,"bgpState":"Active","bgpTimerHoldTimeMsecs":180000,
          "lastNotificationReason":"OPEN Message Error/Bad Peer AS"},
        "ens9":{"remoteAs":1}},
      "red":{"fd00::1":{"remoteAs":64513,"bgpState":"Idle","adminShutDown":true}}}"#;
    const SUMMARY: &str = r#"{"default":{"ipv4Unicast":{"routerId":"1.1.1.1","as":65000,"peers":{
        "169.254.55.53":{"remoteAs":64512,"pfxRcd":2,"pfxSnt":3,"state":"Established"},
        "169.254.253.49":{"pfxRcd":0,"state":"Active"}}}}}"#;

    #[test]
    fn neighbours_of_all_vrfs_are_read() {
        let found = parse(&format!("{NEIGHBOURS}\n{SUMMARY}\n")).unwrap().neighbours;
        assert_eq!(found.len(), 3);
        let of = |address: &str| found.iter().find(|n| n.address == address.parse::<IpAddr>().unwrap()).unwrap();
        let up = of("169.254.55.53");
        assert_eq!((up.state, up.uptime, up.hold_time), (BgpState::Established, Some(61), Some(30)));
        assert_eq!((up.received, up.sent, up.local_as, up.remote_as), (Some(2), Some(3), Some(65000), Some(64512)));
        let down = of("169.254.253.49");
        assert_eq!((down.state, down.received), (BgpState::Active, None));
        assert_eq!(down.last_error.as_deref(), Some("OPEN Message Error/Bad Peer AS"));
        assert_eq!(of("fd00::1").state, BgpState::Disabled);
    }

    #[test]
    fn what_is_no_json_is_told() {
        assert!(matches!(parse("% Can't find BGP instance"), Err(BgpError::Malformed { .. })));
        assert!(parse("").unwrap().neighbours.is_empty());
        assert!(parse(r#"{}{"default":{"ipv4Unicast":7,"x":{"peers":[]}}}"#).unwrap().neighbours.is_empty());
        // The summary may lack.
        assert_eq!(parse(NEIGHBOURS).unwrap().neighbours.len(), 3);
    }

    #[test]
    fn what_frr_8_4_really_says_is_understood() {
        let found = parse(include_str!("frr-8.4.json")).unwrap().neighbours;
        let states: Vec<_> = found.iter().map(|n| (n.address.to_string(), n.state, n.received, n.sent)).collect();
        let up = |address: &str| (address.to_string(), BgpState::Established, Some(1), Some(2));
        assert_eq!(states, [up("169.254.253.49"), up("169.254.55.53")]);
        assert_eq!((found[0].hold_time, found[0].local_as, found[0].remote_as), (Some(30), Some(65000), Some(64512)));
        assert_eq!(found[0].uptime, Some(7));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(cut in 0..NEIGHBOURS.len() + SUMMARY.len(), text in ".{0,100}") {
            let said = format!("{NEIGHBOURS}{SUMMARY}");
            let _any = (parse(said.get(..cut).unwrap_or_default()), parse(&text));
        }
    }
}
