//! Fault injection below sockets, for tests: the kernel is real, and one of its calls fails.
//!
//! ```text
//! Socket ─► FaultyTransport ─► KernelTransport
//!                │
//!           FaultPlan: which call, which fault
//! ```

mod datagrams;
mod faulty_transport;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::faulty_transport::FaultyTransport;
use super::test_transport::with_transports;

/// A fault of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Sending fails with this error number. The kernel gets nothing.
    SendFails(i32),
    /// The kernel rejects the message in the middle of a batch with this error number, and with it the whole batch if that is
    /// a transaction.
    Rejection(i32),
    /// Receiving fails with this error number, and nothing is lost.
    ReceiveFails(i32),
    /// The receive buffer overflows: a datagram is lost, and `ENOBUFS` reports it.
    Overrun,
    /// A datagram is lost without a trace, and the timeout for a response expires.
    LostResponse,
    /// A datagram ends in the middle of its first message.
    ShortRead,
    /// A datagram is larger than the read buffer.
    LargeDatagram,
    /// A concurrent change makes a dump inconsistent (`NLM_F_DUMP_INTR`).
    InterruptedDump,
    /// A response to an earlier request arrives first.
    LateResponse,
    /// The response has the sequence number of another request, and so is lost.
    WrongSequence,
    /// Another process sends an acknowledgement to the port of the socket before the kernel responds.
    SpoofedAcknowledgement,
    /// Another process sends an error to the port of the socket before the kernel responds.
    SpoofedError,
}

impl Fault {
    /// All faults, with the usual error numbers.
    pub const ALL: [Fault; 17] = [
        Fault::SendFails(libc::ENOBUFS),
        Fault::SendFails(libc::EINTR),
        Fault::SendFails(libc::EMSGSIZE),
        Fault::SendFails(libc::EPERM),
        Fault::Rejection(libc::EBUSY),
        Fault::Rejection(libc::EPERM),
        Fault::Rejection(libc::ENOMEM),
        Fault::ReceiveFails(libc::EINTR),
        Fault::Overrun,
        Fault::LostResponse,
        Fault::ShortRead,
        Fault::LargeDatagram,
        Fault::InterruptedDump,
        Fault::LateResponse,
        Fault::WrongSequence,
        Fault::SpoofedAcknowledgement,
        Fault::SpoofedError,
    ];

    /// Returns true for faults of sending, and false for those of receiving.
    fn is_of_send(self) -> bool {
        matches!(self, Fault::SendFails(_) | Fault::Rejection(_))
    }
}

/// The calls of all sockets that are opened in [`FaultPlan::run`], and the next fault. Clones share both.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The calls since the last [`FaultPlan::inject`] or [`FaultPlan::count`].
    calls: usize,
    /// The fault, and the call that it hits.
    next: Option<(usize, Fault)>,
}

impl FaultPlan {
    /// Returns a plan without a fault.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `action`. The plan applies to the sockets that it opens, as long as they exist.
    pub fn run<T>(&self, action: impl FnOnce() -> T) -> T {
        let plan = self.clone();
        let open = move |request: &super::OpenRequest<'_>| {
            let kernel = request.open_in_kernel().map_err(io::Error::other)?;
            let is_listener = !request.groups.is_empty();
            Ok(Box::new(FaultyTransport::new(kernel, is_listener, plan.clone())) as Box<dyn super::Transport>)
        };
        with_transports(open, action)
    }

    /// Counts calls from 0. Without a fault.
    pub fn count(&self) {
        *self.state() = State::default();
    }

    /// Returns the number of calls.
    pub fn calls(&self) -> usize {
        self.state().calls
    }

    /// Counts calls from 0, and injects a fault into the call with this number, if that is of the fault's direction.
    pub fn inject(&self, call: usize, fault: Fault) {
        *self.state() = State { calls: 0, next: Some((call, fault)) };
    }

    /// Returns true if the fault was injected.
    pub fn is_injected(&self) -> bool {
        self.state().next.is_none()
    }

    /// Counts a call, and returns its fault.
    fn next_call(&self, is_send: bool) -> Option<Fault> {
        let mut state = self.state();
        let call = state.calls;
        state.calls += 1;
        let (_, fault) = state.next.filter(|(at, fault)| *at == call && fault.is_of_send() == is_send)?;
        state.next = None;
        Some(fault)
    }

    /// Makes the fault count as not injected: the call was not one that it can hit.
    fn was_not_applicable(&self, fault: Fault) {
        self.state().next = Some((usize::MAX, fault));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
