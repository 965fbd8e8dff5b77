//! The tunnels' interfaces: their state, their settings, and what their counters mean.

use std::collections::BTreeMap;

use super::binding::Binding;
use super::check::{Area, Check, CheckId, State};
use super::facts::{Facts, NotKnown, Switches};
use super::ipsec::{NAMED, link};
use super::{answered, change, risen};
use crate::core::finding::{NoteId, Reason, few};
use crate::core::model::{Encapsulation, Family, Link, LinkCounters, LinkKind};
use crate::core::tunnel::Tunnel;

/// What ESP in tunnel mode adds at the least, in bytes: outer IPv4 header 20, ESP header 8, the IV of GCM 8, two bytes of
/// trailer, and a checksum of 12 (RFC 4303, RFC 4106).
const LEAST_OVERHEAD: u32 = 50;
/// A UDP header, where ESP is wrapped in UDP.
const UDP_HEADER: u32 = 8;
/// IPv6's outer header is so much longer.
const V6_HEADER_MORE: u32 = 20;

/// All checks of the interfaces.
pub(super) fn checks(facts: &Facts<'_>) -> Vec<Check> {
    let mut checks = Vec::new();
    for tunnel in facts.tunnels {
        let Some(link) = link(facts, tunnel) else { continue };
        let found = [
            Some(up(tunnel, link)),
            Some(address(facts, tunnel, link)),
            unique(facts, tunnel),
            mtu(facts, tunnel, link),
            carrier_errors(facts, tunnel, link),
            looped(facts, tunnel, link),
            send_errors(facts, tunnel),
            disable_xfrm(facts, tunnel, link),
            disable_policy(facts, tunnel, link),
            Some(rp_filter(facts, tunnel, link)),
        ];
        checks.extend(found.into_iter().flatten().map(|check| check.of_tunnel(&tunnel.name)));
    }
    checks.extend(reverse_path_drops(facts));
    checks
}

fn check(id: CheckId, state: State, found: impl Into<String>) -> Check {
    Check::new(Area::Interface, id, state, found)
}

fn up(tunnel: &Tunnel, link: &Link) -> Check {
    match (link.up, link.carrier) {
        (true, true) => check(CheckId::LinkUp, State::Ok, format!("{} interface, up", tunnel.kind)),
        (true, false) => {
            check(CheckId::LinkUp, State::Failed, "it is up and has no carrier: what is sent into it is lost")
                .advice("look at what the interface rests on: its lower device, or the program that holds it open")
        }
        (false, _) => check(CheckId::LinkUp, State::Failed, "it is down: its routes are gone")
            .advice(format!("`ip link set {} up`, and see who took it down", tunnel.name)),
    }
}

fn address(facts: &Facts<'_>, tunnel: &Tunnel, link: &Link) -> Check {
    let words = |inside: &crate::core::tunnel::Inside| match inside.peer {
        Some(peer) => format!("{} to {peer} ({})", inside.local, inside.prefix),
        None => format!("{} in {}", inside.local, inside.prefix),
    };
    let all: Vec<String> = tunnel.inside.iter().map(words).collect();
    if all.is_empty() {
        let validated =
            if link.settings.rp_filter > 0 { ", and source validation drops whatever comes in" } else { "" };
        let text = format!("it has no address inside{validated}");
        let advice = "give it the inside address of the VPN's configuration: `ip addr add LOCAL/30 dev …`";
        // An unnumbered tunnel works, as long as nothing has to be asked or answered from inside.
        let routed = facts.destinations.iter().any(|destination| destination.tunnels.contains(&tunnel.ifindex));
        let works = routed && (link.settings.rp_filter == 0 || matches!(link.kind, LinkKind::Xfrm { .. }));
        let state = if works { State::Warning } else { State::Failed };
        return check(CheckId::Address, state, text).advice(advice);
    }
    let swapped =
        facts.judgement.notes.iter().any(|note| note.id == NoteId::SwappedInside && names(&note.text, &tunnel.name));
    if swapped && answered(facts, tunnel) == Some(false) {
        let text = format!(
            "{}: AWS keeps the first address of the prefix for its own end, and nobody answers",
            all.join(", ")
        );
        return check(CheckId::Address, State::Failed, text)
            .advice("the customer's end is the second host of the /30: the two were most likely exchanged");
    }
    check(CheckId::Address, State::Ok, few(&all, NAMED))
}

/// Does the text name this device?
fn names(text: &str, device: &str) -> bool {
    text.split(|character: char| character.is_whitespace() || ",:;()`".contains(character)).any(|word| word == device)
}

/// The same inside prefix on two tunnels: packets for one peer go into the other tunnel.
fn unique(facts: &Facts<'_>, tunnel: &Tunnel) -> Option<Check> {
    let same = |other: &&Tunnel| {
        other.ifindex != tunnel.ifindex
            && other.table == tunnel.table
            && other.inside.iter().any(|inside| tunnel.inside.iter().any(|own| own.prefix == inside.prefix))
    };
    tunnel.inside.first()?;
    Some(match facts.tunnels.iter().find(same) {
        Some(other) => {
            check(CheckId::InsideUnique, State::Failed, format!("{} has the same inside prefix", other.name))
                .advice("give one of the two VPN connections another inside prefix (AWS: TunnelInsideCidr)")
        }
        None => check(CheckId::InsideUnique, State::Ok, "no other tunnel has its inside prefix"),
    })
}

/// A packet that is too large once it is encrypted is refused with "too big" or fragmented outside; both cost, and the
/// second is lost behind many firewalls.
fn mtu(facts: &Facts<'_>, tunnel: &Tunnel, link: &Link) -> Option<Check> {
    let binding = Binding::of(link)?;
    let own = link.mtu?;
    let outer = facts.measured.outer.get(&tunnel.ifindex);
    let Some((device, room)) = outer.and_then(|outer| Some((outer.device.as_str(), outer.mtu?))) else {
        return Some(check(
            CheckId::Mtu,
            State::Skipped,
            format!("{own}; by which device its packets leave is not known"),
        ));
    };
    let overhead = LEAST_OVERHEAD + extra_overhead(facts, tunnel, binding);
    let most = room.saturating_sub(overhead);
    if own <= most {
        return Some(check(
            CheckId::Mtu,
            State::Ok,
            format!("{own}, which fits into {room} of {device} once encrypted"),
        ));
    }
    let text = format!("{own} does not fit into {room} of {device}: encrypting adds {overhead} bytes or more");
    Some(
        check(CheckId::Mtu, State::Warning, text)
            .advice(format!("`ip link set {} mtu 1419` (AWS's own value), and clamp TCP's MSS to it", tunnel.name)),
    )
}

fn extra_overhead(facts: &Facts<'_>, tunnel: &Tunnel, binding: Binding) -> u32 {
    let bound = super::ipsec::bound(facts).unwrap_or_default();
    let association = bound.iter().find(|bound| bound.tunnel.ifindex == tunnel.ifindex).and_then(|bound| bound.out_sa);
    let wrapped = association.and_then(|association| association.encapsulation);
    let udp = wrapped.map_or(0, |_: Encapsulation| UDP_HEADER);
    let remote = match (association, binding) {
        (Some(association), _) => Some(association.destination),
        (None, Binding::Keys { remote, .. }) => remote,
        (None, Binding::IfId(_)) => None,
    };
    udp + if remote.map(Family::of) == Some(Family::V6) { V6_HEADER_MORE } else { 0 }
}

fn counters(facts: &Facts<'_>, tunnel: &Tunnel) -> Option<(LinkCounters, LinkCounters)> {
    let at = |links: &BTreeMap<u32, LinkCounters>| links.get(&tunnel.ifindex).copied();
    at(&facts.measured.before.links).zip(at(&facts.measured.after.links))
}

/// What `ip -s tunnel` calls NoRoute has nothing to do with routes: `vti_xmit` and `xfrmi_xmit2` count it where they find no
/// usable policy or SA, or one with other outer addresses.
fn carrier_errors(facts: &Facts<'_>, tunnel: &Tunnel, link: &Link) -> Option<Check> {
    Binding::of(link)?;
    let (before, after) = counters(facts, tunnel)?;
    let more = change(before.tx_carrier_errors, after.tx_carrier_errors);
    Some(if more == 0 {
        let text = format!(
            "none meanwhile ({} in all, which says nothing: they count from before the SAs came up)",
            after.tx_carrier_errors
        );
        check(CheckId::CarrierErrors, State::Ok, text)
    } else {
        let text = format!(
            "{more} packets found no SA or policy for its key or if_id, or one with other outer addresses (`ip -s tunnel` calls it NoRoute)"
        );
        check(CheckId::CarrierErrors, State::Failed, text)
            .advice("compare key or if_id, and the outer addresses, with `ip xfrm policy` and `ip xfrm state`")
    })
}

fn looped(facts: &Facts<'_>, tunnel: &Tunnel, link: &Link) -> Option<Check> {
    Binding::of(link)?;
    let (before, after) = counters(facts, tunnel)?;
    let more = change(before.collisions, after.collisions);
    (more > 0).then(|| {
        check(CheckId::Loop, State::Failed, format!("{more} encrypted packets were routed into the tunnel itself"))
            .advice("a host route to the peer's outer address by the physical device ends the loop")
    })
}

/// Errors that are neither of the two: too large a packet, a protocol that the tunnel does not carry.
fn send_errors(facts: &Facts<'_>, tunnel: &Tunnel) -> Option<Check> {
    let (before, after) = counters(facts, tunnel)?;
    let named = |counters: LinkCounters| counters.tx_carrier_errors.saturating_add(counters.collisions);
    let all = change(before.tx_errors, after.tx_errors).saturating_sub(change(named(before), named(after)));
    let dropped = change(before.tx_dropped, after.tx_dropped).saturating_sub(change(named(before), named(after)));
    Some(match (all, dropped) {
        (0, 0) => {
            let sent = change(before.tx_packets, after.tx_packets);
            let received = change(before.rx_packets, after.rx_packets);
            check(CheckId::SendErrors, State::Ok, format!("none meanwhile; {sent} packets out, {received} in"))
        }
        _ => check(
            CheckId::SendErrors,
            State::Warning,
            format!("{all} packets could not be sent, {dropped} were dropped"),
        )
        .advice("mostly packets larger than the path takes: lower the interface's MTU, clamp TCP's MSS"),
    })
}

fn switches(facts: &Facts<'_>, tunnel: &Tunnel) -> Result<Switches, String> {
    match &facts.measured.switches {
        Ok(switches) => switches.get(&tunnel.ifindex).copied().ok_or_else(|| "the kernel does not tell them".into()),
        Err(NotKnown(why)) => Err(why.clone()),
    }
}

fn disable_xfrm(facts: &Facts<'_>, tunnel: &Tunnel, link: &Link) -> Option<Check> {
    Binding::of(link)?;
    Some(match switches(facts, tunnel) {
        Err(why) => check(CheckId::DisableXfrm, State::Skipped, why),
        Ok(Switches { disable_xfrm: false, .. }) => check(CheckId::DisableXfrm, State::Ok, "0: packets are encrypted"),
        Ok(_) => {
            check(CheckId::DisableXfrm, State::Failed, "1: nothing is encrypted, so nothing is sent").advice(format!(
                "set net.ipv4.conf.{}.disable_xfrm and that of `all` to 0; the physical device may keep 1",
                tunnel.name
            ))
        }
    })
}

/// A VTI takes the packet's security path away (`skb_scrub_packet`), so that a second look for a policy finds none with its
/// mark. That drops packets only where another policy matches; the counters tell.
fn disable_policy(facts: &Facts<'_>, tunnel: &Tunnel, link: &Link) -> Option<Check> {
    if !matches!(link.kind, LinkKind::Vti { v6: false, .. }) {
        return None;
    }
    Some(match switches(facts, tunnel) {
        Err(why) => check(CheckId::DisablePolicy, State::Skipped, why),
        Ok(Switches { disable_policy: true, .. }) => {
            check(CheckId::DisablePolicy, State::Ok, "1: packets are checked once, by the tunnel's policy")
        }
        Ok(_) => {
            let dropped: u64 =
                ["XfrmInNoPols", "XfrmInTmplMismatch", "XfrmInPolBlock"].map(|name| risen(facts, name)).iter().sum();
            let advice = format!("`sysctl -w net.ipv4.conf.{}.disable_policy=1`", tunnel.name);
            let (state, text) = match dropped {
                0 => (State::Warning, "0: what comes in is checked a second time, without its mark".to_string()),
                _ => (State::Failed, format!("0: {dropped} packets failed the second check, which has no mark")),
            };
            check(CheckId::DisablePolicy, state, text).advice(advice)
        }
    })
}

fn rp_filter(facts: &Facts<'_>, tunnel: &Tunnel, link: &Link) -> Check {
    let value = link.settings.rp_filter;
    if matches!(link.kind, LinkKind::Xfrm { .. }) {
        let text = format!("{value}; the kernel exempts what an XFRM interface decrypted");
        return check(CheckId::RpFilter, State::Ok, text);
    }
    let strict = value == 1;
    if !strict {
        return check(CheckId::RpFilter, State::Ok, format!("{value}: the way back need not be this tunnel"));
    }
    let of_tunnel = |name: &str| name == tunnel.name;
    let found = facts
        .judgement
        .findings
        .iter()
        .any(|finding| finding.reason == Reason::ReversePath && of_tunnel(&finding.tunnel));
    let second_way =
        facts.judgement.notes.iter().find(|note| note.id == NoteId::StrictSecondWay && names(&note.text, &tunnel.name));
    let dropped = risen(facts, REVERSE_PATH);
    let advice = format!("`sysctl -w net.ipv4.conf.{}.rp_filter=2` (the larger of it and `all` counts)", tunnel.name);
    let (state, text) = match (found, second_way, dropped) {
        (true, _, _) => (State::Failed, "1, strict: the way back to what comes in is not this tunnel".to_string()),
        (false, _, 1..) => (State::Failed, format!("1, strict: {dropped} packets were dropped by source validation")),
        (false, Some(note), 0) => (State::Failed, format!("1, strict: {}", note.text)),
        (false, None, 0) => (
            State::Warning,
            "1, strict: it drops what AWS sends by the other tunnel than the way back, which is usual".to_string(),
        ),
    };
    check(CheckId::RpFilter, state, text).advice(advice)
}

/// The counter of packets that source validation dropped, by nstat's name.
const REVERSE_PATH: &str = "TcpExtIPReversePathFilter";

/// The counter is of the whole namespace; it is told by its change alone.
fn reverse_path_drops(facts: &Facts<'_>) -> Option<Check> {
    facts.tunnels.first()?;
    if let Err(NotKnown(why)) = &facts.measured.after.network {
        return Some(check(CheckId::ReversePathDrops, State::Skipped, format!("the counter could not be read: {why}")));
    }
    let dropped = risen(facts, REVERSE_PATH);
    Some(if dropped == 0 {
        check(CheckId::ReversePathDrops, State::Ok, "source validation dropped no packet meanwhile")
    } else {
        // On a host of many devices, strangers can make it rise.
        check(
            CheckId::ReversePathDrops,
            State::Warning,
            format!("source validation dropped {dropped} packets meanwhile"),
        )
        .advice("`sysctl -w net.ipv4.conf.all.log_martians=1` names them in the kernel's log")
    })
}
