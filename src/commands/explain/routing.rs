//! The route of a connection to a Service: the endpoints that it can reach, or the reason why there are none.
//!
//! [`Frontend::route`] determines it, as it does for the rules of the proxy modes. This module determines the inputs, which are
//! the class of the client and the node facts, and describes the result.

use std::net::IpAddr;

use portcullis_cluster::desired::{
    Endpoint, Frontend, FrontendKind, MasqueradeReason, Rejection, RoutingContext, SourceClass,
};
use portcullis_cluster::{Family, Name, TrafficPolicy};
use portcullis_modes::{DetectLocal, NodeFacts, Options};

use super::client::{Client, ClientKind};
use crate::commands::cluster_lookup::{ClusterLookup, listed};
use crate::commands::endpoints_v1::has_endpoints_v1;
use crate::node;
use crate::service_report::{Diagnosis, DiagnosisInput, diagnose, no_local_endpoint, not_ready};

/// The route of a connection on the node that routes it.
pub(super) struct ServiceRoute {
    /// The endpoints, each with the same probability, or the reason why there are none.
    pub(super) endpoints: Result<Vec<Endpoint>, NoRoute>,
    /// The traffic policy that applies.
    pub(super) policy: TrafficPolicy,
    /// The reason why the connection is masqueraded, if it is.
    pub(super) masquerade: Option<MasqueradeReason>,
}

/// The reason why a connection has no route.
pub(super) struct NoRoute {
    /// The effect for the client.
    pub(super) kind: NoRouteKind,
    /// The reason.
    pub(super) reason: String,
    /// A hint how to resolve it.
    pub(super) hint: String,
}

/// The effect of a missing route for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRouteKind {
    /// The connection is rejected with a reset or an ICMP error.
    Rejected,
    /// The client gets no response.
    Dropped,
    /// No rule matches the connection.
    NotServed,
}

/// A connection of a client to a frontend.
pub(super) struct ServiceConnection<'a> {
    pub(super) cluster: &'a ClusterLookup<'a>,
    pub(super) client: &'a Client,
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    pub(super) frontend: Frontend<'a>,
    /// The node whose rules route it.
    pub(super) node: Name,
}

impl ServiceConnection<'_> {
    /// Returns the route of the connection.
    pub(super) fn route(&self) -> ServiceRoute {
        let options = node::options(self.cluster.config, self.cluster.index.node(&self.node));
        let facts = NodeFacts {
            addresses: Box::new([self.to]),
            node_ips: self.cluster.primary_ips(&self.node),
            ..NodeFacts::default()
        };
        let context =
            self.cluster.config.mode.routing_context(Family::from_address(self.to), &options, &facts);
        let route = self.frontend.route(self.source_class(&options), &context);
        let endpoints = match self.filtered(&options, &facts, &context) {
            Some(no_route) => Err(no_route),
            None => match route.rejection {
                // Replies from endpoints on other nodes reach the client only through this node.
                None if route.is_fallback && !self.has_way_back() => Err(self.no_local_endpoint()),
                None => Ok(self.endpoints(route.endpoint_policy())),
                Some(Rejection::Drop) => Err(self.no_local_endpoint()),
                Some(Rejection::Reject) => Err(self.no_endpoint(&context)),
            },
        };
        ServiceRoute { endpoints, policy: route.policy, masquerade: route.masquerade }
    }

    fn endpoints(&self, policy: TrafficPolicy) -> Vec<Endpoint> {
        self.frontend.port.endpoints.for_policy(policy).collect()
    }

    /// Returns the class of the client on the routing node.
    fn source_class(&self, options: &Options) -> SourceClass {
        let is_on_node = self.client.node.as_ref() == Some(&self.node);
        let is_pod = match &options.detect_local {
            DetectLocal::Cidrs(cidrs) => {
                let family = Family::from_address(self.from);
                let cidr = cidrs.iter().find(|cidr| Family::from_net(cidr) == family);
                cidr.is_some_and(|cidr| cidr.contains(&self.from))
            }
            DetectLocal::BridgeInterface(_) | DetectLocal::InterfaceNamePrefix(_) => {
                is_on_node && matches!(self.client.kind, ClientKind::Pod(_))
            }
        };
        match is_pod {
            true => SourceClass::Pod,
            false if is_on_node && self.client.is_node() => SourceClass::Node,
            false => SourceClass::External,
        }
    }

    /// Returns true if replies from an endpoint on another node pass the routing node, although the connection is not
    /// masqueraded.
    fn has_way_back(&self) -> bool {
        let is_own_pod =
            matches!(self.client.kind, ClientKind::Pod(_)) && self.client.node.as_ref() == Some(&self.node);
        !self.frontend.is_external() || is_own_pod
    }

    /// Returns the reason why the frontend does not accept the connection, whatever its endpoints.
    fn filtered(&self, options: &Options, facts: &NodeFacts, context: &RoutingContext) -> Option<NoRoute> {
        if self.frontend.kind == FrontendKind::NodePort && !options.serves_node_ports_at(self.to, facts) {
            return Some(NoRoute {
                kind: NoRouteKind::NotServed,
                reason: format!("node ports are not served on {} of {}", self.to, self.node),
                hint: "check --nodeport-addresses, or use another address of the node".to_owned(),
            });
        }
        let allowed =
            self.frontend.allowed_sources(context).filter(|allowed| !allowed.contains(self.from))?;
        let ranges: Vec<String> = allowed.ranges.iter().map(ToString::to_string).collect();
        Some(NoRoute {
            kind: NoRouteKind::Dropped,
            reason: format!("{} is in none of the loadBalancerSourceRanges", self.from),
            hint: match ranges[..] {
                [] => "no source range is valid, so no client is allowed".to_owned(),
                _ => format!("the ranges are {}", listed(ranges.iter().map(String::as_str))),
            },
        })
    }

    fn no_local_endpoint(&self) -> NoRoute {
        let slices = self.cluster.index.slices_of(&self.frontend.port.name.service);
        let (reason, hint) = no_local_endpoint(self.frontend, slices, &self.node);
        NoRoute { kind: NoRouteKind::Dropped, reason, hint }
    }

    fn no_endpoint(&self, context: &RoutingContext) -> NoRoute {
        let port = self.frontend.port;
        let kind = if self.is_rejected(context) { NoRouteKind::Rejected } else { NoRouteKind::NotServed };
        let (reason, hint) = match port.endpoints.total() {
            0 => {
                let source = &self.cluster.config.source;
                let input = DiagnosisInput {
                    index: self.cluster.index,
                    has_pods: true,
                    has_endpoints_v1: &|service| has_endpoints_v1(source, service),
                };
                let Diagnosis { message, hint, .. } = diagnose(input, port);
                (message, hint)
            }
            total => not_ready(&port.name.service, total),
        };
        NoRoute { kind, reason, hint }
    }

    /// Returns true if the connection is rejected because there is no endpoint. Some modes do not reject the node's own
    /// connections to external addresses.
    fn is_rejected(&self, context: &RoutingContext) -> bool {
        let is_external_ip =
            matches!(self.frontend.kind, FrontendKind::ExternalIp | FrontendKind::LoadBalancer);
        let is_from_node = self.client.is_node() && self.client.node.as_ref() == Some(&self.node);
        let is_local = self.cluster.is_own_address(&self.node, self.to);
        context.capabilities.rejects_own_connections || !is_external_ip || !is_from_node || is_local
    }
}

/// Returns a description of the reason why a connection is masqueraded.
pub(super) fn masquerade_reason(reason: MasqueradeReason) -> &'static str {
    match reason {
        MasqueradeReason::MasqueradeAll => "masqueradeAll is set",
        MasqueradeReason::NotFromPod => "the client is not a pod of the cluster",
        MasqueradeReason::FromNode => "the client is the node",
        MasqueradeReason::ExternalPolicyCluster => "externalTrafficPolicy is Cluster",
    }
}
