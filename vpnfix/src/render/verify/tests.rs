//! The check list of a healthy VPN and of the incident's, as text and as a document, beside what was approved of.

use std::path::Path;

use super::*;
use crate::core::verify::tests::vpn::Vpn;
use crate::render::document;

/// Compares with an approved file; `VPNFIX_BLESS=1` approves of what is told now.
#[track_caller]
fn approved(name: &str, told: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verify").join(name);
    if std::env::var_os("VPNFIX_BLESS").is_some() {
        std::fs::write(&path, told).expect("it can be written");
    }
    let expected = std::fs::read_to_string(&path).expect("it can be read");
    assert_eq!(told, expected, "{name}: VPNFIX_BLESS=1 approves of the change");
}

fn vpns() -> [(&'static str, Vpn); 2] {
    let mut incident = Vpn::healthy();
    incident.hijack();
    [("healthy", Vpn::healthy()), ("incident", incident)]
}

#[test]
fn text_and_document_are_as_approved() {
    for (name, vpn) in vpns() {
        let report = vpn.report();
        approved(&format!("{name}.txt"), &text(&report, Palette::new(false)));
        approved(&format!("{name}.json"), &document(&report).expect("JSON"));
    }
}

#[test]
fn lines_fit_the_screen_and_colours_take_no_room() {
    for (_, vpn) in vpns() {
        let report = vpn.report();
        let plain = text(&report, Palette::new(false));
        for line in plain.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        let colored = without_escapes(&text(&report, Palette::new(true)));
        assert_eq!(colored, plain);
    }
}

/// Without escape sequences.
fn without_escapes(text: &str) -> String {
    let mut rest = text;
    let mut plain = String::new();
    while let Some((before, behind)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = behind.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain + rest
}
