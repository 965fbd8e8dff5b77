use super::*;
use crate::core::fixture::{ENS5, VTI1, gateway};
use crate::core::live::{Others, View, Watch};
use crate::core::model::{Netns, Snapshot};
use crate::core::observation::{DropPlace, FlowMarks, Hook, LookupKind};
use crate::core::owner::Clues;
use crate::core::report::flow::{Fate, Sender, StoryLine, StoryReport};
use crate::core::story::WallClock;
use crate::core::walk::Fib;

const NETNS: u32 = 7;
const PEER: &str = "169.254.55.53";

fn flow(protocol: u8, ports: (u16, u16), source: Option<&str>) -> FlowSeen {
    FlowSeen {
        source: source.map(|source| source.parse().unwrap()),
        destination: PEER.parse().unwrap(),
        source_port: ports.0,
        destination_port: ports.1,
        protocol,
    }
}

fn key(flow: FlowSeen, act: Act) -> FlowKey {
    FlowKey { netns: NETNS, watch: 0, flow, marks: FlowMarks::default(), act }
}

fn lookup(table: u32, ifindex: u32) -> Act {
    Act::Lookup {
        table,
        ifindex: Some(ifindex),
        outcome: LookupOutcome::Hit,
        hook: Hook::FibTable,
        kind: LookupKind::Output,
        custom_rules: true,
    }
}

fn event(time_ns: u64, key: FlowKey) -> FlowEvent {
    let task = Task { process: 42, thread: 42, comm: "bgpd".into() };
    FlowEvent { time_ns, key, iif: 1, oif: None, mark: 0, uid: 0, length: 60, task, stack: Vec::new() }
}

struct Scene {
    snapshot: Snapshot,
    watches: Vec<Watch>,
    flows: Flows,
}

impl Scene {
    fn new() -> Self {
        let snapshot = Snapshot { netns: Netns { name: None, inode: NETNS.into() }, ..gateway() };
        let watches = vec![Watch { prefix: "169.254.55.52/30".parse().unwrap(), tunnels: vec![VTI1] }];
        Self { snapshot, watches, flows: Flows::default() }
    }

    fn see(&mut self, time_ns: u64, key: FlowKey) {
        self.flows.event(&event(time_ns, key), Context::Process, Purpose::Output);
    }

    fn with<T>(&mut self, work: impl FnOnce(&mut Flows, &Case<'_>) -> T) -> T {
        let others = Others::default();
        let view = View { snapshot: &self.snapshot, watches: &self.watches, knows_outcomes: false, others: &others };
        let case = Case {
            view: &view,
            fib: &Fib::new(&self.snapshot),
            clues: &Clues::default(),
            associations: Associations { now: None, before: &[] },
            reasons: &[(3, "NO_SOCKET".into()), (16, "IP_RPFILTER".into())],
            function: &|address| (address == 0xabc).then(|| "ip_rcv_finish_core".to_owned()),
            clock: WallClock::default(),
        };
        work(&mut self.flows, &case)
    }

    fn reports(&mut self) -> Vec<StoryReport> {
        self.with(|flows, case| flows.reports(case))
    }

    fn tell(&mut self, index: usize) -> Option<StoryLine> {
        self.with(|flows, case| flows.tell(index, case, 0))
    }
}

#[test]
fn a_connection_is_one_story_from_its_first_lookup_on() {
    let mut scene = Scene::new();
    // Before it has a port or a source it is looked up without; then with; then its packet leaves.
    scene.see(1, key(flow(6, (0, 179), None), lookup(220, ENS5)));
    scene.see(2, key(flow(6, (40000, 179), Some("192.168.12.49")), lookup(220, ENS5)));
    scene.see(3, key(flow(6, (40000, 179), Some("192.168.12.49")), Act::Packet(ENS5)));
    let [story] = scene.reports().try_into().expect("one story");
    assert_eq!(story.fate, Fate::Misrouted);
    assert_eq!((story.flow.source_port, story.tunnels), (40000, vec!["vti1".to_string()]));
    assert_eq!(story.source_device.as_deref(), Some("ens5"));
    assert!(matches!(story.sender, Sender::Process(task) if task.name == "bgpd" && task.pid == 42));
    assert_eq!(story.rule.as_deref(), Some("220: from all lookup 220"));
    assert_eq!(story.walk_agrees, Some(true));
    let walked: Vec<(u32, bool)> = story.walk.iter().map(|step| (step.priority, step.decided)).collect();
    assert_eq!(walked, [(0, false), (220, true)]);
    assert_eq!((story.egress[0].device.as_str(), story.egress[0].packets, story.egress[0].bytes), ("ens5", 1, 60));
}

#[test]
fn flows_with_other_ports_are_other_stories() {
    let mut scene = Scene::new();
    for port in [40000, 40001] {
        scene.see(u64::from(port), key(flow(6, (port, 179), Some("192.168.12.49")), Act::Packet(ENS5)));
    }
    assert_eq!(scene.reports().len(), 2);
    // And another namespace's, though everything else is the same.
    let foreign = FlowKey { netns: 8, ..key(flow(6, (40000, 179), Some("192.168.12.49")), Act::Packet(ENS5)) };
    scene.see(3, foreign);
    let reports = scene.reports();
    assert_eq!(reports.len(), 3);
    let foreign: Vec<&StoryReport> = reports.iter().filter(|story| story.netns == 8).collect();
    assert_eq!((foreign[0].fate, foreign[0].walk.len(), foreign[0].tunnels.len()), (Fate::NotJudged, 0, 0));
}

#[test]
fn a_question_without_packets_is_no_story() {
    let mut scene = Scene::new();
    scene.see(1, key(flow(17, (0, 1025), None), lookup(220, ENS5)));
    assert!(scene.reports().is_empty());
    assert!(scene.flows.due(u64::MAX).is_empty());
    let refused = Act::Lookup {
        table: 0,
        ifindex: None,
        outcome: LookupOutcome::Refused(101),
        hook: Hook::FibRules,
        kind: LookupKind::Output,
        custom_rules: true,
    };
    scene.see(2, key(flow(1, (0, 0), None), refused));
    assert_eq!(scene.reports()[0].fate, Fate::Refused);
}

#[test]
fn counts_are_those_of_the_kernel_and_no_reason_to_tell_again() {
    let mut scene = Scene::new();
    let packet = key(flow(1, (0, 0), Some("169.254.55.54")), Act::Packet(VTI1));
    scene.see(1_000, packet);
    assert!(scene.flows.due(1_000 + SETTLED_NS - 1).is_empty());
    assert_eq!(scene.flows.due(1_000 + SETTLED_NS), [0]);
    let first = scene.tell(0).expect("told for the first time");
    assert_eq!((first.story.fate, first.changed.len()), (Fate::Unanswered, 0));
    scene.flows.counted(&[(packet, Tally { count: 5, bytes: 420, first_ns: 1_000, last_ns: 9_000 })]);
    assert_eq!(scene.reports()[0].egress[0].packets, 5);
    assert_eq!(scene.tell(0), None);
    // An answer changes the story.
    scene.see(2_000, key(flow(1, (0, 0), Some("169.254.55.54")), Act::Answer(VTI1)));
    let again = scene.tell(0).expect("told again");
    assert_eq!(again.story.fate, Fate::Right);
    assert_eq!(again.changed, ["fate: right (was unanswered)", "answered by: vti1 (was none)"]);
}

#[test]
fn what_the_kernel_drops_has_reason_and_place() {
    let mut scene = Scene::new();
    let ping = flow(1, (0, 0), Some("169.254.55.54"));
    scene.see(1, key(ping, Act::Packet(VTI1)));
    scene.see(2, key(ping, Act::Answer(VTI1)));
    let place = DropPlace { incoming: true, reason: Some(16), location: 0xabc, ifindex: Some(VTI1) };
    scene.see(3, key(ping, Act::Drop(place)));
    let story = &scene.reports()[0];
    assert_eq!(story.fate, Fate::Dropped);
    let drop = &story.drops[0];
    assert_eq!((drop.reason.as_deref(), drop.function.as_deref()), (Some("IP_RPFILTER"), Some("ip_rcv_finish_core")));
    // One of many answers that is dropped is told, and no reason to call the flow dropped.
    let answers = Tally { count: 9, bytes: 1, first_ns: 2, last_ns: 4 };
    scene.flows.counted(&[(key(ping, Act::Answer(VTI1)), answers)]);
    assert_eq!(scene.reports()[0].fate, Fate::Right);
    // A number that this kernel's list does not have is told as one.
    let unknown = DropPlace { reason: Some(999), location: 1, ..place };
    scene.see(4, key(ping, Act::Drop(unknown)));
    let told = &scene.reports()[0].drops[1];
    assert_eq!((told.reason.as_deref(), told.function.as_deref()), (Some("999"), None));
}

#[test]
fn a_reply_that_a_raw_socket_had_is_not_dropped() {
    let mut scene = Scene::new();
    let place = DropPlace { incoming: true, reason: Some(3), location: 0xabc, ifindex: Some(VTI1) };
    for (protocol, fate) in [(1, Fate::Right), (58, Fate::Right), (17, Fate::Dropped)] {
        let packets = flow(protocol, (0, 0), Some("169.254.55.54"));
        scene.see(1, key(packets, Act::Packet(VTI1)));
        scene.see(2, key(packets, Act::Answer(VTI1)));
        scene.see(3, key(packets, Act::Drop(place)));
        let stories = scene.reports();
        let story = stories.iter().find(|story| story.flow.protocol == protocol).expect("no story");
        assert_eq!((story.fate, story.drops.is_empty()), (fate, fate == Fate::Right), "{protocol}");
    }
}

#[test]
fn a_softirq_names_nobody_and_forwarding_names_the_device() {
    let mut scene = Scene::new();
    let packet = key(flow(6, (179, 40000), Some("169.254.55.54")), Act::Packet(VTI1));
    scene.flows.event(&event(1, packet), Context::Softirq, Purpose::Output);
    assert_eq!(scene.reports()[0].sender, Sender::Softirq);
    let Act::Lookup { table, ifindex, outcome, hook, custom_rules, .. } = lookup(220, ENS5) else { unreachable!() };
    let came_in = Act::Lookup { table, ifindex, outcome, hook, kind: LookupKind::Input, custom_rules };
    let forwarded = key(flow(0, (0, 0), Some("10.1.1.1")), came_in);
    scene.flows.event(&FlowEvent { iif: VTI1, ..event(2, forwarded) }, Context::Softirq, Purpose::Input);
    scene.see(3, key(flow(17, (1, 2), Some("10.1.1.1")), Act::Packet(ENS5)));
    let stories = scene.reports();
    let told = stories.iter().find(|story| story.flow.protocol == 17).expect("the forwarded flow");
    assert_eq!(told.sender, Sender::Forwarded { device: "vti1".into() });
}

#[test]
fn states_and_retransmissions_join_their_connection() {
    let mut scene = Scene::new();
    let connection = flow(6, (40000, 179), Some("192.168.12.49"));
    scene.see(1, key(connection, Act::Packet(ENS5)));
    scene.see(2, key(connection, Act::Retransmission));
    let task = Task { process: 1, thread: 1, comm: "swapper".into() };
    let (old, new) = (TcpState::Close, TcpState::SynSent);
    scene.flows.state(&TcpSeen { time_ns: 3, netns: NETNS, flow: connection, old, new, task: task.clone() });
    // Another namespace's connection of the same addresses is another one.
    scene.flows.state(&TcpSeen { time_ns: 4, netns: 8, flow: connection, old: new, new: TcpState::Established, task });
    let story = &scene.reports()[0];
    assert_eq!((story.retransmissions, story.tcp.len(), story.tcp[0].new), (1, 1, TcpState::SynSent));
}

#[test]
fn a_connection_without_a_lookup_of_its_own_has_its_first_state() {
    let mut scene = Scene::new();
    let source = Some("192.168.12.49");
    let state = |time_ns, port, old, new| {
        let task = Task { process: 1, thread: 1, comm: "bgpd".into() };
        TcpSeen { time_ns, netns: NETNS, flow: flow(6, (port, 179), source), old, new, task }
    };
    // The lookup of the second connection is no first sight any more, and its port comes after its first state.
    scene.see(1, key(flow(6, (0, 179), None), lookup(220, ENS5)));
    for (time_ns, port) in [(2, 40000), (12, 40001)] {
        scene.flows.state(&state(time_ns, 0, TcpState::Close, TcpState::SynSent));
        scene.see(time_ns + 1, key(flow(6, (port, 179), source), Act::Packet(ENS5)));
        scene.flows.state(&state(time_ns + 2, port, TcpState::SynSent, TcpState::Close));
    }
    let stories = scene.reports();
    let states = |port| {
        let story = stories.iter().find(|story| story.flow.source_port == port).expect("no story");
        story.tcp.iter().map(|state| state.new).collect::<Vec<_>>()
    };
    for port in [40000, 40001] {
        assert_eq!(states(port), [TcpState::SynSent, TcpState::Close], "{port}");
    }
}

#[test]
fn there_is_an_end_to_what_is_kept() {
    let mut flows = Flows::default();
    for number in 0..STORIES_MAX + 3 {
        let ports = (u16::try_from(number % 60_000).unwrap() + 1, 179);
        flows.event(&event(1, key(flow(6, ports, None), Act::Packet(ENS5))), Context::Process, Purpose::Output);
    }
    assert_eq!((flows.stories.len(), flows.untold()), (STORIES_MAX, 3));
}
