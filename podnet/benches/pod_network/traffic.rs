//! Connections and bytes per second between two pods of a node, by wiring and number of policies.

use std::net::SocketAddr;

use portcullis_cluster::{Event, Index, Kind, Name, Object};
use portcullis_policy::compile::DirtyPolicyObjects;
use portcullis_policy::table::{Enforcer, PolicyOptions};
use portcullis_policy::{Compiler, Scope};
use serde_json::{Value, json};

use super::contender::{Contender, Network};
use super::load::{Pair, Samples};
use super::node::Netns;

/// Numbers of policies that select the server.
const LEVELS: [Option<usize>; 3] = [None, Some(1), Some(10)];

/// Two pods of a node.
struct Pods {
    contender: Contender,
    client: Netns,
    server: Netns,
    addresses: [String; 2],
}

/// Prints the medians of alternating samples.
pub(crate) fn measure(plugin: &str, rounds: usize) {
    let wirings = ["ptp", "bridge"].map(|wiring| {
        let contender = Contender::plugin(plugin, Network::with_wiring(wiring));
        // Services need conntrack.
        contender.track_connections();
        let [client, server] = [Netns::new(), Netns::new()];
        let addresses = [&client, &server].map(|pod| contender.add_pod(pod));
        Pods { contender, client, server, addresses }
    });
    let mut samples = vec![[Samples::default(), Samples::default()]; LEVELS.len()];
    let mut port = 9_000;
    for _ in 0..rounds {
        for (level, of_level) in LEVELS.iter().zip(&mut samples) {
            for (pods, samples) in wirings.iter().zip(of_level) {
                port += 1;
                pods.enforce(*level);
                let to = SocketAddr::new(pods.addresses[1].parse().expect("an address"), port);
                samples.add(&Pair { client: &pods.client, server: &pods.server, to });
            }
        }
    }
    println!("Between two pods of a node, {rounds} rounds: median connections/s, Gbit/s\n");
    println!("| policies | ptp | bridge |\n| --- | --- | --- |");
    for (level, of_level) in LEVELS.iter().zip(&mut samples) {
        let cells = of_level
            .each_mut()
            .map(|samples| format!("{:.0}, {:.1}", samples.connections(), samples.gbits()));
        let level = level.map_or("no table".to_owned(), |count| count.to_string());
        println!("| {level} | {} |", cells.join(" | "));
    }
    println!();
}

impl Pods {
    /// Enforces this number of policies; without a number there is no table.
    fn enforce(&self, level: Option<usize>) {
        self.contender.node().within(|| {
            Enforcer::remove().expect("runs as root");
            let Some(count) = level else { return };
            let mut index = Index::new();
            let pods = [("client", 0), ("server", 1)].map(|(app, at)| pod(app, &self.addresses[at]));
            pods.into_iter()
                .chain((0..count).map(policy))
                .for_each(|object| _ = index.handle(applied(object)));
            let mut compiler = Compiler::new(Scope::Node(Name::new("node")));
            let changes = compiler.update(&index, &DirtyPolicyObjects::default());
            let mut enforcer = Enforcer::open(PolicyOptions::default()).expect("runs as root");
            enforcer.apply(&changes, compiler.compiled());
            enforcer.sync(compiler.compiled()).expect("the kernel accepts the table");
        });
    }
}

fn applied(object: Value) -> Event {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let kind = Kind::from_api(text("apiVersion"), text("kind")).expect("a kind that is used");
    Event::Applied(Object::parse(kind, object).expect("an object as the API has it").object)
}

fn pod(app: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": app, "namespace": "default", "labels": { "app": app } },
        "spec": { "nodeName": "node", "containers": [] },
        "status": { "phase": "Running", "podIPs": [{ "ip": address }] },
    })
}

/// Returns a policy for the server that allows the client.
fn policy(number: usize) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": format!("policy-{number}"), "namespace": "default" },
        "spec": {
            "podSelector": { "matchLabels": { "app": "server" } }, "policyTypes": ["Ingress"],
            "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": "client" } } }] }],
        },
    })
}
