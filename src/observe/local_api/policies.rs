//! The document of policies: the compiled policies, read on the loop, and the drop counters of the kernel.

use std::cmp::Reverse;

use portcullis_policy::compile::{LocalPod, Profile};
use portcullis_policy::table::DropCounter;

use super::LocalApi;
use super::documents::{DroppedPackets, LimitedList, PodPolicies, PoliciesDocument, TypeMeta};
use crate::control::QueryError;
use crate::moment::Moment;

/// The largest number of items of each list.
const LISTED: usize = 1000;

impl LocalApi {
    /// Returns the policies that apply to the pods of this node, or of one namespace.
    ///
    /// # Errors
    /// The loop does not respond, or a sync of policies does not end.
    pub(crate) async fn policies(&self, namespace: Option<String>) -> Result<PoliciesDocument, QueryError> {
        let document = |pods, drops| PoliciesDocument {
            meta: TypeMeta::new("Policies"),
            time: Moment::now().wall(),
            enforced: self.facts().config.network_policy.is_some(),
            audit: self.facts().config.network_policy.is_some_and(|policy| policy.audit),
            pods,
            drops,
        };
        if self.facts().config.network_policy.is_none() {
            return Ok(document(LimitedList::new([], LISTED), Some(LimitedList::new([], LISTED))));
        }
        let read = move |state: &crate::control::DaemonState<'_>| {
            let is_requested =
                |pod: &&LocalPod| namespace.as_deref().is_none_or(|name| pod.key.namespace.as_str() == name);
            // While a sync writes them, the query waits.
            let pods = state.policies?.pods().filter(is_requested).map(pod_policies);
            Some(LimitedList::new(pods, LISTED))
        };
        let pods = self.queries().ask(self.0.query_limit, read).await?;
        let drops = self.0.sources.drops.clone();
        let drops = tokio::task::spawn_blocking(move || drops.read().ok()).await.ok().flatten();
        Ok(document(pods, drops.map(dropped_packets)))
    }
}

fn pod_policies(pod: &LocalPod) -> PodPolicies {
    let names = |profile: Option<&Profile>| {
        profile.into_iter().flat_map(Profile::policies).map(ToString::to_string).collect()
    };
    PodPolicies {
        pod: pod.key.to_string(),
        ingress: names(pod.ingress.as_deref()),
        egress: names(pod.egress.as_deref()),
    }
}

/// Returns the counters, those with the most packets first.
fn dropped_packets(mut counters: Vec<DropCounter>) -> LimitedList<DroppedPackets> {
    counters.sort_by(|a, b| (Reverse(a.packets), &a.labels).cmp(&(Reverse(b.packets), &b.labels)));
    let dropped = counters.into_iter().map(|counter| DroppedPackets {
        policies: counter.labels.policy,
        direction: Some(counter.labels.direction)
            .filter(|direction| !direction.is_empty())
            .map(str::to_owned),
        packets: counter.packets,
        bytes: counter.bytes,
    });
    LimitedList::new(dropped, LISTED)
}

#[cfg(test)]
mod tests {
    use portcullis_policy::table::DropLabels;

    use super::*;

    #[test]
    fn policies_that_dropped_most_come_first() {
        let counter = |policy: &str, direction, packets| DropCounter {
            labels: DropLabels { direction, policy: policy.to_owned() },
            packets,
            bytes: packets * 60,
        };
        let counters = vec![counter("b", "ingress", 1), counter("a", "ingress", 1), counter("c", "", 7)];
        let dropped = dropped_packets(counters);
        let rows: Vec<_> = dropped.items.iter().map(|item| (item.policies.as_str(), item.packets)).collect();
        assert_eq!(rows, [("c", 7), ("a", 1), ("b", 1)]);
        assert_eq!(dropped.items[0].direction, None);
    }
}
