//! Who most likely put a rule there: by its shape, its table's routes and what was seen on the host.

use super::finding::{Confidence, Cure, Finding, Owner};
use super::model::{Rule, Snapshot, route::protocol_name};

/// `FRA_PROTOCOL` of vpnfix's own rules. Not assigned to anyone else in `/etc/iproute2/rt_protos`.
pub const VPNFIX_PROTOCOL: u8 = 118;

/// The table and rule priority that strongSwan is built with (`configure.ac`: `routing-table`, `routing-table-prio`).
pub const STRONGSWAN_TABLE: u32 = 220;
/// The same of its NetworkManager variant (`charon-nm.routing_table`).
pub const CHARON_NM_TABLE: u32 = 210;

/// Signs of programs seen on the host, as sentences that a report can quote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clues {
    /// Signs of a running strongSwan daemon: a process, a pid file, its control socket.
    pub strongswan: Vec<String>,
}

/// The most likely owner of a rule.
#[must_use]
pub fn owner(snapshot: &Snapshot, clues: &Clues, rule: Option<&Rule>) -> Owner {
    let Some(rule) = rule else { return unknown(Vec::new()) };
    if rule.protocol == VPNFIX_PROTOCOL {
        return named("vpnfix", Confidence::Certain, vec![format!("the rule's protocol is {VPNFIX_PROTOCOL}")]);
    }
    if rule.is_kernel_default() {
        return named("kernel", Confidence::Certain, vec!["every namespace starts with this rule".into()]);
    }
    match rule.table() {
        Some(STRONGSWAN_TABLE) => strongswan(snapshot, clues, rule),
        Some(CHARON_NM_TABLE) if rule.priority == CHARON_NM_TABLE => named(
            "strongSwan (charon-nm)",
            Confidence::Likely,
            vec![format!("rule and table {CHARON_NM_TABLE} are charon-nm's defaults")],
        ),
        _ => unknown(match rule.protocol {
            0 => Vec::new(),
            protocol => vec![format!("the rule's protocol is {}", protocol_name(protocol))],
        }),
    }
}

/// strongSwan's default: `220: from all lookup 220`, no protocol, and in the table routes of protocol static without a
/// metric (`kernel_netlink_net.c`). Every sign that fits is named, and each that does not lowers the confidence.
fn strongswan(snapshot: &Snapshot, clues: &Clues, rule: &Rule) -> Owner {
    let mut evidence = Vec::new();
    let plain = rule.same_effect(&Rule::lookup(rule.family, STRONGSWAN_TABLE, STRONGSWAN_TABLE));
    if plain {
        evidence.push("rule 220 for everything into table 220 is strongSwan's default".to_string());
    } else {
        evidence.push("table 220 is strongSwan's default, but the rule has another shape".to_string());
    }
    let mut routes = snapshot.table(rule.family, STRONGSWAN_TABLE).peekable();
    let has_routes = routes.peek().is_some();
    let static_routes = routes.all(|route| route.protocol == 4 && (route.metric == 0 || route.metric == 1024));
    if has_routes && static_routes {
        evidence.push("its routes are of protocol static without a metric, as charon installs them".to_string());
    }
    evidence.extend(clues.strongswan.iter().cloned());
    let confidence = match (plain, has_routes && static_routes, clues.strongswan.is_empty()) {
        (true, true, _) => Confidence::Likely,
        (true, false, false) => Confidence::Likely,
        _ => Confidence::Possible,
    };
    named("strongSwan", confidence, evidence)
}

fn named(name: &str, confidence: Confidence, evidence: Vec<String>) -> Owner {
    Owner { name: name.into(), confidence, evidence }
}

fn unknown(evidence: Vec<String>) -> Owner {
    named("unknown", Confidence::Unknown, evidence)
}

/// The cures at the root for what findings' owners do, each once.
#[must_use]
pub fn cures(findings: &[Finding]) -> Vec<Cure> {
    let mut cures: Vec<Cure> = findings.iter().filter_map(|finding| cure(&finding.owner)).collect();
    cures.dedup();
    cures
}

/// The cure at the root for what an owner does, where one is known.
fn cure(owner: &Owner) -> Option<Cure> {
    if owner.name != "strongSwan" {
        return None;
    }
    Some(Cure {
        what: "stop strongSwan from installing routes of its own; the tunnel interfaces' routes in main suffice".into(),
        place:
            "/etc/strongswan.d/charon.conf (Debian, Ubuntu) or /etc/strongswan/strongswan.d/charon.conf (RHEL, Fedora)"
                .into(),
        how: "set `charon { install_routes = no }` and restart the daemon (`systemctl restart strongswan`, or \
              `strongswan-starter` with ipsec.conf); a reload does not suffice, and a restart takes the tunnels down \
              for a moment"
            .into(),
    })
}
