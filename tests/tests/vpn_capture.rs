//! A capture of the repair in the VPN with real daemons: what is in the bundle is what tcpdump, vtysh, `ip rule` and
//! `ip -s xfrm state` say.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use serde_json::Value;
use vpnfix_tests::capture::Capture;
use vpnfix_tests::vpn::{Bgp, Ike, Made, PEER1, PEER2, Tunnels, Vpn};
use vpnfix_tests::{ip, need_root, need_vpn, wait};

/// What belongs into the tunnels, and is seen on the link if it leaves in the clear. BGP alone speaks here; vpnfix's own echo
/// requests are told apart in the bundle.
const INSIDE: &str = "tcp and (dst net 10.20.0.0/16 or dst net 169.254.0.0/16)";
const BUNDLE: &str = "/tmp/incident";

#[test]
fn the_bundle_says_what_the_others_say() {
    need_root!();
    let root = need_vpn!();
    let vpn = Vpn::start(&root, Made { ike: Ike::Legacy, bgp: Bgp::Frr, tunnels: Tunnels::Vti });
    // Silent until it is traced, so that all count the same packets: the far end begins no connection at all.
    for address in ["169.254.55.54", "169.254.253.50"] {
        vpn.configure("aws", &format!("neighbor {address} passive"));
    }
    for peer in [PEER1, PEER2] {
        vpn.configure("gw", &format!("neighbor {peer} shutdown"));
    }
    wait::until("no connection of BGP's", || is_silent(&vpn).then_some(()));
    let (rules, sessions, associations) = (rules(&vpn), sessions(&vpn), vpn.associations());

    let mut capturing = vpn.start_vpnfix(&["capture", "-o", BUNDLE, "--fix", "--for", "30s"]);
    let mut lines = BufReader::new(capturing.stderr.take().expect("it is piped"));
    let mut told = String::new();
    while !told.contains("tracing") {
        assert!(lines.read_line(&mut told).is_ok_and(|read| read > 0), "it ended: {told}");
    }
    let clear = Capture::leaving(&vpn.of("gw"), "ens5", INSIDE);
    for peer in [PEER1, PEER2] {
        vpn.configure("gw", &format!("no neighbor {peer} shutdown"));
    }
    wait::until("BGP by vtysh's word", || {
        [PEER1, PEER2].iter().all(|peer| vpn.bgp_state(peer) == "Established").then_some(())
    });
    lines.read_to_string(&mut told).expect("its progress cannot be read");
    let said = capturing.wait_with_output().expect("it was started");
    assert_eq!(said.status.code(), Some(0), "{told}");
    vpn.keep_said(told);
    vpn.keep_said(String::from_utf8_lossy(&said.stdout).into_owned());
    vpn.vpnfix(&["report", "--check", BUNDLE]).ends(0);

    let report = vpn.vpnfix(&["report", BUNDLE, "--format", "json"]).ends(0).json();
    let in_the_clear = clear.count();
    assert!(in_the_clear > 0, "nothing left in the clear: this is not the incident");
    assert_eq!(report["cost"]["packets"], in_the_clear, "tcpdump; {:#}", report["cost"]);
    assert_eq!(rules_of(&vpn, "before"), rules);
    assert_eq!(rules_of(&vpn, "after"), self::rules(&vpn));
    // Shut down by hand: vtysh calls that idle, with its reason, and vpnfix disabled, as it does of BIRD's.
    assert_eq!(
        (sessions_of(&vpn, "before"), sessions),
        (["Disabled"; 2].map(String::from).to_vec(), ["Idle (Admin)"; 2].map(String::from).to_vec())
    );
    assert_eq!(sessions_of(&vpn, "after"), self::sessions(&vpn));
    encloses(&vpn, "before", &associations, &vpn.associations());
    encloses(&vpn, "after", &associations, &vpn.associations());
    for text in all_text(&vpn.seen("gw", BUNDLE)) {
        vpn.keep_said(text);
    }
    vpn.check_secrets();
}

/// Are BGP's sockets on the gateway all gone but those that listen?
fn is_silent(vpn: &Vpn) -> bool {
    let mut ss = vpn.command("gw", "ss");
    ss.args(["-Htn", "exclude", "listening", "exclude", "time-wait", "exclude", "closed"]);
    let said = ss.arg("( dport = 179 or sport = 179 )").output().expect("ss");
    assert!(said.status.success(), "ss: {}", String::from_utf8_lossy(&said.stderr));
    said.stdout.is_empty()
}

/// IPv4's rules as `ip rule` prints them, without whose they are.
fn rules(vpn: &Vpn) -> Vec<String> {
    let text = ip::text(&["-4", "-n", &vpn.of("gw"), "rule"]);
    text.lines().map(|line| line.trim_end().replace(" proto 118", "")).collect()
}

fn rules_of(vpn: &Vpn, moment: &str) -> Vec<String> {
    let rules = document(vpn, &format!("{moment}/rules.json"));
    let of_v4 = rules.as_array().expect("a list").iter().filter(|rule| rule["family"] == "ipv4");
    of_v4.map(|rule| format!("{}:\t{}", rule["priority"], rule["text"].as_str().expect("a text"))).collect()
}

/// The sessions' states by vtysh's word.
fn sessions(vpn: &Vpn) -> Vec<String> {
    [PEER1, PEER2].map(|peer| vpn.bgp_state(peer)).to_vec()
}

fn sessions_of(vpn: &Vpn, moment: &str) -> Vec<String> {
    let verified = document(vpn, &format!("{moment}/verify.json"));
    let neighbours = verified["neighbours"].as_array().expect("a list");
    let state = |peer| neighbours.iter().find(|of| of["address"] == peer).expect("the neighbour")["state"].clone();
    [PEER1, PEER2].map(|peer| state(peer).as_str().unwrap_or_default().to_owned()).to_vec()
}

/// The bundle's figures lie between what `ip` said before and after.
fn encloses(vpn: &Vpn, moment: &str, before: &[(u32, u64, u64)], after: &[(u32, u64, u64)]) {
    let told = document(vpn, &format!("{moment}/associations.json"));
    let told = told.as_array().expect("a list");
    assert_eq!(told.len(), before.len(), "{told:#?}");
    for &(spi, least_bytes, least_packets) in before {
        let own = told.iter().find(|association| association["spi"] == spi).expect("an SA that ip knows");
        let &(_, most_bytes, most_packets) = after.iter().find(|of| of.0 == spi).expect("it is still there");
        let (bytes, packets) = (own["bytes"].as_u64().expect("bytes"), own["packets"].as_u64().expect("packets"));
        assert!((least_bytes..=most_bytes).contains(&bytes), "{spi:x}: {bytes}, ip: {least_bytes} to {most_bytes}");
        assert!((least_packets..=most_packets).contains(&packets), "{spi:x}: {packets}");
    }
}

fn document(vpn: &Vpn, name: &str) -> Value {
    let path = vpn.seen("gw", &format!("{BUNDLE}/{name}"));
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn all_text(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory").flatten();
    let of = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => all_text(&entry.path()),
        _ => vec![String::from_utf8_lossy(&fs::read(entry.path()).expect("a file")).into_owned()],
    };
    entries.flat_map(of).collect()
}
