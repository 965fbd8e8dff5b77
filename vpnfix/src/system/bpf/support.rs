//! What this kernel and this user lack for tracing.

use super::{BpfError, HookStatus, Program, Request, load};
use crate::system::btf::{self, layout::Resolved};

/// What is there and what is missing.
#[derive(Debug)]
pub struct KernelSupport {
    /// Why there are no kernel types, if there are none.
    pub types: Result<(), BpfError>,
    /// Every field that the programs read. Empty without types.
    pub fields: Vec<Resolved>,
    /// Every hook: can its program be loaded? Empty without types or without privilege.
    pub hooks: Vec<HookStatus>,
    /// Why no program could be tried: want of privilege, say.
    pub loading: Result<(), BpfError>,
}

/// Tries what tracing needs, and attaches nothing. Needs no privilege; without it, it says so.
#[must_use]
pub fn inspect() -> KernelSupport {
    let (types, fields) = match load::read_types(&btf::path()) {
        Ok((layout, _)) => (Ok(()), layout.fields().to_vec()),
        Err(error) => (Err(error), Vec::new()),
    };
    if types.is_err() {
        return KernelSupport { types, fields, hooks: Vec::new(), loading: Ok(()) };
    }
    let mut hooks = Vec::new();
    let loading = try_all(&mut hooks);
    KernelSupport { types, fields, hooks, loading }
}

fn try_all(hooks: &mut Vec<HookStatus>) -> Result<(), BpfError> {
    let (mut loaded, btf) = load::load(&Request::default())?;
    for program in Program::ALL {
        hooks.push(load::prepare(&mut loaded, &btf, program)?);
    }
    Ok(())
}
