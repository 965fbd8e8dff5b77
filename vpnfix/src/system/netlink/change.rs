//! Adding and deleting single rules.
//!
//! Over the same channel as reading: an answer that does not come, or is lost for want of memory (`ENOBUFS`), must end the
//! request and leave the socket usable, because the rules that stand before it are to be taken back over it.

use netlink_packet_core::{Emitable as _, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};

use super::channel::{Channel, Request};
use super::error::{NetlinkError, Operation};
use super::{RTM_DELRULE, RTM_NEWRULE, rule};
use crate::core::model::Rule;

/// Adds the rule (`NLM_F_CREATE` and `NLM_F_EXCL`).
pub(super) async fn add(channel: &mut Channel, operation: Operation, rule: &Rule) -> Result<(), NetlinkError> {
    request(channel, RTM_NEWRULE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, operation, rule).await
}

/// Deletes the first rule that has all that the message says.
pub(super) async fn delete(channel: &mut Channel, operation: Operation, rule: &Rule) -> Result<(), NetlinkError> {
    request(channel, RTM_DELRULE, NLM_F_ACK, operation, rule).await
}

async fn request(
    channel: &mut Channel,
    kind: u16,
    flags: u16,
    operation: Operation,
    rule: &Rule,
) -> Result<(), NetlinkError> {
    if !rule.unknown_attributes.is_empty() {
        return Err(NetlinkError::NotExpressible { operation, numbers: rule.unknown_attributes.clone() });
    }
    let message = rule::message(rule);
    let mut body = vec![0; message.buffer_len()];
    message.emit(&mut body);
    let acknowledged = channel.exchange(&Request { kind, flags, body }, |_kind, _payload| Ok(None::<()>)).await;
    acknowledged.map(drop).map_err(|failure| failure.of(operation))
}
