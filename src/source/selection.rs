//! The objects of a kind that are requested from the API server.

use portcullis_cluster::Kind;

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

    /// The kinds that serving Services on a node needs.
    pub fn service_proxying(node: &str) -> Vec<Self> {
        vec![Selection::node(node), Selection::services(), Selection::endpoint_slices()]
    }
}
