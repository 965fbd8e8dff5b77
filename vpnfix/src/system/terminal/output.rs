//! Writing to a terminal that may take nothing for a while: a connection that hangs must not keep signals from being heard.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A terminal that takes nothing for so long, milliseconds, is given up for this time.
const PATIENCE: u16 = 300;

/// The terminal behind standard output.
pub(super) enum Output {
    /// Opened anew, so that not to wait is this writer's own choice: with standard output the flag would be shared with
    /// every program on the terminal.
    Own(File),
    /// Where it cannot be opened anew (another mount namespace's).
    Shared(io::Stdout),
}

impl Output {
    /// Opens it.
    pub(super) fn open() -> Self {
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC);
        options.open("/proc/self/fd/1").map_or_else(|_| Self::Shared(io::stdout()), Self::Own)
    }
}

impl Write for Output {
    /// # Errors
    /// `TimedOut` if the terminal takes nothing.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = match self {
            Self::Own(file) => file,
            Self::Shared(stdout) => return stdout.write(bytes),
        };
        loop {
            match file.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            let mut watched = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
            match poll(&mut watched, PollTimeout::from(PATIENCE)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Own(_) => Ok(()),
            Self::Shared(stdout) => stdout.flush(),
        }
    }
}
