//! The daemons' configurations and their starts.

use std::fmt::Write as _;

use super::{Bgp, Ike, OUTSIDE, PEER1, PEER2, Tunnels, Vpn};
use crate::wait;

/// The gateway's public address, which the router translates.
const PUBLIC: &str = "198.51.100.49";
/// Enough for the VPN; all of Debian's plugins take an emulated machine half a minute to load.
const PLUGINS: &str = "random nonce aes sha1 sha2 hmac kdf gmp kernel-netlink socket-default stroke vici updown";

impl Vpn {
    pub(super) fn start_daemons(&self) {
        self.write("gw", "/etc/strongswan.d/zz-scene.conf", &strongswan(true));
        self.write("aws", "/etc/strongswan.d/zz-scene.conf", &strongswan(false));
        self.write("aws", "/etc/frr/bgpd.conf", &self.bgpd_far());
        match self.made.bgp {
            Bgp::Frr => self.write("gw", "/etc/frr/bgpd.conf", &self.bgpd_near()),
            Bgp::Bird => self.write("gw", "/etc/bird/bird.conf", BIRD),
        }
        self.secrets_files();
        self.write("aws", "/etc/ipsec.conf", &self.ipsec_conf(false));
        match self.made.ike {
            Ike::Legacy => self.write("gw", "/etc/ipsec.conf", &self.ipsec_conf(true)),
            Ike::Swanctl => self.write("gw", "/etc/swanctl/swanctl.conf", &self.swanctl_conf()),
        }
        self.script("aws", &format!("{FRR} ipsec start 2>&1"));
        self.script("gw", if self.made.bgp == Bgp::Frr { FRR } else { "mkdir /run/bird; bird -c /etc/bird/bird.conf" });
        self.start_ike();
    }

    /// Starts the gateway's strongSwan, and has it load its connections.
    pub fn start_ike(&self) {
        match self.made.ike {
            Ike::Legacy => {
                self.script("gw", "ipsec start 2>&1");
            }
            Ike::Swanctl => {
                // By a shell within: what the script's own shell leaves behind gets a parent outside of the process
                // namespace, which has no end before that one has reaped it, and a machine's first process does not.
                self.script("gw", "(/usr/lib/ipsec/charon > /tmp/charon.out 2>&1 &)");
                wait::until("charon's socket", || {
                    let loaded = self.command("gw", "/usr/sbin/swanctl").arg("--load-all").output();
                    loaded.is_ok_and(|said| said.status.success()).then_some(())
                });
            }
        }
    }

    fn write(&self, host: &str, path: &str, text: &str) {
        self.keeper.write(host, path, text);
    }

    fn secrets_files(&self) {
        let secrets = self.secrets.borrow();
        let lines: String = OUTSIDE
            .iter()
            .zip(&secrets.shared)
            .map(|(outside, shared)| format!("{PUBLIC} {outside} : PSK \"{shared}\"\n"))
            .collect();
        for host in ["gw", "aws"] {
            self.write(host, "/etc/ipsec.secrets", &lines);
        }
    }

    /// As AWS's instructions for strongSwan give it, but for the names.
    fn ipsec_conf(&self, near: bool) -> String {
        let all = self.selectors();
        let ike = if self.made.ike == Ike::Legacy { "ikev1" } else { "ikev2" };
        let mut text = "config setup\n\tuniqueids=no\n".to_owned();
        for (number, outside) in (1..).zip(OUTSIDE) {
            let (name, left, left_id, right) = if near {
                (format!("Tunnel{number}"), "%defaultroute", PUBLIC, outside)
            } else {
                (format!("cgw{number}"), outside, outside, PUBLIC)
            };
            let auto = if near { "start" } else { "add" };
            let _ = writeln!(
                text,
                "conn {name}\n\tauto={auto}\n\tleft={left}\n\tleftid={left_id}\n\tright={right}\n\trightid={right}\n\t\
                 type=tunnel\n\tauthby=psk\n\tkeyexchange={ike}\n\tike=aes128-sha1-modp1024!\n\tesp=aes128-sha1!\n\t\
                 ikelifetime=8h\n\tlifetime=1h\n\tkeyingtries=%forever\n\tleftsubnet={all}\n\trightsubnet={all}\n\t\
                 dpddelay=10s\n\tdpdtimeout=30s\n\tdpdaction=restart\n\tmark={number}00"
            );
        }
        text
    }

    /// What may go through the tunnels.
    fn selectors(&self) -> &'static str {
        match self.made.tunnels {
            Tunnels::Vti | Tunnels::VtiInVrf => "0.0.0.0/0",
            Tunnels::Xfrm => "0.0.0.0/0,::/0",
        }
    }

    fn swanctl_conf(&self) -> String {
        let secrets = self.secrets.borrow();
        let all = self.selectors();
        let (mut connections, mut shared) = (String::new(), String::new());
        for (number, outside) in (1..).zip(OUTSIDE) {
            let bond = match self.made.tunnels {
                Tunnels::Vti | Tunnels::VtiInVrf => format!("mark_in = {number}00\n mark_out = {number}00"),
                Tunnels::Xfrm => format!("if_id_in = {number}00\n if_id_out = {number}00"),
            };
            let _ = writeln!(
                connections,
                "Tunnel{number} {{\n version = 2\n remote_addrs = {outside}\n proposals = aes128-sha1-modp1024\n \
                 dpd_delay = 10s\n keyingtries = 0\n local {{\n auth = psk\n id = {PUBLIC}\n }}\n \
                 remote {{\n auth = psk\n id = {outside}\n }}\n children {{\n Tunnel{number} {{\n \
                 local_ts = {all}\n remote_ts = {all}\n esp_proposals = aes128-sha1\n {bond}\n \
                 start_action = start\n dpd_action = restart\n }}\n }}\n }}"
            );
            let _ = writeln!(
                shared,
                "ike-{number} {{\n id-1 = {PUBLIC}\n id-2 = {outside}\n secret = \"{}\"\n }}",
                secrets.shared[number - 1]
            );
        }
        format!("connections {{\n{connections}}}\nsecrets {{\n{shared}}}\n")
    }

    fn bgpd_near(&self) -> String {
        let vrf = self.made.tunnels.vrf().map(|vrf| format!(" vrf {vrf}")).unwrap_or_default();
        bgpd(&format!("65000{vrf}"), super::PRIVATE, "10.9.0.0/24", 64512, [PEER1, PEER2])
    }

    fn bgpd_far(&self) -> String {
        let peers = ["169.254.55.54", "169.254.253.50"];
        bgpd("64512", PEER1, "10.20.0.0/16", 65000, peers)
    }
}

/// The daemons read their own files where there is no common one.
const FRR: &str = "rm -f /etc/frr/frr.conf; echo 'log file /tmp/zebra.log' > /etc/frr/zebra.conf; \
                   /usr/lib/frr/zebra -d 2>&1 & /usr/lib/frr/bgpd -d 2>&1 & wait;";

const BIRD: &str = "log \"/tmp/bird.log\" all;\nrouter id 192.168.12.49;\nprotocol device { }\n\
    protocol direct { ipv4; interface \"lan0\"; }\n\
    protocol kernel { ipv4 { export where source = RTS_BGP; }; merge paths on; }\n\
    template bgp far { local as 65000; hold time 30; connect retry time 5; connect delay time 1; error wait time 2, 5;\n\
    ipv4 { import all; export where source = RTS_DEVICE; }; }\n\
    protocol bgp Tunnel1 from far { neighbor 169.254.55.53 as 64512; }\n\
    protocol bgp Tunnel2 from far { neighbor 169.254.253.49 as 64512; }\n";

fn strongswan(installs_routes: bool) -> String {
    // The gateway keeps the default, which is the incident.
    let routes = if installs_routes { "" } else { " install_routes = no\n" };
    format!(
        "charon {{\n load_modular = no\n load = {PLUGINS}\n{routes} filelog {{\n scene {{\n path = /tmp/charon.log\n \
         default = 1\n flush_line = yes\n }}\n }}\n}}\n"
    )
}

fn bgpd(own: &str, id: &str, network: &str, other: u32, peers: [&str; 2]) -> String {
    let mut text = format!(
        "frr defaults traditional\nlog file /tmp/bgpd.log\nrouter bgp {own}\n bgp router-id {id}\n \
         no bgp ebgp-requires-policy\n"
    );
    for peer in peers {
        let _ = writeln!(text, " neighbor {peer} remote-as {other}\n neighbor {peer} timers 10 30");
        let _ = writeln!(text, " neighbor {peer} timers connect 5");
    }
    let _ = writeln!(text, " address-family ipv4 unicast\n  network {network}\n exit-address-family");
    text
}
