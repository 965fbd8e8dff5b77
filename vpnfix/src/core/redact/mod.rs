//! Stand-ins for what a bundle should not tell others: public addresses, host names, names of accounts. The same thing
//! gets the same stand-in everywhere, and what lies in a prefix still lies in that prefix's stand-in.
//!
//! Only strings are touched: numbers are counts and tables, and stay. Private, link-local, documentation and benchmark
//! addresses stay, for they say nothing, and a tunnel's inside addresses are what it is all about.

mod address;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::bundle::Files;
use address::Addresses;

pub use address::TooManyNetworks;

/// Replaces, and remembers what by what.
#[derive(Clone, Debug)]
pub struct Redactor {
    addresses: Addresses,
    names: BTreeMap<String, String>,
}

impl Redactor {
    /// For these files. `hostname` is replaced wherever it stands. `seed` must not be guessable: it hides the addresses'
    /// last bits.
    ///
    /// # Errors
    /// There are more public networks in them than there are stand-ins.
    pub fn new(files: &Files, hostname: &str, seed: [u8; 16]) -> Result<Self, TooManyNetworks> {
        let mut seen = BTreeSet::new();
        for_each_string(files, &mut |text| {
            words::for_each(text, &mut |word| seen.extend(address::prefixes(word)));
        });
        let mut names = BTreeMap::new();
        let first = hostname.split('.').next().unwrap_or_default();
        for name in [hostname, first] {
            // A name of one letter would be found everywhere, and `localhost` is everyone's.
            if name.len() > 1 && name != "localhost" {
                names.insert(name.to_string(), "host-1".to_string());
            }
        }
        Ok(Self { addresses: Addresses::new(&seen, seed)?, names })
    }

    /// The files with stand-ins. Files that are neither JSON nor JSON Lines are not given back.
    #[must_use]
    pub fn files(&mut self, files: &Files) -> Files {
        let redacted = files.iter().filter_map(|(name, contents)| Some((name.clone(), self.file(name, contents)?)));
        redacted.collect()
    }

    fn file(&mut self, name: &str, contents: &[u8]) -> Option<Vec<u8>> {
        if name.ends_with(".json") {
            let value = self.value(serde_json::from_slice(contents).ok()?);
            let mut text = serde_json::to_vec_pretty(&value).ok()?;
            text.push(b'\n');
            return Some(text);
        }
        if !name.ends_with(".jsonl") {
            return None;
        }
        let mut out = Vec::with_capacity(contents.len());
        for line in contents.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let value = self.value(serde_json::from_slice(line).ok()?);
            out.extend(serde_json::to_vec(&value).ok()?);
            out.push(b'\n');
        }
        Some(out)
    }

    /// A value with stand-ins in its strings and keys.
    #[must_use]
    pub fn value(&mut self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(values) => Value::Array(values.into_iter().map(|value| self.value(value)).collect()),
            Value::Object(fields) => {
                Value::Object(fields.into_iter().map(|(key, value)| (self.text(&key), self.value(value))).collect())
            }
            other => other,
        }
    }

    /// A text with stand-ins.
    #[must_use]
    pub fn text(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        words::split(text, &mut |piece, is_word| {
            if is_word { out.push_str(&self.word(piece)) } else { out.push_str(piece) }
        });
        out
    }

    fn word(&mut self, word: &str) -> String {
        if let Some(stand_in) = self.names.get(word) {
            return stand_in.clone();
        }
        if let Some(stand_in) = self.addresses.word(word) {
            return stand_in;
        }
        let Some(kind) = words::kind(word, self.names.keys().map(String::as_str)) else { return word.into() };
        let number = self.names.values().filter(|name| name.starts_with(kind.stem())).count() + 1;
        let stand_in = kind.stand_in(number);
        self.names.insert(word.into(), stand_in.clone());
        stand_in
    }

    /// What was replaced, by what.
    #[must_use]
    pub fn mapping(&self) -> BTreeMap<String, String> {
        let mut mapping = self.addresses.mapping();
        mapping.extend(self.names.clone());
        mapping
    }
}

fn for_each_string(files: &Files, take: &mut dyn FnMut(&str)) {
    for (name, contents) in files {
        if name.ends_with(".json") {
            if let Ok(value) = serde_json::from_slice(contents) {
                strings(&value, take);
            }
        } else if name.ends_with(".jsonl") {
            for line in contents.split(|byte| *byte == b'\n') {
                if let Ok(value) = serde_json::from_slice(line) {
                    strings(&value, take);
                }
            }
        }
    }
}

fn strings(value: &Value, take: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => take(text),
        Value::Array(values) => values.iter().for_each(|value| strings(value, take)),
        Value::Object(fields) => {
            for (key, value) in fields {
                take(key);
                strings(value, take);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
