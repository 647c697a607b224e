//! Policies from an API server: one daemon on node-1, connected to a test API server.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use portcullis_lab::NetNs;
use serde_json::{Value, json};

use crate::api_server::{ApiServer, Fault};
use crate::daemons::{healthz, metric, wait_until};
use crate::test_cluster::{ClusterSetup, TestCluster, daemon_args};
use crate::tools;

/// A cluster with one daemon, which is connected to an API server.
struct ApiServerCluster {
    cluster: TestCluster,
    netns: NetNs,
    server: ApiServer,
    daemon: Child,
    log: tempfile::NamedTempFile,
}

impl ApiServerCluster {
    /// Starts the server, calls `prepare`, and starts the daemon.
    fn start(prepare: impl FnOnce(&ApiServer)) -> Self {
        let cluster = ClusterSetup { daemons: false, ..ClusterSetup::default() }.up();
        let netns = cluster.netns("node-1");
        let server = netns.run(ApiServer::start).unwrap();
        let objects = cluster.lab.plan().to_list();
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
        command
            .args(daemon_args("iptables", &["--network-policy", "--hostname-override=node-1", "--socket="]));
        command.arg(format!("--master={}", server.url()));
        command.env("XTABLES_LOCKFILE", log.path().with_extension("lock"));
        command.stdin(Stdio::null()).stdout(log.reopen().unwrap()).stderr(log.reopen().unwrap());
        let daemon = command.spawn().unwrap();
        Self { cluster, netns, server, daemon, log }
    }

    fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        metric(&self.netns, name, labels)
    }

    fn is_serving_metrics(&self) -> bool {
        tools::http_get(&self.netns, "127.0.0.1:10249", "/metrics").is_ok()
    }

    /// Returns the time from a change at the server until the kernel's table contains a word, or no longer does.
    fn until_table(&self, word: &str, is_there: bool, change: impl FnOnce(&ApiServer)) -> Duration {
        let start = Instant::now();
        change(&self.server);
        wait_until(word, || self.cluster.table("node-1").contains(word) == is_there);
        start.elapsed()
    }
}

impl Drop for ApiServerCluster {
    fn drop(&mut self) {
        // Both fail only for a process that was waited for already.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(self.log.path()).unwrap_or_default());
        }
    }
}

/// A policy that allows only these peers to reach the pods of a namespace.
fn policy(name: &str, peers: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "x"},
        "spec": {"podSelector": {}, "ingress": [{"from": peers}]},
    })
}

const SYNCED: &str = "portcullis_source_synced";

#[test]
fn policies_of_an_api_server_are_enforced_when_they_change() {
    let mut setup = ApiServerCluster::start(|server| {
        server.apply(policy("own", json!([{"podSelector": {}}])));
    });
    wait_until("the first table", || setup.cluster.table("node-1").contains("x/own"));
    setup.cluster.check("at first", "x/b → x/a 80/tcp allow\n y/b → x/a 80/tcp deny");
    let start = Instant::now();
    setup.cluster.wait_for("Services", "x/a → service/x/s-x-b 80/tcp allow");
    println!("Services were programmed {:?} later", start.elapsed());
    for kind in ["Pod", "Namespace", "NetworkPolicy", "ClusterNetworkPolicy", "Node"] {
        assert_eq!(setup.metric(SYNCED, &[&format!("kind=\"{kind}\"")]), 1.0, "{kind}");
    }
    assert!(healthz(&setup.netns).contains(" 200 "));
    let not_found = setup.server.requests(&["clusternetworkpolicies"]);
    assert!(!not_found.is_empty(), "the kind is requested; the response is 404");
    assert!(
        !setup.server.requests(&["/pods", "fieldSelector=status.phase", "Failed"]).is_empty(),
        "finished pods are excluded"
    );

    let mut times = Vec::new();
    for round in 0..5 {
        let name = format!("more-{round}");
        let fresh = || policy(&name, json!([{"namespaceSelector": {"matchLabels": {"ns": "y"}}}]));
        times.push(setup.until_table(&format!("x/{name}"), true, |server| {
            server.apply(fresh());
        }));
        if round == 0 {
            setup.cluster.check("with another", "y/b → x/a 80/tcp allow\n z/b → x/a 80/tcp deny");
        }
        times.push(setup.until_table(&format!("x/{name}"), false, |server| {
            server.delete("networkpolicies", &format!("x/{name}"));
        }));
    }
    times.sort();
    println!("from the event to the kernel's table, including the time of nft: {times:?}");

    // A new pod on another node becomes a peer.
    let listed = setup.until_table("10.244.2.99", true, |server| {
        server.apply(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "far", "namespace": "x"},
            "spec": {"nodeName": "node-2"}, "status": {"phase": "Running", "podIP": "10.244.2.99", "podIPs": [{"ip": "10.244.2.99"}]},
        }));
    });
    println!("a new peer: {listed:?}");

    // After broken watches, changes are still followed.
    setup.server.disconnect_all();
    setup.until_table("x/late", true, |server| {
        server.apply(policy("late", json!([{"namespaceSelector": {}}])));
    });
    setup.cluster.check("after broken watches", "y/b → x/a 80/tcp allow");
    // The server stops, compacts its history and starts again: 410, and all objects are listed again.
    setup.server.stop();
    setup.server.delete("networkpolicies", "x/late");
    setup.server.compact();
    setup.cluster.check("without a server", "y/b → x/a 80/tcp allow\n x/b → x/a 80/tcp allow");
    let netns = setup.netns.clone();
    netns.run(|| setup.server.restart()).unwrap();
    wait_until("the deleted policy is removed", || !setup.cluster.table("node-1").contains("x/late"));
    setup.cluster.check("listed again", "y/b → x/a 80/tcp deny\n x/b → x/a 80/tcp allow");
    assert_eq!(setup.metric("portcullis_network_policy_sync_failures_total", &[]), 0.0);
}

#[test]
fn without_a_list_of_pods_nothing_is_enforced_and_services_are_programmed() {
    let setup = ApiServerCluster::start(|server| {
        server.apply(policy("own", json!([{"podSelector": {}}])));
        server.fail(Fault::status(403).on("/pods").times(1_000));
    });
    wait_until("the daemon serves metrics", || setup.is_serving_metrics());
    setup.cluster.wait_for("Services", "x/a → service/x/s-x-b 80/tcp allow");
    wait_until("the failures are counted", || {
        setup.metric("portcullis_source_failures_total", &["kind=\"Pod\""]) >= 2.0
    });
    assert_eq!(setup.metric(SYNCED, &["kind=\"Pod\""]), 0.0);
    assert_eq!(setup.metric(SYNCED, &["kind=\"NetworkPolicy\""]), 1.0);
    assert_eq!(
        setup.cluster.table("node-1"),
        "",
        "with incomplete objects, allowed connections would be dropped"
    );
    setup.cluster.check("not enforced", "y/b → x/a 80/tcp allow\n z/b → x/a 80/udp allow");
    let log = std::fs::read_to_string(setup.log.path()).unwrap();
    assert!(log.contains("allow this user to list and watch pods"), "{log}");
}
