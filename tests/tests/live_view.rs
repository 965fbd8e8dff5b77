//! The live view on a real terminal.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use vpnfix_tests::command::binary;
use vpnfix_tests::pty::Terminal;
use vpnfix_tests::scene::{PEER1, REMOTE_HOST, Scene};
use vpnfix_tests::{need_root, traffic, wait};

fn view(scene: &Scene, size: (u16, u16)) -> Terminal {
    let mut command = Command::new(binary());
    command.args(scene.arguments(&["trace", "--color", "always"])).env("VPNFIX_RUN_DIR", scene.run_dir());
    command.env("TERM", "xterm").current_dir(scene.run_dir());
    let terminal = Terminal::start(command, size);
    terminal.wait_for("q quit");
    terminal
}

#[test]
fn a_hijacked_flow_is_seen_chosen_and_told() {
    need_root!();
    let scene = Scene::hijacked();
    let mut terminal = view(&scene, (80, 24));
    let sender = traffic::trickle(&scene.gw(), PEER1);
    let text = terminal.wait_for("MISROUTED");
    let row = text.lines().find(|line| line.starts_with("MISROUTED")).expect("no row");
    assert!(row.contains("-> 169.254.163.249:9") && row.contains("eth0"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    terminal.wait_for("belongs to  Tunnel1 (169.254.163.248/30)");
    for tunnel in ["tunnel  Tunnel1", "tunnel  Tunnel2"] {
        assert!(text.contains(tunnel), "{tunnel}: {text}");
    }
    // On a larger terminal all of the story has room.
    terminal.resize((200, 60));
    let text = terminal.wait_for("answered    no packet came back");
    assert!(text.contains("`220: from all lookup 220`") && text.contains("IN THE CLEAR"), "{text}");
    terminal.resize((80, 24));
    terminal.wait_for("q quit");
    drop(sender);
    terminal.press("q");
    assert_eq!(terminal.end().code(), Some(1));
    terminal.becomes_sane();
    terminal.wait_for("lost: nothing");
}

#[test]
fn keys_filter_sort_and_stand_still() {
    need_root!();
    let scene = Scene::hijacked();
    let mut terminal = view(&scene, (80, 24));
    let senders = [PEER1, REMOTE_HOST].map(|to| traffic::trickle(&scene.gw(), to));
    terminal.wait_for("2 flows, worst first");
    terminal.press("/10.77");
    terminal.wait_for("filter: 10.77_");
    terminal.press("\r");
    let text = terminal.wait_for("1 flows, worst first, with \"10.77\"");
    assert!(text.contains("-> 10.77.3.4:9"), "{text}");
    terminal.press("\x1b");
    terminal.wait_for("2 flows, worst first ");
    terminal.press("s");
    terminal.wait_for("2 flows, rate first");
    terminal.press("p");
    terminal.wait_for("PAUSED");
    drop(senders);
    terminal.press("\x03");
    assert_eq!(terminal.end().code(), Some(1));
    terminal.becomes_sane();
}

#[test]
fn a_repair_is_shown_and_done_only_after_a_yes() {
    need_root!();
    let scene = Scene::hijacked();
    let rules = scene.rules();
    let mut terminal = view(&scene, (100, 40));
    terminal.press("f");
    let text = terminal.wait_for("y: do it");
    assert!(text.contains("ip rule add"), "{text}");
    terminal.press("x");
    terminal.wait_for("q quit");
    assert_eq!(scene.rules(), rules, "the plan alone changed the rules");
    terminal.press("f");
    terminal.wait_for("y: do it");
    terminal.press("y");
    terminal.wait_for("Enter goes back to the view");
    assert_ne!(scene.rules(), rules, "nothing was repaired");
    assert_eq!(scene.device_for(PEER1), "Tunnel1");
    terminal.press("\r");
    terminal.wait_for("`vpnfix fix` ended with exit status: 0");
    terminal.press("q");
    terminal.end();
    terminal.becomes_sane();
}

#[test]
fn what_is_seen_is_written_as_lines_of_json() {
    need_root!();
    let scene = Scene::hijacked();
    let mut terminal = view(&scene, (80, 24));
    traffic::blast(&scene.gw(), PEER1, 7);
    terminal.wait_for("MISROUTED");
    terminal.press("w");
    terminal.wait_for("written to vpnfix-trace-");
    let entries = fs::read_dir(scene.run_dir()).expect("no folder").filter_map(Result::ok);
    let file = entries.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "json"));
    let text = fs::read_to_string(file.expect("no file")).expect("it cannot be read");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("no JSON")).collect();
    assert_eq!((&lines[0]["type"], &lines[1]["type"]), (&"start".into(), &"summary".into()));
    assert_eq!(lines[1]["stories"][0]["egress"][0]["packets"], 7, "{text}");
    terminal.press("q");
    terminal.end();
}

#[test]
fn the_terminal_is_sane_after_a_signal_and_while_stopped() {
    need_root!();
    let scene = Scene::hijacked();
    let mut terminal = view(&scene, (80, 24));
    assert!(terminal.is_raw());
    terminal.press("\x1a");
    wait::until("the stop", || terminal.is_stopped().then_some(()));
    terminal.becomes_sane();
    terminal.signal(Signal::SIGCONT);
    terminal.wait_for("q quit");
    assert!(terminal.is_raw());
    // The same by the shell's own signal.
    terminal.signal(Signal::SIGTSTP);
    wait::until("the stop", || terminal.is_stopped().then_some(()));
    terminal.becomes_sane();
    terminal.signal(Signal::SIGCONT);
    terminal.wait_for("q quit");
    terminal.signal(Signal::SIGTERM);
    assert_eq!(terminal.end().code(), Some(0));
    terminal.becomes_sane();
}

#[test]
fn the_terminal_is_sane_after_a_kill() {
    need_root!();
    let scene = Scene::hijacked();
    let mut terminal = view(&scene, (80, 24));
    assert!(terminal.is_raw() && terminal.is_sane().is_err());
    terminal.signal(Signal::SIGKILL);
    terminal.end();
    terminal.becomes_sane();
}

#[test]
fn a_terminal_that_hangs_keeps_no_signal_from_being_heard() {
    need_root!();
    let scene = Scene::hijacked();
    let mut terminal = view(&scene, (200, 60));
    let _sender = traffic::trickle(&scene.gw(), PEER1);
    terminal.wait_for("MISROUTED");
    terminal.hang(true);
    // Each picture has new counts, and a new size is a whole new picture: no buffer holds so many.
    for width in [199, 198, 197, 196, 195, 194] {
        terminal.resize((width, 60));
        std::thread::sleep(Duration::from_millis(1200));
    }
    terminal.hang(false);
    terminal.resize((80, 24));
    let text = terminal.wait_for("q quit");
    assert!(text.contains("MISROUTED"), "{text}");
    terminal.hang(true);
    std::thread::sleep(Duration::from_millis(1200));
    terminal.signal(Signal::SIGTERM);
    assert_eq!(terminal.end().code(), Some(1));
    terminal.hang(false);
    terminal.becomes_sane();
}

#[test]
fn a_thousand_flows_are_shown() {
    need_root!();
    let scene = Scene::hijacked();
    let mut terminal = view(&scene, (80, 24));
    for port in 20_000..21_000 {
        traffic::udp(&scene.gw(), port).send_to(b"vpnfix scene", (PEER1, 9)).expect("it cannot be sent");
    }
    let since = Instant::now();
    let text = terminal.wait_for(" 1000 flows, worst first");
    assert!(text.contains("1000 MISROUTED"), "{text}");
    // A key is answered while all of them change.
    let sender = traffic::trickle(&scene.gw(), PEER1);
    terminal.press("\x1b[F");
    terminal.press("s");
    terminal.wait_for("rate first");
    drop(sender);
    println!("shown within {:?}", since.elapsed());
    assert!(since.elapsed() < Duration::from_secs(120));
    terminal.press("q");
    assert_eq!(terminal.end().code(), Some(1));
}
