//! Attaching to the kernel, as `trace` and `fix` do it.

use super::failure::{BE_ROOT, Failure};
use crate::core::model::Netns;
use crate::core::observation::Totals;
use crate::system::bpf::{BpfError, Request, Tracer};

/// Turns the outcome hook off, so that the tracepoints alone have to do: for tests, and for a kernel where it misbehaves.
const NO_FEXIT: &str = "VPNFIX_NO_FEXIT";

/// A request for one namespace, or for every one, with nothing watched yet.
#[must_use]
pub fn request(netns: &Netns, every_namespace: bool) -> Request {
    Request {
        netns: u32::try_from(netns.inode).ok().filter(|_| !every_namespace),
        watches: Vec::new(),
        holes: Vec::new(),
        vrfs: Vec::new(),
        query_thread: None,
        probe: None,
        protocol: None,
        port: None,
        by_flow: false,
        headers: false,
        by_destination: false,
        use_fexit: std::env::var_os(NO_FEXIT).is_none_or(|value| value.is_empty() || value == "0"),
        log_level: 0,
    }
}

/// Attaches to the kernel.
///
/// # Errors
/// A privilege or a feature of the kernel lacks.
pub fn attach(request: &Request) -> Result<Tracer, Failure> {
    Tracer::attach(request).map_err(|error| bpf_failure("attach to the kernel", &error))
}

/// Reads what was counted.
///
/// # Errors
/// The maps cannot be read.
pub fn totals(tracer: &Tracer) -> Result<Totals, Failure> {
    tracer.totals().map_err(|error| bpf_failure("read the kernel's counts", &error))
}

/// A failure of the kernel side, with advice.
#[must_use]
pub fn bpf_failure(what: &str, error: &BpfError) -> Failure {
    let hint = match error {
        BpfError::Privilege { .. } => BE_ROOT,
        other => other.advice().unwrap_or("`vpnfix doctor` says what this host lacks"),
    };
    Failure::of(what, error).hint(hint)
}
