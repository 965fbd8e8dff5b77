//! What a repair must not spoil, and what it does when the kernel answers otherwise than planned.

use std::net::{TcpListener, TcpStream};

use vpnfix_tests::ip;
use vpnfix_tests::need_root;
use vpnfix_tests::scene::{INSIDE1, PEER1, REMOTE_HOST, Scene, WRONG_DEVICE};
use vpnfix_tests::traffic;

/// A prefix learned by BGP covers the IKE peer: drawn into the tunnel, the tunnel's own packets would loop.
#[test]
fn a_prefix_that_covers_the_ike_peer_stays_out_of_the_tunnel() {
    need_root!();
    let scene = Scene::hijacked();
    if !scene.has_real_tunnels() {
        // A veth pair has no outer address; the plan's unit tests cover it there.
        return;
    }
    scene.ip(&[&format!("route add 198.18.0.0/15 via {PEER1} dev Tunnel1 proto bgp")]);
    let report = scene.vpnfix(&["fix", "--format", "json"]).ends(3).json();
    let left_out = report["plan"]["left_out"].as_array().expect("what is left out");
    assert!(left_out.iter().any(|left| left["prefix"] == "198.18.0.0/15"), "{report:#}");
    assert_eq!(scene.device_for("198.18.1.2".parse().expect("an address")), WRONG_DEVICE);
    assert_eq!(scene.device_for(PEER1), "Tunnel1");
    assert!(traffic::pings(&scene.gw(), PEER1), "the tunnel works");
}

/// The operator's connection comes from inside a learned prefix, and lives because of the hijack.
#[test]
fn an_established_connection_is_not_drawn_into_the_tunnel() {
    need_root!();
    let scene = Scene::hijacked();
    // The client's address is one of the LAN's; the learned prefix covers it.
    let lan = scene.of("lan");
    scene.ip(&[&format!("route add 10.9.128.0/17 via {PEER1} dev Tunnel1 proto bgp")]);
    vpnfix_tests::ip::batch(Some(&lan), &["addr add 10.9.200.1/32 dev gw0".to_owned()]).expect("the client's address");
    let listener = traffic::inside(&scene.gw(), || TcpListener::bind("10.9.0.10:22")).expect("the server");
    let client = traffic::inside(&lan, || connect_from("10.9.200.1", "10.9.0.10:22")).expect("the client");
    let (server, peer) = listener.accept().expect("the connection");
    assert_eq!(peer.ip().to_string(), "10.9.200.1");

    let report = scene.vpnfix(&["fix", "--format", "json"]).ends(3).json();
    let left_out = report["plan"]["left_out"].as_array().expect("what is left out");
    let told = left_out.iter().find(|left| left["prefix"] == "10.9.128.0/17").unwrap_or_else(|| panic!("{report:#}"));
    assert!(told["why"].as_str().is_some_and(|why| why.contains("10.9.200.1")), "{told:#}");
    assert_eq!(scene.device_for("10.9.200.1".parse().expect("an address")), WRONG_DEVICE);
    for to in [PEER1, REMOTE_HOST] {
        assert_eq!(scene.device_for(to), "Tunnel1", "{to}");
    }
    drop((client, server));
}

/// Routes that would draw what works only outside of tunnels into one: the rest of the plan leaves them out, and one rule
/// for all, forced, is refused before anything is changed.
#[track_caller]
fn is_never_drawn(scene: &Scene, learned: &str, control: &str) {
    scene.ip(&[&format!("route add {learned} via {PEER1} dev Tunnel1 proto bgp")]);
    let (rules, before) = (scene.rules(), ip::decision(&scene.gw(), control));
    assert!(before.contains(WRONG_DEVICE), "{before}");
    let refused = scene.vpnfix(&["fix", "--strategy", "main-first"]).ends(4).tells_an_error();
    assert!(refused.stderr.contains("refused, nothing was changed") && refused.stderr.contains(control), "{refused}");
    assert_eq!(scene.rules(), rules);
    for strategy in ["auto", "prefixes"] {
        let report = scene.vpnfix(&["fix", "--strategy", strategy, "--format", "json"]).ends(3).json();
        let left_out = report["plan"]["left_out"].as_array().expect("what is left out");
        let told = left_out.iter().find(|left| left["prefix"] == learned).unwrap_or_else(|| panic!("{report:#}"));
        assert!(told["why"].as_str().is_some_and(|why| why.contains(control)), "{told:#}");
        assert!(report["rollback"].is_null(), "{report:#}");
        assert_eq!(scene.device_for(control.parse().expect("an address")), WRONG_DEVICE);
        for to in [PEER1, REMOTE_HOST] {
            assert_eq!(scene.device_for(to), "Tunnel1", "{to}");
        }
        scene.vpnfix(&["undo"]).ends(0);
        assert_eq!(scene.rules(), rules);
    }
}

#[test]
fn the_default_gateway_is_never_drawn_into_a_tunnel() {
    need_root!();
    is_never_drawn(&Scene::hijacked(), "10.9.0.0/30", "10.9.0.1");
}

#[test]
fn the_metadata_address_is_never_drawn_into_a_tunnel() {
    need_root!();
    is_never_drawn(&Scene::hijacked(), "169.254.169.254/32", "169.254.169.254");
}

/// Its other end is known from the kernel's security associations alone, whatever the tunnel's kind.
#[test]
fn the_other_end_of_a_security_association_is_never_drawn_into_a_tunnel() {
    need_root!();
    let scene = Scene::hijacked();
    // A kernel without ESP keeps one that waits for its keys: for 30 s, which an emulated machine takes for one repair.
    let expires = "/proc/sys/net/core/xfrm_acq_expires";
    traffic::inside(&scene.gw(), || std::fs::write(expires, "3600")).expect("how long it waits");
    scene.ip(&["xfrm state allocspi src 10.9.0.10 dst 203.0.113.77 proto esp mode tunnel reqid 7"]);
    is_never_drawn(&scene, "203.0.113.0/24", "203.0.113.77");
}

#[test]
fn the_operators_client_is_never_drawn_into_a_tunnel() {
    need_root!();
    let scene = Scene::hijacked();
    let lan = scene.of("lan");
    ip::batch(Some(&lan), &["addr add 10.9.200.1/32 dev gw0".to_owned()]).expect("the client's address");
    let listener = traffic::inside(&scene.gw(), || TcpListener::bind("10.9.0.10:22")).expect("the server");
    let client = traffic::inside(&lan, || connect_from("10.9.200.1", "10.9.0.10:22")).expect("the client");
    let (server, _) = listener.accept().expect("the connection");
    is_never_drawn(&scene, "10.9.128.0/17", "10.9.200.1");
    drop((client, server));
}

/// What must not be touched is not: other rules, other tables, the hijacker's own.
#[test]
fn foreign_rules_and_tables_stay_as_they_are() {
    need_root!();
    let scene = Scene::hijacked();
    scene.second_table();
    let (rules, routes) = (scene.rules(), scene.routes());
    let report = scene.vpnfix(&["fix", "--format", "json"]).ends(0).json();
    assert_eq!(scene.routes(), routes);
    let kept: Vec<&str> = rules.lines().collect();
    let now = scene.rules();
    assert!(kept.iter().all(|line| now.lines().any(|other| other == *line)), "{now}");
    // The rule of others stands at 150: `auto` does not put main before it, but behind.
    let steps = report["plan"]["steps"].as_array().expect("steps");
    let commands: Vec<&str> = steps.iter().filter_map(|step| step["do"].as_str()).collect();
    let early = commands.iter().filter(|command| !command.contains("priority 219 "));
    assert!(early.into_iter().all(|command| command.contains(" to ")), "{commands:?}");
    assert!(commands.iter().any(|command| command.contains(INSIDE1)), "{commands:?}");
    assert_eq!(scene.device_for(REMOTE_HOST), "Tunnel1");
    scene.vpnfix(&["undo"]).ends(0);
    assert_eq!((scene.rules(), scene.routes()), (rules, routes));
}

/// Connects from one address of the host.
fn connect_from(from: &str, to: &str) -> std::io::Result<TcpStream> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    use std::os::fd::AsRawFd as _;

    let descriptor = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let address =
        |text: &str| text.parse::<std::net::SocketAddrV4>().map(SockaddrIn::from).map_err(std::io::Error::other);
    bind(descriptor.as_raw_fd(), &address(&format!("{from}:0"))?)?;
    connect(descriptor.as_raw_fd(), &address(to)?)?;
    Ok(TcpStream::from(descriptor))
}

/// Ctrl-C amid the confirmation: the rules stay, and the report says so; it is no silent end.
#[test]
fn an_interrupted_confirmation_keeps_its_report() {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    need_root!();
    let scene = Scene::hijacked();
    // Without echo requests and without traffic nothing is confirmed, so the confirmation waits.
    let arguments = ["fix", "--no-probe", "--wait", "300s", "--format", "json"];
    let fix = scene.start_vpnfix(&arguments);
    let pid = Pid::from_raw(i32::try_from(fix.id()).expect("a process id"));
    vpnfix_tests::wait::until("the rules", || (scene.device_for(PEER1) == "Tunnel1").then_some(()));
    // The rules are there before the check is over; what comes before the confirmation is heard then.
    kill(pid, Signal::SIGINT).expect("fix is gone");
    let report = vpnfix_tests::command::Run::finish(fix, &arguments).ends(3).json();
    assert_eq!(report["outcome"], "unconfirmed", "{report:#}");
    let notes = report["notes"].as_array().expect("notes");
    assert!(notes.iter().any(|note| note["id"] == "after-change"), "{report:#}");
    assert_eq!(scene.device_for(PEER1), "Tunnel1");
    scene.vpnfix(&["undo"]).ends(0);
    assert_eq!(scene.device_for(PEER1), WRONG_DEVICE);
}
