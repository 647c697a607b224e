//! One observer: its filter, and the bounded queue of what it has not read yet.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use axum::body::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

use super::document::{LossReason, Notice, StreamLine};
use super::filter::EventFilter;
use super::losses::Losses;

/// The number of chunks that wait for an observer. A chunk has the events of a batch.
const QUEUED_CHUNKS: usize = 32;

/// The bytes that wait for an observer at most.
const QUEUED_BYTES: usize = 8 << 20;

/// An observer.
#[derive(Debug)]
pub(super) struct Observer {
    pub(super) filter: EventFilter,
    sink: mpsc::Sender<Chunk>,
    queued: Arc<AtomicUsize>,
    lines: Vec<u8>,
    /// The number of events in `lines`.
    events: u64,
    losses: Losses,
    /// The messages that it has received.
    notices: Vec<String>,
    /// Why these events cannot be observed at present, as it has received it.
    problems: HashMap<&'static str, String>,
}

/// Lines on their way to an observer.
#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
}

/// The lines of an observer.
#[derive(Debug)]
pub(crate) struct ObserverLines {
    source: mpsc::Receiver<Chunk>,
    queued: Arc<AtomicUsize>,
}

impl Body for ObserverLines {
    type Data = Bytes;
    type Error = Infallible;

    /// Waits for the next lines. The body ends if the daemon stops.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let chunk = self.source.poll_recv(context);
        chunk.map(|chunk| {
            let Chunk { bytes } = chunk?;
            self.queued.fetch_sub(bytes.len(), Relaxed);
            Some(Ok(Frame::data(bytes)))
        })
    }
}

impl Observer {
    /// Returns an observer, and its end of the queue.
    pub(super) fn new(filter: EventFilter) -> (Self, ObserverLines) {
        let (sink, source) = mpsc::channel(QUEUED_CHUNKS);
        let queued = Arc::default();
        let lines = ObserverLines { source, queued: Arc::clone(&queued) };
        let observer = Observer {
            filter,
            sink,
            queued,
            lines: Vec::new(),
            events: 0,
            losses: Losses::default(),
            notices: Vec::new(),
            problems: HashMap::new(),
        };
        (observer, lines)
    }

    /// Returns true if it does not read any more.
    pub(super) fn is_gone(&self) -> bool {
        self.sink.is_closed()
    }

    /// Adds the line of an event.
    pub(super) fn add_event(&mut self, line: &[u8]) {
        self.lines.extend_from_slice(line);
        self.events += 1;
    }

    /// Adds a line that is not an event.
    pub(super) fn add_line(&mut self, line: &StreamLine) {
        self.lines.extend_from_slice(&encode(line));
    }

    /// Adds a message, unless it has received it.
    pub(super) fn add_notice(&mut self, message: &str) {
        if self.notices.iter().any(|notice| notice == message) {
            return;
        }
        self.notices.push(message.to_owned());
        self.add_message(message.to_owned());
    }

    fn add_message(&mut self, message: String) {
        self.add_line(&StreamLine::Notice(Notice { message }));
    }

    /// Adds a message why some events cannot be observed, unless it was the last one about them.
    pub(super) fn set_problem(&mut self, events: &'static str, problem: &str) {
        if self.problems.get(events).is_none_or(|last| last != problem) {
            self.problems.insert(events, problem.to_owned());
            self.add_message(format!("{events} {problem}"));
        }
    }

    /// Adds a message that these events are observed, if a message said that they were not.
    pub(super) fn end_problem(&mut self, events: &'static str) {
        if self.problems.remove(events).is_some() {
            self.add_message(format!("{events} are observed now"));
        }
    }

    /// Adds lost events; `None` if their number is not known.
    pub(super) fn add_loss(&mut self, reason: LossReason, events: Option<u64>) {
        self.losses.add(reason, events);
    }

    /// Adds an empty line, which keeps the connection open.
    pub(super) fn keep_alive(&mut self) {
        if self.lines.is_empty() {
            self.lines.push(b'\n');
        }
    }

    /// Queues the lines. Returns the number of events that are lost because the observer is too slow.
    pub(super) fn flush(&mut self) -> u64 {
        let events = std::mem::take(&mut self.events);
        let lines = std::mem::take(&mut self.lines);
        let is_full = self.queued.load(Relaxed) + lines.len() > QUEUED_BYTES;
        let Some(permit) = (!is_full).then(|| self.sink.try_reserve().ok()).flatten() else {
            self.losses.add(LossReason::Observer, Some(events));
            return events;
        };
        let mut bytes = Vec::new();
        for lost in self.losses.take() {
            bytes.extend_from_slice(&encode(&StreamLine::LostEvents(lost)));
        }
        bytes.extend_from_slice(&lines);
        if !bytes.is_empty() {
            self.queued.fetch_add(bytes.len(), Relaxed);
            permit.send(Chunk { bytes: bytes.into() });
        }
        0
    }
}

/// Returns a line.
pub(super) fn encode(line: &StreamLine) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(line).expect("keys of documents are text");
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::super::test_events::dropped;
    use super::*;

    async fn next(lines: &mut ObserverLines) -> Bytes {
        lines.frame().await.expect("it is queued").expect("infallible").into_data().expect("it is data")
    }

    #[tokio::test]
    async fn slow_observer_loses_counted_events() {
        let (mut observer, mut lines) = Observer::new(EventFilter::default());
        let line = encode(&StreamLine::TrafficEvent(Box::new(dropped())));
        let mut lost = 0;
        for _ in 0..QUEUED_CHUNKS + 5 {
            observer.add_event(&line);
            observer.add_event(&line);
            lost += observer.flush();
        }
        assert_eq!(lost, 10);
        for _ in 0..QUEUED_CHUNKS {
            assert_eq!(next(&mut lines).await.len(), 2 * line.len());
        }
        observer.add_event(&line);
        assert_eq!(observer.flush(), 0);
        let text = String::from_utf8(next(&mut lines).await.to_vec()).expect("JSON is UTF-8");
        let (first, second) = text.split_once('\n').expect("two lines");
        assert_eq!(first, r#"{"kind":"LostEvents","reason":"observer","events":10}"#);
        assert_eq!(second.as_bytes(), line);
    }

    #[tokio::test]
    async fn queue_is_bounded_in_bytes() {
        let (mut observer, _lines) = Observer::new(EventFilter::default());
        let line = vec![b'x'; 1 << 20];
        let lost: u64 = (0..QUEUED_CHUNKS)
            .map(|_| {
                observer.add_event(&line);
                observer.flush()
            })
            .sum();
        assert_eq!(lost, (QUEUED_CHUNKS - (QUEUED_BYTES >> 20)) as u64);
    }

    #[tokio::test]
    async fn problems_are_reported_when_they_begin_change_and_end() {
        let (mut observer, mut lines) = Observer::new(EventFilter::default());
        let error = "cannot be observed: no buffer space; retrying";
        observer.end_problem("drops");
        observer.set_problem("drops", "are not observed yet");
        observer.set_problem("drops", error);
        observer.set_problem("drops", error);
        observer.end_problem("drops");
        observer.end_problem("drops");
        observer.set_problem("drops", error);
        observer.flush();
        let text = String::from_utf8(next(&mut lines).await.to_vec()).expect("JSON is UTF-8");
        let messages = ["are not observed yet", error, "are observed now", error];
        let expected =
            messages.map(|message| format!("{{\"kind\":\"Notice\",\"message\":\"drops {message}\"}}\n"));
        assert_eq!(text, expected.concat());
    }
}
