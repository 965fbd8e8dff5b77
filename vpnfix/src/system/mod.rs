//! Thin adapters to the kernel and to other programs. They read and do; they decide nothing.

pub mod bpf;
pub mod btf;
pub mod clues;
pub mod host;
pub mod managers;
pub mod namespace;
pub mod netlink;
pub mod probe;
