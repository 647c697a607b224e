//! Tests of the loop with a controller that programs nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_cluster::{Change, Event, Index, Kind};
use tokio::sync::mpsc;

use super::*;
use crate::moment::Moment;
use crate::source::Selection;

/// Syncs once, as soon as Nodes are listed.
struct TestController {
    declaration: Declaration,
    pending: Option<Pending<&'static str>>,
    status: Status,
}

impl TestController {
    fn new(is_held_back: bool) -> Self {
        let watches =
            vec![Watch::required(Selection::all(Kind::Node)), Watch::optional(Selection::service_cidrs())];
        let declaration = Declaration { name: ControllerName::POLICIES, rules: vec!["routes"], watches };
        let status = Status { is_held_back, ..Status::new(&declaration) };
        TestController { declaration, pending: None, status }
    }
}

impl Controller for TestController {
    fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    fn handle_changes(&mut self, _: &[Change], _: &Index, _: bool) {}

    fn poll(&mut self, _: &Index, _: Instant) {}

    fn next_poll(&self, _: Instant) -> Option<Instant> {
        None
    }

    fn next_due(&self) -> Option<Instant> {
        None
    }

    fn start(&mut self, _: &Index, is_ready: bool, _: Instant) -> Option<Work> {
        if !is_ready || self.status.is_held_back || self.status.last_sync.is_some() {
            return None;
        }
        let (work, pending) = Work::new(|| "n1: no route");
        self.pending = Some(pending);
        Some(work)
    }

    fn finish(&mut self, _: &Index, _: Instant) {
        let unwritten = self.pending.take().and_then(Pending::take).expect("the work has ended");
        let sync = FinishedSync { unwritten: vec![unwritten.to_owned()], ..FinishedSync::default() };
        self.status.sync_finished(sync, Moment::now());
    }

    fn status(&self, _: Instant) -> Status {
        self.status.clone()
    }
}

/// Counts the finished syncs in the statuses.
#[derive(Default)]
struct TestObserver {
    last: Option<Arc<FinishedSync>>,
    finished: usize,
}

impl Observer for TestObserver {
    fn index_changed(&mut self, _: &Index) {}

    fn observe(&mut self, statuses: &[Status]) {
        let Some(sync) = statuses.iter().find_map(|status| status.last_sync.as_ref()) else { return };
        if self.last.as_ref().is_none_or(|last| !Arc::ptr_eq(last, sync)) {
            self.finished += 1;
            self.last = Some(Arc::clone(sync));
        }
    }

    fn tick(&mut self) {}
}

/// Runs a loop with `once` after Nodes are listed. Returns its exit and the number of observed syncs.
async fn run(is_held_back: bool) -> (Exit, usize) {
    let (events, batches) = mpsc::channel(1);
    let (_signals, stop) = mpsc::channel(1);
    let mut observer = TestObserver::default();
    let mut event_loop =
        EventLoop::new(Index::new(), batches, Wake::default(), stop, Arc::default(), &mut observer);
    event_loop.once = true;
    event_loop.add(Box::new(TestController::new(is_held_back)));
    events.send(vec![Event::Listed(Kind::Node)]).await.expect("the loop receives it");
    let exit = event_loop.run().await.expect("no work panics");
    drop(event_loop);
    (exit, observer.finished)
}

#[tokio::test]
async fn once_ends_with_what_the_statuses_say_could_not_be_written() {
    let (exit, finished) = run(false).await;
    assert!(matches!(&exit, Exit::Synced(unwritten) if *unwritten == ["n1: no route"]), "{exit:?}");
    assert_eq!(finished, 1);
}

#[tokio::test]
async fn once_ends_if_a_first_sync_is_held_back() {
    let (exit, finished) = run(true).await;
    assert!(matches!(exit, Exit::HeldBack), "{exit:?}");
    assert_eq!(finished, 0);
}

#[tokio::test]
async fn queries_read_the_index_and_wait_for_what_a_sync_holds() {
    let (events, batches) = mpsc::channel(1);
    let (signals, stop) = mpsc::channel(1);
    let (queries, receiver) = Queries::channel();
    let mut observer = TestObserver::default();
    let mut event_loop =
        EventLoop::new(Index::new(), batches, Wake::default(), stop, Arc::default(), &mut observer);
    event_loop.queries = Some(receiver);
    event_loop.add(Box::new(TestController::new(false)));
    let limit = Duration::from_secs(60);
    let asked = async {
        let is_ready = queries.ask(limit, |state| Some(state.is_ready)).await;
        assert_eq!(is_ready, Ok(false), "Nodes are not listed");
        // It is run again when the sync has ended, which starts with the list.
        let mut runs = 0;
        let waiting = queries.ask(limit, move |state| {
            runs += 1;
            (runs == 2).then_some((runs, state.is_ready))
        });
        let listed = async {
            // The query waits in the loop before the sync starts.
            while queries.ask(limit, |_| Some(())).await.is_err() {}
            events.send(vec![Event::Listed(Kind::Node)]).await.expect("the loop receives it");
        };
        let (waited, ()) = tokio::join!(waiting, listed);
        assert_eq!(waited, Ok((2, true)));
        let never = queries.ask(Duration::from_millis(1), |_| None::<()>).await;
        assert_eq!(never, Err(QueryError::Timeout(Duration::from_millis(1))));
        signals.send(StopReason::Signal).await.expect("the loop receives it");
    };
    let (exit, ()) = tokio::join!(event_loop.run(), asked);
    assert!(matches!(exit, Ok(Exit::Stopped(StopReason::Signal))), "{exit:?}");
    drop(event_loop);
    assert_eq!(queries.ask(limit, |_| Some(())).await, Err(QueryError::Stopped));
}
