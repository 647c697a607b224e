//! Notices about conditions of a filter that no event on this node meets: the object does not exist, or its packets are dropped on
//! another node. Without them, an observer of a misspelled name waits silently.

use portcullis_cluster::pod::Pod;
use portcullis_cluster::{Index, Kind, NamespacedName};

use super::document::ObjectRef;
use super::filter::{EventFilter, PeerFilter};

/// The number of nodes that a notice names.
const MAX_NODES: usize = 3;

/// An end of a connection.
#[derive(Clone, Copy, Debug)]
enum End {
    Source,
    Destination,
}

/// Returns the notices for a filter on a node.
pub(super) fn notices(filter: &EventFilter, index: &Index, node: &str) -> Vec<String> {
    let ends = [(End::Source, &filter.from), (End::Destination, &filter.to)];
    let peers =
        ends.into_iter().filter_map(|(end, peer)| peer_notice(end, peer.as_ref()?, filter, index, node));
    let namespace = filter.namespace.as_deref().and_then(|namespace| namespace_notice(namespace, index));
    let policy = filter.policy.as_deref().and_then(|policy| policy_notice(policy, index));
    peers.chain(namespace).chain(policy).collect()
}

fn peer_notice(
    end: End,
    peer: &PeerFilter,
    filter: &EventFilter,
    index: &Index,
    node: &str,
) -> Option<String> {
    let is_pod = |pod: &&Pod| match peer {
        PeerFilter::Pod(pattern) => pattern.matches(&object(&pod.key)),
        PeerFilter::Labels(labels) => labels.matches(|key| pod.labels.get(key)),
        PeerFilter::Addresses(_) | PeerFilter::Service(_) => false,
    };
    match peer {
        PeerFilter::Addresses(_) => None,
        PeerFilter::Service(pattern) => {
            let exists = index.services().any(|service| pattern.matches(&object(&service.key)));
            (!exists).then(|| format!("there is no Service {pattern}: no event matches {}", end.parameter()))
        }
        PeerFilter::Pod(_) | PeerFilter::Labels(_) if !index.is_listed(Kind::Pod) => None,
        PeerFilter::Pod(pattern) => {
            let found = index.pods().filter(is_pod).filter(|pod| !pod.is_finished);
            pods_notice(end, &format!("pod {pattern}"), found, filter, node)
        }
        PeerFilter::Labels(_) => {
            let found = index.pods().filter(is_pod).filter(|pod| !pod.is_finished);
            pods_notice(end, "pod with these labels", found, filter, node)
        }
    }
}

fn pods_notice<'a>(
    end: End,
    pods: &str,
    found: impl Iterator<Item = &'a Pod>,
    filter: &EventFilter,
    node: &str,
) -> Option<String> {
    let parameter = end.parameter();
    let (mut exists, mut has_address, mut nodes) = (false, false, Vec::new());
    for pod in found {
        exists = true;
        if pod.host_network {
            continue;
        }
        has_address = true;
        let pod_node = pod.node.as_ref().map(|node| node.as_str());
        if pod_node == Some(node) {
            return None;
        }
        nodes.extend(pod_node.filter(|node| !nodes.contains(node)));
    }
    if !exists {
        return Some(format!("there is no {pods}: no event matches {parameter}"));
    }
    if !has_address {
        return Some(format!(
            "no {pods} has an address of its own (hostNetwork): no event matches {parameter}; use the address of the node"
        ));
    }
    if !filter.needs_drops() || nodes.is_empty() {
        return None;
    }
    nodes.sort_unstable();
    let omitted = nodes.len().saturating_sub(MAX_NODES);
    let mut names = nodes[..nodes.len() - omitted].join(", ");
    if omitted > 0 {
        names.push_str(&format!(" and {omitted} more"));
    }
    let (direction, other) = match end {
        End::Source => ("egress", "ingress policies of destinations"),
        End::Destination => ("ingress", "egress policies of sources"),
    };
    Some(format!(
        "no {pods} runs on this node ({node}): its {direction} policies drop packets on {names}; here only {other} do"
    ))
}

fn namespace_notice(namespace: &str, index: &Index) -> Option<String> {
    // Without pods, only Services are named.
    let is_used = !index.is_listed(Kind::Pod)
        || index.services().any(|service| service.key.namespace.as_str() == namespace)
        || index.pods().any(|pod| pod.key.namespace.as_str() == namespace);
    (!is_used).then(|| format!("namespace {namespace} has neither pods nor Services: no event matches it"))
}

fn policy_notice(policy: &str, index: &Index) -> Option<String> {
    let exists = match policy.split_once('/') {
        Some((namespace, name)) => index.network_policy(&NamespacedName::new(namespace, name)).is_some(),
        None => index.cluster_network_policies().any(|found| *found.key.name == *policy),
    };
    let kind = if policy.contains('/') { "NetworkPolicy" } else { "ClusterNetworkPolicy" };
    (!exists && index.is_listed(Kind::NetworkPolicy))
        .then(|| format!("there is no {kind} {policy}: no drop matches it"))
}

impl End {
    /// Returns the parameter of the filter.
    fn parameter(self) -> &'static str {
        match self {
            End::Source => "--from",
            End::Destination => "--to",
        }
    }
}

fn object(name: &NamespacedName) -> ObjectRef {
    ObjectRef { namespace: name.namespace.as_str().into(), name: (*name.name).into() }
}

#[cfg(test)]
mod tests {
    use portcullis_cluster::{Event, Object};
    use serde_json::json;

    use super::*;

    /// Pods a and b of namespace x on node-1 and node-2, h of the host network, and a Service and a policy of x.
    fn index() -> Index {
        let pod = |name: &str, node: &str, host_network: bool| {
            json!({"metadata": {"namespace": "x", "name": name, "labels": {"pod": name}},
                "spec": {"nodeName": node, "hostNetwork": host_network}})
        };
        let named = |namespace: &str, name: &str| json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"podSelector": {}}});
        let objects = [
            (Kind::Pod, pod("a", "node-1", false)),
            (Kind::Pod, pod("b", "node-2", false)),
            (Kind::Pod, pod("h", "node-1", true)),
            (Kind::Service, named("x", "s")),
            (Kind::NetworkPolicy, named("x", "p")),
        ];
        let mut index = Index::new();
        for (kind, object) in objects {
            index.handle(Event::Applied(Object::parse(kind, object).expect("a valid object").object));
        }
        for kind in [Kind::Pod, Kind::Service, Kind::NetworkPolicy] {
            index.handle(Event::Listed(kind));
        }
        index
    }

    #[test]
    fn conditions_that_no_event_meets_are_reported() {
        let elsewhere = |pod: &str, direction: &str, others: &str| {
            format!(
                "no {pod} runs on this node (node-1): its {direction} policies drop packets on node-2; here only {others} do"
            )
        };
        let rows = [
            ("", vec![]),
            ("from=10.0.0.1", vec![]),
            ("to=x/a", vec![]),
            ("to=x/*", vec![]),
            ("to=pod%3Da", vec![]),
            ("to=svc/x/s&namespace=x&policy=x/p", vec![]),
            ("to=x/b", vec![elsewhere("pod x/b", "ingress", "egress policies of sources")]),
            ("from=x/b", vec![elsewhere("pod x/b", "egress", "ingress policies of destinations")]),
            ("from=pod%3Db", vec![elsewhere("pod with these labels", "egress", "ingress policies of destinations")]),
            ("to=x/b&connections=true", vec![]),
            ("to=x/c", vec!["there is no pod x/c: no event matches --to".to_owned()]),
            ("from=c*", vec!["there is no pod default/c*: no event matches --from".to_owned()]),
            (
                "from=x/h",
                vec!["no pod x/h has an address of its own (hostNetwork): no event matches --from; use the address of the node".to_owned()],
            ),
            ("to=svc/s", vec!["there is no Service default/s: no event matches --to".to_owned()]),
            ("namespace=y", vec!["namespace y has neither pods nor Services: no event matches it".to_owned()]),
            ("policy=x/q", vec!["there is no NetworkPolicy x/q: no drop matches it".to_owned()]),
            ("policy=p", vec!["there is no ClusterNetworkPolicy p: no drop matches it".to_owned()]),
        ];
        let index = index();
        for (query, expected) in rows {
            let filter = EventFilter::parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
            assert_eq!(notices(&filter, &index, "node-1"), expected, "{query}");
        }
    }

    #[test]
    fn kinds_that_are_not_listed_are_not_missing() {
        let filter = EventFilter::parse("from=x/a&namespace=y&policy=x/p").expect("a valid filter");
        assert_eq!(notices(&filter, &Index::new(), "node-1"), Vec::<String>::new());
    }
}
