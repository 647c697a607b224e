//! What a node makes of a connection to a Service: which endpoints, or none, and what becomes of its source.
//!
//! Which endpoints take traffic by which policy is in [`Endpoints`]; here is told, as the modes' rules have it,
//! by which policy this client goes.
//!
//! [`Endpoints`]: portcullis_cluster::desired::Endpoints

use std::net::IpAddr;

use portcullis_cluster::desired::{Endpoint, ServicePort};
use portcullis_cluster::{Family, Name};
use portcullis_modes::{DetectLocal, NodePortAddresses};

use super::client::{Client, ClientKind};
use super::entry::Entry;
use super::no_endpoints::{Diagnosis, diagnose};
use crate::commands::cluster_lookup::{ClusterLookup, listed};
use crate::config::ProxyMode;
use crate::node;

/// What becomes of a connection to a Service on the node that leads it.
pub(super) struct Route {
    /// To whom it goes, each with the same chance; or why to nobody.
    pub(super) outcome: Result<Vec<Endpoint>, NoRoute>,
    /// By traffic policy Local.
    pub(super) local_only: bool,
    /// What the source is replaced by.
    pub(super) source: Source,
}

/// Why a connection goes nowhere.
pub(super) struct NoRoute {
    /// What the client learns of it.
    pub(super) kind: NoRouteKind,
    /// In words.
    pub(super) reason: String,
    /// What may be done.
    pub(super) hint: String,
}

/// What a client learns of it that its connection goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRouteKind {
    /// It is told so: a reset, or an ICMP error.
    Rejected,
    /// Nothing, until it gives up.
    Dropped,
    /// No rule concerns the connection.
    NotServed,
}

/// What becomes of a connection's source.
pub(super) enum Source {
    /// It stays.
    Kept,
    /// It is replaced by an address of the node that leads the connection.
    Masqueraded(&'static str),
}

impl Source {
    /// Whether it is surely replaced.
    pub(super) fn is_masqueraded(&self) -> bool {
        matches!(self, Source::Masqueraded(_))
    }
}

/// Follows a connection of a client to a Service's port by one sort of its addresses.
pub(super) fn lead(
    cluster: &ClusterLookup<'_>,
    client: &Client,
    from: IpAddr,
    to: IpAddr,
    (port, entry, node): (&ServicePort, Entry, Name),
) -> Route {
    Leader { cluster, client, from, to, port, entry, node }.lead()
}

struct Leader<'a> {
    cluster: &'a ClusterLookup<'a>,
    client: &'a Client,
    from: IpAddr,
    to: IpAddr,
    port: &'a ServicePort,
    entry: Entry,
    /// The node whose rules lead it.
    node: Name,
}

/// Whether the rules take a client for one of the pods.
#[derive(Clone, Copy, PartialEq)]
enum Known {
    Pod,
    Other,
    Unclear,
}

impl Leader<'_> {
    fn lead(&self) -> Route {
        let local_only = match self.entry {
            Entry::ClusterIp => self.port.internal_local,
            _ if !self.port.external_local => false,
            // Pods and the node itself are led as if they had used the cluster IP.
            _ => self.is_ipvs() || !(self.seen_as() == Known::Pod || self.is_from_this_node()),
        };
        let outcome = self.refused().map_or_else(|| self.endpoints(local_only), Err);
        Route { outcome, local_only, source: self.source() }
    }

    fn is_ipvs(&self) -> bool {
        self.cluster.config.mode == ProxyMode::Ipvs
    }

    /// Whether the client is the node that leads the connection.
    fn is_from_this_node(&self) -> bool {
        self.client.is_node() && self.client.node == Some(self.node)
    }

    fn seen_as(&self) -> Known {
        let on_node = self.client.node == Some(self.node);
        match &node::options(self.cluster.config, self.cluster.index.node(self.node)).detect_local {
            DetectLocal::Cidrs(cidrs) => {
                match cidrs.iter().find(|net| Family::from_net(net) == Family::from_address(self.from)) {
                    Some(net) if net.contains(&self.from) => Known::Pod,
                    Some(_) => Known::Other,
                    None => Known::Unclear,
                }
            }
            _ if on_node && matches!(self.client.kind, ClientKind::Pod(_)) => Known::Pod,
            _ => Known::Other,
        }
    }

    fn source(&self) -> Source {
        let masquerade_all = self.cluster.config.masquerade.all;
        match self.entry {
            Entry::ClusterIp if masquerade_all => Source::Masqueraded("masqueradeAll is set"),
            Entry::ClusterIp => match self.seen_as() {
                Known::Pod => Source::Kept,
                Known::Other => Source::Masqueraded("the client is not a pod of the cluster"),
                Known::Unclear if self.is_ipvs() && self.is_from_this_node() => {
                    Source::Masqueraded("the client is the node")
                }
                Known::Unclear => Source::Kept,
            },
            _ if !self.port.external_local => Source::Masqueraded("externalTrafficPolicy is Cluster"),
            _ if self.is_ipvs() => Source::Kept,
            _ if self.is_from_this_node() && self.seen_as() != Known::Pod => {
                Source::Masqueraded("the client is the node")
            }
            _ => Source::Kept,
        }
    }

    /// Refusals that do not hang on endpoints.
    fn refused(&self) -> Option<NoRoute> {
        match self.entry {
            Entry::NodePort if !self.serves_node_port() => Some(NoRoute {
                kind: NoRouteKind::NotServed,
                reason: format!("node ports are not served on {} of {}", self.to, self.node),
                hint: "check --nodeport-addresses, or use another address of the node".to_owned(),
            }),
            // Without endpoints anywhere, the rules of iptables mode refuse it whatever its source; the others look at
            // the source first.
            Entry::LoadBalancer
                if (self.cluster.config.mode != ProxyMode::Iptables || self.port.endpoints.has_usable())
                    && !self.is_in_source_ranges() =>
            {
                Some(NoRoute {
                    kind: NoRouteKind::Dropped,
                    reason: format!("{} is in none of the loadBalancerSourceRanges", self.from),
                    hint: {
                        let ranges = self.port.source_ranges.iter().flatten();
                        let ranges: Vec<String> = ranges.map(ToString::to_string).collect();
                        match ranges[..] {
                            [] => "no source range is valid, so no client is allowed".to_owned(),
                            _ => format!("the ranges are {}", listed(ranges.iter().map(String::as_str))),
                        }
                    },
                })
            }
            _ => None,
        }
    }

    fn serves_node_port(&self) -> bool {
        let family = Family::from_address(self.to);
        match node::options(self.cluster.config, self.cluster.index.node(self.node)).node_port_addresses {
            NodePortAddresses::All => true,
            NodePortAddresses::Primary { .. } => self.cluster.primary_ips(self.node).contains(&self.to),
            addresses @ NodePortAddresses::Cidrs { .. } => {
                let cidrs = addresses.blocks();
                let mut own = cidrs.iter().filter(|net| Family::from_net(net) == family).peekable();
                own.peek().is_none() || own.any(|net| net.contains(&self.to))
            }
        }
    }

    fn is_in_source_ranges(&self) -> bool {
        let Some(ranges) = &self.port.source_ranges else { return true };
        let within = |ip: IpAddr| ranges.iter().any(|range| range.contains(&ip));
        // A load balancer may put its address on the node, which then uses it as source towards itself.
        let own_vip = || {
            let node = self.cluster.node_address(self.node, Family::from_address(self.from));
            self.port.load_balancer_vips.contains(&self.from) && node.is_some_and(within)
        };
        within(self.from) || own_vip()
    }

    fn endpoints(&self, local_only: bool) -> Result<Vec<Endpoint>, NoRoute> {
        let endpoints = &self.port.endpoints;
        let cluster = || endpoints.for_cluster().copied().collect::<Vec<_>>();
        let local = || endpoints.for_local().copied().collect::<Vec<_>>();
        // IPVS cannot tell for whom endpoints elsewhere are right, and leads all to them; but only what comes from
        // this node's pods gets an explanation.
        let has_way_back = || {
            let own_pod =
                matches!(self.client.kind, ClientKind::Pod(_)) && self.client.node == Some(self.node);
            self.entry == Entry::ClusterIp || own_pod
        };
        let chosen = match local_only {
            true if self.is_ipvs() && local().is_empty() && has_way_back() => cluster(),
            true => local(),
            false => cluster(),
        };
        if !chosen.is_empty() {
            return Ok(chosen);
        }
        let service = &self.port.name.service;
        if endpoints.has_usable() && local_only {
            let field = match self.entry {
                Entry::ClusterIp => "internalTrafficPolicy",
                _ => "externalTrafficPolicy",
            };
            return Err(NoRoute {
                kind: NoRouteKind::Dropped,
                reason: format!("{field} of {service} is Local, and node {} has no endpoint", self.node),
                hint: format!("endpoints are on {}", self.nodes_with_endpoints()),
            });
        }
        let total = endpoints.total();
        let kind = if self.leaves_unanswered() { NoRouteKind::NotServed } else { NoRouteKind::Rejected };
        if total == 0 {
            let Diagnosis { reason, hint } = diagnose(self.cluster, self.port);
            return Err(NoRoute { kind, reason, hint });
        }
        let (reason, hint) = match total {
            1 => {
                (format!("{service} has one endpoint, which is not ready"), "check the readiness of that pod")
            }
            _ => (
                format!("{service} has {total} endpoints, and none is ready"),
                "check the readiness of the pods",
            ),
        };
        Err(NoRoute { kind, reason, hint: hint.to_owned() })
    }

    /// Whether a connection without an endpoint meets no rule: in iptables mode what the node itself sends to external
    /// addresses passes the hook output only, and `KUBE-EXTERNAL-SERVICES` is called by input and forward.
    fn leaves_unanswered(&self) -> bool {
        let is_external = matches!(self.entry, Entry::ExternalIp | Entry::LoadBalancer);
        let is_own = self.cluster.is_own_address(self.node, self.to);
        self.cluster.config.mode == ProxyMode::Iptables && is_external && self.is_from_this_node() && !is_own
    }

    fn nodes_with_endpoints(&self) -> String {
        let slices = self.cluster.index.slices_of(&self.port.name.service);
        let usable = slices.iter().flat_map(|slice| &slice.endpoints).filter(|e| {
            Family::from_address(e.address) == self.port.family
                && (e.conditions.ready() || e.conditions.serving())
        });
        let mut nodes: Vec<&str> = usable.filter_map(|e| e.node).map(|node| node.as_str()).collect();
        nodes.sort_unstable();
        nodes.dedup();
        listed(nodes)
    }
}
