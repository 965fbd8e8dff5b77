//! Adding and deleting single rules, over the crate `rtnetlink`.

use std::io;

use netlink_sys::AsyncSocket as _;
use rtnetlink::Handle;

use super::channel::{HEADER_BYTES, kernel_text};
use super::error::{NetlinkError, Operation};
use super::rule;
use crate::core::model::Rule;

/// A connection for changes, in the namespace of the thread that made it. Its task ends with it.
pub(super) struct Changes {
    handle: Handle,
}

impl Changes {
    /// Connects. Must be called within a tokio runtime that has I/O enabled.
    pub(super) fn open() -> Result<Self, NetlinkError> {
        let connect = || {
            let (mut connection, handle, _notifications) = rtnetlink::new_connection_with_strict_check()?;
            let socket = connection.socket_mut().socket_mut();
            socket.set_ext_ack(true)?;
            // A refusal then quotes the request's header alone, and the kernel's words follow right behind it.
            socket.set_cap_ack(true)?;
            tokio::spawn(connection);
            Ok(Self { handle })
        };
        connect().map_err(|source| NetlinkError::Open { source })
    }

    /// Adds the rule (`NLM_F_CREATE` and `NLM_F_EXCL`).
    pub(super) async fn add(&self, operation: Operation, rule: &Rule) -> Result<(), NetlinkError> {
        expressible(&operation, rule)?;
        let mut request = self.handle.rule().add();
        *request.message_mut() = rule::message(rule);
        request.execute().await.map_err(|error| told(operation, error))
    }

    /// Deletes the first rule that has all that the message says.
    pub(super) async fn delete(&self, operation: Operation, rule: &Rule) -> Result<(), NetlinkError> {
        expressible(&operation, rule)?;
        self.handle.rule().del(rule::message(rule)).execute().await.map_err(|error| told(operation, error))
    }
}

fn expressible(operation: &Operation, rule: &Rule) -> Result<(), NetlinkError> {
    if rule.unknown_attributes.is_empty() {
        return Ok(());
    }
    Err(NetlinkError::NotExpressible { operation: operation.clone(), numbers: rule.unknown_attributes.clone() })
}

/// The crate's error as ours. It hands on what follows the error's code: the request's header, and the attributes.
fn told(operation: Operation, error: rtnetlink::Error) -> NetlinkError {
    match error {
        rtnetlink::Error::NetlinkError(refusal) => NetlinkError::Refused {
            operation,
            text: refusal.header.get(HEADER_BYTES..).and_then(kernel_text),
            source: refusal.to_io(),
        },
        other => NetlinkError::Socket { operation, source: io::Error::other(other) },
    }
}
