//! Configurations that are broken, endless or hide secrets.

use proptest::prelude::*;

use super::*;

#[test]
fn what_goes_in_circles_comes_to_an_end() {
    // A file that includes itself: the daemon would open it until it has no more files.
    let configuration = read(&[
        ("/etc/strongswan.conf", "charon { install_routes = no }\ninclude a.conf\n"),
        ("/etc/a.conf", "include b.conf\n"),
        ("/etc/b.conf", "include a.conf\ninclude strongswan.conf\n"),
    ]);
    let kinds: Vec<&ProblemKind> = configuration.problems.iter().map(|problem| &problem.kind).collect();
    assert_eq!(kinds, [&ProblemKind::IncludesItself, &ProblemKind::IncludesItself]);
    assert!(!configuration.settings(Daemon::Charon).install_routes.value);
    assert!(!configuration.is_complete());
    // Two files that both include a third twice, and so on, would be read 2^40 times.
    let names: Vec<String> = (0..40).map(|index| format!("/etc/{index}.conf")).collect();
    let texts: Vec<String> = (1..=40).map(|index| format!("include {index}.conf\ninclude {index}.conf\n")).collect();
    let mut files: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(texts.iter().map(String::as_str)).collect();
    files.push(("/etc/strongswan.conf", "include 0.conf\n"));
    let configuration = read(&files);
    assert!(configuration.problems.iter().any(|problem| problem.kind == ProblemKind::TooManyFiles));
    // 5.9.8 crashes with this one.
    let configuration = read(&[("/etc/strongswan.conf", "charon : A.b { }\nA : A.b { }\n")]);
    assert_eq!(configuration.problems.len(), 1);
    assert_eq!(configuration.problems[0].kind, ProblemKind::TangledReferences);
    assert_eq!(configuration.settings(Daemon::Charon), Settings::defaults(Daemon::Charon));
}

#[test]
fn an_unreadable_file_is_told_and_the_rest_is_read() {
    let mut files = |pattern: &str| match pattern {
        "/etc/strongswan.conf" => {
            let text = Ok("include x.conf\ncharon { install_routes = no }".into());
            vec![File { path: pattern.into(), text, modified: None }]
        }
        _ => vec![File { path: pattern.into(), text: Err("permission denied".into()), modified: None }],
    };
    let configuration = Configuration::read(&["/etc/strongswan.conf"], &mut files);
    assert_eq!(configuration.problems[0].to_string(), "/etc/x.conf: cannot be read: permission denied");
    assert!(!configuration.settings(Daemon::Charon).install_routes.value);
    assert!(!configuration.is_complete());
}

#[test]
fn nothing_but_the_named_settings_is_kept() {
    let text = "charon { plugins { eap-radius { secret = hunter2\n servers { a { secret = \"hunter2\" } } } }\n\
        install_routes = hunter2\n fwmark = hunter2\n }\nsecrets { ike { secret = hunter2 } }\n";
    let configuration = read(&[("/etc/strongswan.conf", text)]);
    assert_eq!(configuration.problems.len(), 1);
    assert!(!format!("{configuration:?}").contains("hunter2"));
    assert!(!serde_json::to_string(&configuration).unwrap().contains("hunter2"));
    let broken = read(&[("/etc/strongswan.conf", "charon { secret = hunter2 \"hunter2")]);
    assert!(broken.refused().is_some());
    assert!(!format!("{broken:?}").contains("hunter2"));
}

#[test]
fn a_megabyte_of_anything_is_read_in_time() {
    for piece in ["a{", "a{}", "}", "\"", "\\", "a=b\n", "include a\n", "a:b,c{}", "\u{fffd}#", "::", "a : a {", "é"] {
        let text = piece.repeat(1024 * 1024 / piece.len());
        let configuration = read(&[("/etc/strongswan.conf", &text)]);
        assert_eq!(configuration.settings(Daemon::Charon), Settings::defaults(Daemon::Charon), "{piece}");
    }
    let deep = format!("{}install_routes = no{}", "charon {".repeat(65), "}".repeat(65));
    assert_eq!(refused(&deep), Some((1, SyntaxError::TooDeep)));
}

proptest! {
    /// Any bytes, and any arrangement of the grammar's own pieces, are read without a panic; what is refused sets
    /// nothing.
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let configuration = read(&[("/etc/strongswan.conf", &text), ("/etc/a", &text)]);
        prop_assert!(configuration.refused().is_none() || configuration.settings.is_empty());
    }

    #[test]
    fn no_arrangement_of_its_words_makes_it_panic(pieces in prop::collection::vec(prop::sample::select(vec![
        "charon", "plugins", "kernel-netlink", "install_routes", "fwmark", " ", "\n", "{", "}", "=", ":", ",", ".",
        "\"", "\\", "#", "no", "include ", "a", "*", "!1/2", "::", "\r", "é",
    ]), 0..200)) {
        let text = pieces.concat();
        let configuration = read(&[("/etc/strongswan.conf", &text), ("/etc/a", &text)]);
        prop_assert!(configuration.refused().is_none() || configuration.settings.is_empty());
    }
}
