//! A program on a terminal of its own: what it shows, what it does to the terminal, keys and changes of size.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use nix::unistd::{Pid, setsid};
use vt100::Parser;

use crate::wait;

/// A program on a terminal.
pub struct Terminal {
    child: Child,
    master: File,
    /// Kept open, so that the settings can be read when the program is gone.
    slave: OwnedFd,
    screen: Arc<Mutex<Parser>>,
    /// Nobody reads what the program writes, as on a connection that hangs.
    hangs: Arc<AtomicBool>,
    before: Termios,
}

nix::ioctl_write_ptr_bad!(
    /// Sets a terminal's size.
    set_size,
    nix::libc::TIOCSWINSZ,
    Winsize
);
nix::ioctl_write_int_bad!(
    /// Makes a terminal the session's own.
    take_terminal,
    nix::libc::TIOCSCTTY
);

const fn winsize(size: (u16, u16)) -> Winsize {
    Winsize { ws_row: size.1, ws_col: size.0, ws_xpixel: 0, ws_ypixel: 0 }
}

fn cells(number: u16) -> NonZero<u16> {
    NonZero::new(number).expect("a terminal has lines and columns")
}

impl Terminal {
    /// Starts a command on a new terminal of so many columns and lines, as its session's leader.
    ///
    /// # Panics
    ///
    /// If there is no terminal, or the command cannot be started.
    pub fn start(mut command: Command, size: (u16, u16)) -> Self {
        let pair = openpty(&winsize(size), None).expect("no terminal");
        // A program that held the terminal's other end itself would never see it hung up.
        for end in [&pair.master, &pair.slave] {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).expect("a descriptor has flags");
        }
        let before = tcgetattr(&pair.slave).expect("the terminal has no settings");
        let stdio = || Stdio::from(pair.slave.try_clone().expect("no further descriptor"));
        command.stdin(stdio()).stdout(stdio()).stderr(stdio());
        // SAFETY: only system calls, between fork and exec.
        unsafe {
            command.pre_exec(|| {
                setsid()?;
                take_terminal(0, 0)?;
                Ok(())
            });
        }
        let child = command.spawn().expect("the command could not be started");
        let master = File::from(pair.master);
        let screen = Arc::new(Mutex::new(Parser::new(cells(size.1), cells(size.0), 0)));
        let (mut reader, written) = (master.try_clone().expect("no further descriptor"), Arc::clone(&screen));
        let hangs = Arc::new(AtomicBool::new(false));
        let waits = Arc::clone(&hangs);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                while waits.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(10));
                }
                written.lock().unwrap_or_else(PoisonError::into_inner).process(&bytes[..count]);
            }
        });
        Self { child, master, slave: pair.slave, screen, hangs, before }
    }

    fn screen(&self) -> MutexGuard<'_, Parser> {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is on the screen.
    pub fn text(&self) -> String {
        self.screen().screen().contents()
    }

    /// Waits until the screen holds these words, and returns it.
    ///
    /// # Panics
    ///
    /// If they do not come.
    #[track_caller]
    pub fn wait_for(&self, words: &str) -> String {
        wait::until(&format!("{words:?} on the screen"), || {
            let text = self.text();
            text.contains(words).then_some(text)
        })
    }

    /// Types.
    ///
    /// # Panics
    ///
    /// If the terminal is gone.
    pub fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("the terminal is gone");
    }

    /// Reads nothing of what the program writes, or reads on.
    pub fn hang(&self, hangs: bool) {
        self.hangs.store(hangs, Ordering::Relaxed);
    }

    /// Changes the size; the kernel tells the program.
    ///
    /// # Panics
    ///
    /// If the terminal is gone.
    pub fn resize(&self, size: (u16, u16)) {
        self.screen().screen_mut().set_size(cells(size.1), cells(size.0));
        // SAFETY: the descriptor is open, and the size lives during the call.
        unsafe { set_size(self.master.as_raw_fd(), &winsize(size)) }.expect("the size cannot be changed");
    }

    /// Process id.
    ///
    /// # Panics
    ///
    /// Never: process ids fit.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"))
    }

    /// Sends a signal.
    ///
    /// # Panics
    ///
    /// If the program is gone.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the program is gone");
    }

    /// Is the program stopped?
    pub fn is_stopped(&self) -> bool {
        fs::read_to_string(format!("/proc/{}/stat", self.pid())).is_ok_and(|stat| stat.contains(") T "))
    }

    /// Is the terminal as a shell wants it: the settings those of before, the ordinary screen, a cursor?
    ///
    /// # Errors
    ///
    /// What is not so.
    pub fn is_sane(&self) -> Result<(), String> {
        let now = tcgetattr(&self.slave).map_err(|error| error.to_string())?;
        if now.local_flags != self.before.local_flags || now.input_flags != self.before.input_flags {
            return Err(format!("settings {:?}, before {:?}", now.local_flags, self.before.local_flags));
        }
        let screen = self.screen();
        if screen.screen().alternate_screen() {
            return Err("the other screen is shown".into());
        }
        if screen.screen().hide_cursor() { Err("the cursor is hidden".into()) } else { Ok(()) }
    }

    /// Waits until the terminal is sane: what was written last may still be on its way.
    ///
    /// # Panics
    ///
    /// If it does not become so.
    #[track_caller]
    pub fn becomes_sane(&self) {
        let mut why = String::new();
        let sane = wait::within(Duration::from_secs(60), || self.is_sane().map_err(|error| why = error).ok());
        assert!(sane.is_some(), "the terminal is not sane: {why}");
    }

    /// Does the program read each key by itself?
    ///
    /// # Panics
    ///
    /// If the terminal has no settings.
    pub fn is_raw(&self) -> bool {
        let now = tcgetattr(&self.slave).expect("the terminal has no settings");
        !now.local_flags.contains(LocalFlags::ICANON)
    }

    /// Waits for the program's end.
    ///
    /// # Panics
    ///
    /// If it does not come.
    pub fn end(&mut self) -> ExitStatus {
        let child = &mut self.child;
        wait::until("the program's end", || child.try_wait().expect("it cannot be waited for"))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
