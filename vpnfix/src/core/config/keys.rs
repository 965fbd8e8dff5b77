//! The keys that there are, and which of them a wrong one was meant to be.

use toml::de::{DeTable, DeValue};

use super::{ConfigError, line_of};

/// A section: its name, its keys, and what lies below it.
struct Section {
    name: &'static str,
    keys: &'static [&'static str],
    below: &'static [Section],
}

const ROOT: Section = Section {
    name: "",
    keys: &["tunnels"],
    below: &[
        Section {
            name: "prefixes",
            keys: &["leave"],
            below: &[Section { name: "add", keys: &["prefix", "tunnel"], below: &[] }],
        },
        Section {
            name: "watch",
            keys: &["fix", "strategy", "fail-closed", "undo-on-exit", "probe", "wait", "metrics", "on-event"],
            below: &[
                Section {
                    name: "limits",
                    keys: &["repairs", "window", "pause", "longest-pause", "fight-after", "calm"],
                    below: &[],
                },
                Section { name: "incidents", keys: &["directory", "keep", "megabytes"], below: &[] },
            ],
        },
    ],
};

/// Looks for keys that are not known.
pub(super) fn check(text: &str) -> Result<(), ConfigError> {
    // What is no TOML is told by whoever reads the values.
    let Ok(table) = DeTable::parse(text) else { return Ok(()) };
    check_table(text, table.get_ref(), &ROOT, "")
}

fn check_table(text: &str, table: &DeTable<'_>, section: &Section, path: &str) -> Result<(), ConfigError> {
    for (key, value) in table {
        let name: &str = key.get_ref();
        let below = section.below.iter().find(|below| below.name == name);
        let Some(below) = below else {
            if section.keys.contains(&name) {
                continue;
            }
            return Err(ConfigError { line: line_of(text, key.span().start), message: unknown(name, section, path) });
        };
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        match value.get_ref() {
            DeValue::Table(table) => check_table(text, table, below, &path)?,
            DeValue::Array(array) => {
                for element in array {
                    if let DeValue::Table(table) = element.get_ref() {
                        check_table(text, table, below, &path)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn unknown(name: &str, section: &Section, path: &str) -> String {
    let place = if path.is_empty() { String::new() } else { format!(" in [{path}]") };
    let mut known: Vec<&str> =
        section.keys.iter().copied().chain(section.below.iter().map(|below| below.name)).collect();
    known.sort_unstable();
    let nearest = known.iter().map(|known| (strsim::damerau_levenshtein(name, known), *known)).min();
    match nearest {
        // As near as a slip of the finger or two.
        Some((distance, nearest)) if distance <= 2.max(name.chars().count() / 4) => {
            format!("unknown key `{name}`{place}; did you mean `{nearest}`?")
        }
        _ => format!("unknown key `{name}`{place}; known are: {}", known.join(", ")),
    }
}

/// All keys with their sections, for tests.
#[cfg(test)]
pub(super) fn all() -> Vec<String> {
    fn of(section: &Section, path: &str, into: &mut Vec<String>) {
        into.extend(section.keys.iter().map(|key| format!("{path}{key}")));
        for below in section.below {
            of(below, &format!("{path}{}.", below.name), into);
        }
    }
    let mut found = Vec::new();
    of(&ROOT, "", &mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::super::{Added, Config};
    use super::*;

    /// The keys here are those of the values: what serde writes.
    #[test]
    fn the_keys_are_those_of_the_values() {
        let mut config = Config::default();
        config.watch.metrics = "127.0.0.1:9779".parse().ok();
        config.prefixes.add = vec![Added { prefix: "10.0.0.0/8".parse().expect("a prefix"), tunnel: "t".into() }];
        let mut written = Vec::new();
        flatten(&toml::Value::try_from(&config).expect("TOML"), "", &mut written);
        let mut known = all();
        written.sort();
        known.sort();
        assert_eq!(written, known);
    }

    fn flatten(value: &toml::Value, path: &str, into: &mut Vec<String>) {
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    flatten(value, &path, into);
                }
            }
            toml::Value::Array(array) if array.first().is_some_and(toml::Value::is_table) => {
                for value in array {
                    flatten(value, path, into);
                }
            }
            _ => into.push(path.to_owned()),
        }
    }
}
