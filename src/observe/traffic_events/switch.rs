//! The switch by which the controllers log drops, or no longer.
//!
//! ```text
//! hub ── set(group) ──► Mailbox of each controller ──► rules with `log group`
//!  ▲                                                       │
//!  └───────────────── reports: written, or an error ◄──────┘
//! ```
//! A controller tries a failed request again, with growing waits, as long as the hub requests it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use portcullis_cluster::Backoff;

use crate::control::{DropCounterLabels, Mailbox, Notifier, Wake};

/// The waits between attempts to write rules that log.
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));

/// The state of one controller's rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum RulesState {
    /// There are no rules that log.
    #[default]
    Off,
    /// Drops are logged to this group.
    Logged(u16),
    /// Drops cannot be logged to this group.
    Failed(u16, String),
}

/// The reports of the controllers.
#[derive(Debug, Default)]
struct Reports {
    policies: RulesState,
    source_ranges: RulesState,
    labels: DropCounterLabels,
}

/// The hub's end.
#[derive(Debug)]
pub(super) struct Switch {
    policies: Option<Notifier<Option<u16>>>,
    source_ranges: Notifier<Option<u16>>,
    reports: Arc<Mutex<Reports>>,
}

/// The end of a controller.
#[derive(Debug)]
pub(crate) struct DropLogRequests {
    requests: Mailbox<Option<u16>>,
    /// The latest request.
    wanted: Option<u16>,
    /// It was not executed yet.
    is_due: bool,
    backoff: Backoff,
    /// When a request that failed is tried again.
    retry_at: Option<Instant>,
    reports: Arc<Mutex<Reports>>,
    state: fn(&mut Reports) -> &mut RulesState,
}

/// A request that drops are logged, or no longer.
#[derive(Debug)]
pub(crate) struct DropLogRequest {
    /// The group to which drops are to be logged.
    pub(crate) group: Option<u16>,
    reports: Arc<Mutex<Reports>>,
    state: fn(&mut Reports) -> &mut RulesState,
}

impl DropLogRequest {
    /// Reports the result.
    pub(crate) fn report(self, result: Result<(), String>) {
        *(self.state)(&mut lock(&self.reports)) = match (self.group, result) {
            (None, _) => RulesState::Off,
            (Some(group), Ok(())) => RulesState::Logged(group),
            (Some(group), Err(error)) => RulesState::Failed(group, error),
        };
    }
}

/// The ends of the controllers.
#[derive(Debug)]
pub(crate) struct ControllerEnds {
    /// For the controller of policies, if policies are enforced.
    pub(crate) policies: Option<DropLogRequests>,
    /// For the controller of Services.
    pub(crate) source_ranges: DropLogRequests,
}

impl Switch {
    /// Creates a switch, and the ends of the controllers of the loop that `wake` wakes up.
    pub(super) fn new(has_policies: bool, wake: &Wake) -> (Self, ControllerEnds) {
        let reports: Arc<Mutex<Reports>> = Arc::default();
        let end = |state: fn(&mut Reports) -> &mut RulesState| {
            let (notifier, requests) = Mailbox::new(wake);
            (
                notifier,
                DropLogRequests {
                    requests,
                    wanted: None,
                    is_due: false,
                    backoff: RETRY,
                    retry_at: None,
                    reports: Arc::clone(&reports),
                    state,
                },
            )
        };
        let (policies, policy_end) = has_policies.then(|| end(|reports| &mut reports.policies)).unzip();
        let (source_ranges, source_end) = end(|reports| &mut reports.source_ranges);
        let ends = ControllerEnds { policies: policy_end, source_ranges: source_end };
        (Switch { policies, source_ranges, reports }, ends)
    }

    /// Returns true if policies are enforced.
    pub(super) fn has_policies(&self) -> bool {
        self.policies.is_some()
    }

    /// Requests that drops are logged to a group, or no longer.
    pub(super) fn set(&self, group: Option<u16>) {
        for notifier in self.policies.iter().chain([&self.source_ranges]) {
            notifier.notify(group);
        }
    }

    /// Returns the states of the rules of policies and of source ranges, and the labels of the policies' counters.
    pub(super) fn reports(&self) -> (RulesState, RulesState, DropCounterLabels) {
        let reports = lock(&self.reports);
        (reports.policies.clone(), reports.source_ranges.clone(), Arc::clone(&reports.labels))
    }
}

impl DropLogRequests {
    /// Takes the latest request, which is due if it differs from the one before, or if it failed a while ago.
    pub(crate) fn poll(&mut self, now: Instant) {
        if let Some(request) = self.requests.take()
            && std::mem::replace(&mut self.wanted, request) != request
        {
            self.is_due = true;
            self.retry_at = None;
            self.backoff = RETRY;
        }
        if self.is_due || self.wanted.is_none() || !self.has_failed() {
            return;
        }
        match self.retry_at {
            None => self.retry_at = Some(self.backoff.next_retry(now)),
            Some(at) if at <= now => {
                self.retry_at = None;
                self.is_due = true;
            }
            Some(_) => {}
        }
    }

    /// Returns when [`DropLogRequests::poll`] has to be called next, unless there is a request before.
    pub(crate) fn next_poll(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Takes the request that is due.
    pub(crate) fn take_due(&mut self) -> Option<DropLogRequest> {
        let (group, reports, state) = (self.wanted, Arc::clone(&self.reports), self.state);
        std::mem::take(&mut self.is_due).then_some(DropLogRequest { group, reports, state })
    }

    /// Reports that rules which log could not be updated.
    pub(crate) fn report_failure(&self, error: String) {
        if let Some(group) = self.wanted {
            *(self.state)(&mut lock(&self.reports)) = RulesState::Failed(group, error);
        }
    }

    /// Returns true if the rules of the latest request could not be written.
    fn has_failed(&self) -> bool {
        matches!((self.state)(&mut lock(&self.reports)), RulesState::Failed(group, _) if Some(*group) == self.wanted)
    }

    /// Sets the labels of the counters, if drops are observed.
    pub(crate) fn set_labels(&self, labels: &DropCounterLabels) {
        lock(&self.reports).labels =
            if self.wanted.is_some() { Arc::clone(labels) } else { DropCounterLabels::default() };
    }
}

fn lock(reports: &Mutex<Reports>) -> std::sync::MutexGuard<'_, Reports> {
    reports.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_receive_the_latest_request_and_report() {
        let (switch, ends) = Switch::new(true, &Wake::default());
        let (mut policies, mut source_ranges) =
            (ends.policies.expect("policies are enforced"), ends.source_ranges);
        policies.poll(Instant::now());
        assert!(policies.take_due().is_none(), "there is no request");
        switch.set(Some(5));
        switch.set(Some(6));
        let due = |requests: &mut DropLogRequests| {
            requests.poll(Instant::now());
            requests.take_due()
        };
        let request = due(&mut policies).expect("there is a request");
        assert_eq!(request.group, Some(6));
        request.report(Ok(()));
        let request = due(&mut source_ranges).expect("there is a request");
        assert_eq!(request.group, Some(6));
        request.report(Err("no nf_tables".to_owned()));
        switch.set(Some(6));
        assert!(due(&mut policies).is_none(), "the request is the same");
        let (policy_state, source_state, _) = switch.reports();
        assert_eq!(policy_state, RulesState::Logged(6));
        assert_eq!(source_state, RulesState::Failed(6, "no nf_tables".to_owned()));
        switch.set(None);
        let request = due(&mut policies).expect("there is a request");
        assert_eq!(request.group, None);
        request.report(Ok(()));
        assert_eq!(switch.reports().0, RulesState::Off);
    }

    #[test]
    fn failed_requests_are_tried_again_until_they_succeed_or_end() {
        let (switch, ends) = Switch::new(false, &Wake::default());
        let mut requests = ends.source_ranges;
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let error = || Err("no buffer space".to_owned());
        switch.set(Some(5));
        requests.poll(start);
        requests.take_due().expect("there is a request").report(error());
        // The time of each attempt, and of the one after it.
        for (now, next) in [(0, 1), (1, 3), (3, 7)] {
            requests.poll(at(now));
            if let Some(request) = requests.take_due() {
                request.report(error());
                requests.poll(at(now));
            }
            assert_eq!(requests.next_poll(), Some(at(next)), "after {now} s");
        }
        requests.poll(at(6));
        assert!(requests.take_due().is_none(), "it is tried after 7 s");
        requests.poll(at(7));
        requests.take_due().expect("7 s have passed").report(Ok(()));
        requests.poll(at(7));
        assert_eq!((requests.next_poll(), switch.reports().1), (None, RulesState::Logged(5)));

        requests.report_failure("a changed Service".to_owned());
        requests.poll(at(20));
        assert!(requests.next_poll().is_some(), "a failure of an update is tried again too");
        switch.set(None);
        requests.poll(at(21));
        requests.take_due().expect("the observation has ended").report(error());
        requests.poll(at(60));
        assert_eq!(
            (requests.next_poll(), requests.take_due().is_none()),
            (None, true),
            "there is no observer"
        );
        switch.set(Some(6));
        requests.poll(at(61));
        requests.take_due().expect("there is a new observer").report(error());
        requests.poll(at(61));
        assert_eq!(requests.next_poll(), Some(at(62)), "waits start again with a new request");
    }
}
