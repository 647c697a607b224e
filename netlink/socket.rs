//! The netlink socket: requests with acknowledgements, single answers, streamed dumps, events.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::error::{During, Error, Result};
use crate::message::{ACK, Batch, DUMP, Message, Messages, Response};

/// `NETLINK_CAP_ACK`: errors carry no copy of the request.
const NETLINK_CAP_ACK: i32 = 10;
/// `NETLINK_EXT_ACK`: errors carry the kernel's own words.
const NETLINK_EXT_ACK: i32 = 11;
/// `NETLINK_GET_STRICT_CHK`: dumps honour the filters in their request's header.
const NETLINK_GET_STRICT_CHK: i32 = 12;

/// A dump's datagrams have 32 KiB at most unless a single message is larger, and an attribute ends at 64.
const RECEIVE_BYTES: usize = 64 * 1024;
/// Room for the error answers to a full [`Batch`] of single deletes.
const BUFFER_BYTES: i32 = 4 << 20;
/// The kernel answers inside the send. Only a lost answer is awaited, and it must not hang a worker.
const ANSWER_WITHIN: libc::timeval = libc::timeval { tv_sec: 10, tv_usec: 0 };

/// Which part of the kernel a socket talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetlinkProtocol {
    /// Links, addresses, routes (`NETLINK_ROUTE`).
    Route,
    /// conntrack, nfacct, nf_tables, ipset (`NETLINK_NETFILTER`).
    Netfilter,
    /// Families by name, among them ip_vs (`NETLINK_GENERIC`).
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

/// A socket to one [`NetlinkProtocol`], in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    /// The number that the next request gets; never 0, which marks events.
    next_sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket for requests.
    ///
    /// # Errors
    /// [`Error::Io`], as a rule when the kernel lacks the protocol.
    pub fn open(protocol: NetlinkProtocol) -> Result<Self> {
        let socket = Self::bare(protocol)?;
        let seconds = ANSWER_WITHIN;
        set_option(socket.fd.as_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, &seconds)
            .map_err(|source| Error::Io { action: "limit the wait for the kernel's answers", source })?;
        Ok(socket)
    }

    /// Opens a socket that receives the events of `groups` (`RTNLGRP_*`, `NFNLGRP_*`) and waits for them
    /// without limit.
    ///
    /// # Errors
    /// [`Error::Io`], as a rule for want of privilege or of the group.
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
        // SAFETY: `fd` was just opened and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // Old kernels lack some of these, and all that is lost is comfort.
        for option in [NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK] {
            let _ = set_option(fd.as_fd(), libc::SOL_NETLINK, option, &1i32);
        }
        bind(fd.as_fd())?;
        let socket = Socket { fd, next_sequence: 1, buffer: vec![0; RECEIVE_BYTES] };
        socket.set_buffers(BUFFER_BYTES);
        Ok(socket)
    }

    /// The port by which the kernel knows it, unique in the network namespace.
    ///
    /// # Errors
    /// [`Error::Io`] if the descriptor refuses.
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

    /// Sets both of the kernel's buffers for this socket to `bytes`, beyond the system's limit if privilege
    /// allows and up to it otherwise. One send may not be larger than the send buffer.
    pub fn set_buffers(&self, bytes: i32) {
        self.set_buffer(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, bytes);
        self.set_send_buffer(bytes);
    }

    fn set_send_buffer(&self, bytes: i32) {
        self.set_buffer(libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, bytes);
    }

    fn set_buffer(&self, forced: i32, plain: i32, bytes: i32) {
        if set_option(self.fd.as_fd(), libc::SOL_SOCKET, forced, &bytes).is_err() {
            // The plain option clamps instead of failing.
            let _ = set_option(self.fd.as_fd(), libc::SOL_SOCKET, plain, &bytes);
        }
    }

    /// Makes reads return instead of wait, for a socket driven by a poller.
    ///
    /// # Errors
    /// [`Error::Io`] if the descriptor refuses.
    pub fn set_nonblocking(&self) -> Result<()> {
        let on: libc::c_int = 1;
        // SAFETY: FIONBIO reads one int behind the pointer, which lives through the call.
        match unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::FIONBIO, &on) } {
            0 => Ok(()),
            _ => Err(Error::last_os("make a netlink socket non-blocking")),
        }
    }

    /// Has the kernel drop events before they are queued, where the 32 bits at `offset` of a message, its header
    /// included, are `value` in host order. Takes the place of an earlier one.
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

    /// Waits, without limit, until there is something to read, also on a non-blocking socket.
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

    /// Sends a batch and waits until the kernel has worked through it. Messages that the kernel refuses are
    /// given to `refused` by their position in the batch; the rest are done. Ask for no ACK per message: the
    /// last one gets one, and answers of success to thousands overflow the receive buffer.
    ///
    /// # Errors
    /// What `refused` returns, once all answers are read. [`Error::Overrun`] if answers were lost: the
    /// kernel has then seen all messages, but which ones it refused isn't known.
    pub fn transact(
        &mut self,
        action: &'static str,
        batch: &mut Batch,
        mut refused: impl FnMut(usize, Error) -> Result<()>,
    ) -> Result<()> {
        self.transact_reading(action, batch, |position, error, _| refused(position, error))
    }

    /// As [`Socket::transact`], for families whose refusals say more than an error number: `refused` also
    /// gets the answer's bytes (`struct nlmsgerr` and what follows).
    pub(crate) fn transact_reading(
        &mut self,
        action: &'static str,
        batch: &mut Batch,
        mut refused: impl FnMut(usize, Error, &[u8]) -> Result<()>,
    ) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let last = batch.len() - 1;
        let first = self.send(action, batch, ACK)?;
        self.answers(action, first, batch.len(), |position| position == last, &mut refused)
    }

    /// Sends a batch whose first and last message are a frame, and waits until the message at `awaited`, which
    /// asks for an ACK, has its answer, or the frame is refused.
    ///
    /// # Errors
    /// As [`Socket::acknowledge`], each with the position of the message that was refused.
    pub(crate) fn transact_framed(
        &mut self,
        action: &'static str,
        batch: &mut Batch,
        awaited: u32,
    ) -> Result<(), (usize, Error)> {
        let first = self.send(action, batch, 0).map_err(|error| (0, error))?;
        let finishes = |position| position == awaited || position == 0;
        let mut refused_at = 0;
        let mut first_refusal = |position, error, _: &[u8]| {
            refused_at = position;
            Err(error)
        };
        self.answers(action, first, batch.len(), finishes, &mut first_refusal)
            .map_err(|error| (refused_at, error))
    }

    /// Reads the answers to a batch up to that to a message which `finishes` it.
    fn answers(
        &mut self,
        action: &'static str,
        first: u32,
        count: u32,
        finishes: impl Fn(u32) -> bool,
        refused: &mut impl FnMut(usize, Error, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut outcome = Ok(());
        let mut overrun = false;
        loop {
            // After an overrun, nothing more comes than what is queued: the kernel answers inside the send.
            let received = match self.receive_by(action, if overrun { libc::MSG_DONTWAIT } else { 0 }) {
                // So many refusals that not all found room: the first ones did, and they tell what is wrong.
                Err(Error::Overrun { .. }) if !overrun => {
                    overrun = true;
                    continue;
                }
                Err(Error::NoResponse { .. }) if overrun => {
                    return outcome.and(Err(Error::Overrun { action }));
                }
                received => received?,
            };
            let mut finished = false;
            for message in Messages::new(&self.buffer[..received]) {
                let message = message.during(action)?;
                let position = message.sequence.wrapping_sub(first);
                if position >= count {
                    continue; // an answer to a request that was given up
                }
                let response = message.response().during(action)?;
                finished |= finishes(position)
                    && matches!(response, Response::Acknowledged | Response::Failed { .. });
                if let Some(error) = response.error(action) {
                    outcome = outcome.and_then(|()| refused(position as usize, error, message.payload));
                }
            }
            if finished {
                return outcome;
            }
        }
    }

    /// Sends a batch and waits for it, the first refusal being the error.
    ///
    /// # Errors
    /// As [`Socket::transact`]; [`Error::Rejected`] with the kernel's words.
    pub fn acknowledge(&mut self, action: &'static str, batch: &mut Batch) -> Result<()> {
        self.transact(action, batch, |_, error| Err(error))
    }

    /// Asks for one object and gives it to `read`.
    ///
    /// # Errors
    /// [`Error::Rejected`] (`ENOENT` if there is no such object), or what `read` returns.
    pub fn query<T>(
        &mut self,
        action: &'static str,
        batch: &mut Batch,
        mut read: impl FnMut(Message<'_>) -> Result<T>,
    ) -> Result<T> {
        let first = self.send(action, batch, ACK)?;
        let mut answer = None;
        loop {
            let received = self.receive(action)?;
            for message in Messages::new(&self.buffer[..received]) {
                let message = message.during(action)?;
                if message.sequence != first {
                    continue;
                }
                match message.response().during(action)? {
                    Response::Object => answer = Some(read(message)),
                    Response::Acknowledged => return answer.unwrap_or(Err(Error::NoResponse { action })),
                    other => {
                        if let Some(error) = other.error(action) {
                            return Err(error);
                        }
                    }
                }
            }
        }
    }

    /// Asks for all objects and gives each to `each` as it arrives; nothing is collected. After an error
    /// from `each` the rest is read and dropped, so that the socket stays usable.
    ///
    /// # Errors
    /// [`Error::Interrupted`], after the last object, if the kernel's list changed during the dump in a way
    /// that it could not hide; [`Error::Rejected`]; or what `each` returns.
    pub fn dump(
        &mut self,
        action: &'static str,
        batch: &mut Batch,
        mut each: impl FnMut(Message<'_>) -> Result<()>,
    ) -> Result<()> {
        let first = self.send(action, batch, DUMP)?;
        let mut outcome = Ok(());
        let mut interrupted = false;
        loop {
            let received = match self.receive(action) {
                Ok(received) => received,
                Err(lost @ (Error::Overrun { .. } | Error::Truncated { .. })) => {
                    outcome = outcome.and(Err(lost));
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
                    Response::Object => outcome = outcome.and_then(|()| each(message)),
                    Response::Done if interrupted => return outcome.and(Err(Error::Interrupted { action })),
                    Response::Done => return outcome,
                    other => {
                        if let Some(error) = other.error(action) {
                            return Err(error);
                        }
                    }
                }
            }
        }
    }

    /// Reads the next datagram of events and gives its messages to `each`. Returns whether there was one:
    /// `false` only on a non-blocking socket.
    ///
    /// # Errors
    /// [`Error::Overrun`] if events were lost since the last read: the next call reads on after the gap.
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

    /// Numbers and sends a batch; returns the number of its first message.
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
            // SAFETY: pointer and length are of one live slice. Without an address, the kernel is meant.
            let sent = unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
            if sent >= 0 {
                return Ok(first);
            }
            let source = io::Error::last_os_error();
            match source.raw_os_error() {
                Some(libc::EINTR) => {}
                // One send may not be larger than the send buffer.
                Some(libc::EMSGSIZE) if !enlarged => {
                    enlarged = true;
                    self.set_send_buffer(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
                }
                _ => return Err(Error::Io { action, source }),
            }
        }
    }

    /// Reads one datagram from the kernel into the buffer; returns its length.
    fn receive(&mut self, action: &'static str) -> Result<usize> {
        self.receive_by(action, 0)
    }

    fn receive_by(&mut self, action: &'static str, flags: i32) -> Result<usize> {
        loop {
            // SAFETY: all zeros is a valid sockaddr_nl.
            let mut from: libc::sockaddr_nl = unsafe { mem::zeroed() };
            let mut from_length = size_of_val(&from) as libc::socklen_t;
            // SAFETY: buffer and address are live, and their lengths are their own. MSG_TRUNC makes the
            // result the datagram's true length, which is checked below.
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
                continue; // another process may write to our port, and is not the kernel
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

/// Takes a port number of the kernel's choice. Requests would get one by themselves, but a socket without one
/// has the kernel's own, 0, and the kernel sends no events to itself.
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
