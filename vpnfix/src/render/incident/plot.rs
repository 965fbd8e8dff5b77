//! The timeline as SVG: packets a second by device above, BGP's states as a band below, the change as a line through both.
//!
//! The library draws in fixed colours; they are replaced by the page's variables, so that the plot follows light and dark.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::clean;
use crate::core::bundle::timeline::{BgpSource, BgpSpan, MarkKind, Side, Timeline};

/// More samples than vpnfix ever writes are not drawn.
const MOST_SAMPLES: usize = 4096;
/// A timeline of more than ten years, or of more packets a second than any device sends, is not drawn.
const LONGEST_MS: u64 = 10 * 366 * 86_400_000;
const MOST_PACKETS: u64 = 1_000_000_000_000;
/// More rows of BGP are not drawn; the table has them.
const MOST_ROWS: usize = 8;
/// Letters of a row's name.
const NAME: usize = 40;

/// For which screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// A desktop's.
    Wide,
    /// A phone's.
    Narrow,
}

/// Sizes in pixels.
struct Layout {
    width: u32,
    chart: u32,
    /// Of one row of BGP.
    row: i32,
    /// Of the labels left of the chart.
    labels: u32,
    font: i32,
}

const MARGIN: u32 = 8;

impl Size {
    fn layout(self) -> Layout {
        match self {
            Self::Wide => Layout { width: 960, chart: 280, row: 40, labels: 52, font: 14 },
            Self::Narrow => Layout { width: 370, chart: 220, row: 40, labels: 40, font: 13 },
        }
    }
}

/// A colour of the plot, which is a variable of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hue {
    Wrong(u8),
    Right(u8),
    Up,
    Down,
    Mark,
    Grid,
}

impl Hue {
    const ALL: [Self; 11] = [
        Self::Wrong(0),
        Self::Wrong(1),
        Self::Wrong(2),
        Self::Right(0),
        Self::Right(1),
        Self::Right(2),
        Self::Right(3),
        Self::Up,
        Self::Down,
        Self::Mark,
        Self::Grid,
    ];

    /// The page's name of it.
    pub(super) fn name(self) -> String {
        match self {
            Self::Wrong(number) => format!("wrong{number}"),
            Self::Right(number) => format!("right{number}"),
            Self::Up => "up".into(),
            Self::Down => "down".into(),
            Self::Mark => "mark".into(),
            Self::Grid => "line".into(),
        }
    }

    fn drawn(self) -> RGBColor {
        match self {
            Self::Wrong(number) => RGBColor(0xd1, number, 0x01),
            Self::Right(number) => RGBColor(0x01, number, 0xd1),
            Self::Up => RGBColor(0x02, 0xd1, 0x02),
            Self::Down => RGBColor(0xd1, 0xd1, 0x02),
            Self::Mark => RGBColor(0x11, 0x12, 0x13),
            Self::Grid => RGBColor(0xe1, 0xe2, 0xe3),
        }
    }
}

/// One line of the plot.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Series {
    device: String,
    side: Side,
    pub(super) color: Hue,
    /// Beginning and end of each step in milliseconds, and packets in it.
    steps: Vec<(u64, u64, u64)>,
}

impl Series {
    pub(super) fn label(&self) -> String {
        format!("{}, {}", self.device, super::blocks::side_name(self.side))
    }
}

/// A line for each device and side, misrouted ones first.
pub(super) fn series(timeline: &Timeline) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    for egress in timeline.samples.iter().flat_map(|sample| &sample.egress) {
        if !all.iter().any(|series| series.device == egress.device && series.side == egress.side) {
            let (device, side) = (egress.device.clone(), egress.side);
            all.push(Series { device, side, color: Hue::Mark, steps: Vec::new() });
        }
    }
    all.sort_by_key(|series| (std::cmp::Reverse(series.side), series.device.clone()));
    let (mut wrong, mut right) = (0_u8, 0_u8);
    for series in &mut all {
        let (count, most) = match series.side {
            Side::Misrouted => (&mut wrong, 2),
            Side::Right => (&mut right, 3),
        };
        let number = (*count).min(most);
        *count = count.saturating_add(1);
        series.color = if series.side == Side::Misrouted { Hue::Wrong(number) } else { Hue::Right(number) };
        let mut begin = 0;
        for sample in &timeline.samples {
            let own = sample.egress.iter().find(|egress| egress.device == series.device && egress.side == series.side);
            series.steps.push((begin, sample.at_ms, own.map_or(0, |egress| egress.packets)));
            begin = sample.at_ms;
        }
    }
    all
}

/// The plot; nothing for a timeline that cannot be one.
pub(super) fn svg(timeline: &Timeline, size: Size) -> Option<String> {
    let too_much =
        timeline.samples.iter().flat_map(|sample| &sample.egress).any(|egress| egress.packets > MOST_PACKETS);
    if timeline.samples.len() > MOST_SAMPLES || timeline.length_ms > LONGEST_MS || too_much {
        return None;
    }
    let layout = size.layout();
    let rows = rows(timeline);
    let band = layout.row.saturating_mul(i32::try_from(rows.len()).ok()?);
    let height = layout.chart + u32::try_from(band).ok()?;
    let mut out = String::new();
    draw(&mut out, timeline, &rows, &layout, height).ok()?;
    for hue in Hue::ALL {
        let RGBColor(red, green, blue) = hue.drawn();
        for what in ["fill", "stroke"] {
            let fixed = format!("{what}=\"#{red:02X}{green:02X}{blue:02X}\"");
            out = out.replace(&fixed, &format!("style=\"{what}:var(--{})\"", hue.name()));
        }
    }
    Some(out.replacen("<svg ", "<svg role=\"img\" aria-label=\"Packets a second by device, and BGP's states\" ", 1))
}

/// The rows of BGP: one for each peer and teller.
fn rows(timeline: &Timeline) -> Vec<(String, Vec<&BgpSpan>)> {
    let mut rows: Vec<(&str, BgpSource, Vec<&BgpSpan>)> = Vec::new();
    for span in &timeline.bgp {
        match rows.iter_mut().find(|(peer, by, _)| *peer == span.peer && *by == span.by) {
            Some((_, _, spans)) => spans.push(span),
            None => rows.push((&span.peer, span.by, vec![span])),
        }
    }
    rows.truncate(MOST_ROWS);
    let named = |(peer, by, spans): (&str, BgpSource, Vec<_>)| {
        let by = if by == BgpSource::Tcp { " (TCP)" } else { "" };
        (clean(peer).chars().take(NAME).collect::<String>() + by, spans)
    };
    rows.into_iter().map(named).collect()
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn as_seconds(milliseconds: u64) -> f64 {
    std::time::Duration::from_millis(milliseconds).as_secs_f64()
}

/// Packets a second in a step.
#[expect(clippy::cast_precision_loss, reason = "a pixel is far less precise")]
fn rate((begin, end, packets): (u64, u64, u64)) -> f64 {
    let seconds = as_seconds(end.saturating_sub(begin));
    if seconds > 0.0 { packets as f64 / seconds } else { 0.0 }
}

fn draw(
    out: &mut String,
    timeline: &Timeline,
    rows: &[(String, Vec<&BgpSpan>)],
    layout: &Layout,
    height: u32,
) -> Drawn {
    let root = SVGBackend::with_string(out, (layout.width, height)).into_drawing_area();
    let (top, bottom) = root.split_vertically(layout.chart);
    let all = series(timeline);
    let highest = all.iter().flat_map(|series| series.steps.iter().copied().map(rate)).fold(1.0, f64::max) * 1.1;
    let length = as_seconds(timeline.length_ms.max(1));
    let font = |size: i32| ("sans-serif", size).into_font();
    let mut chart = ChartBuilder::on(&top)
        .margin(MARGIN)
        .margin_right(MARGIN + 12)
        .x_label_area_size(26)
        .y_label_area_size(layout.labels)
        .build_cartesian_2d(0.0..length, 0.0..highest)?;
    let grid = Hue::Grid.drawn();
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(grid.stroke_width(1))
        .axis_style(grid.stroke_width(1))
        .label_style(font(layout.font))
        .x_labels(if layout.width > 500 { 10 } else { 5 })
        .y_labels(5)
        .x_label_formatter(&|seconds| format!("{} s", short(*seconds)))
        .y_label_formatter(&|rate| short(*rate))
        .draw()?;
    for one in &all {
        let steps =
            one.steps.iter().flat_map(|step| [(as_seconds(step.0), rate(*step)), (as_seconds(step.1), rate(*step))]);
        let points: Vec<(f64, f64)> = steps.collect();
        let ends = [points.first(), points.last()].map(|point| point.map(|point| (point.0, 0.0)));
        let area: Vec<(f64, f64)> = ends[0].into_iter().chain(points.iter().copied()).chain(ends[1]).collect();
        let color = one.color.drawn();
        chart.draw_series(std::iter::once(Polygon::new(area, color.mix(0.15).filled())))?;
        chart.draw_series(std::iter::once(PathElement::new(points, color.stroke_width(2))))?;
    }
    let left = i32::try_from(MARGIN + layout.labels)?;
    let right = i32::try_from(layout.width - MARGIN - 12)?;
    for (at, text) in moments(timeline) {
        let at = as_seconds(at.min(timeline.length_ms));
        let line = PathElement::new(vec![(at, 0.0), (at, highest)], Hue::Mark.drawn().stroke_width(2));
        chart.draw_series(std::iter::once(line))?;
        let side = if at > length / 2.0 { HPos::Right } else { HPos::Left };
        let style = TextStyle::from(font(layout.font)).pos(Pos::new(side, VPos::Top));
        let nudge = if at > length / 2.0 { -length * 0.01 } else { length * 0.01 };
        chart.draw_series(std::iter::once(Text::new(text, (at + nudge, highest), style)))?;
    }
    for (number, (name, spans)) in rows.iter().enumerate() {
        let y = layout.row.saturating_mul(i32::try_from(number)?);
        let style = TextStyle::from(font(layout.font)).pos(Pos::new(HPos::Left, VPos::Top));
        bottom.draw(&Text::new(format!("BGP {name}"), (left, y), style))?;
        for span in spans {
            let x = |at: u64| pixel(as_seconds(at.min(timeline.length_ms)) / length, left, right);
            let color = if span.up { Hue::Up } else { Hue::Down }.drawn();
            let (from, to) = (x(span.from_ms), x(span.to_ms));
            // A state that lasted less than a pixel is seen all the same.
            let to = to.max(from + 1);
            bottom.draw(&Rectangle::new([(from, y + 18), (to, y + layout.row - 6)], color.filled()))?;
            let state: String = clean(&span.state).chars().take(NAME).collect();
            let fits = to - from > i32::try_from(state.chars().count())? * (layout.font * 3 / 5) + 12;
            if fits {
                let style = TextStyle::from(font(layout.font - 1)).pos(Pos::new(HPos::Left, VPos::Center));
                let middle = y + 18 + (layout.row - 24) / 2;
                bottom.draw(&Text::new(state, (from + 6, middle), style))?;
            }
        }
    }
    drop(chart);
    root.present()?;
    Ok(())
}

/// What is drawn as a line: the first rule, and the command.
fn moments(timeline: &Timeline) -> Vec<(u64, &'static str)> {
    let first = |what| timeline.marks.iter().find(|mark| mark.what == what).map(|mark| mark.at_ms);
    let kinds = [
        (MarkKind::RuleAdded, "rules added"),
        (MarkKind::CommandBegan, "command began"),
        (MarkKind::CommandEnded, "command ended"),
    ];
    kinds.into_iter().filter_map(|(what, text)| Some((first(what)?, text))).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "between two numbers of pixels")]
fn pixel(part: f64, left: i32, right: i32) -> i32 {
    left + (part.clamp(0.0, 1.0) * f64::from(right - left)).round() as i32
}

/// A number in few letters: `1200`, `12.5k`, `3M`.
fn short(number: f64) -> String {
    let (number, unit) = match number {
        number if number >= 1e9 => (number / 1e9, "G"),
        number if number >= 1e6 => (number / 1e6, "M"),
        number if number >= 1e4 => (number / 1e3, "k"),
        number => (number, ""),
    };
    let text = format!("{number:.1}");
    format!("{}{unit}", text.strip_suffix(".0").unwrap_or(&text))
}
