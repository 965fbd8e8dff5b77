//! What is ours and what was left unfinished, from every mix of journals and rules.

use proptest::prelude::*;

use super::*;
use crate::core::model::{Family, TABLE_MAIN};

fn ours(priority: u32, to: &str) -> Rule {
    let to: ipnet::IpNet = to.parse().unwrap();
    Rule { protocol: VPNFIX_PROTOCOL, to: Some(to), ..Rule::lookup(Family::of(to.addr()), priority, TABLE_MAIN) }
}

fn here() -> Place {
    Place { boot_id: "0d9c7d6e".into(), netns_inode: 4_026_532_000 }
}

fn journal(rules: Vec<(Rule, Stage)>) -> Journal {
    let header = Header {
        format: FORMAT,
        vpnfix: "0.1.0".into(),
        place: here(),
        netns_name: None,
        pid: 1,
        began: 1_700_000_000,
    };
    Journal { header, rules: rules.into_iter().map(|(rule, stage)| Recorded { rule, stage }).collect() }
}

#[test]
fn half_a_change_is_told_from_one_that_was_kept() {
    let (kept, added, intended) = (ours(100, "10.0.0.0/8"), ours(101, "10.1.0.0/16"), ours(102, "10.2.0.0/16"));
    let journal =
        journal(vec![(kept.clone(), Stage::Kept), (added.clone(), Stage::Added), (intended.clone(), Stage::Intended)]);
    let standing = [kept.clone(), added.clone(), Rule::lookup(Family::V4, 220, 220)];
    let found = reconcile(&Record::Whole(journal), &here(), &standing).unwrap();
    assert_eq!((found.unfinished, found.kept, found.interrupted), (vec![added], vec![kept], true));
    assert!(found.gone.is_empty() && found.doubt.is_none());
}

#[test]
fn a_rule_that_others_deleted_or_made_their_own_is_told() {
    let (first, second) = (ours(100, "10.0.0.0/8"), ours(101, "10.1.0.0/16"));
    let networkds = Rule { protocol: 4, ..second.clone() };
    let journal = journal(vec![(first.clone(), Stage::Kept), (second.clone(), Stage::Kept)]);
    let found = reconcile(&Record::Whole(journal), &here(), std::slice::from_ref(&networkds)).unwrap();
    assert_eq!(found.gone, [first, second]);
    assert_eq!(found.taken_over, [networkds]);
    assert!(found.own().is_empty() && !found.interrupted);
}

#[test]
fn a_journal_of_another_boot_or_namespace_finishes_nothing() {
    let rule = ours(100, "10.0.0.0/8");
    let standing = [rule.clone()];
    let mut journal = journal(vec![(rule.clone(), Stage::Added)]);
    journal.header.place.boot_id = "ffff".into();
    let found = reconcile(&Record::Whole(journal.clone()), &here(), &standing).unwrap();
    assert_eq!((found.doubt, found.kept, found.interrupted), (Some(Doubt::OtherBoot), vec![rule.clone()], false));
    journal.header.place = Place { netns_inode: 7, ..here() };
    let found = reconcile(&Record::Whole(journal), &here(), &standing).unwrap();
    assert_eq!((found.doubt, found.kept), (Some(Doubt::OtherNamespace(7)), vec![rule]));
}

#[test]
fn a_newer_journal_decides_nothing() {
    let newer = Record::Newer { format: 9, vpnfix: "3.0.0".into() };
    let told = reconcile(&newer, &here(), &[ours(100, "10.0.0.0/8")]).unwrap_err().to_string();
    assert!(told.contains("3.0.0") && told.contains("format 9"), "{told}");
}

#[test]
fn entries_round_trip_and_a_number_without_a_rule_makes_no_sense() {
    let mut journal = journal(Vec::new());
    let entry = Entry::Rule(Box::new(Recorded { rule: ours(100, "fd00::/126"), stage: Stage::Intended }));
    let text = serde_json::to_string(&entry).unwrap();
    assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), entry);
    assert!(!journal.take(Entry::Stage(0, Stage::Added)));
    assert!(journal.take(entry) && journal.take(Entry::Stage(0, Stage::Added)));
    assert_eq!(journal.rules[0].stage, Stage::Added);
}

fn any_rule() -> impl Strategy<Value = Rule> {
    // A small pool, so that rules of the journal and of the kernel meet.
    (98_u32..103, 0_u8..4, prop_oneof![Just(0_u8), Just(4), Just(VPNFIX_PROTOCOL)])
        .prop_map(|(priority, second, protocol)| Rule { protocol, ..ours(priority, &format!("10.{second}.0.0/16")) })
}

fn any_stage() -> impl Strategy<Value = Stage> {
    prop_oneof![Just(Stage::Intended), Just(Stage::Added), Just(Stage::Kept), Just(Stage::Doomed), Just(Stage::Removed)]
}

fn any_record() -> impl Strategy<Value = Record> {
    let whole = (proptest::collection::vec((any_rule(), any_stage()), 0..8), any::<bool>(), any::<bool>()).prop_map(
        |(rules, same_boot, same_namespace)| {
            let mut journal = journal(rules);
            if !same_boot {
                journal.header.place.boot_id.push('x');
            }
            journal.header.place.netns_inode += u64::from(!same_namespace);
            Record::Whole(journal)
        },
    );
    prop_oneof![
        4 => whole,
        1 => Just(Record::None),
        1 => Just(Record::Broken("garbage".into())),
        1 => Just(Record::Newer { format: 2, vpnfix: "9".into() }),
    ]
}

proptest! {
    /// Nothing is ever up for deletion that does not stand or does not carry the number; and nothing of ours is missed.
    #[test]
    fn exactly_the_standing_rules_with_the_number_are_ours(
        record in any_record(),
        standing in proptest::collection::vec(any_rule(), 0..10),
    ) {
        let Ok(found) = reconcile(&record, &here(), &standing) else {
            let is_newer = matches!(record, Record::Newer { .. });
            prop_assert!(is_newer);
            return Ok(());
        };
        let sorted = |mut rules: Vec<Rule>| {
            rules.sort_by_key(ToString::to_string);
            rules
        };
        let numbered: Vec<Rule> = standing.iter().filter(|rule| rule.protocol == VPNFIX_PROTOCOL).cloned().collect();
        prop_assert_eq!(sorted(found.own()), sorted(numbered));
        prop_assert!(found.taken_over.iter().all(|rule| rule.protocol != VPNFIX_PROTOCOL));
        prop_assert!(found.gone.iter().all(|rule| !standing.contains(rule)));
    }

    /// What the next `fix` takes back first is in a journal of here, or the journal cannot be understood.
    #[test]
    fn only_a_journal_of_here_or_a_broken_one_makes_a_rule_unfinished(
        record in any_record(),
        standing in proptest::collection::vec(any_rule(), 0..10),
    ) {
        let Ok(found) = reconcile(&record, &here(), &standing) else { return Ok(()) };
        match &record {
            Record::Whole(journal) if journal.header.place == here() => {
                for rule in &found.unfinished {
                    prop_assert!(journal.rules.iter().any(|recorded| recorded.rule == *rule));
                }
            }
            Record::Broken(_) => prop_assert!(found.kept.is_empty()),
            _ => prop_assert!(found.unfinished.is_empty() && !found.interrupted),
        }
    }
}
