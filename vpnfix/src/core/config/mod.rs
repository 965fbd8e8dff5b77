//! The configuration file, as text and as values. Pure: who reads the file is `commands/settings`.

mod keys;
mod prefixes;
mod time;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use prefixes::{Added, Prefixes};
pub use time::{Span, duration};

use super::plan::Strategy;
use super::watch::Limits;

/// A configuration file that cannot be understood.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("line {line}: {message}")]
pub struct ConfigError {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

/// The configuration file. Unknown keys are errors: a misspelt one would be ignored in silence otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Config {
    /// Devices that are tunnels too, as `--tunnel`.
    pub tunnels: Vec<String>,
    /// Prefixes that belong into a tunnel or that are left alone, beside what the routes say.
    pub prefixes: Prefixes,
    /// What `watch` does.
    pub watch: Watch,
}

/// What `watch` does; options on the command line come first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Watch {
    /// Repair on detection.
    pub fix: bool,
    /// How to repair.
    pub strategy: Strategy,
    /// Refuse what belongs into a tunnel while the tunnel has no route for it.
    pub fail_closed: bool,
    /// Take the rules back at the end.
    pub undo_on_exit: bool,
    /// Send echo requests to the peers to confirm a repair.
    pub probe: bool,
    /// How long to wait for live packets that confirm a repair.
    pub wait: Span,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Program and arguments that are run at each event, with its JSON on standard input.
    pub on_event: Vec<String>,
    /// How often it may repair.
    pub limits: WatchLimits,
    /// What is kept of incidents.
    pub incidents: Incidents,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            fix: false,
            strategy: Strategy::Auto,
            fail_closed: false,
            undo_on_exit: false,
            probe: true,
            wait: Span(Duration::from_secs(10)),
            metrics: None,
            on_event: Vec::new(),
            limits: WatchLimits::default(),
            incidents: Incidents::default(),
        }
    }
}

/// How often `watch` may repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct WatchLimits {
    /// So many repairs in a window.
    pub repairs: u32,
    /// The window.
    pub window: Span,
    /// From one repair to the next, doubled with each further one.
    pub pause: Span,
    /// No pause is longer.
    pub longest_pause: Span,
    /// Rules taken away so often are a fight.
    pub fight_after: u32,
    /// A fight left alone for so long is tried once more.
    pub calm: Span,
}

impl Default for WatchLimits {
    fn default() -> Self {
        let Limits { repairs, window, pause, longest_pause, fight_after, calm } = Limits::default();
        Self {
            repairs,
            window: Span(window),
            pause: Span(pause),
            longest_pause: Span(longest_pause),
            fight_after,
            calm: Span(calm),
        }
    }
}

impl From<WatchLimits> for Limits {
    fn from(limits: WatchLimits) -> Self {
        Self {
            repairs: limits.repairs,
            window: limits.window.0,
            pause: limits.pause.0,
            longest_pause: limits.longest_pause.0,
            fight_after: limits.fight_after,
            calm: limits.calm.0,
        }
    }
}

/// What is kept of incidents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Incidents {
    /// Where.
    pub directory: PathBuf,
    /// So many at the most; 0 keeps none.
    pub keep: u32,
    /// So many megabytes at the most, all together.
    pub megabytes: u32,
}

impl Default for Incidents {
    fn default() -> Self {
        Self { directory: "/var/lib/vpnfix/incidents".into(), keep: 100, megabytes: 50 }
    }
}

impl Config {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// It is no TOML, a key is not known (the nearest known one is named), or a value makes no sense.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let failed = |error: toml::de::Error| {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            ConfigError { line, message: error.message().lines().collect::<Vec<_>>().join(" ") }
        };
        keys::check(text)?;
        let config: Self = toml::from_str(text).map_err(failed)?;
        config.check_values()?;
        Ok(config)
    }

    /// What the types do not say.
    fn check_values(&self) -> Result<(), ConfigError> {
        let limits = &self.watch.limits;
        let nothing = [("repairs", limits.repairs), ("fight-after", limits.fight_after)];
        if let Some((key, _)) = nothing.iter().find(|(_, number)| *number == 0) {
            return Err(ConfigError { line: 1, message: format!("`watch.limits.{key}` must be at least 1") });
        }
        if self.watch.on_event.first().is_some_and(String::is_empty) {
            return Err(ConfigError { line: 1, message: "`watch.on-event` names no program".into() });
        }
        Ok(())
    }
}

/// The line, from 1, of a byte of a text.
fn line_of(text: &str, byte: usize) -> usize {
    text.bytes().take(byte).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(Config::parse(""), Ok(Config::default()));
        assert_eq!(Limits::from(Config::default().watch.limits), Limits::default());
    }

    #[test]
    fn the_example_is_understood_and_shows_the_defaults() {
        let example = include_str!("../../../../contrib/config.toml");
        let given = Config::parse(example).expect("the example");
        assert_eq!(given, Config::default());
        // Without the comment signs in front of its keys it still is, and then every key is there.
        let uncommented: String = example
            .lines()
            .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with([' ', '#'])).unwrap_or(line))
            .fold(String::new(), |text, line| text + line + "\n");
        let all = Config::parse(&uncommented).expect("the example without its comment signs");
        assert_eq!(all.tunnels, ["gre1"]);
        for key in keys::all() {
            let name = key.rsplit('.').next().expect("a name");
            assert!(uncommented.contains(name), "the example does not show {key}");
        }
    }

    #[test]
    fn unknown_keys_are_errors_that_name_the_nearest() {
        let told = |text: &str| Config::parse(text).expect_err(text).to_string();
        assert_eq!(told("tunnel = [\"gre1\"]"), "line 1: unknown key `tunnel`; did you mean `tunnels`?");
        assert_eq!(
            told("[watch]\nfix = true\nstratgy = \"auto\""),
            "line 3: unknown key `stratgy` in [watch]; did you mean `strategy`?"
        );
        assert_eq!(
            told("[watch.limits]\nrepair = 3"),
            "line 2: unknown key `repair` in [watch.limits]; did you mean `repairs`?"
        );
        assert!(told("[wach]\n").contains("did you mean `watch`?"));
        assert_eq!(told("colour = 1"), "line 1: unknown key `colour`; known are: prefixes, tunnels, watch");
        assert!(told("[[prefixes.add]]\nprefix = \"10.0.0.0/8\"\ntunel = \"x\"").contains("`tunnel`"));
    }

    #[test]
    fn values_that_make_no_sense_are_errors() {
        for bad in [
            "tunnels = 1",
            "x",
            "[watch]\nfix = 1",
            "[watch]\nstrategy = \"best\"",
            "[watch]\nwait = \"0s\"",
            "[watch]\nwait = 5",
            "[watch]\nmetrics = \"localhost\"",
            "[watch]\non-event = [\"\"]",
            "[watch.limits]\nrepairs = 0",
            "[watch.limits]\nfight-after = 0",
            "[watch.limits]\nrepairs = -1",
            "[prefixes]\nleave = [\"10.0.0.0/33\"]",
            "[prefixes]\nadd = [{ prefix = \"10.0.0.0/8\" }]",
            "watch = 3",
            "[[watch]]",
        ] {
            assert!(Config::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nothing_in_a_file_makes_it_panic() {
        let whole = include_str!("../../../../contrib/config.toml");
        for end in 0..whole.len() {
            let _either = whole.get(..end).map(Config::parse);
            let _either = whole.get(end..).map(Config::parse);
        }
    }
}
