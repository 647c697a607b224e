//! Netlink sockets: acknowledged requests, queries, dumps and notifications.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::error::{During, Error, Result};
use crate::message::{ACK, Batch, DUMP, Message, Messages, Response};

/// `NETLINK_CAP_ACK`: errors do not contain a copy of the request.
const NETLINK_CAP_ACK: i32 = 10;
/// `NETLINK_EXT_ACK`: errors contain a message.
const NETLINK_EXT_ACK: i32 = 11;
/// `NETLINK_GET_STRICT_CHK`: dumps apply the filters in the request's header.
const NETLINK_GET_STRICT_CHK: i32 = 12;

/// Size of the read buffer. Datagrams of a dump have at most 32 KiB unless a single message is larger, and an
/// attribute has at most 64 KiB.
const RECEIVE_BYTES: usize = 64 * 1024;
/// Size of the kernel's buffers: enough for the error responses to a full [`Batch`] of single deletes.
const BUFFER_BYTES: i32 = 4 << 20;
/// Timeout for a response. The kernel responds inside of `sendmsg`, so only a lost response is waited for; it must not
/// block a worker forever.
const RESPONSE_TIMEOUT: libc::timeval = libc::timeval { tv_sec: 10, tv_usec: 0 };

/// Protocol of a netlink socket (`NETLINK_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetlinkProtocol {
    /// Links, addresses, routes (`NETLINK_ROUTE`).
    Route,
    /// conntrack, nfacct, nf_tables, ipset (`NETLINK_NETFILTER`).
    Netfilter,
    /// Generic netlink families, among them ip_vs (`NETLINK_GENERIC`).
    Generic,
}

impl NetlinkProtocol {
    fn number(self) -> i32 {
        match self {
            NetlinkProtocol::Route => libc::NETLINK_ROUTE,
            NetlinkProtocol::Netfilter => libc::NETLINK_NETFILTER,
            NetlinkProtocol::Generic => libc::NETLINK_GENERIC,
        }
    }
}

/// A netlink socket, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    /// The sequence number of the next request; never 0, which marks notifications.
    next_sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket for requests.
    ///
    /// # Errors
    /// [`Error::Io`], usually if the kernel lacks the protocol.
    pub fn open(protocol: NetlinkProtocol) -> Result<Self> {
        let socket = Self::bare(protocol)?;
        let timeout = RESPONSE_TIMEOUT;
        set_option(socket.fd.as_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, &timeout)
            .map_err(|source| Error::Io { action: "set the timeout of a netlink socket", source })?;
        Ok(socket)
    }

    /// Opens a socket that receives the notifications of multicast groups (`RTNLGRP_*`, `NFNLGRP_*`) and waits for
    /// them without a timeout.
    ///
    /// # Errors
    /// [`Error::Io`], usually without privilege or for an unknown group.
    pub fn listen(protocol: NetlinkProtocol, groups: &[u32]) -> Result<Self> {
        let socket = Self::bare(protocol)?;
        for group in groups {
            set_option(socket.fd.as_fd(), libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group)
                .map_err(|source| Error::Io { action: "subscribe to a netlink group", source })?;
        }
        Ok(socket)
    }

    fn bare(protocol: NetlinkProtocol) -> Result<Self> {
        // SAFETY: no pointers; the result is checked before use.
        let fd =
            unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol.number()) };
        if fd < 0 {
            return Err(Error::last_os("open a netlink socket"));
        }
        // SAFETY: `fd` was just opened and has no other owner.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // Old kernels lack some of these options; none of them is essential.
        for option in [NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK] {
            let _ = set_option(fd.as_fd(), libc::SOL_NETLINK, option, &1i32);
        }
        bind(fd.as_fd())?;
        let socket = Socket { fd, next_sequence: 1, buffer: vec![0; RECEIVE_BYTES] };
        socket.set_buffers(BUFFER_BYTES);
        Ok(socket)
    }

    /// Returns the socket's port id, unique in the network namespace.
    ///
    /// # Errors
    /// [`Error::Io`] if the system call fails.
    pub fn port(&self) -> Result<u32> {
        // SAFETY: all zeros is a valid sockaddr_nl.
        let mut address: libc::sockaddr_nl = unsafe { mem::zeroed() };
        let mut length = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the address is live, and `length` is its size.
        match unsafe { libc::getsockname(self.fd.as_raw_fd(), (&raw mut address).cast(), &mut length) } {
            0 => Ok(address.nl_pid),
            _ => Err(Error::last_os("read a netlink socket's port")),
        }
    }

    /// Sets the send and receive buffers to `bytes`: beyond the system's limit with privilege, else up to it. A send
    /// must not exceed the send buffer.
    pub fn set_buffers(&self, bytes: i32) {
        self.set_buffer(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, bytes);
        self.set_send_buffer(bytes);
    }

    fn set_send_buffer(&self, bytes: i32) {
        self.set_buffer(libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, bytes);
    }

    fn set_buffer(&self, forced: i32, plain: i32, bytes: i32) {
        if set_option(self.fd.as_fd(), libc::SOL_SOCKET, forced, &bytes).is_err() {
            // The plain option truncates to the limit instead of failing.
            let _ = set_option(self.fd.as_fd(), libc::SOL_SOCKET, plain, &bytes);
        }
    }

    /// Makes reads non-blocking, for a socket driven by a poller.
    ///
    /// # Errors
    /// [`Error::Io`] if the system call fails.
    pub fn set_nonblocking(&self) -> Result<()> {
        let on: libc::c_int = 1;
        // SAFETY: FIONBIO reads one int behind the pointer, which lives through the call.
        match unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::FIONBIO, &on) } {
            0 => Ok(()),
            _ => Err(Error::last_os("make a netlink socket non-blocking")),
        }
    }

    /// Attaches a socket filter that drops notifications whose 32 bits at `offset` of the message, including its
    /// header, equal `value` in host order. Replaces an earlier filter.
    pub(crate) fn drop_events(&self, action: &'static str, offset: u32, value: u32) -> Result<()> {
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
        set_option(self.fd.as_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
            .map_err(|source| Error::Io { action, source })
    }

    /// Blocks until the socket is readable, also if it is non-blocking.
    pub(crate) fn wait(&self, action: &'static str) -> Result<()> {
        loop {
            let mut wanted = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: the pointer is to one live pollfd, as the count says.
            if unsafe { libc::poll(&mut wanted, 1, -1) } > 0 {
                return Ok(());
            }
            let source = io::Error::last_os_error();
            if source.kind() != io::ErrorKind::Interrupted {
                return Err(Error::Io { action, source });
            }
        }
    }

    /// Sends a batch and waits until the kernel has processed it. Calls `rejected` with the position of each message
    /// that the kernel rejects; the others take effect. Messages must not request an ACK: only the last one does, as
    /// thousands of ACKs would overflow the receive buffer.
    ///
    /// # Errors
    /// The first error that `rejected` returns, once all responses are read. [`Error::Overrun`] if responses were
    /// lost: the kernel has then processed all messages, but it is unknown which ones it rejected.
    pub fn transact(
        &mut self,
        action: &'static str,
        batch: &mut Batch,
        mut rejected: impl FnMut(usize, Error) -> Result<()>,
    ) -> Result<()> {
        self.transact_reading(action, batch, |position, error, _| rejected(position, error))
    }

    /// As [`Socket::transact`], for families whose rejections contain more than an error number: `rejected` also gets
    /// the payload of the response (`struct nlmsgerr` and its attributes).
    pub(crate) fn transact_reading(
        &mut self,
        action: &'static str,
        batch: &mut Batch,
        mut rejected: impl FnMut(usize, Error, &[u8]) -> Result<()>,
    ) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let last = batch.len() - 1;
        let first = self.send(action, batch, ACK)?;
        self.read_responses(action, first, batch.len(), |position| position == last, &mut rejected)
    }

    /// Sends a batch that is enclosed in a begin and an end message, and waits for the response to the message at
    /// `awaited`, which requests an ACK, or for the rejection of the begin message.
    ///
    /// # Errors
    /// As [`Socket::acknowledge`], with the position of the rejected message.
    pub(crate) fn transact_framed(
        &mut self,
        action: &'static str,
        batch: &mut Batch,
        awaited: u32,
    ) -> Result<(), (usize, Error)> {
        let first = self.send(action, batch, 0).map_err(|error| (0, error))?;
        let finishes = |position| position == awaited || position == 0;
        let mut rejected_at = 0;
        let mut first_rejection = |position, error, _: &[u8]| {
            rejected_at = position;
            Err(error)
        };
        self.read_responses(action, first, batch.len(), finishes, &mut first_rejection)
            .map_err(|error| (rejected_at, error))
    }

    /// Reads the responses to a batch until the response to a position for which `finishes` returns true.
    fn read_responses(
        &mut self,
        action: &'static str,
        first: u32,
        count: u32,
        finishes: impl Fn(u32) -> bool,
        rejected: &mut impl FnMut(usize, Error, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut result = Ok(());
        let mut overrun = false;
        loop {
            // After an overrun only queued responses are left, as the kernel responds inside of `sendmsg`.
            let received = match self.receive_with_flags(action, if overrun { libc::MSG_DONTWAIT } else { 0 })
            {
                // More rejections than the receive buffer holds: read the first ones, which are still there.
                Err(Error::Overrun { .. }) if !overrun => {
                    overrun = true;
                    continue;
                }
                Err(Error::NoResponse { .. }) if overrun => {
                    return result.and(Err(Error::Overrun { action }));
                }
                received => received?,
            };
            let mut finished = false;
            for message in Messages::new(&self.buffer[..received]) {
                let message = message.during(action)?;
                let position = message.sequence.wrapping_sub(first);
                if position >= count {
                    continue; // a response to an abandoned request
                }
                let response = message.response().during(action)?;
                finished |= finishes(position)
                    && matches!(response, Response::Acknowledged | Response::Failed { .. });
                if let Some(error) = response.error(action) {
                    result = result.and_then(|()| rejected(position as usize, error, message.payload));
                }
            }
            if finished {
                return result;
            }
        }
    }

    /// Sends a batch, waits for it and returns the first rejection.
    ///
    /// # Errors
    /// As [`Socket::transact`]; [`Error::Rejected`] with the kernel's message.
    pub fn acknowledge(&mut self, action: &'static str, batch: &mut Batch) -> Result<()> {
        self.transact(action, batch, |_, error| Err(error))
    }

    /// Requests one object and passes it to `read`.
    ///
    /// # Errors
    /// [`Error::Rejected`] (`ENOENT` if there is no such object), or the error of `read`.
    pub fn query<T>(
        &mut self,
        action: &'static str,
        batch: &mut Batch,
        mut read: impl FnMut(Message<'_>) -> Result<T>,
    ) -> Result<T> {
        let first = self.send(action, batch, ACK)?;
        let mut object = None;
        loop {
            let received = self.receive(action)?;
            for message in Messages::new(&self.buffer[..received]) {
                let message = message.during(action)?;
                if message.sequence != first {
                    continue;
                }
                match message.response().during(action)? {
                    Response::Object => object = Some(read(message)),
                    Response::Acknowledged => return object.unwrap_or(Err(Error::NoResponse { action })),
                    other => {
                        if let Some(error) = other.error(action) {
                            return Err(error);
                        }
                    }
                }
            }
        }
    }

    /// Requests all objects and passes each to `each` as it arrives, without collecting them. After an error of `each`
    /// the rest is read and discarded, so that the socket remains usable.
    ///
    /// # Errors
    /// [`Error::Interrupted`] after the last object, if a concurrent change made the dump inconsistent;
    /// [`Error::Rejected`]; or the error of `each`.
    pub fn dump(
        &mut self,
        action: &'static str,
        batch: &mut Batch,
        mut each: impl FnMut(Message<'_>) -> Result<()>,
    ) -> Result<()> {
        let first = self.send(action, batch, DUMP)?;
        let mut result = Ok(());
        let mut interrupted = false;
        loop {
            let received = match self.receive(action) {
                Ok(received) => received,
                Err(lost @ (Error::Overrun { .. } | Error::Truncated { .. })) => {
                    result = result.and(Err(lost));
                    continue;
                }
                Err(error) => return Err(error),
            };
            for message in Messages::new(&self.buffer[..received]) {
                let message = message.during(action)?;
                if message.sequence != first {
                    continue;
                }
                interrupted |= message.dump_interrupted();
                match message.response().during(action)? {
                    Response::Object => result = result.and_then(|()| each(message)),
                    Response::Done if interrupted => return result.and(Err(Error::Interrupted { action })),
                    Response::Done => return result,
                    other => {
                        if let Some(error) = other.error(action) {
                            return Err(error);
                        }
                    }
                }
            }
        }
    }

    /// Reads the next datagram of notifications and passes its messages to `each`. Returns false if there is none,
    /// which happens on a non-blocking socket only.
    ///
    /// # Errors
    /// [`Error::Overrun`] if notifications were lost since the last read; the next call continues after the gap.
    pub fn events(
        &mut self,
        action: &'static str,
        mut each: impl FnMut(Message<'_>) -> Result<()>,
    ) -> Result<bool> {
        let received = match self.receive(action) {
            Ok(received) => received,
            Err(Error::NoResponse { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        for message in Messages::new(&self.buffer[..received]) {
            each(message.during(action)?)?;
        }
        Ok(true)
    }

    /// Assigns sequence numbers to a batch and sends it. Returns the sequence number of its first message.
    fn send(&mut self, action: &'static str, batch: &mut Batch, last_flags: u16) -> Result<u32> {
        let mut first = self.next_sequence;
        if first.checked_add(batch.len()).is_none() {
            first = 1;
        }
        self.next_sequence = first + batch.len();
        batch.number(first);
        batch.add_flags(batch.len() - 1, last_flags);
        let mut enlarged = false;
        loop {
            let bytes = batch.bytes();
            // SAFETY: pointer and length are of one live slice. Without an address, the kernel is the receiver.
            let sent = unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
            if sent >= 0 {
                return Ok(first);
            }
            let source = io::Error::last_os_error();
            match source.raw_os_error() {
                Some(libc::EINTR) => {}
                // A send must not exceed the send buffer.
                Some(libc::EMSGSIZE) if !enlarged => {
                    enlarged = true;
                    self.set_send_buffer(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
                }
                _ => return Err(Error::Io { action, source }),
            }
        }
    }

    /// Reads one datagram of the kernel into the buffer and returns its length.
    fn receive(&mut self, action: &'static str) -> Result<usize> {
        self.receive_with_flags(action, 0)
    }

    fn receive_with_flags(&mut self, action: &'static str, flags: i32) -> Result<usize> {
        loop {
            // SAFETY: all zeros is a valid sockaddr_nl.
            let mut from: libc::sockaddr_nl = unsafe { mem::zeroed() };
            let mut from_length = size_of_val(&from) as libc::socklen_t;
            // SAFETY: buffer and address are live and passed with their lengths. With MSG_TRUNC the result is the
            // full length of the datagram, which is checked below.
            let received = unsafe {
                libc::recvfrom(
                    self.fd.as_raw_fd(),
                    self.buffer.as_mut_ptr().cast(),
                    self.buffer.len(),
                    libc::MSG_TRUNC | flags,
                    (&raw mut from).cast(),
                    &mut from_length,
                )
            };
            if received < 0 {
                let source = io::Error::last_os_error();
                match source.raw_os_error() {
                    Some(libc::EINTR) => continue,
                    Some(libc::ENOBUFS) => return Err(Error::Overrun { action }),
                    Some(libc::EAGAIN) => return Err(Error::NoResponse { action }),
                    _ => return Err(Error::Io { action, source }),
                }
            }
            let received = received as usize;
            if from.nl_pid != 0 {
                continue; // sent by another process to our port
            }
            if received > self.buffer.len() {
                self.buffer.resize(received.next_power_of_two(), 0);
                return Err(Error::Truncated { action, needed: received });
            }
            return Ok(received);
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Binds to a port id that the kernel chooses. A request would bind the socket too, but an unbound socket has port id
/// 0, which is the kernel's, and receives no notifications.
fn bind(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: all zeros is a valid sockaddr_nl.
    let mut address: libc::sockaddr_nl = unsafe { mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address is live, and `length` is its size.
    match unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) } {
        0 => Ok(()),
        _ => Err(Error::last_os("bind a netlink socket")),
    }
}

fn set_option<T>(fd: BorrowedFd<'_>, level: i32, option: i32, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes behind `value`, which is a live T of plain data.
    match unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const *value).cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
