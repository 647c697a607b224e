//! The reflector of one kind: lists it, and then watches it, with one request at a time.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_cluster::{Backoff, Event, Kind};
use tokio::sync::mpsc;

use super::line_splitter::LineSplitter;
use super::list_page::{NextPage, PageReader};
use super::list_watch::ListWatch;
use super::request::{Request, http_request, path};
use super::request_error::{RequestError, StatusError};
use super::response::{Response, send_request};
use super::watch_stream::WatchStream;
use super::{EventRecorder, ListWatchOptions};
use crate::source::connection::Connection;
use crate::source::jitter::random;
use crate::source::object_reader::{InvalidObjects, ObjectReader};
use crate::source::selection::Selection;
use crate::source::source_health::SourceHealth;

/// How many 404 responses in a row it takes until a kind counts as not served and its objects as deleted. An API server that
/// starts returns 404 until it has read its CustomResourceDefinitions; policies must not be removed for that.
const UNSERVED_RESPONSES: u32 = 6;

/// The number of objects of a list that are sent together. Each batch is an iteration of the event loop.
const LIST_BATCH: usize = 100;

/// The largest number of pages of a list: 5 million objects in pages of 50.
const MAX_PAGES: usize = 100_000;

/// Sends the events of one kind into `sink` until its receiver is dropped. Invalid policies are reported to `recorder`. The first
/// list begins after the time `first_list`.
pub(in crate::source) async fn run(
    selection: Selection,
    connection: Arc<Connection>,
    options: ListWatchOptions,
    health: Arc<SourceHealth>,
    sink: mpsc::Sender<Vec<Event>>,
    recorder: EventRecorder,
    first_list: Duration,
) {
    let reader = ObjectReader::new(selection.kind).with_events(recorder);
    let backoff = Backoff::new(options.initial_backoff, options.max_backoff);
    let mut reflector = Reflector {
        selection,
        connection,
        options,
        health,
        sink,
        reader,
        backoff,
        reported_no_streams: false,
        reported_unserved: false,
        served: false,
        unserved_responses: 0,
        tokens: HashSet::new(),
        client: 0,
    };
    let mut state = ListWatch::START;
    tokio::time::sleep(first_list).await;
    loop {
        let start = Instant::now();
        let error = match reflector.step(&mut state).await {
            Ok(()) => continue,
            Err(RequestError::ReceiverClosed) => return,
            Err(error) => error,
        };
        let Ok(wait) = reflector.handle_error(&mut state, error, start.elapsed()).await else { return };
        tokio::time::sleep(wait).await;
    }
}

struct Reflector {
    selection: Selection,
    connection: Arc<Connection>,
    options: ListWatchOptions,
    health: Arc<SourceHealth>,
    sink: mpsc::Sender<Vec<Event>>,
    reader: ObjectReader,
    backoff: Backoff,
    reported_no_streams: bool,
    reported_unserved: bool,
    /// The kind was listed.
    served: bool,
    /// The number of 404 responses in a row.
    unserved_responses: u32,
    /// Hashes of the continue tokens of the current list.
    tokens: HashSet<u64>,
    /// The number of the client of the last request.
    client: u64,
}

impl Reflector {
    /// Makes one request, handles its response to the end, and sets `state` to the next request.
    async fn step(&mut self, state: &mut ListWatch) -> Result<(), RequestError> {
        let seconds = self.watch_seconds();
        let what = match state {
            ListWatch::StreamingList { .. } => Request::StreamingList { seconds },
            ListWatch::PagedList { next, size } => Request::Page { next: next.as_deref(), size: *size },
            ListWatch::Watch { revision, .. } => Request::Watch { revision, seconds },
        };
        let (client, number) = self.connection.numbered_client().await?;
        self.client = number;
        self.health.set_credentials_problem(self.connection.credentials_problem());
        let response =
            send_request(&client, http_request(&self.selection, what), self.options.response_timeout).await?;
        if matches!(state, ListWatch::Watch { .. }) {
            // A watch may have no events for a long time. A list is a contact once objects arrive.
            self.health.record_contact(self.selection.kind);
        }
        match state {
            ListWatch::PagedList { .. } => self.page(response, state).await,
            ListWatch::StreamingList { .. } | ListWatch::Watch { .. } => self.watch(response, state).await,
        }
    }

    async fn page(&mut self, response: Response, state: &mut ListWatch) -> Result<(), RequestError> {
        let ListWatch::PagedList { next, size } = state else { return Ok(()) };
        let is_first = next.is_none();
        let (kind, size) = (self.selection.kind, *size);
        let mut reader = std::mem::replace(&mut self.reader, ObjectReader::new(kind));
        let page = PageReader::new(kind, is_first, &mut reader);
        let read = self.read_page(response, page).await;
        self.reader = reader;
        let (events, next) = read?;
        if is_first {
            self.tokens.clear();
        }
        if let NextPage::Token(token) = &next
            && (!self.tokens.insert(hash(token)) || self.tokens.len() >= MAX_PAGES)
        {
            return Err(RequestError::EndlessList(self.tokens.len()));
        }
        if !is_first || matches!(next, NextPage::End(_)) {
            // A server that repeats the first page for ever must not seem to work.
            self.health.record_contact(kind);
        }
        *state = match next {
            NextPage::Token(token) => ListWatch::PagedList { next: Some(token), size },
            NextPage::End(revision) => ListWatch::Watch { revision, idle_watches: 0 },
        };
        let invalid = self.reader.take_invalid();
        self.send(events, invalid).await
    }

    /// Reads a page to its end, and returns its last events. After an error, the page is requested again.
    async fn read_page(
        &mut self,
        response: Response,
        mut page: PageReader<'_>,
    ) -> Result<(Vec<Event>, NextPage), RequestError> {
        let mut parts = response.into_parts(self.options.response_timeout);
        while let Some((bytes, has_progress)) = parts.next().await? {
            if has_progress {
                self.health.record_contact(self.selection.kind);
            }
            page.push(bytes.as_ref())?;
            if page.events.len() >= LIST_BATCH {
                self.send(std::mem::take(&mut page.events), page.take_invalid()).await?;
            }
        }
        page.finish()
    }

    async fn watch(&mut self, mut response: Response, state: &mut ListWatch) -> Result<(), RequestError> {
        let kind = self.selection.kind;
        let mut reader = std::mem::replace(&mut self.reader, ObjectReader::new(kind));
        let mut watch = match &*state {
            ListWatch::Watch { revision, .. } => WatchStream::after(kind, revision, &mut reader),
            ListWatch::StreamingList { .. } | ListWatch::PagedList { .. } => {
                WatchStream::with_list(kind, &mut reader)
            }
        };
        let result = self.stream(&mut response, &mut watch, state).await;
        self.reader = reader;
        result
    }

    /// Handles a stream of watch events to its end.
    async fn stream(
        &mut self,
        response: &mut Response,
        watch: &mut WatchStream<'_>,
        state: &mut ListWatch,
    ) -> Result<(), RequestError> {
        let start = Instant::now();
        let plural = self.selection.kind.plural();
        let (mut lines, mut received) = (LineSplitter::default(), false);
        let mut last_event = Instant::now();
        loop {
            let limit =
                if watch.listed() { self.options.idle_timeout } else { self.options.response_timeout };
            // The limit is for a whole event: a connection that delivers single bytes is as good as dead.
            let bytes = response.next(limit.saturating_sub(last_event.elapsed())).await;
            let bytes = bytes.map_err(|error| error.with_limit(limit));
            let mut events = 0_usize;
            let parsed = match &bytes {
                Ok(Some(bytes)) => lines.push(plural, bytes.as_ref(), |line| {
                    events += 1;
                    watch.line(line)
                }),
                _ => Ok(()),
            };
            if events > 0 && parsed.is_ok() {
                received = true;
                last_event = Instant::now();
                self.health.record_contact(self.selection.kind);
            }
            if let (true, Some(revision)) = (watch.listed(), &watch.revision) {
                // Keeps the resourceVersion of the events so far, even if an error follows.
                if received {
                    *state = ListWatch::Watch { revision: revision.clone(), idle_watches: 0 };
                    self.backoff.reset();
                }
            }
            if watch.listed() || watch.events.len() >= LIST_BATCH {
                let sending = Instant::now();
                self.send(std::mem::take(&mut watch.events), watch.take_invalid()).await?;
                // Waiting for the receiver is no silence of the server.
                last_event += sending.elapsed();
            }
            parsed?;
            if bytes?.is_none() {
                break;
            }
        }
        match (watch.listed(), lines.has_partial_line(), received) {
            (false, ..) => {
                Err(RequestError::Disconnected("the response ended before the list was complete".into()))
            }
            (_, true, _) => {
                Err(RequestError::Disconnected("the response ended in the middle of an event".into()))
            }
            (.., true) => Ok(()),
            (.., false)
                if start.elapsed() >= self.options.idle_timeout.min(self.options.watch_duration.start) =>
            {
                Err(RequestError::TimedOut(start.elapsed()))
            }
            (.., false) => {
                Err(RequestError::Disconnected("the watch was closed before its first event".into()))
            }
        }
    }

    /// Sends events, and waits while the channel is full.
    async fn send(
        &mut self,
        events: Vec<Event>,
        invalid: Option<InvalidObjects>,
    ) -> Result<(), RequestError> {
        let kind = self.selection.kind;
        // Before the events are sent, so that the receiver finds the reasons of unread objects.
        if let Some(invalid) = invalid {
            self.health.set_invalid(kind, invalid.unreadable.len(), invalid.with_problems);
            self.health.set_unreadable(Some(kind), invalid.unreadable);
        }
        if events.is_empty() {
            return Ok(());
        }
        let listed = events.contains(&Event::Listed(kind));
        self.sink.send(events).await.map_err(|_| RequestError::ReceiverClosed)?;
        if listed {
            self.health.record_list(kind);
            self.health.set_unserved(kind, false);
            (self.reported_unserved, self.served, self.unserved_responses) = (false, true, 0);
        }
        Ok(())
    }

    /// Handles an error and returns the wait before the next request.
    ///
    /// # Errors
    /// The receiver of the events was dropped.
    async fn handle_error(
        &mut self,
        state: &mut ListWatch,
        error: RequestError,
        duration: Duration,
    ) -> Result<Duration, RequestError> {
        if let (RequestError::Rejected(StatusError { code: 404, .. }), true) =
            (&error, self.selection.optional)
        {
            return self.handle_unserved(state).await;
        }
        match &error {
            RequestError::Unreachable(_) => self.connection.forget(self.client, false).await,
            RequestError::Rejected(StatusError { code: 401, .. }) => {
                self.connection.forget(self.client, true).await;
            }
            _ => {}
        }
        if matches!(error, RequestError::Rejected(_)) {
            // Another error than 404: the kind may be served now.
            self.health.set_unserved(self.selection.kind, false);
            self.unserved_responses = 0;
        }
        let before = state.clone();
        let (next, immediately) = before.clone().after(&error, self.options.page_size);
        *state = next;
        self.report(&before, state, &error);
        let is_watch = matches!(before, ListWatch::Watch { .. });
        if immediately || (is_watch && duration >= self.options.initial_backoff && is_expected(&error)) {
            let needs_list = is_watch && *state == ListWatch::START;
            return Ok(if needs_list { self.list_wait() } else { Duration::ZERO });
        }
        let retry_after = match &error {
            RequestError::Rejected(status_error) => {
                status_error.retry_after.unwrap_or_default().min(self.options.max_retry_after())
            }
            _ => Duration::ZERO,
        };
        let wait = self.backoff.next_wait_with_jitter(random());
        Ok(if retry_after > wait {
            retry_after + self.options.initial_backoff.mul_f64(random())
        } else {
            wait
        })
    }

    /// Handles a 404 for an optional kind: it has no objects. Objects that were served before are kept until several
    /// responses in a row were 404.
    async fn handle_unserved(&mut self, state: &mut ListWatch) -> Result<Duration, RequestError> {
        *state = ListWatch::START;
        let kind = self.selection.kind;
        let wait = self.options.unserved_retry().mul_f64(0.5 + random() / 2.0);
        self.health.record_contact(kind);
        self.unserved_responses = self.unserved_responses.saturating_add(1);
        if self.served && self.unserved_responses < UNSERVED_RESPONSES {
            if self.unserved_responses == 1 {
                tracing::warn!(%kind, "the API server no longer serves {}; keeping its objects for now", path(kind));
            }
            return Ok(wait);
        }
        if !self.reported_unserved {
            tracing::info!(%kind, "the API server does not serve {}; assuming that there are no such objects", path(kind));
            self.reader.list_started();
            self.reader.listed();
            self.send(vec![Event::ListStarted(kind), Event::Listed(kind)], Some(InvalidObjects::default()))
                .await?;
            (self.reported_unserved, self.served) = (true, false);
        }
        self.health.set_unserved(kind, true);
        Ok(wait)
    }

    /// Returns the wait before a list that replaces a watch. After a restart of the API server, all nodes may need one.
    fn list_wait(&self) -> Duration {
        self.options.initial_backoff.max(self.options.list_jitter).mul_f64(random())
    }

    fn report(&mut self, before: &ListWatch, next: &ListWatch, error: &RequestError) {
        let kind = self.selection.kind;
        if let (ListWatch::StreamingList { .. }, ListWatch::PagedList { .. }) = (before, next) {
            if !std::mem::replace(&mut self.reported_no_streams, true) {
                tracing::info!(%kind, "the API server does not support streaming lists; using paginated lists: {error}");
            }
            return;
        }
        let (plural, hint) = (kind.plural(), self.hint(error));
        self.health.record_failure(kind, format!("{error}{hint}"));
        match (before, error) {
            (ListWatch::Watch { .. }, RequestError::Disconnected(_)) => {
                tracing::debug!(%kind, "watching {plural}: {error}")
            }
            (ListWatch::Watch { .. }, RequestError::Rejected(no)) if no.is_expired() => {
                tracing::info!(%kind, "watching {plural}: {error}; listing again");
            }
            (ListWatch::Watch { .. }, _) => tracing::warn!(%kind, "watching {plural}: {error}{hint}"),
            _ => tracing::warn!(%kind, "listing {plural}: {error}{hint}"),
        }
    }

    /// Returns what an operator can do about an error.
    fn hint(&self, error: &RequestError) -> String {
        let RequestError::Rejected(status_error) = error else { return String::new() };
        let kind = self.selection.kind;
        match status_error.code {
            401 => format!(
                "; the credentials are not accepted, renew {}",
                self.connection.access().credentials()
            ),
            403 => format!(
                "; allow this user to list and watch {} (API group {:?}), as the ClusterRole {} does",
                kind.plural(),
                kind.api_version().split_once('/').map_or("", |(group, _)| group),
                cluster_role(kind)
            ),
            404 => format!("; this server does not serve {}", path(kind)),
            _ => String::new(),
        }
    }

    fn watch_seconds(&self) -> u64 {
        let length = self.options.watch_duration.end.saturating_sub(self.options.watch_duration.start);
        (self.options.watch_duration.start + length.mul_f64(random())).as_secs().max(1)
    }
}

/// The kinds that the ClusterRole `system:node-proxier` of Kubernetes allows to list and watch.
const NODE_PROXIER: [Kind; 4] = [Kind::Node, Kind::Service, Kind::EndpointSlice, Kind::ServiceCidr];

/// Returns the ClusterRole that allows a proxy to list and watch a kind: that of Kubernetes, or the one of
/// docs/network-policy.md.
fn cluster_role(kind: Kind) -> &'static str {
    if NODE_PROXIER.contains(&kind) {
        return "system:node-proxier";
    }
    "portcullis-network-policy (docs/network-policy.md, deploy/kustomize/network-policy/rbac.yaml)"
}

fn hash(token: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    token.hash(&mut hasher);
    hasher.finish()
}

/// Returns true for errors with which long watches usually end.
fn is_expected(error: &RequestError) -> bool {
    match error {
        RequestError::Disconnected(_) => true,
        RequestError::Rejected(status_error) => status_error.is_expired(),
        _ => false,
    }
}
