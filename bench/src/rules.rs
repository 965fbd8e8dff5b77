//! The kernel's notifications of policy rules, with the time at which each came.

use std::{
    io,
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use netlink_packet_core::{NetlinkBuffer, Parseable as _};
use netlink_packet_route::{
    route::RouteProtocol,
    rule::{RuleAttribute, RuleMessage},
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::poll::{PollFd, PollFlags, poll};

use crate::load::go_first;

/// `RTNLGRP_IPV4_RULE` (`include/uapi/linux/rtnetlink.h`).
const GROUP: u32 = 8;
const RTM_NEWRULE: u16 = 32;
/// vpnfix marks its rules by this.
const VPNFIX: u8 = 118;

/// How often the listener looks whether it is still wanted, milliseconds.
const LOOK: u8 = 100;

/// Above the priority that a watch is measured with: one that goes before everything ordinary would else have cured the host
/// before the hijack's time is taken.
const FIRST: i32 = 2;

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

/// Hears of IPv4 rules in the namespace of the thread that opens it. A thread of its own takes the time of each: whoever waits
/// for something else meanwhile would take it too late.
pub struct Listener {
    added: Receiver<Result<Added>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
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
        let socket = open().context("listen for rules")?;
        let over = Arc::new(AtomicBool::new(false));
        let (sender, added) = channel();
        let until = Arc::clone(&over);
        let hear = move || match go_first(FIRST) {
            Ok(()) => hear(&socket, &sender, &until),
            Err(error) => drop(sender.send(Err(error))),
        };
        let thread = Some(thread::spawn(hear));
        Ok(Self { added, over, thread })
    }

    /// The next rule that is added; none if none comes within this time.
    pub fn next(&self, limit: Duration) -> Result<Option<Added>> {
        match self.added.recv_timeout(limit) {
            Ok(added) => added.map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("nobody listens for rules any more"),
        }
    }

    /// Forgets what came so far.
    pub fn clear(&self) -> Result<()> {
        while self.next(Duration::ZERO)?.is_some() {}
        Ok(())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic over there ended the measurement already.
            let _ended = thread.join();
        }
    }
}

/// Hands on each rule that is added, and the first error, until it is over or nobody wants them.
fn hear(socket: &Socket, into: &Sender<Result<Added>>, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let heard = hear_once(socket);
        let is_error = heard.is_err();
        let told = match heard {
            Ok(rules) => rules.into_iter().try_for_each(|rule| into.send(Ok(rule))),
            Err(error) => into.send(Err(error)),
        };
        if is_error || told.is_err() {
            return;
        }
    }
}

/// What comes within [`LOOK`].
fn hear_once(socket: &Socket) -> Result<Vec<Added>> {
    let mut wanted = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    if poll(&mut wanted, LOOK).context("wait for a rule")? == 0 {
        return Ok(Vec::new());
    }
    let at = Instant::now();
    let (datagram, _) = socket.recv_from_full().context("hear of a rule")?;
    let mut rest = datagram.as_slice();
    let mut rules = Vec::new();
    while !rest.is_empty() {
        let Ok(message) = NetlinkBuffer::new_checked(rest) else { bail!("a notification that is no message") };
        if message.message_type() == RTM_NEWRULE {
            let rule = RuleMessage::parse(message.payload()).context("read a notification of a rule")?;
            rules.push(added(&rule, at));
        }
        // Messages are padded to four bytes.
        let length = (message.length() as usize).next_multiple_of(4);
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(rules)
}

fn added(rule: &RuleMessage, at: Instant) -> Added {
    let priority = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Priority(priority) => Some(*priority),
        _ => None,
    });
    let ours = RuleAttribute::Protocol(RouteProtocol::from(VPNFIX));
    Added { at, priority: priority.unwrap_or(0), ours: rule.attributes.contains(&ours) }
}
