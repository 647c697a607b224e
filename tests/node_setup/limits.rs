//! Limits of what is reported about objects, whose number their owners choose.

use serde_json::json;

use crate::cluster::server;
use crate::daemon::{METRICS, Node};
use crate::http::get;
use crate::namespace;

/// The number of Services that claim one address.
const SERVICES: usize = 1000;

/// Returns the value of a metric.
fn metric(name: &str) -> Option<f64> {
    let text = get(METRICS, "/metrics")?;
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[test]
fn many_services_with_a_problem_do_not_flood_the_log_and_the_api_server() {
    namespace::inside(|| {
        let node = Node::new();
        let server = server("10.244.0.9");
        for number in 0..SERVICES {
            let cluster_ip = format!("10.97.{}.{}", number / 250, number % 250 + 1);
            server.apply(json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": format!("s{number}"), "namespace": "noisy"},
                "spec": {
                    "clusterIP": cluster_ip, "clusterIPs": [cluster_ip], "ipFamilies": ["IPv4"],
                    "externalIPs": ["203.0.113.9"], "ports": [{"port": 80}],
                },
            }));
        }
        let mut daemon = node.start_following(&server.url(), &[]);
        let shadowed = "portcullis_unserved_frontends{reason=\"shadowed\"}";
        daemon.wait_until("all are counted", || metric(shadowed) == Some((SERVICES - 1) as f64));
        daemon.wait_until("Events are omitted", || {
            metric("portcullis_events_omitted_total")
                .is_some_and(|events| events >= (SERVICES - 1 - 25) as f64)
        });
        let log_path = daemon.log.clone();
        let log = || std::fs::read_to_string(&log_path).unwrap();
        daemon.wait_until("omitted lines and Events are logged", || {
            let is_omitted =
                |what: &str| log().lines().any(|line| line.contains("omitted ") && line.contains(what));
            is_omitted("log lines like the last ones of src/observe/unserved.rs")
                && is_omitted("Events, as there were")
        });
        let lines = log().lines().filter(|line| line.contains("Service noisy/s")).count();
        assert!((100..SERVICES / 2).contains(&lines), "{lines} lines about Services");
        let omitted = metric("portcullis_log_lines_omitted_total").unwrap();
        assert_eq!(omitted as usize + lines, SERVICES - 1);
        let created = server.objects("events").len();
        assert!(created <= 1 + 25 + 10, "{created} Events were created");
    });
}
