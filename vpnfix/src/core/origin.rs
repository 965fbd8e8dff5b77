//! In whose context something happened, and what a lookup was for, by the kernel functions on the call stack. The fields
//! of a lookup alone do not prove it: source validation and others of the kernel's own questions look like output.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::observation::LookupKind;

/// In whose context it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Context {
    /// The task's own: it asked for it by a system call, or is a thread of the kernel.
    Process,
    /// A softirq's: the task is whoever was interrupted.
    Softirq,
    /// The stack does not tell.
    NotProvable,
}

/// What a lookup was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// A packet, or a connection, of this host.
    Output,
    /// A packet that came in: to be forwarded or delivered.
    Input,
    /// Is the source of a packet that came in one that may come in there (reverse path)?
    SourceValidation,
    /// An ICMP message of the kernel's.
    IcmpReply,
    /// Somebody's question about the routing (`ip route get`).
    RouteQuery,
    /// The kernel's or a netfilter rule's own question; which one cannot be told.
    NotProvable,
}

/// Functions that run softirqs (`kernel/softirq.c`); the second does the work itself up to 6.9 or so.
const SOFTIRQ: &[&str] = &["handle_softirqs", "__do_softirq"];
/// Where the stack of a system call or of a kernel thread begins.
const BOTTOM: &[&str] = &[
    "do_syscall_64",
    "entry_SYSCALL_64_after_hwframe",
    "do_el0_svc",
    "el0_svc",
    "el0t_64_sync",
    "kthread",
    "ret_from_fork",
];
/// The functions that say what a lookup is for, the innermost of which counts (`net/ipv4`, `net/ipv6`).
const PURPOSES: &[(&str, Purpose)] = &[
    ("fib_validate_source", Purpose::SourceValidation),
    ("__fib_validate_source", Purpose::SourceValidation),
    ("inet_rtm_getroute", Purpose::RouteQuery),
    ("inet6_rtm_getroute", Purpose::RouteQuery),
    ("__icmp_send", Purpose::IcmpReply),
    ("icmp_send", Purpose::IcmpReply),
    ("icmp_reply", Purpose::IcmpReply),
    ("icmp6_send", Purpose::IcmpReply),
    ("icmpv6_echo_reply", Purpose::IcmpReply),
    ("ip_route_input_noref", Purpose::Input),
    ("ip_route_input_rcu", Purpose::Input),
    ("ip_route_input_slow", Purpose::Input),
    ("ip6_route_input", Purpose::Input),
    ("ip_route_output_key_hash", Purpose::Output),
    ("ip_route_output_key_hash_rcu", Purpose::Output),
    ("ip_route_output_flow", Purpose::Output),
    ("ip6_route_output_flags", Purpose::Output),
];

/// In whose context, by the functions of the stack from the innermost on. Parts that the compiler split off (`.part.0`,
/// `.isra.0`) count as the function.
#[must_use]
pub fn context<'a>(functions: impl Iterator<Item = &'a str>) -> Context {
    for function in functions.map(whole) {
        if SOFTIRQ.contains(&function) {
            return Context::Softirq;
        }
        if BOTTOM.contains(&function) {
            return Context::Process;
        }
    }
    Context::NotProvable
}

/// What a lookup was for, by the functions of the stack, else by its fields where these prove it.
#[must_use]
pub fn purpose<'a>(functions: impl Iterator<Item = &'a str>, by_fields: LookupKind) -> Purpose {
    let mut found = None;
    for function in functions.map(whole) {
        let Some((_, purpose)) = PURPOSES.iter().find(|(name, _)| *name == function) else { continue };
        match (found, purpose) {
            // Output is asked by many: what stands around it says for what.
            (None | Some(Purpose::Output), purpose) => found = Some(*purpose),
            (Some(Purpose::Input), Purpose::Input) => {}
            // A route query may ask as if a packet came in.
            (Some(Purpose::Input), Purpose::RouteQuery) => found = Some(Purpose::RouteQuery),
            _ => break,
        }
        if found.is_some_and(|found| !matches!(found, Purpose::Output | Purpose::Input)) {
            break;
        }
    }
    found.unwrap_or(match by_fields {
        LookupKind::Input => Purpose::Input,
        LookupKind::Output => Purpose::Output,
        LookupKind::SourceValidation => Purpose::NotProvable,
    })
}

fn whole(function: &str) -> &str {
    function.split('.').next().unwrap_or(function)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(functions: &str, by_fields: LookupKind) -> (Context, Purpose) {
        let words = || functions.split(' ').filter(|word| !word.is_empty());
        (context(words()), purpose(words(), by_fields))
    }

    #[test]
    fn a_socket_asks_for_itself() {
        let stack = "__traceiter_fib_table_lookup fib_table_lookup __fib_lookup ip_route_output_key_hash_rcu \
                     ip_route_output_flow udp_sendmsg __sys_sendto __x64_sys_sendto do_syscall_64 \
                     entry_SYSCALL_64_after_hwframe";
        assert_eq!(told(stack, LookupKind::Output), (Context::Process, Purpose::Output));
    }

    #[test]
    fn what_a_softirq_does_is_not_the_tasks() {
        let stack = "fib_table_lookup __fib_validate_source.isra.0 ip_route_input_slow ip_rcv_finish net_rx_action \
                     handle_softirqs do_softirq.part.0 __dev_queue_xmit udp_sendmsg do_syscall_64";
        assert_eq!(told(stack, LookupKind::SourceValidation), (Context::Softirq, Purpose::SourceValidation));
        let answer = "fib_table_lookup ip_route_output_key_hash_rcu ip_route_output_flow icmp_reply icmp_echo \
                      ip_local_deliver __do_softirq";
        assert_eq!(told(answer, LookupKind::Output), (Context::Softirq, Purpose::IcmpReply));
    }

    #[test]
    fn queries_are_told_from_the_packets_they_stand_for() {
        let query = "fib_table_lookup ip_route_output_key_hash_rcu inet_rtm_getroute rtnetlink_rcv_msg do_syscall_64";
        assert_eq!(told(query, LookupKind::Output), (Context::Process, Purpose::RouteQuery));
        let input = "fib_table_lookup ip_route_input_slow ip_route_input_rcu inet_rtm_getroute do_syscall_64";
        assert_eq!(told(input, LookupKind::Input).1, Purpose::RouteQuery);
    }

    #[test]
    fn without_a_stack_only_what_the_fields_prove_is_told() {
        assert_eq!(told("", LookupKind::Output), (Context::NotProvable, Purpose::Output));
        assert_eq!(told("", LookupKind::Input).1, Purpose::Input);
        assert_eq!(told("a b c", LookupKind::SourceValidation).1, Purpose::NotProvable);
    }
}
