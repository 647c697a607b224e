//! Events that kube-proxy also reports to the API server.

use std::net::{Ipv4Addr, TcpListener};

use serde_json::{Value, json};

use crate::api_server::ApiServer;
use crate::daemon::{METRICS, Node, PATIENCE};
use crate::namespace;

const HEALTH_CHECK_PORT: u16 = 32_000;

fn server() -> ApiServer {
    let server = ApiServer::start();
    server.apply(json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-a", "uid": "4b0e"},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
    }));
    server.apply(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop", "uid": "9c21"},
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "ipFamilies": ["IPv4"],
            "externalTrafficPolicy": "Local", "healthCheckNodePort": HEALTH_CHECK_PORT,
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30_080}],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.5"}]}},
    }));
    server
}

/// Returns the Events as text, sorted by object.
fn event_texts(server: &ApiServer) -> Vec<String> {
    let words = |event: &Value| {
        let text =
            |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let about = ["kind", "name", "uid"].map(|field| text(&format!("/regarding/{field}"))).join(" ");
        let by = [text("/reportingController"), text("/reportingInstance")].join(" ");
        format!(
            "{about}: {} {} {} by {by}: {}",
            text("/type"),
            text("/reason"),
            text("/action"),
            text("/note")
        )
    };
    let mut texts: Vec<String> = server.objects("events").iter().map(words).collect();
    texts.sort();
    texts
}

/// Asserts the beginnings of the Events' texts.
fn assert_starts(texts: &[String], expected: &[&str]) {
    let all = texts.len() == expected.len()
        && texts.iter().zip(expected).all(|(texts, start)| texts.starts_with(start));
    assert!(all, "{texts:#?}");
}

/// The Events have the UIDs by which `kubectl describe` finds them.
#[test]
fn a_start_and_ports_in_use_are_reported() {
    namespace::inside(|| {
        let node = Node::new();
        let _taken = [(Ipv4Addr::LOCALHOST, METRICS.port()), (Ipv4Addr::UNSPECIFIED, HEALTH_CHECK_PORT)]
            .map(|address| TcpListener::bind(address).unwrap());
        let server = server();
        let mut daemon = node.start_following(&server.url(), &["--conntrack-max-per-core=0"]);
        daemon.wait_until("all Events are reported", || server.objects("events").len() >= 3);
        assert_starts(
            &event_texts(&server),
            &[
                "Node node-a 4b0e: Normal Starting StartKubeProxy by kube-proxy kube-proxy-node-a: Starting portcullis ",
                "Node node-a 4b0e: Warning FailedToStartMetricServer StartKubeProxy by kube-proxy kube-proxy-node-a: \
                 cannot listen on 127.0.0.1:10249",
                "Service web 9c21: Warning FailedToStartServiceHealthcheck Listen by kube-proxy kube-proxy-node-a: \
                 healthCheckNodePort 32000 of Service shop/web is not served",
            ],
        );
    });
}

#[test]
fn a_failed_start_is_reported() {
    namespace::inside(|| {
        let node = Node::new();
        let _taken = TcpListener::bind(METRICS).unwrap();
        let server = server();
        let arguments = ["--bind-address-hard-fail", "--conntrack-max-per-core=0"];
        let mut daemon = node.start_following(&server.url(), &arguments);
        assert_eq!(daemon.wait_for_exit().code(), Some(2));
        assert_starts(
            &event_texts(&server),
            &[
                "Node node-a 4b0e: Warning FailedToStartMetricServer StartKubeProxy by kube-proxy kube-proxy-node-a: ",
            ],
        );
    });
}

#[test]
fn rejected_events_do_not_delay_the_daemon() {
    namespace::inside(|| {
        let node = Node::new();
        let server = server();
        server.fail(crate::api_server::Fault::status(403).on("/events"));
        let mut daemon = node.start_following(&server.url(), &[]);
        daemon.wait_healthy();
        daemon.wait_until("it has tried", || !server.requests(&["/events"]).is_empty());
        assert!(daemon.is_running(), "{PATIENCE:?}: {}", daemon.log());
    });
}
