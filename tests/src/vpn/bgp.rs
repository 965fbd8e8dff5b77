//! FRR's bgpd, asked and configured as an operator does.

use serde_json::Value;

use super::{OWN, PEER1, PEER2, Vpn};
use crate::wait;

impl Vpn {
    /// What vtysh answers on the gateway; null where it is no JSON.
    ///
    /// # Panics
    ///
    /// If vtysh cannot be run.
    pub fn vtysh(&self, command: &str) -> Value {
        let said = self.command("gw", "vtysh").args(["-d", "bgpd", "-c", command]).output().expect("vtysh");
        serde_json::from_slice(&said.stdout).unwrap_or(Value::Null)
    }

    /// The state of a session by vtysh's word.
    pub fn bgp_state(&self, peer: &str) -> String {
        let vrf = self.made.tunnels.vrf().map(|vrf| format!(" vrf {vrf}")).unwrap_or_default();
        let summary = self.vtysh(&format!("show bgp{vrf} summary json"));
        summary["ipv4Unicast"]["peers"][peer]["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Adds a line to a host's `router bgp`.
    #[track_caller]
    pub fn configure(&self, host: &str, line: &str) {
        let system = if host == "gw" { "65000" } else { "64512" };
        self.script(host, &format!("vtysh -d bgpd -c 'configure terminal' -c 'router bgp {system}' -c '{line}'"));
    }

    /// Ends BGP's sessions, and has the far end begin none: until the gateway's neighbours are up again nobody speaks.
    ///
    /// # Panics
    ///
    /// If the sockets do not go.
    #[track_caller]
    pub fn silence_bgp(&self) {
        for address in OWN {
            self.configure("aws", &format!("neighbor {address} passive"));
        }
        for peer in [PEER1, PEER2] {
            self.configure("gw", &format!("neighbor {peer} shutdown"));
        }
        wait::until("no connection of BGP's", || self.bgp_sockets().is_empty().then_some(()));
    }

    /// Local ports of the connections to BGP's peers that are open, and how often each has sent something again, by `ss`.
    ///
    /// # Panics
    ///
    /// If `ss` cannot be run or read.
    pub fn bgp_sockets(&self) -> Vec<(u64, u64)> {
        let mut ss = self.command("gw", "ss");
        ss.args(["-Htin", "exclude", "listening", "exclude", "time-wait", "exclude", "closed"]);
        let said = ss.arg("( dport = 179 or sport = 179 )").output();
        let said = String::from_utf8_lossy(&said.expect("ss").stdout).into_owned();
        let lines: Vec<&str> = said.lines().collect();
        let mut found = Vec::new();
        for line in lines.iter().filter(|line| line.contains(":179")) {
            let port = line.split_whitespace().find_map(|word| word.rsplit_once(':')?.1.parse().ok());
            found.push((port.unwrap_or_else(|| panic!("no port: {line}")), 0));
        }
        for line in lines.iter().filter(|line| !line.contains(":179")) {
            let again = line
                .split("retrans:")
                .nth(1)
                .and_then(|rest| rest.split([' ', '\n']).next()?.rsplit('/').next()?.parse().ok());
            if let (Some(last), Some(again)) = (found.last_mut(), again) {
                last.1 = again;
            }
        }
        found
    }
}
