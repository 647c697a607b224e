//! Detection of misspelled kinds and API versions.

use crate::kind::Kind;

/// The kinds of the core group `v1` that are not in use, so that none of them is reported as misspelled.
const CORE: [&str; 14] = [
    "Binding",
    "ComponentStatus",
    "ConfigMap",
    "Endpoints",
    "Event",
    "LimitRange",
    "List",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "PodTemplate",
    "ReplicationController",
    "ResourceQuota",
    "Secret",
    "ServiceAccount",
];

/// The kinds of `apps/v1`, which the lab uses.
const APPS: [&str; 5] = ["ControllerRevision", "DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"];

/// The maximum edit distance of a misspelled kind.
const EDITS: usize = 2;

/// Returns an error message for the `apiVersion` and `kind` of a document that is probably meant to be of a kind in use. Kinds of
/// other API groups may have the same names (`projectcalico.org/v3` NetworkPolicy, `serving.knative.dev/v1` Service), so only
/// groups of Kubernetes itself are considered.
pub fn misspelled_kind(api_version: &str, kind: &str) -> Option<String> {
    let same_version = |known: &&Kind| known.api_version() == api_version;
    let is_core = api_version == "v1" && CORE.contains(&kind);
    let near = Kind::ALL.iter().filter(same_version).find(|known| is_near(kind, known.as_str()));
    if let Some(known) = near.filter(|_| !is_core) {
        return Some(format!("kind: {kind:?} is not a kind of {api_version}; did you mean {known}?"));
    }
    if api_version == "apps/v1"
        && !APPS.contains(&kind)
        && Kind::ALL.iter().all(|known| known.as_str() != kind)
    {
        let near = APPS.iter().find(|known| is_near(kind, known));
        return near
            .map(|near| format!("kind: {kind:?} is not a kind of {api_version}; did you mean {near}?"));
    }
    let known = Kind::ALL.into_iter().find(|known| known.as_str() == kind)?;
    let expected = known.api_version();
    let is_mistake = is_of_kubernetes(api_version) || is_near(api_version, expected);
    is_mistake
        .then(|| format!("apiVersion: {api_version:?} is not supported for kind {kind}; expected {expected}"))
}

/// Returns true if the group of an `apiVersion` belongs to Kubernetes: the core group, a group without a dot (`apps`,
/// `extensions`), or a group of the kinds in use.
fn is_of_kubernetes(api_version: &str) -> bool {
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    !group.contains('.')
        || Kind::ALL.iter().any(|known| known.api_version().starts_with(&format!("{group}/")))
}

/// Returns true if a word differs from another by few edits or by case.
fn is_near(word: &str, right: &str) -> bool {
    let edits = strsim::osa_distance(&word.to_lowercase(), &right.to_lowercase());
    word != right && edits <= EDITS.min(right.len() / 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelled_kinds_are_detected() {
        let rows = [
            ("v1", "Sevice", Some("did you mean Service?")),
            ("v1", "service", Some("did you mean Service?")),
            ("v1", "Services", Some("did you mean Service?")),
            ("v1", "Serivce", Some("did you mean Service?")),
            ("v1", "Namepsace", Some("did you mean Namespace?")),
            ("v1", "pod", Some("did you mean Pod?")),
            ("discovery.k8s.io/v1", "EndpointSlices", Some("did you mean EndpointSlice?")),
            ("networking.k8s.io/v1", "NetworkPolcy", Some("did you mean NetworkPolicy?")),
            ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicies", None),
            ("discovery.k8s.io/v1beta1", "EndpointSlice", Some("expected discovery.k8s.io/v1")),
            ("extensions/v1beta1", "NetworkPolicy", Some("expected networking.k8s.io/v1")),
            ("v1", "NetworkPolicy", Some("expected networking.k8s.io/v1")),
            ("apps/v1", "Service", Some("expected v1")),
            ("v1beta1", "Service", Some("expected v1")),
            ("netwroking.k8s.io/v1", "NetworkPolicy", Some("expected networking.k8s.io/v1")),
            (
                "policy.networking.k8s.io/v1alpha1",
                "ClusterNetworkPolicy",
                Some("expected policy.networking.k8s.io/v1alpha2"),
            ),
            ("v1", "Secret", None),
            ("v1", "Event", None),
            ("v1", "Endpoints", None),
            ("v1", "ServiceAccount", None),
            ("networking.k8s.io/v1", "Ingress", None),
            ("networking.k8s.io/v1", "IngressClass", None),
            ("networking.k8s.io/v1", "IPAddress", None),
            ("apps/v1", "Deployment", None),
            ("apps/v1", "Deploymnet", Some("did you mean Deployment?")),
            ("apps/v1", "Scale", None),
            ("serving.knative.dev/v1", "Service", None),
            ("projectcalico.org/v3", "NetworkPolicy", None),
            ("crd.projectcalico.org/v1", "NetworkPolicy", None),
            ("cilium.io/v2", "CiliumNetworkPolicy", None),
            ("metrics.k8s.io/v1beta1", "NodeMetrics", None),
            ("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", None),
        ];
        for (api_version, kind, expected) in rows {
            let found = misspelled_kind(api_version, kind);
            assert_eq!(found.is_some(), expected.is_some(), "{api_version} {kind}: {found:?}");
            let found = found.unwrap_or_default();
            assert!(found.contains(expected.unwrap_or_default()), "{api_version} {kind}: {found}");
        }
    }
}
