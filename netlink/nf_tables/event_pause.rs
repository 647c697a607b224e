//! Pauses of this process's subscriptions to nf_tables events during large writes.
//!
//! While any socket of the machine subscribes, the kernel builds a notification of 4 KiB for each element of each transaction: 1 µs
//! and more per element, as much as adding it. Our subscriptions drop the notifications of our own transactions, so they leave the
//! group while a large table is written. The generation of the rule set tells whether another process committed meanwhile:
//!
//! ```text
//! read generation ─► wait for a running commit ─► leave ─► write ─► join ─► read generation
//!                    (its notifications were sent)                            more than our own commits: report lost events
//! ```

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::events::GROUP;
use super::generation::generation;
use super::own_commits;
use super::transaction;
use crate::socket::{self, Socket};

/// The subscriptions of this process.
static SUBSCRIPTIONS: Mutex<Vec<Weak<Subscription>>> = Mutex::new(Vec::new());

/// The running pause of each network namespace.
static PAUSES: Mutex<Vec<RunningPause>> = Mutex::new(Vec::new());

/// The subscriptions of a network namespace, while at least one thread writes.
#[derive(Debug)]
struct RunningPause {
    /// The cookie of the network namespace.
    namespace: u64,
    /// The number of [`EventPause`] values.
    writers: usize,
    subscriptions: Vec<Arc<Subscription>>,
    before: Generation,
}

/// A generation of the rule set, and the number of this process's transactions up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Generation {
    number: u32,
    own: u32,
}

impl Generation {
    /// Reads them. Returns `None` if a transaction of this process is running, or the kernel does not respond.
    fn read(socket: &mut Socket) -> Option<Self> {
        let own = own_commits::committed_transactions();
        let number = generation(socket).ok()?;
        own_commits::are_acknowledged(own).then_some(Generation { number, own })
    }

    /// Returns true if this process alone has committed since.
    fn has_only_own_since(self, now: Generation) -> bool {
        now.number.wrapping_sub(self.number) == now.own.wrapping_sub(self.own)
    }
}

/// A socket that receives nf_tables events.
#[derive(Debug)]
pub(super) struct Subscription {
    /// The socket of the subscription, which another thread reads.
    socket: OwnedFd,
    /// The cookie of the network namespace.
    namespace: u64,
    /// Events were lost since the thread was last told.
    has_lost_events: AtomicBool,
    /// Wakes up the thread that reads events.
    wake: (PipeReader, PipeWriter),
}

impl Subscription {
    /// Registers a socket that joined the group. Returns `None` if the kernel does not tell its network namespace (before Linux
    /// 5.14); its subscription is never paused.
    pub(super) fn register(socket: BorrowedFd<'_>) -> Option<Arc<Self>> {
        let namespace = socket::namespace_cookie(socket).ok()?;
        let (socket, wake) = (socket.try_clone_to_owned().ok()?, io::pipe().ok()?);
        let subscription =
            Arc::new(Subscription { socket, namespace, has_lost_events: AtomicBool::new(false), wake });
        let mut all = lock(&SUBSCRIPTIONS);
        all.retain(|subscription| subscription.strong_count() > 0);
        all.push(Arc::downgrade(&subscription));
        Some(subscription)
    }

    /// Returns a descriptor that is readable when events were lost.
    pub(super) fn wake(&self) -> BorrowedFd<'_> {
        self.wake.0.as_fd()
    }

    /// Returns true once if events were lost.
    pub(super) fn take_lost_events(&self) -> bool {
        let has_lost = self.has_lost_events.swap(false, SeqCst);
        // One byte was written for each time that the flag was set.
        has_lost && (&self.wake.0).read(&mut [0]).is_ok()
    }

    fn set_lost_events(&self) {
        if !self.has_lost_events.swap(true, SeqCst) {
            // It cannot fail: the pipe has one byte at most, and this process reads it.
            let _ = (&self.wake.1).write(&[0]);
        }
    }

    fn set_member(&self, is_member: bool) -> bool {
        socket::set_membership(self.socket.as_fd(), GROUP, is_member).is_ok()
    }
}

/// A pause of all subscriptions in a network namespace, which continue when the last one has ended.
#[derive(Debug)]
pub(super) struct EventPause {
    namespace: u64,
    has_ended: bool,
}

impl EventPause {
    /// Pauses the subscriptions in the network namespace of `socket`. Returns `None` if there are none, or something is not known
    /// that is needed to notice other processes' transactions meanwhile.
    pub(super) fn begin(socket: &mut Socket) -> Option<Self> {
        let namespace = socket::namespace_cookie(socket.as_fd()).ok()?;
        let all = lock(&SUBSCRIPTIONS);
        let own = all.iter().filter_map(Weak::upgrade).filter(|other| other.namespace == namespace);
        let subscriptions: Vec<Arc<Subscription>> = own.collect();
        drop(all);
        if subscriptions.is_empty() {
            return None;
        }
        let mut pauses = lock(&PAUSES);
        if let Some(running) = pauses.iter_mut().find(|pause| pause.namespace == namespace) {
            running.writers += 1;
            return Some(EventPause { namespace, has_ended: false });
        }
        let before = Generation::read(socket)?;
        // The kernel raises the generation before it sends the notifications of a transaction, and both before the next
        // transaction. So those of all transactions up to `before` are sent after this call.
        transaction::wait_for_running_commit(socket).ok()?;
        subscriptions.iter().for_each(|subscription| _ = subscription.set_member(false));
        pauses.push(RunningPause { namespace, writers: 1, subscriptions, before });
        Some(EventPause { namespace, has_ended: false })
    }

    /// Ends the pause. If another process committed a transaction meanwhile, or that is not known, the subscriptions report lost
    /// events.
    pub(super) fn end(mut self, socket: &mut Socket) {
        self.finish(Some(socket));
    }

    fn finish(&mut self, socket: Option<&mut Socket>) {
        self.has_ended = true;
        let mut pauses = lock(&PAUSES);
        let Some(at) = pauses.iter().position(|pause| pause.namespace == self.namespace) else { return };
        pauses[at].writers -= 1;
        if pauses[at].writers > 0 {
            return;
        }
        let RunningPause { subscriptions, before, .. } = pauses.swap_remove(at);
        for subscription in &subscriptions {
            if !subscription.set_member(true) {
                tracing::warn!("cannot subscribe to nf_tables events again; drift will not be detected");
            }
        }
        // Read after joining: later transactions are reported.
        let now = socket.and_then(|socket| (0..ATTEMPTS).find_map(|_| Generation::read(socket)));
        if !now.is_some_and(|now| before.has_only_own_since(now)) {
            subscriptions.iter().for_each(|subscription| subscription.set_lost_events());
        }
    }
}

/// After a panic.
impl Drop for EventPause {
    fn drop(&mut self) {
        if !self.has_ended {
            self.finish(None);
        }
    }
}

/// The attempts to read the generation while no transaction of another thread is running.
const ATTEMPTS: usize = 10;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it is locked leaves valid values: each change is one call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
