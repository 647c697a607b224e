//! The objects of a large cluster, written as JSON when they are requested.
//!
//! Each namespace has the same number of workloads with 10 pods. Two thirds of the workloads have a Service. Pods are spread over the
//! nodes at random, always in the same way.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use serde_json::json;

use super::shapes;
use super::template::{Field, Template, push};

/// The node of the daemon.
pub(crate) const NODE: &str = "node-0000";

/// The value of `--cluster-cidr`.
pub(crate) const CLUSTER_CIDR: &str = "10.0.0.0/8";

/// The number of pods of a workload, and of endpoints of a Service.
pub(crate) const REPLICAS: usize = 10;

/// One of this number of namespaces has a policy that allows connections from the whole cluster, so that the node needs all pod addresses.
const OPEN_NAMESPACES: usize = 10;

/// The number of namespaces with the same team.
const TEAM: usize = 10;

/// The resources that are served, with their paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Resource {
    Nodes,
    Namespaces,
    Services,
    EndpointSlices,
    Pods,
    NetworkPolicies,
}

impl Resource {
    pub(crate) const ALL: [Resource; 6] = [
        Resource::Nodes,
        Resource::Namespaces,
        Resource::Services,
        Resource::EndpointSlices,
        Resource::Pods,
        Resource::NetworkPolicies,
    ];

    /// Returns the resource of a path.
    pub(crate) fn at(path: &str) -> Option<Resource> {
        Self::ALL.into_iter().find(|resource| resource.path() == path)
    }

    fn path(self) -> &'static str {
        match self {
            Resource::Nodes => "/api/v1/nodes",
            Resource::Namespaces => "/api/v1/namespaces",
            Resource::Services => "/api/v1/services",
            Resource::EndpointSlices => "/apis/discovery.k8s.io/v1/endpointslices",
            Resource::Pods => "/api/v1/pods",
            Resource::NetworkPolicies => "/apis/networking.k8s.io/v1/networkpolicies",
        }
    }

    /// Returns its name in the path.
    pub(crate) fn plural(self) -> &'static str {
        self.path().rsplit('/').next().expect("a path has a last part")
    }

    /// Returns its kind and version.
    pub(crate) fn kind(self) -> (&'static str, &'static str) {
        match self {
            Resource::Nodes => ("Node", "v1"),
            Resource::Namespaces => ("Namespace", "v1"),
            Resource::Services => ("Service", "v1"),
            Resource::EndpointSlices => ("EndpointSlice", "discovery.k8s.io/v1"),
            Resource::Pods => ("Pod", "v1"),
            Resource::NetworkPolicies => ("NetworkPolicy", "networking.k8s.io/v1"),
        }
    }
}

/// The size of a cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) nodes: usize,
    pub(crate) services: usize,
    pub(crate) pods: usize,
    pub(crate) policies: usize,
    pub(crate) namespaces: usize,
}

impl Size {
    fn workloads(&self) -> usize {
        self.pods / REPLICAS
    }

    fn count(&self, resource: Resource) -> usize {
        match resource {
            Resource::Nodes => self.nodes,
            Resource::Namespaces => self.namespaces,
            Resource::Services | Resource::EndpointSlices => self.services,
            Resource::Pods => self.workloads() * REPLICAS,
            Resource::NetworkPolicies => self.policies,
        }
    }
}

/// A pod: a replica of a workload, or its replacement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pod {
    pub(crate) workload: usize,
    /// Unique in the workload, also among replaced pods.
    pub(crate) serial: usize,
    pub(crate) node: usize,
    pub(crate) address: Ipv4Addr,
}

/// The phase of a pod that its status shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Created, without a node.
    Pending,
    /// Bound to a node.
    Scheduled,
    /// Its containers run, and it has an address.
    Started,
    Ready,
    /// It has a deletion timestamp.
    Terminating,
}

/// The objects and their texts.
pub(crate) struct Cluster {
    pub(crate) size: Size,
    /// The initial pods, by workload and replica.
    pods: Vec<Pod>,
    /// The number of addresses in use on each node.
    used_addresses: Vec<u32>,
    of_phases: HashMap<u8, Template>,
    node: Template,
    service: Template,
    slice: Template,
    /// A ready and a terminating endpoint.
    endpoints: [Template; 2],
    namespace: Template,
    default_policies: [Template; 2],
    app_policy: Template,
}

impl Cluster {
    pub(crate) fn new(size: Size) -> Self {
        let phases = [Phase::Pending, Phase::Scheduled, Phase::Started, Phase::Ready, Phase::Terminating];
        let mut cluster = Cluster {
            size,
            pods: Vec::new(),
            used_addresses: vec![1; size.nodes],
            of_phases: phases.into_iter().map(|phase| (phase as u8, Template::new(&pod_in(phase)))).collect(),
            node: Template::new(&shapes::node()),
            service: Template::new(&shapes::service()),
            slice: Template::new(&shapes::slice()),
            endpoints: [(true, false), (false, true)]
                .map(|(ready, terminating)| Template::new(&shapes::endpoint(ready, terminating))),
            namespace: Template::new(&shapes::namespace()),
            default_policies: [false, true].map(|is_open| Template::new(&shapes::default_policy(is_open))),
            app_policy: Template::new(&shapes::app_policy()),
        };
        for n in 0..size.workloads() * REPLICAS {
            let pod = cluster.new_pod(n / REPLICAS, n % REPLICAS);
            cluster.pods.push(pod);
        }
        cluster
    }

    /// Returns a new pod with an address of its own.
    pub(crate) fn new_pod(&mut self, workload: usize, serial: usize) -> Pod {
        // The first pod is on the node of the daemon, in a namespace with an open policy.
        let is_first = workload == 0 && serial == 0;
        let node = if is_first { 0 } else { mix(workload * 1_000 + serial) as usize % self.size.nodes };
        let used = &mut self.used_addresses[node];
        *used += 1;
        let network = u32::from(node_network(node));
        Pod { workload, serial, node, address: Ipv4Addr::from(network + *used) }
    }

    /// Returns an initial pod.
    pub(crate) fn pod(&self, workload: usize, replica: usize) -> Pod {
        self.pods[workload * REPLICAS + replica]
    }

    /// Returns the number of objects.
    pub(crate) fn count(&self, resource: Resource) -> usize {
        self.size.count(resource)
    }

    /// Returns true if a workload has a Service.
    pub(crate) fn has_service(&self, workload: usize) -> bool {
        workload < self.size.services
    }

    /// Appends an object by its number.
    pub(crate) fn write(&self, resource: Resource, n: usize, out: &mut Vec<u8>) {
        match resource {
            Resource::Nodes => self.node.write(out, |field, out| self.fill_node(n, field, out)),
            Resource::Namespaces => self.namespace.write(out, |field, out| fill_namespace(n, field, out)),
            Resource::Services => self.service.write(out, |field, out| match field {
                Field::Ip => push(out, format_args!("{}", service_address(n))),
                _ => self.fill_workload(n, 1, field, out),
            }),
            Resource::EndpointSlices => {
                let pods = &self.pods[n * REPLICAS..(n + 1) * REPLICAS];
                self.write_slice(n, 1, pods.iter().map(|pod| (*pod, false)), out);
            }
            Resource::Pods => self.write_pod(self.pods[n], Phase::Ready, 1, out),
            Resource::NetworkPolicies => {
                let namespace = n % self.size.namespaces;
                let number = n / self.size.namespaces;
                let is_open = namespace.is_multiple_of(OPEN_NAMESPACES);
                let template = match number {
                    0 => &self.default_policies[usize::from(is_open)],
                    _ => &self.app_policy,
                };
                template.write(out, |field, out| match field {
                    Field::Number => push(out, format_args!("{number}")),
                    Field::App => self.push_app(namespace + number * self.size.namespaces, out),
                    _ => fill_namespace(namespace, field, out),
                });
            }
        }
    }

    /// Appends a pod in a phase.
    pub(crate) fn write_pod(&self, pod: Pod, phase: Phase, revision: u64, out: &mut Vec<u8>) {
        self.write_labelled_pod(pod, phase, revision, 1, out);
    }

    /// Appends a pod whose label `version` has a value.
    pub(crate) fn write_labelled_pod(
        &self,
        pod: Pod,
        phase: Phase,
        revision: u64,
        version: u64,
        out: &mut Vec<u8>,
    ) {
        self.of_phases[&(phase as u8)].write(out, |field, out| match field {
            Field::Version => push(out, format_args!("1.{version}")),
            Field::Node => push(out, format_args!("node-{:04}", pod.node)),
            Field::NodeIp => push(out, format_args!("{}", node_address(pod.node))),
            Field::Ip => push(out, format_args!("{}", pod.address)),
            Field::Name => self.push_pod_name(pod, out),
            Field::Uid => push_uid(out, pod.workload * 1_000 + pod.serial),
            _ => self.fill_workload(pod.workload, revision, field, out),
        });
    }

    /// Appends the EndpointSlice of a workload, with its pods and whether they are terminating.
    pub(crate) fn write_slice(
        &self,
        workload: usize,
        revision: u64,
        pods: impl Iterator<Item = (Pod, bool)> + Clone,
        out: &mut Vec<u8>,
    ) {
        self.slice.write(out, |field, out| match field {
            Field::Endpoints => {
                out.push(b'[');
                for (n, (pod, is_terminating)) in pods.clone().enumerate() {
                    if n > 0 {
                        out.push(b',');
                    }
                    self.endpoints[usize::from(is_terminating)].write(out, |field, out| match field {
                        Field::Ip => push(out, format_args!("{}", pod.address)),
                        Field::Node => push(out, format_args!("node-{:04}", pod.node)),
                        Field::Team => push(out, format_args!("{}", zone(pod.node))),
                        Field::Name => self.push_pod_name(pod, out),
                        Field::Uid => push_uid(out, workload * 1_000 + pod.serial),
                        _ => self.fill_workload(workload, revision, field, out),
                    });
                }
                out.push(b']');
            }
            _ => self.fill_workload(workload, revision, field, out),
        });
    }

    fn fill_node(&self, n: usize, field: Field, out: &mut Vec<u8>) {
        match field {
            Field::Node => push(out, format_args!("node-{n:04}")),
            Field::NodeIp => push(out, format_args!("{}", node_address(n))),
            Field::Ip => push(out, format_args!("{}/24", node_network(n))),
            Field::Team => push(out, format_args!("{}", zone(n))),
            Field::Uid => push_uid(out, n),
            Field::Revision => out.push(b'1'),
            field => panic!("a node has no {field:?}"),
        }
    }

    /// Appends a field of an object of a workload.
    fn fill_workload(&self, workload: usize, revision: u64, field: Field, out: &mut Vec<u8>) {
        match field {
            Field::App | Field::Name => self.push_app(workload, out),
            Field::Namespace => push(out, format_args!("team-{:03}", workload % self.size.namespaces)),
            Field::Hash => push(out, format_args!("{:010x}", mix(workload) & 0xff_ffff_ffff)),
            Field::Uid | Field::OwnerUid => push_uid(out, workload),
            Field::Revision => push(out, format_args!("{revision}")),
            field => panic!("a workload has no {field:?}"),
        }
    }

    fn push_app(&self, workload: usize, out: &mut Vec<u8>) {
        const NAMES: [&str; 6] = ["checkout", "inventory", "search", "recommender", "payments", "gateway"];
        let number = workload / self.size.namespaces;
        push(out, format_args!("{}-{number:02}", NAMES[number % NAMES.len()]));
    }

    /// As of a ReplicaSet: the workload, the hash of its template, and five random characters.
    fn push_pod_name(&self, pod: Pod, out: &mut Vec<u8>) {
        self.push_app(pod.workload, out);
        push(out, format_args!("-{:010x}-{:05x}", mix(pod.workload) & 0xff_ffff_ffff, pod.serial));
    }
}

fn fill_namespace(n: usize, field: Field, out: &mut Vec<u8>) {
    match field {
        Field::Namespace => push(out, format_args!("team-{n:03}")),
        Field::Team => push(out, format_args!("team-{}", n / TEAM)),
        Field::Uid => push_uid(out, n),
        Field::Revision => out.push(b'1'),
        field => panic!("a namespace has no {field:?}"),
    }
}

fn push_uid(out: &mut Vec<u8>, seed: usize) {
    let bits = (u128::from(mix(seed)) << 64) | u128::from(mix(seed + 1));
    let text = format!("{bits:032x}");
    push(
        out,
        format_args!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]),
    );
}

/// Returns the pod network of a node.
fn node_network(node: usize) -> Ipv4Addr {
    let [.., a, b] = u32::try_from(node).expect("nodes are few").to_be_bytes();
    Ipv4Addr::new(10, a, b, 0)
}

fn node_address(node: usize) -> Ipv4Addr {
    let [.., a, b] = u32::try_from(node).expect("nodes are few").to_be_bytes();
    Ipv4Addr::new(172, 16 + a / 8, a, b)
}

fn service_address(n: usize) -> Ipv4Addr {
    let [.., a, b] = u32::try_from(n).expect("Services are few").to_be_bytes();
    Ipv4Addr::new(100, 64, a, b)
}

fn zone(node: usize) -> char {
    ['a', 'b', 'c'][node % 3]
}

/// SplitMix64: numbers that look random, always the same.
fn mix(seed: usize) -> u64 {
    let mut z = (seed as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Returns a random number below `limit`, the same for the same seed.
pub(crate) fn random(seed: usize, limit: usize) -> usize {
    (mix(seed) % limit as u64) as usize
}

/// Returns the pod of [`shapes::pod`] in an earlier or later phase.
fn pod_in(phase: Phase) -> serde_json::Value {
    let mut pod = shapes::pod();
    let is_started = !matches!(phase, Phase::Pending | Phase::Scheduled);
    if !is_started {
        pod["metadata"]["managedFields"].as_array_mut().expect("it is a list").truncate(1);
        pod["status"] = json!({"phase": "Pending", "qosClass": "Burstable"});
    }
    match phase {
        Phase::Pending => _ = pod["spec"].as_object_mut().expect("it is an object").remove("nodeName"),
        Phase::Scheduled | Phase::Ready => {}
        Phase::Started => {
            pod["status"]["conditions"][2]["status"] = "False".into();
            pod["status"]["conditions"][3]["status"] = "False".into();
            pod["status"]["containerStatuses"][0]["ready"] = false.into();
        }
        Phase::Terminating => {
            pod["metadata"]["deletionTimestamp"] = "2026-11-30T10:00:00Z".into();
            pod["metadata"]["deletionGracePeriodSeconds"] = 30.into();
        }
    }
    pod
}
