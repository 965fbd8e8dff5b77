use std::path::PathBuf;

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::draw::draw;
use super::screen::{Over, Sort};
use super::*;
use crate::core::live::Standing;
use crate::core::origin::Purpose;
use crate::core::report::explain::{Did, NexthopReport, RouteReport, WalkStep};
use crate::core::report::flow::{
    Encryption, Fate, Sender, StoryAnswer, StoryDrop, StoryEgress, StoryLookup, StoryReport,
};
use crate::core::report::trace::{FlowReport, LookupResult, TaskReport};

fn flow(flow_id: u32, fate: Fate, device: &str, packets: u64) -> StoryReport {
    StoryReport {
        flow_id,
        flow: FlowReport {
            source: "192.168.12.49".parse().ok(),
            destination: "169.254.55.53".parse().unwrap(),
            protocol: 6,
            source_port: 40000 + u16::try_from(flow_id).unwrap(),
            destination_port: 179,
        },
        netns: 1,
        netns_name: None,
        prefix: "169.254.55.52/30".parse().unwrap(),
        tunnels: vec!["vti1".into()],
        fate,
        sender: Sender::Process(TaskReport { pid: 812, name: "bgpd".into() }),
        probe: false,
        lookups: vec![],
        walk: vec![],
        walk_agrees: None,
        rule: None,
        owner: None,
        source_device: None,
        egress: vec![StoryEgress {
            device: device.into(),
            standing: if fate == Fate::Misrouted { Standing::Wrong } else { Standing::Right },
            packets,
            bytes: packets * 60,
            encryption: None,
        }],
        drops: vec![],
        answers: vec![],
        retransmissions: 0,
        tcp: vec![],
        first: "2026-11-27T19:00:00.000001Z".into(),
        last: format!("2026-11-27T19:00:{:02}.000001Z", flow_id % 60),
    }
}

/// The flow of the incident, whole.
fn hijacked() -> StoryReport {
    let default = RouteReport {
        route: "default".into(),
        table: 220,
        protocol: "static".into(),
        nexthops: vec![NexthopReport { gateway: "192.168.12.1".parse().ok(), device: Some("ens5".into()) }],
    };
    let step = |priority, rule: &str, decided, did| WalkStep { priority, rule: rule.into(), decided, did };
    StoryReport {
        lookups: vec![StoryLookup {
            table: 220,
            device: Some("ens5".into()),
            outcome: LookupResult::Hit,
            errno: None,
            standing: Standing::Wrong,
            purpose: Purpose::Output,
            count: 3,
        }],
        walk: vec![
            step(0, "from all lookup local", false, Did::NoRoute { table: 255, empty: false }),
            step(220, "from all lookup 220", true, Did::Took { route: default }),
        ],
        walk_agrees: Some(true),
        rule: Some("220: from all lookup 220".into()),
        owner: Some("strongSwan".into()),
        source_device: Some("ens5".into()),
        drops: vec![StoryDrop {
            incoming: false,
            reason: Some("XFRM_POLICY".into()),
            function: Some("ip_forward".into()),
            device: Some("ens5".into()),
            packets: 1,
        }],
        retransmissions: 2,
        ..flow(1, Fate::Misrouted, "ens5", 3)
    }
}

fn right() -> StoryReport {
    let mut story = flow(2, Fate::Right, "vti1", 40);
    story.egress[0].encryption = Some(Encryption::By {
        spi: 0xc0de_cafe,
        source: "192.168.12.49".parse().unwrap(),
        destination: "203.0.113.10".parse().unwrap(),
        packets: 40,
        bytes: 2400,
    });
    story.answers = vec![StoryAnswer { device: "vti1".into(), packets: 39, bytes: 2340 }];
    story
}

fn glance() -> Glance {
    Glance {
        host: "gw".into(),
        time: "2026-11-27T19:00:05.123456Z".into(),
        seconds: 5.0,
        lookups: 120,
        packets: 46,
        lost: 0,
        flows: vec![right(), hijacked(), flow(3, Fate::Unanswered, "vti1", 3)],
        tunnels: vec![
            TunnelRow {
                name: "vti1".into(),
                up: true,
                sent: 43,
                received: 39,
                errors: 0,
                association: "0xc0decafe".into(),
            },
            TunnelRow { name: "vti2".into(), up: false, errors: 7, association: "none".into(), ..TunnelRow::default() },
        ],
        sessions: vec![SessionRow {
            flow: "192.168.12.49:40001 -> 169.254.55.53:179".into(),
            state: "SYN-SENT".into(),
            retransmissions: 2,
        }],
    }
}

fn board() -> Board {
    Board::next(None, glance())
}

/// The screen as text, without the blanks at the ends of lines.
fn screenshot(size: (u16, u16), board: &Board, screen: &Screen, whole: Option<&StoryReport>) -> String {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    terminal.draw(|frame| draw(frame, board, screen, whole, true)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| -> String { (0..size.0).map(|x| buffer[(x, y)].symbol()).collect() };
    (0..size.1).map(|y| line(y).trim_end().to_owned() + "\n").collect()
}

/// Compares with the screen that is kept; `VPNFIX_BLESS=1` keeps this one.
#[track_caller]
fn is_as_kept(name: &str, told: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/render/golden").join(format!("live-{name}.txt"));
    if std::env::var_os("VPNFIX_BLESS").is_some() {
        std::fs::write(&path, told).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(told, kept, "{} differs:\n{told}", path.display());
}

#[test]
fn the_incident_fits_a_classic_terminal() {
    is_as_kept("80x24", &screenshot((80, 24), &board(), &Screen::default(), Some(&hijacked())));
}

#[test]
fn a_large_terminal_shows_all_of_it() {
    is_as_kept("200x60", &screenshot((200, 60), &board(), &Screen::default(), Some(&hijacked())));
}

#[test]
fn a_plan_is_shown_over_it_and_asked_about() {
    let lines = vec!["ip rule add priority 100 to 169.254.55.52/30 lookup main protocol 118".to_string()];
    let screen = Screen { over: Over::Plan { lines, can_apply: true }, ..Screen::default() };
    is_as_kept("plan-80x24", &screenshot((80, 24), &board(), &screen, Some(&hijacked())));
}

#[test]
fn verdicts_have_colours_beside_their_words_or_none() {
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    let colors = |terminal: &mut Terminal<TestBackend>, colored| {
        terminal.draw(|frame| draw(frame, &board(), &Screen::default(), None, colored)).unwrap();
        let mut found: Vec<_> = terminal.backend().buffer().content.iter().map(|cell| cell.fg).collect();
        found.sort_by_key(|color| format!("{color:?}"));
        found.dedup();
        found
    };
    use ratatui::style::Color;
    assert_eq!(colors(&mut terminal, false), [Color::Reset]);
    // None but the sixteen.
    assert_eq!(colors(&mut terminal, true), [Color::Green, Color::Red, Color::Reset, Color::Yellow]);
}

#[test]
fn every_size_is_drawn_without_a_panic() {
    let many = Glance {
        flows: (1..1000).map(|number| flow(number, Fate::Right, "vti1", 1)).collect(),
        tunnels: vec![TunnelRow::default(); 300],
        ..glance()
    };
    let board = Board::next(None, many);
    for size in [(1, 1), (39, 24), (40, 12), (80, 11), (81, 25), (300, 100)] {
        for over in
            [Over::Nothing, Over::Help, Over::Filter, Over::Plan { lines: vec![String::new(); 99], can_apply: false }]
        {
            let screen = Screen { over, scroll: u16::MAX, ..Screen::default() };
            screenshot(size, &board, &screen, Some(&hijacked()));
        }
    }
}

#[test]
fn the_worst_is_first_and_keys_change_the_order() {
    let board = board();
    let mut screen = Screen::default();
    let order = |screen: &Screen| screen.rows(&board).iter().map(|flow| flow.flow_id).collect::<Vec<_>>();
    assert_eq!(order(&screen), [1, 3, 2]);
    for (sort, expected) in [(Sort::Rate, [2, 1, 3]), (Sort::Packets, [2, 1, 3]), (Sort::Latest, [3, 2, 1])] {
        assert_eq!(screen.press(Key::Character('s'), &board), None);
        assert_eq!((screen.sort, order(&screen)), (sort, expected.to_vec()));
    }
    screen.press(Key::Character('s'), &board);
    assert_eq!(screen.sort, Sort::Worst);
}

#[test]
fn the_chosen_flow_stays_chosen_when_the_order_changes() {
    let mut screen = Screen::default();
    screen.press(Key::Down, &board());
    assert_eq!(screen.chosen, Some(3));
    let mut later = glance();
    later.flows.push(flow(4, Fate::Dropped, "vti1", 9));
    let board = Board::next(Some(&board()), later);
    assert_eq!(screen.position(&screen.rows(&board)), 2);
    screen.press(Key::End, &board);
    assert_eq!(screen.chosen, Some(2));
    screen.press(Key::Down, &board);
    assert_eq!(screen.chosen, Some(2));
    screen.press(Key::Home, &board);
    assert_eq!(screen.chosen, Some(1));
    // It went: the first stands for it.
    let gone = Screen { chosen: Some(99), ..Screen::default() };
    assert_eq!(gone.position(&gone.rows(&board)), 0);
}

#[test]
fn words_filter_by_all_that_a_row_says() {
    let board = board();
    let mut screen = Screen::default();
    screen.press(Key::Character('/'), &board);
    for character in "ENS5 q".chars() {
        // While words are written, no letter is a command.
        assert_eq!(screen.press(Key::Character(character), &board), None);
    }
    screen.press(Key::Backspace, &board);
    screen.press(Key::Enter, &board);
    assert_eq!((screen.filter.as_str(), &screen.over), ("ENS5 ", &Over::Nothing));
    assert_eq!(screen.rows(&board).len(), 1);
    screen.filter = "bgpd no answer".into();
    assert_eq!(screen.rows(&board)[0].flow_id, 3);
    screen.press(Key::Escape, &board);
    assert_eq!(screen.rows(&board).len(), 3);
}

#[test]
fn a_repair_is_asked_for_twice() {
    let board = board();
    let mut screen = Screen::default();
    assert_eq!(screen.press(Key::Character('y'), &board), None);
    assert_eq!(screen.press(Key::Character('f'), &board), Some(Command::Plan));
    let plan = |can_apply| Over::Plan { lines: vec![], can_apply };
    screen.over = plan(false);
    assert_eq!(screen.press(Key::Character('y'), &board), None);
    screen.over = plan(true);
    assert_eq!(screen.press(Key::Enter, &board), None);
    assert_eq!(screen.over, Over::Nothing);
    screen.over = plan(true);
    assert_eq!(screen.press(Key::Character('y'), &board), Some(Command::Fix));
    assert_eq!(screen.press(Key::Character('q'), &board), Some(Command::Quit));
}

#[test]
fn rates_are_those_since_the_moment_before() {
    let before = board();
    let mut later = glance();
    later.seconds = 7.0;
    later.packets += 20;
    later.flows[1].egress[0].packets += 20;
    let now = Board::next(Some(&before), later);
    assert!((now.packet_rate - 10.0).abs() < 1e-9 && (now.rate(&now.now.flows[1]) - 10.0).abs() < 1e-9);
    assert!(now.rate(&now.now.flows[0]).abs() < 1e-9);
    // A clock that stands still makes no infinite rate.
    assert!(Board::next(Some(&before), glance()).packet_rate.abs() < 1e-9);
}
