//! Sockets, directories and pid files of running programs.

use std::fs;
use std::path::Path;

use super::{of_all_programs, processes};
use crate::core::owner::{PidFile, Program};

/// Those of the programs' sockets and directories that exist.
pub(super) fn existing() -> Vec<String> {
    let paths = of_all_programs(|signs| signs.paths).into_iter();
    paths.filter(|path| Path::new(path).exists()).map(String::from).collect()
}

/// The programs' pid files that can be read. A number in one may belong to another process by now: the name tells.
pub(super) fn pid_files() -> Vec<PidFile> {
    let files = Program::ALL.into_iter().flat_map(|program| {
        let signs = program.signs();
        signs.pid_files.iter().map(move |path| (*path, signs.processes))
    });
    files.filter_map(|(path, names)| pid_file(path, names)).collect()
}

fn pid_file(path: &str, names: &[&str]) -> Option<PidFile> {
    let pid = fs::read_to_string(path).ok()?.trim().parse().ok();
    let alive = pid.and_then(processes::name).is_some_and(|name| names.contains(&name.as_str()));
    Some(PidFile { path: path.into(), pid, alive })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_tells_whether_its_process_lives() {
        let path = std::env::temp_dir().join(format!("vpnfix-pid-file-{}", std::process::id()));
        let text = path.to_str().unwrap();
        fs::write(&path, format!("{}\n", std::process::id())).unwrap();
        let name = processes::name(std::process::id()).unwrap();
        let (own, other) = (pid_file(text, &[name.as_str()]), pid_file(text, &["charon"]));
        fs::write(&path, "nonsense").unwrap();
        let broken = pid_file(text, &["charon"]);
        fs::remove_file(&path).unwrap();
        assert!(own.unwrap().alive);
        assert!(!other.unwrap().alive);
        assert_eq!(broken.unwrap().pid, None);
        assert_eq!(pid_file(text, &["charon"]), None);
    }
}
