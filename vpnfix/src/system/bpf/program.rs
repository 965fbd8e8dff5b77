//! The programs and what they attach to.

use crate::system::btf::Kind;

/// An eBPF program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Program {
    /// Tracepoint `fib_table_lookup`: each IPv4 table tried.
    FibTable,
    /// `fexit` of `__fib_lookup`: the outcome of an IPv4 walk.
    FibRules,
    /// Tracepoint `fib6_table_lookup`: each IPv6 table tried.
    Fib6Table,
    /// Tracepoint `net_dev_start_xmit`: packets handed to a device.
    Transmit,
    /// Tracepoint `inet_sock_set_state`: the TCP states of BGP's sessions.
    TcpState,
    /// Tracepoint `tcp_retransmit_skb`: segments sent again.
    Retransmit,
    /// Tracepoint `kfree_skb`: packets dropped.
    Drop,
    /// Tracepoint `netif_receive_skb`: packets that come in.
    Receive,
}

/// A hook and whether it is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookStatus {
    /// The program.
    pub program: Program,
    /// The kernel's name of what it attaches to.
    pub name: &'static str,
    /// Attached; for [`super::inspect`]: loadable.
    pub attached: bool,
    /// Why not, or what is limited.
    pub note: Option<String>,
}

impl Program {
    /// All, in the order in which they are attached: the outcomes' hook first, as the tables' hook asks whether it is
    /// there.
    pub const ALL: [Self; 8] = [
        Self::FibRules,
        Self::FibTable,
        Self::Fib6Table,
        Self::Receive,
        Self::Drop,
        Self::Retransmit,
        Self::Transmit,
        Self::TcpState,
    ];

    /// The kernel's name of the tracepoint or function.
    #[must_use]
    pub fn hook(self) -> &'static str {
        match self {
            Self::FibTable => "fib_table_lookup",
            Self::FibRules => "__fib_lookup",
            Self::Fib6Table => "fib6_table_lookup",
            Self::Transmit => "net_dev_start_xmit",
            Self::TcpState => "inet_sock_set_state",
            Self::Retransmit => "tcp_retransmit_skb",
            Self::Drop => "kfree_skb",
            Self::Receive => "netif_receive_skb",
        }
    }

    /// The name of the program in the eBPF object.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            Self::FibRules => "fib_rules_lookup",
            other => other.hook(),
        }
    }

    /// Without it there is nothing to tell.
    #[must_use]
    pub fn is_required(self) -> bool {
        matches!(self, Self::FibTable | Self::Transmit)
    }

    /// It tells of single flows alone, and is attached only while these are asked for.
    #[must_use]
    pub fn is_by_flow(self) -> bool {
        matches!(self, Self::Retransmit | Self::Drop | Self::Receive)
    }

    /// Kind and name of the type that proves the hook's existence in the kernel's BTF.
    #[must_use]
    pub fn target(self) -> (Kind, String) {
        match self {
            Self::FibRules => (Kind::Function, self.hook().to_owned()),
            other => (Kind::Typedef, format!("btf_trace_{}", other.hook())),
        }
    }
}
