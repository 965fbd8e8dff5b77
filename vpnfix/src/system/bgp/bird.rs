//! BIRD by its control socket (`doc/reply_codes` of BIRD). `restrict` comes first: after it the daemon takes no command
//! that changes anything.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::BgpError;
use crate::core::verify::{Bgp, BgpState, Neighbour};

/// The daemon answers at once, unless it is stuck.
const PATIENCE: Duration = Duration::from_secs(5);
/// A protocol is about 2 KB of text.
const MOST: usize = 8 * 1024 * 1024;

/// Asks the daemon that listens there.
///
/// # Errors
/// It does not answer.
pub(super) fn neighbours(path: &Path) -> Result<Bgp, BgpError> {
    let failed = |source| BgpError::Bird { path: path.into(), source };
    let mut session = Session::open(path).map_err(failed)?;
    session.ask("restrict").map_err(failed)?;
    let text = session.ask("show protocols all").map_err(failed)?;
    Ok(Bgp { daemon: "BIRD".into(), neighbours: parse(&text) })
}

struct Session {
    stream: UnixStream,
    deadline: Instant,
    unread: Vec<u8>,
}

impl Session {
    /// Connects, and takes the greeting.
    fn open(path: &Path) -> io::Result<Self> {
        let mut session =
            Self { stream: UnixStream::connect(path)?, deadline: Instant::now() + PATIENCE, unread: Vec::new() };
        session.reply()?;
        Ok(session)
    }

    fn ask(&mut self, command: &str) -> io::Result<String> {
        self.stream.set_write_timeout(Some(PATIENCE))?;
        self.stream.write_all(format!("{command}\n").as_bytes())?;
        self.reply()
    }

    /// The lines of a reply. The last has a space behind its code, the others a hyphen; a line without a code has the code
    /// of the one before.
    fn reply(&mut self) -> io::Result<String> {
        let mut text = String::new();
        loop {
            let line = self.line()?;
            text.push_str(&line);
            text.push('\n');
            if text.len() > MOST {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer too large"));
            }
            match coded(&line) {
                Some((8000.., false, what)) => return Err(io::Error::other(what.to_string())),
                Some((_, false, _)) => return Ok(text),
                _ => {}
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_string());
            }
            if self.unread.len() > MOST {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line too large"));
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.unread.extend_from_slice(buffer.get(..read).unwrap_or_default()),
            }
        }
    }
}

/// Code of a line, whether more follow, and its text.
fn coded(line: &str) -> Option<(u16, bool, &str)> {
    let (code, rest) = line.split_at_checked(4)?;
    let code = code.bytes().all(|byte| byte.is_ascii_digit()).then(|| code.parse().ok())??;
    match rest.chars().next() {
        None => Some((code, false, "")),
        Some(' ') => Some((code, false, rest.get(1..)?)),
        Some('-') => Some((code, true, rest.get(1..)?)),
        Some(_) => None,
    }
}

/// `show protocols all`: one line a protocol, with details below it (`bgp_show_proto_info` in `proto/bgp/bgp.c`).
fn parse(text: &str) -> Vec<Neighbour> {
    let mut found: Vec<Neighbour> = Vec::new();
    let mut draft: Option<Draft> = None;
    for line in text.lines() {
        let (code, rest) = coded(line).map_or((None, line), |(code, _, rest)| (Some(code), rest));
        if code == Some(1002) {
            found.extend(draft.take().and_then(Draft::neighbour));
            draft = Draft::begin(rest);
        } else if let (Some(draft), Some((key, value))) = (draft.as_mut(), rest.split_once(':')) {
            draft.enter(key.trim(), value.trim());
        }
    }
    found.extend(draft.and_then(Draft::neighbour));
    found
}

#[derive(Default)]
struct Draft {
    disabled: bool,
    address: Option<std::net::IpAddr>,
    state: Option<BgpState>,
    local_as: Option<u32>,
    remote_as: Option<u32>,
    hold_time: Option<u64>,
    received: Option<u64>,
    sent: Option<u64>,
    last_error: Option<String>,
}

impl Draft {
    /// `NAME PROTO TABLE STATE SINCE INFO`; only BGP's are wanted.
    fn begin(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.get(1) == Some(&"BGP")).then(|| Self { disabled: words.get(3) == Some(&"down"), ..Self::default() })
    }

    fn enter(&mut self, key: &str, value: &str) {
        let number = |text: &str| text.split_whitespace().next().and_then(|word| word.parse().ok());
        match key {
            "BGP state" => self.state = Some(BgpState::named(value)),
            // A link-local one has its interface behind a percent sign.
            "Neighbor address" => self.address = value.split('%').next().and_then(|address| address.parse().ok()),
            "Neighbor AS" => self.remote_as = number(value),
            "Local AS" => self.local_as = number(value),
            // Time left, a slash, and the time agreed on.
            "Hold timer" => self.hold_time = value.split_once('/').and_then(|(_, agreed)| agreed.parse().ok()),
            "Routes" => self.routes(value),
            "Last error" => {
                self.last_error = Some(value.chars().filter(|character| !character.is_control()).take(200).collect());
            }
            _ => {}
        }
    }

    /// `1 imported, 2 exported, 1 preferred`, for each channel.
    fn routes(&mut self, value: &str) {
        for part in value.split(',') {
            let mut words = part.split_whitespace();
            let (count, what) = (words.next().and_then(|word| word.parse::<u64>().ok()), words.next());
            let total = match what {
                Some("imported") => &mut self.received,
                Some("exported") => &mut self.sent,
                _ => continue,
            };
            *total = Some(total.unwrap_or(0).saturating_add(count.unwrap_or(0)));
        }
    }

    fn neighbour(self) -> Option<Neighbour> {
        let named = self.state.unwrap_or(BgpState::Unknown);
        let state = if self.disabled && named != BgpState::Established { BgpState::Disabled } else { named };
        let up = state == BgpState::Established;
        Some(Neighbour {
            address: self.address?,
            state,
            local_as: self.local_as,
            remote_as: self.remote_as,
            // BIRD tells the time of day when its state last changed, in a form that its configuration chooses.
            uptime: None,
            received: self.received.filter(|_| up),
            sent: self.sent.filter(|_| up),
            hold_time: self.hold_time,
            last_error: self.last_error,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    /// As BIRD 2.0 says it, cut down.
    const TEXT: &str = "2002-Name       Proto      Table      State  Since         Info\n\
        1002-device1    Device     ---        up     10:00:00.000  \n\
        1006-\n\
        1002-aws1       BGP        ---        up     10:01:00.000  Established   \n\
        1006-  BGP state:          Established\n\
        \x20    Neighbor address: 169.254.55.53\n\
        \x20    Neighbor AS:      64512\n\
        \x20    Local AS:         65000\n\
        \x20    Hold timer:       20.123/30\n\
        \x20  Channel ipv4\n\
        \x20    State:          UP\n\
        \x20    Routes:         2 imported, 1 exported, 2 preferred\n\
        \n\
        1002-aws2       BGP        ---        start  10:01:00.000  Active        Socket: Connection refused\n\
        1006-  BGP state:          Active\n\
        \x20    Neighbor address: 169.254.253.49\n\
        \x20    Neighbor AS:      64512\n\
        \x20    Local AS:         65000\n\
        \x20    Last error:       Received: Bad peer AS\n\
        0000 \n";

    #[test]
    fn what_bird_2_0_12_really_says_is_understood() {
        let found = parse(include_str!("bird-2.0.12.txt"));
        let told: Vec<_> = found.iter().map(|n| (n.address.to_string(), n.state, n.received, n.sent)).collect();
        let up = ("169.254.55.53".to_string(), BgpState::Established, Some(1), Some(1));
        assert_eq!(told, [up, ("169.254.253.49".to_string(), BgpState::Idle, None, None)]);
        assert_eq!((found[0].hold_time, found[0].local_as, found[0].remote_as), (Some(30), Some(65000), Some(64512)));
    }

    #[test]
    fn neighbours_are_read_with_their_counts() {
        let found = parse(TEXT);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].address.to_string(), "169.254.55.53");
        assert_eq!((found[0].state, found[0].received, found[0].sent), (BgpState::Established, Some(2), Some(1)));
        assert_eq!((found[0].local_as, found[0].remote_as, found[0].hold_time), (Some(65000), Some(64512), Some(30)));
        assert_eq!((found[1].state, found[1].received), (BgpState::Active, None));
        assert_eq!(found[1].last_error.as_deref(), Some("Received: Bad peer AS"));
    }

    #[test]
    fn the_daemon_is_restricted_before_it_is_asked() {
        let path = std::env::temp_dir().join(format!("vpnfix-bird-{}.ctl", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let daemon = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"0001 BIRD 2.0.12 ready.\n").unwrap();
            let mut asked = vec![0; 9];
            stream.read_exact(&mut asked).unwrap();
            stream.write_all(b"0016 Access restricted\n").unwrap();
            let mut then = vec![0; 19];
            stream.read_exact(&mut then).unwrap();
            stream.write_all(TEXT.as_bytes()).unwrap();
            [asked, then].concat()
        });
        let found = neighbours(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(found.unwrap().neighbours.len(), 2);
        assert_eq!(daemon.join().unwrap(), b"restrict\nshow protocols all\n");
    }

    #[test]
    fn a_refusal_is_an_error() {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(b"8007 Access denied\n").unwrap();
        let mut session = Session { stream: near, deadline: Instant::now() + PATIENCE, unread: Vec::new() };
        assert_eq!(session.reply().unwrap_err().to_string(), "Access denied");
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "[ -~\n]{0,200}", cut in 0..TEXT.len()) {
            let _any = (parse(&text), parse(TEXT.get(..cut).unwrap_or_default()));
            for line in text.lines() {
                let _any = coded(line);
            }
        }
    }
}
