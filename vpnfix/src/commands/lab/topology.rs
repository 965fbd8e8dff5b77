//! Building, hijacking and removing the lab's networks.

use anyhow::{Context, bail};

use super::ip::{Batch, Ip, IpError, Target};
use super::ipsec::{self, End, TunnelKeys};
use super::layout::{
    CGW_ADDRESS, HIJACKER_TABLE, HOSTS, Host, Names, PHYSICAL_DEVICE, REMOTE_HOST, REMOTE_PREFIX, ROUTER_ADDRESS,
    TUNNELS, Tunnel, TunnelKind,
};
use super::netns;
use super::responder;
use super::state::LabState;

/// MTU of the tunnels in AWS's sample configuration for strongSwan.
const TUNNEL_MTU: u32 = 1419;

/// How the tunnels of this lab are made, and why.
#[derive(Debug)]
pub enum Tunnels {
    /// VTIs with ESP.
    Vti,
    /// veth pairs.
    Veth {
        /// What the kernel refused, in iproute2's words.
        refused: String,
    },
}

impl Tunnels {
    /// Without the reason.
    pub const fn kind(&self) -> TunnelKind {
        match self {
            Self::Vti => TunnelKind::Vti,
            Self::Veth { .. } => TunnelKind::Veth,
        }
    }

    /// For the reader.
    pub fn told(&self) -> String {
        match self {
            Self::Vti => "vti1 and vti2 are real VTI devices with ESP SAs; their keys are random.".to_owned(),
            Self::Veth { refused } => format!(
                "This kernel has no VTI or no ESP ({refused}).\nA veth pair stands in for each tunnel, so nothing is \
                 encrypted here, and vpnfix must be told:\n--tunnel vti1 --tunnel vti2. Routing is the same."
            ),
        }
    }
}

/// A lab that stands.
#[derive(Debug)]
pub struct Lab {
    ip: Ip,
    names: Names,
    tunnels: Tunnels,
}

impl Lab {
    /// Builds the four namespaces, with all well in them, after removing what is left of an earlier lab.
    ///
    /// On failure a part of it may stand; [`remove`] takes it away.
    pub fn build(names: &Names, state: &LabState) -> anyhow::Result<Self> {
        remove(names, state)?;
        let ip = Ip::find()?;
        let mut namespaces = Batch::default();
        for host in HOSTS {
            namespaces.line(format!("netns add {}", names.of(host)));
        }
        ip.apply(Target::Host, &namespaces).context("make the namespaces")?;
        // Reverse-path filtering is inherited from the host at a device's birth: set it before there is one.
        for host in HOSTS {
            let plain =
                [("ipv4/conf/all/rp_filter", "0"), ("ipv4/conf/default/rp_filter", "0"), ("ipv4/ip_forward", "1")];
            netns::set_sysctls(&names.path(host), &plain)?;
        }
        let tunnels = match probe(&ip, &names.of(Host::Cgw)) {
            Ok(()) => Tunnels::Vti,
            Err(IpError::Refused { message, .. }) => Tunnels::Veth { refused: message },
            Err(other) => return Err(other.into()),
        };
        let lab = Self { ip, names: names.clone(), tunnels };
        lab.connect().context("link the namespaces")?;
        lab.configure()?;
        responder::start_all(names)?;
        Ok(lab)
    }

    /// How the tunnels are made.
    pub const fn tunnels(&self) -> &Tunnels {
        &self.tunnels
    }

    /// iproute2.
    pub const fn ip(&self) -> &Ip {
        &self.ip
    }

    /// The namespaces' names.
    pub const fn names(&self) -> &Names {
        &self.names
    }

    /// Does what charon does when the SAs are up: a default route in table 220, and a rule to that table, for IPv6 too,
    /// without a protocol number, before table main's rule.
    pub fn hijack(&self) -> anyhow::Result<()> {
        let cgw = self.names.of(Host::Cgw);
        let rule = format!("rule add from all lookup {HIJACKER_TABLE} priority {HIJACKER_TABLE}");
        let mut batch = Batch::default();
        batch.line(format!(
            "route add default via {ROUTER_ADDRESS} dev {PHYSICAL_DEVICE} proto static table {HIJACKER_TABLE}"
        ));
        batch.line(rule.clone());
        let mut batch6 = Batch::default();
        batch6.line(rule);
        self.ip.apply(Target::Netns(&cgw), &batch).context("hijack")?;
        self.ip.apply(Target::Netns6(&cgw), &batch6).context("hijack")
    }

    /// Makes all links, each at once in its namespaces, so that none is ever seen on the host.
    fn connect(&self) -> anyhow::Result<()> {
        let of = |host| self.names.of(host);
        let (cgw, rtr) = (of(Host::Cgw), of(Host::Rtr));
        let mut batch = Batch::default();
        batch.line(format!("link add {PHYSICAL_DEVICE} netns {cgw} type veth peer name lan netns {rtr}"));
        for tunnel in &TUNNELS {
            let (device, endpoint) = (tunnel.device, of(tunnel.endpoint));
            batch.line(format!(
                "link add {} netns {rtr} type veth peer name eth0 netns {endpoint}",
                tunnel.router_device
            ));
            if let Tunnels::Veth { .. } = self.tunnels {
                let hardware = tunnel.hardware;
                batch.line(format!(
                    "link add {device} address {hardware} netns {cgw} type veth \
                     peer name {device} address {hardware} netns {endpoint}"
                ));
            }
        }
        Ok(self.ip.apply(Target::Host, &batch)?)
    }

    /// Addresses, routes, SAs: the far ends first, so that the gateway's devices have their carrier at once.
    fn configure(&self) -> anyhow::Result<()> {
        let apply = |host, batch: &Batch| {
            let name = self.names.of(host);
            self.ip.apply(Target::Netns(&name), batch).with_context(|| format!("set up {name}"))
        };
        let [first, second] = &TUNNELS;
        let (first_keys, second_keys) = (TunnelKeys::random().context(RANDOM)?, TunnelKeys::random().context(RANDOM)?);
        apply(Host::Rtr, &router())?;
        apply(first.endpoint, &self.endpoint(first, &first_keys))?;
        apply(second.endpoint, &self.endpoint(second, &second_keys))?;
        apply(Host::Cgw, &self.gateway([(first, &first_keys), (second, &second_keys)]))?;
        let cgw = self.names.path(Host::Cgw);
        // What AWS's sample sets: loose reverse-path filtering and no second policy check on the tunnel (a VTI drops
        // the packet's security path), no IPsec policies on the physical device.
        netns::set_sysctls(
            &cgw,
            &[
                ("ipv4/conf/vti1/rp_filter", "2"),
                ("ipv4/conf/vti2/rp_filter", "2"),
                ("ipv4/conf/vti1/disable_policy", "1"),
                ("ipv4/conf/vti2/disable_policy", "1"),
                ("ipv4/conf/ens5/disable_xfrm", "1"),
                ("ipv4/conf/ens5/disable_policy", "1"),
            ],
        )?;
        for tunnel in &TUNNELS {
            let key = format!("ipv4/conf/{}/disable_policy", tunnel.device);
            netns::set_sysctls(&self.names.path(tunnel.endpoint), &[(key.as_str(), "1")])?;
        }
        Ok(())
    }

    fn gateway(&self, tunnels: [(&Tunnel, &TunnelKeys); 2]) -> Batch {
        let mut batch = Batch::default();
        batch.line("link set lo up");
        batch.line(format!("addr add {CGW_ADDRESS}/24 dev {PHYSICAL_DEVICE}"));
        batch.line(format!("link set {PHYSICAL_DEVICE} up"));
        batch.line(format!("route add default via {ROUTER_ADDRESS} dev {PHYSICAL_DEVICE}"));
        for (tunnel, keys) in tunnels {
            self.tunnel_end(&mut batch, tunnel, End::Gateway, keys);
        }
        // By one tunnel, as BGP does without multipath. With two nexthops the kernel may choose the source address of the
        // one and leave by the other, and the answer would have to find its way between the endpoints.
        let [(best, _), _] = tunnels;
        batch.line(format!("route add {REMOTE_PREFIX} via {} dev {} proto bgp metric 20", best.peer, best.device));
        batch
    }

    fn endpoint(&self, tunnel: &Tunnel, keys: &TunnelKeys) -> Batch {
        let mut batch = Batch::default();
        // The whole prefix becomes local: each address in it answers.
        batch.line(format!("addr add {REMOTE_HOST}/16 dev lo"));
        batch.line("link set lo up");
        batch.line(format!("addr add {}/29 dev eth0", tunnel.outside));
        batch.line("link set eth0 up");
        batch.line(format!("route add default via {} dev eth0", tunnel.outside_router));
        self.tunnel_end(&mut batch, tunnel, End::Endpoint, keys);
        batch
    }

    /// One end of a tunnel: the device, its addresses in the form of AWS's sample (`local/30 peer remote`), its SAs.
    fn tunnel_end(&self, batch: &mut Batch, tunnel: &Tunnel, end: End, keys: &TunnelKeys) {
        let Tunnel { device, key, .. } = tunnel;
        let (local, remote, inner, inner_peer) = match end {
            End::Gateway => (CGW_ADDRESS, tunnel.outside, tunnel.local, tunnel.peer),
            End::Endpoint => (tunnel.outside, CGW_ADDRESS, tunnel.peer, tunnel.local),
        };
        match self.tunnels {
            Tunnels::Vti => {
                batch.line(format!("link add {device} type vti local {local} remote {remote} key {key}"));
                ipsec::install(batch, tunnel, end, keys);
            }
            Tunnels::Veth { .. } => batch.line(format!("link set {device} arp off")),
        }
        // Without an IPv6 link-local address nothing is sent but what the play sends, and the counters stay readable.
        batch.line(format!("link set {device} mtu {TUNNEL_MTU} addrgenmode none"));
        batch.line(format!("addr add {inner}/30 peer {inner_peer}/30 dev {device}"));
        batch.line(format!("link set {device} up"));
    }
}

const RANDOM: &str = "read /dev/urandom for the SAs' keys";

fn router() -> Batch {
    let mut batch = Batch::default();
    batch.line("link set lo up");
    batch.line(format!("addr add {ROUTER_ADDRESS}/24 dev lan"));
    batch.line("link set lan up");
    for tunnel in &TUNNELS {
        batch.line(format!("addr add {}/29 dev {}", tunnel.outside_router, tunnel.router_device));
        batch.line(format!("link set {} up", tunnel.router_device));
    }
    batch.line("route add blackhole default");
    batch
}

/// Tries, in the gateway's namespace, what real tunnels need. The kernel loads its modules by itself where it has them.
fn probe(ip: &Ip, namespace: &str) -> Result<(), IpError> {
    const LINK: &str = "vpnfix-probe";
    const SA: &str = "src 192.0.2.1 dst 192.0.2.2 proto esp spi 0xc0000001";
    // Keys of no secret: this SA never meets a packet.
    let algorithms = format!("enc cbc(aes) 0x{} auth-trunc hmac(sha256) 0x{} 128", "00".repeat(16), "00".repeat(32));
    let mut attempt = Batch::default();
    attempt.line(format!("link add {LINK} type vti local 192.0.2.1 remote 192.0.2.2 key 1"));
    attempt.secret(format!("xfrm state add {SA} mode tunnel {algorithms}"), format!("xfrm state add {SA}"));
    let mut clean = Batch::default();
    clean.line(format!("xfrm state delete {SA}"));
    clean.line(format!("link del {LINK}"));
    let outcome = ip.apply(Target::Netns(namespace), &attempt);
    ip.apply_all(Target::Netns(namespace), &clean)?;
    outcome
}

/// Ends the responders and removes the four namespaces, whatever there is of them.
pub fn remove(names: &Names, state: &LabState) -> anyhow::Result<()> {
    state.mark_unfinished()?;
    responder::stop_all(names)?;
    let present = names.present();
    if present.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::default();
    for name in present {
        batch.line(format!("netns del {name}"));
    }
    Ip::find()?.apply_all(Target::Host, &batch)?;
    let left = names.present();
    if !left.is_empty() {
        bail!("the namespaces {} could not be removed", left.join(", "));
    }
    Ok(())
}
