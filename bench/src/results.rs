//! Tables, goals, and the files that they are written into.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{
    machine::{Circumstances, Machine},
    part::Part,
    sample::{Samples, Spread},
};

const SCHEMA: &str = "vpnfix.bench/1";

/// What a cell of a table holds. The column's title has the unit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Cell {
    /// Many measurements.
    Spread(Spread),
    /// One number.
    Number(f64),
    /// Words.
    Text(String),
    /// Not measured, or it does not apply.
    Nothing,
}

impl From<&Samples> for Cell {
    fn from(samples: &Samples) -> Self {
        samples.spread().map_or(Self::Nothing, Self::Spread)
    }
}

impl From<Option<f64>> for Cell {
    fn from(value: Option<f64>) -> Self {
        value.filter(|value| value.is_finite()).map_or(Self::Nothing, Self::Number)
    }
}

impl Cell {
    fn shown(&self) -> String {
        match self {
            Self::Spread(Spread { median, lower, upper, .. }) => {
                format!("{} ({} – {})", number(*median), number(*lower), number(*upper))
            }
            Self::Number(value) => number(*value),
            Self::Text(text) => text.clone(),
            Self::Nothing => "–".into(),
        }
    }
}

/// Three digits that count, as far as there are so many.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 || value == 0.0 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A table; the first column names the rows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// Titles of all columns, units included.
    pub columns: Vec<String>,
    /// The rows: a name and the cells behind it.
    pub rows: Vec<(String, Vec<Cell>)>,
}

impl Table {
    /// One without rows.
    pub fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Self { title: title.into(), columns, rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, name: impl Into<String>, cells: Vec<Cell>) {
        self.rows.push((name.into(), cells));
    }

    fn markdown(&self) -> String {
        let mut text = format!("\n{}\n\n| {} |\n", self.title, self.columns.join(" | "));
        text.push_str(&format!("|{}\n", "---|".repeat(self.columns.len())));
        for (name, cells) in &self.rows {
            let cells: Vec<String> = cells.iter().map(Cell::shown).collect();
            text.push_str(&format!("| {name} | {} |\n", cells.join(" | ")));
        }
        text
    }
}

/// A goal of the project, and what was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Goal {
    /// What is to hold, the limit included.
    pub goal: String,
    /// What was found.
    pub figure: String,
    /// Whether it holds; nothing where it could not be measured.
    pub met: Option<bool>,
}

impl Goal {
    /// One with a figure that may be at most `limit`.
    pub fn at_most(goal: impl Into<String>, figure: Option<f64>, limit: f64, unit: &str) -> Self {
        let met = figure.map(|figure| figure <= limit);
        let figure = figure.map_or_else(|| "not measured".into(), |figure| format!("{}{unit}", number(figure)));
        Self { goal: goal.into(), figure, met }
    }

    /// One with a figure that must be at least `limit`.
    pub fn at_least(goal: impl Into<String>, figure: Option<f64>, limit: f64, unit: &str) -> Self {
        let met = figure.map(|figure| figure >= limit);
        Self { met, ..Self::at_most(goal, figure, limit, unit) }
    }

    fn verdict(&self) -> &'static str {
        match self.met {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "not measured",
        }
    }
}

/// What a part of the bench has measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// The part in words.
    pub title: String,
    /// When, and what else the machine was doing.
    pub circumstances: Circumstances,
    /// Few and short measurements.
    pub quick: bool,
    /// The tables.
    pub tables: Vec<Table>,
    /// The goals.
    pub goals: Vec<Goal>,
    /// What must be known to read them.
    pub notes: Vec<String>,
}

impl Measured {
    /// As Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("\n## {}\n\n{}\n", self.title, self.circumstances.told(self.quick));
        for table in &self.tables {
            text.push_str(&table.markdown());
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        for note in &self.notes {
            text.push_str(&format!("- {note}\n"));
        }
        text
    }
}

/// All results on this machine's kernel.
#[derive(Debug, Serialize, Deserialize)]
pub struct Results {
    schema: String,
    machine: Machine,
    parts: BTreeMap<Part, Measured>,
    #[serde(skip)]
    folder: PathBuf,
}

impl Results {
    /// Those that lie there of the same kernel and machine, or none yet.
    pub fn open(folder: &Path, machine: Machine) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let fresh = Self { schema: SCHEMA.into(), machine, parts: BTreeMap::new(), folder: folder.to_owned() };
        let Ok(text) = fs::read_to_string(fresh.path("json")) else { return Ok(fresh) };
        Ok(match serde_json::from_str::<Self>(&text) {
            Ok(kept) if kept.schema == SCHEMA && kept.machine == fresh.machine => Self { parts: kept.parts, ..fresh },
            // Another machine's figures, or another form of them, do not stand beside new ones.
            _ => fresh,
        })
    }

    /// Puts a part's results in the place of its last.
    pub fn keep(&mut self, part: Part, measured: Measured) {
        self.parts.insert(part, measured);
    }

    /// Writes both files.
    pub fn write(&self) -> Result<()> {
        let json = serde_json::to_string_pretty(self).context("write the results as JSON")? + "\n";
        for (extension, text) in [("json", json), ("md", self.markdown())] {
            let path = self.path(extension);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    /// All goals as a table.
    pub fn goals(&self) -> String {
        let mut text = "\n## Goals\n\n| goal | found | |\n|---|---|---|\n".to_owned();
        for goal in self.parts.values().flat_map(|part| &part.goals) {
            let _ = writeln!(text, "| {} | {} | {} |", goal.goal, goal.figure, goal.verdict());
        }
        text
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{extension}", self.machine.kernel))
    }

    fn markdown(&self) -> String {
        let mut text = format!(
            "# Linux {}\n\nMade by `cargo xtask bench`; docs/performance.md says how it is measured. A figure is a median, with its \
             quartiles in brackets.\n\n{}\n",
            self.machine.kernel,
            self.machine.told()
        );
        text.push_str(&self.goals());
        self.parts.values().for_each(|part| text.push_str(&part.markdown()));
        text
    }
}
