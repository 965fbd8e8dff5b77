//! A healthy VPN as values, to be broken: the incident's gateway with both tunnels, strongSwan and FRR.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::core::destination::destinations;
use crate::core::finding::Finding;
use crate::core::fixture::{ENS5, LAN, LO, VTI1, address, answer, gateway, healthy_rules, link, route, via};
use crate::core::judge::{self, Asked, Case, Judgement};
use crate::core::model::{
    Answer, Direction, Encapsulation, Family, LinkCounters, LinkKind, Mark, Policy, SaLimits, SaMode, SaReplay,
    SaUsage, SecurityAssociation, Snapshot, TABLE_LOCAL, TABLE_MAIN, Template,
};
use crate::core::owner::Clues;
use crate::core::plan::{self, Situation, Strategy};
use crate::core::report::cause;
use crate::core::report::verify::VerifyReport;
use crate::core::tunnel::tunnels;
use crate::core::verify::*;
use crate::core::walk::Fib;

pub(super) const VTI2: u32 = 5;
pub(super) const HERE: &str = "192.168.12.49";
pub(super) const PEERS: [&str; 2] = ["203.0.113.10", "203.0.113.18"];
const NOW: u64 = 1_750_000_000;

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) struct Vpn {
    pub(crate) snapshot: Snapshot,
    pub(super) clues: Clues,
    pub(crate) measured: Measured,
    /// What source validation says to packets that come in.
    pub(super) refuses_reverse: bool,
}

impl Vpn {
    pub(crate) fn healthy() -> Self {
        Self { snapshot: snapshot(), clues: Clues::default(), measured: measured(), refuses_reverse: false }
    }

    pub(crate) fn hijack(&mut self) {
        self.snapshot.rules = crate::core::fixture::hijacked_rules();
        for reach in &mut self.measured.reach {
            reach.echoes = Ok(Echoes { sent: 3, answered: 0, round_trip: None, error: None });
            reach.path_mtu = Err(NotKnown::because("the peer does not answer"));
            reach.bgp_port = Ok(Port::Silent);
        }
        for sample in [&mut self.measured.before, &mut self.measured.after] {
            for association in sample.associations.as_mut().expect("read") {
                let out = association.source == ip(HERE);
                (association.usage.bytes, association.usage.packets) = if out { (0, 0) } else { (1740, 29) };
            }
        }
        self.measured.after.links = self.measured.before.links.clone();
        self.sessions(BgpState::Connect, None);
    }

    pub(super) fn sessions(&mut self, state: BgpState, error: Option<&str>) {
        for neighbour in &mut self.measured.bgp.as_mut().expect("a daemon").neighbours {
            neighbour.state = state;
            (neighbour.uptime, neighbour.received, neighbour.sent) = (None, None, None);
            neighbour.last_error = error.map(String::from);
        }
        for reach in &mut self.measured.reach {
            if reach.bgp_port == Ok(Port::InUse) {
                reach.bgp_port = Ok(Port::Open);
            }
        }
    }

    /// The first tunnel's policies and SAs.
    pub(super) fn policies(&mut self) -> impl Iterator<Item = &mut Policy> {
        let own = |policy: &&mut Policy| {
            policy.templates.iter().any(|t| t.source == ip(PEERS[0]) || t.destination == ip(PEERS[0]))
        };
        self.measured.policies.as_mut().expect("read").iter_mut().filter(own)
    }

    pub(super) fn associations(&mut self) -> &mut Vec<SecurityAssociation> {
        self.measured.after.associations.as_mut().expect("read")
    }

    pub(super) fn counter(&mut self, name: &str, more: u64) {
        let sample = &mut self.measured.after;
        let counters = if name.starts_with("Xfrm") { &mut sample.xfrm } else { &mut sample.network };
        *counters.as_mut().expect("read").entry(name.into()).or_default() += more;
    }

    /// The device refuses to send for want of an SA or a policy, and the peer is silent.
    pub(super) fn sends_nothing(&mut self, tunnel: u32) {
        let before = self.measured.before.links[&tunnel];
        let errors = before.tx_errors + 3;
        let counters = LinkCounters { tx_errors: errors, tx_carrier_errors: before.tx_carrier_errors + 3, ..before };
        self.measured.after.links.insert(tunnel, counters);
        self.silent(tunnel);
    }

    pub(super) fn silent(&mut self, tunnel: u32) {
        for reach in self.measured.reach.iter_mut().filter(|reach| reach.tunnel == tunnel) {
            reach.echoes =
                Ok(Echoes { sent: 3, answered: 0, round_trip: None, error: Some("No route to host".into()) });
            reach.path_mtu = Err(NotKnown::because("the peer does not answer"));
            reach.bgp_port = Ok(Port::Silent);
        }
        let peer = self.measured.reach.iter().find(|reach| reach.tunnel == tunnel).map(|reach| reach.peer);
        if let Ok(bgp) = &mut self.measured.bgp {
            for neighbour in bgp.neighbours.iter_mut().filter(|neighbour| Some(neighbour.address) == peer) {
                neighbour.state = BgpState::Active;
                (neighbour.uptime, neighbour.received, neighbour.sent) = (None, None, None);
            }
        }
    }

    pub(crate) fn report(&self) -> VerifyReport {
        let snapshot = &self.snapshot;
        let tunnels = tunnels(snapshot, &[]).expect("no device is named");
        let fib = Fib::new(snapshot);
        let destinations = destinations(&fib, &tunnels);
        let case = Case { fib: &fib, tunnels: &tunnels, destinations: &destinations, clues: &self.clues };
        let judgement = self.judge(case);
        let causes = causes(&fib, case, &judgement.findings);
        VerifyReport::new(&Facts {
            snapshot,
            tunnels: &tunnels,
            destinations: &destinations,
            judgement: &judgement,
            causes: &causes,
            clues: &self.clues,
            measured: &self.measured,
        })
    }

    fn judge(&self, case: Case<'_>) -> Judgement {
        let mut asked = judge::questions(case.destinations, &vec![true; case.destinations.len()]);
        asked.extend(judge::further_questions(case));
        let answer = |asked: &Asked| {
            let answer = answer(&self.snapshot, &asked.question);
            let reverse = asked.question.input_interface == Some(VTI1);
            if reverse && self.refuses_reverse {
                Answer { reply: crate::core::model::Reply::Refused(18), ..answer }
            } else {
                answer
            }
        };
        let answers: Vec<Answer> = asked.iter().map(answer).collect();
        judge::judge(case, &asked, &answers)
    }
}

fn causes(fib: &Fib<'_>, case: Case<'_>, findings: &[Finding]) -> Vec<cause::Cause> {
    let Case { tunnels, destinations, .. } = case;
    let situation = Situation { fib, tunnels, destinations, findings, controls: &[] };
    let plan = plan::plan(situation, Strategy::Auto, None).ok();
    cause::causes(fib.snapshot(), destinations, findings, plan.as_ref())
}

fn snapshot() -> Snapshot {
    let mut snapshot = gateway();
    snapshot.rules = healthy_rules();
    let vti =
        LinkKind::Vti { v6: false, local: Some(ip(HERE)), remote: Some(ip(PEERS[1])), input_key: 2, output_key: 2 };
    snapshot.links.push(link(VTI2, "vti2", vti));
    for link in &mut snapshot.links {
        link.settings.forwarding = true;
        if link.index == VTI1 || link.index == VTI2 {
            link.mtu = Some(1419);
            link.settings.rp_filter = 2;
        }
    }
    snapshot.addresses.push(address(VTI2, "169.254.253.50", 30));
    snapshot.addresses.push(address(LAN, "10.9.0.1", 24));
    snapshot.routes.push(route(TABLE_MAIN, "169.254.253.48/30", VTI2));
    snapshot.routes.push(route(TABLE_MAIN, "10.9.0.0/24", LAN));
    snapshot.routes.push(route(TABLE_LOCAL, "169.254.253.50/32", VTI2));
    snapshot.routes.push(via(route(TABLE_MAIN, "10.30.0.0/16", VTI2), "169.254.253.49"));
    snapshot
}

fn policies() -> Vec<Policy> {
    let any = "0.0.0.0/0".parse().expect("a prefix");
    let policy = |number: usize, direction| {
        let peer = ip(PEERS[number - 1]);
        let (source, destination) = if direction == Direction::Out { (ip(HERE), peer) } else { (peer, ip(HERE)) };
        let reqid = u32::try_from(number).expect("small");
        Policy {
            direction,
            source: any,
            destination: any,
            ip_protocol: 0,
            has_ports: false,
            priority: 399_999,
            mark: Some(Mark { value: reqid, mask: u32::MAX }),
            if_id: 0,
            blocks: false,
            templates: vec![Template { source, destination, protocol: 50, mode: SaMode::Tunnel, reqid }],
        }
    };
    let directions = [Direction::Out, Direction::Forward, Direction::In];
    [1, 2].into_iter().flat_map(|number| directions.map(|direction| policy(number, direction))).collect()
}

fn associations(packets: u64) -> Vec<SecurityAssociation> {
    let association = |number: usize, out: bool| {
        let peer = ip(PEERS[number - 1]);
        let (source, destination) = if out { (ip(HERE), peer) } else { (peer, ip(HERE)) };
        let reqid = u32::try_from(number).expect("small");
        SecurityAssociation {
            family: Family::V4,
            source,
            destination,
            spi: 0xc000_0000 + reqid * 2 + u32::from(out),
            protocol: 50,
            reqid,
            mode: SaMode::Tunnel,
            // strongSwan marks the outbound SA alone.
            mark: out.then_some(Mark { value: reqid, mask: u32::MAX }),
            if_id: 0,
            direction: None,
            encapsulation: Some(Encapsulation { kind: 2, source_port: 4500, destination_port: 4500 }),
            usage: SaUsage { bytes: packets * 84, packets, added: NOW - 600, ..SaUsage::default() },
            soft_limits: SaLimits { seconds_after_adding: Some(2800), ..SaLimits::default() },
            hard_limits: SaLimits { seconds_after_adding: Some(3600), ..SaLimits::default() },
            replay: SaReplay { window: 32, ..SaReplay::default() },
        }
    };
    [1, 2].into_iter().flat_map(|number| [true, false].map(|out| association(number, out))).collect()
}

fn sample(packets: u64) -> Sample {
    // A healthy tunnel has some errors from before its SAs came up.
    let counters = LinkCounters {
        rx_packets: packets,
        tx_packets: packets,
        rx_bytes: packets * 84,
        tx_bytes: packets * 84,
        tx_errors: 7,
        tx_carrier_errors: 7,
        ..LinkCounters::default()
    };
    let xfrm = ["XfrmInNoStates", "XfrmInTmplMismatch", "XfrmOutNoStates"].map(|name| (name.to_string(), 12));
    let network =
        [("TcpExtIPReversePathFilter", 5), ("IpForwDatagrams", 9), ("IpInAddrErrors", 1), ("TcpExtTCPMD5Failure", 0)];
    Sample {
        links: [LO, ENS5, VTI1, LAN, VTI2].into_iter().map(|index| (index, counters)).collect(),
        associations: Ok(associations(packets)),
        xfrm: Ok(xfrm.into_iter().collect()),
        network: Ok(network.into_iter().map(|(name, value)| (name.to_string(), value)).collect()),
    }
}

fn measured() -> Measured {
    let tunnels = [(VTI1, "169.254.55.54", "169.254.55.53", 0), (VTI2, "169.254.253.50", "169.254.253.49", 1)];
    let reach = |(tunnel, local, peer, _): (u32, &str, &str, usize)| Reach {
        tunnel,
        peer: ip(peer),
        local: ip(local),
        echoes: Ok(Echoes { sent: 3, answered: 3, round_trip: Some(Duration::from_micros(2500)), error: None }),
        path_mtu: Ok(PathMtu { device: 1419, largest: 1419, silent: false }),
        bgp_port: Ok(Port::InUse),
    };
    let ike = |(_, _, _, number): (u32, &str, &str, usize)| IkeAssociation {
        name: format!("Tunnel{}", number + 1),
        local: Some(ip(HERE)),
        remote: Some(ip(PEERS[number])),
        state: "ESTABLISHED".into(),
        version: Some(2),
        established: Some(3600),
        behind_nat: true,
        children: vec![("Tunnel".into(), "INSTALLED".into())],
    };
    let neighbour = |(_, _, peer, _): (u32, &str, &str, usize)| Neighbour {
        address: ip(peer),
        state: BgpState::Established,
        local_as: Some(65_000),
        remote_as: Some(64_512),
        uptime: Some(600),
        received: Some(2),
        sent: Some(1),
        hold_time: Some(30),
        last_error: None,
    };
    let switches = Switches { disable_policy: true, disable_xfrm: false };
    let outer = OuterPath { device: "ens5".into(), mtu: Some(1500) };
    Measured {
        before: sample(100),
        after: sample(110),
        window: Duration::from_secs(2),
        policies: Ok(policies()),
        switches: Ok(BTreeMap::from([(VTI1, switches), (VTI2, switches)])),
        outer: BTreeMap::from([(VTI1, outer.clone()), (VTI2, outer)]),
        ike: Ok(tunnels.map(ike).to_vec()),
        bgp: Ok(Bgp { daemon: "FRR".into(), neighbours: tunnels.map(neighbour).to_vec() }),
        sockets: Ok(Vec::new()),
        reach: tunnels.map(reach).to_vec(),
        machine: Machine { now: NOW, clock_synchronised: Some(true), ..Machine::default() },
    }
}
