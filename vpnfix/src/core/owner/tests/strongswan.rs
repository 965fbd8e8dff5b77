//! strongSwan: by its defaults, by its configuration, and in its states.

use std::slice;

use super::*;
use crate::core::strongswan::{Configuration, Daemon, File, State, state};

/// A configuration of one file, changed at a time.
pub(super) fn configured(text: &str, modified: u64) -> Configuration {
    let mut files = |path: &str| {
        let there = path == "/etc/strongswan.conf";
        let file = File { path: path.into(), text: Ok(text.into()), modified: Some(modified) };
        there.then_some(file).into_iter().collect()
    };
    Configuration::read(&["/etc/strongswan.conf"], &mut files)
}

const OFF: &str = "charon {\n  install_routes = no\n}\n";
/// When the processes of these tests were started.
const STARTED: u64 = 1_700_000_000;

/// The incident's gateway: rule 220 and a default route in table 220.
fn hijacked() -> Snapshot {
    gateway()
}

fn state_of(host: &Snapshot, clues: &Clues) -> State {
    state(host, clues, Daemon::Charon, 220)
}

#[test]
fn the_incident_is_strongswans() {
    let host = hijacked();
    let rule = &host.rules[1];
    let owner = of_rule(&host, &with_processes(&["charon-systemd"]), rule);
    assert_eq!((owner.name.as_str(), owner.confidence), ("strongSwan", Confidence::Likely));
    assert_eq!(
        owner.evidence,
        [
            "table 220 is the default of charon-systemd",
            "the rule is as charon adds it when it starts",
            "its routes are of protocol static without a metric, as charon installs them",
            "process charon-systemd (812) runs",
        ]
    );
    let route = host.routes.iter().find(|route| route.table == 220).expect("it is there");
    assert_eq!(route_owner(&host, &Clues::default(), route), is(Program::StrongSwan, Confidence::Likely));
    // A bypass policy, and the same in IPv6, where a route without a metric gets 1024.
    let bypass = Route { kind: RouteKind::Throw, nexthops: Vec::new(), ..route.clone() };
    assert_eq!(route_owner(&host, &Clues::default(), &bypass), is(Program::StrongSwan, Confidence::Likely));
    let six = Rule::lookup(Family::V6, 220, 220);
    assert_eq!(owner_on(host.clone(), &Clues::default(), &[six], 0), is(Program::StrongSwan, Confidence::Likely));
    let six = Route { metric: 1024, ..super::route(220, "::/0", ENS5) };
    assert_eq!(route_owner(&host, &Clues::default(), &six), is(Program::StrongSwan, Confidence::Likely));
}

#[test]
fn a_configuration_that_names_the_table_makes_it_certain() {
    let text = "charon {\n routing_table = 500\n routing_table_prio = 499\n\
        plugins { kernel-netlink { fwmark = !0x2a } }\n}\n";
    let clues = Clues { strongswan: configured(text, STARTED), ..Clues::default() };
    let own = not(marked(rule(499, 500), 42, u32::MAX));
    assert_eq!(owner_on(host(), &clues, slice::from_ref(&own), 0), is(Program::StrongSwan, Confidence::Certain));
    let owner = of_rule(&host(), &clues, &own);
    assert_eq!(owner.evidence[0], "routing_table = 500 at /etc/strongswan.conf:2");
    assert_eq!(owner_on(host(), &clues, &[rule(499, 500)], 0), is(Program::StrongSwan, Confidence::Possible));
    assert_eq!(owner_on(host(), &Clues::default(), &[own], 0).0, "unknown");
    // The table from before the change is still its default.
    assert_eq!(owner_on(host(), &clues, &[rule(220, 220)], 0), is(Program::StrongSwan, Confidence::Likely));
}

#[test]
fn routes_in_main_are_strongswans_where_the_configuration_says_so() {
    let mut host = host();
    let half = |prefix| via(route(TABLE_MAIN, prefix, ENS5), "192.168.12.1");
    host.routes.extend([half("0.0.0.0/1"), half("128.0.0.0/1")]);
    let clues = Clues { strongswan: configured("charon { routing_table = 0 }", STARTED), ..Clues::default() };
    assert_eq!(route_owner(&host, &clues, &half("128.0.0.0/1")), is(Program::StrongSwan, Confidence::Certain));
    assert_eq!(route_owner(&host, &Clues::default(), &half("128.0.0.0/1")).0, "unknown");
    // A static route of main may be anyone's, whatever table strongSwan is told to use.
    let clues = Clues { strongswan: configured("charon { routing_table = 254 }", STARTED), ..Clues::default() };
    let by_hand = via(route(TABLE_MAIN, "10.9.0.0/16", ENS5), "192.168.12.9");
    assert_eq!(route_owner(&host, &clues, &by_hand).0, "unknown");
}

#[test]
fn a_daemon_that_runs_here_keeps_its_table() {
    let clues = with_processes(&["charon"]);
    assert_eq!(state_of(&hijacked(), &clues), State::Running { process: runs("charon") });
    let on = Clues { strongswan: configured("charon { install_routes = yes }", STARTED + 5), ..clues };
    assert_eq!(state_of(&hijacked(), &on), State::Running { process: runs("charon") });
}

#[test]
fn a_setting_that_is_newer_than_the_daemon_waits_for_its_restart() {
    let clues = Clues { strongswan: configured(OFF, STARTED + 60), ..with_processes(&["charon-systemd"]) };
    let State::PendingRestart { process, place, changed_since } = state_of(&hijacked(), &clues) else {
        panic!("a restart is due")
    };
    assert_eq!((process.name.as_str(), place.line, changed_since), ("charon-systemd", 2, Some(true)));
    let owner = of_rule(&hijacked(), &clues, &hijacked().rules[1]);
    let told = "install_routes was switched off at /etc/strongswan.conf:2 after charon-systemd (812) had started: a \
                restart is due";
    assert!(owner.evidence.contains(&told.to_string()), "{owner:?}");
    // Without the times the same is due, with less to show for it.
    let mut untimed = clues;
    untimed.processes[0].started = None;
    assert!(matches!(state_of(&hijacked(), &untimed), State::PendingRestart { changed_since: None, .. }));
    // Section charon means nothing to charon-nm.
    let nm = state(&hijacked(), &untimed, Daemon::CharonNm, 220);
    assert_eq!(nm, State::LeftOver { beside: None });
}

#[test]
fn routes_beside_a_daemon_that_never_installs_any_are_left_over() {
    let clues = Clues { strongswan: configured(OFF, STARTED - 60), ..with_processes(&["charon"]) };
    assert!(
        matches!(state_of(&hijacked(), &clues), State::LeftOver { beside: Some((process, _)) } if process.pid == 812)
    );
}

#[test]
fn without_a_daemon_they_are_left_over() {
    let clues = with_processes(&[]);
    assert_eq!(state_of(&hijacked(), &clues), State::LeftOver { beside: None });
    let owner = of_rule(&hijacked(), &clues, &hijacked().rules[1]);
    let told = "no daemon of strongSwan runs in this namespace: it would be a left-over of a dead one";
    assert!(owner.evidence.contains(&told.to_string()), "{owner:?}");
    // One in another namespace, and a pid file that outlived its process, keep nothing here.
    let mut elsewhere = with_processes(&["charon"]);
    elsewhere.processes[0].whereabouts = Whereabouts::Elsewhere;
    elsewhere.pid_files = vec![PidFile { path: "/run/charon.pid".into(), pid: Some(812), alive: true }];
    assert_eq!(state_of(&hijacked(), &elsewhere), State::LeftOver { beside: None });
    let dead = PidFile { path: "/run/charon.pid".into(), pid: Some(5), alive: false };
    let dead = Clues { pid_files: vec![dead], ..clues };
    assert_eq!(state_of(&hijacked(), &dead), State::LeftOver { beside: None });
}

#[test]
fn what_could_not_be_seen_is_not_called_dead() {
    assert_eq!(state_of(&hijacked(), &Clues::default()), State::Unknown);
    let mut unclear = with_processes(&["charon"]);
    unclear.processes[0].whereabouts = Whereabouts::Unknown;
    assert_eq!(state_of(&hijacked(), &unclear), State::Unknown);
    // A pid file whose process is not in the list.
    let alive = PidFile { path: "/run/charon.pid".into(), pid: Some(5), alive: true };
    assert_eq!(state_of(&hijacked(), &Clues { pid_files: vec![alive], ..with_processes(&[]) }), State::Unknown);
}

#[test]
fn the_rule_alone_does_nothing() {
    let mut host = hijacked();
    host.routes.retain(|route| route.table != 220);
    let clues = Clues { strongswan: configured(OFF, STARTED - 60), ..with_processes(&["charon"]) };
    assert!(matches!(state_of(&host, &clues), State::RuleAlone { .. }));
    let owner = of_rule(&host, &clues, &host.rules[1]);
    assert_eq!((owner.name.as_str(), owner.confidence), ("strongSwan", Confidence::Likely));
    let told = "install_routes is off at /etc/strongswan.conf:2 and the table is empty: the rule does nothing";
    assert!(owner.evidence.contains(&told.to_string()), "{owner:?}");
}

#[test]
fn a_configuration_with_gaps_switches_nothing_off() {
    let broken = configured(&format!("{OFF}}}"), STARTED + 60);
    assert!(broken.refused().is_some());
    let clues = Clues { strongswan: broken, ..with_processes(&["charon"]) };
    assert_eq!(state_of(&hijacked(), &clues), State::Running { process: runs("charon") });
    let gap = configured(&format!("{OFF}include strongswan.conf\n"), STARTED + 60);
    let clues = Clues { strongswan: gap, ..with_processes(&["charon"]) };
    assert_eq!(state_of(&hijacked(), &clues), State::Running { process: runs("charon") });
}
