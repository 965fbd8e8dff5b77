//! The audit trail: each change is one line on standard error, and an entry of the journal where journald runs.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use vpnfix_tests::command::{Run, binary};
use vpnfix_tests::need_root;
use vpnfix_tests::scene::{INSIDE1, Scene};

const FIX: [&str; 6] = ["fix", "--strategy", "inside", "--no-probe", "--wait", "1ms"];

fn changes(run: &Run) -> Vec<&str> {
    run.stderr.lines().filter(|line| line.contains("action=")).collect()
}

#[test]
fn each_change_is_one_line_with_its_command_and_author() {
    need_root!();
    let scene = Scene::hijacked();
    let before: Vec<String> = scene.rules().lines().map(str::to_owned).collect();
    let fixed = scene.vpnfix(&FIX);
    let added: Vec<String> =
        scene.rules().lines().filter(|line| !before.contains(&(*line).to_owned())).map(str::to_owned).collect();
    let lines = changes(&fixed);
    assert_eq!(lines.len(), added.len(), "{fixed}");
    let line = lines.iter().find(|line| line.contains(INSIDE1)).unwrap_or_else(|| panic!("{fixed}"));
    let command = format!("command=\"ip rule add priority 100 from all to {INSIDE1} lookup main protocol 118\"");
    let netns = format!("netns=\"{}\"", scene.gw());
    for field in ["action=\"add\"", "family=\"ipv4\"", "priority=100", "uid=0", "pid=", "why=\"", &command, &netns] {
        assert!(line.contains(field), "{field} is not in {line}");
    }
    let undone = scene.vpnfix(&["undo"]).ends(0);
    assert_eq!(changes(&undone).len(), added.len(), "{undone}");
    assert!(
        changes(&undone).iter().all(|line| line.contains("action=\"undo\"") && line.contains("ip rule del")),
        "{undone}"
    );
    let quiet = scene.vpnfix(&[&["-q"], FIX.as_slice()].concat());
    assert_eq!(quiet.stderr, "", "{quiet}");
    scene.vpnfix(&["undo"]).ends(0);
}

/// In a mount namespace of its own vpnfix finds the test's socket where journald's is.
#[test]
fn where_journald_listens_each_change_is_an_entry_also_with_q() {
    need_root!();
    let scene = Scene::hijacked();
    let folder = scene.run_dir().join("journald");
    fs::create_dir(&folder).expect("a folder");
    let journald = UnixDatagram::bind(folder.join("socket")).expect("the socket");
    journald.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    // /run gets nothing of ours: another file system covers it, but for the names of the namespaces.
    let script = "mount --make-rprivate / && mkdir \"$1/netns\" && mount --rbind /run/netns \"$1/netns\" && \
        mount -t tmpfs tmpfs /run && mkdir -p /run/netns /run/systemd/journal && \
        mount --rbind \"$1/netns\" /run/netns && mount --bind \"$1\" /run/systemd/journal && shift && exec \"$@\"";
    let arguments = scene.arguments(&[&["-q"], FIX.as_slice()].concat());
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(&folder).arg(binary()).args(&arguments);
    command.env("VPNFIX_RUN_DIR", scene.run_dir());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let fixed = Run::of(command, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(matches!(fixed.status, Some(0 | 3)), "{fixed}");
    assert_eq!(fixed.stderr, "", "{fixed}");
    let stand = scene.rules().lines().filter(|line| line.contains("proto 118")).count();
    assert!(stand > 0, "{fixed}");
    let mut entries = Vec::new();
    while entries.len() < stand {
        let mut buffer = [0; 8192];
        let length = journald.recv(&mut buffer).expect("an entry for each rule");
        // An empty one is how the client tries whether anybody listens.
        if length == 0 {
            continue;
        }
        entries.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    let entry = entries.iter().find(|entry| entry.contains(INSIDE1)).unwrap_or_else(|| panic!("{entries:?}"));
    for field in ["SYSLOG_IDENTIFIER", "VPNFIX_ACTION", "VPNFIX_COMMAND", "VPNFIX_NETNS", "VPNFIX_UID", "VPNFIX_WHY"] {
        assert!(entry.contains(field), "{field} is not in {entry}");
    }
    assert!(
        entry.contains(&format!("ip rule add priority 100 from all to {INSIDE1} lookup main protocol 118")),
        "{entry}"
    );
    journald.set_nonblocking(true).expect("no waiting");
    assert!(journald.recv(&mut [0; 16]).is_err(), "more entries than changes");
    scene.vpnfix(&["undo"]).ends(0);
}
