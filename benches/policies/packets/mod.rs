//! Packet rates between two pods on one node and on two nodes, with an increasing number of policies for the server pod.

mod cluster;
mod traffic;

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

/// Number of enforced policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// No NetworkPolicy table.
    NoTable,
    /// This number of policies selects the server pod.
    Policies(usize),
}

/// Rates per second of one kind of traffic on one path, by level.
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) path: &'static str,
    /// In the order of the levels.
    pub(crate) rates: Vec<f64>,
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
    ("packets of a UDP flow", Kind::Established),
    ("new UDP flows", Kind::Flows),
];

/// Measures all levels alternately, `repeats` times, and returns the medians.
pub(crate) fn measure(levels: &[Level], repeats: usize) -> Vec<Row> {
    let plan = PlanOptions { clients: false, ..PlanOptions::default() };
    let lab = Lab::up(cluster::pods(), LabOptions { plan, daemon: None }).expect("the lab starts");
    for node in NODES {
        let netns = lab.netns(&Vantage::node(node)).expect("it is there");
        netns.run(track_connections).expect("it can be entered");
    }
    let paths = [("one node", cluster::NEAR), ("two nodes", cluster::FAR)];
    let mut rows: Vec<(Row, Kind, &str, Vec<Vec<f64>>)> = Vec::new();
    for (path, client) in paths {
        for (what, kind) in KINDS {
            let row = Row { what, path, rates: Vec::new() };
            rows.push((row, kind, client, vec![Vec::new(); levels.len()]));
        }
    }
    let mut port = 20_000;
    for _ in 0..repeats {
        for (at, level) in levels.iter().enumerate() {
            enforce(&lab, *level);
            for (_, kind, client, samples) in &mut rows {
                port += 1;
                let traffic = traffic_path(&lab, client, port);
                samples[at].push(match kind {
                    Kind::Connections => traffic.connections().rate,
                    Kind::Established => traffic.established(),
                    Kind::Flows => traffic.flows(),
                });
                flush_conntrack(&lab);
            }
        }
    }
    let finish = |(row, _, _, samples): (Row, Kind, &str, Vec<Vec<f64>>)| Row {
        rates: samples.into_iter().map(median).collect(),
        ..row
    };
    rows.into_iter().map(finish).collect()
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

/// Enforces this number of policies on both nodes.
fn enforce(lab: &Lab, level: Level) {
    for node in NODES {
        let netns = lab.netns(&Vantage::node(node)).expect("it is there");
        netns.run(Enforcer::remove).expect("it can be entered").expect("runs as root");
        let Level::Policies(count) = level else { continue };
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
        enforcer.sync().expect("the kernel accepts the table");
    }
    thread::sleep(PAUSE);
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
