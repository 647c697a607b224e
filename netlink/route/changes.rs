use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use ipnet::IpNet;

use super::address::ParsedAddress;
use crate::error::{During, Error, Result};
use crate::message::HEADER;
use crate::socket::{NetlinkProtocol, Socket};

const ACTION: &str = "follow the node's addresses";
const ACTION_LINKS: &str = "follow the node's links";
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
/// Where an event has the index of its interface (`ifaddrmsg.ifa_index`, after the header of the message).
const INDEX_AT: u32 = HEADER as u32 + 4;

/// News of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressEvent {
    /// The address is there: new, or with other flags or lifetimes (an IPv6 address is announced once when
    /// added and again when it has passed duplicate detection).
    Updated {
        /// The interface's number.
        index: u32,
        /// The address with its prefix length.
        address: IpNet,
    },
    /// The address is gone.
    Removed {
        /// The interface's number.
        index: u32,
        /// The address with its prefix length.
        address: IpNet,
    },
    /// News were lost, because too many came at once. Read all addresses anew.
    Overrun,
}

/// Follows the addresses of one network namespace, both families. Open it first and then read the addresses,
/// and nothing falls between.
///
/// As an iterator it waits for the next change and never ends; use it so on a thread of its own. To do one thing
/// for a burst of changes, call [`AddressMonitor::set_nonblocking`], wait until it is readable (with
/// [`AddressMonitor::wait`], or a poller: it has a file descriptor), and call [`AddressMonitor::try_next`] until
/// that gives `None`.
#[derive(Debug)]
pub struct AddressMonitor {
    socket: Socket,
    pending: VecDeque<AddressEvent>,
}

impl AddressMonitor {
    /// Subscribes in the calling thread's network namespace. Needs no privilege.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no route netlink.
    pub fn open() -> Result<Self> {
        let socket = Socket::listen(NetlinkProtocol::Route, &[RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR])?;
        Ok(AddressMonitor { socket, pending: VecDeque::new() })
    }

    /// Makes [`AddressMonitor::try_next`] return instead of wait.
    ///
    /// # Errors
    /// [`Error::Io`] if the descriptor refuses.
    pub fn set_nonblocking(&self) -> Result<()> {
        self.socket.set_nonblocking()
    }

    /// Has the kernel keep news of one interface's addresses to itself from now on, however many there are. Takes
    /// the place of an earlier one.
    ///
    /// # Errors
    /// [`Error::Io`] if the descriptor refuses.
    pub fn ignore_link(&self, index: u32) -> Result<()> {
        self.socket.drop_events("leave out the news of an interface's addresses", INDEX_AT, index)
    }

    /// Waits, without limit, until there is a change to read.
    ///
    /// # Errors
    /// [`Error::Io`] if the descriptor refuses.
    pub fn wait(&self) -> Result<()> {
        self.socket.wait(ACTION)
    }

    /// The next change; `None` if there is none right now and the socket is non-blocking.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Malformed`]; the subscription goes on.
    pub fn try_next(&mut self) -> Result<Option<AddressEvent>> {
        while self.pending.is_empty() {
            let pending = &mut self.pending;
            let read = self.socket.events(ACTION, |message| {
                let Some(parsed) = ParsedAddress::parse(&message).during(ACTION)? else { return Ok(()) };
                let (index, address) = (parsed.index, parsed.address);
                pending.push_back(match message.kind {
                    libc::RTM_DELADDR => AddressEvent::Removed { index, address },
                    _ => AddressEvent::Updated { index, address },
                });
                Ok(())
            });
            match read {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(Error::Overrun { .. } | Error::Truncated { .. }) => {
                    self.pending.push_back(AddressEvent::Overrun);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self.pending.pop_front())
    }
}

impl Iterator for AddressMonitor {
    type Item = Result<AddressEvent>;

    /// The next change; waits for it unless the socket is non-blocking, where `None` means "not now".
    fn next(&mut self) -> Option<Self::Item> {
        self.try_next().transpose()
    }
}

impl AsFd for AddressMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for AddressMonitor {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Follows the links of one network namespace: that some were added, removed or changed, not which.
#[derive(Debug)]
pub struct LinkMonitor {
    socket: Socket,
}

impl LinkMonitor {
    /// Subscribes in the calling thread's network namespace. Needs no privilege.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no route netlink.
    pub fn open() -> Result<Self> {
        let socket = Socket::listen(NetlinkProtocol::Route, &[RTNLGRP_LINK])?;
        socket.set_nonblocking()?;
        Ok(LinkMonitor { socket })
    }

    /// Waits, without limit, until links have changed since the last [`LinkMonitor::drain`].
    ///
    /// # Errors
    /// [`Error::Io`] if the descriptor refuses.
    pub fn wait(&self) -> Result<()> {
        self.socket.wait(ACTION_LINKS)
    }

    /// Discards the events that have come so far.
    ///
    /// # Errors
    /// [`Error::Io`]; the subscription goes on.
    pub fn drain(&mut self) -> Result<()> {
        loop {
            match self.socket.events(ACTION_LINKS, |_| Ok(())) {
                Ok(true) | Err(Error::Overrun { .. } | Error::Truncated { .. }) => {}
                Ok(false) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}
