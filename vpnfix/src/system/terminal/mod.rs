//! The terminal: what there is to know of it, taking it for the live view and giving it back, its keys.

mod keeper;
mod output;

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossterm::event::{self, Event};
use crossterm::terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{cursor, execute};
use nix::sys::signal::Signal;
use ratatui::backend::CrosstermBackend;
use ratatui::{Frame, Terminal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use keeper::Keeper;
use output::Output;

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

/// The terminal while the live view has it: raw, on its other screen, without a cursor. Whatever ends the view, a panic
/// too, gives it back as it was; after SIGKILL its keeper does.
pub struct Taken {
    terminal: Terminal<CrosstermBackend<BufWriter<Output>>>,
    keeper: Option<Keeper>,
    has_it: bool,
    /// Not all of the last picture got there: what is on the screen is not known.
    is_torn: bool,
}

impl Taken {
    /// Takes the terminal.
    ///
    /// # Errors
    /// It cannot be set.
    pub fn take() -> io::Result<Self> {
        restore_on_panic();
        // Without it all works but the end by SIGKILL.
        let keeper = Keeper::start().ok();
        let mut taken = Self { terminal: blank()?, keeper, has_it: false, is_torn: false };
        taken.again()?;
        Ok(taken)
    }

    /// Takes it again after [`Taken::give_back`], or after somebody else has written on it.
    ///
    /// # Errors
    /// It cannot be set.
    pub fn again(&mut self) -> io::Result<()> {
        self.has_it = true;
        terminal::enable_raw_mode()?;
        if let Some(keeper) = &mut self.keeper {
            keeper.taken();
        }
        self.is_torn = true;
        Ok(())
    }

    /// Gives it back for a while.
    ///
    /// # Errors
    /// It cannot be set.
    pub fn give_back(&mut self) -> io::Result<()> {
        self.has_it = false;
        restore()?;
        if let Some(keeper) = &mut self.keeper {
            keeper.given();
        }
        Ok(())
    }

    /// Stops this process as Ctrl-Z does, with the terminal given back, and goes on when somebody continues it.
    ///
    /// # Errors
    /// The terminal cannot be set, or the process not be stopped.
    pub fn stop_until_continued(&mut self) -> io::Result<()> {
        self.give_back()?;
        // Not SIGTSTP: it is listened for, and would not stop anything.
        nix::sys::signal::raise(Signal::SIGSTOP)?;
        self.again()
    }

    /// Draws; what did not change is not sent. A terminal that takes nothing just now gets the next picture instead.
    ///
    /// # Errors
    /// The terminal cannot be written.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        let drawn = self.clear_if_torn().and_then(|()| self.terminal.draw(draw).map(drop));
        match drawn {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                self.is_torn = true;
                Ok(())
            }
            done => done,
        }
    }

    fn clear_if_torn(&mut self) -> io::Result<()> {
        if !self.is_torn {
            return Ok(());
        }
        // Made anew rather than cleared: clearing asks the terminal where its cursor stands, which not every one answers.
        // First, because with the one before goes what it still had to write.
        self.terminal = blank()?;
        let mut output = Output::open();
        output.write_all(CANCEL)?;
        execute!(output, EnterAlternateScreen, cursor::Hide, Clear(ClearType::All))?;
        self.is_torn = false;
        Ok(())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.has_it {
            // It is the end, and there is nobody to tell.
            let _ = self.give_back();
        }
    }
}

/// Ends a control sequence that was cut short (ECMA-48, CAN).
const CANCEL: &[u8] = b"\x18";

/// A terminal of which nothing is known to be on the screen.
fn blank() -> io::Result<Terminal<CrosstermBackend<BufWriter<Output>>>> {
    Terminal::new(CrosstermBackend::new(BufWriter::new(Output::open())))
}

/// The settings come back even where the terminal takes no output.
fn restore() -> io::Result<()> {
    let mut output = Output::open();
    let shown = output.write_all(CANCEL).and_then(|()| execute!(output, LeaveAlternateScreen, cursor::Show));
    terminal::disable_raw_mode()?;
    shown
}

/// The terminal is given back before a panic is told, so that the message can be read.
fn restore_on_panic() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let _ = restore();
            before(panic);
        }));
    });
}

/// Reads keys and changes of size on a thread of its own. `wanted`: while it is false, nothing is read, so that another
/// program can have the keyboard. The thread ends with the receiver.
///
/// # Errors
/// The thread cannot be started.
pub fn events(wanted: Arc<AtomicBool>) -> io::Result<UnboundedReceiver<Event>> {
    const LOOK: Duration = Duration::from_millis(100);
    let (sender, receiver) = unbounded_channel();
    let read = move || {
        while !sender.is_closed() {
            if !wanted.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK);
                continue;
            }
            match event::poll(LOOK) {
                Ok(false) => {}
                Ok(true) => match event::read() {
                    Ok(event) => {
                        if sender.send(event).is_err() {
                            return;
                        }
                    }
                    Err(_) => return,
                },
                // The terminal is gone: so is the receiver's other end, which then says so.
                Err(_) => return,
            }
        }
    };
    std::thread::Builder::new().name("vpnfix-keys".into()).spawn(read)?;
    Ok(receiver)
}
