//! Adds flows to the conntrack table.

use std::time::Duration;

use super::flow::{Flow, TupleParts, status};
use super::{Conntrack, IPCTNL_MSG_CT_NEW, attributes};
use crate::error::Result;
use crate::message::{Batch, CREATE, EXCLUSIVE};
use crate::netfilter::{self, Subsystem};

/// The number of bytes of requests in one send. The kernel's errors stay in the receive buffer until the batch is complete.
const BATCH_BYTES: usize = 128 * 1024;

impl Conntrack {
    /// Adds flows to the table, as if their packets had passed; they expire after `timeout` (whole seconds, at least one).
    /// For tests and measurements. The kernel assigns `id` and some bits of `status`.
    ///
    /// # Errors
    /// [`Error::Rejected`](crate::Error::Rejected), `EEXIST` if a flow has one of the tuples; other flows of the call may
    /// have been added.
    pub fn create<'f>(&mut self, flows: impl IntoIterator<Item = &'f Flow>, timeout: Duration) -> Result<()> {
        const ACTION: &str = "create a tracked connection";
        let kind = netfilter::kind(Subsystem::Conntrack, IPCTNL_MSG_CT_NEW);
        let seconds = u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX).max(1);
        let mut batch = Batch::new();
        for flow in flows {
            batch.push(ACTION, kind, CREATE | EXCLUSIVE, |message| {
                message.netfilter_header(Some(flow.family));
                TupleParts::from(flow.original).write(message, attributes::TUPLE_ORIG, flow.protocol);
                TupleParts::from(flow.reply).write(message, attributes::TUPLE_REPLY, flow.protocol);
                message.u32_be(attributes::TIMEOUT, seconds);
                // The kernel rejects a created flow without this bit.
                message.u32_be(attributes::STATUS, flow.status | status::CONFIRMED);
                if flow.mark != 0 {
                    message.u32_be(attributes::MARK, flow.mark);
                }
                if flow.zone != 0 {
                    message.u16_be(attributes::ZONE, flow.zone);
                }
            })?;
            if batch.size() >= BATCH_BYTES {
                self.socket.acknowledge(ACTION, &mut batch)?;
                batch.clear();
            }
        }
        self.socket.acknowledge(ACTION, &mut batch)
    }
}
