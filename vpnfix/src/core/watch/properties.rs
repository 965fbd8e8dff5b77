//! Random sequences of events: what must never happen does not, and what must be possible stays so.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::core::model::{Family, Rule, TABLE_MAIN};
use crate::core::owner::VPNFIX_PROTOCOL;

const TUNNELS: [&str; 3] = ["t1", "t2", "t3"];

#[derive(Clone, Debug)]
enum Step {
    /// So many milliseconds pass.
    Pass(u64),
    Event(Event),
    /// The loop repairs if it is wanted, and the repair takes so many milliseconds.
    Serve(RepairEnd, u64),
    /// A repair is begun and its end comes only with later steps.
    Begin,
}

fn health() -> impl Strategy<Value = Health> {
    (select(TUNNELS.to_vec()), prop::option::of(any::<bool>()), any::<bool>()).prop_map(|(tunnel, wrong, steered)| {
        let wrong = wrong.map(|curable| Wrong { what: "wrong".into(), curable });
        Health { tunnel: tunnel.into(), wrong, steered }
    })
}

fn end() -> impl Strategy<Value = RepairEnd> {
    prop_oneof![
        3 => Just(RepairEnd::Applied { rules: 1 }),
        1 => Just(RepairEnd::Failed("refused".into())),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let sight = select(vec![Sight::WrongLookup, Sight::WrongPacket, Sight::RightPacket]);
    prop_oneof![
        6 => prop::collection::vec(health(), 0..4).prop_map(Event::Judged),
        3 => (select(TUNNELS.to_vec()), sight, 0_u64..2_000_000).prop_map(|(tunnel, sight, at)| Event::Seen {
            tunnel: tunnel.into(),
            sight,
            at: Duration::from_millis(at),
            what: "seen".into(),
        }),
        2 => Just(Event::TakenAway { by: "somebody".into() }),
        1 => end().prop_map(Event::RepairEnded),
        1 => Just(Event::Confirmed("packets".into())),
        1 => Just(Event::NotConfirmed("silence".into())),
        1 => any::<bool>().prop_map(Event::Held),
        1 => Just(Event::Reset),
        1 => Just(Event::Tick),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop_oneof![0_u64..300, 0_u64..100_000].prop_map(Step::Pass),
        6 => event().prop_map(Step::Event),
        4 => (end(), 0_u64..50).prop_map(|(end, took)| Step::Serve(end, took)),
        1 => Just(Step::Begin),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    (0_u32..5, 1_u64..120, 0_u64..2000, 1_u64..400, 0_u32..5, 1_u64..4000).prop_map(
        |(repairs, window, pause, longest, fight_after, calm)| Limits {
            repairs,
            window: Duration::from_secs(window),
            pause: Duration::from_millis(pause),
            longest_pause: Duration::from_secs(longest),
            fight_after,
            calm: Duration::from_secs(calm),
        },
    )
}

/// A run of the machine, with what it did.
struct Run {
    watcher: Watcher,
    now: Moment,
    repairs: Vec<Moment>,
    states: HashMap<String, TunnelState>,
}

impl Run {
    fn of(mode: Mode, limits: Limits, steps: Vec<Step>) -> Result<Self, TestCaseError> {
        let watcher = Watcher::new(mode, limits);
        let mut run = Self { watcher, now: Duration::from_secs(1000), repairs: Vec::new(), states: HashMap::new() };
        for step in steps {
            match step {
                Step::Pass(milliseconds) => run.now += Duration::from_millis(milliseconds),
                Step::Event(event) => run.take(event)?,
                Step::Serve(end, took) => {
                    if run.begin()? {
                        run.now += Duration::from_millis(took);
                        run.take(Event::RepairEnded(end))?;
                    }
                }
                Step::Begin => {
                    run.begin()?;
                }
            }
        }
        Ok(run)
    }

    fn begin(&mut self) -> Result<bool, TestCaseError> {
        let wanted = self.watcher.want(self.now);
        let Some((_permit, told)) = self.watcher.begin(self.now) else {
            prop_assert_ne!(wanted, Want::Repair);
            return Ok(false);
        };
        prop_assert_eq!(wanted, Want::Repair);
        prop_assert!(!self.watcher.is_held());
        prop_assert!(!told.is_empty(), "a repair of nothing");
        // One at a time.
        prop_assert!(self.watcher.begin(self.now).is_none());
        self.repairs.push(self.now);
        self.note(&told)?;
        Ok(true)
    }

    fn take(&mut self, event: Event) -> Result<(), TestCaseError> {
        let told = self.watcher.take(self.now, event);
        self.note(&told)
    }

    /// Every change of state is told, in order, each with its evidence.
    fn note(&mut self, told: &[Transition]) -> Result<(), TestCaseError> {
        for transition in told {
            prop_assert_ne!(transition.from, transition.to);
            prop_assert!(!transition.evidence.to_string().is_empty());
            let before = self.states.insert(transition.tunnel.clone(), transition.to);
            prop_assert_eq!(before.unwrap_or(TunnelState::Gone), transition.from);
        }
        for (name, state) in self.watcher.states() {
            prop_assert_eq!(self.states.get(name).copied().unwrap_or(TunnelState::Gone), state);
        }
        Ok(())
    }

    /// Lets the loop do what it would: it repairs when that is wanted and waits when it is told to.
    fn serve_until_settled(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..4 {
            match self.watcher.want(self.now) {
                Want::Repair => {
                    self.begin()?;
                    self.take(Event::RepairEnded(RepairEnd::Applied { rules: 1 }))?;
                }
                Want::WaitUntil(then) => {
                    self.now = then;
                    self.take(Event::Tick)?;
                    self.take(all(Some(true)))?;
                }
                Want::Nothing => return Ok(()),
            }
        }
        Ok(())
    }
}

fn all(wrong: Option<bool>) -> Event {
    let wrong = wrong.map(|curable| Wrong { what: "wrong".into(), curable });
    Event::Judged(
        TUNNELS.iter().map(|name| Health { tunnel: (*name).into(), wrong: wrong.clone(), steered: false }).collect(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_more_repairs_than_allowed(limits in limits(), steps in prop::collection::vec(step(), 0..120)) {
        let run = Run::of(Mode::Fix, limits, steps)?;
        let most = usize::try_from(limits.repairs.max(1)).expect("a small number");
        for (index, first) in run.repairs.iter().enumerate() {
            let within = run.repairs[index..].iter().filter(|repair| **repair < *first + limits.window).count();
            prop_assert!(within <= most, "{within} repairs within a window for {most}");
        }
        for pair in run.repairs.windows(2) {
            prop_assert!(pair[1] - pair[0] >= limits.pause.min(limits.longest_pause));
        }
    }

    #[test]
    fn report_mode_never_repairs(limits in limits(), steps in prop::collection::vec(step(), 0..120)) {
        let run = Run::of(Mode::Report, limits, steps)?;
        prop_assert!(run.repairs.is_empty());
        prop_assert_eq!(run.watcher.want(run.now), Want::Nothing);
    }

    #[test]
    fn no_state_is_stuck(limits in limits(), steps in prop::collection::vec(step(), 0..120)) {
        let mut run = Run::of(Mode::Fix, limits, steps)?;
        run.take(Event::RepairEnded(RepairEnd::Failed("ended".into())))?;
        let mut well = Run { watcher: run.watcher.clone(), states: run.states.clone(), repairs: Vec::new(), now: run.now };
        // All right: whatever came before, every tunnel is healthy.
        well.take(all(None))?;
        for name in TUNNELS {
            prop_assert_eq!(well.watcher.state(name), Some(TunnelState::Healthy));
        }
        // Wrong and curable: with time alone it comes to a repair.
        run.take(Event::Held(false))?;
        run.take(all(Some(true)))?;
        run.serve_until_settled()?;
        for name in TUNNELS {
            prop_assert_eq!(run.watcher.state(name), Some(TunnelState::Unconfirmed));
        }
        // And gone is gone.
        run.take(Event::Judged(Vec::new()))?;
        for name in TUNNELS {
            prop_assert_eq!(run.watcher.state(name), Some(TunnelState::Gone));
        }
    }
}

/// What happens to the ledger.
#[derive(Clone, Debug)]
enum Entry {
    Adopt(Vec<Rule>),
    Add(Vec<Rule>),
    Lose(Rule),
    Withdraw(HashSet<ipnet::IpNet>),
}

fn rule() -> impl Strategy<Value = Rule> {
    (0_u8..6, 90_u32..93, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(net, priority, ours, wide, closing)| {
            let mut rule = Rule::lookup(Family::V4, priority, TABLE_MAIN);
            rule.protocol = if ours { VPNFIX_PROTOCOL } else { 4 };
            rule.to = (!wide).then(|| prefix(net));
            if closing {
                rule.action = crate::core::model::RuleAction::Unreachable;
            }
            rule
        },
    )
}

fn prefix(number: u8) -> ipnet::IpNet {
    format!("10.{number}.0.0/16").parse().expect("a prefix")
}

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        1 => prop::collection::vec(rule(), 0..5).prop_map(Entry::Adopt),
        3 => prop::collection::vec(rule(), 0..4).prop_map(Entry::Add),
        2 => rule().prop_map(Entry::Lose),
        3 => prop::collection::hash_set((0_u8..6).prop_map(prefix), 0..6).prop_map(Entry::Withdraw),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_deleted_that_was_not_added(entries in prop::collection::vec(entry(), 0..60)) {
        let mut ledger = Ledger::default();
        let mut standing: HashSet<Rule> = HashSet::new();
        for entry in entries {
            match entry {
                Entry::Adopt(rules) => {
                    ledger.adopt(&rules);
                    standing = rules.into_iter().collect();
                }
                Entry::Add(rules) => {
                    ledger.add(&rules);
                    standing.extend(rules);
                }
                Entry::Lose(rule) => {
                    let was_ours = standing.remove(&rule) && rule.protocol == VPNFIX_PROTOCOL;
                    prop_assert_eq!(ledger.lose(&rule), was_ours);
                }
                Entry::Withdraw(prefixes) => {
                    for rule in ledger.withdraw(&prefixes) {
                        prop_assert!(standing.remove(&rule), "deleted and never added: {}", rule);
                        prop_assert_eq!(rule.protocol, VPNFIX_PROTOCOL);
                        prop_assert!(rule.to.is_some_and(|to| !prefixes.contains(&to)));
                    }
                }
            }
        }
    }
}
