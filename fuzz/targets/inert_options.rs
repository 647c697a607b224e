//! The options of a socket without a kernel.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use portcullis_netlink::socket::SocketOptions;

/// Options that are accepted and have no effect.
#[derive(Debug)]
pub(super) struct InertOptions {
    fd: File,
}

impl InertOptions {
    pub(super) fn new() -> io::Result<Self> {
        Ok(InertOptions { fd: File::open("/dev/null")? })
    }
}

impl SocketOptions for InertOptions {
    fn port(&self) -> io::Result<u32> {
        Ok(1)
    }

    fn drop_matching(&self, _offset: u32, _value: u32) -> io::Result<()> {
        Ok(())
    }

    fn set_nonblocking(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_receive_buffer(&self, _bytes: i32) {}

    fn set_send_buffer(&self, _bytes: i32) {}

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
