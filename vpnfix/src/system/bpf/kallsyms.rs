//! Addresses of kernel functions: those by which the programs tell vpnfix's own queries from a softirq that interrupts
//! them, and the names of all, by which call stacks and the places of drops are read.

use std::{fs, io};

/// Where a function lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Range {
    /// Its first byte.
    pub start: u64,
    /// The byte after it.
    pub end: u64,
}

/// The functions that the programs know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Functions {
    /// `inet_rtm_getroute`.
    pub getroute4: Range,
    /// `inet6_rtm_getroute`; a module's, or absent without IPv6.
    pub getroute6: Range,
    /// `handle_softirqs`, or `__do_softirq` where it does that work itself (before 6.10 or so).
    pub softirq: Range,
}

/// Reads the addresses. Nothing if the kernel hides them (`kernel.kptr_restrict`), or one is missing.
pub(super) fn functions() -> io::Result<Option<Functions>> {
    Ok(find(&fs::read_to_string("/proc/kallsyms")?))
}

/// A function ends where the next symbol starts. The table is sorted but for the modules at its end, so the next greater
/// address is searched.
fn find(table: &str) -> Option<Functions> {
    let mut wanted = [("inet_rtm_getroute", 0), ("inet6_rtm_getroute", 0), ("handle_softirqs", 0), ("__do_softirq", 0)];
    for (address, _, name) in symbols(table) {
        if let Some((_, start)) = wanted.iter_mut().find(|(wanted, start)| *wanted == name && *start == 0) {
            *start = address;
        }
    }
    let mut ranges = wanted.map(|(_, start)| Range { start, end: u64::MAX });
    for (address, ..) in symbols(table) {
        for range in &mut ranges {
            if address > range.start && address < range.end {
                range.end = address;
            }
        }
    }
    let [getroute4, getroute6, handle_softirqs, do_softirq] = ranges;
    let softirq = if handle_softirqs.start != 0 { handle_softirqs } else { do_softirq };
    let getroute6 = if getroute6.start == 0 { Range::default() } else { getroute6 };
    (getroute4.start != 0 && softirq.start != 0).then_some(Functions { getroute4, getroute6, softirq })
}

/// Address, kind and name of each symbol.
fn symbols(table: &str) -> impl Iterator<Item = (u64, &str, &str)> {
    table.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        Some((address, words.next()?, words.next()?))
    })
}

/// The kinds of symbols that are code (nm(1)).
const CODE: [&str; 4] = ["t", "T", "w", "W"];

/// Code that lies further behind the last symbol before it belongs to none.
const LONGEST_FUNCTION: u64 = 1 << 20;

/// The kernel's functions by address. Empty where the kernel hides addresses (`kernel.kptr_restrict`).
#[derive(Debug, Default)]
pub struct Symbols {
    /// All names, one behind the other.
    names: String,
    /// Address, and where among the names its own stands (start and length); sorted.
    starts: Vec<(u64, u32, u16)>,
}

impl Symbols {
    /// Reads `/proc/kallsyms`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read() -> io::Result<Self> {
        fs::read_to_string("/proc/kallsyms").map(|table| Self::of(&table))
    }

    fn of(table: &str) -> Self {
        let (mut names, mut starts) = (String::new(), Vec::new());
        for (address, kind, name) in symbols(table) {
            if let (Ok(at), Ok(length)) = (u32::try_from(names.len()), u16::try_from(name.len()))
                && address != 0
                && CODE.contains(&kind)
            {
                starts.push((address, at, length));
                names.push_str(name);
            }
        }
        names.shrink_to_fit();
        // Of several names for one address the first counts.
        starts.sort_by_key(|(address, ..)| *address);
        starts.dedup_by_key(|(address, ..)| *address);
        starts.shrink_to_fit();
        Self { names, starts }
    }

    /// The function that a return address leads back into.
    #[must_use]
    pub fn function(&self, return_address: u64) -> Option<&str> {
        // A call may be the last thing in its function: the byte before still belongs to it.
        let call = return_address.checked_sub(1)?;
        let behind = self.starts.partition_point(|(address, ..)| *address <= call);
        let (start, at, length) = self.starts.get(behind.checked_sub(1)?)?;
        let end = *at as usize + usize::from(*length);
        (call - start < LONGEST_FUNCTION).then(|| self.names.get(*at as usize..end)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "ffffffff81000000 T _stext\n\
        ffffffff81000100 t handle_softirqs\n\
        ffffffff81000200 T __do_softirq\n\
        ffffffff81000300 t inet_rtm_getroute\n\
        ffffffff81000300 t an_alias\n\
        ffffffff81000380 t next\n\
        ffffffffc0000900 t later\t[ipv6]\n\
        ffffffffc0000800 t inet6_rtm_getroute\t[ipv6]\n";

    #[test]
    fn a_function_ends_where_the_next_one_starts() {
        let functions = find(TABLE).unwrap();
        assert_eq!(functions.getroute4, Range { start: 0xffff_ffff_8100_0300, end: 0xffff_ffff_8100_0380 });
        assert_eq!(functions.getroute6, Range { start: 0xffff_ffff_c000_0800, end: 0xffff_ffff_c000_0900 });
        assert_eq!(functions.softirq, Range { start: 0xffff_ffff_8100_0100, end: 0xffff_ffff_8100_0200 });
    }

    #[test]
    fn hidden_or_broken_tables_give_nothing() {
        for table in
            ["", "garbage\n\n0 t\nzz t x", "0000000000000000 t inet_rtm_getroute\n0000000000000000 t __do_softirq\n"]
        {
            assert_eq!(find(table), None, "{table}");
        }
    }

    #[test]
    fn a_return_address_leads_into_its_function() {
        let symbols = Symbols::of(TABLE);
        assert_eq!(symbols.function(0xffff_ffff_8100_0150), Some("handle_softirqs"));
        // Behind the last instruction of one function the next begins.
        assert_eq!(symbols.function(0xffff_ffff_8100_0200), Some("handle_softirqs"));
        assert_eq!(symbols.function(0xffff_ffff_c000_0900), Some("inet6_rtm_getroute"));
        assert_eq!((symbols.function(0), symbols.function(u64::MAX)), (None, None));
        assert_eq!(Symbols::of("0000000000000000 t hidden\n").function(1), None);
    }

    #[test]
    fn an_older_kernel_runs_softirqs_elsewhere() {
        let functions = find("10 t __do_softirq\n20 t inet_rtm_getroute\n30 t end").unwrap();
        assert_eq!(functions.softirq, Range { start: 0x10, end: 0x20 });
        assert_eq!(functions.getroute6, Range::default());
    }
}
