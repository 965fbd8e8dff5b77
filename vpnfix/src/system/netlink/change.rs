//! Adding and deleting single rules, over the crate `rtnetlink`.
//!
//! Each change has a connection of its own and a time after which it is given up. The crate waits for an acknowledgement for
//! ever, be it lost (`ENOBUFS`) or not, and takes the end of its connection for success; but an answer that does not come
//! must end the request, because the rules that were added before are to be taken back.

use std::future::Future;
use std::io;

use netlink_sys::AsyncSocket as _;
use rtnetlink::Handle;

use super::channel::{HEADER_BYTES, PATIENCE, kernel_text};
use super::error::{NetlinkError, Operation};
use super::rule;
use crate::core::model::Rule;

/// Adds the rule (`NLM_F_CREATE` and `NLM_F_EXCL`).
pub(super) async fn add(operation: Operation, rule: &Rule) -> Result<(), NetlinkError> {
    let addition = |handle: Handle| {
        let mut request = handle.rule().add();
        *request.message_mut() = rule::message(rule);
        request.execute()
    };
    acknowledged(operation, rule, addition).await
}

/// Deletes the first rule that has all that the message says.
pub(super) async fn delete(operation: Operation, rule: &Rule) -> Result<(), NetlinkError> {
    acknowledged(operation, rule, |handle: Handle| handle.rule().del(rule::message(rule)).execute()).await
}

async fn acknowledged<F>(
    operation: Operation,
    rule: &Rule,
    request: impl FnOnce(Handle) -> F,
) -> Result<(), NetlinkError>
where
    F: Future<Output = Result<(), rtnetlink::Error>>,
{
    if !rule.unknown_attributes.is_empty() {
        return Err(NetlinkError::NotExpressible { operation, numbers: rule.unknown_attributes.clone() });
    }
    let connect = || {
        let (mut connection, handle, _notifications) = rtnetlink::new_connection_with_strict_check()?;
        let socket = connection.socket_mut().socket_mut();
        socket.set_ext_ack(true)?;
        // A refusal then quotes the request's header alone, and the kernel's words follow right behind it.
        socket.set_cap_ack(true)?;
        Ok((connection, handle))
    };
    let (connection, handle) = connect().map_err(|source| NetlinkError::Open { source })?;
    let connection = tokio::spawn(connection);
    // This end of it is kept until the answer is there, so that the connection ends before only by its own failure.
    let answer = tokio::time::timeout(PATIENCE, request(handle.clone())).await;
    let ended = connection.is_finished();
    connection.abort();
    drop(handle);
    match answer {
        Err(_elapsed) => Err(NetlinkError::TimedOut { operation }),
        Ok(Ok(())) if ended => {
            Err(NetlinkError::Socket { operation, source: io::Error::from(io::ErrorKind::UnexpectedEof) })
        }
        Ok(answer) => answer.map_err(|error| told(operation, error)),
    }
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
