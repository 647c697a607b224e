//! The system calls of netlink sockets. All `unsafe` code of sockets is here.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::NetlinkProtocol;
use super::transport::{Datagram, SocketOptions, Transport};
use crate::error::{Error, Result};

/// `NETLINK_CAP_ACK`: errors do not contain a copy of the request.
const NETLINK_CAP_ACK: i32 = 10;
/// `NETLINK_EXT_ACK`: errors contain a message.
const NETLINK_EXT_ACK: i32 = 11;
/// `NETLINK_GET_STRICT_CHK`: dumps apply the filters in the request's header.
const NETLINK_GET_STRICT_CHK: i32 = 12;

/// `SO_NETNS_COOKIE`, since Linux 5.14.
const SO_NETNS_COOKIE: i32 = 71;

/// Size of the kernel's buffers: enough for the error responses to a full [`Batch`](crate::message::Batch) of single
/// deletes.
const BUFFER_BYTES: i32 = 4 << 20;
/// Timeout for a response. The kernel responds inside of `sendmsg`, so only a lost response is waited for; it must not
/// block a worker forever.
const RESPONSE_TIMEOUT: libc::timeval = libc::timeval { tv_sec: 10, tv_usec: 0 };

/// A socket of the kernel.
#[derive(Debug)]
pub struct KernelTransport {
    fd: OwnedFd,
}

impl KernelTransport {
    /// Opens a socket for requests, or for the notifications of multicast groups. A socket for requests has a timeout.
    pub(super) fn open(protocol: NetlinkProtocol, groups: &[u32]) -> Result<Self> {
        // SAFETY: no pointers; the result is checked before use.
        let fd =
            unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol.number()) };
        if fd < 0 {
            return Err(Error::last_os("open a netlink socket"));
        }
        // SAFETY: `fd` was just opened and has no other owner.
        let transport = KernelTransport { fd: unsafe { OwnedFd::from_raw_fd(fd) } };
        // Old kernels lack some of these options; none of them is essential.
        for option in [NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK] {
            let _ = transport.set_option(libc::SOL_NETLINK, option, &1i32);
        }
        transport.bind()?;
        transport.set_receive_buffer(BUFFER_BYTES);
        transport.set_send_buffer(BUFFER_BYTES);
        if groups.is_empty() {
            transport
                .set_option(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &RESPONSE_TIMEOUT)
                .map_err(|source| Error::Io { action: "set the timeout of a netlink socket", source })?;
        }
        for group in groups {
            transport
                .set_option(libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group)
                .map_err(|source| Error::Io { action: "subscribe to a netlink group", source })?;
        }
        Ok(transport)
    }

    /// Binds to a port id that the kernel chooses. A request would bind the socket too, but an unbound socket has port
    /// id 0, which is the kernel's, and receives no notifications.
    fn bind(&self) -> Result<()> {
        let mut address = unset_address();
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        let length = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address is live, and `length` is its size.
        match unsafe { libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), length) } {
            0 => Ok(()),
            _ => Err(Error::last_os("bind a netlink socket")),
        }
    }

    fn set_buffer(&self, forced: i32, plain: i32, bytes: i32) {
        if self.set_option(libc::SOL_SOCKET, forced, &bytes).is_err() {
            // The plain option truncates to the limit instead of failing.
            let _ = self.set_option(libc::SOL_SOCKET, plain, &bytes);
        }
    }

    fn set_option<T>(&self, level: i32, option: i32, value: &T) -> io::Result<()> {
        set_option(self.fd.as_fd(), level, option, value)
    }
}

impl Transport for KernelTransport {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        // SAFETY: pointer and length are of one live slice. Without an address, the kernel is the receiver.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn receive(&mut self, buffer: &mut Vec<u8>, is_nonblocking: bool) -> io::Result<Datagram> {
        buffer.clear();
        let mut from = unset_address();
        let mut from_length = size_of_val(&from) as libc::socklen_t;
        let flags = libc::MSG_TRUNC | if is_nonblocking { libc::MSG_DONTWAIT } else { 0 };
        // SAFETY: buffer and address are live and passed with their sizes. The kernel only writes.
        let received = unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.capacity(),
                flags,
                (&raw mut from).cast(),
                &mut from_length,
            )
        };
        let length = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        // SAFETY: with MSG_TRUNC the result is the full length of the datagram, of which the kernel has written as much as the buffer
        // has room for.
        unsafe { buffer.set_len(length.min(buffer.capacity())) };
        Ok(Datagram { length, port: from.nl_pid })
    }

    fn wait(&self, other: Option<BorrowedFd<'_>>) -> io::Result<()> {
        // poll ignores a negative descriptor.
        let other = other.map_or(-1, |fd| fd.as_raw_fd());
        let mut wanted =
            [self.fd.as_raw_fd(), other].map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
        // SAFETY: the pointer is to two live pollfds, as the count says.
        succeeded(unsafe { libc::poll(wanted.as_mut_ptr(), wanted.len() as libc::nfds_t, -1) })
    }

    fn options(&self) -> &dyn SocketOptions {
        self
    }
}

impl SocketOptions for KernelTransport {
    fn port(&self) -> io::Result<u32> {
        let mut address = unset_address();
        let mut length = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address is live, and `length` is its size.
        succeeded(unsafe { libc::getsockname(self.fd.as_raw_fd(), (&raw mut address).cast(), &mut length) })?;
        Ok(address.nl_pid)
    }

    fn drop_matching(&self, offset: u32, value: u32) -> io::Result<()> {
        let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
        // A load reads in network order.
        let value = u32::from_be_bytes(value.to_ne_bytes());
        let mut program = [
            instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset),
            instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, value),
            instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
            instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        ];
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        self.set_option(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
    }

    fn set_nonblocking(&self) -> io::Result<()> {
        let on: libc::c_int = 1;
        // SAFETY: FIONBIO reads one int behind the pointer, which lives through the call.
        succeeded(unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::FIONBIO, &on) })
    }

    fn set_receive_buffer(&self, bytes: i32) {
        self.set_buffer(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, bytes);
    }

    fn set_send_buffer(&self, bytes: i32) {
        self.set_buffer(libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, bytes);
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Makes a netlink socket join or leave a multicast group.
pub(crate) fn set_membership(socket: BorrowedFd<'_>, group: u32, is_member: bool) -> io::Result<()> {
    let option = if is_member { libc::NETLINK_ADD_MEMBERSHIP } else { libc::NETLINK_DROP_MEMBERSHIP };
    set_option(socket, libc::SOL_NETLINK, option, &group)
}

/// Returns the cookie of a socket's network namespace, which no other namespace has.
pub(crate) fn namespace_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the kernel writes up to `length` bytes to `cookie`, which is live; both pointers are valid.
    succeeded(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &mut length,
        )
    })?;
    Ok(cookie)
}

fn set_option<T>(socket: BorrowedFd<'_>, level: i32, option: i32, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes behind `value`, which is a live T of plain data.
    succeeded(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const *value).cast(), length)
    })
}

fn unset_address() -> libc::sockaddr_nl {
    // SAFETY: all zeros is a valid sockaddr_nl.
    unsafe { mem::zeroed() }
}

fn succeeded(status: i32) -> io::Result<()> {
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
