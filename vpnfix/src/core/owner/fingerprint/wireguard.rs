//! VPNs over WireGuard: wg-quick, Tailscale, NetBird, Mullvad.

use super::{Candidate, Kind, Program, Route, Rule, Seen};
use crate::core::model::{Link, Mark, RuleAction, TABLE_DEFAULT, TABLE_MAIN};
use crate::core::owner::seen::{is_kind, plain, specific_of_main};

/// Tailscale's table (`router_linux.go`), and where its rules begin: by default, and on UniFi gateways.
const TAILSCALE_TABLE: u32 = 52;
const TAILSCALE_BASES: [u32; 2] = [5200, 1300];
/// The mark of Tailscale's own packets (`tsconst`: `LinuxBypassMark`).
const TAILSCALE_MARK: Mark = Mark { value: 0x8_0000, mask: 0xff_0000 };

/// NetBird's table, rules and mark (`systemops_linux.go`; `ControlPlaneMark`).
const NETBIRD_TABLE: u32 = 0x1bd0;
const NETBIRD_MARK: u32 = 0x1_bd00;
const NETBIRD_MAIN_PRIORITY: u32 = 105;
const NETBIRD_PRIORITY: u32 = 110;

/// Mullvad's table and mark: "mole" in ASCII (`mullvad-types`: `TUNNEL_TABLE_ID`, `TUNNEL_FWMARK`).
const MULLVAD: u32 = 0x6d6f_6c65;

/// wg-quick takes the first free table from here on (`linux.bash`: `add_default`).
const WG_QUICK_TABLES: std::ops::Range<u32> = 51820..51900;
/// `RTPROT_BOOT`, what `ip route` sets.
const BOOT: u8 = 3;

/// Four rules: packets of its own go by main, then default, then nowhere; all else is looked up in its table first.
pub(super) fn tailscale_rule(_: &Seen<'_>, rule: &Rule) -> Option<Candidate> {
    let offset =
        TAILSCALE_BASES.iter().find_map(|base| rule.priority.checked_sub(*base).filter(|offset| *offset < 100));
    // Older versions give the mark without a mask.
    let whole = Mark { mask: u32::MAX, ..TAILSCALE_MARK };
    let mark = rule.mark.filter(|mark| [TAILSCALE_MARK, whole].contains(mark)).or(Some(TAILSCALE_MARK));
    let marked = |action| Rule { mark, action, ..plain(rule, 0) };
    let shape = match offset {
        Some(10) => Some(marked(RuleAction::Lookup(TABLE_MAIN))),
        Some(30) => Some(marked(RuleAction::Lookup(TABLE_DEFAULT))),
        Some(50) => Some(marked(RuleAction::Unreachable)),
        Some(70) => Some(plain(rule, TAILSCALE_TABLE)),
        _ => None,
    };
    let as_made = shape.is_some_and(|shape| shape.same_effect(rule));
    let candidate = Candidate::of(Program::Tailscale);
    if as_made {
        let number = format!("priority {} is one of Tailscale's", rule.priority);
        return Some(candidate.with(Kind::Number, number).with(Kind::Shape, "the rule is as Tailscale makes it"));
    }
    let table = rule.table() == Some(TAILSCALE_TABLE);
    table.then(|| candidate.with(Kind::Number, "table 52 is Tailscale's"))
}

pub(super) fn tailscale_route(seen: &Seen<'_>, route: &Route) -> Option<Candidate> {
    let device = seen.device(route).filter(|link| link.name.starts_with("tailscale"));
    table_route(seen, route, Program::Tailscale, tailscale_rule, TAILSCALE_TABLE, device)
}

/// `105: from all lookup main suppress_prefixlength 0` and `110: not from all fwmark 0x1bd00 lookup 7120`. The first is
/// a trick that many use: its priority counts for little alone.
pub(super) fn netbird_rule(seen: &Seen<'_>, rule: &Rule) -> Option<Candidate> {
    let own = |rule: &Rule| {
        let mark = Some(Mark { value: NETBIRD_MARK, mask: u32::MAX });
        rule.same_effect(&Rule { invert: true, mark, ..Rule::lookup(rule.family, NETBIRD_PRIORITY, NETBIRD_TABLE) })
    };
    let candidate = Candidate::of(Program::NetBird);
    if rule.table() == Some(NETBIRD_TABLE) {
        let candidate = candidate.with(Kind::Number, format!("table {NETBIRD_TABLE} is NetBird's"));
        return Some(candidate.with_if(own(rule), Kind::Shape, "the rule is for all that lacks NetBird's mark"));
    }
    (rule.priority == NETBIRD_MAIN_PRIORITY && rule.same_effect(&specific_of_main(rule))).then(|| {
        let beside = seen.rule(rule.family, own).is_some();
        let candidate = candidate.with(Kind::Number, "priority 105 is the one of NetBird's rule to table main");
        candidate.with_if(beside, Kind::Shape, "it stands beside NetBird's rule at priority 110")
    })
}

pub(super) fn netbird_route(seen: &Seen<'_>, route: &Route) -> Option<Candidate> {
    // The name by default; it can be chosen.
    let device = seen.device(route).filter(|link| link.name == "wt0");
    table_route(seen, route, Program::NetBird, netbird_rule, NETBIRD_TABLE, device)
}

pub(super) fn mullvad_rule(seen: &Seen<'_>, rule: &Rule) -> Option<Candidate> {
    let candidate = Candidate::of(Program::Mullvad);
    if rule.table() == Some(MULLVAD) {
        let candidate = candidate.with(Kind::Number, format!("table {MULLVAD} is Mullvad's"));
        let own = Seen::marked_away(rule).is_some();
        return Some(candidate.with_if(own, Kind::Shape, "the rule is for all that lacks Mullvad's mark"));
    }
    let beside = seen.companion(rule).is_some_and(|companion| companion.table() == Some(MULLVAD));
    beside.then(|| {
        let shape = "the rule lets the specific routes of main come before a tunnel's, as Mullvad does";
        let beside = format!("it stands beside a rule to Mullvad's table {MULLVAD}");
        candidate.with(Kind::Shape, shape).with(Kind::Number, beside)
    })
}

pub(super) fn mullvad_route(seen: &Seen<'_>, route: &Route) -> Option<Candidate> {
    let device = seen.device(route).filter(|link| link.name.ends_with("-mullvad"));
    table_route(seen, route, Program::Mullvad, mullvad_rule, MULLVAD, device)
}

/// A route of a table that is one program's alone.
fn table_route(
    seen: &Seen<'_>,
    route: &Route,
    program: Program,
    of_rule: super::OfRule,
    table: u32,
    device: Option<&Link>,
) -> Option<Candidate> {
    let candidate = super::by_rule(seen, route, program, of_rule).filter(|_| route.table == table).or_else(|| {
        let number = format!("table {table} is {}'s", program.name());
        (route.table == table).then(|| Candidate::of(program).with(Kind::Number, number))
    });
    let Some(device) = device else { return candidate };
    let name = format!("{} is {}'s device by its name", device.name, program.name());
    Some(candidate.unwrap_or_else(|| Candidate::of(program)).with(Kind::Shape, name))
}

/// `not from all fwmark 51820 lookup 51820` and `from all lookup main suppress_prefixlength 0`, both without a
/// priority: the kernel puts them before the first rule that is not its own, at 218 and 219 where strongSwan's 220
/// stands.
pub(super) fn wg_quick_rule(seen: &Seen<'_>, rule: &Rule) -> Option<Candidate> {
    let candidate = Candidate::of(Program::WgQuick);
    if let Some(table) = Seen::marked_away(rule) {
        let shape = "the rule is for all that lacks the mark of the table's own number, as wg-quick makes it";
        let candidate = candidate.with(Kind::Shape, shape);
        return Some(with_device(seen, with_table(candidate, table), table));
    }
    let table = seen.companion(rule)?.table()?;
    let shape = "the rule lets the specific routes of main come before a tunnel's, as wg-quick does";
    Some(with_device(seen, with_table(candidate.with(Kind::Shape, shape), table), table))
}

fn with_table(candidate: Candidate, table: u32) -> Candidate {
    let number = format!("table {table} is one that wg-quick takes by default");
    if WG_QUICK_TABLES.contains(&table) { candidate.with(Kind::Number, number) } else { candidate }
}

fn with_device(seen: &Seen<'_>, candidate: Candidate, table: u32) -> Candidate {
    match seen.table_device(table, |link| is_kind(link, "wireguard")) {
        Some(link) => {
            candidate.with(Kind::Host, format!("the table's routes leave by the WireGuard device {}", link.name))
        }
        None => candidate,
    }
}

/// The default route in its table, and a route for each of AllowedIPs in main (`ip route add PREFIX dev DEVICE`).
pub(super) fn wg_quick_route(seen: &Seen<'_>, route: &Route) -> Option<Candidate> {
    let device = seen.device(route).filter(|link| is_kind(link, "wireguard"))?;
    let marked = |rule: &&Rule| rule.family == route.family && Seen::marked_away(rule) == Some(route.table);
    if let Some(rule) = seen.snapshot.rules.iter().find(marked) {
        let asked = format!("table {} is asked by rule `{rule}`, which is as wg-quick makes it", route.table);
        return Some(with_table(Candidate::of(Program::WgQuick).with(Kind::Shape, asked), route.table));
    }
    let direct = route.protocol == BOOT && route.nexthops.iter().all(|nexthop| nexthop.gateway.is_none());
    let shape = format!("the route leaves by the WireGuard device {}, of protocol boot", device.name);
    (direct && route.table == TABLE_MAIN).then(|| Candidate::of(Program::WgQuick).with(Kind::Shape, shape))
}
