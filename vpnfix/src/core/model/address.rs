//! Addresses of interfaces.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// One address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Index of the interface.
    pub ifindex: u32,
    /// The address itself (`IFA_LOCAL`, or `IFA_ADDRESS` where there is no local one).
    pub local: IpAddr,
    /// The other end, where one was given (`ip address add LOCAL peer PEER`).
    pub peer: Option<IpAddr>,
    /// Length of the prefix in bits. With a peer it counts from the peer's address.
    pub prefix_length: u8,
    /// Scope (`RT_SCOPE_*`): 0 global, 253 link, 254 host.
    pub scope: u8,
}

impl Address {
    /// The prefix that the kernel makes a connected route for. With a peer, that is the peer's prefix
    /// (`net/ipv4/fib_frontend.c`, `fib_add_ifaddr`).
    #[must_use]
    pub fn prefix(&self) -> Option<IpNet> {
        let base = self.peer.unwrap_or(self.local);
        IpNet::new(base, self.prefix_length).ok().map(|prefix| prefix.trunc())
    }
}
