//! Drawing a board. Only the sixteen colours of a terminal, no mouse, words beside each colour.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Clear, Paragraph, Row, Table, TableState};

use super::board::{Board, packets};
use super::screen::{Over, Screen};
use crate::core::report::flow::{Fate, StoryReport};
use crate::core::report::trace::FlowReport;
use crate::render::trace::{clock, flow_words};
use crate::render::{Palette, story};

/// The least that the view can be drawn on.
const SMALLEST: (u16, u16) = (40, 12);

/// A fate in words.
#[must_use]
pub fn fate_word(fate: Fate) -> &'static str {
    match fate {
        Fate::Misrouted => "MISROUTED",
        Fate::Dropped => "DROPPED",
        Fate::Refused => "REFUSED",
        Fate::Unanswered => "no answer",
        Fate::Right => "right",
        Fate::NotJudged => "not judged",
    }
}

/// Draws it all. `whole` is the chosen flow with its walk.
pub fn draw(frame: &mut Frame<'_>, board: &Board, screen: &Screen, whole: Option<&StoryReport>, colored: bool) {
    let area = frame.area();
    let ink = Ink { colored };
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        frame.render_widget(Paragraph::new("too small"), area);
        return;
    }
    let known = board.now.tunnels.len() + board.now.sessions.len();
    // Tunnels and sessions take a fifth, the flows two fifths, the story the rest.
    let most_known = usize::from(area.height / 5).max(2);
    let known_rows = u16::try_from(known.clamp(1, most_known)).unwrap_or(1);
    let flow_rows = (area.height - known_rows - 2) * 2 / 5;
    let parts = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(known_rows),
        Constraint::Length(flow_rows),
        Constraint::Min(3),
        Constraint::Length(1),
    ]);
    let [title, known, flows, story, keys] = parts.areas(area);
    self::title(frame, title, board, screen, ink);
    self::known(frame, known, board, ink);
    self::flows(frame, flows, board, screen, ink);
    self::story(frame, story, screen, whole, ink);
    self::keys(frame, keys, screen, ink);
    match &screen.over {
        Over::Plan { lines, can_apply } => plan(frame, area, lines, *can_apply),
        Over::Help => help(frame, area),
        Over::Filter | Over::Nothing => {}
    }
}

/// Colours, or none.
#[derive(Clone, Copy)]
struct Ink {
    colored: bool,
}

impl Ink {
    fn color(self, color: Color) -> Style {
        if self.colored { Style::new().fg(color) } else { Style::new() }
    }

    fn fate(self, fate: Fate) -> Style {
        match fate {
            Fate::Misrouted | Fate::Dropped | Fate::Refused => self.color(Color::Red).add_modifier(Modifier::BOLD),
            Fate::Unanswered => self.color(Color::Yellow),
            Fate::Right => self.color(Color::Green),
            Fate::NotJudged => Style::new(),
        }
    }
}

fn title(frame: &mut Frame<'_>, area: Rect, board: &Board, screen: &Screen, ink: Ink) {
    let now = &board.now;
    let wrong = [Fate::Misrouted, Fate::Dropped, Fate::Refused].map(|fate| (board.count(fate), fate));
    let mut spans = vec![
        Span::styled("vpnfix trace", Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!(
            " {}  {}  {} flows",
            now.host,
            clock(&now.time).get(..8).unwrap_or_default(),
            now.flows.len()
        )),
    ];
    if screen.paused {
        spans.push(Span::styled("  PAUSED", ink.color(Color::Yellow).add_modifier(Modifier::BOLD)));
    }
    for (count, fate) in wrong.into_iter().filter(|(count, _)| *count > 0) {
        spans.push(Span::styled(format!("  {count} {}", fate_word(fate)), ink.fate(fate)));
    }
    spans.push(Span::raw(format!("  {}/s lookups  {}/s packets", rate(board.lookup_rate), rate(board.packet_rate))));
    if now.lost > 0 {
        spans.push(Span::styled(format!("  {} lost", now.lost), ink.color(Color::Yellow)));
    }
    frame.render_widget(Paragraph::new(Line::from(spans)), area);
}

/// Three digits are enough: `0`, `1.5`, `12`, `3400`, `12k`.
fn rate(rate: f64) -> String {
    match rate {
        rate if rate <= 0.0 => "0".into(),
        rate if rate < 9.95 => format!("{rate:.1}"),
        rate if rate < 10_000.0 => format!("{rate:.0}"),
        rate => format!("{:.0}k", rate / 1000.0),
    }
}

fn known(frame: &mut Frame<'_>, area: Rect, board: &Board, ink: Ink) {
    let tunnels = board.now.tunnels.iter().map(|tunnel| {
        let (state, style) = if tunnel.up { ("up", ink.color(Color::Green)) } else { ("DOWN", ink.color(Color::Red)) };
        let errors = if tunnel.errors > 0 { ink.color(Color::Red) } else { Style::new() };
        Line::from(vec![
            Span::raw(format!("tunnel  {:<11} ", tunnel.name)),
            Span::styled(format!("{state:<4}"), style),
            Span::raw(format!(" sent {:<7} recv {:<7} ", tunnel.sent, tunnel.received)),
            Span::styled(format!("err {:<4}", tunnel.errors), errors),
            Span::raw(format!(" SA {}", tunnel.association)),
        ])
    });
    let sessions = board.now.sessions.iter().map(|session| {
        let style = if session.state == "ESTABLISHED" { ink.color(Color::Green) } else { ink.color(Color::Yellow) };
        Line::from(vec![
            Span::raw(format!("bgp     {} ", session.flow)),
            Span::styled(session.state.clone(), style),
            Span::raw(format!("  {} sent again", session.retransmissions)),
        ])
    });
    let mut lines: Vec<Line<'_>> = tunnels.chain(sessions).collect();
    let room = usize::from(area.height);
    if lines.len() > room {
        let hidden = lines.len() - room + 1;
        lines.truncate(room - 1);
        lines.push(Line::from(format!("… and {hidden} more tunnels and sessions")));
    }
    if lines.is_empty() {
        lines.push(Line::from("no tunnel here"));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// From this width on a row has both addresses.
const WIDE: u16 = 100;

/// A flow without its source address: `tcp :40000 -> 10.0.0.2:179`. The story has it.
fn short_flow(flow: &FlowReport) -> String {
    let words = flow_words(flow);
    let source = flow.source.map_or_else(|| "*".to_owned(), |source| source.to_string());
    words.replacen(&source, if flow.source_port == 0 { "*" } else { "" }, 1)
}

fn flows(frame: &mut Frame<'_>, area: Rect, board: &Board, screen: &Screen, ink: Ink) {
    let rows = screen.rows(board);
    let at = screen.position(&rows);
    let cells = |flow: &&StoryReport| {
        let devices: Vec<&str> = flow.egress.iter().map(|egress| egress.device.as_str()).collect();
        let answers: u64 = flow.answers.iter().map(|answer| answer.packets).sum();
        Row::new(vec![
            Cell::from(Span::styled(fate_word(flow.fate), ink.fate(flow.fate))),
            Cell::from(if area.width < WIDE { short_flow(&flow.flow) } else { flow_words(&flow.flow) }),
            Cell::from(devices.join(",")),
            Cell::from(packets(flow).to_string()),
            Cell::from(answers.to_string()),
            Cell::from(rate(board.rate(flow))),
        ])
    };
    let widths = [
        Constraint::Length(10),
        Constraint::Min(30),
        Constraint::Length(10),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(5),
    ];
    let filter = if screen.filter.is_empty() { String::new() } else { format!(", with \"{}\"", screen.filter) };
    let heading = format!(" {} flows, {} first{filter} ", rows.len(), screen.sort.word());
    let table = Table::new(rows.iter().map(cells), widths)
        .header(
            Row::new(["verdict", "flow", "by", "sent", "back", "/s"]).style(Style::new().add_modifier(Modifier::BOLD)),
        )
        .block(Block::new().borders(Borders::TOP).title(heading))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::default().with_selected((!rows.is_empty()).then_some(at));
    frame.render_stateful_widget(table, area, &mut state);
}

fn story(frame: &mut Frame<'_>, area: Rect, screen: &Screen, whole: Option<&StoryReport>, ink: Ink) {
    let Some(flow) = whole else {
        let block = Block::new().borders(Borders::TOP);
        frame.render_widget(Paragraph::new("no traffic of a tunnel was seen yet").block(block), area);
        return;
    };
    let heading = Line::from(vec![
        Span::raw(format!(" {} ", flow_words(&flow.flow))),
        Span::styled(format!("{} ", fate_word(flow.fate)), ink.fate(flow.fate)),
    ]);
    let block = Block::new().borders(Borders::TOP).title(heading);
    let text = story::body(flow, Palette::new(false));
    // Wrapped by ourselves, so that it is known how many lines there are.
    let width = usize::from(area.width.max(1));
    let lines: Vec<Line<'_>> = text.lines().flat_map(|line| wrapped(line, width)).map(Line::from).collect();
    let room = usize::from(area.height.saturating_sub(1));
    let last = u16::try_from(lines.len().saturating_sub(room)).unwrap_or(u16::MAX);
    frame.render_widget(Paragraph::new(lines).block(block).scroll((screen.scroll.min(last), 0)), area);
}

/// A line of a story in as many as it takes; what follows stands under its words.
fn wrapped(line: &str, width: usize) -> Vec<String> {
    let options = textwrap::Options::new(width)
        .subsequent_indent("                ")
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::wrap(line, options).into_iter().map(std::borrow::Cow::into_owned).collect()
}

fn keys(frame: &mut Frame<'_>, area: Rect, screen: &Screen, ink: Ink) {
    let line = match (&screen.over, screen.message.as_str()) {
        (Over::Filter, _) => Line::from(format!("filter: {}_   (Enter keeps it, Esc drops it)", screen.filter)),
        (_, "") => Line::from("up/down choose  / filter  s sort  p pause  f fix plan  w write  ? help  q quit"),
        (_, message) => Line::from(Span::styled(message.to_owned(), ink.color(Color::Yellow))),
    };
    frame.render_widget(Paragraph::new(line), area);
}

fn plan(frame: &mut Frame<'_>, area: Rect, lines: &[String], can_apply: bool) {
    let ask = if can_apply { " y: do it   any other key: back " } else { " any key: back " };
    over(frame, area, " what `vpnfix fix` would do ", ask, lines.to_vec());
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let lines = [
        "up, down, k, j    choose a flow          Home, End   the first, the last",
        "PgUp, PgDn        move its story         s           sort: worst, rate, packets, latest",
        "/                 filter by words        Esc         no filter",
        "p, space          stand still            w           write what is seen as JSON Lines",
        "f                 what `fix` would do; it is done only after y",
        "Ctrl-Z            to the shell, `fg` comes back      q, Ctrl-C   end",
    ];
    over(frame, area, " keys ", " any key: back ", lines.map(str::to_owned).to_vec());
}

fn over(frame: &mut Frame<'_>, area: Rect, title: &str, ask: &str, lines: Vec<String>) {
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).clamp(4, area.height);
    let place = Rect { x: area.x, y: area.y + (area.height - height) / 2, width: area.width, height };
    let block = Block::bordered().title(title.to_owned()).title_bottom(ask.to_owned());
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines.into_iter().map(Line::from).collect::<Vec<_>>()).block(block), place);
}
