//! Frontends: how a Service port is reached on a node, and how its connections are routed.
//!
//! The rules are those of kube-proxy, for every mode. The modes render them, and stale flows, `explain`, `migrate` and the
//! metrics read them. [`ModeCapabilities`] has the differences between the modes.
//!
//! | frontend | traffic policy | source | endpoints | masqueraded |
//! | --- | --- | --- | --- | --- |
//! | ClusterIP | internal | pods | of the policy | no |
//! | ClusterIP | internal | all other sources | of the policy | yes, if pods are detected |
//! | external | Cluster | all sources | of policy Cluster | yes |
//! | external | Local | pods | of policy Cluster | no |
//! | external | Local | this node | of policy Cluster | yes |
//! | external | Local | all other sources | of policy Local | no |

use std::net::IpAddr;

use ipnet::IpNet;

use super::frontend_address::{FrontendAddress, FrontendKind};
use super::mode_capabilities::ModeCapabilities;
use super::service_port::ServicePort;
use crate::traffic_policy::TrafficPolicy;

/// A frontend of a Service port: one destination at which it is reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frontend<'a> {
    /// The destination.
    pub address: FrontendAddress,
    /// The Service field that it comes from.
    pub kind: FrontendKind,
    /// The Service port.
    pub port: &'a ServicePort,
}

/// The response to connections for which there is no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The Service has no usable endpoint: the client gets an error.
    Reject,
    /// Traffic policy Local has no endpoint on this node, but there are endpoints elsewhere: the client gets no response,
    /// until the load balancer stops to use this node.
    Drop,
}

/// The sources of connections, as far as a node routes them differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceClass {
    /// Sources that `--detect-local-mode` recognises as pods.
    Pod,
    /// This node itself, unless it is recognised as a pod.
    Node,
    /// All other sources.
    External,
}

/// The reason why connections are masqueraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MasqueradeReason {
    /// `masqueradeAll` is set.
    MasqueradeAll,
    /// The source of a connection to a ClusterIP is not a pod.
    NotFromPod,
    /// The source is this node.
    FromNode,
    /// `externalTrafficPolicy` is `Cluster`, so the endpoint may be on another node.
    ExternalPolicyCluster,
}

/// The sources whose connections to ClusterIPs are masqueraded. They are the same for all Services, so a mode may have one rule
/// for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterIpMasquerade {
    /// All sources.
    All,
    /// All sources that are not recognised as pods.
    NotFromPod,
    /// This node only.
    FromNode,
    /// No source.
    Never,
}

impl ClusterIpMasquerade {
    /// Returns the reason why connections from a class of sources are masqueraded, if they are.
    fn reason(self, source: SourceClass) -> Option<MasqueradeReason> {
        match self {
            Self::All => Some(MasqueradeReason::MasqueradeAll),
            Self::NotFromPod => (source != SourceClass::Pod).then_some(MasqueradeReason::NotFromPod),
            Self::FromNode => (source == SourceClass::Node).then_some(MasqueradeReason::FromNode),
            Self::Never => None,
        }
    }
}

/// The properties of a node, in one family, that the routing of connections depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoutingContext {
    /// The node's primary address.
    pub node_ip: Option<IpAddr>,
    /// All connections to ClusterIPs are masqueraded.
    pub masquerade_all: bool,
    /// Connections of pods are recognised in this family.
    pub detects_pods: bool,
    /// The capabilities of the proxy mode.
    pub capabilities: ModeCapabilities,
}

impl RoutingContext {
    /// Returns the sources whose connections to ClusterIPs are masqueraded.
    pub fn cluster_ip_masquerade(&self) -> ClusterIpMasquerade {
        if self.masquerade_all {
            ClusterIpMasquerade::All
        } else if self.detects_pods {
            ClusterIpMasquerade::NotFromPod
        } else if self.capabilities.masquerades_own_connections {
            ClusterIpMasquerade::FromNode
        } else {
            ClusterIpMasquerade::Never
        }
    }
}

/// The route of connections from one class of sources to a frontend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Route {
    /// The traffic policy that applies.
    pub policy: TrafficPolicy,
    /// Policy Local has no endpoint on this node, and the mode uses the endpoints of policy Cluster instead.
    pub is_fallback: bool,
    /// The reason why the connections are masqueraded, if they are.
    pub masquerade: Option<MasqueradeReason>,
    /// The response if there is no endpoint; `None` if there is one.
    pub rejection: Option<Rejection>,
}

/// The only sources that may use a frontend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AllowedSources<'a> {
    /// The blocks of `loadBalancerSourceRanges`; without any block, no source is allowed by range.
    pub ranges: &'a [IpNet],
    /// Addresses of the load balancer, if the node is allowed. The load balancer may assign its address to the node, which
    /// then uses it as the source of its own connections to it.
    pub load_balancer_vips: &'a [IpAddr],
}

impl AllowedSources<'_> {
    /// Returns true if a source is allowed.
    pub fn contains(&self, source: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(&source)) || self.load_balancer_vips.contains(&source)
    }
}

impl Route {
    /// Returns the traffic policy whose endpoints are used.
    pub fn endpoint_policy(&self) -> TrafficPolicy {
        if self.is_fallback { TrafficPolicy::Cluster } else { self.policy }
    }
}

impl ServicePort {
    /// Returns its frontends; an address that is listed several times is returned several times.
    pub fn frontends(&self) -> impl Iterator<Item = Frontend<'_>> + '_ {
        let cluster_ip = self.cluster_ip.into_iter().map(|ip| (ip, FrontendKind::ClusterIp));
        let external_ips = self.external_ips.iter().map(|ip| (*ip, FrontendKind::ExternalIp));
        let vips = self.load_balancer_vips.iter().map(|ip| (*ip, FrontendKind::LoadBalancer));
        let virtual_ips = cluster_ip.chain(external_ips).chain(vips).map(|(ip, kind)| Frontend {
            address: FrontendAddress::virtual_ip(self.name.protocol, ip, self.port.get()),
            kind,
            port: self,
        });
        virtual_ips.chain(self.node_port_frontend())
    }

    /// Returns the frontend with a virtual IP.
    pub fn frontend_at(&self, ip: IpAddr) -> Option<Frontend<'_>> {
        self.frontends().find(|frontend| frontend.address.ip() == Some(ip))
    }

    /// Returns the frontend of the node port.
    pub fn node_port_frontend(&self) -> Option<Frontend<'_>> {
        let (protocol, family) = (self.name.protocol, self.family);
        self.node_port.map(|port| Frontend {
            address: FrontendAddress::NodePort { protocol, family, port: port.get() },
            kind: FrontendKind::NodePort,
            port: self,
        })
    }

    /// Returns the response to connections by a traffic policy; `None` if the policy has an endpoint.
    pub fn rejection(&self, policy: TrafficPolicy) -> Option<Rejection> {
        if !self.endpoints.has_usable() {
            Some(Rejection::Reject)
        } else if self.endpoints.has_any_for(policy) {
            None
        } else {
            Some(Rejection::Drop)
        }
    }
}

impl<'a> Frontend<'a> {
    /// Returns true if it serves sources outside of the cluster.
    pub fn is_external(&self) -> bool {
        self.kind != FrontendKind::ClusterIp
    }

    /// Returns the traffic policy that the Service specifies for it.
    pub fn traffic_policy(&self) -> TrafficPolicy {
        if self.is_external() { self.port.external_policy } else { self.port.internal_policy }
    }

    /// Returns the response to connections by its traffic policy; `None` if the policy has an endpoint.
    pub fn rejection(&self) -> Option<Rejection> {
        self.port.rejection(self.traffic_policy())
    }

    /// Returns the only sources that may use it; `None` if every source may.
    pub fn allowed_sources(&self, context: &RoutingContext) -> Option<AllowedSources<'a>> {
        let port = self.port;
        let ranges = port.source_ranges.as_deref().filter(|_| self.kind == FrontendKind::LoadBalancer)?;
        if !port.endpoints.has_usable() && !context.capabilities.filters_sources_without_endpoints {
            return None;
        }
        let is_node_allowed =
            context.node_ip.is_some_and(|ip| ranges.iter().any(|range| range.contains(&ip)));
        let load_balancer_vips: &[IpAddr] = if is_node_allowed { &port.load_balancer_vips } else { &[] };
        Some(AllowedSources { ranges, load_balancer_vips })
    }

    /// Returns the route of connections from a class of sources.
    pub fn route(&self, source: SourceClass, context: &RoutingContext) -> Route {
        let policy = self.policy_for(source, context);
        let has_endpoints = |policy| self.port.endpoints.has_any_for(policy);
        let is_fallback = policy.is_local()
            && context.capabilities.falls_back_to_policy_cluster
            && !has_endpoints(TrafficPolicy::Local)
            && has_endpoints(TrafficPolicy::Cluster);
        Route {
            policy,
            is_fallback,
            masquerade: self.masquerade(source, context),
            rejection: if is_fallback { None } else { self.port.rejection(policy) },
        }
    }

    /// Returns the traffic policy for a class of sources. Pods and the node itself use external frontends as if they were
    /// ClusterIPs of policy Cluster.
    fn policy_for(&self, source: SourceClass, context: &RoutingContext) -> TrafficPolicy {
        let is_internal = source != SourceClass::External;
        match self.is_external() && is_internal && context.capabilities.routes_by_source {
            true => TrafficPolicy::Cluster,
            false => self.traffic_policy(),
        }
    }

    fn masquerade(&self, source: SourceClass, context: &RoutingContext) -> Option<MasqueradeReason> {
        if !self.is_external() {
            return context.cluster_ip_masquerade().reason(source);
        }
        match self.traffic_policy() {
            TrafficPolicy::Cluster => Some(MasqueradeReason::ExternalPolicyCluster),
            TrafficPolicy::Local => (source == SourceClass::Node && context.capabilities.routes_by_source)
                .then_some(MasqueradeReason::FromNode),
        }
    }
}
