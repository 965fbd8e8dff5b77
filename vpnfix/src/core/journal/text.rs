//! The journal as it lies in its file: a line for the header and one for each entry, each with its checksum.
//!
//! Lines are appended, because a plan may have a rule for each of thousands of prefixes, and writing all anew after each
//! would take time that grows with their square. A writer that is killed in the middle of a line leaves one without its
//! end, which is no damage: the entry before it told what was about to happen.

use serde::Deserialize;

use super::{Entry, FORMAT, Header, Journal, Record};

/// A journal that is larger was not written by vpnfix: ten thousand rules take a third of it.
pub const LARGEST: usize = 32 * 1024 * 1024;

/// The header's line, with its end.
///
/// # Errors
/// None that is known: the values have a form in JSON.
pub fn header_line(header: &Header) -> serde_json::Result<String> {
    serde_json::to_string(header).map(|json| line(&json))
}

/// An entry's line, with its end.
///
/// # Errors
/// None that is known: the values have a form in JSON.
pub fn entry_line(entry: &Entry) -> serde_json::Result<String> {
    serde_json::to_string(entry).map(|json| line(&json))
}

fn line(json: &str) -> String {
    format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()))
}

/// What a header has in every format.
#[derive(Deserialize)]
struct AnyHeader {
    format: u32,
    vpnfix: String,
}

/// Reads what lies in the file.
#[must_use]
pub fn read(bytes: &[u8]) -> Record {
    if bytes.len() > LARGEST {
        return Record::Broken(format!("it is larger than {} MiB", LARGEST >> 20));
    }
    let broken = |number: usize, why: &str| Record::Broken(format!("line {number}: {why}"));
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n').enumerate();
    let Some((_, first)) = lines.next() else { return Record::Broken("it is empty".into()) };
    let Some(json) = checked(first) else { return broken(1, "damaged, or no journal at all") };
    match serde_json::from_slice::<AnyHeader>(json) {
        Ok(AnyHeader { format, vpnfix }) if format > FORMAT => {
            return Record::Newer { format, vpnfix: printable(&vpnfix) };
        }
        _ => {}
    }
    let Ok(header) = serde_json::from_slice::<Header>(json) else { return broken(1, "not a journal's header") };
    let mut journal = Journal { header, rules: Vec::new() };
    for (index, text) in lines {
        if !text.ends_with(b"\n") {
            break;
        }
        let Some(json) = checked(text) else { return broken(index + 1, "damaged") };
        if !serde_json::from_slice::<Entry>(json).is_ok_and(|entry| journal.take(entry)) {
            return broken(index + 1, "not an entry of a journal");
        }
    }
    Record::Whole(journal)
}

/// The line without its checksum, if that is right.
fn checked(line: &[u8]) -> Option<&[u8]> {
    let (sum, rest) = line.split_at_checked(8)?;
    let json = rest.strip_prefix(b" ")?.strip_suffix(b"\n")?;
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
    (crc32fast::hash(json) == sum).then_some(json)
}

/// It is shown, and whoever wrote the file may have meant mischief.
fn printable(version: &str) -> String {
    version.chars().filter(|character| !character.is_control()).take(40).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Place, Recorded, Stage};
    use super::*;
    use crate::core::model::{Family, Rule};

    fn header() -> Header {
        let place = Place { boot_id: "b".into(), netns_inode: 1 };
        Header { format: FORMAT, vpnfix: "0.1.0".into(), place, netns_name: Some("vpn".into()), pid: 1, began: 2 }
    }

    fn sample() -> String {
        let rule = |priority| {
            Entry::Rule(Box::new(Recorded { rule: Rule::lookup(Family::V4, priority, 254), stage: Stage::Intended }))
        };
        let entries = [rule(100), rule(101), Entry::Stage(0, Stage::Added), Entry::Stage(1, Stage::Added)];
        let lines = entries.iter().map(|entry| entry_line(entry).unwrap());
        std::iter::once(header_line(&header()).unwrap()).chain(lines).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let Record::Whole(journal) = read(sample().as_bytes()) else { panic!("not whole") };
        assert_eq!(journal.header, header());
        let stages: Vec<_> = journal.rules.iter().map(|recorded| (recorded.rule.priority, recorded.stage)).collect();
        assert_eq!(stages, [(100, Stage::Added), (101, Stage::Added)]);
    }

    #[test]
    fn a_newer_format_is_told_whatever_else_it_holds() {
        let text = line(r#"{"format":2,"vpnfix":"9.9\u001b","place":"elsewhere"}"#) + "what is this\n";
        assert_eq!(read(text.as_bytes()), Record::Newer { format: 2, vpnfix: "9.9".into() });
    }

    #[test]
    fn garbage_is_told() {
        for garbage in [&b""[..], b"\n", b"\0\0\0\0", b"00000000 {}\n", b"zzzzzzzz {}\n", &[0xff; 64], b"{}"] {
            assert!(matches!(read(garbage), Record::Broken(_)), "{garbage:?}");
        }
        let stray = header_line(&header()).unwrap() + &entry_line(&Entry::Stage(7, Stage::Kept)).unwrap();
        assert!(matches!(read(stray.as_bytes()), Record::Broken(_)));
    }

    proptest! {
        /// Cut anywhere, a journal loses its end and nothing else.
        #[test]
        fn a_cut_journal_is_its_beginning(cut in 0_usize..2000) {
            let text = sample();
            let cut = cut % text.len();
            let ends = text.bytes().take(cut).filter(|byte| *byte == b'\n').count();
            match read(&text.as_bytes()[..cut]) {
                Record::Broken(_) => prop_assert_eq!(ends, 0),
                Record::Whole(journal) => prop_assert_eq!(journal.rules.len(), (ends - 1).min(2)),
                other => prop_assert!(false, "{other:?}"),
            }
        }

        /// One byte changed is noticed, unless it hides the end of the last line.
        #[test]
        fn a_changed_byte_is_noticed(at in 0_usize..2000, byte in any::<u8>()) {
            let text = sample();
            let mut bytes = text.clone().into_bytes();
            let at = at % (bytes.len() - 1);
            prop_assume!(bytes[at] != byte && !bytes[at].eq_ignore_ascii_case(&byte));
            bytes[at] = byte;
            prop_assert!(matches!(read(&bytes), Record::Broken(_)), "byte {at} of {text}");
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _any = read(&bytes);
        }
    }
}
