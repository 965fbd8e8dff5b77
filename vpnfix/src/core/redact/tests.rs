use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::address::public_in;
use super::*;

fn files(values: &[Value]) -> Files {
    values.iter().enumerate().map(|(index, value)| (format!("{index}.json"), value.to_string().into_bytes())).collect()
}

fn redacted(value: Value) -> (Value, Redactor) {
    let files = files(std::slice::from_ref(&value));
    let mut redactor = Redactor::new(&files, "gw7.corp.example.com", [7; 16]).unwrap();
    (redactor.value(value), redactor)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn public_addresses_go_and_others_stay() {
    let (out, _) = redacted(json!([
        "from 52.1.2.3 to 52.1.2.4:4500 dev ens5",
        "10.0.0.1 169.254.55.53 192.168.12.49/24 203.0.113.9 100.64.0.1 0.0.0.0/0 default",
        "2600:1f18::5 fd00::1 fe80::1 2001:db8::1 ::/0",
        "52.1.2.3",
        "hijacked-by-rule:vti1:52.1.2.0/24 peer-52.1.2.3 hijacked:vti1:2600:1f18::/48 x/52.1.2.3/y 2600:1f18::5%eth0 52.1.2.3:",
    ]));
    assert_eq!(out[1], "10.0.0.1 169.254.55.53 192.168.12.49/24 203.0.113.9 100.64.0.1 0.0.0.0/0 default");
    assert!(public_in(&out.to_string()).is_empty(), "{out}");
    assert!(text(&out[0]).contains(&format!("from {} to ", text(&out[3]))), "{out}");
    assert!(text(&out[0]).contains(":4500 dev ens5"), "{out}");
    assert!(text(&out[2]).ends_with("fd00::1 fe80::1 2001:db8::1 ::/0"), "{out}");
}

#[test]
fn names_and_accounts_go() {
    let (out, redactor) = redacted(json!({
        "gw7": "gw7.corp.example.com gw7 vpn.acme.com admin@acme.com vpn-0123456789abcdef0 123456789012 ip-10-0-0-1",
        "stays": "strongswan.conf net.ipv4.ip_forward vpnfix.trace/1 charon.install_routes 220 ens5 table.rs i-am",
        "number": 123_456_789_012_u64,
        "mac": "12:34:56:78:9a:bc dev eth0",
    }));
    let text = out.to_string();
    for gone in ["gw7", "acme", "admin", "0123456789abcdef0", "12:34:56", "ip-10"] {
        assert!(!text.contains(gone), "{gone} in {text}");
    }
    assert_eq!(
        out["stays"],
        "strongswan.conf net.ipv4.ip_forward vpnfix.trace/1 charon.install_routes 220 ens5 table.rs i-am"
    );
    assert_eq!(out["number"], 123_456_789_012_u64);
    assert!(redactor.mapping().contains_key("vpn.acme.com"));
}

#[test]
fn what_is_no_json_is_left_out() {
    let mut files = files(&[json!("8.8.8.8")]);
    files.insert("recording.vpnfix".into(), b"raw".to_vec());
    files.insert("trace.jsonl".into(), b"{\"a\":\"8.8.8.8\"}\n{\"a\":1}\n".to_vec());
    let mut redactor = Redactor::new(&files, "h", [1; 16]).unwrap();
    let out = redactor.files(&files);
    assert_eq!(out.keys().collect::<Vec<_>>(), ["0.json", "trace.jsonl"]);
    assert!(out.values().all(|contents| public_in(&String::from_utf8_lossy(contents)).is_empty()));
}

/// An address, mostly public, with a length.
fn prefix() -> impl Strategy<Value = IpNet> {
    let v4 = (prop::sample::select(vec![3_u8, 52, 54]), 0..4_u8, 0..4_u8, any::<u8>(), 8..=32_u8)
        .prop_map(|(a, b, c, d, length)| IpNet::new(IpAddr::from([a, b, c, d]), length).unwrap());
    let v6 = (0..3_u16, 0..3_u16, any::<u16>(), 32..=128_u8)
        .prop_map(|(a, b, c, length)| IpNet::new(IpAddr::from([0x2600, a, b, 0, 0, 0, 0, c]), length).unwrap());
    prop_oneof![3 => v4, 1 => v6]
}

proptest! {
    #[test]
    fn lengths_and_containment_are_kept_and_nothing_public_is_left(prefixes in prop::collection::vec(prefix(), 1..12)) {
        let networks: Vec<IpNet> = prefixes.iter().map(IpNet::trunc).collect();
        let words: Vec<String> = networks.iter().map(ToString::to_string).collect();
        let (out, _) = redacted(json!(words));
        prop_assert!(public_in(&out.to_string()).is_empty(), "{out}");
        let out: Vec<IpNet> = out.as_array().unwrap().iter().map(|word| text(word).parse().unwrap()).collect();
        for (a, to_a) in networks.iter().zip(&out) {
            prop_assert_eq!(a.prefix_len(), to_a.prefix_len());
            for (b, to_b) in networks.iter().zip(&out) {
                prop_assert_eq!(a == b, to_a == to_b);
                prop_assert_eq!(a.contains(b), to_a.contains(to_b), "{} {} {} {}", a, b, to_a, to_b);
            }
        }
    }
}
