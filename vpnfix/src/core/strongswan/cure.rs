//! The cure at the root: where on this host a file of our own switches `install_routes` off, and whether the daemons
//! will read it so. Pure: the would-be configuration is read by the same parser as the real one, with the file added.

use super::pattern::{covers, has_wildcards};
use super::{Configuration, Daemon, File, Files, Key, Place, Problem, ProblemKind, Settings};

/// The name of our file. Includes are read in the order of glob(3), and of two settings the later one holds.
const NAME: &str = "vpnfix.conf";
/// What a person finds in it.
const HEADER: &str = "\
# Written by `vpnfix fix --cure`: the daemon's own routes lead packets for the tunnel interfaces astray.
# It counts from the daemon's next start on. `vpnfix undo` takes this file away.
";

/// What there is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CurePlan {
    /// `install_routes` is off already.
    Off {
        /// Where.
        place: Place,
    },
    /// A file of our own switches it off.
    DropIn(DropIn),
    /// No file of our own can.
    Blocked(Obstacle),
    /// This host has no configuration of strongSwan.
    Absent,
}

/// The file to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropIn {
    /// Its absolute path.
    pub path: String,
    /// What it holds.
    pub text: String,
    /// The include that it is read by.
    pub include: String,
}

/// Why no file of our own switches it off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The daemons refuse the configuration as it is: they would not come up again.
    Refused(Problem),
    /// The configuration was not read as a whole, so nothing is known for sure.
    Incomplete(Problem),
    /// No include reads a file of ours so that it holds.
    NoPlace {
        /// Where a person does it.
        place: String,
        /// How.
        edit: String,
    },
}

/// The daemons that one setting is for: the first two share section `charon`.
#[must_use]
pub fn group(daemon: Daemon) -> &'static [Daemon] {
    match daemon {
        Daemon::Charon | Daemon::CharonSystemd => &[Daemon::Charon, Daemon::CharonSystemd],
        Daemon::CharonNm => &[Daemon::CharonNm],
        Daemon::CharonCmd => &[Daemon::CharonCmd],
    }
}

/// Plans the cure for the daemons that run here (all of one [`group`]), or for all of the group where none does.
#[must_use]
pub fn plan(entries: &[&str], files: &mut Files<'_>, daemons: &[Daemon]) -> CurePlan {
    let mut includes: Vec<String> = Vec::new();
    let now = Configuration::read(entries, &mut |pattern| {
        includes.push(pattern.into());
        files(pattern)
    });
    if now.files.is_empty() && now.problems.is_empty() {
        return CurePlan::Absent;
    }
    if let Some(obstacle) = unusable(&now) {
        return CurePlan::Blocked(obstacle);
    }
    if let Some(place) = off(&now, daemons) {
        return CurePlan::Off { place };
    }
    let all = daemons.first().map_or(daemons, |daemon| group(*daemon));
    includes.reverse();
    let attempts = attempts(&now, &includes, all);
    // One that counts for every daemon that may be started, rather than for the one that runs alone.
    for wanted in [all, daemons] {
        for attempt in &attempts {
            let then = with(entries, files, attempt);
            if unusable(&then).is_none() && off(&then, wanted).is_some() && same_otherwise(&now, &then) {
                return CurePlan::DropIn(attempt.clone());
            }
        }
    }
    CurePlan::Blocked(by_hand(&now, daemons))
}

/// Is it off for these daemons? Then where, for the first of them.
#[must_use]
pub fn off(configuration: &Configuration, daemons: &[Daemon]) -> Option<Place> {
    let settings: Vec<_> = daemons.iter().map(|daemon| configuration.settings(*daemon).install_routes).collect();
    let all_off = configuration.is_complete() && settings.iter().all(|setting| !setting.value);
    settings.into_iter().next().and_then(|setting| setting.place).filter(|_| all_off)
}

fn unusable(configuration: &Configuration) -> Option<Obstacle> {
    if let Some(problem) = configuration.refused() {
        return Some(Obstacle::Refused(problem.clone()));
    }
    let hiding = configuration.problems.iter().find(|problem| problem.kind.hides_settings());
    hiding.map(|problem| Obstacle::Incomplete(problem.clone()))
}

/// The files that may help, the likeliest first.
fn attempts(now: &Configuration, includes: &[String], daemons: &[Daemon]) -> Vec<DropIn> {
    let mut attempts: Vec<DropIn> = Vec::new();
    for include in includes.iter().filter(|include| has_wildcards(include)) {
        let Some((directory, _)) = include.rsplit_once('/') else { continue };
        if has_wildcards(directory) {
            continue;
        }
        for path in names(now, directory).map(|name| format!("{directory}/{name}")) {
            if !covers(include, &path) || attempts.iter().any(|attempt| attempt.path == path) {
                continue;
            }
            let drop_in = |text| DropIn { path: path.clone(), text, include: include.clone() };
            attempts.extend(texts(daemons).into_iter().map(drop_in));
        }
    }
    attempts
}

/// Names that come last in a directory: the usual one, and one behind files that are named to come last, too.
fn names(now: &Configuration, directory: &str) -> impl Iterator<Item = String> + use<> {
    let in_directory = |file: &String| {
        let (parent, name) = file.rsplit_once('/')?;
        (parent == directory && !name.ends_with(NAME)).then(|| name.chars().take_while(|letter| *letter == 'z').count())
    };
    let most = now.files.iter().filter_map(in_directory).max().unwrap_or(0);
    let behind = (most >= 2).then(|| format!("{}-{NAME}", "z".repeat(most + 1)));
    [Some(format!("zz-{NAME}")), behind].into_iter().flatten()
}

/// What may stand in it: the section that all of a group share, then each one's own beside it, then the setting alone for
/// an include that stands within the section.
fn texts(daemons: &[Daemon]) -> Vec<String> {
    let section = |daemon: &Daemon| format!("{} {{\n    install_routes = no\n}}\n", daemon.name());
    let first: String = daemons.iter().take(1).map(section).collect();
    let mut texts = vec![format!("{HEADER}{first}")];
    if daemons.len() > 1 {
        texts.push(format!("{HEADER}{}", daemons.iter().map(section).collect::<String>()));
    }
    texts.push(format!("{HEADER}install_routes = no\n"));
    texts
}

/// The configuration as it would be with the file.
fn with(entries: &[&str], files: &mut Files<'_>, drop_in: &DropIn) -> Configuration {
    Configuration::read(entries, &mut |pattern| {
        let mut found = files(pattern);
        found.retain(|file| file.path != drop_in.path);
        if covers(pattern, &drop_in.path) {
            found.push(File { path: drop_in.path.clone(), text: Ok(drop_in.text.clone()), modified: None });
            found.sort_by(|one, other| one.path.cmp(&other.path));
        }
        found
    })
}

/// Nothing but `install_routes` may come out otherwise than before.
fn same_otherwise(now: &Configuration, then: &Configuration) -> bool {
    Daemon::ALL.into_iter().all(|daemon| {
        let before = now.settings(daemon);
        Settings { install_routes: before.install_routes.clone(), ..then.settings(daemon) } == before
    })
}

fn by_hand(now: &Configuration, daemons: &[Daemon]) -> Obstacle {
    let on = daemons.iter().find(|daemon| now.settings(**daemon).install_routes.value);
    let daemon = on.or(daemons.first()).copied().unwrap_or(Daemon::Charon);
    let (place, edit) = place_of_setting(now, daemon);
    Obstacle::NoPlace { place, edit }
}

/// Where a person makes the setting on this host, and how.
#[must_use]
pub fn place_of_setting(configuration: &Configuration, daemon: Daemon) -> (String, String) {
    let of_setting = |kind: &ProblemKind| matches!(kind, ProblemKind::NotUnderstood(Key::InstallRoutes));
    if let Some(problem) = configuration.problems.iter().find(|problem| of_setting(&problem.kind)) {
        let place = problem.line.map_or_else(|| problem.file.clone(), |line| format!("{}:{line}", problem.file));
        return (place, "write `install_routes = no` there: what stands there means nothing to the daemon".into());
    }
    let settings: Settings = configuration.settings(daemon);
    if let Some(place) = settings.install_routes.place {
        return (place.to_string(), "change it to `install_routes = no`".into());
    }
    let section = if daemon == Daemon::CharonSystemd { Daemon::Charon } else { daemon }.name();
    let file_named = |end: &str| configuration.files.iter().find(|file| file.ends_with(end));
    if let Some(file) = file_named(&format!("/strongswan.d/{section}.conf")) {
        return (file.clone(), format!("set `install_routes = no` in section `{section}`"));
    }
    let text = format!("write `{section} {{ install_routes = no }}`");
    let in_directory = configuration.files.iter().find_map(|file| {
        let (directory, _) = file.rsplit_once('/')?;
        directory.ends_with("/strongswan.d").then(|| format!("{directory}/{section}.conf"))
    });
    match (in_directory, configuration.files.first()) {
        (Some(file), _) => (format!("{file}, a new file"), text),
        (None, Some(entry)) => (entry.clone(), text),
        (None, None) => (
            "/etc/strongswan.d/charon.conf (Debian, Ubuntu) or /etc/strongswan/strongswan.d/charon.conf (RHEL, Fedora)"
                .into(),
            format!("set `{section} {{ install_routes = no }}`"),
        ),
    }
}
