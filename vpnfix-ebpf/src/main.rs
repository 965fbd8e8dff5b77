//! The eBPF programs of vpnfix: they filter, copy and count. They hold no verdicts.
//!
//! In the order in which a lookup passes: [`filter`] (is it watched?), [`own`] (is it vpnfix's own question?), [`flow`]
//! (what does it ask?), [`walk`] (to which walk of the rules does it belong?), [`lookup`] (count, compare, tell). The
//! hooks are in [`fib4`], [`fib6`], [`transmit`] and [`tcp`]; those of [`drops`] and [`receive`], what is told flow by flow
//! ([`flows`]), and packets' [`headers`] are there only while they are asked for.
#![no_std]
#![no_main]
#![expect(
    missing_docs,
    reason = "aya's macros wrap each program in a function of their own, without its documentation"
)]

mod drops;
mod fib4;
mod fib6;
mod filter;
mod flow;
mod flows;
mod headers;
mod lookup;
mod maps;
mod offsets;
mod own;
mod packet;
mod receive;
mod task;
mod tcp;
mod transmit;
mod walk;

use aya_ebpf::{
    macros::{btf_tracepoint, fexit},
    programs::{BtfTracePointContext, FExitContext},
};

/// Tracepoint `fib:fib_table_lookup`.
#[btf_tracepoint(function = "fib_table_lookup")]
pub fn fib_table_lookup(ctx: BtfTracePointContext) -> i32 {
    fib4::table_lookup(&ctx);
    0
}

/// Tracepoint `fib6:fib6_table_lookup`.
#[btf_tracepoint(function = "fib6_table_lookup")]
pub fn fib6_table_lookup(ctx: BtfTracePointContext) -> i32 {
    fib6::table_lookup(&ctx);
    0
}

/// Return of `__fib_lookup`.
#[fexit(function = "__fib_lookup")]
pub fn fib_rules_lookup(ctx: FExitContext) -> i32 {
    fib4::rules_lookup(&ctx);
    0
}

/// Tracepoint `net:net_dev_start_xmit`.
#[btf_tracepoint(function = "net_dev_start_xmit")]
pub fn net_dev_start_xmit(ctx: BtfTracePointContext) -> i32 {
    transmit::start_xmit(&ctx);
    0
}

/// Tracepoint `sock:inet_sock_set_state`.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    tcp::set_state(&ctx);
    0
}

/// Tracepoint `tcp:tcp_retransmit_skb`.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn tcp_retransmit_skb(ctx: BtfTracePointContext) -> i32 {
    tcp::retransmit(&ctx);
    0
}

/// Tracepoint `skb:kfree_skb`.
#[btf_tracepoint(function = "kfree_skb")]
pub fn kfree_skb(ctx: BtfTracePointContext) -> i32 {
    drops::dropped(&ctx);
    0
}

/// Tracepoint `net:netif_receive_skb`.
#[btf_tracepoint(function = "netif_receive_skb")]
pub fn netif_receive_skb(ctx: BtfTracePointContext) -> i32 {
    receive::received(&ctx);
    0
}

/// A panic that the compiler could not prove impossible. The verifier refuses the loop, so none is ever loaded.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The helpers that the programs use (`bpf_ktime_get_ns` and others) are open to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
