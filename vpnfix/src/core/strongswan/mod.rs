//! strongSwan as far as its routing goes: what its configuration says, and what state its rule and routes are in.
//!
//! The configuration is read as the daemon itself reads it: strongswan.conf(5), checked against the grammar in
//! `src/libstrongswan/settings` and against libstrongswan 5.9.8. Only the settings named in [`Settings`] are kept:
//! everything else in these files, secrets among it, is dropped where it is parsed.

pub mod cure;
mod lexer;
mod parser;
pub mod pattern;
mod section;
mod state;
pub mod unit;
mod value;

pub use state::{State, daemon_of, reads_former, running_here, state};

use std::fmt;

use serde::{Deserialize, Serialize};

use super::model::{Family, Mark, Rule};

/// The table and rule priority that strongSwan is built with (`configure.ac`: `routing-table`, `routing-table-prio`).
pub const TABLE: u32 = 220;
/// The same of its NetworkManager variant (`charon-nm.routing_table`), which is its mark, too.
pub const NM_TABLE: u32 = 210;

/// A file of the configuration, or one that is there and cannot be read. Made outside of the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its absolute path.
    pub path: String,
    /// Its text, or why there is none.
    pub text: Result<String, String>,
    /// When it was last changed, in seconds since the Unix epoch.
    pub modified: Option<u64>,
}

/// Finds the files of a pattern of glob(3), in the order that glob(3) gives them: none if there is none.
pub type Files<'a> = dyn FnMut(&str) -> Vec<File> + 'a;

/// A daemon of strongSwan. Each reads a section of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Daemon {
    /// The one that `ipsec start` starts; it reads section `charon`.
    Charon,
    /// The one of `strongswan.service`: what its own section does not say, it takes from `charon`
    /// (`library_add_namespace` in `charon-systemd.c`).
    CharonSystemd,
    /// The NetworkManager variant. It takes nothing from `charon` (`charon-nm.opt`).
    CharonNm,
    /// The command line client. It takes nothing from `charon` either (`charon-cmd.opt`).
    CharonCmd,
}

impl Daemon {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Charon, Self::CharonSystemd, Self::CharonNm, Self::CharonCmd];

    /// Name of its process and of its section.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Charon => "charon",
            Self::CharonSystemd => "charon-systemd",
            Self::CharonNm => "charon-nm",
            Self::CharonCmd => "charon-cmd",
        }
    }

    /// The sections that it reads where its own says nothing, in order.
    fn fallbacks(self) -> &'static [&'static str] {
        // Every program falls back to section libstrongswan (`library_init`), after what it adds itself.
        match self {
            Self::CharonSystemd => &["charon", "libstrongswan"],
            Self::Charon | Self::CharonNm | Self::CharonCmd => &["libstrongswan"],
        }
    }
}

/// Where a setting was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The file.
    pub file: String,
    /// The line of the key, counted from 1.
    pub line: u32,
    /// When the file was last changed, in seconds since the Unix epoch.
    pub modified: Option<u64>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// A setting, and where it was made; nowhere for the daemon's own default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting<T> {
    /// What holds.
    pub value: T,
    /// Where it was made.
    pub place: Option<Place>,
}

impl<T> Setting<T> {
    fn default_value(value: T) -> Self {
        Self { value, place: None }
    }
}

/// `plugins.kernel-netlink.fwmark`: the mark of the rule, `[!]mark[/mask]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleMark {
    /// The rule is for what does not bear the mark.
    pub invert: bool,
    /// The mark.
    pub mark: Mark,
}

/// What a daemon reads of what concerns routing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The daemon.
    pub daemon: Daemon,
    /// `install_routes`: it installs a route for each outbound policy.
    pub install_routes: Setting<bool>,
    /// `routing_table`: the table of these routes. 0 stands for main and makes no rule.
    pub routing_table: Setting<u32>,
    /// `routing_table_prio`: the priority of the rule to that table.
    pub routing_table_prio: Setting<u32>,
    /// `plugins.kernel-netlink.fwmark`: the mark of that rule.
    pub fwmark: Setting<Option<RuleMark>>,
    /// `plugins.kernel-netlink.install_routes_xfrmi`: routes also for policies of XFRM interfaces.
    pub install_routes_xfrmi: Setting<bool>,
}

impl Settings {
    /// What a daemon does without any configuration.
    #[must_use]
    pub fn defaults(daemon: Daemon) -> Self {
        let (table, fwmark) = match daemon {
            Daemon::CharonNm => {
                (NM_TABLE, Some(RuleMark { invert: true, mark: Mark { value: NM_TABLE, mask: u32::MAX } }))
            }
            Daemon::Charon | Daemon::CharonSystemd | Daemon::CharonCmd => (TABLE, None),
        };
        Self {
            daemon,
            install_routes: Setting::default_value(true),
            routing_table: Setting::default_value(table),
            routing_table_prio: Setting::default_value(table),
            fwmark: Setting::default_value(fwmark),
            install_routes_xfrmi: Setting::default_value(false),
        }
    }

    /// The rule that the daemon adds when it starts, with `install_routes` off, too (`manage_rule` in
    /// `kernel_netlink_net.c`). It bears no protocol.
    #[must_use]
    pub fn rule(&self, family: Family) -> Option<Rule> {
        let mut rule = Rule::lookup(family, self.routing_table_prio.value, self.routing_table.value);
        if let Some(fwmark) = self.fwmark.value {
            rule.invert = fwmark.invert;
            rule.mark = Some(fwmark.mark);
        }
        (self.routing_table.value != 0).then_some(rule)
    }
}

/// The configuration as read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// The files read, in order. The first is the entry.
    pub files: Vec<String>,
    /// What each daemon takes from them, in the order of [`Daemon::ALL`]. Empty if there is no configuration, or one
    /// that the daemons refuse.
    settings: Vec<Settings>,
    /// What is wrong with them.
    pub problems: Vec<Problem>,
}

impl Configuration {
    /// Reads the configuration from its first entry file that there is.
    #[must_use]
    pub fn read(entries: &[&str], files: &mut Files<'_>) -> Self {
        let entry = entries.iter().find_map(|entry| files(entry).into_iter().next());
        entry.map_or_else(Self::default, |entry| parser::read(entry, files))
    }

    /// What a daemon takes from it; its defaults if there is nothing to take.
    #[must_use]
    pub fn settings(&self, daemon: Daemon) -> Settings {
        let index = Daemon::ALL.iter().position(|other| *other == daemon);
        index.and_then(|index| self.settings.get(index)).cloned().unwrap_or_else(|| Settings::defaults(daemon))
    }

    /// The problem for which the daemons refuse the whole: they do not start with it.
    #[must_use]
    pub fn refused(&self) -> Option<&Problem> {
        self.problems.iter().find(|problem| matches!(problem.kind, ProblemKind::Syntax(_)))
    }

    /// Was everything read that the daemons read?
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.files.is_empty() && !self.problems.iter().any(|problem| problem.kind.hides_settings())
    }
}

/// Something wrong with the configuration, without a word of what stands there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// The line, counted from 1.
    pub line: Option<u32>,
    /// What it is.
    pub kind: ProblemKind,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.kind),
            None => write!(f, "{}: {}", self.file, self.kind),
        }
    }
}

/// What can be wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// The file cannot be read; the daemon goes on without it, or can read it where we cannot.
    Unreadable(String),
    /// The daemon refuses it.
    Syntax(SyntaxError),
    /// A file includes itself, directly or through others. The daemon would read on until it has no more files.
    IncludesItself,
    /// More files than any configuration has.
    TooManyFiles,
    /// Sections refer to each other without end.
    TangledReferences,
    /// A key like `charon.install_routes`. Some versions refuse it, the others take the dot as a part of the name and
    /// never read it.
    DottedName,
    /// Not a value that the daemon takes for this setting: it holds its default.
    NotUnderstood(Key),
}

impl ProblemKind {
    /// May the settings differ from what the daemon reads?
    fn hides_settings(&self) -> bool {
        match self {
            Self::Unreadable(_)
            | Self::Syntax(_)
            | Self::IncludesItself
            | Self::TooManyFiles
            | Self::TangledReferences => true,
            Self::DottedName | Self::NotUnderstood(_) => false,
        }
    }
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "cannot be read: {why}"),
            Self::Syntax(error) => write!(f, "syntax error ({error}): the daemons refuse the whole configuration"),
            Self::IncludesItself => write!(f, "includes itself"),
            Self::TooManyFiles => write!(f, "too many files are included"),
            Self::TangledReferences => write!(f, "sections refer to each other without end"),
            Self::DottedName => write!(f, "a name with dots sets nothing: write nested sections"),
            Self::NotUnderstood(key) => write!(f, "the value of {} is none that the daemon takes", key.name()),
        }
    }
}

/// What the grammar does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SyntaxError {
    /// A quoted text where a name belongs.
    UnexpectedText,
    /// A quoted text without its end.
    UnterminatedText,
    /// A bracket, comma, colon or equals sign where none belongs.
    UnexpectedSign,
    /// A name that is followed by another name.
    UnexpectedName,
    /// A section without its end.
    UnterminatedSection,
    /// Sections nested deeper than any configuration has.
    TooDeep,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnexpectedText => "a quoted text where a name belongs",
            Self::UnterminatedText => "a quoted text without its end",
            Self::UnexpectedSign => "a sign where none belongs",
            Self::UnexpectedName => "a name where none belongs",
            Self::UnterminatedSection => "a section without its end",
            Self::TooDeep => "sections nested too deep",
        })
    }
}

/// The settings that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// `install_routes`
    InstallRoutes,
    /// `routing_table`
    RoutingTable,
    /// `routing_table_prio`
    RoutingTablePrio,
    /// `plugins.kernel-netlink.fwmark`
    Fwmark,
    /// `plugins.kernel-netlink.install_routes_xfrmi`
    InstallRoutesXfrmi,
}

impl Key {
    /// All of them.
    const ALL: [Self; 5] =
        [Self::InstallRoutes, Self::RoutingTable, Self::RoutingTablePrio, Self::Fwmark, Self::InstallRoutesXfrmi];

    /// Its name, without its sections.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InstallRoutes => "install_routes",
            Self::RoutingTable => "routing_table",
            Self::RoutingTablePrio => "routing_table_prio",
            Self::Fwmark => "fwmark",
            Self::InstallRoutesXfrmi => "install_routes_xfrmi",
        }
    }

    /// The sections that it stands in, below the daemon's own.
    fn sections(self) -> &'static [&'static str] {
        match self {
            Self::InstallRoutes | Self::RoutingTable | Self::RoutingTablePrio => &[],
            Self::Fwmark | Self::InstallRoutesXfrmi => &["plugins", "kernel-netlink"],
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.name() == name)
    }
}

#[cfg(test)]
mod tests;
