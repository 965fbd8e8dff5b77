//! The story of BGP's connection to the first peer, before the repair and after it: its numbers are those of tcpdump, the
//! kernel's counters, `ss` and `ip -s xfrm state`.

use serde_json::Value;
use vpnfix_tests::capture::Capture;
use vpnfix_tests::vpn::{Bgp, Ike, Made, OWN, PEER1, PEER2, Tunnels, Vpn};
use vpnfix_tests::{need_root, need_vpn, traffic, wait};

#[test]
fn bgps_connection_is_told_as_others_count_it() {
    need_root!();
    let root = need_vpn!();
    let vpn = Vpn::start(&root, Made { ike: Ike::Legacy, bgp: Bgp::Frr, tunnels: Tunnels::Vti });
    before(&vpn);
    vpn.vpnfix(&["fix", "--wait", "60s"]).ends(0);
    after(&vpn);
    vpn.check_secrets();
}

/// What was told, and what others counted in the same time.
struct Window {
    /// Stories of the gateway's packets to the first peer's BGP, or from its own.
    stories: Vec<Value>,
    /// Packets to the peer on the device, by tcpdump.
    captured: u64,
    /// Segments sent again, by the kernel's counter.
    sent_again: u64,
    /// The gateway's SAs before and after, by `ip -s xfrm state`: SPI, bytes, packets.
    associations: [Vec<(u32, u64, u64)>; 2],
}

/// Traces from before the session's first packet to after its last one. Both daemons keep silent before and after, and the
/// far one begins no connection, so that all count the same packets.
fn traced(vpn: &Vpn, device: &str, meanwhile: impl FnOnce(&Vpn)) -> Window {
    vpn.silence_bgp();
    let (sent_before, associations_before) = (segments_sent_again(vpn), vpn.associations());
    let capture = Capture::start(&vpn.of("gw"), device, &format!("tcp port 179 and dst host {PEER1}"));
    let trace = vpn.trace();
    vpn.configure("gw", &format!("no neighbor {PEER1} shutdown"));
    meanwhile(vpn);
    vpn.configure("gw", &format!("neighbor {PEER1} shutdown"));
    wait::until("the connection's end", || vpn.bgp_sockets().is_empty().then_some(()));
    let traced = vpn.end_trace(trace);
    let window = Window {
        captured: capture.count(),
        sent_again: segments_sent_again(vpn) - sent_before,
        associations: [associations_before, vpn.associations()],
        stories: traced.summary()["stories"].as_array().expect("no stories").clone(),
    };
    for peer in [PEER1, PEER2] {
        vpn.configure("gw", &format!("no neighbor {peer} shutdown"));
    }
    for address in OWN {
        vpn.configure("aws", &format!("no neighbor {address} passive"));
    }
    let own = |story: &Value| {
        let of_bgp = story["destination_port"] == 179 || story["source_port"] == 179;
        story["destination"] == PEER1 && of_bgp && story["protocol"] == 6
    };
    Window { stories: window.stories.into_iter().filter(own).collect(), ..window }
}

/// Rule 220 sends BGP's requests out in the clear, again and again.
fn before(vpn: &Vpn) {
    let mut by_ss = None;
    let window = traced(vpn, "ens5", |vpn| {
        // The second repetition comes three seconds after the request, and the daemon gives up after five.
        by_ss = Some(wait::until("repeated requests", || vpn.bgp_sockets().into_iter().find(|(_, again)| *again >= 2)));
    });
    assert!(!window.stories.is_empty(), "no story");
    for story in &window.stories {
        assert_eq!((&story["sender"]["name"], &story["fate"]), (&"bgpd".into(), &"misrouted".into()), "{story:#}");
        assert_eq!(story["rule"], "220: from all lookup 220", "{story:#}");
        assert_eq!(story["tunnels"], serde_json::json!(["Tunnel1"]), "{story:#}");
        let decided = story["walk"].as_array().expect("no walk").iter().find(|step| step["decided"] == true);
        assert_eq!(decided.expect("nothing decided")["route"]["table"], 220, "{story:#}");
        let [egress] = story["egress"].as_array().expect("no egress").as_slice() else { panic!("{story:#}") };
        assert_eq!((&egress["device"], &egress["standing"]), (&"ens5".into(), &"wrong".into()), "{story:#}");
        assert_eq!(story["answers"], serde_json::json!([]), "{story:#}");
        assert_eq!(story["tcp"][0]["new"], "syn_sent", "{story:#}");
        // A request, and its repetitions.
        assert_eq!(number(&egress["packets"]), number(&story["retransmissions"]) + 1, "{story:#}");
    }
    let (port, again) = by_ss.expect("ss was asked");
    let told = window.stories.iter().find(|story| story["source_port"] == port).expect("the connection that ss told");
    assert_eq!(number(&told["retransmissions"]), again, "{told:#}");
    assert_eq!(packets(&window.stories), window.captured, "tcpdump; {:#?}", window.stories);
    assert_eq!(sent_again(&window.stories), window.sent_again, "nstat; {:#?}", window.stories);
}

/// The same connection goes by the tunnel, encrypted by its association, and comes up.
fn after(vpn: &Vpn) {
    let window = traced(vpn, "Tunnel1", |vpn| {
        wait::until("BGP by vtysh's word", || (vpn.bgp_state(PEER1) == "Established").then_some(()));
    });
    let established = |story: &&Value| {
        let states = story["tcp"].as_array().expect("no states");
        states.iter().any(|state| state["new"] == "established") && story["destination_port"] == 179
    };
    let story = window.stories.iter().find(established).unwrap_or_else(|| panic!("no session: {:#?}", window.stories));
    assert_eq!((&story["fate"], &story["sender"]["name"]), (&"right".into(), &"bgpd".into()), "{story:#}");
    let [egress] = story["egress"].as_array().expect("no egress").as_slice() else { panic!("{story:#}") };
    assert_eq!((&egress["device"], &egress["standing"]), (&"Tunnel1".into(), &"right".into()), "{story:#}");
    assert!(number(&story["answers"][0]["packets"]) > 0 && story["answers"][0]["device"] == "Tunnel1", "{story:#}");
    let encryption = &egress["encryption"];
    let of =
        |all: &[(u32, u64, u64)]| all.iter().find(|(spi, ..)| encryption["spi"] == *spi).map(|(.., packets)| *packets);
    let [before, after] = &window.associations;
    let encrypted = of(after).expect("ip knows no such SA") - of(before).unwrap_or(0);
    assert_eq!(number(&encryption["packets"]), encrypted, "ip -s xfrm state; {story:#}");
    assert_eq!((packets(&window.stories), window.captured), (encrypted, encrypted), "tcpdump; {:#?}", window.stories);
    assert_eq!(sent_again(&window.stories), window.sent_again, "nstat; {:#?}", window.stories);
    for peer in [PEER1, PEER2] {
        wait::until("both sessions", || (vpn.bgp_state(peer) == "Established").then_some(()));
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

fn packets(stories: &[Value]) -> u64 {
    let egress = stories.iter().flat_map(|story| story["egress"].as_array().expect("no egress"));
    egress.map(|egress| number(&egress["packets"])).sum()
}

fn sent_again(stories: &[Value]) -> u64 {
    stories.iter().map(|story| number(&story["retransmissions"])).sum()
}

/// `TcpRetransSegs`, as nstat names it.
fn segments_sent_again(vpn: &Vpn) -> u64 {
    traffic::counter(&vpn.of("gw"), "Tcp", "RetransSegs")
}
