//! The outcomes of faults.

use std::collections::BTreeMap;
use std::time::Duration;

use portcullis_modes::SyncResult;
use portcullis_netlink::socket::faults::{Fault, FaultPlan};

/// The number of outcomes of a fault.
#[derive(Default)]
struct Counts {
    /// The sync in which the fault occurred succeeded.
    same_sync: usize,
    /// It failed, and the next one succeeded.
    next_sync: usize,
    /// The longest of these syncs.
    longest: Duration,
}

/// The outcomes of all faults of a scenario.
pub(crate) struct Outcomes {
    scenario: &'static str,
    by_fault: BTreeMap<String, Counts>,
}

/// One step of a scenario.
pub(crate) trait Scenario {
    /// Prepares the kernel and a proxier with the state before the change, through sockets of the plan.
    fn prepare(&mut self, plan: &FaultPlan);

    /// Syncs the state after the change; the first time with the changes.
    fn sync(&mut self, is_first: bool) -> Vec<SyncResult>;

    /// Checks that the kernel serves all frontends that exist before and after the change.
    fn check_kept(&self, context: &str);

    /// Checks that the kernel serves the state after the change.
    fn check_complete(&self, context: &str);
}

impl Outcomes {
    /// Injects every fault into every `step`-th call of the sync.
    pub(crate) fn observe(name: &'static str, scenario: &mut dyn Scenario, step: usize) -> Outcomes {
        let mut outcomes = Outcomes { scenario: name, by_fault: BTreeMap::new() };
        let plan = FaultPlan::new();
        scenario.prepare(&plan);
        plan.count();
        assert_eq!(errors(&scenario.sync(true)), [""; 0], "{name} without a fault");
        let calls = plan.calls();
        assert!(calls >= 2, "{name}: a sync sends a request and receives a response");
        scenario.check_complete(name);
        for fault in Fault::ALL {
            for call in (0..calls).step_by(step) {
                scenario.prepare(&plan);
                plan.inject(call, fault);
                let context = format!("{name}: {fault:?} at call {call} of {calls}");
                let results = scenario.sync(true);
                if plan.is_injected() {
                    outcomes.check(fault, &context, scenario, &results);
                }
                plan.count();
            }
        }
        outcomes
    }

    fn check(&mut self, fault: Fault, context: &str, scenario: &mut dyn Scenario, results: &[SyncResult]) {
        scenario.check_kept(context);
        let isolated: Vec<_> = results.iter().flat_map(|result| &result.isolated).collect();
        assert!(isolated.is_empty(), "{context}: no Service is the cause: {isolated:?}");
        let counts = self.by_fault.entry(format!("{fault:?}")).or_default();
        let mut longest = results.iter().map(|result| result.duration).max().unwrap_or_default();
        if errors(results).is_empty() {
            counts.same_sync += 1;
        } else {
            check_reported(fault, context, results);
            let results = scenario.sync(false);
            assert_eq!(errors(&results), [""; 0], "{context}: the next sync");
            longest = longest.max(results.iter().map(|result| result.duration).max().unwrap_or_default());
            counts.next_sync += 1;
        }
        counts.longest = counts.longest.max(longest);
        scenario.check_complete(context);
    }

    /// Prints a table. Fails if a fault was never injected that `must_occur`.
    pub(crate) fn print(&self, must_occur: &[Fault]) {
        println!("{}: fault, recovered in the same sync, by the next one, longest sync", self.scenario);
        for (fault, counts) in &self.by_fault {
            println!("{fault:28} {:5} {:5} {:9.1?}", counts.same_sync, counts.next_sync, counts.longest);
        }
        for fault in must_occur {
            assert!(self.by_fault.contains_key(&format!("{fault:?}")), "{fault:?} was never injected");
        }
    }
}

fn errors(results: &[SyncResult]) -> Vec<String> {
    results.iter().filter_map(|result| result.error.as_ref()).map(ToString::to_string).collect()
}

/// Checks that an error has a message, and the error number if there is one.
fn check_reported(fault: Fault, context: &str, results: &[SyncResult]) {
    let expected = match fault {
        Fault::SendFails(errno) | Fault::Rejection(errno) => Some(errno),
        _ => None,
    };
    let errors: Vec<_> = results.iter().filter_map(|result| result.error.as_ref()).collect();
    assert!(errors.iter().all(|error| !error.to_string().is_empty()), "{context}");
    if let Some(errno) = expected {
        assert!(
            errors.iter().any(|error| error.errno() == Some(errno)),
            "{context}: {errors:?} has errno {errno}"
        );
    }
}
