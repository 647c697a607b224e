//! Notices: what an observer cannot see, and why.

use std::time::Duration;

use super::observer::Observer;
use super::switch::{RulesState, Switch};

/// The time after which an observer is told that rules do not log yet. They are written after the first sync, and after one that
/// runs.
const RULES_PATIENCE: Duration = Duration::from_secs(5);

/// The state from which notices follow.
pub(super) struct Notices<'a> {
    pub(super) switch: &'a Switch,
    /// The daemon does not know the pods of the cluster.
    pub(super) lacks_pods: bool,
    /// If drops are observed, since when, and whether the kernel logs their flows.
    pub(super) drops: Option<(Duration, bool)>,
}

impl Notices<'_> {
    /// Adds the notices that an observer has not received.
    pub(super) fn add_to(&self, observer: &mut Observer) {
        if self.lacks_pods && observer.filter.needs_pods() {
            observer.add_notice(
                "the daemon does not watch pods (--network-policy), so no event matches the name or labels of a pod; use addresses",
            );
        }
        if let Some((since, has_flows)) = self.drops
            && observer.filter.needs_drops()
        {
            self.add_notices_of_drops(since, has_flows, observer);
        }
        if observer.filter.needs_connections() {
            if is_off("nf_conntrack_acct") {
                observer.add_notice(
                    "packets and bytes of connections are not counted (net.netfilter.nf_conntrack_acct=0)",
                );
            }
            if is_off("nf_conntrack_events") {
                observer
                    .add_notice("the kernel reports no connections (net.netfilter.nf_conntrack_events=0)");
            }
        }
    }

    fn add_notices_of_drops(&self, since: Duration, has_flows: bool, observer: &mut Observer) {
        if !self.switch.has_policies() {
            observer.add_notice(
                "policies are not enforced (--network-policy): only drops by loadBalancerSourceRanges are observed",
            );
        }
        if !has_flows {
            observer.add_notice(
                "this kernel does not log the flows of packets (CONFIG_NETFILTER_NETLINK_GLUE_CT): the Service of a \
                 dropped packet is known by its endpoint only",
            );
        }
        let (policies, source_ranges, _) = self.switch.reports();
        let policies = self.switch.has_policies().then_some((policies, "drops by policies"));
        for (state, drops) in
            policies.into_iter().chain([(source_ranges, "drops by loadBalancerSourceRanges")])
        {
            match state {
                RulesState::Failed(_, error) => {
                    observer.set_problem(drops, &format!("cannot be observed: {error}; retrying"));
                }
                RulesState::Off if since >= RULES_PATIENCE => observer.set_problem(
                    drops,
                    "are not observed yet: the rules that log them follow the first sync, or one that runs",
                ),
                RulesState::Off => {}
                RulesState::Logged(_) => observer.end_problem(drops),
            }
        }
    }
}

/// Returns true if a setting of conntrack is 0.
fn is_off(setting: &str) -> bool {
    let value = std::fs::read_to_string(format!("/proc/sys/net/netfilter/{setting}"));
    value.is_ok_and(|value| value.trim() == "0")
}
