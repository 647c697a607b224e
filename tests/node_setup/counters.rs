//! Tests that the daemon exports its counters from the start, with the value 0.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::cluster::{server, slice};
use crate::daemon::{HEALTH, METRICS, Node, program};
use crate::http::get;
use crate::namespace;

/// Returns the series of counters and histograms in `/metrics`, without those about single objects.
fn counters() -> BTreeSet<String> {
    let response = get(METRICS, "/metrics").unwrap_or_default();
    let text = response.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let types: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .filter(|(_, kind)| *kind != "gauge")
        .collect();
    let is_counter = |series: &str| {
        let name = series.split('{').next().unwrap();
        let ends = ["", "_bucket", "_count", "_sum"];
        ends.iter().any(|end| name.strip_suffix(end).is_some_and(|name| types.contains_key(name)))
    };
    let series =
        text.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap().0);
    let objects = ["policy=\"", "service_name=\"", "port_name=\""];
    series
        .filter(|series| is_counter(series) && !objects.iter().any(|label| series.contains(label)))
        .map(str::to_owned)
        .collect()
}

fn no_counter_appears_later(mode: &'static str) {
    namespace::inside(move || {
        let node = Node::new();
        let mut server = server("10.244.0.9");
        // Until it is up again, the daemon has neither objects nor syncs.
        server.stop();
        let mut command = program();
        command.args([mode, "--master", &server.url(), "--network-policy", "--iptables-min-sync-period=0s"]);
        let mut daemon = node.spawn(command);
        daemon.wait_until("it serves metrics", || !counters().is_empty());
        let before = counters();
        assert!(before.len() > 100, "{before:#?}");
        daemon.wait_until("requests fail", || {
            let text = get(METRICS, "/metrics").unwrap_or_default();
            let mut failures =
                text.lines().filter_map(|line| line.strip_prefix("portcullis_source_failures_total"));
            failures.any(|series| !series.ends_with(" 0"))
        });

        server.restart();
        daemon.wait_healthy();
        let syncs = || {
            let text = get(METRICS, "/metrics").unwrap_or_default();
            let mut counts = text.lines().filter_map(|line| {
                line.strip_prefix(
                    "portcullis_controller_syncs_total{controller=\"services\",result=\"success\"} ",
                )
            });
            counts.next().map_or(0, |count| count.parse::<u64>().unwrap())
        };
        for endpoint in ["10.244.0.10", "10.244.0.11"] {
            let before = syncs();
            server.apply(slice(endpoint));
            daemon.wait_until("the change is synced", || syncs() > before);
        }
        // Health checks fail on a node that is being deleted.
        server.apply(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-a"},
            "spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]},
        }));
        daemon.wait_until("the node is not eligible", || {
            get(HEALTH, "/healthz").is_some_and(|response| response.contains(" 503 "))
        });
        let after = counters();
        let late: Vec<&String> = after.difference(&before).collect();
        assert_eq!(late, [""; 0], "counters without a value at the start");
    });
}

#[test]
fn no_counter_of_iptables_mode_appears_later() {
    no_counter_appears_later("--mode=iptables");
}

#[test]
fn no_counter_of_nftables_mode_appears_later() {
    no_counter_appears_later("--mode=nftables");
}
