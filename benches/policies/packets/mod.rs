//! Packet rates between two pods on one node and on two nodes, with an increasing number of policies for the server pod.
//!
//! The same policies are measured as linear chains of iptables, too, and one lookup in a rule as the lower bound of what any
//! table costs.

mod cluster;
mod linear_chains;
mod one_lookup;
mod traffic;

use std::fmt;
use std::net::SocketAddrV4;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use portcullis_cluster::{Index, Name};
use portcullis_lab::{Lab, LabOptions, NetNs, PlanOptions, Vantage};
use portcullis_policy::compile::DirtyPolicyObjects;
use portcullis_policy::table::{Enforcer, PolicyOptions};
use portcullis_policy::{Compiler, Scope};

use super::cluster_state::applied;
use super::figures::median;
use traffic::{TrafficPath, address, track_connections};

const NODES: [&str; 2] = ["node-1", "node-2"];

/// Pause between samples, in which the kernel finishes work for earlier packets.
const PAUSE: Duration = Duration::from_millis(200);

/// Number of variants between two samples without a table, to which they are relative. The speed of the machine changes with
/// its other load.
const VARIANTS_PER_LIMIT: usize = 2;

/// What evaluates the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// Nothing.
    NoTable,
    /// Our table, with this number of policies for the server pod.
    Policies(usize),
    /// Linear chains of iptables for the same policies.
    LinearChains(usize),
    /// One lookup of the source address in one rule.
    OneLookup,
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Variant::NoTable => f.write_str("no table"),
            Variant::Policies(1) => f.write_str("1 policy"),
            Variant::Policies(count) => write!(f, "{count} policies"),
            Variant::LinearChains(count) => write!(f, "{count} in linear iptables chains"),
            Variant::OneLookup => f.write_str("one lookup in a bare rule"),
        }
    }
}

/// Rates of one variant, in the order of [`columns`].
pub(crate) struct Row {
    pub(crate) variant: Variant,
    /// Medians of the packets or connections that one CPU passes per second without other load, and medians of their ratios to
    /// the last sample without a table.
    pub(crate) rates: Vec<(f64, f64)>,
}

/// Kind of traffic.
#[derive(Clone, Copy)]
enum Kind {
    Connections,
    Established,
    Flows,
}

const KINDS: [(&str, Kind); 3] = [
    ("TCP connections", Kind::Connections),
    ("packets of a flow", Kind::Established),
    ("new UDP flows", Kind::Flows),
];

/// Path and kind of traffic of each column.
fn measured() -> [(&'static str, &'static str, Kind); 4] {
    let near = |(what, kind)| (what, cluster::NEAR, kind);
    let [connections, established, flows] = KINDS.map(near);
    [connections, flows, established, (KINDS[0].0, cluster::FAR, Kind::Connections)]
}

/// Returns the titles of the columns.
pub(crate) fn columns() -> Vec<String> {
    let path = |client| if client == cluster::NEAR { "one node" } else { "two nodes" };
    measured().map(|(what, client, _)| format!("{what}, {}", path(client))).into()
}

/// Samples of a variant: for each column, the rates and their ratios to the last sample without a table.
type Samples = Vec<(Vec<f64>, Vec<f64>)>;

/// Measures all variants alternately, `repeats` times, and returns the medians. The first row is that without a table.
pub(crate) fn measure(variants: &[Variant], repeats: usize) -> Vec<Row> {
    let plan = PlanOptions { clients: false, ..PlanOptions::default() };
    let lab = Lab::up(cluster::pods(), LabOptions { plan, daemon: None }).expect("the lab starts");
    for node in NODES {
        let netns = lab.netns(&Vantage::node(node)).expect("it is there");
        netns.run(track_connections).expect("it can be entered");
    }
    let all: Vec<Variant> = std::iter::once(Variant::NoTable).chain(variants.iter().copied()).collect();
    let mut samples: Vec<Samples> = vec![vec![Default::default(); measured().len()]; all.len()];
    let mut port = 20_000;
    for _ in 0..repeats {
        for (chunk_at, chunk) in variants.chunks(VARIANTS_PER_LIMIT).enumerate() {
            let limits = sample(&lab, Variant::NoTable, &mut port);
            record(&mut samples[0], &limits, &limits);
            for (at, variant) in chunk.iter().enumerate() {
                let rates = sample(&lab, *variant, &mut port);
                record(&mut samples[1 + chunk_at * VARIANTS_PER_LIMIT + at], &rates, &limits);
            }
        }
    }
    let rows = all.into_iter().zip(samples).map(|(variant, samples)| {
        let rates = samples.into_iter().map(|(rates, ratios)| (median(rates), median(ratios)));
        Row { variant, rates: rates.collect() }
    });
    rows.collect()
}

fn record(samples: &mut Samples, rates: &[f64], limits: &[f64]) {
    for ((rates, ratios), (rate, limit)) in samples.iter_mut().zip(rates.iter().zip(limits)) {
        rates.push(*rate);
        ratios.push(rate / limit);
    }
}

/// Measures all columns of a variant.
fn sample(lab: &Lab, variant: Variant, port: &mut u16) -> Vec<f64> {
    enforce(lab, variant);
    let rates = measured().map(|(_, client, kind)| {
        *port += 1;
        let traffic = traffic_path(lab, client, *port);
        let rate = match kind {
            Kind::Connections => traffic.connections().time,
            Kind::Established => traffic.packet_time(),
            Kind::Flows => traffic.first_packet_time(),
        }
        .as_secs_f64()
        .recip();
        flush_conntrack(lab);
        rate
    });
    rates.into()
}

fn traffic_path(lab: &Lab, client: &str, port: u16) -> TrafficPath {
    let netns = |name: &str| lab.netns(&Vantage::pod(name)).expect("the pod runs");
    let at = SocketAddrV4::new(address(lab, cluster::SERVER), port);
    TrafficPath {
        client: netns(client),
        server: netns(cluster::SERVER),
        from: address(lab, client),
        to: at,
        at,
    }
}

/// Replaces the table on both nodes by that of a variant.
fn enforce(lab: &Lab, variant: Variant) {
    let [server, client] = [cluster::SERVER, cluster::NEAR].map(|pod| address(lab, pod));
    let clients = [client, address(lab, cluster::FAR)];
    for node in NODES {
        let netns = lab.netns(&Vantage::node(node)).expect("it is there");
        let in_netns = |work: &(dyn Fn() + Sync)| netns.run(work).expect("it can be entered");
        in_netns(&|| _ = Enforcer::remove().expect("runs as root"));
        in_netns(&one_lookup::remove);
        linear_chains::remove(&netns);
        match variant {
            Variant::NoTable => {}
            Variant::Policies(count) => enforce_policies(lab, node, &netns, count),
            // The chains are those of the server pod.
            Variant::LinearChains(count) if node == NODES[0] => {
                linear_chains::add(&netns, server, &clients, count);
            }
            Variant::LinearChains(_) => {}
            Variant::OneLookup => in_netns(&|| one_lookup::add(&clients)),
        }
    }
    thread::sleep(PAUSE);
}

fn enforce_policies(lab: &Lab, node: &str, netns: &NetNs, count: usize) {
    let mut index = Index::new();
    let list = lab.plan().to_list();
    let objects = list["items"].as_array().expect("a List has items").iter();
    objects.cloned().chain(cluster::others()).for_each(|object| _ = index.handle(applied(object)));
    cluster::policies(count).for_each(|object| _ = index.handle(applied(object)));
    let mut compiler = Compiler::new(Scope::Node(Name::new(node)));
    let changes = compiler.update(&index, &DirtyPolicyObjects::default());
    let enforcer = netns.run(|| Enforcer::open(PolicyOptions::default())).expect("it can be entered");
    let mut enforcer = enforcer.expect("runs as root");
    enforcer.apply(&changes, compiler.compiled());
    enforcer.sync(compiler.compiled()).expect("the kernel accepts the table");
}

/// Deletes the conntrack entries of a sample, so that they do not fill the table of the next one.
fn flush_conntrack(lab: &Lab) {
    for node in NODES {
        let netns: NetNs = lab.netns(&Vantage::node(node)).expect("it is there");
        let mut command = netns.command("conntrack");
        let ended = command.arg("-F").stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(ended.is_ok_and(|status| status.success()), "`conntrack -F` failed; is conntrack installed?");
    }
    thread::sleep(PAUSE);
}
