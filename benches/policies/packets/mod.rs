//! What policies cost a packet: two pods of one node, and two pods of two nodes, with ever more policies on the pod
//! that is talked to.

mod cluster;
mod traffic;

use std::net::SocketAddrV4;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use portcullis_cluster::{Index, Name};
use portcullis_lab::{Lab, LabOptions, NetNs, PlanOptions, Vantage};
use portcullis_policy::table::{Enforcer, PolicyOptions};
use portcullis_policy::{Compiler, Scope};

use super::cluster_state::applied;
use super::figures::median;
use traffic::{Wire, address, track_connections};

const NODES: [&str; 2] = ["node-1", "node-2"];

/// What the kernel still does for packets that were is not what is measured next.
const PAUSE: Duration = Duration::from_millis(200);

/// How much is enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// There is no table of policies.
    NoTable,
    /// So many policies select the pod that is talked to.
    Policies(usize),
}

/// Rates a second of one kind of traffic, by way and by level.
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) way: &'static str,
    /// In the order of the levels.
    pub(crate) rates: Vec<f64>,
}

/// What is sent.
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

/// Measures all levels in turns, so many times; the medians count.
pub(crate) fn measure(levels: &[Level], repeats: usize) -> Vec<Row> {
    let plan = PlanOptions { clients: false, ..PlanOptions::default() };
    let lab = Lab::up(cluster::pods(), LabOptions { plan, daemon: None }).expect("the lab is built");
    for node in NODES {
        let netns = lab.netns(&Vantage::node(node)).expect("it is there");
        netns.run(track_connections).expect("it can be entered");
    }
    let ways = [("one node", cluster::NEAR), ("two nodes", cluster::FAR)];
    let mut rows: Vec<(Row, Kind, &str, Vec<Vec<f64>>)> = Vec::new();
    for (way, client) in ways {
        for (what, kind) in KINDS {
            let row = Row { what, way, rates: Vec::new() };
            rows.push((row, kind, client, vec![Vec::new(); levels.len()]));
        }
    }
    let mut port = 20_000;
    for _ in 0..repeats {
        for (at, level) in levels.iter().enumerate() {
            enforce(&lab, *level);
            for (_, kind, client, samples) in &mut rows {
                port += 1;
                let wire = wire(&lab, client, port);
                samples[at].push(match kind {
                    Kind::Connections => wire.connections().rate,
                    Kind::Established => wire.established(),
                    Kind::Flows => wire.flows(),
                });
                forget_connections(&lab);
            }
        }
    }
    let finish = |(row, _, _, samples): (Row, Kind, &str, Vec<Vec<f64>>)| Row {
        rates: samples.into_iter().map(median).collect(),
        ..row
    };
    rows.into_iter().map(finish).collect()
}

fn wire(lab: &Lab, client: &str, port: u16) -> Wire {
    let netns = |name: &str| lab.netns(&Vantage::pod(name)).expect("the pod runs");
    let at = SocketAddrV4::new(address(lab, cluster::SERVER), port);
    Wire { client: netns(client), server: netns(cluster::SERVER), from: address(lab, client), to: at, at }
}

/// Makes both nodes enforce that many policies.
fn enforce(lab: &Lab, level: Level) {
    for node in NODES {
        let netns = lab.netns(&Vantage::node(node)).expect("it is there");
        netns.run(Enforcer::remove).expect("it can be entered").expect("root may");
        let Level::Policies(count) = level else { continue };
        let mut index = Index::new();
        let list = lab.plan().to_list();
        let objects = list["items"].as_array().expect("a List has items").iter();
        objects.cloned().chain(cluster::others()).for_each(|object| index.handle(applied(object)));
        cluster::policies(count).for_each(|object| index.handle(applied(object)));
        let mut compiler = Compiler::new(Scope::Node(Name::new(node)));
        let changes = compiler.update(&index, &index.dirty_policy_objects().clone());
        let enforcer = netns.run(|| Enforcer::open(PolicyOptions::default())).expect("it can be entered");
        let mut enforcer = enforcer.expect("root may");
        enforcer.apply(&changes, compiler.compiled());
        enforcer.sync().expect("the kernel takes it");
    }
    thread::sleep(PAUSE);
}

/// What one sample leaves of connections must not fill the table of the next.
fn forget_connections(lab: &Lab) {
    for node in NODES {
        let netns: NetNs = lab.netns(&Vantage::node(node)).expect("it is there");
        let mut command = netns.command("conntrack");
        let ended = command.arg("-F").stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(ended.is_ok_and(|status| status.success()), "`conntrack -F` failed; is conntrack installed?");
    }
    thread::sleep(PAUSE);
}
