//! What the scenes share: network namespaces that go away by themselves, the vpnfix binary, traffic, waiting.
//!
//! Everything is driven through the command line and judged by readers that know nothing of vpnfix. A test that cannot
//! run prints `SKIP: why`; with `CI` set in the environment that is a failure.

pub mod bundle;
pub mod capture;
pub mod command;
pub mod incident;
pub mod ip;
pub mod pty;
pub mod scene;
#[cfg(target_arch = "x86_64")]
pub mod syscalls;
pub mod trace;
pub mod traffic;
pub mod vpn;
pub mod wait;
pub mod watch;

/// Ends the calling test with `SKIP: why`, or fails it in CI.
#[macro_export]
macro_rules! skip {
    ($($why:tt)*) => {{
        $crate::note_skip(&format!($($why)*));
        return;
    }};
}

/// Ends the calling test as skipped unless it runs as root.
#[macro_export]
macro_rules! need_root {
    () => {
        if !nix::unistd::geteuid().is_root() {
            $crate::skip!("scenes need root: they live in network namespaces");
        }
    };
}

/// Ends the calling test as skipped unless the kernel has a kind of link. In a machine that is made with all kinds
/// (`VPNFIX_ALL_KINDS`) that is a failure; on a host's own kernel it is none, in CI neither: the machines run it.
#[macro_export]
macro_rules! need_kind {
    ($scene:expr, $kind:expr) => {
        if !$scene.has_kind(&$kind) {
            println!("SKIP: this kernel has no links of type {}", $kind);
            assert!(std::env::var_os("VPNFIX_ALL_KINDS").is_none(), "skipped in a machine that has all kinds");
            return;
        }
    };
}

/// The Debian root with the VPN's daemons; without it the calling test ends as skipped. In a machine that is made for these
/// scenes (`VPNFIX_ALL_KINDS`) that is a failure; a host's own kernel mostly has neither VTI nor ESP, and the machines run
/// them.
#[macro_export]
macro_rules! need_vpn {
    () => {
        match $crate::vpn::Vpn::root() {
            Ok(root) => root,
            Err(why) => {
                println!("SKIP: {why}: `cargo xtask test vm` plays this");
                assert!(std::env::var_os("VPNFIX_ALL_KINDS").is_none(), "skipped in a machine that has all it needs");
                return;
            }
        }
    };
}

/// Prints the reason of a skip.
///
/// # Panics
///
/// If `CI` is set: there, a test that does not run is a test that fails.
pub fn note_skip(why: &str) {
    println!("SKIP: {why}");
    assert!(std::env::var_os("CI").is_none(), "skipped in CI: {why}");
}
