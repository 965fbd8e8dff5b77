//! What the kernel tells by itself: links, addresses, routes and rules that come and go (RTNLGRP_*,
//! `include/uapi/linux/rtnetlink.h`).

use std::io;

use bytes::BytesMut;
use netlink_packet_core::NetlinkBuffer;
use netlink_packet_route::{AddressFamily, route::RouteHeader};
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket, protocols::NETLINK_ROUTE};

use super::channel::HEADER_BYTES;
use super::error::{NetlinkError, Operation};
use super::{RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE, RTM_NEWRULE, route, rule};
use crate::core::model::{Family, Rule};

const RTM_DELLINK: u16 = 17;
const RTM_DELADDR: u16 = 21;
const RTM_DELROUTE: u16 = 25;
const RTM_DELRULE: u16 = 33;
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;
/// Links, addresses, routes and rules of both families, nexthop objects.
const GROUPS: [u32; 8] = [1, 5, 7, 8, 9, 11, 19, 32];
/// Larger than any notification.
const RECEIVE_BYTES: usize = 64 * 1024;
/// Room for a storm: some ten thousand notifications.
const KERNEL_BYTES: libc::c_int = 8 * 1024 * 1024;
/// No more is taken in at once, so that a storm cannot keep the rest from its turn.
const BATCH: usize = 4096;
/// Names another size of the kernel's buffer, so that tests can make notifications get lost.
const BUFFER_VARIABLE: &str = "VPNFIX_NETLINK_BUFFER";

/// Something that changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A rule was added.
    RuleAdded(Rule),
    /// A rule was deleted.
    RuleDeleted {
        /// The rule.
        rule: Rule,
        /// The netlink port that asked for it: mostly the process id of who did, 0 for the kernel itself.
        by: u32,
    },
    /// A route came or went.
    Route {
        /// Its family.
        family: Family,
        /// Its table.
        table: u32,
    },
    /// A link came, went, or changed.
    Link,
    /// An address came or went.
    Address,
    /// A nexthop object changed.
    Nexthop,
    /// Notifications were lost, or one could not be read: everything may have changed.
    Lost,
}

/// A socket that hears of changes in the namespace of the thread that opened it.
pub struct Monitor {
    socket: TokioSocket,
    buffer: BytesMut,
}

impl Monitor {
    /// Opens it. What changes from now on is heard. Needs a tokio runtime.
    ///
    /// # Errors
    /// There is no such socket to be had.
    pub fn open() -> Result<Self, NetlinkError> {
        let open = || {
            let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
            socket.socket_mut().bind_auto()?;
            let wanted: Option<libc::c_int> = std::env::var(BUFFER_VARIABLE).ok().and_then(|text| text.parse().ok());
            // The kernel cuts it to net.core.rmem_max; a smaller buffer loses more, and what is lost is known.
            socket.socket_ref().set_rx_buf_sz(wanted.unwrap_or(KERNEL_BYTES))?;
            for group in GROUPS {
                socket.socket_mut().add_membership(group)?;
            }
            Ok(Self { socket, buffer: BytesMut::with_capacity(RECEIVE_BYTES) })
        };
        open().map_err(|source| NetlinkError::Open { source })
    }

    /// Waits for changes, and puts all that are there into `into`. May be cancelled; nothing is lost by that.
    ///
    /// # Errors
    /// The socket is broken.
    pub async fn next(&mut self, into: &mut Vec<Change>) -> Result<(), NetlinkError> {
        let before = into.len();
        while into.len() == before {
            self.buffer.clear();
            self.buffer.reserve(RECEIVE_BYTES);
            let received = self.socket.recv_from(&mut self.buffer).await.map(|sender| sender.port_number());
            self.take(received, into)?;
        }
        self.drain(into)
    }

    /// Puts all that is there already into `into`, without waiting.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn drain(&mut self, into: &mut Vec<Change>) -> Result<(), NetlinkError> {
        let before = into.len();
        while into.len() - before < BATCH {
            self.buffer.clear();
            self.buffer.reserve(RECEIVE_BYTES);
            let received = self.socket.socket_ref().recv_from(&mut self.buffer, libc::MSG_DONTWAIT);
            match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                received => self.take(received.map(|(_, sender)| sender.port_number()), into)?,
            }
        }
        Ok(())
    }

    fn take(&self, received: io::Result<u32>, into: &mut Vec<Change>) -> Result<(), NetlinkError> {
        match received {
            // Other processes can write to a netlink socket too; only the kernel is believed.
            Ok(0) => changes(&self.buffer, into),
            Ok(_other) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => into.push(Change::Lost),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(NetlinkError::Socket { operation: Operation::Listen, source }),
        }
        Ok(())
    }
}

/// The changes that a datagram tells.
fn changes(datagram: &[u8], into: &mut Vec<Change>) {
    let mut rest = datagram;
    while !rest.is_empty() {
        let Ok(message) = NetlinkBuffer::new_checked(rest) else {
            into.push(Change::Lost);
            return;
        };
        let length = message.length() as usize;
        let payload = rest.get(HEADER_BYTES..length).unwrap_or_default();
        into.extend(change(message.message_type(), message.port_number(), payload));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

fn change(kind: u16, port: u32, payload: &[u8]) -> Option<Change> {
    match kind {
        RTM_NEWRULE => rule::rule(payload).map_or(Some(Change::Lost), |rule| rule.map(Change::RuleAdded)),
        RTM_DELRULE => rule::rule(payload)
            .map_or(Some(Change::Lost), |rule| rule.map(|rule| Change::RuleDeleted { rule, by: port })),
        RTM_NEWROUTE | RTM_DELROUTE => of_route(payload),
        RTM_NEWLINK | RTM_DELLINK => Some(Change::Link),
        RTM_NEWADDR | RTM_DELADDR => Some(Change::Address),
        RTM_NEWNEXTHOP | RTM_DELNEXTHOP => Some(Change::Nexthop),
        _ => None,
    }
}

/// Only family and table: which routes there are is read from the kernel.
fn of_route(payload: &[u8]) -> Option<Change> {
    let Ok(header) = RouteHeader::parse(payload) else { return Some(Change::Lost) };
    let family = match header.address_family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return None,
    };
    let table = route::fields(payload).ok().and_then(|fields| fields.table);
    Some(Change::Route { family, table: table.unwrap_or_else(|| header.table.into()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, port: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER_BYTES + payload.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 6]);
        bytes.extend(port.to_ne_bytes());
        bytes.extend(payload);
        bytes
    }

    fn told(datagram: &[u8]) -> Vec<Change> {
        let mut into = Vec::new();
        changes(datagram, &mut into);
        into
    }

    #[test]
    fn a_deleted_rule_tells_who_asked_for_it() {
        // `struct fib_rule_hdr`: AF_INET, table main, action to a table.
        let rule = [2, 0, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0];
        let found = told(&[message(RTM_DELRULE, 4711, &rule), message(RTM_NEWLINK, 0, &[])].concat());
        assert!(
            matches!(&found[..], [Change::RuleDeleted { rule, by: 4711 }, Change::Link] if rule.table() == Some(254))
        );
    }

    #[test]
    fn what_cannot_be_read_means_that_anything_may_have_changed() {
        assert_eq!(told(&[0xff; 20]), [Change::Lost]);
        assert_eq!(told(&message(RTM_NEWRULE, 0, &[2])), [Change::Lost]);
        assert_eq!(told(&message(RTM_NEWROUTE, 0, &[])), [Change::Lost]);
        assert_eq!(told(&message(9999, 0, &[1, 2, 3])), []);
        let whole = message(RTM_NEWROUTE, 0, &[2, 24, 0, 0, 220, 4, 0, 1, 0, 0, 0, 0]);
        assert_eq!(told(&whole), [Change::Route { family: Family::V4, table: 220 }]);
        for end in 1..whole.len() {
            let _either = told(&whole[..end]);
        }
    }
}
