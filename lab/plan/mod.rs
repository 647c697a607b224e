//! Plan of a cluster: the objects and addresses that controllers, scheduler, network plugin and cloud provider would
//! produce from the user's objects. Pure.

pub(crate) mod addresses;
mod echo_ports;
pub(crate) mod endpoint_slices;
mod frontend;
mod nodes;
mod pods;
pub(crate) mod service_defaults;
mod workloads;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cluster_objects::{ClusterObjects, LabObject, namespace_of};
use crate::error::Result;
use addresses::{AddressPool, NodePortPool};
use service_defaults::Pools;

pub use addresses::Family;
pub use echo_ports::{EchoPort, Protocol};
pub use frontend::{Frontend, FrontendKind};

/// Namespace of the lab's own client pods.
pub const CLIENT_NAMESPACE: &str = "portcullis-lab";

/// Returns the name of the client pod on a node, as `namespace/name`.
pub fn client_on(node: &str) -> String {
    format!("{CLIENT_NAMESPACE}/client-{node}")
}

/// Address families of a cluster, the primary one first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Families {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both, IPv4 first.
    #[default]
    Dual,
}

impl Families {
    /// Returns the families in order.
    pub fn list(self) -> &'static [Family] {
        match self {
            Self::V4 => &[Family::V4],
            Self::V6 => &[Family::V6],
            Self::Dual => &[Family::V4, Family::V6],
        }
    }
}

/// Options for a plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanOptions {
    /// Minimum number of nodes, including those that the objects name.
    pub nodes: usize,
    /// Families of the allocated addresses.
    pub families: Families,
    /// Adds a client pod on each node ([`client_on`]).
    pub clients: bool,
    /// Creates pods for endpoints whose address belongs to no pod; daemons receive them too. Disable it where a deleted
    /// pod must not be created again because its EndpointSlice remains.
    pub placeholder_pods: bool,
    /// Ports on which every pod with a network namespace of its own listens, besides its declared ports.
    pub echo_ports: BTreeSet<EchoPort>,
    /// Ports on which every node listens; the echo server replies with the node's name. A pod on the host network that
    /// declares one of them does not listen on it.
    pub node_echo_ports: BTreeSet<EchoPort>,
    /// Additional addresses of the outside host, on which it listens on `echo_ports` with the name `outside`.
    pub outside: Vec<IpAddr>,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            nodes: 2,
            families: Families::Dual,
            clients: true,
            placeholder_pods: true,
            echo_ports: BTreeSet::new(),
            node_echo_ports: BTreeSet::new(),
            outside: Vec::new(),
        }
    }
}

/// A node of the plan.
#[derive(Debug, Clone, PartialEq)]
pub struct NodePlan {
    /// The node's name.
    pub name: String,
    /// Its `InternalIP`s, one per family.
    pub addresses: Vec<IpAddr>,
    /// Its pod CIDRs, one per family. The first address of each is the node's own, on its bridge.
    pub pod_cidrs: Vec<IpNet>,
    /// Ports of its own echo server.
    pub ports: BTreeSet<EchoPort>,
    /// The completed object.
    pub object: Node,
}

/// A pod of the plan.
#[derive(Debug, Clone, PartialEq)]
pub struct PodPlan {
    /// `namespace/name`.
    pub name: String,
    /// The node it runs on.
    pub node: String,
    /// Its addresses, one per family; none unless it is running.
    pub addresses: Vec<IpAddr>,
    /// False for a pod that has terminated or has no address yet. It exists only as an object, and its address may belong
    /// to another pod.
    pub is_running: bool,
    /// True if the pod shares the node's network namespace.
    pub host_network: bool,
    /// Ports of its echo server.
    pub ports: BTreeSet<EchoPort>,
    /// The object; the status of a running pod is completed.
    pub object: Pod,
}

/// A planned cluster, with every field that a running one would have.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClusterPlan {
    /// The nodes.
    pub nodes: Vec<NodePlan>,
    /// The pods.
    pub pods: Vec<PodPlan>,
    /// The Services with their defaults and addresses.
    pub services: Vec<Service>,
    /// The user's EndpointSlices, then those of the EndpointSlice controller.
    pub slices: Vec<EndpointSlice>,
    /// Objects of other kinds, unchanged.
    pub others: Vec<Value>,
    /// The additional addresses of the outside host, and the ports on which it listens there.
    pub outside: (Vec<IpAddr>, BTreeSet<EchoPort>),
}

impl ClusterObjects {
    /// Plans a new cluster with the default [`PlanOptions`].
    ///
    /// # Errors
    /// Objects contradict each other, or an address range is exhausted.
    pub fn plan(&self) -> Result<ClusterPlan> {
        self.plan_after(&ClusterPlan::default(), &PlanOptions::default())
    }

    /// Plans the next state of a cluster: allocated addresses, ports and nodes of the previous plan are kept.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub fn plan_after(&self, before: &ClusterPlan, options: &PlanOptions) -> Result<ClusterPlan> {
        let families = options.families.list();
        let nodes = nodes::plan(self, before, options)?;
        let mut pods = pods::plan(self, before, options, &nodes)?;
        let services = plan_services(self, before, families)?;
        let slices = plan_slices(self, &services, &pods, &nodes);
        if options.placeholder_pods {
            pods.extend(pods::placeholder_pods(&slices, &pods, &nodes));
        }
        echo_ports::assign(&mut pods, &slices, options);
        let others = self.objects().filter_map(|object| match object {
            LabObject::Other(value) => Some(value.clone()),
            _ => None,
        });
        let outside = (options.outside.clone(), options.echo_ports.clone());
        Ok(ClusterPlan { nodes, pods, services, slices, others: others.collect(), outside })
    }
}

fn plan_services(
    cluster: &ClusterObjects,
    before: &ClusterPlan,
    families: &[Family],
) -> Result<Vec<Service>> {
    let net = |text: &str| text.parse::<IpNet>().expect("the lab's ranges are well-formed");
    let mut pools = Pools {
        cluster_ips: vec![
            AddressPool::new(net("10.96.0.0/16"), 10),
            AddressPool::new(net("fd00:10:96::/112"), 10),
        ],
        load_balancer_ips: vec![
            AddressPool::new(net("203.0.113.0/24"), 10),
            AddressPool::new(net("2001:db8:113::/112"), 10),
        ],
        node_ports: NodePortPool::new(),
    };
    let mut services = Vec::new();
    for object in cluster.objects() {
        let LabObject::Service(service) = object else { continue };
        let mut service = service.clone();
        let previous = before.services.iter().find(|old| {
            old.metadata.name == service.metadata.name
                && namespace_of(&old.metadata) == namespace_of(&service.metadata)
        });
        if let Some(previous) = previous {
            service_defaults::keep_allocated(&mut service, previous);
        }
        service_defaults::set_defaults(&mut service, families)?;
        pools.reserve(&service);
        services.push(service);
    }
    services.iter_mut().try_for_each(|service| pools.allocate(service))?;
    Ok(services)
}

fn plan_slices(
    cluster: &ClusterObjects,
    services: &[Service],
    pods: &[PodPlan],
    nodes: &[NodePlan],
) -> Vec<EndpointSlice> {
    let mut slices: Vec<EndpointSlice> = Vec::new();
    for object in cluster.objects() {
        if let LabObject::EndpointSlice(slice) = object {
            let mut slice = slice.clone();
            slice.metadata.namespace = Some(namespace_of(&slice.metadata).to_owned());
            slices.push(slice);
        }
    }
    let with_own_slices: BTreeSet<(String, String)> = slices.iter().filter_map(service_of).collect();
    let pods: Vec<&Pod> = pods.iter().map(|pod| &pod.object).collect();
    let nodes: Vec<&Node> = nodes.iter().map(|node| &node.object).collect();
    for service in services {
        let name = service.metadata.name.clone().unwrap_or_default();
        if !with_own_slices.contains(&(namespace_of(&service.metadata).to_owned(), name)) {
            slices.extend(endpoint_slices::slices_of(service, &pods, &nodes));
        }
    }
    slices
}

/// Returns the namespace and name of the Service to which a slice belongs.
pub(crate) fn service_of(slice: &EndpointSlice) -> Option<(String, String)> {
    let service = slice.metadata.labels.as_ref()?.get(endpoint_slices::SERVICE_NAME)?;
    Some((namespace_of(&slice.metadata).to_owned(), service.clone()))
}

impl PodPlan {
    /// Returns true if the pod has a network namespace of its own.
    pub fn has_own_netns(&self) -> bool {
        self.is_running && !self.host_network
    }
}

impl ClusterPlan {
    /// Returns a node by name.
    pub fn node(&self, name: &str) -> Option<&NodePlan> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// Returns a pod by `namespace/name`, or by `name` alone for the namespace `default`.
    pub fn pod(&self, name: &str) -> Option<&PodPlan> {
        let full = if name.contains('/') { name.to_owned() } else { format!("default/{name}") };
        self.pods.iter().find(|pod| pod.name == full)
    }

    /// Returns a Service by name, written as for [`pod`](Self::pod).
    pub fn service(&self, name: &str) -> Option<&Service> {
        let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
        self.services.iter().find(|service| {
            namespace_of(&service.metadata) == namespace && service.metadata.name.as_deref() == Some(name)
        })
    }

    /// Returns the objects of the plan as a `List`, for the daemons' manifests.
    pub fn to_list(&self) -> Value {
        let mut items = Vec::new();
        items.extend(self.nodes.iter().map(|node| manifest(&node.object)));
        items.extend(self.services.iter().map(manifest));
        items.extend(self.slices.iter().map(manifest));
        items.extend(self.pods.iter().map(|pod| manifest(&pod.object)));
        items.extend(self.others.iter().cloned());
        json!({"apiVersion": "v1", "kind": "List", "items": items})
    }
}

fn manifest<T: Resource + Serialize>(object: &T) -> Value {
    serde_json::to_value(object).expect("a Kubernetes object has only strings for keys")
}
