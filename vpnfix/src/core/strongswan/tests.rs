//! Configurations as distributions ship them and as people write them. What is expected of each was seen of
//! libstrongswan 5.9.8 itself, by `settings_create` and `get_str`, unless a test says otherwise.

use super::*;

mod cure;
mod hostile;

/// Files by their paths; a pattern may end in `*.conf`.
fn read(files: &[(&str, &str)]) -> Configuration {
    let mut find = |pattern: &str| {
        let fits = |path: &str| match pattern.split_once('*') {
            Some((begin, end)) => {
                let rest = path.strip_prefix(begin).and_then(|rest| rest.strip_suffix(end));
                rest.is_some_and(|name| !name.contains('/'))
            }
            None => path == pattern,
        };
        let mut found: Vec<File> = files
            .iter()
            .filter(|(path, _)| fits(path))
            .map(|(path, text)| File { path: (*path).into(), text: Ok((*text).into()), modified: Some(1_700_000_000) })
            .collect();
        found.sort_by(|one, other| one.path.cmp(&other.path));
        found
    };
    Configuration::read(&["/etc/strongswan.conf", "/etc/strongswan/strongswan.conf"], &mut find)
}

/// What charon makes of one file: where `install_routes` was set and to what, and the mark.
fn charon(text: &str) -> (Option<bool>, Option<RuleMark>) {
    let settings = read(&[("/etc/strongswan.conf", text)]).settings(Daemon::Charon);
    (settings.install_routes.place.map(|_| settings.install_routes.value), settings.fwmark.value)
}

fn refused(text: &str) -> Option<(u32, SyntaxError)> {
    let configuration = read(&[("/etc/strongswan.conf", text)]);
    let problem = configuration.refused()?;
    match problem.kind {
        ProblemKind::Syntax(error) => Some((problem.line?, error)),
        _ => None,
    }
}

const NO: (Option<bool>, Option<RuleMark>) = (Some(false), None);
const UNSET: (Option<bool>, Option<RuleMark>) = (None, None);

fn mark(value: u32) -> Option<RuleMark> {
    Some(RuleMark { invert: false, mark: Mark { value, mask: u32::MAX } })
}

/// Debian's `/etc/strongswan.conf`, as its package has it.
const DEBIAN: &str = "\
# strongswan.conf - strongSwan configuration file
#
# Refer to the strongswan.conf(5) manpage for details
#
# Configuration changes should be made in the included files

charon {
	load_modular = yes
	plugins {
		include strongswan.d/charon/*.conf
	}
}

include strongswan.d/*.conf
";
/// A part of Debian's `strongswan.d/charon.conf`: all is commented out.
const CHARON: &str = "\
# Options for the charon IKE daemon.
charon {

    # Install routes into a separate routing table for established IPsec
    # tunnels.
    # install_routes = yes

    crypto_test {

        # Benchmark crypto algorithms and order them by efficiency.
        # bench = no

    }

    # Numerical routing table to install routes to.
    # routing_table =
}
";
/// A part of Debian's `strongswan.d/charon/kernel-netlink.conf`.
const NETLINK: &str = "\
kernel-netlink {

    # fwmark =

    load = yes

    spdh_thresh {

        ipv4 {

            # lbits = 32
        }
    }
}
";

#[test]
fn what_debian_ships_sets_nothing() {
    let configuration = read(&[
        ("/etc/strongswan.conf", DEBIAN),
        ("/etc/strongswan.d/charon.conf", CHARON),
        ("/etc/strongswan.d/charon/kernel-netlink.conf", NETLINK),
    ]);
    assert_eq!(configuration.problems, []);
    assert_eq!(configuration.settings(Daemon::Charon), Settings::defaults(Daemon::Charon));
    let files =
        ["/etc/strongswan.conf", "/etc/strongswan.d/charon/kernel-netlink.conf", "/etc/strongswan.d/charon.conf"];
    assert_eq!(configuration.files, files);
    assert!(configuration.is_complete());
}

#[test]
fn a_setting_is_found_with_its_file_and_line() {
    let configuration = read(&[
        ("/etc/strongswan.conf", DEBIAN),
        ("/etc/strongswan.d/charon.conf", &CHARON.replace("# install_routes = yes", "install_routes = no")),
        ("/etc/strongswan.d/charon/kernel-netlink.conf", &NETLINK.replace("# fwmark =", "fwmark = !0x1/0xff")),
    ]);
    for daemon in [Daemon::Charon, Daemon::CharonSystemd] {
        let settings = configuration.settings(daemon);
        let place = settings.install_routes.place.unwrap();
        assert!(!settings.install_routes.value);
        assert_eq!(place.to_string(), "/etc/strongswan.d/charon.conf:6");
        assert_eq!(place.modified, Some(1_700_000_000));
        let expected = RuleMark { invert: true, mark: Mark { value: 1, mask: 0xff } };
        assert_eq!(settings.fwmark.value, Some(expected));
        assert_eq!(settings.fwmark.place.unwrap().to_string(), "/etc/strongswan.d/charon/kernel-netlink.conf:3");
    }
    // charon-nm and charon-cmd take nothing from section charon.
    for daemon in [Daemon::CharonNm, Daemon::CharonCmd] {
        assert_eq!(configuration.settings(daemon), Settings::defaults(daemon));
    }
}

#[test]
fn redhats_place_is_the_second() {
    let text = "charon { routing_table = 0 }";
    let redhat = read(&[("/etc/strongswan/strongswan.conf", text)]);
    assert_eq!(redhat.settings(Daemon::Charon).routing_table.value, 0);
    assert_eq!(
        read(&[("/etc/strongswan.conf", ""), ("/etc/strongswan/strongswan.conf", text)]).files,
        ["/etc/strongswan.conf"]
    );
    assert!(!read(&[]).is_complete());
    assert_eq!(read(&[]).settings(Daemon::CharonNm), Settings::defaults(Daemon::CharonNm));
}

#[test]
fn settings_are_read_however_they_are_written() {
    let same = [
        "charon { install_routes = no }",
        "charon\n{\n install_routes = no#c\n}\n",
        "charon{install_routes=no}charon{plugins{}}",
        "charon { install_routes = \"no\" }",
        "charon { install_routes = \"n\\o\" }",
        "charon { include = no\n install_routes = no }",
        "# c { \n charon { # {\n install_routes = no } # }\n",
        "charon { install_routes = no\r\n }\r\n",
        "charon { a = b = c\n install_routes = no}",
        "include \n charon { install_routes = no }",
        "charon { # a\r{ \n install_routes = no }",
        "charon { install_routes = no } # a\r b = c",
        "charon { install_routes = no # \"quoted\n }",
        "charon { install_routes = yes\n}\ncharon { install_routes = no }",
        "charon { x { install_routes = yes } install_routes = no }",
        "charon { install_routes = NO }",
        "charon { install_routes = 0 }",
        "charon { install_routes = disabled }",
        "charon { install_routes = \"fa\\\nlse\" }",
    ];
    for text in same {
        assert_eq!(charon(text), NO, "{text}");
        assert_eq!(refused(text), None, "{text}");
    }
    for text in ["1", "yes", "True", "ENABLED"] {
        assert_eq!(charon(&format!("charon {{ install_routes = {text} }}")).0, Some(true), "{text}");
    }
    // Emptied: the default holds.
    assert_eq!(charon("charon { install_routes = no }\ncharon { install_routes = \n}"), UNSET);
    assert_eq!(charon("charon { plugins { install_routes = no } }"), UNSET);
    assert_eq!(charon("install_routes = no"), UNSET);
}

#[test]
fn what_the_daemon_takes_for_no_value_is_told() {
    for text in ["off", "on", "no no", "a  b \"c  d\"", "no;x=y", "no,yes"] {
        let configuration = read(&[("/etc/strongswan.conf", &format!("charon {{\n install_routes = {text}\n}}"))]);
        assert_eq!(configuration.settings(Daemon::Charon).install_routes, Setting::default_value(true), "{text}");
        let expected = "/etc/strongswan.conf:2: the value of install_routes is none that the daemon takes";
        assert_eq!(configuration.problems.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
        assert!(configuration.is_complete());
    }
}

#[test]
fn numbers_are_decimal_or_hexadecimal_and_marks_are_cs() {
    let table = |text: &str| {
        let text = format!("charon {{ routing_table = {text} }}");
        read(&[("/etc/strongswan.conf", &text)]).settings(Daemon::Charon).routing_table.value
    };
    assert_eq!(
        [table("221"), table("0x10"), table("010"), table("220x"), table("+5"), table("-1")],
        [221, 16, 10, 220, 220, 220]
    );
    let fwmark = |text: &str| charon(&format!("charon {{ plugins {{ kernel-netlink {{ fwmark = {text} }} }} }}")).1;
    assert_eq!(fwmark("42"), mark(42));
    assert_eq!(fwmark("0x2a"), mark(42));
    assert_eq!(fwmark("052"), mark(42));
    assert_eq!(fwmark("0"), mark(0));
    assert_eq!(fwmark("0x1ff/0xff"), Some(RuleMark { invert: false, mark: Mark { value: 0xff, mask: 0xff } }));
    assert_eq!(fwmark("!210"), Some(RuleMark { invert: true, mark: Mark { value: 210, mask: u32::MAX } }));
    assert_eq!([fwmark("a:b"), fwmark("!"), fwmark("1/"), fwmark("%unique")], [None; 4]);
}

#[test]
fn what_the_daemon_refuses_is_refused_as_a_whole() {
    use SyntaxError::{UnexpectedName, UnexpectedSign, UnexpectedText, UnterminatedSection, UnterminatedText};
    let cases = [
        ("charon { install_routes = no", (1, UnterminatedSection)),
        ("charon { install_routes = no\n} }", (2, UnexpectedSign)),
        ("charon { \"install_routes\" = no }", (1, UnexpectedText)),
        ("charon { install_routes no }", (1, UnexpectedName)),
        ("charon { { } }", (1, UnexpectedSign)),
        ("charon { install_routes = {no} }", (1, UnexpectedSign)),
        ("charon { install_routes = \"no }", (1, UnterminatedText)),
        ("charon { install_routes = \\\"no\\\" }", (1, UnterminatedText)),
        ("charon : o1 o2 { }\n", (1, UnexpectedName)),
        ("charon : include a\n { }", (1, UnexpectedName)),
        ("charon : { install_routes = no }", (1, UnexpectedSign)),
        ("charon : o1, { install_routes = no }", (1, UnexpectedSign)),
        ("a : charon\n charon { install_routes = no }", (2, UnexpectedName)),
        ("include\n charon { install_routes = no }", (1, UnexpectedName)),
        ("charon { install_routes = \\\n no }", (2, UnexpectedSign)),
    ];
    for (text, expected) in cases {
        assert_eq!(refused(text), Some(expected), "{text}");
        assert_eq!(charon(text), UNSET, "{text}");
    }
}

/// 5.9.8 refuses such a file; other versions take the dot as a part of the name (`settings_lexer.l` before 5.7; the
/// manual page of later ones). None finds a setting by it.
#[test]
fn a_name_with_dots_sets_nothing_and_is_told() {
    let configuration =
        read(&[("/etc/strongswan.conf", "charon.install_routes = no\n/var/log/charon.log { default = 1 }\n")]);
    assert_eq!(configuration.settings(Daemon::Charon), Settings::defaults(Daemon::Charon));
    let expected = Problem { file: "/etc/strongswan.conf".into(), line: Some(1), kind: ProblemKind::DottedName };
    assert_eq!(configuration.problems, [expected]);
    assert_eq!(charon("charon { C::/x { } install_routes = no }"), NO);
}

#[test]
fn includes_stand_where_they_are_written() {
    let with = |entry: &str, files: &[(&str, &str)]| {
        let mut all = vec![("/etc/strongswan.conf", entry)];
        all.extend(files);
        let configuration = read(&all);
        assert_eq!(configuration.refused(), None, "{entry}");
        configuration.settings(Daemon::Charon).install_routes.place.map(|place| place.to_string())
    };
    let one = &[("/etc/inc/1.conf", "install_routes = no\n")];
    assert_eq!(with("charon { include inc/1.conf }\n", one).as_deref(), Some("/etc/inc/1.conf:1"));
    assert_eq!(with("charon { include \"inc/1.conf\" }\n", one).as_deref(), Some("/etc/inc/1.conf:1"));
    assert_eq!(with("charon { include /etc/inc/1.conf }\n", one).as_deref(), Some("/etc/inc/1.conf:1"));
    assert_eq!(with("charon { include inc/no.conf\n}\n", one), None);
    // A file may end the section that it is included in.
    let open = &[("/etc/inc/2.conf", "install_routes = no }\n")];
    assert_eq!(with("charon { \n include inc/2.conf \n", open).as_deref(), Some("/etc/inc/2.conf:1"));
    // The last one wins: by the order of names among files, by place among the rest.
    let two = &[
        ("/etc/inc/3.conf", "charon { install_routes = yes }\n"),
        ("/etc/inc/10.conf", "charon { install_routes = yes }\n"),
    ];
    let entry = "include inc/*.conf\n charon { install_routes = no }";
    assert_eq!(with(entry, two).as_deref(), Some("/etc/strongswan.conf:2"));
    let entry = "charon { install_routes = no }\n include inc/*.conf";
    assert_eq!(with(entry, two).as_deref(), Some("/etc/inc/3.conf:1"));
    let entry = "charon { install_routes = no } include inc/10.conf charon { plugins { } }";
    assert_eq!(with(entry, two).as_deref(), Some("/etc/inc/10.conf:1"));
    // Relative to the file that includes, not to the first one.
    let nested = &[("/etc/inc/a.conf", "include b.conf"), ("/etc/inc/b.conf", "charon { install_routes = no }")];
    assert_eq!(with("include inc/a.conf", nested).as_deref(), Some("/etc/inc/b.conf:1"));
}

#[test]
fn referenced_sections_are_inherited_from_left_to_right() {
    let whole = "{ install_routes = no\n plugins { kernel-netlink { fwmark=5 } } }";
    assert_eq!(charon(&format!("charon : other {{ }}\nother {whole}")), (Some(false), mark(5)));
    assert_eq!(
        charon(&format!("charon : o1, o2 {{ }}\no2 {whole}\no1 {{ install_routes = yes }}")),
        (Some(true), mark(5))
    );
    // An empty value hides what is inherited.
    let text = format!("charon : a.b {{ install_routes = \n }}\na {{ b {whole} }}");
    assert_eq!(charon(&text), (None, mark(5)));
    assert_eq!(charon("charon : a { }\na : charon { install_routes = no }\n"), NO);
    assert_eq!(charon("charon : charon { }\n"), UNSET);
    let text =
        "charon { plugins { kernel-netlink { fwmark = 1 } }\n plugins : p { } }\np { kernel-netlink { fwmark = 2\n } }";
    assert_eq!(charon(text).1, mark(1));
    let text = "charon { plugins { kernel-netlink : kn { } } }\nkn : kk { }\nkk { fwmark = 3 }";
    assert_eq!(charon(text).1, mark(3));
}

#[test]
fn each_daemon_reads_its_own_section_and_its_fallbacks() {
    let text = "libstrongswan { routing_table = 0x10 }\ncharon { install_routes = no\n routing_table_prio = 010 }\n\
        charon-systemd { install_routes = yes }\ncharon-nm { routing_table = 211 }\n";
    let configuration = read(&[("/etc/strongswan.conf", text)]);
    let of = |daemon| {
        let settings = configuration.settings(daemon);
        (settings.install_routes.value, settings.routing_table.value, settings.routing_table_prio.value)
    };
    assert_eq!(of(Daemon::Charon), (false, 16, 10));
    assert_eq!(of(Daemon::CharonSystemd), (true, 16, 10));
    assert_eq!(of(Daemon::CharonNm), (true, 211, 210));
    assert_eq!(of(Daemon::CharonCmd), (true, 16, 220));
}
