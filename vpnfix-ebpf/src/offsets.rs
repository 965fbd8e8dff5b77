//! Where the kernel's fields lie, and what to look for: read-only globals that user space sets before the programs are
//! loaded.
//!
//! User space freezes the map that holds them, so the verifier takes each as a known constant: a load at such an offset
//! is checked against the kernel's own types as if it were compiled in, and a branch on an absent one costs nothing.

use aya_ebpf::Global;

/// The value of an offset whose field this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

macro_rules! offsets {
    ($($name:ident)*) => {
        $(
            /// Byte offset of the field that the name says.
            #[unsafe(no_mangle)]
            pub static $name: Global<u32> = Global::new(ABSENT);
        )*
    };
}

offsets! {
    FLOWIC_OIF FLOWIC_IIF FLOWIC_MARK FLOWIC_TOS FLOWIC_PROTO FLOWIC_UID
    FLOWI4_SADDR FLOWI4_DADDR FLOWI4_SPORT FLOWI4_DPORT
    FLOWI6_SADDR FLOWI6_DADDR FLOWI6_SPORT FLOWI6_DPORT
    NHC_DEV NHC_GW_FAMILY NHC_GW
    NET_DEVICE_IFINDEX NET_DEVICE_NET
    NET_INUM NET_IPV4_CUSTOM_RULES NET_IPV6_CUSTOM_RULES NET_IPV6_NULL_ENTRY
    FIB6_RESULT_NH FIB6_RESULT_F6I FIB6_RESULT_TYPE FIB6_TABLE_ID
    FIB_RESULT_PREFIXLEN FIB_RESULT_NHC FIB_RESULT_TABLE FIB_TABLE_ID
    SKB_HEAD SKB_DATA SKB_NETWORK_HEADER SKB_PROTOCOL SKB_LEN SKB_DATA_LEN SKB_SK SKB_DEV
    SKC_FAMILY SKC_BOUND_DEV_IF SKC_NUM SKC_DPORT SKC_DADDR SKC_RCV_SADDR SKC_V6_DADDR SKC_V6_RCV_SADDR SKC_NET
    SK_PROTOCOL
}

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        $(
            $(#[$doc])*
            #[unsafe(no_mangle)]
            pub static $name: Global<$type> = Global::new(0);
        )*
    };
}

settings! {
    /// Inode of the namespace to watch, 0 for all.
    TARGET_NETNS: u32;
    /// Thread whose `RTM_GETROUTE` queries are left out, 0 for none.
    QUERY_THREAD: u32;
    /// Thread of the probe, 0 for none.
    PROBE_THREAD: u32;
    /// ICMP identifier of the probe's echo requests.
    PROBE_ICMP_ID: u32;
    /// The only IP protocol that is told, 0 for all (1 stands for ICMPv6 too).
    ONLY_PROTOCOL: u32;
    /// The only port that is told, on either side, 0 for all.
    ONLY_PORT: u32;
    /// 1 if what happens is also told flow by flow.
    BY_FLOW: u32;
    /// 1 if the headers of the first packets are told.
    TELL_HEADERS: u32;
    /// 1 if destinations are also counted one by one.
    BY_DESTINATION: u32;
    /// 1 if the kernel gives `kfree_skb` a reason (since 5.17).
    HAS_DROP_REASON: u32;
    /// Address of `inet_rtm_getroute`, 0 if not known.
    GETROUTE4_START: u64;
    /// Its end.
    GETROUTE4_END: u64;
    /// Address of `inet6_rtm_getroute`, 0 if not known.
    GETROUTE6_START: u64;
    /// Its end.
    GETROUTE6_END: u64;
    /// Address of the function that runs softirqs (`handle_softirqs`, before 6.9 or so `__do_softirq`).
    SOFTIRQ_START: u64;
    /// Its end.
    SOFTIRQ_END: u64;
}

/// Reads a field of a kernel object directly.
///
/// # Safety
///
/// `base` must be a pointer that the verifier knows as a kernel type (an argument of the hook, or read from one), and
/// `offset` that of a field of type `T` in it. A bad pointer then reads as zero: the kernel handles the fault.
#[inline(always)]
pub unsafe fn load<T: Copy>(base: *const u8, offset: &Global<u32>) -> T {
    // SAFETY: passed on to the caller. Volatile, so that LLVM neither merges nor moves loads in a way that the verifier
    // does not follow.
    unsafe { core::ptr::read_volatile(base.add(offset.load() as usize).cast()) }
}

/// As [`load`], for a field that not every kernel has.
///
/// # Safety
///
/// As [`load`].
#[inline(always)]
pub unsafe fn load_if_there<T: Copy>(base: *const u8, offset: &Global<u32>) -> Option<T> {
    if offset.load() == ABSENT {
        return None;
    }
    // SAFETY: passed on to the caller.
    Some(unsafe { load(base, offset) })
}

/// Reads an IPv6 address.
///
/// # Safety
///
/// As [`load`].
#[inline(always)]
pub unsafe fn load_address6(base: *const u8, offset: &Global<u32>) -> [u8; 16] {
    // SAFETY: passed on to the caller. Word by word, as the kernel aligns its addresses to 4 bytes only.
    let words: [u32; 4] = unsafe {
        let first = base.add(offset.load() as usize).cast::<u32>();
        [
            core::ptr::read_volatile(first),
            core::ptr::read_volatile(first.add(1)),
            core::ptr::read_volatile(first.add(2)),
            core::ptr::read_volatile(first.add(3)),
        ]
    };
    // SAFETY: both are 16 plain bytes.
    unsafe { core::mem::transmute(words) }
}

/// An IPv4 address as the ABI wants it: in the first four bytes.
#[inline(always)]
pub fn address4(address: u32) -> [u8; 16] {
    // SAFETY: both are 16 plain bytes.
    unsafe { core::mem::transmute([address, 0, 0, 0]) }
}

/// The inode of a namespace.
///
/// # Safety
///
/// `net` must be a `struct net *` known to the verifier.
#[inline(always)]
pub unsafe fn netns_inode(net: *const u8) -> u32 {
    // SAFETY: as above.
    unsafe { load(net, &NET_INUM) }
}
