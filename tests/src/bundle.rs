//! Captures under way, and what their bundles hold, read without vpnfix.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStderr};

use serde_json::Value;

/// A `vpnfix capture` that runs.
pub struct Capturing {
    child: Child,
    lines: BufReader<ChildStderr>,
    told: String,
}

impl Capturing {
    /// Of a capture that was started with its outputs piped.
    ///
    /// # Panics
    ///
    /// If standard error is not.
    pub fn of(mut child: Child) -> Self {
        let lines = BufReader::new(child.stderr.take().expect("it is piped"));
        Self { child, lines, told: String::new() }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until its progress says this.
    ///
    /// # Panics
    ///
    /// If it ends before.
    #[track_caller]
    pub fn says(&mut self, what: &str) {
        while !self.told.contains(what) {
            let read = self.lines.read_line(&mut self.told).expect("its progress cannot be read");
            assert!(read > 0, "it ended and did not say {what:?}: {}", self.told);
        }
    }

    /// Its exit status and all that it said.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    pub fn end(mut self) -> (Option<i32>, String) {
        self.lines.read_to_string(&mut self.told).expect("its progress cannot be read");
        let said = self.child.wait_with_output().expect("it was started");
        (said.status.code(), self.told + &String::from_utf8_lossy(&said.stdout))
    }
}

/// A document of a bundle in a directory.
///
/// # Panics
///
/// If it is not there, or no JSON.
pub fn document(bundle: &Path, name: &str) -> Value {
    let text = fs::read_to_string(bundle.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// IPv4's rules of a bundle's state, as [`crate::ip::rules_v4`] tells those of now.
///
/// # Panics
///
/// If they cannot be read.
pub fn rules_of(bundle: &Path, moment: &str) -> Vec<String> {
    let rules = document(bundle, &format!("{moment}/rules.json"));
    let of_v4 = rules.as_array().expect("a list").iter().filter(|rule| rule["family"] == "ipv4");
    of_v4.map(|rule| format!("{}:\t{}", rule["priority"], rule["text"].as_str().expect("a text"))).collect()
}

/// Every file of a bundle, by its path.
///
/// # Panics
///
/// If one cannot be read.
pub fn all_text(directory: &Path) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        if entry.path().is_dir() {
            all.extend(all_text(&entry.path()));
        } else {
            let bytes = fs::read(entry.path()).expect("a file");
            all.push((entry.path().display().to_string(), String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    all
}
