//! What `diagnose`, `trace` and `fix` share: the host's state, its tunnels, and the kernel's answers about them.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::failure::Failure;
use super::settings::Settings;
use crate::core::control::{self, Control, Neighbours, TcpConnection};
use crate::core::destination::{self, Destination};
use crate::core::finding::{ControlReport, Finding, Note, NoteId};
use crate::core::judge::{self, Asked, Case, Judgement};
use crate::core::model::{Answer, Netns, Question, Rule, SecurityAssociation, Snapshot};
use crate::core::owner::Clues;
use crate::core::plan::{self, Situation};
use crate::core::sample::Classes;
use crate::core::tunnel::{self, NoSuchDevice, Tunnel};
use crate::core::walk::Fib;
use crate::system::namespace::Target;
use crate::system::netlink::{Netlink, NetlinkError, Queries};
use crate::system::xfrm::{self, XfrmError};
use crate::system::{clues, host, namespace};

/// Of a table with more routes than this, judging reads only those through tunnels.
const WHOLE_TABLE: usize = 20_000;

/// The ways to the kernel's routing, opened in the namespace asked for.
pub struct Access {
    /// Reads and changes links, rules and routes.
    pub netlink: Netlink,
    /// Asks for routes, from a thread that the kernel side knows.
    pub queries: Arc<Queries>,
    /// The namespace.
    pub netns: Netns,
}

impl Access {
    /// Opens the ways in the calling thread's namespace, which is the one asked for.
    ///
    /// # Errors
    /// The namespace cannot be identified, or netlink not be opened.
    pub fn open(target: &Target, queries: Arc<Queries>) -> Result<Self, Failure> {
        let netns =
            namespace::identify(target).map_err(|error| Failure::of("identify the network namespace", &error))?;
        let netlink = Netlink::connect().map_err(|error| netlink_failure("open netlink", &error))?;
        Ok(Self { netlink, queries, netns })
    }
}

/// Who asks the kernel for routes. The kernel side leaves out the questions of one thread, and where it cannot tell them from
/// what a softirq does on top of that thread, all else there as well: whoever counts lookups exactly lets a thread ask that
/// does nothing else.
pub enum Asking {
    /// The thread that works.
    Here,
    /// A thread of its own.
    OnAThread,
    /// One that asks in that namespace already.
    By(Arc<Queries>),
}

/// Opens the ways and does the work in the namespace asked for, on a thread of its own.
///
/// # Errors
/// The namespace cannot be entered, netlink cannot be opened, or the work's own failure.
pub fn in_namespace<T: Send>(
    settings: &Settings,
    work: impl AsyncFnOnce(Access) -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    in_namespace_asking(settings, Asking::Here, work)
}

/// The same, where it matters who asks.
///
/// # Errors
/// As [`in_namespace`].
pub fn in_namespace_asking<T: Send>(
    settings: &Settings,
    asking: Asking,
    work: impl AsyncFnOnce(Access) -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    let inside = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::of("start the runtime", &error))?;
        runtime.block_on(async {
            let queries = match asking {
                Asking::Here => Queries::here().map(Arc::new),
                Asking::OnAThread => Queries::on_a_thread().map(Arc::new),
                Asking::By(queries) => Ok(queries),
            };
            let queries = queries.map_err(|error| netlink_failure("open netlink", &error))?;
            work(Access::open(&settings.netns, queries)?).await
        })
    };
    namespace::within(&settings.netns, inside)
        .map_err(|error| Failure::of("enter the network namespace", &error).hint_privilege(error.is_privilege()))?
}

/// A failed netlink request, with advice where a privilege lacks.
#[must_use]
pub fn netlink_failure(what: &str, error: &NetlinkError) -> Failure {
    Failure::of(what, error).hint_privilege(error.is_privilege())
}

/// A host with its tunnels and everything that belongs into them.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its state.
    pub snapshot: Snapshot,
    /// Its tunnels.
    pub tunnels: Vec<Tunnel>,
    /// What belongs into them.
    pub destinations: Vec<Destination>,
    /// Signs of other programs.
    pub clues: Clues,
    /// The kernel's security associations, or why they are not known.
    pub associations: Result<Vec<SecurityAssociation>, String>,
}

impl Host {
    /// Takes the snapshot and finds the tunnels. `only` keeps the destinations that hold or lie in one of its prefixes.
    ///
    /// # Errors
    /// Netlink, or a device named that is not there.
    pub async fn read(access: &Access, settings: &Settings, only: &[IpNet]) -> Result<Self, Failure> {
        let snapshot = Self::snapshot(access).await?;
        Self::of(snapshot, settings, only).map_err(|error| Failure::of("find the tunnels", &error))
    }

    /// The same, but of a large table only the routes through tunnels: enough to judge by, and hardly slower for the rest of
    /// the routes.
    ///
    /// # Errors
    /// Netlink, or a device named that is not there.
    pub async fn read_for_judging(access: &Access, settings: &Settings, only: &[IpNet]) -> Result<Self, Failure> {
        let failed = |error: NetlinkError| netlink_failure("read the host's routing", &error);
        let mut snapshot = access.netlink.outline(access.netns.clone()).await.map_err(failed)?;
        let tunnels =
            tunnel::tunnels(&snapshot, &settings.tunnels).map_err(|error| Failure::of("find the tunnels", &error))?;
        let devices: Vec<u32> = tunnels.iter().map(|tunnel| tunnel.ifindex).collect();
        access.netlink.fill_through(&mut snapshot, &devices, WHOLE_TABLE).await.map_err(failed)?;
        Self::of(snapshot, settings, only).map_err(|error| Failure::of("find the tunnels", &error))
    }

    /// The same later on: nothing if a device named is not there now.
    ///
    /// # Errors
    /// Netlink.
    pub async fn read_again(access: &Access, settings: &Settings, only: &[IpNet]) -> Result<Option<Self>, Failure> {
        Ok(Self::of(Self::snapshot(access).await?, settings, only).ok())
    }

    /// The same again, quickly, as `watch` needs it while traffic leaks: what other programs and associations there are is
    /// taken over, and devices named that are not there now are no error.
    ///
    /// # Errors
    /// Netlink.
    pub async fn again(&self, access: &Access, settings: &Settings) -> Result<Self, Failure> {
        let snapshot = Self::snapshot(access).await?;
        Self::present(snapshot, settings, self.clues.clone(), self.associations.clone())
    }

    /// The host at the start of a watch: devices named need not be there yet.
    ///
    /// # Errors
    /// Netlink.
    pub async fn read_present(access: &Access, settings: &Settings) -> Result<Self, Failure> {
        let snapshot = Self::snapshot(access).await?;
        Self::present(snapshot, settings, clues::gather(), associations())
    }

    fn present(
        snapshot: Snapshot,
        settings: &Settings,
        clues: Clues,
        associations: Result<Vec<SecurityAssociation>, String>,
    ) -> Result<Self, Failure> {
        let is_there = |name: &&String| snapshot.links.iter().any(|link| link.name == **name);
        let there: Vec<String> = settings.tunnels.iter().filter(is_there).cloned().collect();
        let tunnels = tunnel::tunnels(&snapshot, &there).map_err(|error| Failure::of("find the tunnels", &error))?;
        Ok(Self::with(snapshot, tunnels, settings, clues, associations))
    }

    /// The device of the VRF that a tunnel is in.
    #[must_use]
    pub fn vrf_of(&self, tunnel: &Tunnel) -> Option<String> {
        tunnel.vrf.map(|index| self.snapshot.device_name(index))
    }

    /// Links, addresses, rules and routes as they are now.
    pub(super) async fn snapshot(access: &Access) -> Result<Snapshot, Failure> {
        let snapshot = access.netlink.snapshot(access.netns.clone()).await;
        snapshot.map_err(|error| netlink_failure("read the host's routing", &error))
    }

    fn of(snapshot: Snapshot, settings: &Settings, only: &[IpNet]) -> Result<Self, NoSuchDevice> {
        let tunnels = tunnel::tunnels(&snapshot, &settings.tunnels)?;
        let mut host = Self::with(snapshot, tunnels, settings, clues::gather(), associations());
        host.destinations.retain(|destination| {
            only.is_empty()
                || only.iter().any(|only| only.contains(&destination.prefix) || destination.prefix.contains(only))
        });
        Ok(host)
    }

    fn with(
        snapshot: Snapshot,
        mut tunnels: Vec<Tunnel>,
        settings: &Settings,
        clues: Clues,
        associations: Result<Vec<SecurityAssociation>, String>,
    ) -> Self {
        tunnel::learn_peers(&mut tunnels, &snapshot, associations.as_deref().unwrap_or_default());
        let fib = Fib::new(&snapshot);
        let mut destinations = destination::destinations(&fib, &tunnels);
        settings.prefixes.apply(&fib, &tunnels, &mut destinations);
        Self { snapshot, tunnels, destinations, clues, associations }
    }

    /// Is there anything to judge?
    ///
    /// # Errors
    /// No tunnel, or nothing that belongs into one.
    pub fn has_destinations(&self, command: &str) -> Result<(), Failure> {
        let message = match (self.destinations.is_empty(), self.tunnels.is_empty()) {
            (false, _) => return Ok(()),
            (true, true) => format!("{command}: no tunnel here (no link of kind vti, vti6 or xfrm)"),
            (true, false) => format!("{command}: nothing is routed through a tunnel here"),
        };
        Err(Failure::unable(message).hint("name the device with --tunnel DEV"))
    }

    /// Asks the kernel about the destinations, of very many about a sample and every boundary, and judges its answers.
    ///
    /// # Errors
    /// Netlink.
    pub fn judge(&self, access: &Access) -> Result<Judgement, Failure> {
        Ok(self.judge_with_answers(access)?.0)
    }

    /// The same, with all that was asked and answered.
    ///
    /// # Errors
    /// Netlink.
    pub fn judge_with_answers(&self, access: &Access) -> Result<(Judgement, Vec<(Asked, Answer)>), Failure> {
        let fib = Fib::new(&self.snapshot);
        let case = Case { fib: &fib, tunnels: &self.tunnels, destinations: &self.destinations, clues: &self.clues };
        let classes = Classes::of(&fib, &self.destinations);
        let first = classes.first(&self.destinations);
        let mut asked = judge::questions(&self.destinations, &first);
        asked.extend(judge::further_questions(case));
        let mut answers = ask_all(access, &asked)?;
        let mut judgement = judge::judge(case, &asked, &answers);
        let answered: Vec<Option<bool>> =
            judgement.right.iter().zip(&first).map(|(right, asked)| asked.then_some(*right)).collect();
        let more = judge::questions(&self.destinations, &classes.further(&answered));
        if !more.is_empty() {
            answers.extend(ask_all(access, &more)?);
            asked.extend(more);
            judgement = judge::judge(case, &asked, &answers);
        }
        judgement.notes.extend(self.peers_not_known());
        Ok((judgement, asked.into_iter().zip(answers).collect()))
    }

    /// Peers of XFRM interfaces are known from the security associations alone.
    fn peers_not_known(&self) -> Option<Note> {
        let why = self.associations.as_ref().err()?;
        tunnel::peers_not_known(&self.tunnels).map(|names| Note {
            id: NoteId::PeersNotKnown,
            text: format!("the IKE peers of {names} are not known, so they are not compared: {why}"),
        })
    }

    /// The control targets, with the kernel's answers about them.
    ///
    /// # Errors
    /// Netlink.
    pub fn controls(&self, access: &Access, findings: &[Finding]) -> Result<Controls, Failure> {
        self.controls_among(access, findings, Surroundings::gather())
    }

    /// The same, with what was gathered before.
    ///
    /// # Errors
    /// Netlink.
    pub fn controls_among(
        &self,
        access: &Access,
        findings: &[Finding],
        surroundings: Surroundings,
    ) -> Result<Controls, Failure> {
        let neighbours = Neighbours {
            resolvers: surroundings.resolvers,
            connections: surroundings.connections,
            ike_peers: control::ike_peers(&self.snapshot, self.associations.as_deref().unwrap_or_default()),
        };
        let hijackers = plan::hijackers(&self.snapshot, findings);
        let targets =
            control::controls(&Fib::new(&self.snapshot), &self.tunnels, &self.destinations, &neighbours, &hijackers);
        let answers = ask_controls(access, &targets)?;
        Ok(Controls { targets, answers, hijackers })
    }

    /// What a plan is made from. `fib` is that of the snapshot.
    #[must_use]
    pub fn situation<'a>(&'a self, fib: &'a Fib<'a>, findings: &'a [Finding], controls: &'a Controls) -> Situation<'a> {
        Situation {
            fib,
            tunnels: &self.tunnels,
            destinations: &self.destinations,
            findings,
            controls: &controls.targets,
        }
    }
}

/// Whom this host talks to, beside the VPN.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    resolvers: Vec<IpAddr>,
    connections: Vec<TcpConnection>,
    /// The kernel's security associations; none where they may not be read.
    pub associations: Option<Vec<SecurityAssociation>>,
}

impl Surroundings {
    /// Looks for them, in the network namespace of the calling thread. The kernel goes through its whole table of
    /// connections for that, which takes tens of milliseconds on a host with much memory.
    #[must_use]
    pub fn gather() -> Self {
        Self {
            resolvers: host::resolvers().unwrap_or_default(),
            connections: host::established().unwrap_or_default().into_iter().collect(),
            associations: xfrm::associations().ok(),
        }
    }
}

/// The control targets and where they go.
#[derive(Clone, Debug)]
pub struct Controls {
    /// The targets.
    pub targets: Vec<Control>,
    /// The kernel's answers, in their order.
    pub answers: Vec<Answer>,
    /// The rules that findings name as hijackers.
    pub hijackers: Vec<Rule>,
}

impl Controls {
    /// As reports show them.
    #[must_use]
    pub fn reports(&self, snapshot: &Snapshot) -> Vec<ControlReport> {
        self.targets
            .iter()
            .zip(&self.answers)
            .map(|(control, answer)| control::report(snapshot, control, answer))
            .collect()
    }
}

/// Asks the kernel about control targets.
///
/// # Errors
/// Netlink.
pub fn ask_controls(access: &Access, targets: &[Control]) -> Result<Vec<Answer>, Failure> {
    ask(access, targets.iter().map(|control| control.question.clone()).collect())
}

/// An error with its cause, in one line.
/// The security associations with their counts, or why they are not known.
pub fn associations() -> Result<Vec<SecurityAssociation>, String> {
    xfrm::associations().map_err(|error| told(&error))
}

fn told(error: &XfrmError) -> String {
    let cause = std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
    format!("{error}{cause}")
}

fn ask_all(access: &Access, asked: &[Asked]) -> Result<Vec<Answer>, Failure> {
    ask(access, asked.iter().map(|asked| asked.question.clone()).collect())
}

fn ask(access: &Access, questions: Vec<Question>) -> Result<Vec<Answer>, Failure> {
    access.queries.ask(questions).map_err(|error| netlink_failure("ask the kernel for routes", &error))
}
