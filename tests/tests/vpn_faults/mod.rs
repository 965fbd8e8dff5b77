//! The faults: how each is made and taken back, and what `verify` must name first.

mod states;

use std::collections::BTreeMap;

use vpnfix_tests::vpn::{OUTSIDE, PEER1, Vpn};
use vpnfix_tests::{traffic, wait};

/// One fault, and the finding.
struct Fault {
    /// What is wrong.
    fault: &'static str,
    /// The first failed check, as it is labelled.
    finding: &'static str,
    /// A word of what is found, so that it is found for the right reason.
    word: &'static str,
    /// Does it need a session that is up, and is one to be up again before the next?
    of_bgp: bool,
    make: fn(&Vpn),
    take_back: fn(&Vpn),
}

/// Fault and finding, side by side. All are made on the first tunnel, in a VPN that is healthy but for it.
const FAULTS: &[Fault] = &[
    // fault, first failed check, a word of its evidence
    path("the interface has another key", "outbound-policy Tunnel1", "0x64", wrong_key, right_endpoints),
    path("the interface has the public address", "endpoints Tunnel1", "198.51.100.49", wrong_endpoint, right_endpoints),
    path("the policy has no mark", "outbound-policy Tunnel1", "no mark", states::no_mark, states::mark_again),
    path(
        "the outbound policy is gone",
        "outbound-policy Tunnel1",
        "no outbound",
        states::no_policy,
        states::policy_again,
    ),
    path(
        "disable_xfrm on the tunnel",
        "disable-xfrm Tunnel1",
        "encrypted",
        |vpn| switch(vpn, "disable_xfrm", "1"),
        |vpn| {
            switch(vpn, "disable_xfrm", "0");
        },
    ),
    path(
        "disable_policy off, and a second policy",
        "disable-policy Tunnel1",
        "second check",
        states::second_check,
        states::one_check,
    ),
    path("strict source validation, two ways", "rp-filter Tunnel1", "second best", strict, loose),
    path(
        "no address inside",
        "address Tunnel1",
        "no address",
        |vpn| vpn.ip("gw", &["addr flush dev Tunnel1"]),
        address_again,
    ),
    path("the two inside addresses exchanged", "address Tunnel1", "first address", exchanged, address_again),
    path("the same prefix on both tunnels", "inside-unique Tunnel1", "same inside prefix", duplicate, unique),
    path(
        "the tunnel is down",
        "link-up Tunnel1",
        "down",
        |vpn| vpn.ip("gw", &["link set Tunnel1 down"]),
        |vpn| {
            vpn.ip("gw", &["link set Tunnel1 up"]);
        },
    ),
    path("the tunnel lies in another namespace", "tunnel-present", "203.0.113.10", elsewhere, here_again),
    path("a rule before vpnfix's hijacks", "destinations hijacked-by-rule", "ens5", hijack, |vpn| {
        vpn.ip("gw", &["rule del priority 50 lookup 220"]);
    }),
    path("its own packets are routed into it", "destinations outer-loop", "into Tunnel1 itself", looped, |vpn| {
        vpn.ip("gw", &["route del 203.0.113.10/32 dev Tunnel1"]);
    }),
    path(
        "forwarding is off",
        "forwarding",
        "BGP announces",
        |vpn| vpn.sysctl("gw", "ipv4/ip_forward", "0"),
        |vpn| {
            vpn.sysctl("gw", "ipv4/ip_forward", "1");
        },
    ),
    path("large packets vanish on the way", "path-mtu 169.254.55.53", "black hole", black_hole, |vpn| {
        vpn.nft("rtr", "delete table ip hole");
    }),
    path("the far end has another ESP key", "integrity Tunnel1", "integrity", states::other_key, states::own_key),
    path(
        "the inbound SA wants another mark",
        "inbound-sa Tunnel1",
        "wants mark 0x7",
        states::marked_inbound,
        states::own_key,
    ),
    path("the inbound SA is gone", "inbound-sa Tunnel1", "no inbound SA", states::no_inbound, states::own_key),
    path(
        "the connection is down",
        "ike-sa Tunnel1",
        "no IKE association",
        states::connection_down,
        states::connection_up,
    ),
    bgp("the far tunnel is down", "peer-answers 169.254.55.53", "none of", far_down, |vpn| {
        vpn.ip("aws", &["link set vti1 up"]);
    }),
    bgp("TCP 179 is filtered", "bgp-port 169.254.55.53", "no answer on TCP 179", filtered, |vpn| {
        vpn.nft("aws", "delete table ip filter");
    }),
    bgp("the far end has another ASN", "bgp-asn 169.254.55.53", "Bad Peer AS", wrong_asn, |vpn| {
        vpn.configure("gw", "neighbor 169.254.55.53 remote-as 64512");
    }),
    bgp("the far end has a BGP password", "bgp-password", "password", password, |vpn| {
        vpn.configure("aws", "no neighbor 169.254.55.54 password");
    }),
];

const fn path(
    fault: &'static str,
    finding: &'static str,
    word: &'static str,
    make: fn(&Vpn),
    take_back: fn(&Vpn),
) -> Fault {
    Fault { fault, finding, word, of_bgp: false, make, take_back }
}

const fn bgp(
    fault: &'static str,
    finding: &'static str,
    word: &'static str,
    make: fn(&Vpn),
    take_back: fn(&Vpn),
) -> Fault {
    Fault { fault, finding, word, of_bgp: true, make, take_back }
}

/// Makes each fault, has `verify` name it, takes it back. All are tried before any of them fails the test.
pub fn play(vpn: &Vpn) {
    assert!(FAULTS.len() >= 20, "the table is too short");
    // Words of some faults, parted by commas, for whoever works on these.
    let chosen = std::env::var("VPNFIX_FAULTS").unwrap_or_default();
    let is_chosen = |fault: &&Fault| chosen.split(',').any(|word| fault.fault.contains(word));
    let mut wrong = BTreeMap::new();
    for fault in FAULTS.iter().filter(is_chosen) {
        if let Err(instead) = named(vpn, fault) {
            wrong.insert(fault.fault, instead);
        }
    }
    assert!(wrong.is_empty(), "{} faults were not named: {wrong:#?}", wrong.len());
}

/// Has `verify` name a fault, in a VPN that is healthy but for it. An emulated machine that its host lets wait for long loses
/// its peer meanwhile, and strongSwan makes the connection anew: the fault is tried again where that is seen by its SAs.
fn named(vpn: &Vpn, fault: &Fault) -> Result<(), String> {
    const TRIES: usize = 3;
    let mut result = Ok(());
    for _ in 0..TRIES {
        if vpn.associations().len() < 4 {
            states::connection_up(vpn);
        }
        if fault.of_bgp {
            wait::until("BGP", || (vpn.bgp_state(PEER1) == "Established").then_some(()));
        }
        (fault.make)(vpn);
        let before = vpn.spis();
        result = judged(vpn, fault);
        let stayed = vpn.spis() == before;
        (fault.take_back)(vpn);
        if result.is_ok() || stayed {
            break;
        }
        println!("{:<42} strongSwan made its SAs anew meanwhile", fault.fault);
    }
    result
}

fn judged(vpn: &Vpn, fault: &Fault) -> Result<(), String> {
    let run = vpn.vpnfix(&["verify", "--sample", "1s", "--format", "json"]);
    let report = run.json();
    let first = &report["checks"][0];
    let name = |of: &str| first[of].as_str().unwrap_or_default();
    let label = format!("{} {}", name("id"), name("subject"));
    println!("{:<42} {label}: {}", fault.fault, name("found"));
    let is_named = label.trim() == fault.finding && name("found").contains(fault.word);
    if is_named && name("state") == "failed" && run.status == Some(1) {
        return Ok(());
    }
    let failed = report["checks"].as_array().expect("checks").iter().filter(|check| check["state"] == "failed");
    Err(format!("not {}, but {:#?}", fault.finding, failed.collect::<Vec<_>>()))
}

fn vti(vpn: &Vpn, local: &str, key: u32) {
    let line = format!("link change Tunnel1 type vti local {local} remote {} key {key}", OUTSIDE[0]);
    vpn.ip("gw", &[&line]);
}

fn wrong_key(vpn: &Vpn) {
    vti(vpn, "192.168.12.49", 101);
}

fn wrong_endpoint(vpn: &Vpn) {
    vti(vpn, "198.51.100.49", 100);
}

fn right_endpoints(vpn: &Vpn) {
    vti(vpn, "192.168.12.49", 100);
}

/// Sets a switch of the first tunnel.
fn switch(vpn: &Vpn, name: &str, value: &str) {
    vpn.sysctl("gw", &format!("ipv4/conf/Tunnel1/{name}"), value);
}

fn strict(vpn: &Vpn) {
    // The best way back is the other tunnel. Static ways, because zebra takes its own away where it sees a better one.
    vpn.ip("gw", &["route add 10.20.0.0/16 dev Tunnel2 metric 5", "route add 10.20.0.0/16 dev Tunnel1 metric 6"]);
    switch(vpn, "rp_filter", "1");
}

fn loose(vpn: &Vpn) {
    vpn.ip("gw", &["route del 10.20.0.0/16 dev Tunnel2 metric 5", "route del 10.20.0.0/16 dev Tunnel1 metric 6"]);
    switch(vpn, "rp_filter", "2");
}

fn exchanged(vpn: &Vpn) {
    vpn.ip("gw", &["addr flush dev Tunnel1", "addr add 169.254.55.53/30 dev Tunnel1"]);
}

fn address_again(vpn: &Vpn) {
    vpn.ip("gw", &["addr flush dev Tunnel1", "addr add 169.254.55.54/30 dev Tunnel1"]);
}

fn duplicate(vpn: &Vpn) {
    vpn.ip("gw", &["addr add 169.254.55.54/30 dev Tunnel2 metric 7"]);
}

fn unique(vpn: &Vpn) {
    vpn.ip("gw", &["addr del 169.254.55.54/30 dev Tunnel2"]);
}

fn elsewhere(vpn: &Vpn) {
    vpn.ip("gw", &[&format!("link set Tunnel1 netns {}", vpn.of("rtr"))]);
}

fn here_again(vpn: &Vpn) {
    vpn.ip("rtr", &[&format!("link set Tunnel1 netns {}", vpn.of("gw"))]);
    vpn.configure_tunnel(1);
}

fn hijack(vpn: &Vpn) {
    vpn.ip("gw", &["rule add priority 50 lookup 220"]);
}

fn looped(vpn: &Vpn) {
    vpn.ip("gw", &["route add 203.0.113.10/32 dev Tunnel1"]);
}

fn black_hole(vpn: &Vpn) {
    vpn.nft(
        "rtr",
        "table ip hole { chain forward { type filter hook forward priority 0; udp dport 4500 meta length > 1000 drop; }\n}",
    );
}

/// As long as BGP has not noticed, silence is but a warning.
fn far_down(vpn: &Vpn) {
    vpn.ip("aws", &["link set vti1 down"]);
    wait::until("the session's end", || (vpn.bgp_state(PEER1) != "Established").then_some(()));
}

/// As a network ACL does; and the session that is up is ended, so that it has to be made anew.
fn filtered(vpn: &Vpn) {
    vpn.nft(
        "aws",
        "table ip filter { chain input { type filter hook input priority 0; \
         ip saddr 169.254.55.54 tcp dport 179 drop; ip saddr 169.254.55.54 tcp sport 179 drop; }\n}",
    );
    vpn.script("gw", "vtysh -d bgpd -c 'clear bgp 169.254.55.53'");
    wait::until("the session's end", || (vpn.bgp_state(PEER1) != "Established").then_some(()));
}

fn wrong_asn(vpn: &Vpn) {
    vpn.configure("gw", "neighbor 169.254.55.53 remote-as 64999");
    wait::until("the refusal", || {
        let told = vpn.vtysh("show bgp neighbors 169.254.55.53 json").to_string();
        told.contains("Bad Peer AS").then_some(())
    });
}

fn password(vpn: &Vpn) {
    let line = format!("neighbor 169.254.55.54 password {}", vpn.password());
    vpn.configure("aws", &line);
    wait::until("the session's end", || (vpn.bgp_state(PEER1) != "Established").then_some(()));
    wait::until("a request with a signature", || (unexpected_signatures(vpn) > 0).then_some(()));
}

/// The kernel's count of signatures where none is set.
fn unexpected_signatures(vpn: &Vpn) -> u64 {
    traffic::counter(&vpn.of("gw"), "TcpExt", "TCPMD5Unexpected")
}
