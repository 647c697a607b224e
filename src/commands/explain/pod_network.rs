//! What the pod network does with a connection: host ports, the way between nodes, and masquerading of traffic that leaves it.
//!
//! The routes of a node are those that its daemon programs: [`NodeRoutes`] is the same. Which addresses are on a link of the node is known
//! only of this machine; of other nodes the ways are named that the mode allows.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use ipnet::IpNet;
use portcullis_cluster::pod::Pod;
use portcullis_cluster::{Family, Index, Name, Protocol};
use portcullis_netlink::route::{Route, RouteTarget};
use portcullis_podnet::PodNetworkMode;
use portcullis_podnet::egress::EgressPolicy;
use portcullis_podnet::node_routes::{ForwardingKey, ForwardingObject, NodeRoutes, OwnNetwork, vtep_mac};

use super::explanation::{NodeRouteExplanation, NodeWay};
use crate::config::{Config, PodNetwork};
use crate::node_network::planning::cluster_cidrs;
use crate::node_network::reserved;

/// Indexes that stand for the VXLAN links and the uplink of a node.
const VTEPS: [u32; 2] = [1, 2];
const UPLINK: u32 = 3;

/// The pod network of the cluster; without `--pod-network` there is none.
pub(crate) struct PodNetworkLookup<'a> {
    settings: &'a PodNetwork,
    index: &'a Index,
    excluded: Vec<IpNet>,
    /// The routes of nodes that were needed.
    routes: RefCell<BTreeMap<Name, Rc<NodeRoutes>>>,
}

/// A way between two nodes, or the reason why there is none.
pub(super) type NodeRoute = Result<NodeRouteExplanation, String>;

impl<'a> PodNetworkLookup<'a> {
    /// Returns the pod network of a configuration.
    pub(crate) fn new(config: &'a Config, index: &'a Index) -> Option<Self> {
        let settings = config.pod_network.as_ref()?;
        let excluded = [cluster_cidrs(config), settings.masquerade_exclude_cidrs.clone()].concat();
        Some(PodNetworkLookup { settings, index, excluded, routes: RefCell::default() })
    }

    /// Returns the pod of a node to which one of its addresses and ports is forwarded, with the address and port of the pod.
    pub(super) fn host_port(
        &self,
        node: &Name,
        to: SocketAddr,
        protocol: Protocol,
    ) -> Option<(&Pod, SocketAddr)> {
        let family = Family::from_address(to.ip());
        let is_on_node =
            |pod: &&Pod| pod.node.as_ref() == Some(node) && !pod.host_network && !pod.is_finished;
        let mut found = None;
        for pod in self.index.pods().filter(is_on_node) {
            let Some(address) = pod.ips.iter().find(|ip| Family::from_address(**ip) == family) else {
                continue;
            };
            for port in pod.host_ports() {
                if (port.host_port.get(), port.protocol) != (to.port(), protocol) {
                    continue;
                }
                let target = (pod, SocketAddr::new(*address, port.container_port.get()));
                match port.host_ip.filter(|ip| !ip.is_unspecified()) {
                    // A single address has precedence.
                    Some(ip) if ip == to.ip() => return Some(target),
                    Some(_) => {}
                    None => found = found.or(Some(target)),
                }
            }
        }
        found
    }

    /// Returns the way from a node to an address of a pod on another node; `None` if no pod CIDR of that node contains it, as of pods of a
    /// previous network plugin.
    pub(super) fn way(&self, from: &Name, to: &Name, address: IpAddr) -> Option<NodeRoute> {
        let node = self.index.node(to)?;
        let cidr = node.pod_cidrs.iter().map(IpNet::trunc).find(|cidr| cidr.contains(&address))?;
        let routes = self.routes(from);
        let wanted = routes.wanted();
        let metric = Route::default_metric(match Family::from_net(&cidr) {
            Family::V4 => portcullis_netlink::Family::V4,
            Family::V6 => portcullis_netlink::Family::V6,
        });
        let key = ForwardingKey::Route(cidr, metric);
        // Another node may have the same pod CIDR, and the route.
        let found = wanted.get(&key).filter(|_| routes.node_of(&key) == Some(to));
        let Some(ForwardingObject::Route(route)) = found else {
            let problem = routes.problems().get(to).and_then(|problems| problems.first());
            return Some(Err(problem.map_or_else(|| "it is not known".to_owned(), ToString::to_string)));
        };
        let RouteTarget::Gateway { link, address: gateway, .. } = route.target else { return None };
        let overlay = match wanted.get(&ForwardingKey::Fdb(link, vtep_mac(to))) {
            Some(ForwardingObject::Fdb(entry)) if VTEPS.contains(&link) => Some(entry.remote),
            _ => None,
        };
        let (way, via) = match (overlay, self.settings.mode) {
            (Some(remote), PodNetworkMode::CrossSubnet) => (NodeWay::LinkOrOverlay, remote),
            (Some(remote), _) => (NodeWay::Overlay, remote),
            (None, _) => (NodeWay::Link, gateway),
        };
        Some(Ok(NodeRouteExplanation {
            from: from.to_string(),
            to: to.to_string(),
            destination: cidr.to_string(),
            way,
            via,
        }))
    }

    /// Returns true if a node masquerades the packets of its pods to an address.
    pub(super) fn masquerades(&self, node: &Name, source: IpAddr, destination: IpAddr) -> bool {
        let routes = self.routes(node);
        let policy = EgressPolicy {
            pod_cidrs: routes.own_pod_cidrs().to_vec(),
            excluded: routes.pod_cidrs().iter().chain(&self.excluded).copied().collect(),
        };
        self.settings.masquerade && policy.masquerades(source, destination)
    }

    fn routes(&self, node: &Name) -> Rc<NodeRoutes> {
        let mut all = self.routes.borrow_mut();
        Rc::clone(all.entry(node.clone()).or_insert_with(|| Rc::new(self.new_routes(node))))
    }

    fn new_routes(&self, node: &Name) -> NodeRoutes {
        let everywhere = ["0.0.0.0/0", "::/0"].map(|net| net.parse().expect("a CIDR"));
        let on_link = match self.settings.mode {
            // With `host-gw`, all nodes have to be on one link.
            PodNetworkMode::HostGw => everywhere.map(|net: IpNet| (net, UPLINK)).to_vec(),
            PodNetworkMode::Vxlan | PodNetworkMode::CrossSubnet => Vec::new(),
        };
        let mut routes = NodeRoutes::new(OwnNetwork {
            on_link,
            vteps: VTEPS.map(Some),
            reserved: reserved::addresses(self.index),
            ..OwnNetwork::new(node.clone(), self.settings.mode)
        });
        routes.update(self.index.nodes().map(|node| (node.name.clone(), Some(node))));
        routes
    }
}
