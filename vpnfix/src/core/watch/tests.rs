use super::*;

const TUNNEL: &str = "vti1";

fn at(seconds: f64) -> Moment {
    Duration::from_secs_f64(1000.0 + seconds)
}

fn well() -> Event {
    Event::Judged(vec![Health { tunnel: TUNNEL.into(), wrong: None, steered: false }])
}

fn steered() -> Event {
    Event::Judged(vec![Health { tunnel: TUNNEL.into(), wrong: None, steered: true }])
}

fn wrong(curable: bool) -> Event {
    let wrong = Some(Wrong { what: "10.20.0.0/16 leaves by ens5".into(), curable });
    Event::Judged(vec![Health { tunnel: TUNNEL.into(), wrong, steered: false }])
}

fn seen(sight: Sight, at: Moment) -> Event {
    Event::Seen { tunnel: TUNNEL.into(), sight, at, what: "10.20.0.1 by ens5".into() }
}

fn watcher() -> Watcher {
    Watcher::new(Mode::Fix, Limits { fight_after: 3, ..Limits::default() })
}

/// The state after each event.
#[track_caller]
fn walk(watcher: &mut Watcher, steps: Vec<(f64, Event, TunnelState)>) {
    for (index, (seconds, event, expected)) in steps.into_iter().enumerate() {
        watcher.take(at(seconds), event);
        assert_eq!(watcher.state(TUNNEL), Some(expected), "step {index}");
    }
}

#[track_caller]
fn repair(watcher: &mut Watcher, seconds: f64, end: RepairEnd) {
    let (_permit, told) = watcher.begin(at(seconds)).expect("no repair is allowed");
    assert!(told.iter().all(|transition| transition.to == TunnelState::Repairing));
    watcher.take(at(seconds), Event::RepairEnded(end));
}

fn applied() -> RepairEnd {
    RepairEnd::Applied { rules: 1 }
}

#[test]
fn a_hijack_is_repaired_at_once_and_confirmed() {
    let mut watcher = watcher();
    walk(&mut watcher, vec![(0.0, well(), TunnelState::Healthy), (1.0, wrong(true), TunnelState::Misrouted)]);
    assert_eq!(watcher.want(at(1.0)), Want::Repair);
    repair(&mut watcher, 1.0, applied());
    assert_eq!(watcher.want(at(1.0)), Want::Nothing);
    let confirmed = Event::Confirmed("a packet".into());
    walk(&mut watcher, vec![(1.1, steered(), TunnelState::Unconfirmed), (2.3, confirmed, TunnelState::Repaired)]);
    walk(&mut watcher, vec![(3.0, steered(), TunnelState::Repaired), (4.0, well(), TunnelState::Healthy)]);
}

#[test]
fn a_lookup_is_a_suspicion_and_a_packet_is_proof() {
    let mut watcher = watcher();
    walk(
        &mut watcher,
        vec![
            (0.0, well(), TunnelState::Healthy),
            (1.0, seen(Sight::WrongLookup, at(1.0)), TunnelState::Suspected),
            (1.0, well(), TunnelState::Healthy),
            (2.0, seen(Sight::WrongPacket, at(2.0)), TunnelState::Misrouted),
        ],
    );
    // Only the kernel's answers say whether a rule would cure it.
    assert_eq!(watcher.want(at(2.0)), Want::Nothing);
    walk(&mut watcher, vec![(2.0, wrong(true), TunnelState::Misrouted)]);
    assert_eq!(watcher.want(at(2.0)), Want::Repair);
}

#[test]
fn what_was_seen_before_the_change_does_not_count_against_it() {
    let mut watcher = watcher();
    walk(&mut watcher, vec![(0.0, wrong(true), TunnelState::Misrouted)]);
    repair(&mut watcher, 0.0, applied());
    walk(
        &mut watcher,
        vec![
            (0.3, seen(Sight::WrongPacket, at(0.1)), TunnelState::Unconfirmed),
            (0.4, seen(Sight::WrongPacket, at(0.4)), TunnelState::Misrouted),
        ],
    );
}

#[test]
fn nothing_is_repaired_in_report_mode_or_under_a_hold() {
    let mut reporting = Watcher::new(Mode::Report, Limits::default());
    walk(&mut reporting, vec![(0.0, wrong(true), TunnelState::Misrouted)]);
    assert_eq!(reporting.want(at(0.0)), Want::Nothing);
    assert!(reporting.begin(at(0.0)).is_none());
    let mut held = watcher();
    held.take(at(0.0), Event::Held(true));
    walk(&mut held, vec![(0.0, wrong(true), TunnelState::Misrouted)]);
    assert!(held.begin(at(0.0)).is_none());
    held.take(at(1.0), Event::Held(false));
    assert_eq!(held.want(at(1.0)), Want::Repair);
}

#[test]
fn rules_taken_away_again_and_again_are_a_fight_that_ends_with_calm() {
    let mut watcher = watcher();
    walk(&mut watcher, vec![(0.0, wrong(true), TunnelState::Misrouted)]);
    repair(&mut watcher, 0.0, applied());
    for round in [10.0, 20.0] {
        watcher.take(at(round), Event::TakenAway { by: "systemd-networkd".into() });
        walk(&mut watcher, vec![(round, wrong(true), TunnelState::Misrouted)]);
        repair(&mut watcher, round, applied());
    }
    watcher.take(at(30.0), Event::TakenAway { by: "systemd-networkd".into() });
    let told = watcher.take(at(30.0), wrong(true));
    let expected = Evidence::TakenAway { times: 3, by: "systemd-networkd".into() };
    assert_eq!(
        told.iter().map(|told| (told.to, &told.evidence)).collect::<Vec<_>>(),
        [(TunnelState::Fighting, &expected)]
    );
    // One loud finding, and no more.
    assert!(watcher.take(at(31.0), wrong(true)).is_empty());
    assert!(watcher.begin(at(31.0)).is_none());
    let calm = Limits::default().calm.as_secs_f64();
    assert_eq!(watcher.want(at(31.0)), Want::WaitUntil(at(30.0 + calm)));
    walk(&mut watcher, vec![(30.0 + calm, Event::Tick, TunnelState::Misrouted)]);
    repair(&mut watcher, 30.0 + calm, applied());
    // One loss more is a fight at once.
    watcher.take(at(40.0 + calm), Event::TakenAway { by: "systemd-networkd".into() });
    walk(&mut watcher, vec![(40.0 + calm, wrong(true), TunnelState::Fighting)]);
    walk(&mut watcher, vec![(41.0 + calm, Event::Reset, TunnelState::Misrouted)]);
}

#[test]
fn rules_that_nobody_needs_may_be_taken_away() {
    let mut watcher = watcher();
    for round in 0..50 {
        watcher.take(at(f64::from(round)), Event::TakenAway { by: "ip".into() });
        walk(&mut watcher, vec![(f64::from(round), well(), TunnelState::Healthy)]);
    }
    assert_eq!(watcher.losses(), (0, None));
}

#[test]
fn a_repair_that_fails_is_tried_again_ever_later() {
    let mut watcher = watcher();
    walk(&mut watcher, vec![(0.0, wrong(true), TunnelState::Misrouted)]);
    let mut now = 0.0;
    let mut pauses = Vec::new();
    for _ in 0..14 {
        repair(&mut watcher, now, RepairEnd::Failed("refused".into()));
        walk(&mut watcher, vec![(now, wrong(true), TunnelState::Failed)]);
        let Want::WaitUntil(next) = watcher.want(at(now)) else { panic!("no pause") };
        pauses.push((next - at(now)).as_secs_f64());
        now = (next - at(0.0)).as_secs_f64() + 0.001;
    }
    assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]), "{pauses:?}");
    assert!(pauses.last().is_some_and(|last| (*last - 300.0).abs() < 0.01), "{pauses:?}");
}

#[test]
fn what_no_rule_cures_is_failed_until_it_is_right_or_curable() {
    let mut watcher = watcher();
    walk(&mut watcher, vec![(0.0, wrong(false), TunnelState::Failed)]);
    assert_eq!(watcher.want(at(0.0)), Want::Nothing);
    walk(&mut watcher, vec![(1.0, wrong(true), TunnelState::Failed)]);
    assert_eq!(watcher.want(at(1.0)), Want::Repair);
    walk(&mut watcher, vec![(2.0, well(), TunnelState::Healthy)]);
}

#[test]
fn tunnels_come_and_go() {
    let mut watcher = watcher();
    walk(&mut watcher, vec![(0.0, wrong(true), TunnelState::Misrouted)]);
    walk(&mut watcher, vec![(1.0, Event::Judged(Vec::new()), TunnelState::Gone)]);
    assert_eq!(watcher.want(at(1.0)), Want::Nothing);
    walk(&mut watcher, vec![(2.0, steered(), TunnelState::Unconfirmed)]);
    walk(&mut watcher, vec![(3.0, seen(Sight::RightPacket, at(3.0)), TunnelState::Repaired)]);
    for number in 0..1000 {
        let tunnel = format!("t{number}");
        watcher.take(at(4.0), Event::Judged(vec![Health { tunnel, wrong: None, steered: false }]));
    }
    assert!(watcher.states().count() <= GONE_KEPT + 1);
}
