//! Policies from an API server: one daemon on node-1 of a town, which asks a server that the test runs beside it.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use portcullis_lab::NetNs;
use serde_json::{Value, json};

use crate::api_server::{ApiServer, Fault};
use crate::daemons::{healthz, metric, wait_until};
use crate::tools;
use crate::town::{Site, Town, daemon_args};

/// A town whose daemons are none but this one.
struct Served {
    town: Town,
    netns: NetNs,
    server: ApiServer,
    daemon: Child,
    log: tempfile::NamedTempFile,
}

impl Served {
    /// Starts the daemon once the server is as `prepare` wants it.
    fn start(prepare: impl FnOnce(&ApiServer)) -> Self {
        let town = Site { daemons: false, ..Site::default() }.up();
        let netns = town.netns("node-1");
        let server = netns.run(ApiServer::start).unwrap();
        let objects = town.lab.plan().to_list();
        let namespaces = ["x", "y", "z"].map(|name| {
            let labels = json!({"kubernetes.io/metadata.name": name, "ns": name});
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        });
        let items = objects["items"].as_array().unwrap().iter();
        let known = items.filter(|item| item["kind"] != "Namespace").cloned();
        known.chain(namespaces).for_each(|object| {
            server.apply(object);
        });
        prepare(&server);
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = netns.command(env!("CARGO_BIN_EXE_portcullis"));
        command.args(daemon_args("iptables", &["--network-policy", "--hostname-override=node-1"]));
        command.arg(format!("--master={}", server.url()));
        command.env("XTABLES_LOCKFILE", log.path().with_extension("lock"));
        command.stdin(Stdio::null()).stdout(log.reopen().unwrap()).stderr(log.reopen().unwrap());
        let daemon = command.spawn().unwrap();
        Self { town, netns, server, daemon, log }
    }

    fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        metric(&self.netns, name, labels)
    }

    fn answers(&self) -> bool {
        tools::http_get(&self.netns, "127.0.0.1:10249", "/metrics").is_ok()
    }

    /// How long it takes from an object's way into the server until the kernel's table shows a word, or no more.
    fn until_table(&self, word: &str, is_there: bool, change: impl FnOnce(&ApiServer)) -> Duration {
        let start = Instant::now();
        change(&self.server);
        wait_until(word, || self.town.table("node-1").contains(word) == is_there);
        start.elapsed()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Both fail only for a process that was waited for already.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(self.log.path()).unwrap_or_default());
        }
    }
}

/// Isolates the pods of a namespace but for peers.
fn policy(name: &str, peers: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "x"},
        "spec": {"podSelector": {}, "ingress": [{"from": peers}]},
    })
}

const SYNCED: &str = "portcullis_source_synced";

#[test]
fn policies_of_an_api_server_are_enforced_as_they_change() {
    let mut served = Served::start(|server| {
        server.apply(policy("own", json!([{"podSelector": {}}])));
    });
    wait_until("the first table", || served.town.table("node-1").contains("x/own"));
    served.town.check("at first", "x/b → x/a 80/tcp allow\n y/b → x/a 80/tcp deny");
    let start = Instant::now();
    served.town.wait_for("Services", "x/a → service/x/s-x-b 80/tcp allow");
    println!("Services were served {:?} later", start.elapsed());
    for kind in ["Pod", "Namespace", "NetworkPolicy", "ClusterNetworkPolicy", "Node"] {
        assert_eq!(served.metric(SYNCED, &[&format!("kind=\"{kind}\"")]), 1.0, "{kind}");
    }
    assert!(healthz(&served.netns).contains(" 200 "));
    let unserved = served.server.requests(&["clusternetworkpolicies"]);
    assert!(!unserved.is_empty(), "the kind is asked for, and answered with 404");
    assert!(
        !served.server.requests(&["/pods", "fieldSelector=status.phase", "Failed"]).is_empty(),
        "only of pods that run"
    );

    let mut times = Vec::new();
    for round in 0..5 {
        let name = format!("more-{round}");
        let fresh = || policy(&name, json!([{"namespaceSelector": {"matchLabels": {"ns": "y"}}}]));
        times.push(served.until_table(&format!("x/{name}"), true, |server| {
            server.apply(fresh());
        }));
        if round == 0 {
            served.town.check("with another", "y/b → x/a 80/tcp allow\n z/b → x/a 80/tcp deny");
        }
        times.push(served.until_table(&format!("x/{name}"), false, |server| {
            server.delete("networkpolicies", &format!("x/{name}"));
        }));
    }
    times.sort();
    println!("from the event to the kernel's table, nft's own time included: {times:?}");

    // A pod that comes, elsewhere, is a peer at once.
    let listed = served.until_table("10.244.2.99", true, |server| {
        server.apply(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "far", "namespace": "x"},
            "spec": {"nodeName": "node-2"}, "status": {"phase": "Running", "podIP": "10.244.2.99", "podIPs": [{"ip": "10.244.2.99"}]},
        }));
    });
    println!("a peer: {listed:?}");

    // Watches break; what changed meanwhile is followed all the same.
    served.server.disconnect_all();
    served.until_table("x/late", true, |server| {
        server.apply(policy("late", json!([{"namespaceSelector": {}}])));
    });
    served.town.check("after a break", "y/b → x/a 80/tcp allow");
    // The server goes, forgets its history, and comes back: 410, and all is listed anew.
    served.server.stop();
    served.server.delete("networkpolicies", "x/late");
    served.server.compact();
    served.town.check("without a server", "y/b → x/a 80/tcp allow\n x/b → x/a 80/tcp allow");
    let netns = served.netns.clone();
    netns.run(|| served.server.restart()).unwrap();
    wait_until("what went meanwhile", || !served.town.table("node-1").contains("x/late"));
    served.town.check("listed anew", "y/b → x/a 80/tcp deny\n x/b → x/a 80/tcp allow");
    assert_eq!(served.metric("portcullis_network_policy_sync_failures_total", &[]), 0.0);
}

#[test]
fn without_pods_nothing_is_enforced_and_services_are_served() {
    let served = Served::start(|server| {
        server.apply(policy("own", json!([{"podSelector": {}}])));
        server.fail(Fault::status(403).on("/pods").times(1_000));
    });
    wait_until("the daemon answers", || served.answers());
    served.town.wait_for("Services", "x/a → service/x/s-x-b 80/tcp allow");
    wait_until("the failures are counted", || {
        served.metric("portcullis_source_failures_total", &["kind=\"Pod\""]) >= 2.0
    });
    assert_eq!(served.metric(SYNCED, &["kind=\"Pod\""]), 0.0);
    assert_eq!(served.metric(SYNCED, &["kind=\"NetworkPolicy\""]), 1.0);
    assert_eq!(served.town.table("node-1"), "", "with less than all, what policies allow would be dropped");
    served.town.check("open", "y/b → x/a 80/tcp allow\n z/b → x/a 80/udp allow");
    let log = std::fs::read_to_string(served.log.path()).unwrap();
    assert!(log.contains("allow this user to list and watch pods"), "{log}");
}
