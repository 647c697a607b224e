//! Packets that rules log to an NFLOG group (`nfnetlink_log`).
//!
//! ```text
//! rule `log group N` ─► the kernel's queue of the group ─► socket buffer ─► PacketLog ─► LoggedPacket ─► PacketHeaders
//!                        (a datagram per 64 packets or 100 ms)
//! ```
//! One socket receives the packets of a group. Each packet has a sequence number, so the packets that the kernel could not
//! deliver are counted.

mod headers;
mod packet;

pub use headers::{FragmentPosition, PacketHeaders};
pub use packet::LoggedPacket;

use std::os::fd::{AsFd, BorrowedFd};

use crate::attribute::Writer;
use crate::error::{During, Error, Result};
use crate::message::{Batch, Message};
use crate::netfilter::{self, Subsystem};
use crate::socket::{NetlinkProtocol, Socket};

const NFULNL_MSG_PACKET: u8 = 0;
const NFULNL_MSG_CONFIG: u8 = 1;

const NFULA_CFG_CMD: u16 = 1;
const NFULA_CFG_MODE: u16 = 2;
const NFULA_CFG_NLBUFSIZ: u16 = 3;
const NFULA_CFG_TIMEOUT: u16 = 4;
const NFULA_CFG_QTHRESH: u16 = 5;
const NFULA_CFG_FLAGS: u16 = 6;

const NFULNL_CFG_CMD_BIND: u8 = 1;
const NFULNL_COPY_PACKET: u8 = 2;
const NFULNL_CFG_F_SEQ: u16 = 1;
const NFULNL_CFG_F_CONNTRACK: u16 = 4;

/// The bytes of a packet that are received: Ethernet aside, an IPv6 header with some extension headers, and ports.
const COPIED_BYTES: u32 = 128;
/// The kernel sends a datagram after this many packets …
const PACKETS_PER_DATAGRAM: u32 = 64;
/// … or after this time, in hundredths of a second …
const FLUSH_CENTISECONDS: u32 = 10;
/// … or when these bytes are full.
const DATAGRAM_BYTES: u32 = 48 << 10;

const ACTION: &str = "receive logged packets";

/// The receiver of the packets of an NFLOG group.
#[derive(Debug)]
pub struct PacketLog {
    socket: Socket,
    group: u16,
    /// The sequence number of the next packet, once one was received.
    next_sequence: Option<u32>,
    lost: u64,
    has_flows: bool,
}

impl PacketLog {
    /// Binds to a group in the network namespace of the calling thread. Returns `None` if another socket has the group.
    ///
    /// # Errors
    /// [`Error::Rejected`]: `EINVAL` without nfnetlink_log.
    pub fn bind(group: u16) -> Result<Option<Self>> {
        const ACTION: &str = "bind to an NFLOG group";
        let mut socket = Socket::open(NetlinkProtocol::Netfilter)?;
        let mut request = config(ACTION, group, |message| {
            message.u8(NFULA_CFG_CMD, NFULNL_CFG_CMD_BIND);
            let [a, b, c, d] = COPIED_BYTES.to_be_bytes();
            message.bytes(NFULA_CFG_MODE, &[a, b, c, d, NFULNL_COPY_PACKET, 0]);
            message.u32_be(NFULA_CFG_NLBUFSIZ, DATAGRAM_BYTES);
            message.u32_be(NFULA_CFG_TIMEOUT, FLUSH_CENTISECONDS);
            message.u32_be(NFULA_CFG_QTHRESH, PACKETS_PER_DATAGRAM);
            message.u16_be(NFULA_CFG_FLAGS, NFULNL_CFG_F_SEQ);
        })?;
        match socket.acknowledge(ACTION, &mut request) {
            // For a group of another socket the error is that of missing privilege, but this process could open the group
            // if it had no owner: the caller finds out with another group.
            Err(error) if matches!(error.errno(), Some(libc::EPERM | libc::EBUSY)) => return Ok(None),
            bound => bound?,
        }
        let mut with_flows = config(ACTION, group, |message| {
            message.u16_be(NFULA_CFG_FLAGS, NFULNL_CFG_F_SEQ | NFULNL_CFG_F_CONNTRACK);
        })?;
        let with_flows = socket.acknowledge(ACTION, &mut with_flows);
        if let Err(error) = &with_flows {
            tracing::debug!(%error, "kernel does not log the flows of packets");
        }
        socket.set_nonblocking()?;
        Ok(Some(PacketLog { socket, group, next_sequence: None, lost: 0, has_flows: with_flows.is_ok() }))
    }

    /// Returns the group.
    pub fn group(&self) -> u16 {
        self.group
    }

    /// Returns false if the kernel does not log the flows of packets (`CONFIG_NETFILTER_NETLINK_GLUE_CT`): the destination before
    /// NAT is not known.
    pub fn has_flows(&self) -> bool {
        self.has_flows
    }

    /// Sets the receive buffer of the socket, in bytes.
    pub fn set_receive_buffer(&self, bytes: i32) {
        self.socket.set_buffers(bytes);
    }

    /// Passes the packets of one datagram to `each`. Returns false if there is none.
    ///
    /// # Errors
    /// [`Error::Io`] if the system call fails. Lost packets are no error: see [`PacketLog::take_lost`].
    pub fn receive(&mut self, mut each: impl FnMut(LoggedPacket<'_>)) -> Result<bool> {
        let PacketLog { socket, next_sequence, lost, .. } = self;
        let received = socket.events(ACTION, |message| {
            if let Some(packet) = parse(&message)? {
                if let Some(sequence) = packet.sequence {
                    *lost += u64::from(missing(*next_sequence, sequence));
                    *next_sequence = Some(sequence.wrapping_add(1));
                }
                each(packet);
            }
            Ok(())
        });
        match received {
            // The sequence number of the next packet tells how many are missing.
            Err(Error::Overrun { .. } | Error::Truncated { .. }) => Ok(true),
            received => received,
        }
    }

    /// Returns the number of packets that were lost since the last call: the socket's buffer was full, or the kernel had no
    /// memory.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

impl AsFd for PacketLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn config(action: &'static str, group: u16, fill: impl FnOnce(&mut Writer<'_>)) -> Result<Batch> {
    Batch::with_message(action, netfilter::kind(Subsystem::Log, NFULNL_MSG_CONFIG), 0, |message| {
        message.netfilter_resource(libc::AF_UNSPEC as u8, group);
        fill(message);
    })
}

/// Returns the number of packets between the expected sequence number and that of a packet. Numbers that seem to go back are
/// those of a group that was bound again.
fn missing(expected: Option<u32>, sequence: u32) -> u32 {
    let missing = sequence.wrapping_sub(expected.unwrap_or(0));
    if missing < u32::MAX / 2 { missing } else { 0 }
}

fn parse<'a>(message: &Message<'a>) -> Result<Option<LoggedPacket<'a>>> {
    // Datagrams of several packets end with NLMSG_DONE.
    if message.kind != netfilter::kind(Subsystem::Log, NFULNL_MSG_PACKET) {
        return Ok(None);
    }
    LoggedPacket::parse(message).map(Some).during(ACTION)
}

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn gaps_of_sequence_numbers_are_lost_packets() {
        for (expected, sequence, lost) in [
            (None, 0, 0),
            (None, 3, 3),
            (Some(1), 1, 0),
            (Some(1), 11, 10),
            (Some(u32::MAX), 2, 3),
            // The group was bound again.
            (Some(500), 0, 0),
        ] {
            assert_eq!(missing(expected, sequence), lost, "{expected:?} {sequence}");
        }
    }
}
