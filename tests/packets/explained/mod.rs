//! `explain` beside packets: random clusters, and of each a sample of clients and destinations. Each is explained as an
//! operator would have it, on the client's node, and tried by real connections.
//!
//! ```text
//! seed ─ generator ─ manifests ─ lab + daemons ─┬─ explain -o json ─ Said ─┐
//!                                               └─ probes ───────── Tally ─┴─ complaints, with the seed
//! ```
//! `EXPLAINED_SEEDS=40` tries so many clusters a mode, `EXPLAINED_FIRST=17` begins with that seed. A seed that failed
//! once is added to `FOUND`.

mod generator;
mod said;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use portcullis_lab::{
    Cluster, DaemonSpec, EchoPort, Family, FrontKind, Lab, LabOptions, Plan, PlanOptions, Protocol, Vantage,
    uml,
};

use crate::bed::PATIENCE;
use crate::mode::Mode;
use crate::tools::Flavour;
use generator::Random;
use said::Said;

/// Seeds whose clusters were explained otherwise than packets went, once.
/// - 2: the answer of an endpoint on a third node does not pass the node whose node port led to it.
/// - 6: without endpoints, iptables mode does not refuse what the node itself sends to external addresses.
/// - 11: nftables mode looks at source ranges before it refuses for lack of endpoints.
/// - 17: a pod that meets itself through another node's node port is seen as that node in iptables mode, and lost in
///   nftables mode.
/// - 24: a node bears the address that it connects to, if that is its own.
const FOUND: [u64; 5] = [2, 6, 11, 17, 24];

/// How many clusters are tried beside those, unless the environment says otherwise.
const CLUSTERS: u64 = 1;

/// How many questions are asked of each. User-mode Linux has one processor.
fn questions_in(mode: Mode) -> usize {
    if mode == Mode::Ipvs { 30 } else { 70 }
}

/// Questions that are asked at a time: most of them wait.
const WIDTH: usize = 8;

/// The client outside.
const OUTSIDE: [&str; 2] = ["198.51.100.10", "2001:db8:100::10"];

/// A port that every node listens on itself.
const OF_NODES: EchoPort = EchoPort::tcp(7777);

const ARGS: [&str; 3] =
    ["--cluster-cidr=10.244.0.0/16,fd00:10:244::/48", "--conntrack-max-per-core=0", "-v=4"];

#[test]
fn in_iptables_mode() {
    try_all(Mode::Iptables(Flavour::Nft), true);
}

#[test]
fn in_nftables_mode() {
    try_all(Mode::Nftables, true);
}

/// User-mode Linux has no nf_tables, and so no policies.
#[test]
fn in_ipvs_mode() {
    uml::inside_for(Duration::from_secs(400), || try_all(Mode::Ipvs, false));
}

fn try_all(mode: Mode, with_policies: bool) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let first = number("EXPLAINED_FIRST").unwrap_or(1);
    let seeds = first..first + number("EXPLAINED_SEEDS").unwrap_or(CLUSTERS);
    let found = FOUND.into_iter().filter(|_| mode != Mode::Ipvs);
    let complaints: Vec<String> =
        found.chain(seeds).flat_map(|seed| try_one(seed, mode, with_policies)).collect();
    assert!(complaints.is_empty(), "{} differences:\n{}", complaints.len(), complaints.join("\n"));
}

/// What is explained otherwise than it is, in the cluster of a seed.
fn try_one(seed: u64, mode: Mode, with_policies: bool) -> Vec<String> {
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
    };
    let plan = PlanOptions { clients: false, node_echo_ports: [OF_NODES].into(), ..Default::default() };
    let cluster = Cluster::parse(&manifests).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let mut lab = Lab::up(cluster, LabOptions { plan, daemon: Some(daemon) }).unwrap();
    lab.wait_synced(PATIENCE).unwrap();
    if with_policies {
        lab.wait_for_metric("portcullis_network_policy_last_sync_timestamp_seconds", PATIENCE).unwrap();
    }
    let mut questions = questions(lab.plan());
    // A sample, the same for each seed.
    for at in 0..questions.len() {
        let other = at + random.below(questions.len() - at);
        questions.swap(at, other);
    }
    questions.truncate(questions_in(mode));
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut wrong = Vec::new();
        while let Some(question) = questions.get(next.fetch_add(1, Ordering::Relaxed)) {
            wrong.extend(question.try_it(&lab, mode, &args));
        }
        wrong
    };
    let wrong: Vec<String> = thread::scope(|scope| {
        let workers: Vec<_> = (0..WIDTH).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    if !wrong.is_empty() {
        eprintln!("--- the manifests of seed {seed} ---\n{manifests}");
    }
    wrong.into_iter().map(|complaint| format!("seed {seed}, {mode:?}: {complaint}")).collect()
}

/// Who asks for what.
struct Question {
    from: Vantage,
    /// As `--from` names the client.
    client: String,
    /// The address that the client must connect from, where it has several.
    source: Option<IpAddr>,
    /// The node whose rules count.
    node: String,
    to: SocketAddr,
    protocol: Protocol,
}

/// All questions that the cluster of a plan has an answer to.
fn questions(plan: &Plan) -> Vec<Question> {
    let mut all = Vec::new();
    let mut clients: Vec<(Vantage, String, String)> = plan
        .pods
        .iter()
        .filter(|pod| pod.runs)
        .map(|pod| (Vantage::pod(&pod.name), format!("pod/{}", pod.name), pod.node.clone()))
        .collect();
    clients.extend(
        plan.nodes
            .iter()
            .map(|node| (Vantage::node(&node.name), format!("node/{}", node.name), node.name.clone())),
    );
    for (from, client, node) in &clients {
        for (to, protocol) in targets(plan, node) {
            all.push(Question {
                from: from.clone(),
                client: client.clone(),
                source: None,
                node: node.clone(),
                to,
                protocol,
            });
        }
    }
    // Packets from outside reach a Service's address by the node that the lab routes it to.
    for service in &plan.services {
        for front in plan.fronts(service).into_iter().filter(|front| front.kind != FrontKind::ClusterIp) {
            let node = match &front.kind {
                FrontKind::NodePort(node) => node.clone(),
                _ => plan.entry_node(service).to_owned(),
            };
            let source = OUTSIDE[usize::from(front.address.is_ipv6())];
            all.push(Question {
                from: Vantage::Outside,
                client: source.to_owned(),
                source: source.parse().ok(),
                node,
                to: front.address,
                protocol: Protocol::named(&front.protocol).unwrap(),
            });
        }
    }
    all
}

/// What a client on a node may ask for.
fn targets(plan: &Plan, node: &str) -> Vec<(SocketAddr, Protocol)> {
    let mut all = Vec::new();
    for service in &plan.services {
        for front in plan.fronts(service) {
            let protocol = Protocol::named(&front.protocol).unwrap();
            all.push((front.address, protocol));
            if let FrontKind::NodePort(at) = &front.kind {
                // The node port at another of the node's own addresses.
                let at = plan.nodes.iter().find(|other| other.name == *at && at == node);
                let bridge = at.into_iter().flat_map(|node| node.bridge());
                let same = bridge.filter(|ip| ip.is_ipv4() == front.address.is_ipv4());
                all.extend(same.map(|ip| (SocketAddr::new(ip, front.address.port()), protocol)));
            } else {
                // A port that the Service does not have.
                all.push((SocketAddr::new(front.address.ip(), 81), protocol));
            }
        }
    }
    for pod in plan.pods.iter().filter(|pod| pod.is_wired()) {
        for address in &pod.addresses {
            all.extend(pod.ports.iter().map(|port| (SocketAddr::new(*address, port.port), port.protocol)));
        }
    }
    for other in &plan.nodes {
        let mut own: Vec<IpAddr> = other.addresses.clone();
        own.extend(other.bridge());
        for address in own {
            all.push((SocketAddr::new(address, OF_NODES.port), OF_NODES.protocol));
            all.push((SocketAddr::new(address, 30_999), Protocol::Tcp));
        }
    }
    all.push((SocketAddr::from(([10, 96, 0, 250], 80)), Protocol::Tcp));
    all
}

impl Question {
    /// Explains it, tries it, and says what is not the same.
    fn try_it(&self, lab: &Lab, mode: Mode, args: &[String]) -> Option<String> {
        let said = Said::read(self.explain(lab, args).as_str()).unwrap_or_else(|| panic!("{self}"));
        let mut prober =
            lab.from(self.from.clone()).unwrap().timeout(said.patience(Family::of(self.to.ip())));
        if let Some(source) = self.source {
            prober = prober.source(source);
        }
        let lab_mode = match mode {
            Mode::Ipvs => portcullis_lab::Mode::Ipvs,
            _ => portcullis_lab::Mode::Rules,
        };
        if mode == Mode::Ipvs {
            prober = prober.ports_apart();
        }
        let seen = prober.probe_many(self.protocol, self.to, said.probes());
        let seen = portcullis_lab::excused(lab_mode, lab.plan(), &seen);
        said.complaint(lab.plan(), &seen).map(|complaint| format!("{self}: {complaint}; {said:?}; {seen:?}"))
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

impl std::fmt::Display for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {} → {}/{}", self.client, self.node, self.to, self.protocol)
    }
}
