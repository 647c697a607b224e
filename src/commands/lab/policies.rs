//! `portcullis lab run` with policies: who can talk to whom, as the compiler says and as packets show.
//!
//! ```text
//! manifests ─ lab ─ its objects, filled in ─ Compiler ─ Judge ─┬─ the Services' table
//!              └── real packets ───────────────────────────────┴─ Matrix: expected, seen
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::Path;

use portcullis_cluster::{Event, Index, Protocol};
use portcullis_lab as lab;
use portcullis_lab::{Cluster, EchoPort, End, Error, Lab, Matrix, MatrixOptions, Object, Plan, PlanOptions};
use portcullis_policy::{Compiler, Connection, Scope};

use crate::source::read_manifests;

/// The host outside listens at these.
const OUTSIDE: [&str; 2] = ["198.51.100.77", "2001:db8:100::77"];

/// A daemon's word that it enforces.
pub(super) const ENFORCED: &str = "portcullis_network_policy_last_sync_timestamp_seconds";

/// The policies of a folder, and what is to be probed for them.
pub(super) struct Policies {
    /// The ports that each pod with a network of its own declares, by its name.
    ports: BTreeMap<String, BTreeSet<EchoPort>>,
}

impl Policies {
    /// `None` if the cluster has none.
    ///
    /// # Errors
    /// The objects make no cluster.
    pub(super) fn of(cluster: &Cluster, options: &PlanOptions) -> Result<Option<Self>, Error> {
        let is_policy =
            |object: &Object| matches!(object.name().kind.as_str(), "NetworkPolicy" | "ClusterNetworkPolicy");
        if !cluster.objects().any(is_policy) {
            return Ok(None);
        }
        let plan = cluster.plan_after(&Plan::default(), options)?;
        let spoken = |ports: &BTreeSet<EchoPort>| {
            ports.iter().copied().filter(|port| port.protocol.is_spoken()).collect::<BTreeSet<_>>()
        };
        let pods = plan.pods.iter().filter(|pod| pod.is_wired());
        let ports = pods.map(|pod| (pod.name.clone(), spoken(&pod.ports))).collect();
        Ok(Some(Self { ports }))
    }

    /// Has nodes and the host outside listen at all ports that pods declare.
    pub(super) fn listen_everywhere(&self, options: &mut PlanOptions) {
        options.echo_ports = self.all_ports();
        options.node_echo_ports = self.all_ports();
        options.outside = OUTSIDE.map(|text| text.parse().expect("an address")).to_vec();
    }

    fn all_ports(&self) -> BTreeSet<EchoPort> {
        self.ports.values().flatten().copied().collect()
    }

    /// Probes every pod, node and the host outside from each of them, at the ports that pods declare.
    ///
    /// # Errors
    /// A namespace is not there.
    pub(super) fn probe(&self, lab: &Lab, judge: &Judge) -> Result<Matrix, Error> {
        let plan = lab.plan();
        let pods = End::pods(plan);
        let host_ports: BTreeSet<EchoPort> =
            plan.pods.iter().filter(|pod| pod.host_network).flat_map(|pod| pod.ports.clone()).collect();
        let outside = End::outside(plan.outside.0.iter().copied()).named("outside");
        let hosts = End::nodes(plan).into_iter().chain([outside]);
        let from: Vec<End> = pods.iter().cloned().chain(hosts.clone()).collect();
        let at_pods = pods.into_iter().map(|pod| {
            let ports = self.ports.get(pod.name()).cloned().unwrap_or_default();
            pod.only_at(ports)
        });
        let at_hosts = hosts.map(|host| host.only_at(self.all_ports().difference(&host_ports).copied()));
        let to = at_pods.chain(at_hosts).collect();
        let options = MatrixOptions::new(from, to, self.all_ports());
        lab.matrix(&options, |question| {
            let [from, to] = [question.from, question.to].map(|end| end.address_of(question.family));
            // What an end sends to itself never leaves it.
            let (from, to) = from.zip(to)?;
            Some(from == to || judge.allows(from, to, question.port))
        })
    }
}

/// The compiler's word on a cluster.
pub(super) struct Judge {
    compiler: Compiler,
}

impl Judge {
    /// Reads the objects as the daemons do.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn of(manifests: &Path) -> Result<Self, Error> {
        let read = read_manifests(manifests).map_err(|error| Error::System {
            doing: "read the lab's own manifests".into(),
            source: io::Error::other(error),
        })?;
        if let Some(error) = read.errors.first() {
            let source = io::Error::other(error.to_string());
            return Err(Error::System { doing: "read the lab's own manifests".into(), source });
        }
        let mut index = Index::new();
        read.objects.into_iter().for_each(|object| index.handle(Event::Applied(object)));
        Ok(Self { compiler: Compiler::from_index(Scope::Cluster, &index) })
    }

    /// Whether policies let a new connection pass.
    pub(super) fn allows(&self, from: IpAddr, to: IpAddr, at: EchoPort) -> bool {
        let protocol = match at.protocol {
            lab::Protocol::Tcp => Protocol::Tcp,
            lab::Protocol::Udp => Protocol::Udp,
            lab::Protocol::Sctp => Protocol::Sctp,
        };
        self.compiler.compiled().evaluate(Connection { from, to, port: at.port, protocol }).is_allowed()
    }
}
