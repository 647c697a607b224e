//! Tests with the sequences recorded from kube-proxy v1.36.2: the same flows exist before the same steps. A row says
//! where Portcullis deletes more than the recording.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use portcullis_cluster::manifest;
use portcullis_netlink::conntrack::Flow;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::flows::{KernelTable, MemoryTable, TestFlowTable, translated, words, written};
use crate::namespace::inside;

/// The flows deleted in a step, by the client's port. 40001 and 40003 go to the ClusterIP with replies from 10.244.2.10
/// and 10.244.1.10, 40002 goes to the node port with replies from 10.244.2.10, 40004 goes to the ClusterIP and was
/// never translated. 40005 goes to a pod, 40006 leaves the cluster and 40007 is TCP: these are always kept.
struct Step {
    case: &'static str,
    step: usize,
    deleted: &'static [u16],
    /// The reason for a difference to kube-proxy's recording, if there is one.
    differs: Option<&'static str>,
}

const fn same(case: &'static str, step: usize, deleted: &'static [u16]) -> Step {
    Step { case, step, deleted, differs: None }
}

const fn more(case: &'static str, step: usize, deleted: &'static [u16], why: &'static str) -> Step {
    Step { case, step, deleted, differs: Some(why) }
}

const REPLACED: &str = "seq-udp-endpoint-replaced";
const APPEARS: &str = "seq-udp-service-appears";

const STEPS: &[Step] = &[
    same(REPLACED, 2, &[40001, 40002, 40004]),
    more(
        REPLACED,
        3,
        &[40001, 40002, 40003],
        "all endpoints were removed, and kube-proxy deletes flows only if some remain",
    ),
    same(REPLACED, 4, &[40001, 40002, 40003, 40004]),
    same(APPEARS, 2, &[]),
    more(APPEARS, 3, &[40003, 40004], "the slice was there before the Service"),
    more(APPEARS, 4, &[40001, 40002, 40003], "the Service was deleted"),
    same(APPEARS, 5, &[]),
    more(
        APPEARS,
        6,
        &[40001, 40002, 40003],
        "the Service was added without endpoints, so no flow may be translated",
    ),
    same(APPEARS, 7, &[40003, 40004]),
];

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/services").join(case)
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn yaml(path: PathBuf) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap()
}

/// Parses the flow of a `conntrack` command line.
fn parse_flow(arguments: &str) -> Flow {
    let words: Vec<&str> = arguments.split_whitespace().collect();
    let after = |flag: &str| {
        let at = words.iter().position(|w| *w == flag).unwrap_or_else(|| panic!("{arguments}: no {flag}"));
        words[at + 1]
    };
    let socket =
        |ip: &str, port: &str| SocketAddr::new(after(ip).parse().unwrap(), after(port).parse().unwrap());
    let protocol = match after("-p") {
        "udp" => 17,
        "tcp" => 6,
        other => panic!("{arguments}: protocol {other}"),
    };
    let answers_to = socket("-q", "--reply-port-dst");
    let mut flow = translated(
        protocol,
        socket("-s", "--sport"),
        socket("-d", "--dport"),
        socket("-r", "--reply-port-src"),
    );
    flow.reply.destination = answers_to.ip();
    flow.reply.destination_port = answers_to.port();
    flow
}

/// Returns the clients' ports in a listing by `conntrack -L`.
fn client_ports(listing: &str) -> BTreeSet<u16> {
    listing.lines().filter_map(|line| line.split_once(" sport=")?.1.split(' ').next()?.parse().ok()).collect()
}

fn check(table: &dyn TestFlowTable) {
    let mut clusters = BTreeMap::new();
    for step in STEPS {
        let Step { case, step: number, .. } = *step;
        let at = folder(case);
        let text = read(at.join("host.yaml"));
        let host: Value = serde_saphyr::from_str(&text).unwrap();
        let addresses =
            host["interfaces"].as_array().unwrap().iter().flat_map(|i| i["addresses"].as_array().unwrap());
        let node: Vec<IpAddr> =
            addresses.map(|a| a.as_str().unwrap().split('/').next().unwrap().parse().unwrap()).collect();

        let (cluster, stale) = clusters.entry(case).or_insert_with(|| (Cluster::new(), table.stale_flows()));
        let mut go = |n: usize| {
            let file = at.join(format!("state-{n}.yaml"));
            let text = read(file);
            let documents = manifest::parse("state.yaml", &text).map(|d| d.unwrap());
            let known = documents.filter_map(|d| Some((d.kind?, d.value)));
            let wanted = known.filter(|(kind, _)| !matches!(kind, portcullis_cluster::Kind::ServiceCidr));
            let changes = cluster.become_objects(wanted);
            stale.add_changes(&changes);
            stale.delete(&cluster.desired, &written(), &node).unwrap();
        };
        if number == 2 {
            go(1);
        }
        let arguments = yaml(at.join("case.yaml"))["conntrack"][format!("step-{number}")].clone();
        let flows: Vec<Flow> =
            arguments.as_array().unwrap().iter().map(|a| parse_flow(a.as_str().unwrap())).collect();
        assert_eq!(flows.len(), 7, "{case}, step {number}");
        table.put(&flows);
        go(number);

        let goes = |flow: &&Flow| step.deleted.contains(&flow.original.source_port);
        let expected: BTreeSet<String> = flows.iter().filter(|f| !goes(f)).map(words).collect();
        assert_eq!(table.take_all(), expected, "{case}, step {number}");

        for mode in ["iptables", "ipvs"] {
            let what = format!("{case}, step {number}, kube-proxy's {mode} mode");
            let recorded = |file: &str| client_ports(&read(at.join(format!("{mode}/{number}/{file}"))));
            let kept = recorded("conntrack.after");
            let by_kube_proxy: Vec<u16> = recorded("conntrack.before").difference(&kept).copied().collect();
            assert_eq!(step.deleted != by_kube_proxy, step.differs.is_some(), "{what}: {by_kube_proxy:?}");
            assert!(by_kube_proxy.iter().all(|port| step.deleted.contains(port)), "{what}: we keep more");
        }
    }
}

#[test]
fn recorded_steps_delete_stale_flows() {
    check(&MemoryTable::default());
}

#[test]
fn recorded_steps_delete_stale_flows_in_the_kernel() {
    inside(|| check(&KernelTable));
}
