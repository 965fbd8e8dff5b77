//! The kernel's symbols, which take a moment to read.

use std::thread::JoinHandle;

use crate::system::bpf::Symbols;

/// The kernel's symbols, read by a thread of its own: that takes a moment, which the programs need for attaching anyhow.
pub enum Reader {
    /// The thread.
    Reads(Option<JoinHandle<Symbols>>),
    /// What it read.
    Done(Symbols),
}

impl Reader {
    /// Begins to read.
    pub fn start() -> Self {
        let read = || {
            Symbols::read().unwrap_or_else(|error| {
                tracing::debug!("/proc/kallsyms: {error}");
                Symbols::default()
            })
        };
        Self::Reads(std::thread::Builder::new().name("vpnfix-symbols".into()).spawn(read).ok())
    }

    /// The symbols; waits for them.
    pub fn get(&mut self) -> &Symbols {
        if let Self::Reads(thread) = self {
            let read = thread.take().and_then(|thread| thread.join().ok());
            *self = Self::Done(read.unwrap_or_default());
        }
        static NONE: std::sync::LazyLock<Symbols> = std::sync::LazyLock::new(Symbols::default);
        match self {
            Self::Done(symbols) => symbols,
            Self::Reads(_) => &NONE,
        }
    }
}
