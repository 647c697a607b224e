//! The hub: starts and stops the observation, and passes events to observers.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use portcullis_cluster::Name;
use portcullis_netlink::conntrack::ConnectionEvents;
use portcullis_netlink::log::PacketLog;
use portcullis_netlink::nf_tables::{self, TableFamily, read_counters};
use portcullis_policy::table::TABLE;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::document::{LossReason, Observation, StreamLine};
use super::filter::EventFilter;
use super::losses::RateLimitLosses;
use super::names::{NameCache, look_up};
use super::naming::Naming;
use super::notices::Notices;
use super::observer::{Observer, ObserverLines, encode};
use super::reader::{Batch, Connections, Drops, Reader};
use super::switch::{RulesState, Switch};
use super::unmatched_filter;
use crate::control::Queries;
use crate::document::API_VERSION;
use crate::observe::metrics::TrafficEventMetrics;

/// The greatest number of observers at a time.
const MAX_OBSERVERS: usize = 16;

/// The NFLOG groups, of which the first that is free is used.
const GROUPS: std::ops::Range<u16> = 61_700..61_716;

/// The time after the last observer has left, after which nothing is observed.
const LINGER: Duration = Duration::from_secs(1);

/// The period at which observers that left are found.
const TICK: Duration = Duration::from_millis(250);

/// The period of lines that keep a connection open.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The period of reading the drop counters.
const COUNTER_PERIOD: Duration = Duration::from_secs(2);

/// The time limit for a query of names.
const QUERY_LIMIT: Duration = Duration::from_secs(1);

/// The batches that wait for the hub.
const QUEUED_BATCHES: usize = 4;

/// A request to observe.
pub(super) struct Subscription {
    pub(super) filter: EventFilter,
    pub(super) response: oneshot::Sender<Result<ObserverLines, String>>,
}

/// The hub.
pub(super) struct Hub {
    node: Name,
    switch: Switch,
    queries: Queries,
    metrics: TrafficEventMetrics,
    observers: Vec<Observer>,
    batches: mpsc::Receiver<Batch>,
    sink: mpsc::Sender<Batch>,
    drops: Option<DropReader>,
    connections: Option<Reader>,
    names: NameCache,
    naming: Naming,
    last_needed: HashMap<Source, Instant>,
    last_keep_alive: Instant,
}

/// What is observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    Drops,
    Connections,
}

/// The reader of drops.
struct DropReader {
    _reader: Reader,
    group: u16,
    started: Instant,
    has_flows: bool,
    rate_limit: RateLimitLosses,
    last_counters: Option<Instant>,
}

impl Hub {
    pub(super) fn new(node: Name, switch: Switch, queries: Queries, metrics: TrafficEventMetrics) -> Self {
        let (sink, batches) = mpsc::channel(QUEUED_BATCHES);
        Hub {
            node,
            switch,
            queries,
            metrics,
            observers: Vec::new(),
            batches,
            sink,
            drops: None,
            connections: None,
            names: NameCache::default(),
            naming: Naming::default(),
            last_needed: HashMap::new(),
            last_keep_alive: Instant::now(),
        }
    }

    /// Serves observers until all senders of subscriptions are dropped.
    pub(super) async fn run(mut self, mut subscriptions: mpsc::Receiver<Subscription>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_active = !self.observers.is_empty() || self.drops.is_some() || self.connections.is_some();
            tokio::select! {
                subscription = subscriptions.recv() => match subscription {
                    Some(subscription) => self.subscribe(subscription).await,
                    None => break,
                },
                Some(batch) = self.batches.recv() => self.dispatch(batch).await,
                _ = tick.tick(), if is_active => self.tick(Instant::now()).await,
            }
        }
        self.switch.set(None);
    }

    async fn subscribe(&mut self, subscription: Subscription) {
        let Subscription { filter, response } = subscription;
        if self.observers.len() >= MAX_OBSERVERS {
            let _ = response.send(Err(format!("there are {MAX_OBSERVERS} observers already")));
            return;
        }
        if let Err(error) = self.start(&filter) {
            let _ = response.send(Err(error));
            return;
        }
        let unmatched = self.find_unmatched(&filter).await;
        let (mut observer, lines) = Observer::new(filter);
        let (api_version, node) = (API_VERSION.to_owned(), self.node.to_string());
        observer.add_line(&StreamLine::Observation(Observation { api_version, node }));
        self.add_notices(&mut observer);
        unmatched.iter().for_each(|notice| observer.add_notice(notice));
        observer.flush();
        if response.send(Ok(lines)).is_ok() {
            self.observers.push(observer);
            self.metrics.set_observers(self.observers.len());
        }
    }

    /// Starts the readers that a filter needs.
    fn start(&mut self, filter: &EventFilter) -> Result<(), String> {
        let now = Instant::now();
        if filter.needs_drops() {
            self.last_needed.insert(Source::Drops, now);
            if self.drops.is_none() {
                self.drops = Some(start_drops(self.sink.clone())?);
                self.switch.set(self.drops.as_ref().map(|drops| drops.group));
            }
        }
        if filter.needs_connections() {
            self.last_needed.insert(Source::Connections, now);
            if self.connections.is_none() {
                let events = ConnectionEvents::listen().map_err(|error| error.to_string())?;
                let reader = Reader::start(Connections::new(events), self.sink.clone());
                self.connections = Some(reader.map_err(|error| error.to_string())?);
            }
        }
        Ok(())
    }

    /// Tells an observer what it cannot see.
    fn add_notices(&self, observer: &mut Observer) {
        let notices = Notices {
            switch: &self.switch,
            lacks_pods: self.names.lacks_pods(),
            drops: self.drops.as_ref().map(|drops| (drops.started.elapsed(), drops.has_flows)),
        };
        notices.add_to(observer);
    }

    /// Returns the notices about conditions that no event on this node meets.
    async fn find_unmatched(&self, filter: &EventFilter) -> Vec<String> {
        if !filter.has_names() && filter.policy.is_none() {
            return Vec::new();
        }
        let (filter, node) = (filter.clone(), self.node.to_string());
        // Before the objects are listed, none exists.
        let notices = self.queries.ask(QUERY_LIMIT, move |state| {
            Some(if state.is_ready {
                unmatched_filter::notices(&filter, state.index, &node)
            } else {
                Vec::new()
            })
        });
        notices.await.unwrap_or_else(|error| vec![format!("names are missing: {error}")])
    }

    async fn tick(&mut self, now: Instant) {
        self.observers.retain(|observer| !observer.is_gone());
        self.metrics.set_observers(self.observers.len());
        self.stop_unneeded(now);
        let is_keep_alive_due = now.duration_since(self.last_keep_alive) >= KEEP_ALIVE;
        if is_keep_alive_due {
            self.last_keep_alive = now;
        }
        self.find_rate_limit_losses(now).await;
        let mut observers = std::mem::take(&mut self.observers);
        for observer in &mut observers {
            self.add_notices(observer);
            if is_keep_alive_due {
                observer.keep_alive();
            }
            observer.flush();
        }
        self.observers = observers;
    }

    /// Stops what no observer has needed for a while.
    fn stop_unneeded(&mut self, now: Instant) {
        for observer in &self.observers {
            if observer.filter.needs_drops() {
                self.last_needed.insert(Source::Drops, now);
            }
            if observer.filter.needs_connections() {
                self.last_needed.insert(Source::Connections, now);
            }
        }
        let is_unneeded =
            |source| self.last_needed.get(&source).is_none_or(|at| now.duration_since(*at) > LINGER);
        let (drops, connections) = (is_unneeded(Source::Drops), is_unneeded(Source::Connections));
        if drops && self.drops.take().is_some() {
            self.switch.set(None);
        }
        if connections {
            self.connections = None;
        }
        if drops && connections {
            self.names.clear();
            self.naming = Naming::default();
        }
    }

    /// Reports drops that rules did not log because of their rate limit.
    async fn find_rate_limit_losses(&mut self, now: Instant) {
        if !matches!(self.switch.reports().0, RulesState::Logged(_)) {
            return;
        }
        let Some(drops) = &mut self.drops else { return };
        let lost = drops.rate_limit.take();
        if lost > 0 {
            self.metrics.lost(LossReason::RateLimit, lost);
            let observers = self.observers.iter_mut().filter(|observer| observer.filter.needs_drops());
            observers.for_each(|observer| observer.add_loss(LossReason::RateLimit, Some(lost)));
        }
        let is_due = drops.last_counters.is_none_or(|at| now.duration_since(at) >= COUNTER_PERIOD);
        if is_due && drops.rate_limit.is_settled() {
            drops.last_counters = Some(now);
            match tokio::task::spawn_blocking(drop_counters).await {
                Ok(Ok(counters)) => drops.rate_limit.read(counters, Instant::now()),
                Ok(Err(error)) => tracing::debug!(%error, "cannot read drop counters"),
                Err(_) => {}
            }
        }
    }

    async fn dispatch(&mut self, batch: Batch) {
        self.handle_losses(&batch);
        if batch.events.is_empty() || self.observers.is_empty() {
            return;
        }
        for event in &batch.events {
            self.metrics.received(event.key.verdict, event.count.into());
        }
        let now = Instant::now();
        let wanted = self.names.missing(&batch.events, now);
        if !wanted.is_empty() {
            let query = wanted.clone();
            let found =
                self.queries.ask(QUERY_LIMIT, move |state| Some(look_up(&query, state.index, state.desired)));
            match found.await {
                Ok(found) => self.names.add(&wanted, found, now),
                Err(error) => self.notify_all(&format!("names are missing: {error}")),
            }
        }
        self.naming.set_labels(self.switch.reports().2);
        self.naming.list_interfaces(&batch.events, now);
        for event in &batch.events {
            let event = self.naming.document(event, &self.names);
            let mut line = None;
            for observer in self.observers.iter_mut().filter(|observer| observer.filter.matches(&event)) {
                let line =
                    line.get_or_insert_with(|| encode(&StreamLine::TrafficEvent(Box::new(event.clone()))));
                observer.add_event(line);
            }
        }
        let lost: u64 = self.observers.iter_mut().map(Observer::flush).sum();
        self.metrics.lost(LossReason::Observer, lost);
    }

    fn handle_losses(&mut self, batch: &Batch) {
        if let Some(drops) = &mut self.drops {
            drops.rate_limit.account(&batch.received, batch.lost_in_kernel, batch.drained);
        }
        self.metrics.lost(LossReason::Kernel, batch.lost_in_kernel + u64::from(batch.lost_uncounted));
        for observer in &mut self.observers {
            if observer.filter.needs_drops() {
                observer.add_loss(LossReason::Kernel, Some(batch.lost_in_kernel));
            }
            if observer.filter.needs_connections() && batch.lost_uncounted {
                observer.add_loss(LossReason::Kernel, None);
            }
        }
        if let Some(error) = &batch.error {
            tracing::warn!(%error, "cannot read traffic events any more; observers have to connect again");
            self.notify_all(&format!("cannot read events any more: {error}"));
            // The streams end.
            self.observers.clear();
        }
    }

    fn notify_all(&mut self, message: &str) {
        for observer in &mut self.observers {
            observer.add_notice(message);
            observer.flush();
        }
    }
}

/// Binds to a free NFLOG group, and starts its reader.
fn start_drops(sink: mpsc::Sender<Batch>) -> Result<DropReader, String> {
    for group in GROUPS {
        let log = PacketLog::bind(group).map_err(|error| match error.errno() {
            Some(libc::EINVAL) => format!("cannot observe drops: this kernel has no nfnetlink_log: {error}"),
            _ => format!("cannot observe drops: {error}"),
        })?;
        let Some(log) = log else { continue };
        let has_flows = log.has_flows();
        let reader = Reader::start(Drops::new(log), sink).map_err(|error| error.to_string())?;
        return Ok(DropReader {
            _reader: reader,
            group,
            started: Instant::now(),
            has_flows,
            rate_limit: RateLimitLosses::default(),
            last_counters: None,
        });
    }
    let (first, last) = (GROUPS.start, GROUPS.end - 1);
    Err(format!(
        "cannot observe drops: the NFLOG groups {first} to {last} belong to other processes, or the privilege CAP_NET_ADMIN is \
         missing"
    ))
}

/// Reads the drop counters of the policy tables.
fn drop_counters() -> portcullis_netlink::Result<HashMap<String, u64>> {
    let mut counters = HashMap::new();
    if let Some(mut socket) = nf_tables::open()? {
        for family in [TableFamily::Inet, TableFamily::Bridge] {
            match read_counters(&mut socket, family, TABLE) {
                // A kernel without the bridge family.
                Err(error) if matches!(error.errno(), Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT)) => {}
                read => counters.extend(read?.into_iter().map(|(name, (packets, _))| (name, packets))),
            }
        }
    }
    Ok(counters)
}
