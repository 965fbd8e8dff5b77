//! The cures at the root for what owners do: for a person to do, at the right place of this host.

use std::collections::HashSet;

use super::seen::{Seen, is_kind};
use super::{Clues, Process, Program, of_route, of_rule};
use crate::core::finding::{Confidence, Cure, Finding, Owner};
use crate::core::model::{Family, Route, RouteKind, Rule, Snapshot};
use crate::core::strongswan::cure::place_of_setting;
use crate::core::strongswan::{self, Daemon, Place, State};

/// What every cure of strongSwan's routes comes to.
const NO_ROUTES: &str =
    "stop strongSwan from installing routes of its own; the tunnel interfaces' routes in main suffice";

/// The cures at the root for what findings' owners do, each once.
#[must_use]
pub fn cures(snapshot: &Snapshot, clues: &Clues, findings: &[Finding]) -> Vec<Cure> {
    // Telling a cure may read a whole table, and many findings have one owner: each is asked for once.
    let mut asked = HashSet::new();
    let mut cures = Vec::new();
    for finding in findings {
        let Finding { owner, actual, .. } = finding;
        if !asked.insert((owner.confidence, &owner.name, actual.table, &actual.device)) {
            continue;
        }
        if let Some(cure) = cure(snapshot, clues, finding).filter(|cure| !cures.contains(cure)) {
            cures.push(cure);
        }
    }
    cures
}

/// The cure at the root for what the owner does, where one is known.
fn cure(snapshot: &Snapshot, clues: &Clues, finding: &Finding) -> Option<Cure> {
    if finding.owner.confidence == Confidence::Unknown {
        return None;
    }
    match Program::named(&finding.owner.name)? {
        Program::StrongSwan => strongswan(snapshot, clues, finding),
        Program::OpenVpn => Some(openvpn()),
        Program::WgQuick => Some(wg_quick(snapshot, clues, finding)),
        Program::Tailscale => Some(tailscale()),
        Program::NetBird => Some(netbird()),
        Program::TunProxy => Some(tun_proxy()),
        _ => None,
    }
}

fn strongswan(snapshot: &Snapshot, clues: &Clues, finding: &Finding) -> Option<Cure> {
    let table = finding.actual.table.unwrap_or(strongswan::TABLE);
    // Its routes are in main where `routing_table = 0`: then there is no table of its own with a state.
    let daemon = strongswan::daemon_of(clues, table).map_or(Daemon::Charon, |settings| settings.daemon);
    match strongswan::state(snapshot, clues, daemon, table) {
        State::RuleAlone { .. } => None,
        State::PendingRestart { process, place, .. } => Some(restart_due(clues, &process, &place)),
        State::LeftOver { beside } if strongswan::daemon_of(clues, table).is_some() => {
            delete_left_over(snapshot, clues, table, beside)
        }
        State::Running { process } => Some(switch_off(clues, running_as(&process, daemon), Some(&process))),
        // Of what an earlier daemon sent to main, nothing can be told from what others have put there.
        State::LeftOver { beside: Some(_) } => None,
        State::LeftOver { beside: None } | State::Unknown => Some(switch_off(clues, daemon, None)),
    }
}

fn running_as(process: &Process, otherwise: Daemon) -> Daemon {
    Daemon::ALL.into_iter().find(|daemon| daemon.name() == process.name).unwrap_or(otherwise)
}

fn restart_due(clues: &Clues, process: &Process, place: &Place) -> Cure {
    Cure {
        what: format!("restart {process}: install_routes is off already, and the daemon reads it only when it starts"),
        place: place.to_string(),
        how: format!("{}{}", restart(Some(process)), caution(clues)),
    }
}

fn restart(process: Option<&Process>) -> String {
    let command = match process.map(|process| process.name.as_str()) {
        Some("charon-systemd") => "`systemctl restart strongswan`",
        Some("charon") => "`systemctl restart strongswan-starter`, or `ipsec restart`",
        _ => "`systemctl restart strongswan`, or `strongswan-starter` with ipsec.conf",
    };
    format!(
        "restart the daemon ({command}); a reload does not suffice, and a restart takes the tunnels down for a moment"
    )
}

/// A daemon does not come up again with a configuration that it refuses.
fn caution(clues: &Clues) -> String {
    let refused = clues.strongswan.refused();
    refused.map_or_else(String::new, |problem| format!("; before that, mend {problem}: no daemon starts with it"))
}

/// No daemon takes these away, neither when it ends nor when it starts. Each is deleted by itself, and only what looks
/// like strongSwan's: the table may hold what others have put there.
fn delete_left_over(snapshot: &Snapshot, clues: &Clues, table: u32, beside: Option<(Process, Place)>) -> Option<Cure> {
    let likely = |owner: Owner| owner.name == Program::StrongSwan.name() && owner.confidence >= Confidence::Likely;
    let rules = snapshot.rules.iter().filter(|rule| rule.table() == Some(table));
    let rules = rules.filter(|rule| likely(of_rule(snapshot, clues, rule))).map(Rule::delete_command);
    let routes = snapshot.routes.iter().filter(|route| route.table == table);
    let routes = routes.filter(|route| likely(of_route(snapshot, clues, route)));
    let routes = routes.map(|route| delete_route(snapshot, route));
    let (what, commands): (_, Vec<String>) = match beside {
        // The rule is the running daemon's.
        Some((process, _)) => {
            let what =
                format!("delete the routes that an earlier daemon seems to have left: {process} does not own them");
            (what, routes.collect())
        }
        None => {
            let what = "delete the rule and the routes that a killed daemon of strongSwan seems to have left: none \
                        owns them any more";
            (what.into(), rules.chain(routes).collect())
        }
    };
    let place = format!("table {table} of this network namespace");
    (!commands.is_empty()).then(|| Cure { what, place, how: commands.join("; ") })
}

/// The command that deletes one route and no other.
fn delete_route(snapshot: &Snapshot, route: &Route) -> String {
    let ip = if route.family == Family::V6 { "ip -6" } else { "ip" };
    let mut words = vec![format!("{ip} route del")];
    if route.kind != RouteKind::Unicast {
        words.push(route.kind.name());
    }
    words.push(if route.destination.prefix_len() == 0 { "default".into() } else { route.destination.to_string() });
    if let [nexthop] = route.nexthops.as_slice() {
        words.extend(nexthop.gateway.map(|gateway| format!("via {gateway}")));
        words.extend(nexthop.ifindex.map(|index| format!("dev {}", snapshot.device_name(index))));
    }
    words.push(format!("table {}", route.table));
    if route.metric != 0 {
        words.push(format!("metric {}", route.metric));
    }
    words.join(" ")
}

/// The setting, at the place where this host has it or would have it.
fn switch_off(clues: &Clues, daemon: Daemon, process: Option<&Process>) -> Cure {
    let (place, edit) = place_of_setting(&clues.strongswan, daemon);
    Cure { what: NO_ROUTES.into(), place, how: format!("{edit}, and {}{}", restart(process), caution(clues)) }
}

fn openvpn() -> Cure {
    Cure {
        what: "keep OpenVPN from taking all traffic".into(),
        place: "the client's configuration, in /etc/openvpn".into(),
        how:
            "add `pull-filter ignore redirect-gateway`, with a `route` line for each network that is needed behind it, \
              and restart the client; or narrow what the server pushes"
                .into(),
    }
}

fn wg_quick(snapshot: &Snapshot, clues: &Clues, finding: &Finding) -> Cure {
    let seen = Seen { snapshot, clues };
    let of_table = |table| seen.table_device(table, |link| is_kind(link, "wireguard"));
    let by_route = finding.actual.device.as_ref().and_then(|name| snapshot.link_named(name));
    let device = by_route.filter(|link| is_kind(link, "wireguard")).or_else(|| finding.actual.table.and_then(of_table));
    let name = device.map_or_else(|| "DEVICE".into(), |link| link.name.clone());
    Cure {
        what: format!("keep wg-quick from routing more through {name} than it should"),
        place: format!("/etc/wireguard/{name}.conf"),
        how: format!(
            "narrow AllowedIPs, or set `Table = off` and add the routes needed by PostUp; then `wg-quick down {name}` \
             and `wg-quick up {name}`"
        ),
    }
}

fn tailscale() -> Cure {
    Cure {
        what: "keep Tailscale from routing these destinations".into(),
        place: "Tailscale's settings on this host".into(),
        how: "`tailscale set --exit-node=` leaves the exit node; `tailscale set --accept-routes=false` refuses the \
              networks that other nodes offer"
            .into(),
    }
}

fn netbird() -> Cure {
    Cure {
        what: "keep NetBird from routing these destinations".into(),
        place: "NetBird's management console, or its settings on this host".into(),
        how:
            "narrow the network or exit node there, or leave it here: `netbird networks list`, then `netbird networks \
              deselect NAME`"
                .into(),
    }
}

fn tun_proxy() -> Cure {
    Cure {
        what: "keep the TUN proxy from taking these destinations".into(),
        place: "the TUN section of its configuration".into(),
        how: "exclude them: `route_exclude_address` in sing-box, `route-exclude-address` in mihomo; then restart it"
            .into(),
    }
}
