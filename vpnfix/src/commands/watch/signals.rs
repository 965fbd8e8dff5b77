//! The signals of a service.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::commands::failure::Failure;

/// The signals that a watch listens for.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    reload: Signal,
}

/// What a signal asks for.
pub(super) enum Heard {
    /// The end.
    End,
    /// To read the configuration again.
    Reload,
}

impl Signals {
    pub(super) fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::of("listen for signals", &error));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            reload: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for one. May be cancelled; a signal that came meanwhile is not lost.
    pub(super) async fn next(&mut self) -> Heard {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Heard::End,
            _ = self.terminate.recv() => Heard::End,
            _ = self.reload.recv() => Heard::Reload,
        }
    }
}
