//! A small process beside the live view that gives the terminal back should vpnfix be killed (SIGKILL, out of memory).

use std::io::{self, Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};

/// It ends with its standard input. Settings that are no longer those of the view are the shell's own, which has the terminal
/// again by then: they stay. Signals for the group are not meant for it; ignoring SIGTTOU lets it set the terminal
/// while the shell's group is in front.
const SCRIPT: &str = r#"
exec 3>&1
trap '' HUP INT QUIT TERM TSTP TTIN TTOU
saved=$(stty -g <&3); raw=
echo ready >&2
exec 2> /dev/null
while read -r word; do
	case $word in
	taken) raw=$(stty -g <&3) ;;
	given) raw= ;;
	esac
done
[ -n "$raw" ] || exit 0
[ "$(stty -g <&3)" = "$raw" ] && stty "$saved" <&3
printf '\030\033[?1049l\033[?25h\r\n'
"#;

/// The process; it ends with its owner.
pub(super) struct Keeper {
    process: Child,
    words: Option<ChildStdin>,
    /// The terminal is still to be given back, by it.
    owes: bool,
}

impl Keeper {
    /// Starts it, before the terminal is taken.
    ///
    /// # Errors
    /// There is no shell.
    pub(super) fn start() -> io::Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn()?;
        let words = process.stdin.take();
        // The settings must have been read before the terminal is taken. Its end is an answer as well.
        if let Some(mut said) = process.stderr.take() {
            let _ready_or_over = said.read(&mut [0; 256])?;
        }
        Ok(Self { process, words, owes: false })
    }

    /// The terminal was taken.
    pub(super) fn taken(&mut self) {
        self.owes = true;
        self.tell("taken\n");
    }

    /// The terminal was given back.
    pub(super) fn given(&mut self) {
        self.owes = false;
        self.tell("given\n");
    }

    fn tell(&mut self, word: &str) {
        if let Some(words) = &mut self.words {
            // Somebody may have killed it: then the view goes on without.
            let _told = words.write_all(word.as_bytes());
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.words.take());
        // Otherwise it writes when the terminal takes something again, whenever that is.
        if !self.owes {
            let _ended = self.process.wait();
        }
    }
}
