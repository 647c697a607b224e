//! Resolution of arguments that name an object indirectly: workloads, the own node, names with dots.

use portcullis_cluster::pod::Pod;
use portcullis_cluster::{Name, NamespacedName};

use super::client::Client;
use super::error::ExplainError;
use super::peer_argument::{Peer, PeerArgument, WorkloadKind, kind_names};
use crate::commands::cluster_lookup::{ClusterLookup, listed};
use crate::config::nearest;

/// Labels that controllers add to pods.
const POD_TEMPLATE_HASH: &str = "pod-template-hash";
const CONTROLLER_REVISION_HASH: &str = "controller-revision-hash";
const STATEFUL_SET_POD: &str = "statefulset.kubernetes.io/pod-name";
const JOB_NAMES: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

/// A resolved peer, and a note about the choice.
pub(super) struct Resolved {
    pub(super) peer: Peer,
    pub(super) note: Option<String>,
}

/// Resolves the peer of an argument. `client` is the client of a connection to the peer, and `node` the value of `--node`.
pub(super) fn resolve(
    cluster: &ClusterLookup<'_>,
    flag: &'static str,
    argument: &PeerArgument,
    client: Option<&Client>,
    node: Option<&Name>,
) -> Result<Resolved, ExplainError> {
    let peer = match argument {
        PeerArgument::Peer(peer) => {
            if let Peer::Named(key) = peer {
                check_kind(cluster, flag, key)?;
            }
            peer.clone()
        }
        PeerArgument::OwnNode => Peer::Node(own_node(cluster, flag, client, node)?),
        PeerArgument::Dotted { pod, service } => match cluster.index.pod(pod) {
            Some(_) => Peer::Pod(pod.clone()),
            None if cluster.index.service(service).is_some() => Peer::Service(service.clone()),
            None => {
                let services: Vec<_> = cluster.index.services().map(|service| &service.key).collect();
                let is_namespace = services.iter().any(|other| other.namespace == service.namespace);
                let message = match is_namespace {
                    true => cluster.unknown("Service", service, services),
                    false => format!(
                        "{} is neither a pod nor the name of a Service (NAME.NAMESPACE.svc); for a host outside of the \
                         cluster, use its address",
                        pod.name
                    ),
                };
                return Err(ExplainError::argument(flag, message));
            }
        },
        PeerArgument::Workload(kind, key) => return pod_of(cluster, flag, *kind, key),
    };
    Ok(Resolved { peer, note: None })
}

/// Suggests a kind for `scv/web`, whose first part is no namespace.
fn check_kind(
    cluster: &ClusterLookup<'_>,
    flag: &'static str,
    key: &NamespacedName,
) -> Result<(), ExplainError> {
    let pods = cluster.index.pods().map(|pod| &pod.key);
    let mut objects = pods.chain(cluster.index.services().map(|service| &service.key));
    let is_namespace = objects.any(|object| object.namespace == key.namespace);
    // Also letters in another order, which are two edits.
    let letters = |text: &str| {
        let mut letters: Vec<char> = text.chars().collect();
        letters.sort_unstable();
        letters
    };
    let given = key.namespace.as_str();
    let transposed = || kind_names().find(|kind| letters(kind) == letters(given));
    match nearest(given, kind_names()).or_else(transposed).filter(|_| !is_namespace) {
        Some(kind) => {
            let message = format!("there is no pod or Service {key}; did you mean {kind}/{}?", key.name);
            Err(ExplainError::argument(flag, message))
        }
        None => Ok(()),
    }
}

fn own_node(
    cluster: &ClusterLookup<'_>,
    flag: &'static str,
    client: Option<&Client>,
    node: Option<&Name>,
) -> Result<Name, ExplainError> {
    let names = cluster.node_names();
    let of_client = client.and_then(|client| client.node.clone());
    let this = || crate::node::name(cluster.config).ok().filter(|name| names.contains(name));
    let only = || names.first().cloned().filter(|_| names.len() == 1);
    node.cloned().or(of_client).or_else(this).or_else(only).ok_or_else(|| {
        let names = listed(names.iter().map(|name| name.as_str()));
        ExplainError::argument(flag, format!("which node is not known; use node/NAME, with one of {names}"))
    })
}

/// Returns one of the pods of a workload: one of this node if there is any, ready to run and not terminating, the first by name.
fn pod_of(
    cluster: &ClusterLookup<'_>,
    flag: &'static str,
    kind: WorkloadKind,
    key: &NamespacedName,
) -> Result<Resolved, ExplainError> {
    let this_node = crate::node::name(cluster.config).ok();
    let mut pods: Vec<&Pod> = cluster.index.pods().filter(|pod| has_pod(kind, key, pod)).collect();
    pods.sort_by_key(|pod| {
        let is_unusable = pod.is_finished || pod.ips.is_empty();
        (is_unusable, pod.is_terminating, pod.node != this_node, &pod.key)
    });
    let Some(pod) = pods.first() else {
        let pods = cluster.index.pods().filter(|pod| pod.key.namespace == key.namespace);
        let mut names: Vec<&str> = pods.map(|pod| &*pod.key.name).collect();
        names.sort_unstable();
        let workloads = names.iter().filter_map(|name| kind.workload_of(name));
        let hint = match nearest(&key.name, workloads) {
            Some(near) => format!("did you mean {near}?"),
            None if names.is_empty() => format!("namespace {} has no pods", key.namespace),
            None => format!("the pods of namespace {} are {}", key.namespace, listed(names)),
        };
        let message = format!("no pod belongs to {kind} {key} by its name and labels; {hint}");
        return Err(ExplainError::argument(flag, message));
    };
    let note = match pods.len() {
        1 => format!("{kind} {key}: pod {}", pod.key),
        count => format!("{kind} {key}: pod {}, one of {count}", pod.key),
    };
    Ok(Resolved { peer: Peer::Pod(pod.key.clone()), note: Some(note) })
}

impl WorkloadKind {
    /// Returns the name of the workload of this kind that would give a pod its name.
    fn workload_of(self, pod: &str) -> Option<&str> {
        let (name, _) = pod.rsplit_once('-')?;
        match self {
            WorkloadKind::Deployment => name.rsplit_once('-').map(|(name, _)| name),
            _ => Some(name),
        }
    }
}

/// Returns true if a pod belongs to a workload, by the name that the controller gives it and the labels that it adds.
fn has_pod(kind: WorkloadKind, workload: &NamespacedName, pod: &Pod) -> bool {
    let name = &*workload.name;
    let suffix = pod.key.name.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
    let (Some(suffix), true) = (suffix, pod.key.namespace == workload.namespace) else { return false };
    let label = |key: &str| pod.labels.get(key);
    let parts: Vec<&str> = suffix.split('-').collect();
    let is_random =
        |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let has_other_controller = label(STATEFUL_SET_POD).is_some()
        || label(CONTROLLER_REVISION_HASH).is_some()
        || JOB_NAMES.iter().any(|key| label(key).is_some());
    match kind {
        WorkloadKind::Deployment | WorkloadKind::ReplicaSet => {
            let count = if kind == WorkloadKind::Deployment { 2 } else { 1 };
            match label(POD_TEMPLATE_HASH) {
                Some(hash) if kind == WorkloadKind::Deployment => parts.len() == 2 && parts[0] == hash,
                Some(_) => parts.len() == 1,
                None => parts.len() <= count && parts.iter().all(is_random) && !has_other_controller,
            }
        }
        WorkloadKind::StatefulSet => {
            parts.len() == 1 && !parts[0].is_empty() && parts[0].bytes().all(|b| b.is_ascii_digit())
        }
        WorkloadKind::DaemonSet => {
            let is_other = label(POD_TEMPLATE_HASH).is_some() || label(STATEFUL_SET_POD).is_some();
            parts.len() == 1 && is_random(&parts[0]) && !is_other
        }
        WorkloadKind::Job => match JOB_NAMES.iter().find_map(|key| label(key)) {
            Some(job) => job == name,
            None => {
                parts.len() == 1
                    && is_random(&parts[0])
                    && !has_other_controller
                    && label(POD_TEMPLATE_HASH).is_none()
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use portcullis_cluster::{Kind, Object};
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_belong_to_the_workloads_that_name_and_label_them() {
        use WorkloadKind::*;
        // The pod, its label, and the workloads named web to which it belongs.
        type Row<'a> = (&'a str, Option<(&'a str, &'a str)>, &'a [WorkloadKind]);
        let rows: [Row<'_>; 12] = [
            ("web-7d4b9c6f5-x2x9k", Some((POD_TEMPLATE_HASH, "7d4b9c6f5")), &[Deployment]),
            ("web-x2x9k", Some((POD_TEMPLATE_HASH, "7d4b9c6f5")), &[ReplicaSet]),
            // Of Deployment web-api.
            ("web-api-7d4b9c6f5-x2x9k", Some((POD_TEMPLATE_HASH, "7d4b9c6f5")), &[]),
            ("web-7d4b9c6f5-x2x9k", None, &[Deployment]),
            ("web-0", Some((STATEFUL_SET_POD, "web-0")), &[StatefulSet]),
            ("web-x2x9k", Some((CONTROLLER_REVISION_HASH, "6c8")), &[DaemonSet]),
            ("web-x2x9k", Some(("job-name", "web")), &[DaemonSet, Job]),
            ("web-28-x2x9k", Some(("job-name", "web-28")), &[]),
            ("web-28-x2x9k", Some(("batch.kubernetes.io/job-name", "web")), &[Job]),
            ("web", None, &[]),
            ("website-0", None, &[]),
            ("web-", None, &[]),
        ];
        for (name, label, expected) in rows {
            let labels: serde_json::Map<_, _> =
                label.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
            let object =
                json!({"metadata": {"name": name, "namespace": "shop", "labels": labels}, "spec": {}});
            let parsed = Object::parse(Kind::Pod, object).expect("a pod").object;
            let Object::Pod(pod) = parsed else { panic!("a pod") };
            let of: Vec<WorkloadKind> = [Deployment, ReplicaSet, StatefulSet, DaemonSet, Job]
                .into_iter()
                .filter(|kind| has_pod(*kind, &NamespacedName::new("shop", "web"), &pod))
                .collect();
            assert_eq!(of, expected, "{name} {label:?}");
            assert!(!has_pod(Deployment, &NamespacedName::new("other", "web"), &pod));
        }
    }
}
