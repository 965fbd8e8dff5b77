//! Golden hosts: each folder of `hosts` is a host as some program makes it, with the diagnosis that is right for it.
//!
//! | file | made by | holds |
//! |---|---|---|
//! | `host` | hand | what this host is, and the `ip` commands and sysctls that make it |
//! | `signs.toml` | hand | what is seen of it beside its routing: programs, connections, `--tunnel` |
//! | `truth.toml` | hand | what is so, decided without vpnfix: where each destination goes and why, who owns each rule |
//! | `recorded.json` | a real kernel | the snapshot, and the kernel's answer to each question |
//! | `diagnosis.json`, `diagnosis.txt` | vpnfix | the report, line by line |
//!
//! - The replay needs no privilege and no kernel: snapshot and answers come from the recording.
//! - `VPNFIX_BLESS=1` rewrites the diagnoses, to be read as a diff. It never touches a `truth.toml`.
//! - `cargo xtask golden` records all hosts anew in a virtual machine. That is needed after a change to a `host`, to the
//!   model's values, or to the questions that vpnfix asks.
//! - As root, on a kernel that has the links of a host, the host is played again and must be decided as recorded.
//! - What vpnfix is known to tell wrongly stands in `gaps.toml`, and leaves it as soon as it is told right.

mod host;
mod pipeline;
mod recording;
mod scene;
mod signs;
mod truth;

use std::collections::BTreeMap;
use std::path::Path;
use std::{env, fs};

use vpnfix::render::{self, Palette};

use crate::host::Host;
use crate::recording::Recording;
use crate::scene::Namespace;

/// Set to rewrite the diagnoses.
const BLESS: &str = "VPNFIX_BLESS";
/// Names the folder that [`record`] writes into.
const RECORD: &str = "VPNFIX_RECORD";
/// Set where every host's kinds of links are there: one that cannot be played is a failure then.
const ALL_KINDS: &str = "VPNFIX_ALL_KINDS";

#[test]
fn hosts_are_diagnosed_as_expected() {
    let hosts = Host::all();
    let mut gaps = truth::known_gaps();
    let mut wrong = Vec::new();
    for host in &hosts {
        let recording = Recording::read(&host.folder.join("recorded.json"));
        let diagnosis =
            match pipeline::diagnose(recording.snapshot.clone(), &host.signs, |asked| recording.answer(asked)) {
                Ok(diagnosis) => diagnosis,
                Err(unrecorded) => {
                    wrong.push(format!("{}: {unrecorded}", host.name));
                    continue;
                }
            };
        let json = render::document(&diagnosis.report).unwrap();
        let text = render::diagnose::text(&diagnosis.report, Palette::new(false));
        for (name, told) in [("diagnosis.json", &json), ("diagnosis.txt", &text)] {
            wrong.extend(compare(&host.folder.join(name), told));
        }
        for (what, detail) in host.truth.differences(&diagnosis, &text) {
            let key = format!("{}: {what}", host.name);
            if gaps.remove(&key).is_none() {
                wrong.push(format!("{key}: {detail}"));
            }
        }
    }
    wrong.extend(gaps.keys().map(|key| format!("{key}: told right now; remove it from gaps.toml")));
    assert!(wrong.is_empty(), "{} of {} hosts' lines are wrong:\n{}", wrong.len(), hosts.len(), wrong.join("\n"));
}

/// Compares what was told with the file, or rewrites the file where that is asked for.
fn compare(file: &Path, told: &str) -> Option<String> {
    let expected = fs::read_to_string(file).unwrap_or_default();
    if expected == told {
        return None;
    }
    if env::var_os(BLESS).is_some() {
        fs::write(file, told).unwrap();
        return None;
    }
    let (mut expected, mut told) = (expected.lines(), told.lines());
    for number in 1.. {
        let (expected, told) = (expected.next(), told.next());
        if expected != told || told.is_none() {
            let (expected, told) = (expected.unwrap_or("(end)"), told.unwrap_or("(end)"));
            let file = file.display();
            return Some(format!("{file}:{number}: expected `{expected}`, told `{told}` ({BLESS}=1 rewrites it)"));
        }
    }
    None
}

/// Records every host, or those that [`RECORD`] names after the folder (`FOLDER:HOST,HOST`), on this machine's kernel.
#[test]
#[ignore = "makes the recordings; cargo xtask golden runs it"]
fn record() {
    let folder = env::var(RECORD).expect("the variable names a folder");
    assert!(nix::unistd::geteuid().is_root(), "recording needs root");
    let (folder, only) = folder.split_once(':').unwrap_or((folder.as_str(), ""));
    let mut wrong = BTreeMap::new();
    let hosts = Host::all();
    for host in hosts.iter().filter(|host| only.is_empty() || only.split(',').any(|name| name == host.name)) {
        // One host that cannot be played must not hide what is wrong with the others.
        match std::panic::catch_unwind(|| Namespace::played(host).record()) {
            Ok(Ok(recording)) => {
                let folder = Path::new(folder).join(&host.name);
                fs::create_dir_all(&folder).unwrap();
                recording.write(&folder.join("recorded.json"));
                println!("recorded {}", host.name);
            }
            Ok(Err(why)) => drop(wrong.insert(&host.name, why)),
            Err(_panic) => drop(wrong.insert(&host.name, "panicked, see above".into())),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn recordings_hold_on_this_kernel() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: network namespaces need root");
        assert!(env::var_os("CI").is_none(), "a skip is a failure in CI");
        return;
    }
    let mut wrong = Vec::new();
    let mut skipped = Vec::new();
    let supported = scene::SupportedKinds::default();
    for host in Host::all() {
        if let Some(kind) = host.script.kinds().into_iter().find(|kind| !supported.has(kind)) {
            skipped.push(format!("{} ({kind})", host.name));
            continue;
        }
        let recording = Recording::read(&host.folder.join("recorded.json"));
        match Namespace::played(&host).record() {
            Ok(fresh) => {
                wrong.extend(recording.differences(&fresh).into_iter().map(|line| format!("{}: {line}", host.name)))
            }
            Err(why) => wrong.push(format!("{}: {why}", host.name)),
        }
    }
    if !skipped.is_empty() {
        println!("SKIP: this kernel lacks kinds of links, so these hosts were not played: {}", skipped.join(", "));
        assert!(env::var_os(ALL_KINDS).is_none(), "a host that is not played is a failure here");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
