//! The report as blocks, in the order in which it is read.

use crate::core::bundle::comparison::{Change, Compared};
use crate::core::bundle::timeline::{BgpSource, MarkKind, Side, SoFar, Timeline};
use crate::core::confirm::RungState;
use crate::core::report::incident::{Fact, IncidentReport, Told, Tone, clock};
use crate::render::{explain, fix};

/// Shown whole even where nothing differs: the order of the rules is what it is about.
const WHOLE: &str = "Policy rules";

/// A block.
pub(super) enum Block<'a> {
    /// A heading.
    Heading(&'static str),
    /// A paragraph.
    Paragraph(Tone, String),
    /// The first page's questions and answers.
    Facts(&'a [Fact]),
    /// A table.
    Table(Grid),
    /// Text as it is.
    Plain(String, String),
    /// The plot.
    Plot(&'a Timeline),
}

/// A table.
pub(super) struct Grid {
    /// What it is about.
    pub(super) title: String,
    /// Headings of the columns.
    pub(super) head: Vec<&'static str>,
    /// The rows.
    pub(super) rows: Vec<GridRow>,
    /// What is left out, in words.
    pub(super) rest: Option<String>,
}

/// A row of a table.
pub(super) struct GridRow {
    /// How it is marked.
    pub(super) change: Change,
    /// How it is meant.
    pub(super) tone: Tone,
    /// The cells.
    pub(super) cells: Vec<String>,
}

impl GridRow {
    fn plain(cells: Vec<String>) -> Self {
        Self { change: Change::Alone, tone: Tone::Plain, cells }
    }
}

/// The line below the headline.
pub(super) fn subject(report: &IncidentReport) -> String {
    let host = if report.host.hostname.is_empty() { "a host".into() } else { report.host.hostname.clone() };
    let kernel = if report.host.kernel.is_empty() { String::new() } else { format!(", Linux {}", report.host.kernel) };
    let netns = report.netns.name.as_ref().map_or_else(String::new, |name| format!(", network namespace {name}"));
    let until = report.ended.as_ref().map_or_else(String::new, |ended| format!(" to {}", clock(ended)));
    let redacted = if report.redacted { "; public addresses and names are stand-ins" } else { "" };
    format!("{host}{kernel}{netns}; {}{until}{redacted}", clock(&report.began))
}

/// All blocks behind the headline.
pub(super) fn blocks(report: &IncidentReport) -> Vec<Block<'_>> {
    let mut blocks = vec![Block::Facts(&report.page)];
    if !report.missing.is_empty() {
        blocks.push(Block::Heading("What is not in this bundle"));
        blocks.push(Block::Table(missing(report)));
    }
    if let Some(timeline) = &report.timeline {
        blocks.push(Block::Heading("What happened when"));
        blocks.push(Block::Plot(timeline));
        blocks.extend([sums(timeline), marks(timeline), bgp(timeline)].into_iter().flatten().map(Block::Table));
    }
    if !report.changes.is_empty() {
        blocks.push(Block::Heading("The steps of the change"));
        blocks.push(Block::Table(changes(report)));
    }
    if !report.ladder.is_empty() {
        blocks.push(Block::Heading("The ladder of confirmation"));
        blocks.extend(report.ladder.iter().map(|confirmation| Block::Table(ladder(confirmation))));
    }
    if !report.walks.is_empty() {
        blocks.push(Block::Heading("The walk of single packets"));
        for pair in &report.walks {
            for (when, walk) in [("before", &pair.before), ("after", &pair.after)] {
                let Some(walk) = walk else { continue };
                blocks.push(Block::Plain(format!("{}, {when}", pair.destination), explain::walk_text(walk)));
            }
        }
    }
    if !report.tables.is_empty() {
        let both = report.tables.iter().any(|table| table.rows.iter().any(|row| row.change != Change::Alone));
        blocks.push(Block::Heading(if both { "Before and after" } else { "The state" }));
        blocks.extend(report.tables.iter().map(|table| Block::Table(compared(table, both))));
    }
    blocks.push(Block::Paragraph(
        Tone::Plain,
        format!(
            "Made by vpnfix {}. `vpnfix report --check BUNDLE` tells whether a bundle is whole and as it was written.",
            report.version
        ),
    ));
    blocks
}

/// A sentence with its command, in one line.
pub(super) fn told(told: &Told) -> (String, Option<&str>) {
    let text = match &told.command {
        Some(_) => format!("{}: ", told.text.trim_end_matches(['.', ':'])),
        None => told.text.clone(),
    };
    (text, told.command.as_deref())
}

fn missing(report: &IncidentReport) -> Grid {
    let row = |missing: &crate::core::bundle::manifest::Missing| GridRow {
        tone: Tone::Doubtful,
        ..GridRow::plain(vec![missing.file.clone(), missing.why.clone()])
    };
    let rows = report.missing.iter().map(row).collect();
    Grid { title: String::new(), head: vec!["File", "Why"], rows, rest: None }
}

fn sums(timeline: &Timeline) -> Option<Grid> {
    let mut sums: Vec<_> = timeline.by_device().into_iter().collect();
    sums.sort_by_key(|((device, side), _)| (std::cmp::Reverse(*side), *device));
    let row = |((device, side), sum): &((&str, Side), SoFar)| GridRow {
        tone: if *side == Side::Misrouted { Tone::Bad } else { Tone::Good },
        ..GridRow::plain(vec![
            (*device).into(),
            side_name(*side).into(),
            sum.packets.to_string(),
            sum.bytes.to_string(),
        ])
    };
    (!sums.is_empty()).then(|| Grid {
        title: "What left by which device".into(),
        head: vec!["Device", "Side", "Packets", "Bytes"],
        rows: sums.iter().map(row).collect(),
        rest: None,
    })
}

/// A side in words.
pub(super) fn side_name(side: Side) -> &'static str {
    match side {
        Side::Right => "right",
        Side::Misrouted => "misrouted",
    }
}

/// A moment's time, seconds after the beginning.
pub(super) fn seconds(milliseconds: u64) -> String {
    format!("{}.{:03} s", milliseconds / 1000, milliseconds % 1000)
}

fn marks(timeline: &Timeline) -> Option<Grid> {
    let what = |what| match what {
        MarkKind::RepairBegan => "repair began",
        MarkKind::RuleAdded => "rule added",
        MarkKind::RepairEnded => "repair ended",
        MarkKind::CommandBegan => "command began",
        MarkKind::CommandEnded => "command ended",
    };
    let row = |mark: &crate::core::bundle::timeline::Mark| {
        GridRow::plain(vec![seconds(mark.at_ms), what(mark.what).into(), mark.text.clone()])
    };
    (!timeline.marks.is_empty()).then(|| Grid {
        title: "Moments".into(),
        head: vec!["Time", "What", "Which"],
        rows: timeline.marks.iter().map(row).collect(),
        rest: None,
    })
}

fn bgp(timeline: &Timeline) -> Option<Grid> {
    let row = |span: &crate::core::bundle::timeline::BgpSpan| {
        let by = match span.by {
            BgpSource::Daemon => "its daemon",
            BgpSource::Tcp => "TCP at port 179",
        };
        let during = format!("{} to {}", seconds(span.from_ms), seconds(span.to_ms));
        let cells = vec![span.peer.clone(), by.into(), span.state.clone(), during];
        GridRow { tone: if span.up { Tone::Good } else { Tone::Bad }, ..GridRow::plain(cells) }
    };
    (!timeline.bgp.is_empty()).then(|| Grid {
        title: "BGP".into(),
        head: vec!["Peer", "By the word of", "State", "Time"],
        rows: timeline.bgp.iter().map(row).collect(),
        rest: None,
    })
}

fn changes(report: &IncidentReport) -> Grid {
    let row = |step: &crate::core::bundle::contents::ChangeStep| {
        let time = match (&step.time, step.taken_back) {
            (None, _) => "not done".into(),
            (Some(time), false) => clock(time),
            (Some(time), true) => format!("{}, taken back", clock(time)),
        };
        GridRow::plain(vec![time, step.apply.clone(), step.undo.clone(), step.why.clone()])
    };
    let rows = report.changes.iter().map(row).collect();
    Grid { title: String::new(), head: vec!["Time", "Command", "What takes it back", "Why"], rows, rest: None }
}

fn ladder(confirmation: &crate::core::confirm::Confirmation) -> Grid {
    let row = |rung: &crate::core::confirm::Rung| {
        let (state, tone) = match rung.state {
            RungState::Confirmed => ("confirmed", Tone::Good),
            RungState::Failed => ("failed", Tone::Bad),
            RungState::NotSeen => ("not seen", if rung.required { Tone::Doubtful } else { Tone::Plain }),
            RungState::NotApplicable => ("not asked", Tone::Plain),
        };
        let required = if rung.required { "required" } else { "told" };
        let name = format!("{}. {}", rung.number, fix::rung_name(rung.name));
        GridRow { tone, ..GridRow::plain(vec![name, state.into(), required.into(), rung.evidence.clone()]) }
    };
    Grid {
        title: format!("{} by {}", confirmation.prefix, confirmation.tunnels.join(" and ")),
        head: vec!["Rung", "State", "Required", "Evidence"],
        rows: confirmation.rungs.iter().map(row).collect(),
        rest: None,
    }
}

fn compared(table: &Compared, both: bool) -> Grid {
    let shown = |change: Change| change != Change::Same || table.title == WHOLE;
    let row = |row: &crate::core::bundle::comparison::Row| {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "—".into());
        let cells = if both {
            vec![row.item.clone(), value(&row.before), value(&row.after)]
        } else {
            let only = row.before.as_ref().or(row.after.as_ref()).cloned();
            vec![row.item.clone(), only.unwrap_or_default()]
        };
        GridRow { change: row.change, tone: Tone::Plain, cells }
    };
    let hidden = table.rows.iter().filter(|row| !shown(row.change)).count();
    let rest = match (hidden, table.more) {
        (0, 0) => None,
        (same, 0) => Some(format!("{same} more, as before")),
        (0, more) => Some(format!("{more} more, not shown")),
        (same, more) => Some(format!("{same} more, as before; {more} not shown")),
    };
    Grid {
        title: table.title.clone(),
        head: if both { vec!["What", "Before", "After"] } else { vec!["What", "State"] },
        rows: table.rows.iter().filter(|row| shown(row.change)).map(row).collect(),
        rest,
    }
}
