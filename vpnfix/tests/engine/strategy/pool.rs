//! The addresses that the cases are made of. They fit those of `scene`.

use vpnfix::core::model::Family;

/// The addresses of one family.
#[derive(Clone, Copy)]
pub(super) struct Pool {
    pub(super) family: Family,
    pub(super) prefixes: &'static [&'static str],
    /// Those of them that hold none of the gateways.
    pub(super) without_gateways: &'static [&'static str],
    /// Destinations.
    pub(super) to: &'static [&'static str],
    /// The namespace's own addresses.
    pub(super) own: &'static [&'static str],
    /// Others' addresses.
    pub(super) foreign: &'static [&'static str],
    /// What rules compare the source with.
    pub(super) from: &'static [&'static str],
    /// A gateway for each of `d0` to `d3`.
    pub(super) gateways: [&'static str; 4],
    /// Rules' types of service.
    pub(super) tos: &'static [u8],
}

pub(super) const V4: Pool = Pool {
    family: Family::V4,
    prefixes: &[
        "0.0.0.0/0",
        "0.0.0.0/0",
        "0.0.0.0/0",
        "0.0.0.0/1",
        "10.0.0.0/8",
        "10.0.0.0/16",
        "10.0.0.0/24",
        "10.1.0.0/16",
        "10.1.0.0/24",
        "10.1.0.128/25",
        "10.1.0.129/32",
        "10.0.0.7/32",
        "172.16.0.0/12",
        "192.0.2.0/24",
    ],
    without_gateways: &["10.0.0.7/32", "10.1.0.128/25", "10.1.0.129/32", "192.0.2.0/24"],
    to: &[
        "10.0.0.1",
        "10.0.0.7",
        "10.0.0.7",
        "10.0.0.255",
        "10.0.1.9",
        "10.1.0.1",
        "10.1.0.5",
        "10.1.0.129",
        "10.1.0.129",
        "10.200.0.1",
        "172.20.0.9",
        "192.0.2.1",
        "192.0.2.77",
        "203.0.113.9",
        "8.8.8.8",
        "8.8.8.8",
    ],
    own: &["10.0.0.1", "10.0.1.1", "10.1.0.1", "192.0.2.1"],
    foreign: &["10.9.0.5", "10.0.0.77", "8.8.4.4"],
    from: &["10.0.0.0/24", "10.0.0.1", "10.0.0.0/8", "10.9.0.0/16", "10.1.0.1", "0.0.0.0/8", "192.0.2.1"],
    gateways: ["10.0.0.2", "10.0.1.2", "10.1.0.2", "172.16.0.2"],
    tos: &[0x10, 0x08, 0x04, 0x18],
};

pub(super) const V6: Pool = Pool {
    family: Family::V6,
    prefixes: &[
        "::/0",
        "::/0",
        "::/0",
        "fc00::/7",
        "fd00::/16",
        "fd00::/32",
        "fd00::/64",
        "fd00:1::/32",
        "fd00:1::/64",
        "fd00:1::8000/113",
        "fd00:1::8001/128",
        "fd00::7/128",
        "2001:db8::/32",
    ],
    without_gateways: &["fd00::7/128", "fd00:1::8000/113", "fd00:1::8001/128", "2001:db8::/32"],
    to: &[
        "fd00::1",
        "fd00::7",
        "fd00::7",
        "fd00:0:0:1::9",
        "fd00:1::1",
        "fd00:1::5",
        "fd00:1::8001",
        "fd00:1::8001",
        "fd00:200::1",
        "2001:db8::1",
        "2001:db8::77",
        "2001:4860::8",
        "2001:4860::8",
        "fe80::9",
    ],
    own: &["fd00::1", "fd00:0:0:1::1", "fd00:1::1", "2001:db8::1"],
    foreign: &["fd09::5", "fd00::77", "2001:4860::4"],
    from: &["fd00::/64", "fd00::1/128", "fd00::/16", "fd09::/16", "fd00:1::1/128", "::/96", "2001:db8::1/128"],
    gateways: ["fd00::2", "fd00:0:0:1::2", "fd00:1::2", "fd00:2::2"],
    tos: &[0x10, 0x08, 0xb8],
};
