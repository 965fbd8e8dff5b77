//! Where the cure goes on hosts as distributions set them up and as people change them, with the text of each file
//! judged by the reader of the whole configuration.

use super::super::cure::{CurePlan, DropIn, Obstacle, off, plan};
use super::super::pattern::covers;
use super::*;

const CHARON_FAMILY: [Daemon; 2] = [Daemon::Charon, Daemon::CharonSystemd];
const ENTRIES: [&str; 2] = ["/etc/strongswan.conf", "/etc/strongswan/strongswan.conf"];
/// Fedora's and EPEL's `/etc/strongswan/strongswan.conf` reads its directory by the same words.
const FEDORA: &str = DEBIAN;

type Tree<'a> = Vec<(&'a str, String)>;

fn find(tree: &[(&str, String)], pattern: &str) -> Vec<File> {
    let mut found: Vec<File> = tree
        .iter()
        .filter(|(path, _)| covers(pattern, path))
        .map(|(path, text)| File { path: (*path).into(), text: Ok(text.clone()), modified: Some(1) })
        .collect();
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

fn planned(tree: &Tree<'_>, daemons: &[Daemon]) -> CurePlan {
    plan(&ENTRIES, &mut |pattern| find(tree, pattern), daemons)
}

/// Expects a file, puts it into the tree, and reads that as the daemons do.
#[track_caller]
fn cured(tree: &Tree<'_>, daemons: &[Daemon]) -> DropIn {
    let CurePlan::DropIn(drop_in) = planned(tree, daemons) else { panic!("{:?}", planned(tree, daemons)) };
    let mut with = tree.clone();
    with.push((&drop_in.path, drop_in.text.clone()));
    let then = Configuration::read(&ENTRIES, &mut |pattern| find(&with, pattern));
    assert_eq!(then.problems, []);
    for daemon in daemons {
        let setting = then.settings(*daemon).install_routes;
        assert!(!setting.value, "{daemon:?}");
        assert_eq!(setting.place.unwrap().file, drop_in.path, "{daemon:?}");
    }
    // Written, there is nothing left to do.
    assert!(matches!(planned(&with, daemons), CurePlan::Off { place } if place.file == drop_in.path));
    drop_in
}

fn debian(charon: &str) -> Tree<'static> {
    vec![
        ("/etc/strongswan.conf", DEBIAN.into()),
        ("/etc/strongswan.d/charon.conf", charon.into()),
        ("/etc/strongswan.d/charon-systemd.conf", "charon-systemd {\n    journal {\n    }\n}\n".into()),
        ("/etc/strongswan.d/charon/kernel-netlink.conf", NETLINK.into()),
    ]
}

#[test]
fn on_debian_it_is_the_last_file_of_the_directory() {
    for charon in [CHARON.to_string(), CHARON.replace("# install_routes", "install_routes")] {
        for daemons in [&CHARON_FAMILY[..], &[Daemon::Charon], &[Daemon::CharonSystemd]] {
            let drop_in = cured(&debian(&charon), daemons);
            assert_eq!(drop_in.path, "/etc/strongswan.d/zz-vpnfix.conf");
            assert_eq!(drop_in.include, "/etc/strongswan.d/*.conf");
            let settings: Vec<&str> = drop_in.text.lines().filter(|line| !line.starts_with('#')).collect();
            assert_eq!(settings, ["charon {", "    install_routes = no", "}"]);
        }
    }
}

#[test]
fn on_redhat_it_is_the_same_below_its_own_directory() {
    let tree = vec![
        ("/etc/strongswan/strongswan.conf", FEDORA.into()),
        ("/etc/strongswan/strongswan.d/charon.conf", CHARON.into()),
    ];
    assert_eq!(cured(&tree, &CHARON_FAMILY).path, "/etc/strongswan/strongswan.d/zz-vpnfix.conf");
    // The directory of the include may be missing yet.
    let tree = vec![("/etc/strongswan/strongswan.conf", FEDORA.into())];
    assert_eq!(cured(&tree, &CHARON_FAMILY).path, "/etc/strongswan/strongswan.d/zz-vpnfix.conf");
}

#[test]
fn a_setting_of_charon_systemd_is_overridden_beside() {
    let mut tree = debian(CHARON);
    tree.push(("/etc/strongswan.d/own.conf", "charon-systemd { install_routes = yes }\n".into()));
    let drop_in = cured(&tree, &CHARON_FAMILY);
    assert!(drop_in.text.contains("charon {") && drop_in.text.contains("charon-systemd {"), "{}", drop_in.text);
}

#[test]
fn charon_nm_has_a_section_of_its_own() {
    let drop_in = cured(&debian(CHARON), &[Daemon::CharonNm]);
    assert!(drop_in.text.contains("charon-nm {") && !drop_in.text.contains("charon {"), "{}", drop_in.text);
}

#[test]
fn files_that_are_named_to_come_last_are_overridden_too() {
    let mut tree = debian(CHARON);
    tree.push(("/etc/strongswan.d/zzz-local.conf", "charon { install_routes = yes }\n".into()));
    assert_eq!(cured(&tree, &CHARON_FAMILY).path, "/etc/strongswan.d/zzzz-vpnfix.conf");
    // One that sets something else does not matter.
    *tree.last_mut().unwrap() = ("/etc/strongswan.d/zzz-local.conf", "charon { threads = 8 }\n".into());
    assert_eq!(cured(&tree, &CHARON_FAMILY).path, "/etc/strongswan.d/zz-vpnfix.conf");
}

#[test]
fn the_include_may_stand_in_the_section_or_take_few_names() {
    let tree = vec![
        ("/etc/strongswan.conf", "charon {\n include charon.d/*.conf\n}\n".into()),
        ("/etc/charon.d/a.conf", "install_routes = yes\n".into()),
    ];
    let drop_in = cured(&tree, &CHARON_FAMILY);
    assert_eq!(drop_in.path, "/etc/charon.d/zz-vpnfix.conf");
    assert!(!drop_in.text.contains('{'), "{}", drop_in.text);
    // Names that the last include does not take: the one before it serves.
    let entry = "include a.d/*.conf\ninclude b.d/charon*.conf\n";
    let tree = vec![("/etc/strongswan.conf", entry.into())];
    assert_eq!(cured(&tree, &CHARON_FAMILY).path, "/etc/a.d/zz-vpnfix.conf");
}

#[test]
fn what_is_set_behind_the_include_is_a_persons_to_change() {
    let behind = format!("{DEBIAN}\ncharon {{\n install_routes = yes\n}}\n");
    let mut tree = debian(CHARON);
    tree[0].1 = behind;
    let CurePlan::Blocked(Obstacle::NoPlace { place, edit }) = planned(&tree, &CHARON_FAMILY) else { panic!() };
    assert_eq!((place.as_str(), edit.as_str()), ("/etc/strongswan.conf:17", "change it to `install_routes = no`"));
    // Only another daemon's is set there: the one that runs can be cured.
    tree[0].1 = format!("{DEBIAN}\ncharon-systemd {{\n install_routes = yes\n}}\n");
    assert_eq!(cured(&tree, &[Daemon::Charon]).path, "/etc/strongswan.d/zz-vpnfix.conf");
    assert!(matches!(planned(&tree, &[Daemon::CharonSystemd]), CurePlan::Blocked(Obstacle::NoPlace { .. })));
}

#[test]
fn without_an_include_it_is_a_persons_to_write() {
    for entry in [
        "charon {\n load_modular = yes\n}\n",
        "",
        "include other.conf\n",
        "charon { plugins {\n include p/*.conf\n} }\n",
    ] {
        let tree = vec![("/etc/strongswan.conf", entry.to_string())];
        let CurePlan::Blocked(Obstacle::NoPlace { place, edit }) = planned(&tree, &CHARON_FAMILY) else {
            panic!("{entry}")
        };
        assert_eq!(place, "/etc/strongswan.conf");
        assert_eq!(edit, "write `charon { install_routes = no }`");
    }
}

#[test]
fn what_is_off_already_needs_no_file() {
    let CurePlan::Off { place } = planned(&debian("charon {\n install_routes = no\n}\n"), &CHARON_FAMILY) else {
        panic!()
    };
    assert_eq!(place.to_string(), "/etc/strongswan.d/charon.conf:2");
    assert_eq!(planned(&Vec::new(), &CHARON_FAMILY), CurePlan::Absent);
}

#[test]
fn a_configuration_that_the_daemons_refuse_gets_no_file() {
    let broken = debian("charon {\n install_routes yes\n}\n");
    let CurePlan::Blocked(Obstacle::Refused(problem)) = planned(&broken, &CHARON_FAMILY) else { panic!() };
    assert_eq!((problem.file.as_str(), problem.line), ("/etc/strongswan.d/charon.conf", Some(2)));
    let itself = vec![("/etc/strongswan.conf", "include *.conf\n".into())];
    assert!(matches!(planned(&itself, &CHARON_FAMILY), CurePlan::Blocked(Obstacle::Incomplete(_))));
    let mut unreadable = |pattern: &str| {
        let mut found = find(&debian(CHARON), pattern);
        for file in found.iter_mut().filter(|file| file.path.ends_with("/charon.conf")) {
            file.text = Err("Permission denied".into());
        }
        found
    };
    assert!(matches!(plan(&ENTRIES, &mut unreadable, &CHARON_FAMILY), CurePlan::Blocked(Obstacle::Incomplete(_))));
}

/// A file of the last include would end the section that the entry file has opened: nothing else may change by ours.
#[test]
fn nothing_but_the_setting_changes() {
    let tree = debian(&CHARON.replace("# routing_table =", "routing_table = 221"));
    let drop_in = cured(&tree, &CHARON_FAMILY);
    let mut with = tree.clone();
    with.push((&drop_in.path, drop_in.text.clone()));
    let (before, after) = (
        Configuration::read(&ENTRIES, &mut |p| find(&tree, p)),
        Configuration::read(&ENTRIES, &mut |p| find(&with, p)),
    );
    for daemon in Daemon::ALL {
        let (before, mut after) = (before.settings(daemon), after.settings(daemon));
        after.install_routes = before.install_routes.clone();
        assert_eq!(before, after);
    }
    assert!(off(&before, &CHARON_FAMILY).is_none());
}
