//! Datagrams that the kernel could have sent.

use crate::message::{ACK, Batch, HEADER, Message, Messages};

/// Offsets into the header of a message.
const FLAGS_AT: usize = 6;
const SEQUENCE_AT: usize = 8;

/// `NFNL_MSG_BATCH_BEGIN`, the type of the first message of a transaction.
const BATCH_BEGIN: u16 = 16;

/// Returns a status: an acknowledgement, or an error if `errno` is not 0.
pub(super) fn status(sequence: u32, errno: i32) -> Vec<u8> {
    let message = Batch::with_message("inject a fault", libc::NLMSG_ERROR as u16, 0, |out| {
        out.raw(&(-errno).to_ne_bytes()).raw(&[0; HEADER]);
    });
    let mut bytes = message.expect("a status is short").bytes().to_vec();
    bytes[FLAGS_AT..FLAGS_AT + 2].fill(0);
    set_sequence(&mut bytes, sequence);
    bytes
}

/// Sets the sequence number of the first message.
pub(super) fn set_sequence(datagram: &mut [u8], sequence: u32) {
    if let Some(bytes) = datagram.get_mut(SEQUENCE_AT..SEQUENCE_AT + 4) {
        bytes.copy_from_slice(&sequence.to_ne_bytes());
    }
}

/// Returns the sequence number of the first message.
pub(super) fn sequence(datagram: &[u8]) -> u32 {
    Messages::new(datagram).flatten().next().map_or(0, |message| message.sequence)
}

/// Returns the length of the first message.
pub(super) fn first_length(datagram: &[u8]) -> usize {
    Messages::new(datagram).flatten().next().map_or(0, length)
}

/// Marks all messages of a dump as inconsistent. Returns false if the datagram is not part of a dump.
pub(super) fn interrupt_dump(datagram: &mut [u8]) -> bool {
    let lengths: Vec<usize> = Messages::new(datagram).flatten().map(length).collect();
    let is_dump =
        Messages::new(datagram).flatten().any(|message| message.flags & libc::NLM_F_MULTI as u16 != 0);
    let mut at = 0;
    for length in lengths.into_iter().filter(|_| is_dump) {
        let flags = u16::from_ne_bytes([datagram[at + FLAGS_AT], datagram[at + FLAGS_AT + 1]]);
        let flags = flags | libc::NLM_F_DUMP_INTR as u16;
        datagram[at + FLAGS_AT..at + FLAGS_AT + 2].copy_from_slice(&flags.to_ne_bytes());
        at += length;
    }
    is_dump
}

/// Returns the number of bytes of a message with its padding.
fn length(message: Message<'_>) -> usize {
    (HEADER + message.payload.len()).next_multiple_of(4)
}

/// A batch of which the kernel rejects one message.
pub(super) struct PartlyRejected {
    /// The messages that the kernel still gets; empty if the rejection affects all of them.
    pub(super) rest: Vec<u8>,
    /// The sequence number of the rejected message.
    pub(super) rejected: u32,
    /// The sequence numbers of the messages that the kernel acknowledges all the same.
    pub(super) acknowledged: Vec<u32>,
}

/// Rejects the message in the middle of a batch.
pub(super) fn reject_middle(batch: &[u8]) -> PartlyRejected {
    let messages: Vec<Message<'_>> = Messages::new(batch).flatten().collect();
    let is_transaction = messages[0].kind == BATCH_BEGIN;
    let middle = messages.len() / 2;
    let start: usize = messages[..middle].iter().copied().map(length).sum();
    let end = start + length(messages[middle]);
    let rejected = messages[middle].sequence;
    if !is_transaction {
        let rest = [&batch[..start], &batch[end..]].concat();
        return PartlyRejected { rest, rejected, acknowledged: Vec::new() };
    }
    // The kernel processes the rest to report all errors, and aborts the transaction at its end.
    let others = messages.iter().filter(|message| message.sequence != rejected);
    let acknowledged = others.filter(|message| message.flags & ACK != 0).map(|message| message.sequence);
    PartlyRejected { rest: Vec::new(), rejected, acknowledged: acknowledged.collect() }
}
