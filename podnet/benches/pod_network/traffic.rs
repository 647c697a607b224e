//! Connections and bytes per second between two pods of a node, by wiring and number of policies.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_cluster::{Event, Index, Kind, Name, Object};
use portcullis_policy::compile::DirtyPolicyObjects;
use portcullis_policy::table::{Enforcer, PolicyOptions};
use portcullis_policy::{Compiler, Scope};
use serde_json::{Value, json};

use super::contender::Contender;
use super::node::Netns;

/// Duration of a sample.
const TIME: Duration = Duration::from_millis(500);

/// Numbers of policies that select the server.
const LEVELS: [Option<usize>; 3] = [None, Some(1), Some(10)];

/// Two pods of a node.
struct Pair {
    contender: Contender,
    client: Netns,
    server: Netns,
    addresses: [String; 2],
}

/// Prints the medians of alternating samples.
pub(crate) fn measure(plugin: &str, rounds: usize) {
    let pairs = ["ptp", "bridge"].map(|wiring| {
        let contender = Contender::plugin(plugin, wiring);
        // Services need conntrack.
        contender.node().run("nft add table inet track");
        contender
            .node()
            .run("nft add chain inet track prerouting { type filter hook prerouting priority 0 ; }");
        contender.node().run("nft add rule inet track prerouting ct state new accept");
        let [client, server] = [Netns::new(), Netns::new()];
        let addresses = [&client, &server].map(|pod| contender.add_pod(pod));
        Pair { contender, client, server, addresses }
    });
    let mut samples = vec![[(Vec::new(), Vec::new()), (Vec::new(), Vec::new())]; LEVELS.len()];
    let mut port = 9_000;
    for _ in 0..rounds {
        for (level, of_level) in LEVELS.iter().zip(&mut samples) {
            for (pair, (connections, bytes)) in pairs.iter().zip(of_level) {
                port += 1;
                pair.enforce(*level);
                let to = SocketAddr::new(pair.addresses[1].parse().expect("an address"), port);
                connections.push(pair.connections(to));
                bytes.push(pair.bytes(to));
            }
        }
    }
    println!("Between two pods of a node, {rounds} rounds: median connections/s, Gbit/s\n");
    println!("| policies | ptp | bridge |\n| --- | --- | --- |");
    for (level, of_level) in LEVELS.iter().zip(&mut samples) {
        let cells = of_level.each_mut().map(|(connections, bytes)| {
            format!("{:.0}, {:.1}", median(connections), median(bytes) * 8.0 / 1e9)
        });
        let level = level.map_or("no table".to_owned(), |count| count.to_string());
        println!("| {level} | {} |", cells.join(" | "));
    }
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

impl Pair {
    fn connections(&self, to: SocketAddr) -> f64 {
        self.with_server(
            to,
            |_| {},
            || {
                let (started, mut count) = (Instant::now(), 0);
                while started.elapsed() < TIME {
                    let mut stream = TcpStream::connect(to).expect("the server is reachable");
                    // The server closes first, so that the client's ports do not run out.
                    let _ = stream.read(&mut [0]);
                    count += 1;
                }
                f64::from(count) / started.elapsed().as_secs_f64()
            },
        )
    }

    fn bytes(&self, to: SocketAddr) -> f64 {
        let drain = |mut stream: TcpStream| {
            let mut buffer = vec![0; 256 << 10];
            while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
        };
        self.with_server(to, drain, || {
            let mut stream = TcpStream::connect(to).expect("the server is reachable");
            let (started, mut sent, buffer) = (Instant::now(), 0, vec![0; 256 << 10]);
            while started.elapsed() < TIME {
                stream.write_all(&buffer).expect("the server reads");
                sent += buffer.len();
            }
            sent as f64 / started.elapsed().as_secs_f64()
        })
    }

    /// Runs `work` in the client's namespace while a server in the other one hands each connection to `serve`.
    fn with_server<T: Send>(
        &self,
        at: SocketAddr,
        serve: impl Fn(TcpStream) + Sync,
        work: impl FnOnce() -> T + Send,
    ) -> T {
        let listener = self.server.within(|| TcpListener::bind(at)).expect("the port is free");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for stream in listener.incoming().flatten() {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    serve(stream);
                }
            });
            let result = self.client.within(work);
            done.store(true, Ordering::Relaxed);
            // Wakes the listener.
            drop(self.client.within(|| TcpStream::connect(at)));
            result
        })
    }

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
            enforcer.sync().expect("the kernel accepts the table");
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
