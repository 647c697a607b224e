//! The loop: feeds events to the index and its changes to the controllers, and runs their work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_cluster::{Event, Index, Object};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::MissedTickBehavior;

use super::controller::Controller;
use super::exit::{Exit, StopReason};
use super::mailbox::Wake;
use super::observer::Observer;
use super::progress::Progress;
use super::query::{DaemonState, Query};
use super::status::Status;
use crate::moment::Moment;

/// The loop.
pub(crate) struct EventLoop<'a> {
    pub(crate) index: Index,
    pub(crate) events: mpsc::Receiver<Vec<Event>>,
    pub(crate) wake: Wake,
    pub(crate) stop: mpsc::Receiver<StopReason>,
    /// Queries of the state of the daemon, if there is a source of them.
    pub(crate) queries: Option<mpsc::Receiver<Query>>,
    /// The period of [`Observer::tick`].
    pub(crate) tick: Duration,
    /// Ends when every controller has synced once.
    pub(crate) once: bool,
    pub(crate) observer: &'a mut dyn Observer,
    progress: Arc<Progress>,
    runners: Vec<Runner>,
    /// Work that runs; each returns the position of its controller.
    work: JoinSet<usize>,
    /// Queries of what a running sync holds.
    waiting_queries: Vec<Query>,
}

struct Runner {
    controller: Box<dyn Controller>,
    is_running: bool,
}

impl Runner {
    fn is_ready(&self, index: &Index) -> bool {
        self.controller.declaration().is_ready(index)
    }
}

impl<'a> EventLoop<'a> {
    /// Creates a loop without controllers.
    pub(crate) fn new(
        index: Index,
        events: mpsc::Receiver<Vec<Event>>,
        wake: Wake,
        stop: mpsc::Receiver<StopReason>,
        progress: Arc<Progress>,
        observer: &'a mut dyn Observer,
    ) -> Self {
        let (runners, work) = (Vec::new(), JoinSet::new());
        EventLoop {
            index,
            events,
            wake,
            stop,
            queries: None,
            tick: Duration::from_secs(5),
            once: false,
            observer,
            progress,
            runners,
            work,
            waiting_queries: Vec::new(),
        }
    }

    /// Adds a controller.
    pub(crate) fn add(&mut self, controller: Box<dyn Controller>) {
        self.runners.push(Runner { controller, is_running: false });
    }

    /// Runs until it is stopped or, with `once`, everything is synced.
    ///
    /// # Errors
    /// Work panicked.
    pub(crate) async fn run(&mut self) -> Result<Exit, JoinError> {
        let mut tick = tokio::time::interval(self.tick);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut may_have_work = true;
        loop {
            if may_have_work && let Some(exit) = self.iterate() {
                return Ok(exit);
            }
            may_have_work = true;
            let timer = sleep_until(self.next_due(Instant::now()));
            tokio::select! {
                Some(batch) = self.events.recv() => may_have_work = self.handle_events(batch),
                Some(ended) = self.work.join_next() => self.finish(ended?),
                () = self.wake.notified() => {}
                () = timer => {}
                _ = tick.tick() => self.handle_tick(),
                Some(query) = receive(self.queries.as_mut()) => {
                    self.run_query(query);
                    // A query changes nothing, so no controller has to be polled and no status copied.
                    may_have_work = false;
                }
                Some(reason) = self.stop.recv() => return Ok(Exit::Stopped(reason)),
            }
        }
    }

    /// Waits for the work that runs, and takes its results.
    ///
    /// # Errors
    /// Work panicked.
    pub(crate) async fn drain(&mut self) -> Result<(), JoinError> {
        while let Some(ended) = self.work.join_next().await {
            self.finish(ended?);
            self.observe(Instant::now());
        }
        Ok(())
    }

    /// Polls all controllers and starts their work. Returns the exit of `once`.
    fn iterate(&mut self) -> Option<Exit> {
        let now = Instant::now();
        for (at, runner) in self.runners.iter_mut().enumerate() {
            runner.controller.poll(&self.index, now);
            if runner.is_running {
                continue;
            }
            let is_ready = runner.is_ready(&self.index);
            if let Some(work) = runner.controller.start(&self.index, is_ready, now) {
                runner.is_running = true;
                self.progress.started(runner.controller.declaration().name, Moment::now());
                self.work.spawn_blocking(move || {
                    work.run();
                    at
                });
            }
        }
        let statuses = self.observe(now);
        if !self.once || !self.runners.iter().any(|runner| runner.is_ready(&self.index)) {
            return None;
        }
        if statuses.iter().any(|status| status.is_held_back) {
            return Some(Exit::HeldBack);
        }
        let is_synced = statuses.iter().all(|status| status.last_sync.is_some());
        let syncs = statuses.iter().filter_map(|status| status.last_sync.as_ref());
        is_synced.then(|| Exit::Synced(syncs.flat_map(|sync| sync.unwritten.iter().cloned()).collect()))
    }

    /// Passes the statuses of the controllers to the observer, and returns them.
    fn observe(&mut self, now: Instant) -> Vec<Status> {
        let statuses: Vec<Status> = self.runners.iter().map(|runner| runner.controller.status(now)).collect();
        self.observer.observe(&statuses);
        statuses
    }

    fn next_due(&self, now: Instant) -> Option<Instant> {
        let due = self.runners.iter().flat_map(|runner| {
            let may_start = !runner.is_running && runner.is_ready(&self.index);
            let work = may_start.then(|| runner.controller.next_due()).flatten();
            [work, runner.controller.next_poll(now)].into_iter().flatten()
        });
        due.min()
    }

    /// Updates the index. Returns false if nothing has changed for the controllers: most changes of pods affect no field in use.
    fn handle_events(&mut self, batch: Vec<Event>) -> bool {
        // The index also knows which objects are listed, which are unreadable, and what the own Node object lacks.
        let changes_objects_only = batch
            .iter()
            .all(|event| matches!(event, Event::Applied(object) if !matches!(object, Object::Node(_))));
        let changes: Vec<_> = batch.into_iter().flat_map(|event| self.index.handle(event)).collect();
        if changes.is_empty() && changes_objects_only {
            return false;
        }
        for runner in &mut self.runners {
            let is_ready = runner.is_ready(&self.index);
            runner.controller.handle_changes(&changes, &self.index, is_ready);
        }
        self.observer.index_changed(&self.index);
        true
    }

    fn handle_tick(&mut self) {
        self.progress.iterated(Moment::now());
        self.observer.tick();
        self.runners.iter_mut().for_each(|runner| runner.controller.report_progress(Instant::now()));
    }

    /// Takes the result of a controller's work. The statuses must be observed afterwards.
    fn finish(&mut self, at: usize) {
        let runner = &mut self.runners[at];
        runner.is_running = false;
        self.progress.ended(runner.controller.declaration().name);
        let now = Instant::now();
        runner.controller.finish(&self.index, now);
        if !self.waiting_queries.is_empty() {
            self.observe(now);
            std::mem::take(&mut self.waiting_queries).into_iter().for_each(|query| self.run_query(query));
        }
    }

    /// Runs a query. If a sync holds what it reads, it is run again when the sync has ended.
    fn run_query(&mut self, mut query: Query) {
        let is_ready = self.runners.iter().all(|runner| runner.is_ready(&self.index));
        let mut state = DaemonState::new(&self.index, is_ready);
        self.runners.iter().for_each(|runner| runner.controller.add_to(&mut state));
        if !query.run(&state) {
            self.waiting_queries.push(query);
        }
    }
}

async fn receive(queries: Option<&mut mpsc::Receiver<Query>>) -> Option<Query> {
    match queries {
        Some(queries) => queries.recv().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use portcullis_cluster::{Kind, NamespacedName, ObjectKey};
    use serde_json::{Value, json};

    use super::*;

    struct NoObserver;

    impl Observer for NoObserver {
        fn index_changed(&mut self, _: &Index) {}
        fn observe(&mut self, _: &[Status]) {}
        fn tick(&mut self) {}
    }

    fn applied(kind: Kind, name: &str, label: &str) -> Event {
        let object: Value =
            json!({"metadata": {"name": name, "namespace": "shop", "uid": label, "labels": {"app": label}}});
        Event::Applied(Object::parse(kind, object).expect("a valid object").object)
    }

    #[test]
    fn events_that_change_nothing_are_no_work() {
        let (_events, batches) = mpsc::channel(1);
        let (_signals, stop) = mpsc::channel(1);
        let mut observer = NoObserver;
        let mut event_loop =
            EventLoop::new(Index::new(), batches, Wake::default(), stop, Arc::default(), &mut observer);
        let key = |name| ObjectKey { kind: Kind::Pod, name: NamespacedName::new("shop", name) };
        let rows = [
            ("a new pod", applied(Kind::Pod, "a", "web"), true),
            ("the same", applied(Kind::Pod, "a", "web"), false),
            ("another label", applied(Kind::Pod, "a", "db"), true),
            ("a Node, which may lack something", applied(Kind::Node, "n", "x"), true),
            ("the same Node", applied(Kind::Node, "n", "x"), true),
            ("the list begins", Event::ListStarted(Kind::Pod), true),
            ("the same pod in the list", applied(Kind::Pod, "a", "db"), false),
            ("an unreadable pod", Event::Unreadable(key("b")), true),
            ("it is readable", applied(Kind::Pod, "b", "web"), true),
            ("the list ends", Event::Listed(Kind::Pod), true),
            ("a deleted pod", Event::Deleted(key("a")), true),
        ];
        for (step, event, expected) in rows {
            assert_eq!(event_loop.handle_events(vec![event]), expected, "{step}");
        }
    }
}
