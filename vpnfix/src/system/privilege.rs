//! Giving privileges up (capabilities(7)). Capabilities belong to threads: each gives up its own, and those that it starts
//! later have none either.

use caps::{CapSet, Capability, CapsHashSet};

/// What a `watch` goes on to need once it is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// To read.
    Reading,
    /// To change rules and to send echo requests.
    Repairing,
}

/// The calling thread gives up all that it does not need, and what it starts can gain nothing (`no_new_privs`). Says what
/// it keeps, by name.
///
/// # Errors
/// The kernel refuses; why.
pub fn narrow(needs: Needs) -> Result<Vec<String>, String> {
    let held = caps::read(None, CapSet::Permitted).map_err(|error| error.to_string())?;
    let mut wanted: Vec<Capability> = match needs {
        Needs::Reading => Vec::new(),
        Needs::Repairing => vec![Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW],
    };
    if !reads_maps_without_privilege() {
        wanted.push(Capability::CAP_BPF);
    }
    let kept: CapsHashSet = wanted.into_iter().filter(|capability| held.contains(capability)).collect();
    // Before the effective set loses what changing the others may need.
    for set in [CapSet::Ambient, CapSet::Inheritable] {
        caps::clear(None, set).map_err(|error| error.to_string())?;
    }
    caps::set(None, CapSet::Effective, &kept).map_err(|error| error.to_string())?;
    caps::set(None, CapSet::Permitted, &kept).map_err(|error| error.to_string())?;
    nix::sys::prctl::set_no_new_privs().map_err(|errno| errno.to_string())?;
    let mut names: Vec<String> = kept.iter().map(ToString::to_string).collect();
    names.sort();
    Ok(names)
}

/// The calling thread gives up every capability. That it cannot is told and harms nothing.
pub fn renounce() {
    for set in [CapSet::Effective, CapSet::Permitted] {
        if let Err(error) = caps::clear(None, set) {
            tracing::debug!("capabilities stay: {error}");
        }
    }
}

/// Since 6.0 whoever has a map's descriptor may use it, also where `unprivileged_bpf_disabled` is set (commit
/// c8644cd0efe7, `__sys_bpf` in `kernel/bpf/syscall.c`).
fn reads_maps_without_privilege() -> bool {
    let release = super::host::facts().kernel;
    release.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major >= 6)
}
