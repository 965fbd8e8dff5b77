//! What tcpdump sees on a device.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A capture under way; it ends with its owner.
pub struct Capture {
    tcpdump: Child,
    /// Kept open, so that its last words do not end it by SIGPIPE.
    words: BufReader<ChildStderr>,
}

impl Capture {
    /// Begins to capture on a device of a namespace what a filter (pcap-filter(7)) lets through, and returns once it does.
    ///
    /// # Panics
    ///
    /// If tcpdump does not start.
    #[must_use]
    pub fn start(namespace: &str, device: &str, filter: &str) -> Self {
        Self::of(namespace, device, "inout", filter)
    }

    /// The same of what leaves by the device, and of nothing that comes in by it.
    ///
    /// # Panics
    ///
    /// If tcpdump does not start.
    #[must_use]
    pub fn leaving(namespace: &str, device: &str, filter: &str) -> Self {
        Self::of(namespace, device, "out", filter)
    }

    fn of(namespace: &str, device: &str, direction: &str, filter: &str) -> Self {
        let options = ["-n", "-p", "-q", "-l", "--immediate-mode", "-Q", direction, "-i", device, filter];
        let mut tcpdump = Command::new("ip")
            .args(["netns", "exec", namespace, "tcpdump"])
            .args(options)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tcpdump could not be started");
        let mut words = BufReader::new(tcpdump.stderr.take().expect("it is piped"));
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            assert!(words.read_line(&mut line).is_ok_and(|read| read > 0), "tcpdump does not listen on {device}");
        }
        Self { tcpdump, words }
    }

    /// Ends it, and says how many packets the kernel had for it by then, whether or not tcpdump came to read the last.
    ///
    /// # Panics
    ///
    /// If tcpdump's last words cannot be read.
    #[must_use]
    pub fn count(mut self) -> u64 {
        self.interrupt();
        let mut last = String::new();
        self.words.read_to_string(&mut last).expect("tcpdump's last words cannot be read");
        let told = last.lines().find_map(|line| line.split(" packet").next().filter(|_| line.contains("by filter")));
        told.and_then(|count| count.trim().parse().ok()).unwrap_or_else(|| panic!("tcpdump tells no count: {last}"))
    }

    fn interrupt(&self) {
        // `ip netns exec` becomes the command.
        if let Ok(id) = i32::try_from(self.tcpdump.id()) {
            let _gone_already = kill(Pid::from_raw(id), Signal::SIGINT);
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.interrupt();
        let _last = self.words.read_to_end(&mut Vec::new());
        let _ended = self.tcpdump.wait();
    }
}
