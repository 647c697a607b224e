//! Notifications of nf_tables: the time at which the elements of an address are added or removed.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::namespace::Namespace;

/// `NFNLGRP_NFTABLES` of linux/netfilter/nfnetlink.h.
const GROUP: libc::c_int = 7;

/// `NFT_MSG_NEWSETELEM` and `NFT_MSG_DELSETELEM` of linux/netfilter/nf_tables.h, in the subsystem `NFNL_SUBSYS_NFTABLES`.
const ADDED: u16 = (10 << 8) | 12;
const REMOVED: u16 = (10 << 8) | 14;

/// The size of the headers of a message and of nf_tables.
const HEADERS: usize = 16 + 4;

/// Room for notifications that are not read yet.
const BUFFER: libc::c_int = 256 << 20;

/// What a change of the cluster must cause: the first element with this address that is added to, or removed from, a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Expected {
    pub(crate) table: &'static str,
    pub(crate) address: [u8; 4],
    pub(crate) is_added: bool,
}

/// The expected notifications, with the times of their causes, and how long the seen ones took.
#[derive(Default)]
struct Seen {
    pending: HashMap<Expected, Instant>,
    latencies: HashMap<&'static str, Vec<Duration>>,
    /// Notifications were lost.
    lost: usize,
}

/// A thread that reads the notifications of a network namespace until the process ends.
pub(crate) struct Kernel(Arc<Mutex<Seen>>);

impl Kernel {
    /// Follows the changes of these tables.
    pub(crate) fn follow(namespace: &Namespace, tables: &'static [&'static str]) -> Self {
        let socket = namespace.run(open).expect("a netlink socket needs root");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let of_thread = seen.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 20];
            loop {
                let length = receive(&socket, &mut buffer);
                let now = Instant::now();
                let mut seen = of_thread.lock().expect("no thread panics while it holds the lock");
                match length {
                    Ok(length) => seen.read(&buffer[..length], tables, now),
                    Err(_) => seen.lost += 1,
                }
            }
        });
        Kernel(seen)
    }

    /// Expects a notification, as of now.
    pub(crate) fn expect(&self, expected: Expected) {
        let mut seen = self.0.lock().expect("no thread panics while it holds the lock");
        seen.pending.insert(expected, Instant::now());
    }

    /// Returns the latencies by table, the number of expected notifications that did not come, and the number of reads that
    /// failed because notifications were lost.
    pub(crate) fn take(&self) -> (HashMap<&'static str, Vec<Duration>>, usize, usize) {
        let seen = std::mem::take(&mut *self.0.lock().expect("no thread panics while it holds the lock"));
        (seen.latencies, seen.pending.len(), seen.lost)
    }
}

impl Seen {
    fn read(&mut self, mut messages: &[u8], tables: &'static [&'static str], now: Instant) {
        while messages.len() >= HEADERS {
            let number = |at: usize| u32::from_ne_bytes(messages[at..at + 4].try_into().expect("4 bytes"));
            let (length, kind) = (number(0) as usize, number(4) as u16);
            let length = length.clamp(HEADERS, messages.len());
            let (message, rest) = messages.split_at(length);
            messages = rest.get(length.next_multiple_of(4) - length..).unwrap_or_default();
            if kind == ADDED || kind == REMOVED {
                self.read_elements(&message[HEADERS..], kind == ADDED, tables, now);
            }
        }
    }

    /// Finds expected addresses among the attributes, which are aligned to 4 bytes.
    fn read_elements(
        &mut self,
        attributes: &[u8],
        is_added: bool,
        tables: &'static [&'static str],
        now: Instant,
    ) {
        // The first attribute is the table's name, with a zero at its end.
        let name = attributes.get(4..).unwrap_or_default();
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let Some(table) = tables.iter().find(|table| table.as_bytes() == name) else { return };
        for value in attributes.chunks_exact(4) {
            let address: [u8; 4] = value.try_into().expect("4 bytes");
            if address[0] != 10 {
                continue;
            }
            if let Some(cause) = self.pending.remove(&Expected { table, address, is_added }) {
                self.latencies.entry(table).or_default().push(now - cause);
            }
        }
    }
}

fn open() -> io::Result<OwnedFd> {
    // SAFETY: socket takes no pointers; the descriptor is new, so nothing else owns it.
    let socket = unsafe {
        let raw =
            libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_NETFILTER);
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(raw)
    };
    // SAFETY: sockaddr_nl is plain data, for which zeros are a value.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    let size = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
    // SAFETY: the pointer is to a live address of this size.
    if unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) } != 0 {
        return Err(io::Error::last_os_error());
    }
    for (level, option, value) in [
        (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER),
        (libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, GROUP),
    ] {
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the pointer is to a live integer of this size.
        let status =
            unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), size) };
        if status != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(socket)
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and length are those of a live buffer.
    let length = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    usize::try_from(length).map_err(|_| io::Error::last_os_error())
}
