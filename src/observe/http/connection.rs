//! An HTTP connection: its phase, by which its time limit is known, and the stream that observes it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::peer::Peer;

/// Time limit for the head of a request, from the connection or its first byte.
const HEAD_LIMIT: Duration = Duration::from_secs(5);

/// Time limit for a response, until the client has read it.
const RESPONSE_LIMIT: Duration = Duration::from_secs(60);

/// Time limit for a connection without a request. Longer than the usual interval of scrapes, 60 s.
const IDLE_LIMIT: Duration = Duration::from_secs(90);

/// The phase of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The head of a request is incomplete.
    Head,
    /// The response is being made.
    Request,
    /// The response is being sent.
    Response,
    /// A response without an end is being sent. Its time limit is from the last time that the client had read everything, so its
    /// sender must send something more often.
    Stream,
    /// There is no request.
    Idle,
}

impl Phase {
    fn limit(self) -> Duration {
        match self {
            Phase::Head => HEAD_LIMIT,
            Phase::Request | Phase::Response | Phase::Stream => RESPONSE_LIMIT,
            Phase::Idle => IDLE_LIMIT,
        }
    }

    /// Returns true if the client waits for a response.
    pub(super) fn has_request(self) -> bool {
        matches!(self, Phase::Request | Phase::Response | Phase::Stream)
    }
}

/// Why a connection has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// The client took too long to send a request, or to read a response.
    Timeout,
    /// The server has its maximum of connections.
    Limit,
    /// The process has no file descriptor for another connection.
    Descriptors,
    /// There was no request for a long time, which is usual.
    Idle,
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) peer: Peer,
    activity: Mutex<Activity>,
    changed: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Activity {
    phase: Phase,
    /// Start of the phase.
    since: Instant,
    /// The connection has to be closed in favour of another one.
    evicted: Option<CloseReason>,
}

impl Connection {
    pub(super) fn new(peer: Peer, now: Instant) -> Self {
        let activity = Activity { phase: Phase::Head, since: now, evicted: None };
        Connection { peer, activity: Mutex::new(activity), changed: Notify::new() }
    }

    /// Returns the phase and its start; `None` if the connection is being closed.
    pub(super) fn activity(&self) -> Option<(Phase, Instant)> {
        let activity = *self.lock();
        activity.evicted.is_none().then_some((activity.phase, activity.since))
    }

    /// The head of a request is complete.
    pub(super) fn request_received(&self) {
        self.begin(Phase::Request);
    }

    /// The response is ready to be sent. `is_stream`: it has no end.
    pub(super) fn response_ready(&self, is_stream: bool) {
        self.begin(if is_stream { Phase::Stream } else { Phase::Response });
    }

    /// Bytes were received.
    fn received(&self) {
        if self.lock().phase == Phase::Idle {
            self.begin(Phase::Head);
            // The time limit is shorter than before.
            self.changed.notify_one();
        }
    }

    /// Everything was sent.
    fn flushed(&self) {
        let phase = self.lock().phase;
        match phase {
            Phase::Response => self.begin(Phase::Idle),
            Phase::Stream => self.begin(Phase::Stream),
            Phase::Head | Phase::Request | Phase::Idle => {}
        }
    }

    /// Makes [`Connection::must_close`] return.
    pub(super) fn evict(&self, reason: CloseReason) {
        self.lock().evicted = Some(reason);
        self.changed.notify_one();
    }

    fn begin(&self, phase: Phase) {
        let mut activity = self.lock();
        (activity.phase, activity.since) = (phase, Instant::now());
    }

    /// Waits until the connection has to be closed.
    pub(super) async fn must_close(&self) -> CloseReason {
        loop {
            let Activity { phase, since, evicted } = *self.lock();
            if let Some(reason) = evicted {
                return reason;
            }
            let deadline = since + phase.limit();
            if Instant::now() >= deadline {
                return if phase == Phase::Idle { CloseReason::Idle } else { CloseReason::Timeout };
            }
            tokio::select! {
                () = tokio::time::sleep_until(deadline.into()) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Activity> {
        // A panic with the lock held leaves no partial value.
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stream of a connection, which reports what was received and sent.
pub(super) struct ObservedStream<'a, S> {
    stream: S,
    connection: &'a Connection,
}

impl<'a, S> ObservedStream<'a, S> {
    pub(super) fn new(stream: S, connection: &'a Connection) -> Self {
        ObservedStream { stream, connection }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ObservedStream<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.connection.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ObservedStream<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Called once the buffers of hyper are empty.
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.connection.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
