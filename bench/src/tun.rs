//! A device into which packets are put as if they came in from outside.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    net::Ipv4Addr,
    os::fd::AsRawFd as _,
};

use anyhow::{Context, Result};

use crate::process::ip_batch;

/// Its name.
const NAME: &str = "tun0";
/// An IPv4 header without options, and a UDP header.
const BYTES: usize = 28;
const UDP: u8 = 17;

/// The device; it goes with this.
pub struct Tun(File);

impl Tun {
    /// Makes it in this thread's namespace, and brings it up.
    pub fn open() -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").context("open /dev/net/tun")?;
        // SAFETY: a structure of plain numbers.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(NAME.bytes()) {
            *to = from.cast_signed();
        }
        // Both fit: they are bits 0 and 12.
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: the request takes an `ifreq`, which lives through the call.
        let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        if made < 0 {
            return Err(io::Error::last_os_error()).context("make a tun device");
        }
        ip_batch([format!("link set {NAME} addrgenmode none"), format!("link set {NAME} up")])?;
        Ok(Self(file))
    }

    /// A UDP datagram comes in.
    pub fn arrive(&mut self, from: Ipv4Addr, to: Ipv4Addr) -> Result<()> {
        self.0.write_all(&datagram(from, to)).context("put a packet into the tun device")
    }
}

/// RFC 791 and RFC 768, without a checksum of the latter.
fn datagram(from: Ipv4Addr, to: Ipv4Addr) -> [u8; BYTES] {
    let mut packet = [0; BYTES];
    packet[0] = 0x45;
    packet[3] = BYTES as u8;
    packet[8] = 64;
    packet[9] = UDP;
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    let sum: u32 = packet[..20].chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet[21] = 9;
    packet[23] = 9;
    packet[25] = 8;
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_sums_up() {
        let packet = datagram(Ipv4Addr::new(10, 20, 1, 9), Ipv4Addr::new(192, 168, 12, 200));
        let words = packet[..20].chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        let sum: u32 = words.sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        assert_eq!(packet.len(), usize::from(packet[3]));
    }
}
