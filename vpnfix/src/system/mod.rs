//! Thin adapters to the kernel and to other programs. They read and do; they decide nothing.

pub mod bgp;
pub mod bpf;
pub mod btf;
pub mod clock;
pub mod clues;
pub mod counters;
pub mod host;
pub mod managers;
pub mod namespace;
pub mod netlink;
pub mod new_file;
pub mod path_mtu;
pub mod privilege;
pub mod probe;
pub mod program;
pub mod ready_file;
pub mod rotating;
pub mod service;
pub mod sockets;
pub mod switches;
pub mod sysctl;
pub mod systemd;
pub mod terminal;
pub mod vici;
pub mod xfrm;
