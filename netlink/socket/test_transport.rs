//! Replacement of the transports of all sockets that a thread opens, for tests.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use super::NetlinkProtocol;
use super::kernel_transport::KernelTransport;
use super::transport::Transport;
use crate::error::{Error, Result};

/// A socket that is being opened.
#[derive(Debug)]
pub struct OpenRequest<'a> {
    /// The protocol.
    pub protocol: NetlinkProtocol,
    /// The multicast groups; none for a socket for requests.
    pub groups: &'a [u32],
}

impl OpenRequest<'_> {
    /// Opens the socket in the kernel.
    ///
    /// # Errors
    /// As [`Socket::open`](super::Socket::open) and [`Socket::listen`](super::Socket::listen).
    pub fn open_in_kernel(&self) -> Result<KernelTransport> {
        KernelTransport::open(self.protocol, self.groups)
    }
}

/// Opens the transport of a socket.
type Opener = Rc<dyn Fn(&OpenRequest<'_>) -> io::Result<Box<dyn Transport>>>;

thread_local! {
    static OPENER: RefCell<Option<Opener>> = const { RefCell::new(None) };
}

/// Runs `action`, during which `open` opens the transports of all sockets of this thread.
pub fn with_transports<T>(
    open: impl Fn(&OpenRequest<'_>) -> io::Result<Box<dyn Transport>> + 'static,
    action: impl FnOnce() -> T,
) -> T {
    /// Restores the previous opener, also after a panic.
    struct Restore(Option<Opener>);
    impl Drop for Restore {
        fn drop(&mut self) {
            OPENER.with(|opener| *opener.borrow_mut() = self.0.take());
        }
    }
    let _restore = Restore(OPENER.with(|opener| opener.borrow_mut().replace(Rc::new(open))));
    action()
}

/// Opens the transport of a socket as the thread's opener does, or in the kernel.
pub(super) fn open(protocol: NetlinkProtocol, groups: &[u32]) -> Result<Box<dyn Transport>> {
    let request = OpenRequest { protocol, groups };
    match OPENER.with(|opener| opener.borrow().clone()) {
        Some(open) => open(&request).map_err(|source| Error::Io { action: "open a netlink socket", source }),
        None => Ok(Box::new(request.open_in_kernel()?)),
    }
}
