//! The kernel's counters of a namespace: `/proc/net/xfrm_stat`, `netstat` and `snmp`. What they count differs from kernel
//! to kernel, so they are kept by name.

use std::fs;
use std::io;

use thiserror::Error;

use crate::core::verify::Counters;

/// Counters that cannot be read.
#[derive(Debug, Error)]
pub enum CountersError {
    /// The kernel does not count this (`CONFIG_XFRM_STATISTICS`).
    #[error("this kernel has no {path}")]
    Missing {
        /// The file.
        path: &'static str,
    },
    /// It is there and cannot be read.
    #[error("read {path}")]
    Unreadable {
        /// The file.
        path: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// IPsec's error counters, in the namespace of the calling thread.
///
/// # Errors
/// If they cannot be read.
pub fn xfrm() -> Result<Counters, CountersError> {
    Ok(parse_lines(&read("/proc/thread-self/net/xfrm_stat")?))
}

/// IP's and TCP's counters, with nstat's names, in the namespace of the calling thread.
///
/// # Errors
/// If they cannot be read.
pub fn network() -> Result<Counters, CountersError> {
    let mut counters = parse_pairs(&read("/proc/thread-self/net/netstat")?);
    counters.extend(parse_pairs(&read("/proc/thread-self/net/snmp")?));
    Ok(counters)
}

fn read(path: &'static str) -> Result<String, CountersError> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Err(CountersError::Missing { path }),
        Err(source) => Err(CountersError::Unreadable { path, source }),
    }
}

/// A name and a number a line (`net/xfrm/xfrm_proc.c`).
fn parse_lines(text: &str) -> Counters {
    let counter = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_string(), words.next()?.parse().ok()?))
    };
    text.lines().filter_map(counter).collect()
}

/// A line of names and a line of numbers, both with the group in front (`net/ipv4/proc.c`). Some numbers are negative: none
/// of those that count.
fn parse_pairs(text: &str) -> Counters {
    let mut counters = Counters::new();
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let (Some((group, names)), Some((other, values))) = (names.split_once(':'), values.split_once(':')) else {
            continue;
        };
        if group == other {
            let pairs = names.split_whitespace().zip(values.split_whitespace());
            counters.extend(pairs.filter_map(|(name, value)| Some((format!("{group}{name}"), value.parse().ok()?))));
        }
    }
    counters
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counters_are_known_by_name() {
        let xfrm = parse_lines(
            "XfrmInError                     \t0\nXfrmInNoStates                  \t12\nnonsense\nXfrmNew x\n",
        );
        assert_eq!(xfrm.get("XfrmInNoStates"), Some(&12));
        assert_eq!(xfrm.len(), 2);
        let text = "TcpExt: SyncookiesSent IPReversePathFilter\nTcpExt: 0 7\nIp: Forwarding DefaultTTL ForwDatagrams\nIp: 1 64 9\n\
                    Tcp: RtoMax MaxConn\nTcp: 120000 -1\n";
        let counters = parse_pairs(text);
        assert_eq!(counters.get("TcpExtIPReversePathFilter"), Some(&7));
        assert_eq!(counters.get("IpForwDatagrams"), Some(&9));
        assert_eq!(counters.get("TcpMaxConn"), None);
    }

    #[test]
    fn this_kernel_counts() {
        assert!(network().unwrap().contains_key("TcpExtIPReversePathFilter"));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in ".{0,200}") {
            let _any = (parse_lines(&text), parse_pairs(&text));
        }
    }
}
