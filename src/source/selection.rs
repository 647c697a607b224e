//! Which objects of a kind the API server is asked for.

use portcullis_cluster::Kind;

/// One kind, and which of its objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The kind.
    pub kind: Kind,
    /// A label selector, as the API spells it.
    pub labels: Option<String>,
    /// A field selector, as the API spells it.
    pub fields: Option<String>,
    /// A server that does not serve the kind (404) counts as one that has no such objects.
    pub optional: bool,
}

impl Selection {
    /// All objects of a kind.
    pub fn all(kind: Kind) -> Self {
        Selection { kind, labels: None, fields: None, optional: false }
    }

    /// The Services that a service proxy without a name serves: not headless, not another proxy's
    /// (kube-proxy 1.36, `ProxyServer.Run`).
    pub fn services() -> Self {
        Selection {
            labels: Some("!service.kubernetes.io/service-proxy-name".into()),
            fields: Some("spec.clusterIP!=None".into()),
            ..Selection::all(Kind::Service)
        }
    }

    /// The slices of Services that are not headless (kube-proxy 1.36, `ProxyServer.Run`).
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

    /// All ServiceCIDRs; served since Kubernetes 1.33.
    pub fn service_cidrs() -> Self {
        Selection { optional: true, ..Selection::all(Kind::ServiceCidr) }
    }

    /// What judging by policies takes: all pods that have not ended, and what selectors can find them and their
    /// peers by. A server without ClusterNetworkPolicies has none.
    pub fn network_policy() -> Vec<Self> {
        let running = "status.phase!=Succeeded,status.phase!=Failed";
        vec![
            Selection { fields: Some(running.into()), ..Selection::all(Kind::Pod) },
            Selection::all(Kind::Namespace),
            Selection::all(Kind::NetworkPolicy),
            Selection { optional: true, ..Selection::all(Kind::ClusterNetworkPolicy) },
            Selection::all(Kind::Node),
        ]
    }

    /// What serving Services on a node takes.
    pub fn service_proxying(node: &str) -> Vec<Self> {
        vec![Selection::node(node), Selection::services(), Selection::endpoint_slices()]
    }
}
