//! Faults of the iptables tools in IPVS mode: virtual servers and addresses stay, health reports the fault, and the daemon recovers
//! without help.

use std::time::{Duration, Instant};

use portcullis_machines::uml;
use serde_json::json;

use crate::api_server::ApiServer;
use crate::cluster::{server, slice};
use crate::daemon::{HEALTH, METRICS, Node, program};
use crate::fake_tools::FakeTools;
use crate::http::get;
use crate::namespace;

/// The fault, the script of `iptables-restore`, and text in `/healthz` while it lasts.
const FAULTS: [(&str, Option<&str>, &str); 5] = [
    ("fails", Some("cat > /dev/null; exit 1"), "failed (exit status: 1)"),
    ("hangs", Some("exec sleep 1000"), "did not end within"),
    ("is killed", Some("head -c 10 > /dev/null; kill -9 $$"), "ended by signal 9"),
    (
        "does not get the lock",
        Some("echo 'Another app is currently holding the xtables lock' >&2; exit 4"),
        "xtables lock",
    ),
    ("is missing", None, "is iptables installed?"),
];

/// The tool that writes rules.
const RESTORE: &str = "iptables-restore";

#[test]
fn faults_of_tools_in_ipvs_mode_take_nothing_away() {
    uml::inside_for(Duration::from_secs(400), || namespace::inside(break_tools));
}

fn serves(endpoint: &str) -> bool {
    let servers = namespace::run("ipvsadm -Ln");
    let of_service = servers.split("TCP  10.96.0.10:80 ").nth(1).and_then(|rest| rest.split("TCP ").next());
    of_service.is_some_and(|of_service| of_service.contains(&format!("{endpoint}:8080")))
        && namespace::run("ip -4 address").contains("10.96.0.10/32")
}

/// Adds or removes a Service with an external IP. The first and the last one change the rules.
fn toggle_external_ip(server: &ApiServer, is_there: bool) {
    if !is_there {
        server.delete("services", "shop/external");
        return;
    }
    server.apply(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "external", "namespace": "shop"},
        "spec": {
            "clusterIP": "10.96.0.11", "clusterIPs": ["10.96.0.11"], "externalIPs": ["192.0.2.10"],
            "ipFamilies": ["IPv4"], "ports": [{"port": 80}],
        },
    }));
}

fn break_tools() {
    let node = Node::new();
    let tools = FakeTools::with_flavour(node.folder.path(), "-legacy");
    let server = server("10.244.0.1");
    let mut command = program();
    command.args([
        "--mode=ipvs",
        "--master",
        &server.url(),
        "--ipvs-min-sync-period=0s",
        "--tool-timeout=20s",
    ]);
    let mut daemon = node.spawn({
        command.env("PATH", tools.path());
        command
    });
    daemon.wait_until("it serves", || {
        get(HEALTH, "/healthz").is_some_and(|text| text.contains(" 200 ")) && serves("10.244.0.1")
    });
    for (number, (case, script, reported)) in FAULTS.into_iter().enumerate() {
        let before = format!("10.244.0.{}", number + 1);
        match script {
            Some(script) => tools.set_fault(RESTORE, script),
            None => tools.remove(RESTORE),
        }
        toggle_external_ip(&server, number % 2 == 0);
        daemon.wait_until(&format!("{case}: health reports it"), || {
            get(HEALTH, "/healthz").is_some_and(|text| text.contains(" 503 ") && text.contains(reported))
        });
        assert!(serves(&before), "{case}: the Service is not served any more");
        let start = Instant::now();
        tools.repair(RESTORE);
        let endpoint = format!("10.244.0.{}", number + 2);
        server.apply(slice(&endpoint));
        daemon.wait_until(&format!("{case}: it recovers"), || {
            serves(&endpoint) && get(HEALTH, "/healthz").is_some_and(|text| text.contains(" 200 "))
        });
        println!("ipvs: {RESTORE} {case}: recovered within {:?}", start.elapsed());
        let metrics = get(METRICS, "/metrics").unwrap();
        assert!(!metrics.contains("portcullis_service_sync_errors{"), "{case}: a Service is isolated");
    }
}
