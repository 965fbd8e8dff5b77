//! `vpnfix watch --fix` amid chaos: tunnels come and go, the hijack flaps, others flush rules, notifications get lost, and traffic
//! flows all the while. At the end all is right, nothing has leaked, and the repairs kept their limits.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use vpnfix_tests::scene::{LOCAL1, PEER1, REMOTE, REMOTE_HOST, Scene};
use vpnfix_tests::watch::{Watch, metric};
use vpnfix_tests::{ip, need_root, traffic, wait};

/// In an emulated machine each `ip` takes long, and there is another hour of scenes.
const SECONDS: u64 = 60;
const MOST_REPAIRS: usize = 30;

/// Numbers from a seed (xorshift), so that a run can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(sides).expect("a small number")).expect("a small number")
    }
}

fn attempt(scene: &Scene, lines: &[&str]) {
    for line in lines {
        // What is there already, or gone already, is refused: that is chaos too.
        let _ = ip::batch(Some(&scene.gw()), &[(*line).to_owned()]);
    }
}

fn tunnel_up(scene: &Scene) {
    let far = scene.of("far1");
    let hardware = "02:00:00:00:01:01";
    attempt(
        scene,
        &[
            &format!("link add Tunnel1 address {hardware} type veth peer name Tunnel1 address {hardware} netns {far}"),
            "link set Tunnel1 arp off addrgenmode none",
            &format!("addr add {LOCAL1}/30 peer {PEER1}/30 dev Tunnel1"),
            "link set Tunnel1 up",
            &format!("route add {REMOTE} via {PEER1} dev Tunnel1 proto bgp metric 20"),
        ],
    );
    let _ = ip::batch(Some(&far), &["link set Tunnel1 up".to_owned()]);
}

fn hijack(scene: &Scene) {
    attempt(
        scene,
        &["route add default via 10.9.0.1 dev eth0 proto static table 220", "rule add priority 220 lookup 220"],
    );
}

fn step(scene: &Scene, dice: &mut Dice) {
    match dice.roll(10) {
        0 if !scene.has_real_tunnels() => attempt(scene, &["link del Tunnel1"]),
        0 | 1 if !scene.has_real_tunnels() => tunnel_up(scene),
        2 => attempt(scene, &["link set Tunnel1 down"]),
        3 => attempt(
            scene,
            &["link set Tunnel1 up", &format!("route add {REMOTE} via {PEER1} dev Tunnel1 proto bgp metric 20")],
        ),
        4 => attempt(scene, &["rule del priority 220"]),
        5 => attempt(scene, &["route flush table 220"]),
        // Others flush what they take for leftovers.
        6 => attempt(scene, &["rule flush protocol 118"]),
        // More at once than the small buffer holds.
        7 => {
            let many = |what: &str| {
                (0..60).map(|n| format!("route {what} 172.16.{n}.0/24 via 10.9.0.1 dev eth0")).collect::<Vec<_>>()
            };
            let _ = ip::batch(Some(&scene.gw()), &many("add"));
            let _ = ip::batch(Some(&scene.gw()), &many("del"));
        }
        _ => hijack(scene),
    }
}

#[test]
fn chaos_ends_well() {
    need_root!();
    let seed = std::env::var("VPNFIX_CHAOS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed_1234_u64);
    println!("VPNFIX_CHAOS_SEED={seed}");
    let scene = Scene::healthy();
    let path = scene.run_dir().join("config.toml");
    let limits = format!(
        "repairs = {MOST_REPAIRS}\nwindow = \"10s\"\npause = \"20ms\"\nlongest-pause = \"500ms\"\nfight-after = 10000"
    );
    fs::write(&path, format!("[watch]\nprobe = false\nwait = \"2s\"\n[watch.limits]\n{limits}\n"))
        .expect("a configuration");
    let config = path.to_str().expect("UTF-8");
    let variables = [("VPNFIX_NETLINK_BUFFER", "2048")];
    let mut watch = Watch::start(&scene, &["--fix", "--config", config], &variables);
    watch.wait_state("Tunnel1", "healthy");
    let _traffic = [traffic::trickle(&scene.gw(), REMOTE_HOST), traffic::trickle(&scene.gw(), PEER1)];
    let mut dice = Dice(seed);
    let until = Instant::now() + Duration::from_secs(SECONDS);
    // What it needs at the most shows early; from then on it may not grow.
    let settled = Instant::now() + Duration::from_secs(SECONDS / 4);
    let mut at_rest = None;
    let mut steps = 0;
    while Instant::now() < until {
        step(&scene, &mut dice);
        steps += 1;
        if at_rest.is_none() && Instant::now() > settled {
            at_rest = Some((watch.descriptors(), watch.resident()));
        }
    }
    // The dust settles; the hijack stays.
    if !scene.has_real_tunnels() {
        tunnel_up(&scene);
    }
    attempt(
        &scene,
        &["link set Tunnel1 up", &format!("route add {REMOTE} via {PEER1} dev Tunnel1 proto bgp metric 20")],
    );
    hijack(&scene);
    wait::until("the last repair", || {
        let right = [PEER1, REMOTE_HOST].iter().all(|to| scene.device_for(*to) == "Tunnel1");
        right.then_some(())
    });
    let text = watch.metrics();
    assert!(metric(&text, "vpnfix_resyncs_total").is_some_and(|count| count > 0.0), "nothing was lost: {text}");
    let (descriptors, resident) = at_rest.expect("time has passed");
    let now = (watch.descriptors(), watch.resident());
    assert!(now.0 <= descriptors + 8, "descriptors: {descriptors}, then {}", now.0);
    assert!(now.1 <= resident + 16 * 1024, "resident: {resident} kB, then {} kB", now.1);
    println!("{steps} steps; {} descriptors, {} kB resident", now.0, now.1);
    // The kernel's own answer agrees with the state that is told.
    wait::until("the state", || {
        let text = watch.metrics();
        let of = |state: &str| metric(&text, &format!("vpnfix_tunnel_state{{tunnel=\"Tunnel1\",state=\"{state}\"}}"));
        (of("repaired") == Some(1.0) || of("unconfirmed") == Some(1.0)).then_some(())
    });
    let watched = watch.stop();
    assert!(matches!(watched.status, Some(0 | 3)), "{watched:#?}");
    within_limits(&watched.lines);
    let begun = metric(&text, "vpnfix_incidents_total").expect("a count");
    let kept = fs::read_dir(scene.run_dir().join("incidents")).expect("incidents").count();
    assert!(kept > 0 && kept <= 100, "{kept} of {begun} incidents are kept");
    let mut names: HashMap<String, usize> = HashMap::new();
    for line in watched.of_type("repair").filter(|line| line["outcome"] == "applied") {
        *names.entry(line["incident"].to_string()).or_default() += 1;
    }
    assert!(!names.is_empty(), "nothing was repaired");
    let report = scene.vpnfix(&["diagnose", "--format", "json"]).ends(0).json();
    assert_eq!(report["verdict"], "healthy", "{report:#}");
}

/// No ten seconds hold more repairs than allowed, by the times that were told.
fn within_limits(lines: &[serde_json::Value]) {
    let times: Vec<f64> = lines
        .iter()
        .filter(|line| line["type"] == "state" && line["to"] == "repairing" && line["tunnel"] == "Tunnel1")
        .filter_map(|line| seconds(line["time"].as_str()?))
        .collect();
    for (index, first) in times.iter().enumerate() {
        let within = times[index..].iter().take_while(|time| **time - first < 9.9).count();
        assert!(within <= MOST_REPAIRS, "{within} repairs in ten seconds");
    }
}

/// Seconds of the day of a time like 2026-11-27T19:49:09.123456Z.
fn seconds(time: &str) -> Option<f64> {
    let (_, clock) = time.trim_end_matches('Z').split_once('T')?;
    let mut parts = clock.split(':').filter_map(|part| part.parse::<f64>().ok());
    Some(parts.next()? * 3600.0 + parts.next()? * 60.0 + parts.next()?)
}
