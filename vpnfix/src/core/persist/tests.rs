use ipnet::IpNet;

use super::*;
use crate::core::finding::NoteId;
use crate::core::model::{Family, RuleAction, TABLE_MAIN};
use crate::core::own_file::Standing;
use crate::core::owner::VPNFIX_PROTOCOL;

const WISH: Wish = Wish { backend: None, keep_foreign: false };

fn to(prefix: &str, priority: u32) -> Rule {
    let prefix: IpNet = prefix.parse().unwrap();
    let family = if prefix.addr().is_ipv4() { Family::V4 } else { Family::V6 };
    Rule { to: Some(prefix), protocol: VPNFIX_PROTOCOL, ..Rule::lookup(family, priority, TABLE_MAIN) }
}

fn suppressed(rule: Rule) -> Rule {
    Rule { suppress_prefix_length: Some(0), ..rule }
}

fn main_first(family: Family) -> Rule {
    suppressed(Rule { protocol: VPNFIX_PROTOCOL, ..Rule::lookup(family, 219, TABLE_MAIN) })
}

fn refusing(prefix: &str) -> Rule {
    Rule { action: RuleAction::Unreachable, ..to(prefix, 218) }
}

fn networkd(release: Option<u32>, file: &str) -> Managers {
    let links = vec![ManagedLink { interface: "ens5".into(), file: file.into() }];
    Managers {
        systemd: Some(Release(release)),
        networkd: Some(Networkd { links, keeps_foreign_rules: false }),
        ..Managers::default()
    }
}

fn network_manager(file: &str) -> Managers {
    let connection = Connection { interface: "ens5".into(), uuid: "0a5b".into(), name: "up".into(), file: file.into() };
    Managers {
        systemd: Some(Release(Some(252))),
        network_manager: Some(NetworkManager { connections: vec![connection] }),
        ..Managers::default()
    }
}

fn arranged(rules: &[Rule], managers: &Managers, backend: Option<Backend>) -> Result<Arrangement, PersistError> {
    arrange(rules, managers, &["ens5".into()], Wish { backend, ..WISH })
}

#[test]
fn a_drop_in_lies_beside_the_file_that_holds_for_the_interface() {
    for file in ["/etc/systemd/network/10-ens5.network", "/run/systemd/network/10-ens5.network"] {
        let arrangement = arranged(&[to("169.254.55.52/30", 100)], &networkd(Some(252), file), None).unwrap();
        assert_eq!(arrangement.backend, Backend::Networkd);
        assert_eq!(arrangement.files[0].path.to_str(), Some("/etc/systemd/network/10-ens5.network.d/90-vpnfix.conf"));
        assert!(
            arrangement.files[0].text.ends_with("[RoutingPolicyRule]\nPriority=100\nTo=169.254.55.52/30\nTable=254\n")
        );
        assert!(arrangement.notes.iter().any(|note| note.contains("drops rules")), "{:?}", arrangement.notes);
    }
}

#[test]
fn networkd_is_asked_only_for_what_its_version_knows() {
    let file = "/etc/systemd/network/10-ens5.network";
    let rules = [to("10.0.0.0/8", 100), main_first(Family::V6), refusing("10.1.0.0/16")];
    let text = arranged(&rules, &networkd(Some(248), file), None).unwrap().files[0].text.clone();
    assert!(text.contains("Priority=219\nFamily=ipv6\nTable=254\nSuppressPrefixLength=0\n"), "{text}");
    assert!(text.contains("Priority=218\nTo=10.1.0.0/16\nType=unreachable\n"), "{text}");
    for (release, rule) in [(Some(247), &rules[2]), (Some(244), &rules[1]), (None, &rules[1])] {
        let asked = arranged(std::slice::from_ref(rule), &networkd(release, file), Some(Backend::Networkd));
        assert!(matches!(asked, Err(PersistError::Inexpressible { .. })), "{release:?}: {asked:?}");
        let auto = arranged(std::slice::from_ref(rule), &networkd(release, file), None).unwrap();
        assert_eq!(auto.backend, Backend::Systemd, "a unit can express everything");
        assert!(auto.notes.iter().any(|note| note.starts_with("not by the first choice")), "{:?}", auto.notes);
    }
}

#[test]
fn a_vrf_rule_needs_the_setting_for_it() {
    let rule = Rule { l3mdev: true, ..Rule::lookup(Family::V4, 219, 0) };
    let file = "/etc/systemd/network/10-ens5.network";
    assert!(arranged(std::slice::from_ref(&rule), &networkd(Some(255), file), Some(Backend::Networkd)).is_err());
    let text = arranged(&[rule], &networkd(Some(256), file), None).unwrap().files[0].text.clone();
    assert!(text.contains("Family=ipv4\nL3MasterDevice=yes\n"), "{text}");
}

#[test]
fn a_jump_to_a_rule_of_others_is_kept_by_a_script() {
    let file = "/etc/systemd/network/10-ens5.network";
    let jump = Rule {
        action: RuleAction::Goto(10001),
        iif: Some("eth1".into()),
        protocol: 118,
        to: "10.20.0.0/16".parse().ok(),
        ..Rule::lookup(Family::V4, 219, 0)
    };
    let kept = arranged(std::slice::from_ref(&jump), &networkd(Some(256), file), None).unwrap();
    assert_eq!(kept.backend, Backend::Systemd);
    let command = "add rule add priority 219 from all to 10.20.0.0/16 iif eth1 goto 10001 protocol 118\n";
    assert!(kept.files[0].text.contains(command), "{}", kept.files[0].text);
    let odd = Rule { iif: Some("$(reboot)".into()), ..jump };
    assert!(arranged(&[odd], &networkd(Some(256), file), None).is_err());
}

#[test]
fn netplan_keeps_what_it_can_express_and_networkd_the_rest() {
    let mut managers = networkd(Some(252), "/run/systemd/network/10-netplan-ens5.network");
    let configuration = "network:\n  version: 2\n  ethernets:\n    ens5:\n      dhcp4: true\n";
    managers.netplan = Some(Netplan::of_configuration(configuration));
    let plain = arranged(&[to("169.254.55.52/30", 100)], &managers, None).unwrap();
    assert_eq!(plain.backend, Backend::Netplan);
    assert_eq!(plain.files[0].mode, 0o600, "netplan's files may hold keys, and it wants all of them closed");
    let expected = "  ethernets:\n    \"ens5\":\n      routing-policy:\n        - to: \"169.254.55.52/30\"\n          table: 254\n          priority: 100\n";
    assert!(plain.files[0].text.ends_with(expected), "{}", plain.files[0].text);
    for rule in [suppressed(to("10.0.0.0/8", 219)), refusing("10.0.0.0/8"), main_first(Family::V4)] {
        let asked = arranged(std::slice::from_ref(&rule), &managers, Some(Backend::Netplan)).unwrap_err();
        assert!(matches!(asked, PersistError::Inexpressible { .. }) && asked.hint().is_some(), "{asked}");
        assert_eq!(arranged(&[rule], &managers, None).unwrap().backend, Backend::Networkd);
    }
}

#[test]
fn netplan_tells_the_part_that_an_interface_stands_in() {
    let configuration = "network:\n  bonds:\n    \"bond0\":\n      interfaces:\n      - ens5\n  version: 2\n  renderer: networkd\n  vlans:\n    v.7:\n      id: 7\n";
    let found = Netplan::of_configuration(configuration).interfaces;
    let found: Vec<(&str, &str)> = found.iter().map(|one| (one.section.as_str(), one.id.as_str())).collect();
    assert_eq!(found, [("bonds", "bond0"), ("vlans", "v.7")]);
    assert_eq!(Netplan::of_configuration("null\n:\n\u{0}    :").interfaces, []);
}

#[test]
fn a_profile_gets_rules_in_its_manager_s_words() {
    let rules = [to("169.254.55.52/30", 100), main_first(Family::V4), refusing("10.0.0.0/8"), main_first(Family::V6)];
    let arrangement = arranged(&rules, &network_manager("/etc/NetworkManager/up"), None).unwrap();
    assert_eq!((arrangement.backend, arrangement.files.len()), (Backend::NetworkManager, 0), "its files are not ours");
    let expected = [
        "nmcli",
        "connection",
        "modify",
        "uuid",
        "0a5b",
        "+ipv4.routing-rules",
        "priority 100 to 169.254.55.52/30 table 254",
        "+ipv4.routing-rules",
        "priority 219 from 0.0.0.0/0 table 254 suppress_prefixlength 0",
        "+ipv4.routing-rules",
        "priority 218 to 10.0.0.0/8 type unreachable",
        "+ipv6.routing-rules",
        "priority 219 from ::/0 table 254 suppress_prefixlength 0",
    ];
    assert_eq!(arrangement.commands[0].argv, expected);
    let back = Kept::of(&arrangement).before_release().unwrap();
    let expected: Vec<String> = expected.iter().map(|word| word.replacen('+', "-", 1)).collect();
    assert_eq!(back.argv, expected, "exactly what was added is taken back");
}

#[test]
fn a_profile_in_memory_is_not_touched() {
    // nmcli would put NetworkManager's picture of what others configured on disk, and make it manage the device.
    for file in ["/run/NetworkManager/system-connections/ens5.nmconnection", ""] {
        assert!(arranged(&[to("10.0.0.0/8", 100)], &network_manager(file), Some(Backend::NetworkManager)).is_err());
        let auto = arranged(&[to("10.0.0.0/8", 100)], &network_manager(file), None).unwrap();
        assert_eq!(auto.backend, Backend::Systemd);
    }
}

#[test]
fn a_hook_is_for_its_interface_alone() {
    let ifupdown = Some(Ifupdown::of_state("lo=lo\nens5=ens5\nnonsense\n"));
    let managers = Managers { ifupdown, ..Managers::default() };
    let arrangement = arranged(&[suppressed(to("2001:db8::/32", 219))], &managers, None).unwrap();
    let file = &arrangement.files[0];
    assert_eq!((file.path.to_str(), file.mode), (Some("/etc/network/if-up.d/vpnfix"), 0o755));
    assert!(file.text.contains("[ \"$IFACE\" = 'ens5' ] || exit 0\n"), "{}", file.text);
    let add =
        "add -6 rule add priority 219 from all to 2001:db8::/32 lookup main suppress_prefixlength 0 protocol 118\n";
    assert!(file.text.contains(add) && file.text.ends_with("exit 0\n"), "{}", file.text);
    let odd = arrange(
        &[to("10.0.0.0/8", 1)],
        &Managers { ifupdown: Some(Ifupdown { interfaces: vec!["a'b".into()] }), ..Managers::default() },
        &["a'b".into()],
        WISH,
    )
    .unwrap();
    assert!(odd.files[0].text.contains(r"= 'a'\''b' ]"), "{}", odd.files[0].text);
}

#[test]
fn a_unit_comes_after_all_who_could_drop_its_rules() {
    let managers = Managers { systemd: Some(Release(None)), ..Managers::default() };
    let arrangement = arranged(&[main_first(Family::V4)], &managers, None).unwrap();
    let unit = arrangement.files.iter().find(|file| file.path.ends_with(UNIT)).unwrap();
    for line in
        ["PartOf=systemd-networkd.service", "RemainAfterExit=yes", "ExecStart=/bin/sh /etc/vpnfix/persisted-rules"]
    {
        assert!(unit.text.lines().any(|own| own == line), "{}", unit.text);
    }
    assert!(!unit.text.contains("ExecStop"), "rules that go for a moment let traffic out in the clear");
    assert_eq!(arrangement.commands[0].argv, ["systemctl", "daemon-reload"]);
    assert!(arranged(&[main_first(Family::V4)], &Managers::default(), None).is_err(), "nobody is there to keep them");
}

#[test]
fn a_rule_that_is_not_ours_to_word_is_refused() {
    let file = "/etc/systemd/network/10-ens5.network";
    for odd in [
        Rule { invert: true, ..to("10.0.0.0/8", 100) },
        Rule { unknown_attributes: vec![99], ..to("10.0.0.0/8", 100) },
        Rule { action: RuleAction::Nop, ..to("10.0.0.0/8", 100) },
    ] {
        let arranged = arranged(&[odd], &networkd(Some(256), file), None);
        assert!(matches!(arranged, Err(PersistError::Inexpressible { .. })), "{arranged:?}");
    }
}

#[test]
fn foreign_rules_are_kept_on_request_only() {
    let file = "/etc/systemd/network/10-ens5.network";
    let wish = Wish { keep_foreign: true, ..WISH };
    let kept = arrange(&[to("10.0.0.0/8", 1)], &networkd(Some(252), file), &["ens5".into()], wish).unwrap();
    assert!(kept.files[1].text.ends_with("[Network]\nManageForeignRoutingPolicyRules=no\n"), "{}", kept.files[1].text);
    assert!(arrange(&[to("10.0.0.0/8", 1)], &networkd(Some(248), file), &["ens5".into()], wish).is_err());
    assert!(arrange(&[to("10.0.0.0/8", 1)], &network_manager("/etc/a"), &["ens5".into()], wish).is_err());
}

#[test]
fn the_last_setting_of_foreign_rules_holds() {
    let kept = |texts: &[&str]| foreign_rules_kept(texts.iter().copied());
    assert!(!kept(&[]) && !kept(&["[Network]\n#ManageForeignRoutingPolicyRules=no\n"]));
    assert!(kept(&["[Network]\nManageForeignRoutingPolicyRules = no\n"]));
    assert!(!kept(&["[DHCPv4]\nManageForeignRoutingPolicyRules=no\n"]), "another section");
    assert!(!kept(&[
        "[Network]\nManageForeignRoutingPolicyRules=no\n",
        "[Network]\nManageForeignRoutingPolicyRules=yes\n"
    ]));
    assert!(kept(&[
        "[Network]\nManageForeignRoutingPolicyRules=no\n",
        "[Network]\nManageForeignRoutingPolicyRules=perhaps\n"
    ]));
}

#[test]
fn what_a_manager_made_after_a_reboot_is_kept_on() {
    let arrangement =
        arranged(&[to("10.1.0.0/16", 219), to("10.2.0.0/16", 219)], &network_manager("/etc/a"), None).unwrap();
    let before = Kept::read(&Kept::of(&arrangement).text().unwrap()).unwrap();
    assert_eq!(before, Kept::of(&arrangement));
    let made = Rule { protocol: 4, ..to("10.1.0.0/16", 219) };
    let running = [made, to("10.3.0.0/16", 219)];
    let keep = to_keep(&running, Some(&before));
    assert_eq!(
        keep.iter().map(|rule| rule.to.unwrap().to_string()).collect::<Vec<_>>(),
        ["10.1.0.0/16", "10.3.0.0/16"]
    );
    assert_eq!(to_keep(&running, None).len(), 1, "a rule of others is not ours to keep");
}

#[test]
fn a_record_of_another_form_is_an_error() {
    for bad in ["", "{}", "[]", r#"{"form":"vpnfix.kept/2"}"#, r#"{"form":"vpnfix.kept/1","backend":"cron"}"#] {
        assert!(Kept::read(bad).is_err(), "{bad}");
    }
}

#[test]
fn somebody_s_own_cure_is_told() {
    let belongs = ["169.254.55.52/30".parse().unwrap()];
    let theirs = Rule { protocol: 0, ..to("169.254.55.52/30", 100) };
    let other = Rule { protocol: 0, ..to("192.0.2.0/24", 101) };
    let running = [theirs.clone(), other, to("169.254.55.52/30", 99), Rule::lookup(Family::V4, 32766, TABLE_MAIN)];
    assert_eq!(foreign(&running, &[], &belongs), [&theirs]);
    assert!(foreign(&running, std::slice::from_ref(&theirs), &belongs).is_empty(), "a manager's, made for us");
}

#[test]
fn differences_are_notes() {
    let file = "/etc/systemd/network/10-ens5.network";
    let managers = networkd(Some(252), file);
    let ids = |kept: Option<&Kept>, running: &[Rule], files: &[(PathBuf, Standing)]| {
        notes(&compare(kept, running, files, &managers)).iter().map(|note| note.id).collect::<Vec<_>>()
    };
    let rule = to("10.1.0.0/16", 219);
    assert_eq!(ids(None, std::slice::from_ref(&rule), &[]), [NoteId::NotPersisted, NoteId::DroppedByNetworkd]);
    assert_eq!(ids(None, &[Rule::lookup(Family::V4, 220, 220)], &[]), []);
    let kept = Kept::of(&arranged(std::slice::from_ref(&rule), &managers, None).unwrap());
    assert_eq!(ids(Some(&kept), std::slice::from_ref(&rule), &[]), [], "systemd-networkd makes it again");
    let made = Rule { protocol: 4, ..rule };
    assert_eq!(ids(Some(&kept), &[made], &[]), []);
    assert_eq!(ids(Some(&kept), &[], &[]), [NoteId::PersistedDiffers]);
    let changed = [("/etc/a".into(), Standing::Changed), ("/etc/b".into(), Standing::AsWritten)];
    assert_eq!(ids(None, &[], &changed), [NoteId::PersistedDiffers]);
    let unit = Kept::of(&arranged(&[to("10.1.0.0/16", 219)], &managers, Some(Backend::Systemd)).unwrap());
    assert_eq!(ids(Some(&unit), &[to("10.1.0.0/16", 219)], &[]), [NoteId::DroppedByNetworkd]);
}

#[test]
fn a_command_is_told_as_one_would_type_it() {
    let invocation = Invocation::new(&["nmcli", "it's"], "");
    assert_eq!(invocation.words(), r"nmcli 'it'\''s'");
}
