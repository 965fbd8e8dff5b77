//! Faults of policies and SAs, and of the daemon that makes them.

use vpnfix_tests::vpn::Vpn;
use vpnfix_tests::{ip, wait};

const OUTBOUND: &str = "xfrm policy delete src 0.0.0.0/0 dst 0.0.0.0/0 dir out";

pub fn no_mark(vpn: &Vpn) {
    vpn.ip("gw", &[&format!("{OUTBOUND} mark 100"), &outbound_policy(vpn, "")]);
}

pub fn mark_again(vpn: &Vpn) {
    vpn.ip("gw", &[OUTBOUND]);
    policy_again(vpn);
}

pub fn no_policy(vpn: &Vpn) {
    vpn.ip("gw", &[&format!("{OUTBOUND} mark 100")]);
}

pub fn policy_again(vpn: &Vpn) {
    vpn.ip("gw", &[&outbound_policy(vpn, "mark 100")]);
}

/// The first tunnel's outbound policy, as words for `ip`. Which of two tunnels has which reqid hangs on which was there first.
fn outbound_policy(vpn: &Vpn, mark: &str) -> String {
    let own = inbound(vpn);
    let reqid = own.split("reqid ").nth(1).and_then(|rest| rest.split(['(', ' ']).next()).expect("a reqid");
    format!(
        "xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir out priority 399999 {mark} \
         tmpl src 192.168.12.49 dst 203.0.113.10 proto esp reqid {reqid} mode tunnel"
    )
}

/// What a VTI decrypted has neither mark nor security path when it is looked at a second time.
pub fn second_check(vpn: &Vpn) {
    vpn.ip(
        "gw",
        &["xfrm policy add src 169.254.55.53/32 dst 169.254.55.54/32 dir in priority 500000 \
           tmpl src 203.0.113.10 dst 192.168.12.49 proto esp reqid 77 mode tunnel"],
    );
    vpn.sysctl("gw", "ipv4/conf/Tunnel1/disable_policy", "0");
}

pub fn one_check(vpn: &Vpn) {
    vpn.sysctl("gw", "ipv4/conf/Tunnel1/disable_policy", "1");
    vpn.ip("gw", &["xfrm policy delete src 169.254.55.53/32 dst 169.254.55.54/32 dir in"]);
}

/// The gateway's inbound SA of the first tunnel, as `ip` shows it.
fn inbound(vpn: &Vpn) -> String {
    let text = format!("\n{}", ip::text(&["-n", &vpn.of("gw"), "xfrm", "state", "list"]));
    let of_it = text.split("\nsrc ").filter(|of| of.starts_with(INBOUND_ENDS));
    of_it.max_by_key(|of| of.len()).expect("an SA").to_owned()
}

/// The gateway's inbound SA of the first tunnel, as words for `ip xfrm state add`.
fn state(vpn: &Vpn) -> String {
    let own = inbound(vpn);
    let mut words = format!("src {INBOUND_ENDS}");
    for line in own.lines().skip(1).map(str::trim) {
        match line.split_once(' ') {
            // Without the hexadecimal forms, which `ip` may show and does not take.
            Some(("proto", _)) => {
                let plain = line.split(' ').map(|word| word.split('(').next().unwrap_or_default());
                words.push_str(&format!(" {}", plain.collect::<Vec<_>>().join(" ")));
            }
            Some(("replay-window", _)) => words.push_str(" replay-window 32 flag af-unspec"),
            Some(("auth-trunc" | "enc", _)) => words.push_str(&format!(" {line}")),
            Some(("encap", _)) => {
                let told: Vec<&str> = line.split_whitespace().collect();
                // `encap type espinudp sport 4500 dport 4500 addr 0.0.0.0`
                words.push_str(&format!(" encap {} {} {} 0.0.0.0", told[2], told[4], told[6]));
            }
            _ => {}
        }
    }
    words
}

const INBOUND_ENDS: &str = "203.0.113.10 dst 192.168.12.49";

fn identity(state: &str) -> String {
    let spi = state.split_whitespace().find(|word| word.starts_with("0x")).expect("an SPI");
    let ends = state.split(" proto").next().expect("the ends");
    format!("{ends} proto esp spi {spi}")
}

/// Removes it, and keeps it for later.
fn remove(vpn: &Vpn) -> String {
    let state = state(vpn);
    let identity = identity(&state);
    vpn.ip("gw", &[&format!("xfrm state delete {identity}")]);
    state
}

fn add(vpn: &Vpn, state: &str, more: &str) {
    // The keys come last on the line, so that a refusal does not show them.
    let (open, keys) = state.split_once(" auth-trunc ").expect("keys");
    vpn.ip("gw", &[&format!("xfrm state add {open}{more} auth-trunc {keys}")]);
}

thread_local! {
    static KEPT: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
}

fn keep(state: &str) {
    KEPT.with_borrow_mut(|kept| state.clone_into(kept));
}

/// A key that is not the peer's.
pub fn other_key(vpn: &Vpn) {
    let state = remove(vpn);
    keep(&state);
    let (before, key) = state.split_once("auth-trunc hmac(sha1) 0x").expect("a key");
    let (key, after) = key.split_once(' ').expect("a key");
    let other: String = key.chars().map(|digit| if digit == '0' { '1' } else { '0' }).collect();
    add(vpn, &format!("{before}auth-trunc hmac(sha1) 0x{other} {after}"), "");
}

/// The VTI marks what comes in with its key: an SA that wants another mark is never found.
pub fn marked_inbound(vpn: &Vpn) {
    let state = remove(vpn);
    keep(&state);
    add(vpn, &state, " mark 7");
}

pub fn no_inbound(vpn: &Vpn) {
    keep(&remove(vpn));
}

/// Puts back what was kept, in place of whatever stands there.
pub fn own_key(vpn: &Vpn) {
    let kept = KEPT.take();
    let identity = identity(&kept);
    let gw = vpn.of("gw");
    for mark in ["", " mark 7"] {
        let _not_there = ip::batch(Some(&gw), &[format!("xfrm state delete {identity}{mark}")]);
    }
    add(vpn, &kept, "");
}

pub fn connection_down(vpn: &Vpn) {
    vpn.script("gw", "ipsec down Tunnel1");
}

pub fn connection_up(vpn: &Vpn) {
    vpn.script("gw", "ipsec up Tunnel1");
    wait::until("SAs of both tunnels", || (vpn.associations().len() >= 4).then_some(()));
}
