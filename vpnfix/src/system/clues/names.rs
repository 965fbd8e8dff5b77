//! The names that a host gives to routing tables and route protocols (iproute2's `rt_tables` and `rt_protos`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where iproute2 looks: its own files first, the host's later and stronger.
const DIRECTORIES: [&str; 3] = ["/usr/share/iproute2", "/usr/lib/iproute2", "/etc/iproute2"];

/// Names of tables.
pub(super) fn tables() -> BTreeMap<u32, String> {
    read("rt_tables")
}

/// Names of protocols.
pub(super) fn protocols() -> BTreeMap<u8, String> {
    read("rt_protos").into_iter().filter_map(|(number, name)| Some((u8::try_from(number).ok()?, name))).collect()
}

fn read(file: &str) -> BTreeMap<u32, String> {
    let mut names = BTreeMap::new();
    for directory in DIRECTORIES.map(Path::new) {
        names.extend(parse(&directory.join(file)));
        for file in drop_ins(&directory.join(format!("{file}.d"))) {
            names.extend(parse(&file));
        }
    }
    names
}

fn drop_ins(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    files.sort();
    files
}

fn parse(file: &Path) -> Vec<(u32, String)> {
    let bytes = fs::read(file).unwrap_or_default();
    parse_text(&String::from_utf8_lossy(&bytes))
}

/// Lines of a number, decimal or with `0x`, and a name. Lines that make no sense are passed over.
fn parse_text(text: &str) -> Vec<(u32, String)> {
    let entry = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let number = words.next()?;
        let number = match number.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).ok()?,
            None => number.parse().ok()?,
        };
        Some((number, words.next()?.to_string()))
    };
    text.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_read_and_the_rest_passed_over() {
        let text = "#\n# reserved values\n255\tlocal\n\n0x1BD0 netbird\n#1\tinr.ruhep\n220 ipsec # mine\nx y\n7\n";
        let expected = [(255, "local"), (7120, "netbird"), (220, "ipsec")].map(|(number, name)| (number, name.into()));
        assert_eq!(parse_text(text), expected);
    }
}
