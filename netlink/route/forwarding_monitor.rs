//! Monitor of links, addresses, routes, neighbours and FDB entries.

use std::collections::VecDeque;

use super::address::ParsedAddress;
use super::neighbour::{Entry, FdbEntry, Neighbour};
use super::route::Route;
use crate::error::{During, Error, Result};
use crate::socket::{NetlinkProtocol, Socket};

const ACTION: &str = "monitor links, addresses, routes and neighbours";

/// A notification of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardingEvent {
    /// The link with this index was added or removed, or something of it changed.
    Link(u32),
    /// An address of the link with this index was added or removed, or its flags or lifetimes changed.
    Address(u32),
    /// A route of the main table was added with this protocol number; it may have replaced another one.
    RouteAdded(Route, u8),
    /// A route of the main table was deleted, which had this protocol number.
    RouteDeleted(Route, u8),
    /// A neighbour was added or changed.
    NeighbourSet(Neighbour),
    /// A neighbour was deleted.
    NeighbourDeleted(Neighbour),
    /// An FDB entry was added or changed.
    FdbEntrySet(FdbEntry),
    /// An FDB entry was deleted.
    FdbEntryDeleted(FdbEntry),
    /// Notifications were lost, because too many were sent within a short time.
    Overrun,
}

/// Subscription to changes of links, addresses, routes, neighbours and FDB entries in one network namespace.
#[derive(Debug)]
pub struct ForwardingMonitor {
    socket: Socket,
    pending: VecDeque<ForwardingEvent>,
}

impl ForwardingMonitor {
    /// Subscribes in the calling thread's network namespace. Needs no privilege.
    ///
    /// # Errors
    /// [`Error::Io`] if the kernel has no rtnetlink.
    pub fn open() -> Result<Self> {
        let groups = [
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_NEIGH,
            libc::RTNLGRP_IPV4_IFADDR,
            libc::RTNLGRP_IPV6_IFADDR,
            libc::RTNLGRP_IPV4_ROUTE,
            libc::RTNLGRP_IPV6_ROUTE,
        ];
        let socket = Socket::listen(NetlinkProtocol::Route, &groups)?;
        socket.set_nonblocking()?;
        Ok(ForwardingMonitor { socket, pending: VecDeque::new() })
    }

    /// Blocks until there is a change to read.
    ///
    /// # Errors
    /// [`Error::Io`] if the system call fails.
    pub fn wait(&self) -> Result<()> {
        self.socket.wait(ACTION, None)
    }

    /// Returns the next change; `None` if there is none yet.
    ///
    /// # Errors
    /// [`Error::Io`]; the subscription continues.
    pub fn try_next(&mut self) -> Result<Option<ForwardingEvent>> {
        while self.pending.is_empty() {
            let pending = &mut self.pending;
            let read = self.socket.events(ACTION, |message| {
                let index = |at: usize| {
                    message
                        .payload
                        .get(at..at + 4)
                        .and_then(|bytes| bytes.try_into().ok())
                        .map(u32::from_ne_bytes)
                };
                let event = match message.kind {
                    // `ifinfomsg.ifi_index`.
                    libc::RTM_NEWLINK | libc::RTM_DELLINK => index(4).map(ForwardingEvent::Link),
                    libc::RTM_NEWADDR | libc::RTM_DELADDR => ParsedAddress::parse(&message)
                        .during(ACTION)?
                        .map(|parsed| ForwardingEvent::Address(parsed.index)),
                    kind @ (libc::RTM_NEWROUTE | libc::RTM_DELROUTE) => {
                        let event = match kind {
                            libc::RTM_NEWROUTE => ForwardingEvent::RouteAdded,
                            _ => ForwardingEvent::RouteDeleted,
                        };
                        Route::parse(&message).during(ACTION)?.map(|(route, protocol)| event(route, protocol))
                    }
                    kind => Entry::parse(&message).during(ACTION)?.map(|(entry, _)| match (entry, kind) {
                        (Entry::Neighbour(entry), libc::RTM_DELNEIGH) => {
                            ForwardingEvent::NeighbourDeleted(entry)
                        }
                        (Entry::Neighbour(entry), _) => ForwardingEvent::NeighbourSet(entry),
                        (Entry::Fdb(entry), libc::RTM_DELNEIGH) => ForwardingEvent::FdbEntryDeleted(entry),
                        (Entry::Fdb(entry), _) => ForwardingEvent::FdbEntrySet(entry),
                    }),
                };
                pending.extend(event);
                Ok(())
            });
            match read {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(Error::Overrun { .. } | Error::Truncated { .. }) => {
                    self.pending.push_back(ForwardingEvent::Overrun);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self.pending.pop_front())
    }
}
