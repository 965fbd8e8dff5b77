//! What the daemons take a text for (`settings_value_as_bool`, `settings_value_as_int`, `mark_from_string`).

use super::RuleMark;
use crate::core::model::Mark;

/// Yes or no, in upper or lower case; `None` for what is neither: the default holds then.
pub(super) fn boolean(text: &str) -> Option<bool> {
    let is = |words: [&str; 4]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    match () {
        () if is(["1", "yes", "true", "enabled"]) => Some(true),
        () if is(["0", "no", "false", "disabled"]) => Some(false),
        () => None,
    }
}

/// A number: decimal, also with leading zeros, or hexadecimal after `0x`.
pub(super) fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => digits_of(digits, 16),
        None => digits_of(text, 10),
    }
}

/// `[!]mark[/mask]`, the numbers as in C: decimal, `0x` hexadecimal, `0` octal. Bits outside of the mask do not count.
pub(super) fn rule_mark(text: &str) -> Option<RuleMark> {
    let (invert, text) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
    let (value, mask) = match text.split_once('/') {
        Some((value, mask)) => (c_number(value)?, c_number(mask)?),
        None => (c_number(text)?, u32::MAX),
    };
    Some(RuleMark { invert, mark: Mark { value: value & mask, mask } })
}

fn c_number(text: &str) -> Option<u32> {
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return digits_of(digits, 16);
    }
    match text.strip_prefix('0') {
        Some(digits) if !digits.is_empty() => digits_of(digits, 8),
        _ => digits_of(text, 10),
    }
}

/// Digits alone: Rust's own parser would take a plus sign.
fn digits_of(text: &str, base: u32) -> Option<u32> {
    text.chars().all(|digit| digit.is_digit(base)).then(|| u32::from_str_radix(text, base).ok()).flatten()
}
