//! The threads that read events from the kernel, while observers need them.
//!
//! ```text
//! NFLOG group ───────► thread ─┐   batches, at most every 0.1 s
//! conntrack events ──► thread ─┴─► bounded channel ─► hub
//! ```

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use portcullis_modes::source_range_log;
use portcullis_netlink::conntrack::ConnectionEvents;
use portcullis_netlink::log::PacketLog;
use portcullis_netlink::{Error, Result};
use portcullis_policy::table::ObservedDrop;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc;

use super::raw_event::{BATCH_TIME, DropRule, EventBatch, RawEvent};

/// The greatest number of events in a batch.
const MAX_BATCH: usize = 4096;

/// The greatest number of packets or connections that a thread reads in a tenth of a second. The kernel drops and counts more.
const MAX_PER_BATCH_TIME: usize = 2_500;

/// Events of one kind, and the losses since the last batch.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) events: Vec<RawEvent>,
    /// The number of packets in `events`, by the counter of their rule.
    pub(super) received: HashMap<Arc<str>, u64>,
    /// Events that the kernel could not deliver.
    pub(super) lost_in_kernel: u64,
    /// Events that the kernel could not deliver, and did not count.
    pub(super) lost_uncounted: bool,
    /// The latest time at which all packets had been read; `None` for connections.
    pub(super) drained: Option<Instant>,
    /// The reader ended because of this error.
    pub(super) error: Option<String>,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.lost_in_kernel == 0 && !self.lost_uncounted && self.drained.is_none()
    }
}

/// A thread that reads events until it is dropped.
#[derive(Debug)]
pub(super) struct Reader {
    stop: Arc<AtomicBool>,
}

impl Reader {
    /// Starts a thread.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(super) fn start(mut source: impl EventSource, sink: mpsc::Sender<Batch>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let follow = move || {
            if let Err(error) = follow(&mut source, &sink, &stopped) {
                let batch = Batch { error: Some(error.to_string()), ..Batch::default() };
                let _ = sink.blocking_send(batch);
            }
        };
        std::thread::Builder::new().name("traffic events".into()).spawn(follow)?;
        Ok(Reader { stop })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// A source of events in the kernel.
pub(super) trait EventSource: Send + 'static {
    /// Returns the file descriptor to poll.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Reads one datagram. Returns false if there is none.
    fn read(&mut self, into: &mut EventBatch, losses: &mut Batch) -> Result<bool>;

    /// Returns the number of packets or connections since the last call.
    fn take_count(&mut self) -> usize;
}

fn follow(source: &mut dyn EventSource, sink: &mpsc::Sender<Batch>, stop: &AtomicBool) -> Result<()> {
    let mut events = EventBatch::default();
    let mut batch = Batch::default();
    let mut started = Instant::now();
    let mut count = 0;
    while !stop.load(Relaxed) {
        let rest = BATCH_TIME.saturating_sub(started.elapsed());
        if count >= MAX_PER_BATCH_TIME {
            std::thread::sleep(rest);
        } else {
            wait(source.fd(), rest)?;
            while count < MAX_PER_BATCH_TIME
                && events.len() < MAX_BATCH
                && source.read(&mut events, &mut batch)?
            {
                count += source.take_count();
            }
        }
        if started.elapsed() < BATCH_TIME && events.len() < MAX_BATCH {
            continue;
        }
        (started, count) = (Instant::now(), 0);
        batch.events = events.take();
        if batch.is_empty() {
            continue;
        }
        // While the hub is behind, the kernel's buffer fills up, and the kernel counts what it drops.
        if sink.blocking_send(std::mem::take(&mut batch)).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Waits until the file descriptor is readable.
fn wait(fd: BorrowedFd<'_>, at_most: Duration) -> Result<()> {
    let timeout = Timespec { tv_sec: at_most.as_secs() as i64, tv_nsec: at_most.subsec_nanos().into() };
    match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(Error::Io { action: "wait for events", source: error.into() }),
    }
}

/// Dropped packets.
#[derive(Debug)]
pub(super) struct Drops {
    log: PacketLog,
    /// The rules by the prefixes of their packets.
    rules: HashMap<Box<[u8]>, Option<DropRule>>,
    count: usize,
}

/// The greatest number of prefixes that are remembered: more are parsed again.
const MAX_PREFIXES: usize = 4096;

impl Drops {
    pub(super) fn new(log: PacketLog) -> Self {
        Drops { log, rules: HashMap::new(), count: 0 }
    }
}

impl EventSource for Drops {
    fn fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.log)
    }

    fn read(&mut self, into: &mut EventBatch, losses: &mut Batch) -> Result<bool> {
        let Drops { log, rules, count } = self;
        let now = SystemTime::now();
        let received = log.receive(|packet| {
            *count += 1;
            if rules.len() > MAX_PREFIXES {
                rules.clear();
            }
            let rule = match rules.get(packet.prefix) {
                Some(rule) => rule.clone(),
                None => rules.entry(packet.prefix.into()).or_insert(parse_prefix(packet.prefix)).clone(),
            };
            let Some(rule) = rule else { return };
            if let DropRule::Policy { counter, .. } = &rule {
                *losses.received.entry(Arc::clone(counter)).or_default() += 1;
            }
            into.add(RawEvent::from_packet(&packet, rule, now));
        });
        losses.lost_in_kernel += log.take_lost();
        if let Ok(false) = received {
            losses.drained = Some(Instant::now());
        }
        received
    }

    fn take_count(&mut self) -> usize {
        std::mem::take(&mut self.count)
    }
}

/// Returns the rule that logged a packet; `None` if a rule of another process did.
fn parse_prefix(prefix: &[u8]) -> Option<DropRule> {
    let prefix = str::from_utf8(prefix).ok()?;
    if prefix == source_range_log::PREFIX {
        return Some(DropRule::SourceRanges);
    }
    let ObservedDrop { is_audit, direction, counter } = ObservedDrop::parse(prefix)?;
    Some(DropRule::Policy { direction, counter: counter.into(), is_audit })
}

/// New and ended connections.
#[derive(Debug)]
pub(super) struct Connections {
    events: ConnectionEvents,
    count: usize,
}

impl Connections {
    pub(super) fn new(events: ConnectionEvents) -> Self {
        Connections { events, count: 0 }
    }
}

impl EventSource for Connections {
    fn fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.events)
    }

    fn read(&mut self, into: &mut EventBatch, losses: &mut Batch) -> Result<bool> {
        let Connections { events, count } = self;
        let now = SystemTime::now();
        let received = events.receive(|event| {
            *count += 1;
            into.add(RawEvent::from_connection(&event, now));
        });
        match received {
            Err(Error::Overrun { .. }) => {
                losses.lost_uncounted = true;
                Ok(true)
            }
            received => received,
        }
    }

    fn take_count(&mut self) -> usize {
        std::mem::take(&mut self.count)
    }
}
