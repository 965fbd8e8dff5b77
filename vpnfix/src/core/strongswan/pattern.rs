//! Patterns of glob(3), as strongSwan's includes have them.

use glob::{MatchOptions, Pattern};

/// As glob(3) without flags: no name that begins with a dot, no slash by a wildcard.
pub const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// May it stand for several files?
#[must_use]
pub fn has_wildcards(pattern: &str) -> bool {
    pattern.contains(['*', '?', '[', '\\'])
}

/// A pattern of glob(3) in the words of the crate: two stars are one, a backslash takes the next character as it is.
#[must_use]
pub fn translated(pattern: &str) -> String {
    let mut translated = String::new();
    let mut characters = pattern.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '*' if characters.peek() == Some(&'*') => {}
            '\\' => translated.extend(characters.next().map(|next| Pattern::escape(&next.to_string()))),
            other => translated.push(other),
        }
    }
    translated
}

/// Would glob(3) find this file by the pattern, if it were there?
#[must_use]
pub(super) fn covers(pattern: &str, path: &str) -> bool {
    if !has_wildcards(pattern) {
        return pattern == path;
    }
    Pattern::new(&translated(pattern)).is_ok_and(|pattern| pattern.matches_with(path, OPTIONS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_what_glob_would_find() {
        let path = "/etc/strongswan.d/zz-vpnfix.conf";
        for pattern in
            [path, "/etc/strongswan.d/*.conf", "/etc/strongswan.d/**.conf", "/etc/*.d/[a-z]*", "/etc/s*/z?-*"]
        {
            assert!(covers(pattern, path), "{pattern}");
        }
        for pattern in ["/etc/*.conf", "/etc/strongswan.d/charon*.conf", "/etc/strongswan.d/\\*.conf", "["] {
            assert!(!covers(pattern, path), "{pattern}");
        }
        assert!(!covers("/etc/*", "/etc/.hidden"));
    }
}
