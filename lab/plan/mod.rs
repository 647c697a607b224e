//! What a cluster's controllers, scheduler, network plugin and cloud would make of a set of objects. Pure.

pub(crate) mod addresses;
mod echo_ports;
pub(crate) mod endpoint_slices;
mod front;
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

use crate::cluster::{Cluster, Object, namespace_of};
use crate::error::Result;
use addresses::{AddressPool, NodePortPool};
use service_defaults::Pools;

pub use addresses::Family;
pub use echo_ports::{EchoPort, Protocol};
pub use front::{Front, FrontKind};

/// The namespace of the lab's own client pods.
pub const CLIENT_NAMESPACE: &str = "portcullis-lab";

/// The name of the client pod on a node, as `namespace/name`.
pub fn client_on(node: &str) -> String {
    format!("{CLIENT_NAMESPACE}/client-{node}")
}

/// The address families of a cluster, the primary one first.
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
    /// The families in order.
    pub fn list(self) -> &'static [Family] {
        match self {
            Self::V4 => &[Family::V4],
            Self::V6 => &[Family::V6],
            Self::Dual => &[Family::V4, Family::V6],
        }
    }
}

/// How a plan is made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanOptions {
    /// The least number of nodes; those that the objects name count.
    pub nodes: usize,
    /// The families of the addresses that are handed out.
    pub families: Families,
    /// Whether each node gets a pod to probe from ([`client_on`]).
    pub clients: bool,
    /// Whether endpoints of slices that no pod has get pods of their own, which daemons are told of. Where a pod that was
    /// deleted must not come back by a slice that stays, they must not.
    pub stand_ins: bool,
    /// Ports that each pod with a network of its own listens on, besides those that it or a slice names.
    pub echo_ports: BTreeSet<EchoPort>,
    /// Ports that each node listens on, by the node's name. A pod on the host network that names one of them leaves it
    /// to its node.
    pub node_echo_ports: BTreeSet<EchoPort>,
    /// More addresses of the host outside, where it listens on `echo_ports` by the name `outside`.
    pub outside: Vec<IpAddr>,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            nodes: 2,
            families: Families::Dual,
            clients: true,
            stand_ins: true,
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
    /// Its `InternalIP`s, one of each family.
    pub addresses: Vec<IpAddr>,
    /// Its pod CIDRs, one of each family. The first address of each is the node's own, on its bridge.
    pub pod_cidrs: Vec<IpNet>,
    /// The ports it listens on itself.
    pub ports: BTreeSet<EchoPort>,
    /// The object, filled in.
    pub object: Node,
}

/// A pod of the plan.
#[derive(Debug, Clone, PartialEq)]
pub struct PodPlan {
    /// `namespace/name`.
    pub name: String,
    /// The node it runs on.
    pub node: String,
    /// Its addresses, one of each family; none unless it runs.
    pub addresses: Vec<IpAddr>,
    /// Whether it runs. One that has ended, or still waits for an address, is an object and no more: its address may
    /// be another's.
    pub runs: bool,
    /// Whether it shares the node's network namespace.
    pub host_network: bool,
    /// The ports its echo server listens on.
    pub ports: BTreeSet<EchoPort>,
    /// The object; what its status does not say is filled in, if it runs.
    pub object: Pod,
}

/// A whole cluster, every field filled in that a running one would have.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// The nodes.
    pub nodes: Vec<NodePlan>,
    /// The pods.
    pub pods: Vec<PodPlan>,
    /// The Services with their defaults and addresses.
    pub services: Vec<Service>,
    /// The user's EndpointSlices, then those that the controller would make.
    pub slices: Vec<EndpointSlice>,
    /// The objects that the lab hands on without a look.
    pub others: Vec<Value>,
    /// The addresses of the host outside that were asked for, and the ports it listens on there.
    pub outside: (Vec<IpAddr>, BTreeSet<EchoPort>),
}

impl Cluster {
    /// Plans a new cluster with the default [`PlanOptions`].
    ///
    /// # Errors
    /// When objects contradict each other or a range of addresses is used up.
    pub fn plan(&self) -> Result<Plan> {
        self.plan_after(&Plan::default(), &PlanOptions::default())
    }

    /// Plans the cluster that an earlier one becomes: what has an address, a port or a node keeps it.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub fn plan_after(&self, before: &Plan, options: &PlanOptions) -> Result<Plan> {
        let families = options.families.list();
        let nodes = nodes::plan(self, before, options)?;
        let mut pods = pods::plan(self, before, options, &nodes)?;
        let services = plan_services(self, before, families)?;
        let slices = plan_slices(self, &services, &pods, &nodes);
        if options.stand_ins {
            pods.extend(pods::stand_ins(&slices, &pods, &nodes));
        }
        echo_ports::assign(&mut pods, &slices, options);
        let others = self.objects().filter_map(|object| match object {
            Object::Other(value) => Some(value.clone()),
            _ => None,
        });
        let outside = (options.outside.clone(), options.echo_ports.clone());
        Ok(Plan { nodes, pods, services, slices, others: others.collect(), outside })
    }
}

fn plan_services(cluster: &Cluster, before: &Plan, families: &[Family]) -> Result<Vec<Service>> {
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
        let Object::Service(service) = object else { continue };
        let mut service = service.clone();
        let twin = before.services.iter().find(|old| {
            old.metadata.name == service.metadata.name
                && namespace_of(&old.metadata) == namespace_of(&service.metadata)
        });
        if let Some(twin) = twin {
            service_defaults::keep_allocated(&mut service, twin);
        }
        service_defaults::set_defaults(&mut service, families)?;
        pools.reserve(&service);
        services.push(service);
    }
    services.iter_mut().try_for_each(|service| pools.allocate(service))?;
    Ok(services)
}

fn plan_slices(
    cluster: &Cluster,
    services: &[Service],
    pods: &[PodPlan],
    nodes: &[NodePlan],
) -> Vec<EndpointSlice> {
    let mut slices: Vec<EndpointSlice> = Vec::new();
    for object in cluster.objects() {
        if let Object::EndpointSlice(slice) = object {
            let mut slice = slice.clone();
            slice.metadata.namespace = Some(namespace_of(&slice.metadata).to_owned());
            slices.push(slice);
        }
    }
    let given: BTreeSet<(String, String)> = slices.iter().filter_map(owner_of).collect();
    let pods: Vec<&Pod> = pods.iter().map(|pod| &pod.object).collect();
    let nodes: Vec<&Node> = nodes.iter().map(|node| &node.object).collect();
    for service in services {
        let name = service.metadata.name.clone().unwrap_or_default();
        if !given.contains(&(namespace_of(&service.metadata).to_owned(), name)) {
            slices.extend(endpoint_slices::slices_of(service, &pods, &nodes));
        }
    }
    slices
}

/// The namespace and name of the Service that a slice belongs to.
pub(crate) fn owner_of(slice: &EndpointSlice) -> Option<(String, String)> {
    let service = slice.metadata.labels.as_ref()?.get(endpoint_slices::SERVICE_NAME)?;
    Some((namespace_of(&slice.metadata).to_owned(), service.clone()))
}

impl PodPlan {
    /// Whether it has a network namespace of its own.
    pub fn is_wired(&self) -> bool {
        self.runs && !self.host_network
    }
}

impl Plan {
    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&NodePlan> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The pod of that name, written `namespace/name`, or just `name` for the namespace `default`.
    pub fn pod(&self, name: &str) -> Option<&PodPlan> {
        let full = if name.contains('/') { name.to_owned() } else { format!("default/{name}") };
        self.pods.iter().find(|pod| pod.name == full)
    }

    /// The Service of that name, written as for [`pod`](Self::pod).
    pub fn service(&self, name: &str) -> Option<&Service> {
        let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
        self.services.iter().find(|service| {
            namespace_of(&service.metadata) == namespace && service.metadata.name.as_deref() == Some(name)
        })
    }

    /// The plan as one `List`, as a daemon reads it from a manifest.
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
    serde_json::to_value(object).expect("a Kubernetes object has only text for keys")
}
