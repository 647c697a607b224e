//! Follows one kind: a request at a time, for ever.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_cluster::{Event, Kind};
use tokio::sync::mpsc;

use super::answer::{Answer, ask};
use super::failure::{Failure, Refusal};
use super::lines::Lines;
use super::list::{self, Then};
use super::request::{Ask, path, request};
use super::state::State;
use super::watch::Watch;
use super::{Pace, Recorder};
use crate::source::access::Connection;
use crate::source::backoff::{Backoff, random};
use crate::source::health::Health;
use crate::source::report::{Doubtful, Reader};
use crate::source::selection::Selection;

/// How many answers in a row must say that a kind is not served before its objects are taken for deleted. An API server that
/// starts, and has not read its CustomResourceDefinitions yet, says so for a moment; policies must not be lifted for that.
const UNSERVED_ANSWERS: u32 = 6;

/// Follows one kind until nobody listens any more. What is wrong with policies goes to `recorder`.
pub(in crate::source) async fn follow(
    selection: Selection,
    connection: Arc<Connection>,
    pace: Pace,
    health: Arc<Health>,
    sink: mpsc::Sender<Vec<Event>>,
    recorder: Recorder,
) {
    let reader = Reader::new(selection.kind).complaining(recorder);
    let backoff = Backoff::new(pace.first_wait, pace.longest_wait);
    let mut follower = Follower {
        selection,
        connection,
        pace,
        health,
        sink,
        reader,
        backoff,
        said_no_streams: false,
        said_absent: false,
        served: false,
        unserved_answers: 0,
    };
    let mut state = State::LIST;
    loop {
        let begun = Instant::now();
        let failure = match follower.step(&mut state).await {
            Ok(()) => continue,
            Err(Failure::NobodyListens) => return,
            Err(failure) => failure,
        };
        let Ok(wait) = follower.after(&mut state, failure, begun.elapsed()).await else { return };
        tokio::time::sleep(wait).await;
    }
}

struct Follower {
    selection: Selection,
    connection: Arc<Connection>,
    pace: Pace,
    health: Arc<Health>,
    sink: mpsc::Sender<Vec<Event>>,
    reader: Reader,
    backoff: Backoff,
    said_no_streams: bool,
    said_absent: bool,
    /// Its objects were listed.
    served: bool,
    /// How many answers in a row have said that it is not served.
    unserved_answers: u32,
}

impl Follower {
    /// Makes one request, takes in its answer to the end, and leaves in `state` what comes next.
    async fn step(&mut self, state: &mut State) -> Result<(), Failure> {
        let seconds = self.watch_seconds();
        let what = match state {
            State::Stream { .. } => Ask::Stream { seconds },
            State::Page { next, size } => Ask::Page { next: next.as_deref(), size: *size },
            State::Watch { revision, .. } => Ask::Watch { revision, seconds },
        };
        let client = self.connection.client().await?;
        let answer = ask(&client, request(&self.selection, what), self.pace.answer).await?;
        self.health.heard(self.selection.kind);
        match state {
            State::Page { .. } => self.page(answer, state).await,
            State::Stream { .. } | State::Watch { .. } => self.watch(answer, state).await,
        }
    }

    async fn page(&mut self, answer: Answer, state: &mut State) -> Result<(), Failure> {
        let State::Page { next, size } = state else { return Ok(()) };
        let kind = self.selection.kind;
        let health = &self.health;
        let body = answer.whole(self.pace.answer, || health.heard(kind)).await?;
        let page = list::read(kind, next.is_none(), &body, &mut self.reader)?;
        drop(body);
        let (events, then) = (page.events, page.then);
        *state = match then {
            Then::Next(token) => State::Page { next: Some(token), size: *size },
            Then::End(revision) => State::Watch { revision, silent: 0 },
        };
        let doubtful = self.reader.doubtful();
        self.send(events, doubtful).await
    }

    async fn watch(&mut self, mut answer: Answer, state: &mut State) -> Result<(), Failure> {
        let kind = self.selection.kind;
        let mut reader = std::mem::replace(&mut self.reader, Reader::new(kind));
        let mut watch = match &*state {
            State::Watch { revision, .. } => Watch::after(kind, revision, &mut reader),
            State::Stream { .. } | State::Page { .. } => Watch::with_list(kind, &mut reader),
        };
        let result = self.stream(&mut answer, &mut watch, state).await;
        self.reader = reader;
        result
    }

    /// Takes in a stream of events to its end.
    async fn stream(
        &mut self,
        answer: &mut Answer,
        watch: &mut Watch<'_>,
        state: &mut State,
    ) -> Result<(), Failure> {
        let begun = Instant::now();
        let (mut lines, mut heard) = (Lines::default(), false);
        loop {
            let patience = if watch.listed() { self.pace.silence } else { self.pace.answer };
            let bytes = answer.next(patience).await;
            let taken = match &bytes {
                Ok(Some(bytes)) => lines.take(bytes.as_ref(), |line| watch.line(line)),
                _ => Ok(()),
            };
            if matches!(bytes, Ok(Some(_))) && taken.is_ok() {
                heard = true;
                self.health.heard(self.selection.kind);
            }
            if let (true, Some(revision)) = (watch.listed(), &watch.revision) {
                // All good news so far counts, whatever comes next.
                if heard {
                    *state = State::Watch { revision: revision.clone(), silent: 0 };
                    self.backoff.reset();
                }
            }
            self.send(std::mem::take(&mut watch.events), watch.doubtful()).await?;
            taken?;
            if bytes?.is_none() {
                break;
            }
        }
        match (watch.listed(), lines.in_mid_line(), heard) {
            (false, ..) => Err(Failure::Broken("it ended before the list was complete".into())),
            (_, true, _) => Err(Failure::Broken("it ended in the middle of an event".into())),
            (.., true) => Ok(()),
            (.., false) if begun.elapsed() >= self.pace.silence.min(self.pace.watch.start) => {
                Err(Failure::Silent(begun.elapsed()))
            }
            (.., false) => Err(Failure::Broken("a watch was closed before it brought anything".into())),
        }
    }

    /// Hands events on, and waits while the receiver is busy.
    async fn send(&mut self, events: Vec<Event>, doubtful: Doubtful) -> Result<(), Failure> {
        if events.is_empty() {
            return Ok(());
        }
        let kind = self.selection.kind;
        let listed = events.contains(&Event::Listed(kind));
        // Before the events, so that why an object is unread can be told as soon as it is known to be.
        self.health.doubtful(kind, doubtful.unreadable.len(), doubtful.with_problems);
        self.health.set_unreadable(Some(kind), doubtful.unreadable);
        self.sink.send(events).await.map_err(|_| Failure::NobodyListens)?;
        if listed {
            self.health.listed(kind);
            self.health.set_absent(kind, false);
            (self.said_absent, self.served, self.unserved_answers) = (false, true, 0);
        }
        Ok(())
    }

    /// Takes in a failure, and says how long to wait. Fails when nobody listens.
    async fn after(
        &mut self,
        state: &mut State,
        failure: Failure,
        lived: Duration,
    ) -> Result<Duration, Failure> {
        if let (Failure::Refused(Refusal { code: 404, .. }), true) = (&failure, self.selection.optional) {
            return self.absent(state).await;
        }
        if matches!(failure, Failure::Unreachable(_) | Failure::Refused(Refusal { code: 401, .. })) {
            self.connection.forget().await;
        }
        if matches!(failure, Failure::Refused(_)) {
            // The kind is served now, or may be: the server no longer says that it is not.
            self.health.set_absent(self.selection.kind, false);
            self.unserved_answers = 0;
        }
        let before = state.clone();
        let (next, now) = before.clone().after(&failure, self.pace.page);
        *state = next;
        self.report(&before, state, &failure);
        if now
            || (matches!(before, State::Watch { .. })
                && lived >= self.pace.first_wait
                && is_ordinary(&failure))
        {
            return Ok(Duration::ZERO);
        }
        let asked = match &failure {
            Failure::Refused(refusal) => {
                refusal.retry_after.unwrap_or_default().min(self.pace.longest_retry_after())
            }
            _ => Duration::ZERO,
        };
        let wait = self.backoff.wait();
        Ok(if asked > wait { asked + self.pace.first_wait.mul_f64(random()) } else { wait })
    }

    /// The server does not serve this kind, and need not: there are no such objects. Those that it served before are kept
    /// until it has said so several times.
    async fn absent(&mut self, state: &mut State) -> Result<Duration, Failure> {
        *state = State::LIST;
        let kind = self.selection.kind;
        let wait = self.pace.absent_wait().mul_f64(0.5 + random() / 2.0);
        self.health.heard(kind);
        self.unserved_answers = self.unserved_answers.saturating_add(1);
        if self.served && self.unserved_answers < UNSERVED_ANSWERS {
            if self.unserved_answers == 1 {
                tracing::warn!(%kind, "the API server does not serve {} any more; keeping its objects for now", path(kind));
            }
            return Ok(wait);
        }
        if !self.said_absent {
            tracing::info!(%kind, "the API server does not serve {}; taken as empty", path(kind));
            self.reader.list_started();
            self.reader.listed();
            self.send(vec![Event::ListStarted(kind), Event::Listed(kind)], Doubtful::default()).await?;
            (self.said_absent, self.served) = (true, false);
        }
        self.health.set_absent(kind, true);
        Ok(wait)
    }

    fn report(&mut self, before: &State, next: &State, failure: &Failure) {
        let kind = self.selection.kind;
        if let (State::Stream { .. }, State::Page { .. }) = (before, next) {
            if !std::mem::replace(&mut self.said_no_streams, true) {
                tracing::info!(%kind, "no streaming list, so by pages: {failure}");
            }
            return;
        }
        let (plural, way_out) = (kind.plural(), self.way_out(failure));
        self.health.failed(kind, format!("{failure}{way_out}"));
        match (before, failure) {
            (State::Watch { .. }, Failure::Broken(_)) => {
                tracing::debug!(%kind, "watching {plural}: {failure}")
            }
            (State::Watch { .. }, Failure::Refused(no)) if no.is_expired() => {
                tracing::info!(%kind, "watching {plural}: {failure}; listing again");
            }
            (State::Watch { .. }, _) => tracing::warn!(%kind, "watching {plural}: {failure}{way_out}"),
            _ => tracing::warn!(%kind, "listing {plural}: {failure}{way_out}"),
        }
    }

    /// What the operator can do about a failure.
    fn way_out(&self, failure: &Failure) -> String {
        let Failure::Refused(refusal) = failure else { return String::new() };
        let kind = self.selection.kind;
        match refusal.code {
            401 => format!(
                "; our credentials are not accepted, renew {}",
                self.connection.access().credentials()
            ),
            403 => format!(
                "; allow our user to list and watch {} (API group {:?}), as the ClusterRole {} does",
                kind.plural(),
                kind.api_version().split_once('/').map_or("", |(group, _)| group),
                cluster_role(kind)
            ),
            404 => format!("; this server does not serve {}", path(kind)),
            _ => String::new(),
        }
    }

    fn watch_seconds(&self) -> u64 {
        let length = self.pace.watch.end.saturating_sub(self.pace.watch.start);
        (self.pace.watch.start + length.mul_f64(random())).as_secs().max(1)
    }
}

/// The ClusterRole that allows a proxy to list and watch a kind: Kubernetes' own, or ours of docs/network-policy.md.
fn cluster_role(kind: Kind) -> &'static str {
    match kind {
        Kind::Service | Kind::EndpointSlice | Kind::Node | Kind::ServiceCidr => "system:node-proxier",
        Kind::Namespace | Kind::Pod | Kind::NetworkPolicy | Kind::ClusterNetworkPolicy => {
            "portcullis-network-policy (docs/network-policy.md, deploy/kustomize/network-policy/rbac.yaml)"
        }
    }
}

/// A failure that long watches end in.
fn is_ordinary(failure: &Failure) -> bool {
    match failure {
        Failure::Broken(_) => true,
        Failure::Refused(refusal) => refusal.is_expired(),
        _ => false,
    }
}
