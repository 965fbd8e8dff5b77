//! The eBPF programs seen from user space: loading, attaching, events, counts.
//!
//! In the order of the data: [`request`] (what to watch), `load` (into the kernel), [`tracer`] (events), `totals`
//! (counts); [`support`] says what this kernel and this user lack.

pub mod error;
pub mod kallsyms;
mod load;
pub mod program;
pub mod request;
pub mod support;
mod totals;
pub mod tracer;

pub use error::BpfError;
pub use kallsyms::Symbols;
pub use program::{HookStatus, Program};
pub use request::{Probe, Request};
pub use support::{KernelSupport, inspect};
pub use tracer::Tracer;
