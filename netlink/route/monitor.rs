//! Monitors of addresses and links: subscriptions to notifications of rtnetlink.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use ipnet::IpNet;

use super::address::ParsedAddress;
use crate::error::{During, Error, Result};
use crate::message::HEADER;
use crate::socket::{NetlinkProtocol, Socket};

const ACTION: &str = "monitor addresses";
const ACTION_LINKS: &str = "monitor links";
/// Offset of the interface's index in a notification (`ifaddrmsg.ifa_index`, after the header of the message).
const INDEX_AT: u32 = HEADER as u32 + 4;

/// A change of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressEvent {
    /// The address was added, or its flags or lifetimes changed. An IPv6 address is reported when it is added and
    /// again after duplicate address detection.
    Updated {
        /// The link's index.
        index: u32,
        /// The address with its prefix length.
        address: IpNet,
    },
    /// The address was removed.
    Removed {
        /// The link's index.
        index: u32,
        /// The address with its prefix length.
        address: IpNet,
    },
    /// Notifications were lost, because too many were sent within a short time. All addresses must be listed again.
    Overrun,
}

/// Subscription to changes of addresses of both families in one network namespace. Open it first and then list the
/// addresses, so that no change is missed.
///
/// As an iterator it blocks until the next change and never ends, for use on a thread of its own. To process a burst of
/// changes together, call [`AddressMonitor::set_nonblocking`], wait until it is readable (with [`AddressMonitor::wait`],
/// or a poller: it has a file descriptor), and call [`AddressMonitor::try_next`] until that returns `None`.
#[derive(Debug)]
pub struct AddressMonitor {
    socket: Socket,
    pending: VecDeque<AddressEvent>,
}

impl AddressMonitor {
    /// Subscribes in the calling thread's network namespace. Needs no privilege.
    ///
    /// # Errors
    /// [`Error::Io`] if the kernel has no rtnetlink.
    pub fn open() -> Result<Self> {
        let groups = [libc::RTNLGRP_IPV4_IFADDR, libc::RTNLGRP_IPV6_IFADDR];
        let socket = Socket::listen(NetlinkProtocol::Route, &groups)?;
        Ok(AddressMonitor { socket, pending: VecDeque::new() })
    }

    /// Makes [`AddressMonitor::try_next`] non-blocking.
    ///
    /// # Errors
    /// [`Error::Io`] if the system call fails.
    pub fn set_nonblocking(&self) -> Result<()> {
        self.socket.set_nonblocking()
    }

    /// Makes the kernel drop notifications about one link's addresses. Replaces an earlier call.
    ///
    /// # Errors
    /// [`Error::Io`] if the system call fails.
    pub fn ignore_link(&self, index: u32) -> Result<()> {
        self.socket.drop_events("ignore notifications about a link's addresses", INDEX_AT, index)
    }

    /// Blocks until there is a change to read.
    ///
    /// # Errors
    /// [`Error::Io`] if the system call fails.
    pub fn wait(&self) -> Result<()> {
        self.socket.wait(ACTION, None)
    }

    /// Returns the next change; `None` if there is none and the socket is non-blocking.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Decode`]; the subscription continues.
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

    /// Returns the next change. Blocks unless the socket is non-blocking, where `None` means that there is none yet.
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

/// Subscription to changes of links in one network namespace. It reports that links changed, not which.
#[derive(Debug)]
pub struct LinkMonitor {
    socket: Socket,
}

impl LinkMonitor {
    /// Subscribes in the calling thread's network namespace. Needs no privilege.
    ///
    /// # Errors
    /// [`Error::Io`] if the kernel has no rtnetlink.
    pub fn open() -> Result<Self> {
        let socket = Socket::listen(NetlinkProtocol::Route, &[libc::RTNLGRP_LINK])?;
        socket.set_nonblocking()?;
        Ok(LinkMonitor { socket })
    }

    /// Blocks until links have changed since the last [`LinkMonitor::drain`].
    ///
    /// # Errors
    /// [`Error::Io`] if the system call fails.
    pub fn wait(&self) -> Result<()> {
        self.socket.wait(ACTION_LINKS, None)
    }

    /// Discards all queued notifications.
    ///
    /// # Errors
    /// [`Error::Io`]; the subscription continues.
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
