//! What the person at the keyboard has chosen, and what keys do to it.

use super::board::{Board, packets};
use super::draw::fate_word;
use crate::core::report::flow::{Sender, StoryReport};
use crate::render::trace::flow_words;

/// A key, as far as the view has a use for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those on the keyboard")]
pub enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    Backspace,
    Character(char),
}

/// What a key asks the command for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// End.
    Quit,
    /// Find out what `fix` would do, and show it.
    Plan,
    /// Do it: it was shown and said yes to.
    Fix,
    /// Write what is seen to a file.
    Write,
}

/// In which order flows stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// The worst first.
    #[default]
    Worst,
    /// The fastest first.
    Rate,
    /// The one with most packets first.
    Packets,
    /// The latest first.
    Latest,
}

impl Sort {
    /// In a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Worst => "worst",
            Self::Rate => "rate",
            Self::Packets => "packets",
            Self::Latest => "latest",
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Worst => Self::Rate,
            Self::Rate => Self::Packets,
            Self::Packets => Self::Latest,
            Self::Latest => Self::Worst,
        }
    }
}

/// What lies over the view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Over {
    /// Nothing.
    #[default]
    Nothing,
    /// The words that flows are filtered by are being written.
    Filter,
    /// What `fix` would do. `can_apply`: there is something to do.
    Plan {
        /// The lines.
        lines: Vec<String>,
        /// There is something to do.
        can_apply: bool,
    },
    /// The keys.
    Help,
}

/// What was chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Screen {
    /// Number of the chosen flow; none: the first one.
    pub chosen: Option<u32>,
    /// Order.
    pub sort: Sort,
    /// Words that flows must have.
    pub filter: String,
    /// The screen stands still.
    pub paused: bool,
    /// First line of the story that is shown.
    pub scroll: u16,
    /// What lies over the view.
    pub over: Over,
    /// What was done last, in words.
    pub message: String,
}

/// Rows that a page key moves by.
const PAGE: usize = 10;

impl Screen {
    /// The flows that are shown, in order.
    #[must_use]
    pub fn rows<'b>(&self, board: &'b Board) -> Vec<&'b StoryReport> {
        let mut rows: Vec<&StoryReport> = board.now.flows.iter().filter(|flow| self.has_words(flow)).collect();
        let most_first = |a: u64, b: u64| b.cmp(&a);
        rows.sort_by(|a, b| {
            let order = match self.sort {
                Sort::Worst => a.fate.cmp(&b.fate).then(most_first(packets(a), packets(b))),
                Sort::Rate => board.rate(b).total_cmp(&board.rate(a)),
                Sort::Packets => most_first(packets(a), packets(b)),
                Sort::Latest => b.last.cmp(&a.last),
            };
            order.then(a.flow_id.cmp(&b.flow_id))
        });
        rows
    }

    /// Where the chosen flow stands among these rows; the first where it is gone.
    #[must_use]
    pub fn position(&self, rows: &[&StoryReport]) -> usize {
        self.chosen.and_then(|chosen| rows.iter().position(|flow| flow.flow_id == chosen)).unwrap_or(0)
    }

    /// Does what a key means; what the command has to do for it.
    pub fn press(&mut self, key: Key, board: &Board) -> Option<Command> {
        self.message.clear();
        match std::mem::take(&mut self.over) {
            Over::Filter => self.edit(key),
            Over::Plan { can_apply, .. } => {
                return (can_apply && key == Key::Character('y')).then_some(Command::Fix);
            }
            Over::Help => {}
            Over::Nothing => return self.press_plain(key, board),
        }
        None
    }

    fn press_plain(&mut self, key: Key, board: &Board) -> Option<Command> {
        match key {
            Key::Up | Key::Character('k') => self.step(board, |at| at.saturating_sub(1)),
            Key::Down | Key::Character('j') => self.step(board, |at| at + 1),
            Key::Home => self.step(board, |_| 0),
            Key::End => self.step(board, |_| usize::MAX),
            Key::PageUp => self.scroll = self.scroll.saturating_sub(PAGE as u16),
            Key::PageDown => self.scroll = self.scroll.saturating_add(PAGE as u16),
            Key::Character('/') => self.over = Over::Filter,
            Key::Character('s') => self.sort = self.sort.next(),
            Key::Character('p' | ' ') => self.paused = !self.paused,
            Key::Character('?' | 'h') => self.over = Over::Help,
            Key::Escape => self.filter.clear(),
            Key::Character('q') => return Some(Command::Quit),
            Key::Character('f') => return Some(Command::Plan),
            Key::Character('w') => return Some(Command::Write),
            Key::Enter | Key::Backspace | Key::Character(_) => {}
        }
        None
    }

    fn edit(&mut self, key: Key) {
        match key {
            Key::Enter => return,
            Key::Escape => {
                self.filter.clear();
                return;
            }
            Key::Backspace => {
                self.filter.pop();
            }
            Key::Character(character) => self.filter.push(character),
            _ => {}
        }
        self.over = Over::Filter;
    }

    fn step(&mut self, board: &Board, to: impl Fn(usize) -> usize) {
        let rows = self.rows(board);
        let at = to(self.position(&rows)).min(rows.len().saturating_sub(1));
        let chosen = rows.get(at).map(|flow| flow.flow_id);
        self.chosen = chosen;
        self.scroll = 0;
    }

    /// Every word must stand somewhere in what a row says.
    fn has_words(&self, flow: &StoryReport) -> bool {
        let sender = match &flow.sender {
            Sender::Process(task) => task.name.clone(),
            Sender::Forwarded { device } => device.clone(),
            Sender::Softirq | Sender::Unknown => String::new(),
        };
        let devices: Vec<&str> = flow.egress.iter().map(|egress| egress.device.as_str()).collect();
        let netns = flow.netns_name.as_deref().unwrap_or_default();
        let told = [flow_words(&flow.flow).as_str(), fate_word(flow.fate), &sender, &devices.join(" "), netns]
            .join(" ")
            .to_lowercase();
        self.filter.to_lowercase().split_whitespace().all(|word| told.contains(word))
    }
}
