//! The objects of a kind that are requested from the API server.

use portcullis_cluster::{Kind, ObjectKey};

/// A kind, and the selectors of its objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The kind.
    pub kind: Kind,
    /// The label selector, in the API's syntax.
    pub labels: Option<String>,
    /// The field selector, in the API's syntax.
    pub fields: Option<String>,
    /// A server that does not serve the kind (404) counts as having no objects of it.
    pub optional: bool,
}

impl Selection {
    /// All objects of a kind.
    pub fn all(kind: Kind) -> Self {
        Selection { kind, labels: None, fields: None, optional: false }
    }

    /// The Services that kube-proxy serves: neither headless nor with the label `service-proxy-name` (kube-proxy 1.36,
    /// `ProxyServer.Run`).
    pub fn services() -> Self {
        Selection {
            labels: Some("!service.kubernetes.io/service-proxy-name".into()),
            fields: Some("spec.clusterIP!=None".into()),
            ..Selection::all(Kind::Service)
        }
    }

    /// The EndpointSlices of Services that are not headless (kube-proxy 1.36, `ProxyServer.Run`).
    pub fn endpoint_slices() -> Self {
        Selection {
            labels: Some("!service.kubernetes.io/headless".into()),
            ..Selection::all(Kind::EndpointSlice)
        }
    }

    /// One node.
    pub fn node(name: &str) -> Self {
        Selection { fields: Some(format!("metadata.name={name}")), ..Selection::all(Kind::Node) }
    }

    /// All ServiceCIDRs, which are served since Kubernetes 1.33.
    pub fn service_cidrs() -> Self {
        Selection { optional: true, ..Selection::all(Kind::ServiceCidr) }
    }

    /// The kinds that policies need: all nodes, which may be peers; namespaces; pods that have not terminated; and both kinds
    /// of policy, of which ClusterNetworkPolicy is optional.
    pub fn network_policy() -> Vec<Self> {
        let running = "status.phase!=Succeeded,status.phase!=Failed".to_owned();
        vec![
            Selection::all(Kind::Node),
            Selection::all(Kind::Namespace),
            Selection { fields: Some(running), ..Selection::all(Kind::Pod) },
            Selection::all(Kind::NetworkPolicy),
            Selection { optional: true, ..Selection::all(Kind::ClusterNetworkPolicy) },
        ]
    }

    /// Merges selections, so that each kind is requested once: an object is selected if one of them selects it.
    pub fn union(selections: impl IntoIterator<Item = Selection>) -> Vec<Selection> {
        let mut union: Vec<Selection> = Vec::new();
        for selection in selections {
            match union.iter_mut().find(|other| other.kind == selection.kind) {
                Some(other) => {
                    if (&other.labels, &other.fields) != (&selection.labels, &selection.fields) {
                        (other.labels, other.fields) = (None, None);
                    }
                    other.optional &= selection.optional;
                }
                None => union.push(selection),
            }
        }
        union
    }

    /// Returns false if an object with this key is certainly not selected. Labels are unknown, and so may match.
    pub fn may_include(&self, key: &ObjectKey) -> bool {
        let fields = self.fields.iter().flat_map(|fields| fields.split(','));
        let has_name =
            |field: &str| field.strip_prefix("metadata.name=").is_none_or(|name| *key.name.name == *name);
        key.kind == self.kind && (key.is_unnamed() || fields.into_iter().all(has_name))
    }

    /// The kinds that serving Services on a node needs.
    pub fn service_proxying(node: &str) -> Vec<Self> {
        vec![Selection::node(node), Selection::services(), Selection::endpoint_slices()]
    }
}

#[cfg(test)]
mod tests {
    use portcullis_cluster::NamespacedName;

    use super::*;

    #[test]
    fn kinds_that_two_controllers_need_are_requested_once() {
        let policies = Selection::network_policy();
        let needed = Selection::service_proxying("n1").into_iter().chain(policies.clone());
        let union = Selection::union(needed);
        let kinds: Vec<Kind> = union.iter().map(|selection| selection.kind).collect();
        let expected = [
            Kind::Node,
            Kind::Service,
            Kind::EndpointSlice,
            Kind::Namespace,
            Kind::Pod,
            Kind::NetworkPolicy,
            Kind::ClusterNetworkPolicy,
        ];
        assert_eq!(kinds, expected);
        assert_eq!(union[0], Selection::all(Kind::Node), "policies need all nodes");
        assert_eq!(union[1], Selection::services());
        assert!(policies[1..].iter().all(|selection| union.contains(selection)));
        let one_node = [Selection::node("n1"), Selection::node("n1")];
        assert_eq!(Selection::union(one_node), [Selection::node("n1")]);
        let required = [Selection::service_cidrs(), Selection::all(Kind::ServiceCidr)];
        assert_eq!(Selection::union(required), [Selection::all(Kind::ServiceCidr)]);
    }

    #[test]
    fn selection_excludes_other_kinds_and_names() {
        let key = |kind, name| ObjectKey { kind, name: NamespacedName::new("", name) };
        // Selection, object, and whether it may be selected.
        let rows = [
            (Selection::node("n1"), key(Kind::Node, "n1"), true),
            (Selection::node("n1"), key(Kind::Node, "n2"), false),
            (Selection::node("n1"), ObjectKey::unnamed(Kind::Node), true),
            (Selection::all(Kind::Node), key(Kind::Node, "n2"), true),
            (Selection::all(Kind::Node), key(Kind::Namespace, "n2"), false),
            (Selection::services(), key(Kind::Service, "web"), true),
            (Selection::network_policy().remove(2), key(Kind::Pod, "web-1"), true),
        ];
        for (selection, key, expected) in rows {
            assert_eq!(selection.may_include(&key), expected, "{selection:?}: {key}");
        }
    }
}
