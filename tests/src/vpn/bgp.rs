//! FRR's bgpd, asked and configured as an operator does.

use serde_json::Value;

use super::Vpn;

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
}
