//! The open connections of an HTTP server, with a limit.
//!
//! A server that has its maximum of connections closes one before it serves another: of the peer with the most connections,
//! the one that has waited longest without a request. So a peer that opens many connections loses its own, and a health check,
//! whose request follows immediately, is served. No connection is left in the backlog of the kernel, where it would wait behind
//! those of such a peer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection::{CloseReason, Connection};
use super::peer::Peer;
use crate::observe::metrics::ConnectionMetrics;

/// Time between two log lines about closed connections.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// The open connections of a server, or of several that share a limit.
#[derive(Debug)]
pub(crate) struct ConnectionPool {
    /// The name of the server, for the log.
    server: &'static str,
    limit: usize,
    permits: Arc<Semaphore>,
    open: Mutex<OpenConnections>,
    metrics: ConnectionMetrics,
    closed_log: Mutex<LogLimit>,
    accept_log: Mutex<LogLimit>,
}

/// Open connections by number, in the order of their admission.
#[derive(Debug, Default)]
struct OpenConnections {
    next_number: u64,
    connections: BTreeMap<u64, Arc<Connection>>,
}

/// Limits the log lines to one for each [`LOG_INTERVAL`].
#[derive(Debug, Default)]
struct LogLimit {
    last: Option<Instant>,
    /// Events since the last line.
    events: u64,
}

/// A connection that a pool has admitted. Dropping it makes room for another.
pub(super) struct AdmittedConnection {
    pool: Arc<ConnectionPool>,
    number: u64,
    pub(super) connection: Arc<Connection>,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionPool {
    /// Creates a pool. `server` is its name in the log.
    pub(crate) fn new(server: &'static str, limit: usize, metrics: ConnectionMetrics) -> Arc<Self> {
        Arc::new(ConnectionPool {
            server,
            limit,
            permits: Arc::new(Semaphore::new(limit)),
            open: Mutex::default(),
            metrics,
            closed_log: Mutex::default(),
            accept_log: Mutex::default(),
        })
    }

    /// Admits a new connection. Closes another one before, if the server has its maximum.
    pub(super) async fn admit(self: &Arc<Self>, peer: Peer) -> AdmittedConnection {
        let permits = Arc::clone(&self.permits);
        let permit = match Arc::clone(&permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.evict_one(peer, CloseReason::Limit);
                permits.acquire_owned().await.expect("the semaphore of a pool is never closed")
            }
        };
        let connection = Arc::new(Connection::new(peer, Instant::now()));
        let mut open = lock(&self.open);
        let number = open.next_number;
        open.next_number += 1;
        open.connections.insert(number, Arc::clone(&connection));
        self.metrics.set_open(open.connections.len());
        drop(open);
        AdmittedConnection { pool: Arc::clone(self), number, connection, _permit: permit }
    }

    /// Closes a connection in favour of one from `peer`.
    fn evict_one(&self, peer: Peer, reason: CloseReason) {
        let open = lock(&self.open);
        if let Some(connection) = most_dispensable(open.connections.values(), peer) {
            connection.evict(reason);
        }
    }

    /// Handles a failed `accept`. Closes a connection if descriptors are exhausted, so that the next one is accepted.
    pub(super) fn accept_failed(&self, error: &std::io::Error) {
        if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)) {
            // The peer that would be accepted is not known.
            self.evict_one(Peer::UNKNOWN, CloseReason::Descriptors);
        }
        if let Some(failures) = lock(&self.accept_log).event(Instant::now()) {
            let server = self.server;
            tracing::warn!(failures, "cannot accept a connection to the {server} server: {error}; retrying");
        }
    }

    /// Counts a connection that was closed by the server, and logs it rarely.
    pub(super) fn closed(&self, peer: Peer, reason: CloseReason) {
        let why = match reason {
            CloseReason::Idle => return,
            CloseReason::Timeout => {
                self.metrics.timed_out();
                "a client sent no complete request in time, or did not read the response".to_owned()
            }
            CloseReason::Limit => {
                self.metrics.over_limit();
                format!("there were more than {}", self.limit)
            }
            CloseReason::Descriptors => {
                self.metrics.over_limit();
                "too many files are open".to_owned()
            }
        };
        if let Some(closed) = lock(&self.closed_log).event(Instant::now()) {
            let server = self.server;
            tracing::warn!(
                %peer,
                "closed {closed} connection(s) to the {server} server, the last one from {peer}: {why}; next report in {} s \
                 at the earliest",
                LOG_INTERVAL.as_secs()
            );
        }
    }
}

impl LogLimit {
    /// Counts an event. Returns the number of events since the last log line, if another line is due.
    fn event(&mut self, now: Instant) -> Option<u64> {
        self.events += 1;
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < LOG_INTERVAL) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.events))
    }
}

/// Returns the connection to close in favour of one from `peer`: of the peer with the most connections, the one that has waited
/// longest without a request, or else the one with the oldest request.
fn most_dispensable<'a>(
    open: impl Iterator<Item = &'a Arc<Connection>>,
    peer: Peer,
) -> Option<&'a Arc<Connection>> {
    let open: Vec<_> = open.filter_map(|connection| Some((connection, connection.activity()?))).collect();
    let mut counts: BTreeMap<Peer, usize> = BTreeMap::from([(peer, 1)]);
    for (connection, _) in &open {
        *counts.entry(connection.peer).or_default() += 1;
    }
    let (connection, _) = open.into_iter().max_by_key(|(connection, (phase, since))| {
        (counts[&connection.peer], !phase.has_request(), std::cmp::Reverse(*since))
    })?;
    Some(connection)
}

impl AdmittedConnection {
    /// Reports that the server closes the connection.
    pub(super) fn close(&self, reason: CloseReason) {
        self.pool.closed(self.connection.peer, reason);
    }
}

impl Drop for AdmittedConnection {
    fn drop(&mut self) {
        let mut open = lock(&self.pool.open);
        open.connections.remove(&self.number);
        self.pool.metrics.set_open(open.connections.len());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic with the lock held leaves no partial value.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn peer(last: u8) -> Peer {
        Peer::Address(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)))
    }

    #[test]
    fn peer_with_the_most_connections_loses_the_one_that_waits_longest() {
        // Name; peers of the open connections, oldest first, with whether they have a request; the new peer; the closed one.
        type Row = (&'static str, &'static [(u8, bool)], u8, Option<usize>);
        let rows: [Row; 7] = [
            ("nothing is open", &[], 1, None),
            ("one peer", &[(1, false), (1, false)], 1, Some(0)),
            ("a flood of another peer", &[(9, false), (1, false), (1, false), (1, false)], 9, Some(1)),
            ("a flood of the new peer", &[(9, false), (1, false), (1, false)], 1, Some(1)),
            ("requests are kept", &[(1, true), (1, false)], 2, Some(1)),
            ("all have requests", &[(1, true), (1, true)], 2, Some(0)),
            ("as many peers as connections", &[(1, false), (2, false), (3, false)], 4, Some(0)),
        ];
        let start = Instant::now();
        for (case, open, new, expected) in rows {
            let open: Vec<_> = open
                .iter()
                .zip(0..)
                .map(|((last, has_request), second)| {
                    let since = start + Duration::from_secs(second);
                    let connection = Connection::new(peer(*last), since);
                    if *has_request {
                        connection.request_received();
                    }
                    Arc::new(connection)
                })
                .collect();
            let closed = most_dispensable(open.iter(), peer(new));
            let position = closed.and_then(|closed| open.iter().position(|one| Arc::ptr_eq(one, closed)));
            assert_eq!(position, expected, "{case}");
        }
    }

    #[test]
    fn closed_connections_are_logged_once_a_minute_with_their_number() {
        let start = Instant::now();
        let mut limit = LogLimit::default();
        let rows = [(0, Some(1)), (1, None), (59, None), (60, Some(3)), (61, None), (200, Some(2))];
        for (second, expected) in rows {
            assert_eq!(limit.event(start + Duration::from_secs(second)), expected, "{second}");
        }
    }
}
