//! `portcullis lab run` with network policies: compares probes with the verdicts of the policy compiler.
//!
//! ```text
//! manifests ─ lab ─ completed objects ─ Compiler ─ PolicyEvaluator ─┬─ table of Services
//!              └── probes ──────────────────────────────────────────┴─ Matrix: expected and actual outcomes
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use portcullis_cluster::{Event, Index, Protocol};
use portcullis_lab as lab;
use portcullis_lab::{
    ClusterObjects, ClusterPlan, EchoPort, Error, Lab, LabObject, Matrix, MatrixOptions, MatrixPeer,
    PlanOptions,
};
use portcullis_policy::{Compiler, Connection, Scope};

use super::manifests::read_objects;

/// Addresses on which the outside host listens.
const OUTSIDE: [&str; 2] = ["198.51.100.77", "2001:db8:100::77"];

/// Metric of a daemon that is above 0 once it enforces policies.
pub(super) const POLICY_SYNC_METRIC: &str = "portcullis_network_policy_last_sync_timestamp_seconds";

/// Ports to probe in a cluster with network policies.
pub(super) struct Policies {
    /// Declared ports of each pod with a network namespace of its own, by the pod's name.
    ports: BTreeMap<String, BTreeSet<EchoPort>>,
}

impl Policies {
    /// Returns `None` if the cluster has no network policies.
    ///
    /// # Errors
    /// No cluster can be made from the objects.
    pub(super) fn from_objects(
        cluster: &ClusterObjects,
        options: &PlanOptions,
    ) -> Result<Option<Self>, Error> {
        let is_policy = |object: &LabObject| {
            matches!(object.name().kind.as_str(), "NetworkPolicy" | "ClusterNetworkPolicy")
        };
        if !cluster.objects().any(is_policy) {
            return Ok(None);
        }
        let plan = cluster.plan_after(&ClusterPlan::default(), options)?;
        let supported = |ports: &BTreeSet<EchoPort>| {
            ports.iter().copied().filter(|port| port.protocol.is_supported()).collect::<BTreeSet<_>>()
        };
        let pods = plan.pods.iter().filter(|pod| pod.has_own_netns());
        let ports = pods.map(|pod| (pod.name.clone(), supported(&pod.ports))).collect();
        Ok(Some(Self { ports }))
    }

    /// Makes nodes and the outside host listen on all ports that pods declare.
    pub(super) fn add_echo_ports(&self, options: &mut PlanOptions) {
        options.echo_ports = self.all_ports();
        options.node_echo_ports = self.all_ports();
        options.outside = OUTSIDE.map(|text| text.parse().expect("an address")).to_vec();
    }

    fn all_ports(&self) -> BTreeSet<EchoPort> {
        self.ports.values().flatten().copied().collect()
    }

    /// Probes every pod, every node and the outside host from each of them, at the ports that pods declare.
    ///
    /// # Errors
    /// A network namespace does not exist.
    pub(super) fn probe(&self, lab: &Lab, evaluator: &PolicyEvaluator) -> Result<Matrix, Error> {
        let plan = lab.plan();
        let pods = MatrixPeer::pods(plan);
        let host_ports: BTreeSet<EchoPort> =
            plan.pods.iter().filter(|pod| pod.host_network).flat_map(|pod| pod.ports.clone()).collect();
        let outside = MatrixPeer::outside(plan.outside.0.iter().copied()).with_name("outside");
        let hosts = MatrixPeer::nodes(plan).into_iter().chain([outside]);
        let from: Vec<MatrixPeer> = pods.iter().cloned().chain(hosts.clone()).collect();
        let at_pods = pods.into_iter().map(|pod| {
            let ports = self.ports.get(pod.name()).cloned().unwrap_or_default();
            pod.with_ports(ports)
        });
        let at_hosts = hosts.map(|host| host.with_ports(self.all_ports().difference(&host_ports).copied()));
        let to = at_pods.chain(at_hosts).collect();
        let options = MatrixOptions::new(from, to, self.all_ports());
        lab.matrix(&options, |probe| {
            let [from, to] = [probe.from, probe.to].map(|peer| peer.address_of(probe.family));
            let (from, to) = from.zip(to)?;
            // Policies do not apply to connections of a peer to itself.
            Some(from == to || evaluator.allows(from, to, probe.port))
        })
    }
}

/// Evaluates connections by the policies of a cluster.
pub(super) struct PolicyEvaluator {
    compiler: Compiler,
}

impl PolicyEvaluator {
    /// Reads manifests as the daemons do.
    ///
    /// # Errors
    /// The manifests cannot be read.
    pub(super) fn read(manifests: &Path) -> Result<Self, Error> {
        let mut index = Index::new();
        for object in read_objects(manifests)? {
            _ = index.handle(Event::Applied(object));
        }
        Ok(Self { compiler: Compiler::from_index(Scope::Cluster, &index) })
    }

    /// Returns true if the policies allow a new connection.
    pub(super) fn allows(&self, from: IpAddr, to: IpAddr, port: EchoPort) -> bool {
        let protocol = match port.protocol {
            lab::Protocol::Tcp => Protocol::Tcp,
            lab::Protocol::Udp => Protocol::Udp,
            lab::Protocol::Sctp => Protocol::Sctp,
        };
        self.compiler.compiled().evaluate(Connection { from, to, port: port.port, protocol }).is_allowed()
    }
}
