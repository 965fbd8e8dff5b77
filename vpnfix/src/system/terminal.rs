//! What there is to know of the terminal without touching it.

use std::fs::File;
use std::io::IsTerminal as _;

/// Is this process in the group that the terminal's keys (Ctrl-C) reach?
#[must_use]
pub fn is_foreground() -> bool {
    let Ok(terminal) = File::open("/dev/tty") else { return false };
    nix::unistd::tcgetpgrp(&terminal).is_ok_and(|group| group == nix::unistd::getpgrp())
}

/// Can a live view be shown and driven: are standard input and output a terminal?
#[must_use]
pub fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}
