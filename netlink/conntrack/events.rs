//! Notifications about new and ended flows.
//!
//! The kernel sends them only while a socket subscribes (`net.netfilter.nf_conntrack_events=2`, the default since Linux 5.19),
//! and only for flows that began after that.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::attributes;
use super::flow::Flow;
use super::{IPCTNL_MSG_CT_DELETE, IPCTNL_MSG_CT_NEW};
use crate::attribute::{Attribute, Malformed};
use crate::error::{During, Error, Result};
use crate::message::Message;
use crate::netfilter::{self, Subsystem};
use crate::socket::{NetlinkProtocol, Socket};

/// `NFNLGRP_CONNTRACK_NEW`.
const GROUP_NEW: u32 = 1;
/// `NFNLGRP_CONNTRACK_DESTROY`.
const GROUP_DESTROY: u32 = 3;

const CTA_COUNTERS_PACKETS: u16 = 1;
const CTA_COUNTERS_BYTES: u16 = 2;
const CTA_TIMESTAMP_START: u16 = 1;
const CTA_TIMESTAMP_STOP: u16 = 2;

const ACTION: &str = "receive connection events";

/// A new or an ended flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionEvent {
    /// The first packet of the flow passed all rules.
    New(Flow),
    /// The flow was removed: it ended, timed out, or was deleted.
    Ended(Flow, FlowCounters),
}

impl ConnectionEvent {
    /// Returns the flow.
    pub fn flow(&self) -> &Flow {
        match self {
            ConnectionEvent::New(flow) | ConnectionEvent::Ended(flow, _) => flow,
        }
    }
}

/// Packets and bytes of one direction of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectionCounter {
    /// Packets.
    pub packets: u64,
    /// Bytes, with IP headers.
    pub bytes: u64,
}

/// Counters of an ended flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounters {
    /// Packets of the client; `None` without `net.netfilter.nf_conntrack_acct=1` at the start of the flow.
    pub original: Option<DirectionCounter>,
    /// Packets of the server; `None` as above.
    pub reply: Option<DirectionCounter>,
    /// The time from the first packet to the removal; `None` without `net.netfilter.nf_conntrack_timestamp=1`.
    pub duration: Option<Duration>,
}

/// A subscription to new and ended flows.
#[derive(Debug)]
pub struct ConnectionEvents {
    socket: Socket,
}

impl ConnectionEvents {
    /// Subscribes in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`Error::Io`] if the privilege or nf_conntrack_netlink is missing.
    pub fn listen() -> Result<Self> {
        let socket = Socket::listen(NetlinkProtocol::Netfilter, &[GROUP_NEW, GROUP_DESTROY])?;
        socket.set_nonblocking()?;
        Ok(ConnectionEvents { socket })
    }

    /// Passes the events of one datagram to `each`. Returns false if there is none.
    ///
    /// # Errors
    /// [`Error::Overrun`] if events were lost, an unknown number; the next call continues after the gap.
    pub fn receive(&mut self, mut each: impl FnMut(ConnectionEvent)) -> Result<bool> {
        let received = self.socket.events(ACTION, |message| {
            if let Some(event) = parse(&message).during(ACTION)? {
                each(event);
            }
            Ok(())
        });
        match received {
            Err(Error::Truncated { action, .. }) => Err(Error::Overrun { action }),
            received => received,
        }
    }
}

impl AsFd for ConnectionEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Parses a notification; `None` for other messages, and for flows that are not IP.
fn parse(message: &Message<'_>) -> Result<Option<ConnectionEvent>, Malformed> {
    const NEW: u16 = netfilter::kind(Subsystem::Conntrack, IPCTNL_MSG_CT_NEW);
    const DELETE: u16 = netfilter::kind(Subsystem::Conntrack, IPCTNL_MSG_CT_DELETE);
    if !matches!(message.kind, NEW | DELETE) {
        return Ok(None);
    }
    let Some(flow) = Flow::parse(message)? else { return Ok(None) };
    Ok(Some(match message.kind {
        NEW => ConnectionEvent::New(flow),
        _ => ConnectionEvent::Ended(flow, FlowCounters::parse(message)?),
    }))
}

impl FlowCounters {
    fn parse(message: &Message<'_>) -> Result<Self, Malformed> {
        let (_, attributes) = message.split::<{ netfilter::HEADER }>()?;
        let mut counters = FlowCounters::default();
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                attributes::COUNTERS_ORIG => counters.original = Some(DirectionCounter::parse(&attribute)?),
                attributes::COUNTERS_REPLY => counters.reply = Some(DirectionCounter::parse(&attribute)?),
                attributes::TIMESTAMP => counters.duration = duration(&attribute)?,
                _ => {}
            }
        }
        Ok(counters)
    }
}

impl DirectionCounter {
    fn parse(attribute: &Attribute<'_>) -> Result<Self, Malformed> {
        let mut counter = DirectionCounter::default();
        for part in attribute.nested() {
            let part = part?;
            match part.kind {
                CTA_COUNTERS_PACKETS => counter.packets = part.u64_be()?,
                CTA_COUNTERS_BYTES => counter.bytes = part.u64_be()?,
                _ => {}
            }
        }
        Ok(counter)
    }
}

/// Reads the time between start and stop, which are in nanoseconds.
fn duration(attribute: &Attribute<'_>) -> Result<Option<Duration>, Malformed> {
    let (mut start, mut stop) = (None, None);
    for part in attribute.nested() {
        let part = part?;
        match part.kind {
            CTA_TIMESTAMP_START => start = Some(part.u64_be()?),
            CTA_TIMESTAMP_STOP => stop = Some(part.u64_be()?),
            _ => {}
        }
    }
    Ok(start.zip(stop).map(|(start, stop)| Duration::from_nanos(stop.saturating_sub(start))))
}
