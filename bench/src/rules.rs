//! The kernel's notifications of policy rules, with the time at which each came.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use netlink_packet_core::{NetlinkBuffer, Parseable as _};
use netlink_packet_route::{
    route::RouteProtocol,
    rule::{RuleAttribute, RuleMessage},
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// `RTNLGRP_IPV4_RULE` (`include/uapi/linux/rtnetlink.h`).
const GROUP: u32 = 8;
const RTM_NEWRULE: u16 = 32;
/// vpnfix marks its rules by this.
const VPNFIX: u8 = 118;

/// A rule that was added.
#[derive(Clone, Copy, Debug)]
pub struct Added {
    /// When the notification came.
    pub at: Instant,
    /// Its priority.
    pub priority: u32,
    /// It is vpnfix's.
    pub ours: bool,
}

/// Hears of IPv4 rules in this thread's namespace.
pub struct Listener {
    socket: Socket,
    waiting: VecDeque<Added>,
}

impl Listener {
    /// From now on.
    pub fn open() -> Result<Self> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.add_membership(GROUP)?;
            Ok(socket)
        };
        Ok(Self { socket: open().context("listen for rules")?, waiting: VecDeque::new() })
    }

    /// The next rule that is added; none if none comes within this time.
    pub fn next(&mut self, limit: Duration) -> Result<Option<Added>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(added) = self.waiting.pop_front() {
                return Ok(Some(added));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            // SAFETY: the socket is open for as long as it is borrowed.
            let descriptor = unsafe { std::os::fd::BorrowedFd::borrow_raw(self.socket.as_raw_fd()) };
            let mut wanted = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            if poll(&mut wanted, timeout).context("wait for a rule")? == 0 {
                return Ok(None);
            }
            let at = Instant::now();
            let (datagram, _) = self.socket.recv_from_full().context("hear of a rule")?;
            self.take(&datagram, at)?;
        }
    }

    /// Forgets what came so far.
    pub fn clear(&mut self) -> Result<()> {
        while self.next(Duration::ZERO)?.is_some() {}
        Ok(())
    }

    fn take(&mut self, mut rest: &[u8], at: Instant) -> Result<()> {
        while !rest.is_empty() {
            let Ok(message) = NetlinkBuffer::new_checked(rest) else { bail!("a notification that is no message") };
            if message.message_type() == RTM_NEWRULE {
                let rule = RuleMessage::parse(message.payload()).context("read a notification of a rule")?;
                self.waiting.push_back(added(&rule, at));
            }
            // Messages are padded to four bytes.
            let length = (message.length() as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(())
    }
}

fn added(rule: &RuleMessage, at: Instant) -> Added {
    let priority = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Priority(priority) => Some(*priority),
        _ => None,
    });
    let ours = RuleAttribute::Protocol(RouteProtocol::from(VPNFIX));
    Added { at, priority: priority.unwrap_or(0), ours: rule.attributes.contains(&ours) }
}
