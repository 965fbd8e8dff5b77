//! A capture of the repair in the VPN with real daemons: what is in the bundle is what tcpdump, vtysh, `ip rule` and
//! `ip -s xfrm state` say.

use std::path::Path;

use vpnfix_tests::bundle::{Capturing, all_text, document, rules_of};
use vpnfix_tests::capture::Capture;
use vpnfix_tests::vpn::{Bgp, Ike, Made, PEER1, PEER2, Tunnels, Vpn, lie_between};
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
    // Silent until it is traced, so that all count the same packets.
    vpn.silence_bgp();
    let rules = || ip::rules_v4(&vpn.of("gw"));
    let (rules_before, sessions, associations) = (rules(), sessions(&vpn), vpn.associations());

    let mut capturing = Capturing::of(vpn.start_vpnfix(&["capture", "-o", BUNDLE, "--fix", "--for", "30s"]));
    capturing.says("tracing");
    let clear = Capture::leaving(&vpn.of("gw"), "ens5", INSIDE);
    for peer in [PEER1, PEER2] {
        vpn.configure("gw", &format!("no neighbor {peer} shutdown"));
    }
    wait::until("BGP by vtysh's word", || {
        [PEER1, PEER2].iter().all(|peer| vpn.bgp_state(peer) == "Established").then_some(())
    });
    let (status, told) = capturing.end();
    assert_eq!(status, Some(0), "{told}");
    vpn.keep_said(told);
    vpn.vpnfix(&["report", "--check", BUNDLE]).ends(0);

    let report = vpn.vpnfix(&["report", BUNDLE, "--format", "json"]).ends(0).json();
    let in_the_clear = clear.count();
    assert!(in_the_clear > 0, "nothing left in the clear: this is not the incident");
    assert_eq!(report["cost"]["packets"], in_the_clear, "tcpdump; {:#}", report["cost"]);
    let bundle = vpn.seen("gw", BUNDLE);
    assert_eq!(rules_of(&bundle, "before"), rules_before);
    assert_eq!(rules_of(&bundle, "after"), rules());
    // Shut down by hand: vtysh calls that idle, with its reason, and vpnfix disabled, as it does of BIRD's.
    assert_eq!(
        (sessions_of(&bundle, "before"), sessions),
        (["Disabled"; 2].map(String::from).to_vec(), ["Idle (Admin)"; 2].map(String::from).to_vec())
    );
    assert_eq!(sessions_of(&bundle, "after"), self::sessions(&vpn));
    for moment in ["before", "after"] {
        let told = document(&bundle, &format!("{moment}/associations.json"));
        lie_between(&told, &associations, &vpn.associations());
    }
    for (_, text) in all_text(&bundle) {
        vpn.keep_said(text);
    }
    vpn.check_secrets();
}

/// The sessions' states by vtysh's word.
fn sessions(vpn: &Vpn) -> Vec<String> {
    [PEER1, PEER2].map(|peer| vpn.bgp_state(peer)).to_vec()
}

fn sessions_of(bundle: &Path, moment: &str) -> Vec<String> {
    let verified = document(bundle, &format!("{moment}/verify.json"));
    let neighbours = verified["neighbours"].as_array().expect("a list");
    let state = |peer| neighbours.iter().find(|of| of["address"] == peer).expect("the neighbour")["state"].clone();
    [PEER1, PEER2].map(|peer| state(peer).as_str().unwrap_or_default().to_owned()).to_vec()
}
