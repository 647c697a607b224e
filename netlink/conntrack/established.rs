//! Lists established connections.

use super::flow::Flow;
use super::{Conntrack, IPCTNL_MSG_CT_GET};
use crate::Family;
use crate::attribute::Malformed;
use crate::error::{During, Result};
use crate::message::{Batch, Message};
use crate::netfilter::{self, Subsystem};

const CTA_PROTOINFO: u16 = 4;
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;

/// `TCP_CONNTRACK_ESTABLISHED`.
const ESTABLISHED: u8 = 3;

impl Conntrack {
    /// Calls `each` for the established flows of a family: TCP flows in state ESTABLISHED, and all flows of other protocols. A
    /// flow may be listed twice if the table changes meanwhile.
    ///
    /// # Errors
    /// The kernel's error: `EINVAL` without nf_conntrack_netlink, `EPERM` without CAP_NET_ADMIN.
    pub fn established(&mut self, family: Family, mut each: impl FnMut(&Flow)) -> Result<()> {
        const ACTION: &str = "list tracked connections";
        let kind = netfilter::kind(Subsystem::Conntrack, IPCTNL_MSG_CT_GET);
        let mut request = Batch::with_message(ACTION, kind, 0, |message| {
            message.netfilter_header(Some(family));
        })?;
        self.socket.dump(ACTION, &mut request, |message| {
            let Some(flow) = Flow::parse(&message).during(ACTION)? else { return Ok(()) };
            let is_tcp = i32::from(flow.protocol) == libc::IPPROTO_TCP;
            if !is_tcp || tcp_state(&message).during(ACTION)? == Some(ESTABLISHED) {
                each(&flow);
            }
            Ok(())
        })
    }
}

/// Returns the TCP state of a flow, `enum tcp_conntrack`.
fn tcp_state(message: &Message<'_>) -> Result<Option<u8>, Malformed> {
    let (_, attributes) = message.split::<{ netfilter::HEADER }>()?;
    for attribute in attributes {
        let attribute = attribute?;
        if attribute.kind != CTA_PROTOINFO {
            continue;
        }
        for of_protocol in attribute.nested() {
            let of_protocol = of_protocol?;
            if of_protocol.kind != CTA_PROTOINFO_TCP {
                continue;
            }
            for state in of_protocol.nested() {
                let state = state?;
                if state.kind == CTA_PROTOINFO_TCP_STATE {
                    return state.u8().map(Some);
                }
            }
        }
    }
    Ok(None)
}
