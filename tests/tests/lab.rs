//! `vpnfix lab`: plays to its end, and leaves nothing behind, killed or not.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vpnfix_tests::command::Run;
use vpnfix_tests::{ip, need_root, scene, traffic, wait};

const HOSTS: [&str; 4] = ["cgw", "rtr", "aws1", "aws2"];

/// A lab's names; whatever is left of it goes with this.
struct Lab {
    prefix: String,
    run_dir: PathBuf,
}

impl Lab {
    fn new(name: &str) -> Self {
        let prefix = format!("vpnfix-t{}-{name}", std::process::id());
        let run_dir = std::env::temp_dir().join(&prefix);
        Self { prefix, run_dir }
    }

    fn run(&self, command: &str) -> Run {
        Run::new(&self.run_dir, &["lab", command, "--prefix", &self.prefix])
    }

    fn present(&self) -> Vec<String> {
        let names = HOSTS.map(|host| format!("{}-{host}", self.prefix));
        names.into_iter().filter(|name| Path::new("/run/netns").join(name).exists()).collect()
    }

    /// Processes whose command line names the lab.
    fn processes(&self) -> Vec<i32> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("no /proc").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).contains(&self.prefix) {
                found.push(pid);
            }
        }
        found
    }

    #[track_caller]
    fn nothing_is_left(&self) {
        assert_eq!(self.present(), Vec::<String>::new());
        wait::until("the end of the lab's processes", || self.processes().is_empty().then_some(()));
        let left: Vec<_> = fs::read_dir(&self.run_dir).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
        assert!(left.is_empty(), "left in the run folder: {left:?}");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // A test that failed already tells why; this is only for the next one's sake.
        for name in self.present() {
            let _ = std::process::Command::new("ip").args(["netns", "del", &name]).status();
        }
        let _ = fs::remove_dir_all(&self.run_dir);
    }
}

#[test]
fn the_play_goes_as_told_and_leaves_nothing_behind() {
    need_root!();
    let lab = Lab::new("play");
    let told = lab.run("run").ends(0);
    assert!(told.stdout.contains("after undo"), "no table at the end\n{told}");
    lab.nothing_is_left();
}

#[test]
fn up_is_the_incident_and_down_removes_it() {
    need_root!();
    let lab = Lab::new("updown");
    lab.run("down").ends(0);
    lab.run("up").ends(0);
    let cgw = format!("{}-cgw", lab.prefix);
    let route = ip::json(&["-n", &cgw, "route", "get", "169.254.55.53"]);
    assert_eq!((&route[0]["dev"], &route[0]["table"]), (&"ens5".into(), &"220".into()), "{route}");
    for family in ["-4", "-6"] {
        assert!(ip::text(&[family, "-n", &cgw, "rule"]).contains("220:\tfrom all lookup 220"));
    }
    assert!(!traffic::pings(&cgw, std::net::Ipv4Addr::new(169, 254, 55, 53)));
    let again = lab.run("up").ends(0);
    assert!(again.stdout.contains("already"), "{again}");
    lab.run("down").ends(0);
    lab.nothing_is_left();
    lab.run("down").ends(0);
}

#[test]
fn up_rebuilds_a_lab_that_is_half_there() {
    need_root!();
    let lab = Lab::new("half");
    lab.run("up").ends(0);
    let lost = format!("{}-aws1", lab.prefix);
    ip::text(&["netns", "del", &lost]);
    scene::gone(&lost);
    lab.run("up").ends(0);
    assert_eq!(lab.present().len(), 4);
    let cgw = format!("{}-cgw", lab.prefix);
    // The link between them lived in the lost namespace: it stands again.
    assert!(ip::text(&["-n", &cgw, "link", "show", "dev", "vti1"]).contains("UP"));
    lab.run("down").ends(0);
    lab.nothing_is_left();
}

#[test]
fn down_removes_what_a_killed_play_left() {
    need_root!();
    let lab = Lab::new("killed");
    let arguments = ["lab", "run", "--prefix", &lab.prefix];
    let child = Run::start(&lab.run_dir, &arguments);
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    wait::until("the lab's namespaces", || (lab.present().len() == 4).then_some(()));
    let busy = lab.run("down").ends(4).tells_an_error();
    assert!(busy.stderr.contains("lab down"), "{busy}");
    kill(pid, Signal::SIGKILL).expect("the play is gone already");
    Run::finish(child, &arguments);
    assert!(!lab.present().is_empty());
    lab.run("down").ends(0);
    lab.nothing_is_left();
}

#[test]
fn a_terminated_play_takes_its_lab_down() {
    need_root!();
    let lab = Lab::new("term");
    let arguments = ["lab", "run", "--prefix", &lab.prefix];
    let child = Run::start(&lab.run_dir, &arguments);
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    wait::until("the lab's namespaces", || (lab.present().len() == 4).then_some(()));
    kill(pid, Signal::SIGTERM).expect("the play is gone already");
    Run::finish(child, &arguments).ends(1);
    lab.nothing_is_left();
}
