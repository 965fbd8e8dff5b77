//! The cure at the root: strongSwan's setting, written by a file of vpnfix's own and taken back.
//!
//! Each vpnfix, and the process that stands for the daemon, runs with a directory of the test's own in the place of /etc,
//! in a mount namespace of its own: nothing of this host's configuration is touched.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use vpnfix_tests::command::{Run, binary, copy_program, prepared};
use vpnfix_tests::need_root;
use vpnfix_tests::scene::Scene;
use vpnfix_tests::wait;

/// Debian's entry file.
const ENTRY: &str = "charon {\n\tload_modular = yes\n\tplugins {\n\t\tinclude strongswan.d/charon/*.conf\n\t}\n}\n\n\
                     include strongswan.d/*.conf\n";
const CHARON: &str = "charon {\n    # install_routes = no\n    install_routes = yes\n}\n";
const OURS: &str = "strongswan.d/zz-vpnfix.conf";
/// Puts a directory in the place of /etc for one program.
const WITHIN: &str = "mount --bind \"$0\" /etc && exec \"$@\"";

/// A hijacked gateway with a configuration of strongSwan.
struct Gateway {
    scene: Scene,
    daemon: Option<Child>,
}

type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;

impl Gateway {
    fn new(scene: Scene, entry: &str) -> Self {
        let gateway = Self { scene, daemon: None };
        let etc = gateway.etc();
        fs::create_dir_all(etc.join("strongswan.d/charon")).expect("no directory");
        fs::write(etc.join("strongswan.conf"), entry).expect("no file");
        fs::write(etc.join("strongswan.d/charon.conf"), CHARON).expect("no file");
        gateway
    }

    fn etc(&self) -> PathBuf {
        self.scene.run_dir().join("etc")
    }

    fn state(&self) -> PathBuf {
        self.scene.run_dir().join("state")
    }

    /// Everything in /etc, links and contents as they are.
    fn tree(&self) -> Tree {
        let (mut tree, mut directories) = (Tree::new(), vec![self.etc()]);
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).expect("no directory").map(|entry| entry.expect("no entry")) {
                if entry.file_type().expect("no type").is_dir() {
                    directories.push(entry.path());
                }
                tree.insert(entry.path(), fs::read(entry.path()).ok());
            }
        }
        tree
    }

    fn command(&self, further: &[&str]) -> Command {
        let etc = self.etc();
        let vpnfix = binary();
        let mut words = vec!["--mount", "--propagation", "private", "sh", "-c", WITHIN];
        words.extend([etc.to_str().expect("no text"), vpnfix.to_str().expect("no text")]);
        let arguments = self.scene.arguments(further);
        words.extend(arguments.iter().map(String::as_str));
        let mut command = prepared(Path::new("unshare"), self.scene.run_dir(), &words);
        command.env("VPNFIX_STATE_DIR", self.state());
        command
    }

    #[track_caller]
    fn vpnfix(&self, further: &[&str]) -> Run {
        Run::of(self.command(further), further)
    }

    /// A process of the daemon's name in the gateway's namespace, with the gateway's /etc.
    fn start_daemon(&mut self) -> u32 {
        let program = self.scene.run_dir().join("charon");
        copy_program(Path::new("/bin/sleep"), &program);
        let child = Command::new("ip")
            .args(["netns", "exec", &self.scene.gw(), "unshare", "--mount", "--propagation", "private"])
            .args(["sh", "-c", WITHIN])
            .args([self.etc(), program])
            .arg("600")
            .stdin(Stdio::null())
            .spawn()
            .expect("no daemon");
        let pid = child.id();
        self.daemon = Some(child);
        let comm = format!("/proc/{pid}/comm");
        wait::until("the daemon", || fs::read_to_string(&comm).ok().filter(|name| name == "charon\n"));
        pid
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

#[test]
fn the_cure_is_planned_written_checked_and_taken_back() {
    need_root!();
    let mut gateway = Gateway::new(Scene::hijacked(), ENTRY);
    gateway.scene.start_responders();
    let pid = gateway.start_daemon();
    let (tree, rules) = (gateway.tree(), gateway.scene.rules());

    let planned = gateway.vpnfix(&["fix", "--cure", "--dry-run", "--format", "json"]).ends(1).json();
    assert_eq!(planned["cure_applied"]["state"], "planned", "{planned:#}");
    assert_eq!(planned["cure_applied"]["files"][0]["path"], "/etc/strongswan.d/zz-vpnfix.conf");
    assert_eq!((gateway.tree(), gateway.scene.rules()), (tree.clone(), rules.clone()));
    assert!(!gateway.state().exists());

    let fixed = gateway.vpnfix(&["fix", "--cure", "--format", "json"]).ends(0).json();
    let cure = &fixed["cure_applied"];
    assert_eq!(cure["state"], "written", "{cure:#}");
    assert_eq!(cure["check"][0]["daemon"], "charon");
    assert_eq!(cure["check"][0]["install_routes"], false);
    assert_eq!(cure["restart"]["state"], "due");
    assert_eq!(cure["restart"]["daemon"], format!("charon ({pid})"));
    let mut after = gateway.tree();
    let ours = after.remove(&gateway.etc().join(OURS)).flatten().expect("no file of ours");
    assert_eq!(after, tree, "a foreign file was changed");
    let ours = String::from_utf8(ours).expect("no text");
    let settings: Vec<&str> = ours.lines().filter(|line| !line.starts_with('#')).map(str::trim).collect();
    assert_eq!(settings, ["charon {", "install_routes = no", "}"]);

    // Again: nothing is left to do but the restart, which only systemd could be asked for.
    let (tree_cured, rules_cured) = (gateway.tree(), gateway.scene.rules());
    let again = gateway.vpnfix(&["fix", "--cure", "--format", "json"]).ends(0).json();
    assert_eq!(again["cure_applied"]["state"], "already_off", "{again:#}");
    assert_eq!(again["cure_applied"]["restart"]["state"], "due");
    let restart = gateway.vpnfix(&["fix", "--cure", "--restart", "--format", "json"]).ends(3).json();
    assert_eq!(restart["cure_applied"]["restart"]["state"], "failed", "{restart:#}");
    assert!(Path::new(&format!("/proc/{pid}")).exists(), "the process was not vpnfix's to end");
    assert_eq!((gateway.tree(), gateway.scene.rules()), (tree_cured, rules_cured));

    let undone = gateway.vpnfix(&["undo", "--format", "json"]).ends(0).json();
    assert_eq!(undone["files"][0], "/etc/strongswan.d/zz-vpnfix.conf", "{undone:#}");
    assert!(undone["notes"][0]["text"].as_str().is_some_and(|note| note.contains("restarted")), "{undone:#}");
    assert_eq!((gateway.tree(), gateway.scene.rules()), (tree, rules));
    assert!(!gateway.state().exists());
}

#[test]
fn what_cannot_be_cured_is_told_and_nothing_is_written() {
    need_root!();
    let behind = format!("{ENTRY}charon {{\n install_routes = yes\n}}\n");
    let broken = format!("{ENTRY}charon {{\n");
    // Where the configuration speaks against it, in the words for a person.
    for (entry, place) in [
        (behind.as_str(), "/etc/strongswan.conf:10"),
        ("charon {\n}\n", "/etc/strongswan.conf"),
        (broken.as_str(), "/etc/strongswan.conf:9"),
    ] {
        let gateway = Gateway::new(Scene::healthy(), entry);
        let tree = gateway.tree();
        let told = gateway.vpnfix(&["fix", "--cure", "--restart", "--format", "json"]).ends(4).json();
        assert_eq!(told["cure_applied"]["state"], "impossible", "{told:#}");
        assert_eq!(told["cure_applied"]["by_hand"]["where"], place, "{told:#}");
        assert_eq!(told["cure_applied"]["restart"]["state"], "not_needed");
        assert_eq!(gateway.tree(), tree);
        assert!(!gateway.state().exists());
    }
}

#[test]
fn a_file_of_others_is_left_and_an_edited_one_too() {
    need_root!();
    let gateway = Gateway::new(Scene::healthy(), ENTRY);
    let ours = gateway.etc().join(OURS);
    fs::write(&ours, "# an operator's\n").expect("no file");
    let tree = gateway.tree();
    let told = gateway.vpnfix(&["fix", "--cure", "--format", "json"]).ends(4).json();
    assert!(told["cure_applied"]["why"].as_str().is_some_and(|why| why.contains("not vpnfix's")), "{told:#}");
    assert_eq!(gateway.tree(), tree);
    fs::remove_file(&ours).expect("no file");

    // Rules are right: the cure is written all the same, without a daemon there is nothing to restart.
    let cured = gateway.vpnfix(&["fix", "--cure", "--format", "json"]).ends(0).json();
    assert_eq!(cured["cure_applied"]["restart"]["state"], "not_needed", "{cured:#}");
    let text = fs::read_to_string(&ours).expect("no file of ours") + "# edited\n";
    fs::write(&ours, &text).expect("no file");
    let undone = gateway.vpnfix(&["undo", "--format", "json"]).ends(3).json();
    assert!(undone["left"][0].as_str().is_some_and(|left| left.contains("changed since")), "{undone:#}");
    assert_eq!(fs::read_to_string(&ours).expect("the edited file is gone"), text);
}

#[test]
fn killed_at_any_time_no_half_file_is_left_and_undo_takes_all_back() {
    need_root!();
    let gateway = Gateway::new(Scene::healthy(), ENTRY);
    let tree = gateway.tree();
    let whole = {
        gateway.vpnfix(&["fix", "--cure"]).ends(0);
        let whole = fs::read(gateway.etc().join(OURS)).expect("no file of ours");
        gateway.vpnfix(&["undo"]).ends(0);
        whole
    };
    assert_eq!(gateway.tree(), tree);
    for step in 0..20 {
        let mut child = gateway.command(&["fix", "--cure"]).spawn().expect("vpnfix could not be started");
        // The whole run takes some 100 ms: the times are spread over it.
        thread::sleep(Duration::from_millis(step * 10));
        let _ = child.kill();
        let _ = child.wait();
        if let Ok(text) = fs::read(gateway.etc().join(OURS)) {
            assert_eq!(text, whole, "half a file after {step}");
        }
        gateway.vpnfix(&["undo"]).ends(0);
        assert_eq!(gateway.tree(), tree, "after {step}");
        assert!(!gateway.state().exists(), "after {step}");
    }
}
