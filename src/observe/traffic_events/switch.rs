//! The switch by which the controllers log drops, or no longer.
//!
//! ```text
//! hub ── set(group) ──► Mailbox of each controller ──► rules with `log group`
//!  ▲                                                       │
//!  └───────────────── reports: written, or an error ◄──────┘
//! ```

use std::sync::{Arc, Mutex, PoisonError};

use crate::control::{DropCounterLabels, Mailbox, Notifier, Wake};

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
    /// Takes the latest request, which is due if it differs from the one before.
    pub(crate) fn poll(&mut self) {
        if let Some(request) = self.requests.take() {
            self.is_due |= std::mem::replace(&mut self.wanted, request) != request;
        }
    }

    /// Takes the request that is due.
    pub(crate) fn take_due(&mut self) -> Option<DropLogRequest> {
        let (group, reports, state) = (self.wanted, Arc::clone(&self.reports), self.state);
        std::mem::take(&mut self.is_due).then_some(DropLogRequest { group, reports, state })
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
        policies.poll();
        assert!(policies.take_due().is_none(), "there is no request");
        switch.set(Some(5));
        switch.set(Some(6));
        let due = |requests: &mut DropLogRequests| {
            requests.poll();
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
}
