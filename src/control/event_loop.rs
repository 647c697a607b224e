//! The loop: feeds events to the index and its changes to the controllers, and runs their work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_cluster::{Event, Index};
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
                Some(batch) = self.events.recv() => self.handle_events(batch),
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

    fn handle_events(&mut self, batch: Vec<Event>) {
        let changes: Vec<_> = batch.into_iter().flat_map(|event| self.index.handle(event)).collect();
        for runner in &mut self.runners {
            let is_ready = runner.is_ready(&self.index);
            runner.controller.handle_changes(&changes, &self.index, is_ready);
        }
        self.observer.index_changed(&self.index);
    }

    fn handle_tick(&mut self) {
        self.progress.iterated(Moment::now());
        self.observer.tick();
        self.runners.iter_mut().for_each(|runner| runner.controller.report_progress(Instant::now()));
    }

    fn finish(&mut self, at: usize) {
        let runner = &mut self.runners[at];
        runner.is_running = false;
        self.progress.ended(runner.controller.declaration().name);
        let now = Instant::now();
        runner.controller.finish(&self.index, now);
        self.observe(now);
        std::mem::take(&mut self.waiting_queries).into_iter().for_each(|query| self.run_query(query));
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
