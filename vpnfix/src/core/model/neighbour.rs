//! Neighbour entries: ARP and neighbour discovery.

use std::net::IpAddr;

/// One entry (`struct ndmsg`, `include/uapi/linux/neighbour.h`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighbourEntry {
    /// Index of the interface.
    pub ifindex: u32,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Its hardware address, as `ip neigh` shows it.
    pub hardware: Option<String>,
    /// State (`NUD_*`), a bit each.
    pub state: u16,
}

impl NeighbourEntry {
    /// The state's name in `ip neigh`, the number where it has none.
    #[must_use]
    pub fn state_name(&self) -> String {
        let name = match self.state {
            0x00 => "NONE",
            0x01 => "INCOMPLETE",
            0x02 => "REACHABLE",
            0x04 => "STALE",
            0x08 => "DELAY",
            0x10 => "PROBE",
            0x20 => "FAILED",
            0x40 => "NOARP",
            0x80 => "PERMANENT",
            other => return format!("{other:#x}"),
        };
        name.into()
    }
}
