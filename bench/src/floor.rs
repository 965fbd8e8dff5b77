//! The floor: programs that do nothing, at the same hooks.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::{Context, Result};
use aya::Btf;
use aya_obj::{
    btf::BtfKind,
    generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_prog_type},
};

/// `r0 = 0; exit`, as the kernel reads instructions (`struct bpf_insn`).
const NOTHING: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
/// The hooks that the floor is measured at, and the names of the empty programs there.
const HOOKS: [(&str, &CStr); 5] = [
    ("fib_table_lookup", c"empty_fib"),
    ("fib6_table_lookup", c"empty_fib6"),
    ("net_dev_start_xmit", c"empty_xmit"),
    ("netif_receive_skb", c"empty_receive"),
    ("kfree_skb", c"empty_drop"),
];

/// Empty programs (`tp_btf`) that run while this lives.
pub struct Floor(#[expect(dead_code, reason = "they are attached while they are open")] Vec<OwnedFd>);

impl Floor {
    /// Loads and attaches them.
    pub fn lay() -> Result<Self> {
        let btf = Btf::from_sys_fs().context("read the kernel's types")?;
        let mut open = Vec::new();
        for (hook, name) in HOOKS {
            let program = load(&btf, hook, name).with_context(|| format!("load an empty program for {hook}"))?;
            open.push(attach(&program).with_context(|| format!("attach an empty program to {hook}"))?);
            open.push(program);
        }
        Ok(Self(open))
    }
}

fn load(btf: &Btf, hook: &str, name: &CStr) -> Result<OwnedFd> {
    let target = btf.id_by_type_name_kind(&format!("btf_trace_{hook}"), BtfKind::Typedef)?;
    // SAFETY: a union of plain numbers; the kernel takes zeroes for what is not set.
    let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: this member is the one for `BPF_PROG_LOAD`, and all of it is initialized.
    let load = unsafe { &mut attributes.__bindgen_anon_3 };
    load.prog_type = bpf_prog_type::BPF_PROG_TYPE_TRACING as u32;
    load.expected_attach_type = bpf_attach_type::BPF_TRACE_RAW_TP as u32;
    load.attach_btf_id = target;
    load.insn_cnt = 2;
    load.insns = NOTHING.as_ptr() as u64;
    load.license = c"Dual MIT/GPL".as_ptr() as u64;
    for (to, from) in load.prog_name.iter_mut().zip(name.to_bytes()) {
        *to = from.cast_signed();
    }
    Ok(call(bpf_cmd::BPF_PROG_LOAD, &attributes)?)
}

fn attach(program: &OwnedFd) -> Result<OwnedFd> {
    // SAFETY: as in `load`.
    let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
    // The program itself names the tracepoint.
    attributes.raw_tracepoint.prog_fd = program.as_raw_fd().cast_unsigned();
    Ok(call(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &attributes)?)
}

fn call(command: bpf_cmd, attributes: &bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are of the size that is given; what they point to outlives the call.
    let made = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<bpf_attr>()) };
    match i32::try_from(made) {
        // SAFETY: both commands give a new descriptor, which nothing else owns.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}
