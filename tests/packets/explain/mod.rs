//! `explain` compared with packets: in random clusters, a sample of connections is explained on the client's node and
//! opened for real.
//!
//! ```text
//! seed ─ generator ─ manifests ─ lab + daemons ─┬─ explain -o json ─ Explanation ─┐
//!                                               └─ probes ───────── ProbeTally ─┴─ violations, with the seed
//! ```
//! `EXPLAINED_SEEDS=40` checks 40 clusters per mode, `EXPLAINED_FIRST=17` starts with that seed. Seeds that have failed are
//! added to `REGRESSION_SEEDS`.

mod explanation;
mod generator;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use portcullis_lab::{
    ClusterObjects, ClusterPlan, DaemonSpec, EchoPort, Family, FrontendKind, IpvsLosses, Lab, LabOptions,
    PlanOptions, Protocol, Vantage,
};

use crate::mode::Mode;
use crate::testbed::PATIENCE;
use explanation::Explanation;
use generator::Random;

/// Seeds of clusters for which `explain` was wrong once.
/// - 2: the reply of an endpoint on a third node does not pass the node whose node port routed to it.
/// - 6: without endpoints, iptables mode does not reject packets that the node itself sends to external addresses.
/// - 11: nftables mode checks source ranges before it rejects for lack of endpoints.
/// - 17: a pod that connects to itself through another node's node port is masqueraded in iptables mode, and
///   gets no reply in nftables mode.
/// - 24: a node that connects to one of its own addresses uses it as the source address.
const REGRESSION_SEEDS: [u64; 5] = [2, 6, 11, 17, 24];

/// Default number of clusters besides the regression seeds.
const CLUSTERS: u64 = 1;

/// Number of connections per cluster. User-mode Linux has one processor.
fn connections_in(mode: Mode) -> usize {
    if mode == Mode::Ipvs { 30 } else { 70 }
}

/// Number of concurrent connections; most of them wait for timeouts.
const WIDTH: usize = 8;

/// Addresses of the outside client.
const OUTSIDE: [&str; 2] = ["198.51.100.10", "2001:db8:100::10"];

/// A port on which every node listens.
const NODE_PORT: EchoPort = EchoPort::tcp(7777);

const ARGS: [&str; 3] =
    ["--cluster-cidr=10.244.0.0/16,fd00:10:244::/48", "--conntrack-max-per-core=0", "-v=4"];

pub(crate) fn explanations_agree_with_packets(mode: Mode) {
    // User-mode Linux has no nf_tables and therefore no network policies.
    let with_policies = mode != Mode::Ipvs;
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let first = number("EXPLAINED_FIRST").unwrap_or(1);
    let seeds = first..first + number("EXPLAINED_SEEDS").unwrap_or(CLUSTERS);
    let found = REGRESSION_SEEDS.into_iter().filter(|_| mode != Mode::Ipvs);
    let (violations, losses): (Vec<_>, Vec<_>) =
        found.chain(seeds).map(|seed| check_cluster(seed, mode, with_policies)).unzip();
    let violations: Vec<String> = violations.into_iter().flatten().collect();
    assert!(violations.is_empty(), "{} differences:\n{}", violations.len(), violations.join("\n"));
    let total: IpvsLosses = losses.into_iter().sum();
    assert!(total.is_tolerated(), "{total:?}, expected at most {} lost", total.tolerated());
}

/// Returns the differences between explanations and packets in the cluster of a seed, and the total of tolerated losses.
fn check_cluster(seed: u64, mode: Mode, with_policies: bool) -> (Vec<String>, IpvsLosses) {
    let mut random = Random::new(seed);
    let manifests = generator::manifests(&mut random, with_policies);
    let tools = tempfile::tempdir().unwrap();
    let mut args: Vec<String> = ARGS.map(str::to_owned).to_vec();
    args.extend(with_policies.then(|| "--network-policy".to_owned()));
    let args = mode.with_args(&args);
    let daemon = DaemonSpec {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_portcullis")),
        args: args.clone(),
        env: vec![("PATH".into(), mode.path(tools.path()))],
        ..DaemonSpec::default()
    };
    let plan = PlanOptions { clients: false, node_echo_ports: [NODE_PORT].into(), ..Default::default() };
    let cluster = ClusterObjects::parse(&manifests).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let mut lab = Lab::up(cluster, LabOptions { plan, daemon: Some(daemon) }).unwrap();
    lab.wait_synced(PATIENCE).unwrap();
    if with_policies {
        lab.wait_for_metric("portcullis_network_policy_last_sync_timestamp_seconds", PATIENCE).unwrap();
    }
    let mut connections = connections(lab.plan());
    // A sample that depends only on the seed.
    for at in 0..connections.len() {
        let other = at + random.below(connections.len() - at);
        connections.swap(at, other);
    }
    connections.truncate(connections_in(mode));
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut outcomes = Vec::new();
        while let Some(connection) = connections.get(next.fetch_add(1, Ordering::Relaxed)) {
            outcomes.push(connection.check(&lab, mode, &args));
        }
        outcomes
    };
    let outcomes: Vec<(Option<String>, IpvsLosses)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..WIDTH).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let (violations, losses): (Vec<Option<String>>, Vec<IpvsLosses>) = outcomes.into_iter().unzip();
    let violations: Vec<String> = violations.into_iter().flatten().collect();
    if !violations.is_empty() {
        eprintln!("--- the manifests of seed {seed} ---\n{manifests}");
    }
    let violations = violations.into_iter().map(|violation| format!("seed {seed}, {mode:?}: {violation}"));
    (violations.collect(), losses.into_iter().sum())
}

/// A connection to explain and to open.
struct Connection {
    from: Vantage,
    /// The client as an argument of `--from`.
    client: String,
    /// The source address, if the client has several.
    source: Option<IpAddr>,
    /// The node whose rules apply.
    node: String,
    to: SocketAddr,
    protocol: Protocol,
}

/// Returns all connections that can be explained in a cluster.
fn connections(plan: &ClusterPlan) -> Vec<Connection> {
    let mut all = Vec::new();
    let mut clients: Vec<(Vantage, String, String)> = plan
        .pods
        .iter()
        .filter(|pod| pod.is_running)
        .map(|pod| (Vantage::pod(&pod.name), format!("pod/{}", pod.name), pod.node.clone()))
        .collect();
    clients.extend(
        plan.nodes
            .iter()
            .map(|node| (Vantage::node(&node.name), format!("node/{}", node.name), node.name.clone())),
    );
    for (from, client, node) in &clients {
        for (to, protocol) in targets(plan, node) {
            all.push(Connection {
                from: from.clone(),
                client: client.clone(),
                source: None,
                node: node.clone(),
                to,
                protocol,
            });
        }
    }
    // Packets from outside reach a Service's address through the node to which the lab routes it.
    for service in &plan.services {
        for frontend in
            plan.frontends(service).into_iter().filter(|frontend| frontend.kind != FrontendKind::ClusterIp)
        {
            let node = match &frontend.kind {
                FrontendKind::NodePort(node) => node.clone(),
                _ => plan.load_balancer_node(service).to_owned(),
            };
            let source = OUTSIDE[usize::from(frontend.address.is_ipv6())];
            all.push(Connection {
                from: Vantage::Outside,
                client: source.to_owned(),
                source: source.parse().ok(),
                node,
                to: frontend.address,
                protocol: Protocol::parse(&frontend.protocol).unwrap(),
            });
        }
    }
    all
}

/// Returns the destinations for clients on a node.
fn targets(plan: &ClusterPlan, node: &str) -> Vec<(SocketAddr, Protocol)> {
    let mut all = Vec::new();
    for service in &plan.services {
        for frontend in plan.frontends(service) {
            let protocol = Protocol::parse(&frontend.protocol).unwrap();
            all.push((frontend.address, protocol));
            if let FrontendKind::NodePort(at) = &frontend.kind {
                // The node port at another of the node's own addresses.
                let at = plan.nodes.iter().find(|other| other.name == *at && at == node);
                let bridge = at.into_iter().flat_map(|node| node.bridge_addresses());
                let same = bridge.filter(|ip| ip.is_ipv4() == frontend.address.is_ipv4());
                all.extend(same.map(|ip| (SocketAddr::new(ip, frontend.address.port()), protocol)));
            } else {
                // A port that the Service does not have.
                all.push((SocketAddr::new(frontend.address.ip(), 81), protocol));
            }
        }
    }
    for pod in plan.pods.iter().filter(|pod| pod.has_own_netns()) {
        for address in &pod.addresses {
            all.extend(pod.ports.iter().map(|port| (SocketAddr::new(*address, port.port), port.protocol)));
        }
    }
    for other in &plan.nodes {
        let mut own: Vec<IpAddr> = other.addresses.clone();
        own.extend(other.bridge_addresses());
        for address in own {
            all.push((SocketAddr::new(address, NODE_PORT.port), NODE_PORT.protocol));
            all.push((SocketAddr::new(address, 30_999), Protocol::Tcp));
        }
    }
    all.push((SocketAddr::from(([10, 96, 0, 250], 80)), Protocol::Tcp));
    all
}

impl Connection {
    /// Explains and opens the connection; returns the difference, if any, and the tolerated losses.
    fn check(&self, lab: &Lab, mode: Mode, args: &[String]) -> (Option<String>, IpvsLosses) {
        let explanation =
            Explanation::parse(self.explain(lab, args).as_str()).unwrap_or_else(|| panic!("{self}"));
        let mut prober = lab
            .prober(self.from.clone())
            .unwrap()
            .timeout(explanation.timeout(Family::from_ip(self.to.ip())));
        if let Some(source) = self.source {
            prober = prober.source(source);
        }
        if mode == Mode::Ipvs {
            prober = prober.unique_source_ports();
        }
        let tally = prober.probe_many(self.protocol, self.to, explanation.probes());
        // If a policy denies some destinations, timeouts are expected.
        let losses = match explanation.expects_responses_only() {
            true => IpvsLosses::new(mode.data_path(), lab.plan(), &tally),
            false => IpvsLosses::default(),
        };
        let tally = portcullis_lab::tolerating_ipvs_losses(mode.data_path(), lab.plan(), &tally);
        let violation = explanation
            .violation(lab.plan(), &tally)
            .map(|violation| format!("{self}: {violation}; {explanation:?}; {tally:?}"));
        (violation, losses)
    }

    fn explain(&self, lab: &Lab, args: &[String]) -> String {
        let netns = lab.netns(&Vantage::node(&self.node)).unwrap();
        let mut command: Command = netns.command(env!("CARGO_BIN_EXE_portcullis"));
        command.args(["explain", "-o", "json", "--from", &self.client]);
        command.arg("--to").arg(format!("{}/{}", self.to, self.protocol.to_string().to_lowercase()));
        command.arg("--manifests").arg(lab.manifests()).args(["--hostname-override", &self.node]);
        if self.source.is_some() {
            command.args(["--node", &self.node]);
        }
        let done = command.args(args).output().unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        assert!(!text.is_empty(), "{self}: {}", String::from_utf8_lossy(&done.stderr));
        text
    }
}

impl std::fmt::Display for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {} → {}/{}", self.client, self.node, self.to, self.protocol)
    }
}
