//! Static SAs and policies for the lab's VTIs, as strongSwan installs them for AWS's instructions.
//!
//! The keys are random, made anew for each lab, and known only to the kernel: they go to `ip` on its standard input
//! and are in no command line, message or log.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::net::Ipv4Addr;

use super::ip::Batch;
use super::layout::{CGW_ADDRESS, Tunnel};

/// strongSwan's priority for a policy between 0.0.0.0/0 and 0.0.0.0/0.
const POLICY_PRIORITY: u32 = 399_999;

/// The two keys of one SA, in hexadecimal. Without `Debug` on purpose.
struct SaKeys {
    encryption: String,
    integrity: String,
}

impl SaKeys {
    fn random() -> io::Result<Self> {
        Ok(Self { encryption: random_hex::<16>()?, integrity: random_hex::<32>()? })
    }
}

fn random_hex<const BYTES: usize>() -> io::Result<String> {
    let mut bytes = [0u8; BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let mut text = String::from("0x");
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

/// The keys of one tunnel: an SA each way.
pub struct TunnelKeys {
    /// From the gateway to the far end.
    out: SaKeys,
    /// From the far end to the gateway.
    back: SaKeys,
}

impl TunnelKeys {
    /// Random keys.
    pub fn random() -> io::Result<Self> {
        Ok(Self { out: SaKeys::random()?, back: SaKeys::random()? })
    }
}

/// An end of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The customer gateway.
    Gateway,
    /// AWS's endpoint.
    Endpoint,
}

/// Adds the SAs and policies of one end of a tunnel.
pub fn install(batch: &mut Batch, tunnel: &Tunnel, end: End, keys: &TunnelKeys) {
    let (near, far) = match end {
        End::Gateway => (CGW_ADDRESS, tunnel.outside),
        End::Endpoint => (tunnel.outside, CGW_ADDRESS),
    };
    // The mark of an SA selects outgoing packets; a VTI's incoming ones are found by address and SPI alone.
    let (out_mark, in_mark) = match end {
        End::Gateway => (Some(tunnel.key), None),
        End::Endpoint => (None, Some(tunnel.key)),
    };
    state(batch, (CGW_ADDRESS, tunnel.outside), tunnel.spi_out, tunnel.key, out_mark, &keys.out);
    state(batch, (tunnel.outside, CGW_ADDRESS), tunnel.spi_in, tunnel.key, in_mark, &keys.back);
    for (direction, from, to) in [("out", near, far), ("fwd", far, near), ("in", far, near)] {
        batch.line(format!(
            "xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir {direction} priority {POLICY_PRIORITY} mark {key} \
             tmpl src {from} dst {to} proto esp reqid {key} mode tunnel",
            key = tunnel.key
        ));
    }
}

fn state(batch: &mut Batch, (from, to): (Ipv4Addr, Ipv4Addr), spi: u32, reqid: u32, mark: Option<u32>, keys: &SaKeys) {
    let told = format!("xfrm state add src {from} dst {to} proto esp spi {spi:#x} reqid {reqid} mode tunnel");
    let mark = mark.map(|mark| format!(" mark {mark}")).unwrap_or_default();
    let SaKeys { encryption, integrity } = keys;
    batch.secret(
        format!("{told}{mark} enc cbc(aes) {encryption} auth-trunc hmac(sha256) {integrity} 128 flag af-unspec"),
        told,
    );
}
