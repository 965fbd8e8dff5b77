//! Active units, without asking systemd: it keeps a link for each in /run (`unit_export_invocation_id` in
//! `src/core/unit.c`), and takes it away when the unit stops.

use std::fs;

use super::of_all_programs;

const DIRECTORY: &str = "/run/systemd/units";

/// The active units of the programs that matter, sorted.
pub(super) fn active() -> Vec<String> {
    let names = fs::read_dir(DIRECTORY).into_iter().flatten().flatten().map(|entry| entry.file_name());
    select(names.map(|name| name.to_string_lossy().into_owned()))
}

fn select(links: impl Iterator<Item = String>) -> Vec<String> {
    let begins = of_all_programs(|signs| signs.units);
    let matters = |unit: &String| begins.iter().any(|begin| unit.starts_with(begin));
    let units = links.filter_map(|link| link.strip_prefix("invocation:").map(String::from));
    let mut units: Vec<String> = units.filter(matters).collect();
    units.sort();
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_units_that_matter_are_kept() {
        let links = [
            "invocation:wg-quick@wg0.service",
            "log-level-max:cron.service",
            "invocation:cron.service",
            "invocation:strongswan.service",
        ];
        let found = select(links.iter().map(ToString::to_string));
        assert_eq!(found, ["strongswan.service", "wg-quick@wg0.service"]);
    }
}
