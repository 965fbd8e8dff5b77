//! What must never be told: the scene's pre-shared keys and BGP password, and the keys of its SAs.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;

/// The secrets of a scene. Without `Debug`, so that they are never shown.
pub struct Secrets {
    /// The pre-shared key of each tunnel.
    pub shared: [String; 2],
    /// BGP's password, for those who set one.
    pub password: String,
    keys: BTreeSet<String>,
}

impl Secrets {
    /// Makes them.
    ///
    /// # Panics
    ///
    /// If there is no source of random numbers.
    pub fn random() -> Self {
        let mut source = File::open("/dev/urandom").expect("no /dev/urandom");
        let mut hex = || {
            let mut bytes = [0; 12];
            source.read_exact(&mut bytes).expect("no random bytes");
            let mut text = String::new();
            bytes.iter().for_each(|byte| write!(text, "{byte:02x}").expect("a string takes it"));
            text
        };
        Self { shared: [hex(), hex()], password: hex(), keys: BTreeSet::new() }
    }

    /// Takes in the keys that `ip xfrm state` shows.
    pub fn learn(&mut self, states: &str) {
        for line in states.lines().map(str::trim).filter(|line| line.starts_with("enc ") || line.starts_with("auth")) {
            let key = line.split_whitespace().find_map(|word| word.strip_prefix("0x"));
            self.keys.extend(key.filter(|key| key.len() >= 16).map(str::to_owned));
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.keys.len() + 3
    }

    /// The number of one that the text holds.
    pub fn find_in(&self, text: &str) -> Option<usize> {
        let lower = text.to_ascii_lowercase();
        let all = self.shared.iter().chain([&self.password]).chain(&self.keys);
        all.enumerate().find(|(_, secret)| lower.contains(secret.as_str())).map(|(number, _)| number)
    }
}
