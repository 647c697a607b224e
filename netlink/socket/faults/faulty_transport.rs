//! A transport over a socket of the kernel, in which one call fails as planned.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;

use super::datagrams::{first_length, interrupt_dump, reject_middle, sequence, set_sequence, status};
use super::{Fault, FaultPlan};
use crate::socket::{Datagram, KernelTransport, SocketOptions, Transport};

/// The port ID of another process.
const OTHER_PORT: u32 = 4711;

#[derive(Debug)]
pub(super) struct FaultyTransport {
    kernel: KernelTransport,
    /// It receives notifications, for which it may wait. Responses are there once a request was sent.
    is_listener: bool,
    plan: FaultPlan,
    /// Datagrams to receive before those of the kernel, with the port IDs of their senders.
    queued: VecDeque<(Vec<u8>, u32)>,
}

impl FaultyTransport {
    pub(super) fn new(kernel: KernelTransport, is_listener: bool, plan: FaultPlan) -> Self {
        FaultyTransport { kernel, is_listener, plan, queued: VecDeque::new() }
    }

    fn receive_without_fault(&mut self, buffer: &mut Vec<u8>, is_nonblocking: bool) -> io::Result<Datagram> {
        let Some((datagram, port)) = self.queued.pop_front() else {
            // A test does not wait for the timeout of a lost response.
            return self.kernel.receive(buffer, is_nonblocking || !self.is_listener);
        };
        buffer.clear();
        buffer.extend(&datagram[..datagram.len().min(buffer.capacity())]);
        Ok(Datagram { length: datagram.len(), port })
    }
}

impl Transport for FaultyTransport {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.plan.next_call(true) {
            Some(Fault::SendFails(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Fault::Rejection(errno)) => {
                let partly = reject_middle(bytes);
                self.queued.push_back((status(partly.rejected, errno), 0));
                self.queued.extend(partly.acknowledged.iter().map(|sequence| (status(*sequence, 0), 0)));
                if partly.rest.is_empty() { Ok(()) } else { self.kernel.send(&partly.rest) }
            }
            _ => self.kernel.send(bytes),
        }
    }

    fn receive(&mut self, buffer: &mut Vec<u8>, is_nonblocking: bool) -> io::Result<Datagram> {
        let Some(fault) = self.plan.next_call(false) else {
            return self.receive_without_fault(buffer, is_nonblocking);
        };
        if let Fault::ReceiveFails(errno) = fault {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let datagram = self.receive_without_fault(buffer, is_nonblocking)?;
        let bytes = buffer.as_mut_slice();
        let errno = match fault {
            Fault::Overrun => libc::ENOBUFS,
            Fault::LostResponse => libc::EAGAIN,
            Fault::ShortRead => return Ok(Datagram { length: first_length(bytes) / 2, ..datagram }),
            Fault::LargeDatagram => return Ok(Datagram { length: buffer.capacity() + 1, ..datagram }),
            Fault::InterruptedDump => {
                if !interrupt_dump(bytes) {
                    self.plan.was_not_applicable(fault);
                }
                return Ok(datagram);
            }
            Fault::WrongSequence => {
                set_sequence(bytes, sequence(bytes).wrapping_add(1 << 20));
                return Ok(datagram);
            }
            Fault::LateResponse | Fault::SpoofedAcknowledgement | Fault::SpoofedError => {
                self.queued.push_front((bytes.to_vec(), datagram.port));
                let (number, errno, port) = match fault {
                    Fault::LateResponse => (sequence(bytes).wrapping_sub(1), libc::ENOENT, 0),
                    Fault::SpoofedAcknowledgement => (sequence(bytes), 0, OTHER_PORT),
                    _ => (sequence(bytes), libc::EPERM, OTHER_PORT),
                };
                let injected = status(number, errno);
                buffer.clear();
                buffer.extend(&injected);
                return Ok(Datagram { length: injected.len(), port });
            }
            Fault::SendFails(_) | Fault::Rejection(_) | Fault::ReceiveFails(_) => return Ok(datagram),
        };
        Err(io::Error::from_raw_os_error(errno))
    }

    fn wait(&self, other: Option<BorrowedFd<'_>>) -> io::Result<()> {
        if self.queued.is_empty() { self.kernel.wait(other) } else { Ok(()) }
    }

    fn options(&self) -> &dyn SocketOptions {
        &self.kernel
    }
}
