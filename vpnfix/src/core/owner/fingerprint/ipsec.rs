//! IKE daemons: strongSwan in its variants, Libreswan.

use super::{Candidate, Kind, Program, Route, Rule, Seen};
use crate::core::model::{Link, LinkKind, RouteKind, TABLE_MAIN};
use crate::core::strongswan::{self, Daemon, Settings, State};

/// `RTPROT_BOOT`, what `ip route` sets; `RTPROT_STATIC`, what charon sets (`manage_srcroute`).
const BOOT: u8 = 3;
const STATIC: u8 = 4;
/// Metric that the kernel gives to IPv6 routes without one (`IP6_RT_PRIO_USER`).
const V6_METRIC: u32 = 1024;

/// Table and priority of Libreswan's updown script (`_updown.xfrm`, `doroute`).
const LIBRESWAN_TABLE: u32 = 50;
const LIBRESWAN_PRIORITY: u32 = 100;

pub(super) fn strongswan_rule(seen: &Seen<'_>, rule: &Rule) -> Option<Candidate> {
    charon_rule(seen, rule, Program::StrongSwan)
}

pub(super) fn charon_nm_rule(seen: &Seen<'_>, rule: &Rule) -> Option<Candidate> {
    let candidate = charon_rule(seen, rule, Program::CharonNm)?;
    Some(with_nm_device(candidate, seen.table_device(rule.table()?, is_charon_nms)))
}

/// charon-nm names its XFRM interfaces so.
fn is_charon_nms(link: &Link) -> bool {
    link.name.starts_with("nm-xfrm-")
}

fn with_nm_device(candidate: Candidate, device: Option<&Link>) -> Candidate {
    match device {
        Some(link) => candidate.with(Kind::Host, format!("{} is a device of charon-nm by its name", link.name)),
        None => candidate,
    }
}

/// strongSwan's default is `220: from all lookup 220`, without a protocol, and in the table routes of protocol static
/// without a metric (`kernel_netlink_net.c`).
fn charon_rule(seen: &Seen<'_>, rule: &Rule, program: Program) -> Option<Candidate> {
    let table = rule.table()?;
    let settings = settings(seen, table, program)?;
    let candidate = numbers(Candidate::of(program), &settings, table);
    let as_made = settings.rule(rule.family).is_some_and(|made| made.same_effect(rule));
    let as_by_default =
        Settings::defaults(settings.daemon).rule(rule.family).is_some_and(|made| made.same_effect(rule));
    let candidate = match (as_made || as_by_default, rule.protocol) {
        (true, 0) => candidate.with(Kind::Shape, "the rule is as charon adds it when it starts"),
        (true, _) => candidate.with(Kind::Against, "the rule bears a protocol, and charon gives it none"),
        (false, _) => candidate.with(Kind::Against, format!("charon's rule has another shape than `{rule}`")),
    };
    Some(with_state(seen, routes_of(seen, candidate, table), &settings, table))
}

/// The settings of the daemon that a table belongs to, if that daemon is this program.
fn settings(seen: &Seen<'_>, table: u32, program: Program) -> Option<Settings> {
    let settings = strongswan::daemon_of(seen.clues, table)?;
    let of_nm = settings.daemon == Daemon::CharonNm;
    (of_nm == (program == Program::CharonNm)).then_some(settings)
}

/// A table that a file names is certain; one that only the program's defaults name is a number.
fn numbers(candidate: Candidate, settings: &Settings, table: u32) -> Candidate {
    let configured = settings.routing_table.place.as_ref().filter(|_| settings.routing_table.value == table);
    match configured {
        Some(place) => candidate.with(Kind::Own, format!("routing_table = {table} at {place}")),
        None => candidate.with(Kind::Number, format!("table {table} is the default of {}", settings.daemon.name())),
    }
}

fn routes_of(seen: &Seen<'_>, candidate: Candidate, table: u32) -> Candidate {
    let routes: Vec<&Route> = seen.routes(table).collect();
    let foreign = routes.iter().find(|route| !is_charons(route));
    match (routes.is_empty(), foreign) {
        (true, _) => candidate,
        (false, None) => {
            candidate.with(Kind::Shape, "its routes are of protocol static without a metric, as charon installs them")
        }
        (false, Some(route)) => {
            let protocol = super::super::protocol(seen.clues, route.protocol);
            candidate.with(
                Kind::Against,
                format!("the table has route {route} of protocol {protocol}, which is not charon's"),
            )
        }
    }
}

/// Unicast for a policy, throw for a bypass (`kernel_netlink_ipsec.c`).
fn is_charons(route: &Route) -> bool {
    let kind = matches!(route.kind, RouteKind::Unicast | RouteKind::Throw);
    kind && route.protocol == STATIC && matches!(route.metric, 0 | V6_METRIC)
}

fn with_state(seen: &Seen<'_>, candidate: Candidate, settings: &Settings, table: u32) -> Candidate {
    match strongswan::state(seen.snapshot, seen.clues, settings.daemon, table) {
        // That a daemon runs is a sign on the host, and told as one; that nothing is known is nothing to tell.
        State::Running { .. } | State::Unknown => candidate,
        state => candidate.with(Kind::Told, state.to_string()),
    }
}

pub(super) fn strongswan_route(seen: &Seen<'_>, route: &Route) -> Option<Candidate> {
    main_halves(seen, route).or_else(|| charon_route(seen, route, Program::StrongSwan))
}

pub(super) fn charon_nm_route(seen: &Seen<'_>, route: &Route) -> Option<Candidate> {
    let candidate = charon_route(seen, route, Program::CharonNm)?;
    Some(with_nm_device(candidate, seen.device(route).filter(|link| is_charon_nms(link))))
}

fn charon_route(seen: &Seen<'_>, route: &Route, program: Program) -> Option<Candidate> {
    let settings = settings(seen, route.table, program)?;
    let candidate = numbers(Candidate::of(program), &settings, route.table);
    let candidate = if is_charons(route) {
        candidate.with(Kind::Shape, "the route is of protocol static without a metric, as charon installs it")
    } else {
        let protocol = super::super::protocol(seen.clues, route.protocol);
        candidate.with(
            Kind::Against,
            format!("the route is of protocol {protocol} with metric {}, and charon's are not", route.metric),
        )
    };
    Some(with_state(seen, candidate, &settings, route.table))
}

/// With `routing_table = 0` charon's routes go to main, and a default route as the two halves of everything.
fn main_halves(seen: &Seen<'_>, route: &Route) -> Option<Candidate> {
    let to_main = |settings: &Settings| settings.routing_table.value == 0 && settings.install_routes.value;
    let settings = Daemon::ALL.iter().map(|daemon| seen.clues.strongswan.settings(*daemon)).find(to_main)?;
    let place = settings.routing_table.place?;
    (route.table == TABLE_MAIN && is_charons(route) && seen.is_half_of_all(route)).then(|| {
        Candidate::of(Program::StrongSwan)
            .with(Kind::Own, format!("routing_table = 0 at {place} sends strongSwan's routes to table main"))
            .with(Kind::Shape, "a default route of strongSwan stands there as its two halves")
    })
}

/// `100: from all to PEER-NET fwmark IF-ID lookup 50`; the table holds the peer's outer address. Older versions wrote
/// `not fwmark`.
pub(super) fn libreswan_rule(_: &Seen<'_>, rule: &Rule) -> Option<Candidate> {
    if rule.table() != Some(LIBRESWAN_TABLE) {
        return None;
    }
    let candidate =
        Candidate::of(Program::Libreswan).with(Kind::Number, "table 50 is the one of Libreswan's updown script");
    let shape = Rule {
        to: rule.to,
        mark: rule.mark,
        invert: rule.invert,
        ..Rule::lookup(rule.family, LIBRESWAN_PRIORITY, LIBRESWAN_TABLE)
    };
    Some(if rule.mark.is_some() && rule.same_effect(&shape) {
        candidate.with(Kind::Shape, "the rule is for a mark at priority 100, as that script adds it")
    } else {
        candidate.with(Kind::Against, "that script's rule is for a mark at priority 100")
    })
}

/// Routes into its interfaces in main, a default one as its two halves, and the peer's outer address in table 50.
pub(super) fn libreswan_route(seen: &Seen<'_>, route: &Route) -> Option<Candidate> {
    let interface = |link: &&Link| {
        let number = link.name.strip_prefix("ipsec").and_then(|number| number.parse::<u32>().ok());
        matches!(link.kind, LinkKind::Xfrm { .. }) && number.is_some()
    };
    if route.table == LIBRESWAN_TABLE {
        return super::by_rule(seen, route, Program::Libreswan, libreswan_rule);
    }
    let device =
        seen.device(route).filter(interface).filter(|_| route.table == TABLE_MAIN && route.protocol == BOOT)?;
    let shape = format!("the route leaves by {}, an XFRM interface named as Libreswan names its own", device.name);
    let candidate = Candidate::of(Program::Libreswan).with(Kind::Shape, shape);
    let halves = "a default route of Libreswan stands there as its two halves";
    Some(candidate.with_if(seen.is_half_of_all(route), Kind::Told, halves))
}
