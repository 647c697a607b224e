//! Tests of `healthCheckNodePort`s.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use portcullis::config::ProxyMode;
use portcullis::moment::Moment;
use portcullis::observe::health::{Health, Limits};
use portcullis::observe::health_check_node_port::{DesiredPorts, ServiceHealthCheck, ServiceHealthServer};
use portcullis::observe::http::ConnectionLimits;
use portcullis::observe::metrics::Metrics;
use portcullis::source::EventRecorder;
use portcullis_cluster::desired::Desired;
use portcullis_cluster::{Event, Family, Index, Kind, Name, NamespacedName, Object, manifest};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::client::{get, until};
use crate::service_syncs;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOOPBACK_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

struct Ports {
    health: Arc<Health>,
    ports: ServiceHealthServer,
    stop: watch::Sender<bool>,
}

impl Ports {
    fn start() -> Self {
        Ports::with_limits(ConnectionLimits::for_descriptors(1_024))
    }

    fn with_limits(limits: ConnectionLimits) -> Self {
        let health_limits = Limits::new(Duration::from_secs(30), true);
        let health = Arc::new(Health::new(health_limits, Moment::now(), Arc::default()));
        let metrics = Metrics::new(ProxyMode::Nftables);
        let (stop, stopped) = watch::channel(false);
        Ports {
            ports: ServiceHealthServer::start(
                health.clone(),
                limits,
                &metrics,
                stopped,
                EventRecorder::disabled(),
            ),
            health,
            stop,
        }
    }

    fn set(&self, addresses: &[IpAddr], services: &[(&str, ServiceHealthCheck)]) {
        let services = services.iter().map(|(name, check)| (service(name), check.clone())).collect();
        self.ports.set(DesiredPorts { addresses: addresses.to_vec(), services });
    }

    /// Waits until exactly these Services have failures, whose reasons contain these words.
    async fn until_failures(&self, expected: &[(&str, &str)]) {
        for _ in 0..200 {
            let failures = self.ports.failures();
            let as_expected = |(name, words): &(&str, &str)| {
                failures.get(&service(name)).is_some_and(|reason| reason.contains(words))
            };
            if failures.len() == expected.len() && expected.iter().all(as_expected) {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
        panic!("{:?} instead of {expected:?}", self.ports.failures());
    }
}

fn service(name: &str) -> NamespacedName {
    NamespacedName::new("default", name)
}

fn check(port: u16, local_endpoints: &[(Family, usize)]) -> ServiceHealthCheck {
    let port = NonZeroU16::new(port).expect("not zero");
    ServiceHealthCheck {
        port,
        local_endpoints: local_endpoints.iter().copied().collect(),
        node_port_of: None,
    }
}

/// Returns a port that is currently free.
async fn free_port() -> u16 {
    let v4 = TcpListener::bind((LOOPBACK, 0)).await.expect("a free port");
    v4.local_addr().expect("it is bound").port()
}

/// Returns the status code of a response, and the endpoint count and health in its body.
async fn read_check(address: (IpAddr, u16)) -> Option<(u16, u64, bool)> {
    let response = get(address.into(), "/").await.ok()?;
    let body: Value = serde_json::from_str(&response.body).expect("JSON");
    let (count, healthy) = (body["localEndpoints"].as_u64()?, body["serviceProxyHealthy"].as_bool()?);
    Some((response.status, count, healthy))
}

async fn until_check(address: (IpAddr, u16), expected: (u16, u64, bool)) {
    for _ in 0..200 {
        if read_check(address).await == Some(expected) {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("{address:?}: {:?} instead of {expected:?}", read_check(address).await);
}

/// Returns the recordings of iptables mode: the responses, and the cluster state to which they belong.
fn recordings() -> Vec<(PathBuf, PathBuf)> {
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let read = fs::read_dir(folder).into_iter().flatten();
        read.map(|entry| entry.expect("it can be read").path()).collect()
    };
    let mut found = Vec::new();
    for case in entries(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/services"))) {
        for step in entries(&case.join("iptables")) {
            let number = step.file_name().and_then(|name| name.to_str()).expect("a number");
            let (responses, state) = (step.join("health.json"), case.join(format!("state-{number}.yaml")));
            if responses.exists() {
                found.push((responses, state));
            }
        }
    }
    found
}

fn desired(state: &Path) -> Desired {
    let text = fs::read_to_string(state).expect("a state");
    let mut index = Index::new();
    for document in manifest::parse("state", &text) {
        let document = document.expect("it can be read");
        if let Some(kind) = document.kind {
            index.handle(Event::Applied(Object::parse(kind, document.value).expect("it can be read").object));
        }
    }
    // The node of the recording.
    Desired::from_index(&index, Name::new("node-a"))
}

#[tokio::test]
async fn responses_equal_the_recorded_ones_of_kube_proxy() {
    let recordings = recordings();
    assert!(recordings.len() >= 14, "{}", recordings.len());
    for (responses, state) in recordings {
        let recorded: Vec<Value> =
            serde_json::from_str(&fs::read_to_string(&responses).expect("a file")).expect("it is JSON");
        let mut desired_ports = DesiredPorts::new(&desired(&state), vec![LOOPBACK, LOOPBACK_V6]);
        assert_eq!(desired_ports.services.len(), recorded.len(), "{}", responses.display());
        for expected in recorded {
            let (namespace, name) =
                expected["service"].as_str().and_then(|s| s.split_once('/')).expect("a name");
            let check = desired_ports
                .services
                .get_mut(&NamespacedName::new(namespace, name))
                .expect("the Service has a health check");
            assert_eq!(u64::from(check.port.get()), expected["port"].as_u64().expect("a port"));
            // The recorded port may be in use where the test runs.
            check.port = NonZeroU16::new(free_port().await).expect("not zero");
            let v6_recorded = expected["listens"].to_string().contains("::");
            assert_eq!(
                check.local_endpoints.contains_key(&Family::V6),
                v6_recorded,
                "{}",
                responses.display()
            );
            let port = check.port.get();

            let ports = Ports::start();
            ports.ports.set(desired_ports.clone());
            let address = SocketAddr::new(LOOPBACK, port);
            until(address, "/", Result::is_ok).await;
            let response = get(address, "/").await.expect("a response");
            let expected = &expected["answer"];
            let headers: BTreeMap<String, String> =
                serde_json::from_value(expected["headers"].clone()).expect("headers");
            assert_eq!(u64::from(response.status), expected["status"].as_u64().expect("a status"));
            assert_eq!(response.headers, headers, "{}", responses.display());
            assert_eq!(response.body, expected["body"].as_str().expect("a body"));
            assert_eq!(read_check((LOOPBACK_V6, port)).await, None, "the Service is not served in IPv6");
        }
    }
}

#[tokio::test]
async fn the_response_follows_counts_health_and_the_stop_signal() {
    let (ports, port) = (Ports::start(), free_port().await);
    let address = (LOOPBACK, port);
    ports.set(&[LOOPBACK], &[("a", check(port, &[(Family::V4, 2)]))]);
    until_check(address, (200, 2, true)).await;
    ports.set(&[LOOPBACK], &[("a", check(port, &[(Family::V4, 0)]))]);
    until_check(address, (503, 0, true)).await;
    ports.set(&[LOOPBACK], &[("a", check(port, &[(Family::V4, 1)]))]);
    until_check(address, (200, 1, true)).await;
    service_syncs::failed(&ports.health, "no");
    until_check(address, (503, 1, false)).await;
    service_syncs::succeeded(&ports.health);
    ports.health.set_node_eligible(false);
    until_check(address, (200, 1, true)).await;

    let moved = free_port().await;
    ports.set(&[LOOPBACK], &[("a", check(moved, &[(Family::V4, 1)]))]);
    until_check((LOOPBACK, moved), (200, 1, true)).await;
    assert_eq!(read_check(address).await, None, "the old port is closed");
    ports.stop.send(true).expect("it waits for it");
    until((LOOPBACK, moved).into(), "/", Result::is_err).await;
}

/// Rules translate connections to a node port before a listener receives them, so the port must not count as served.
#[tokio::test]
async fn a_port_that_is_also_a_node_port_is_not_served() {
    let port = free_port().await;
    let service =
        |name: &str, spec: Value| json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
    let checked = service(
        "checked",
        json!({"type": "LoadBalancer", "clusterIP": "10.96.0.1",
        "externalTrafficPolicy": "Local", "healthCheckNodePort": port, "ports": [{"port": 80}]}),
    );
    let owner = |protocol: &str, ip: &str| {
        service(
            "owner",
            json!({"type": "NodePort", "clusterIP": ip,
        "ports": [{"port": 80, "protocol": protocol, "nodePort": port}]}),
        )
    };
    let desired_ports = |owner: Value| {
        let mut index = Index::new();
        for object in [checked.clone(), owner] {
            let object = Object::parse(Kind::Service, object).expect("a Service").object;
            index.handle(Event::Applied(object));
        }
        DesiredPorts::new(&Desired::from_index(&index, Name::new("node-a")), vec![LOOPBACK])
    };
    let ports = Ports::start();
    ports.ports.set(desired_ports(owner("TCP", "10.96.0.2")));
    ports.until_failures(&[("checked", "node port of Service default/owner")]).await;
    assert_eq!(read_check((LOOPBACK, port)).await, None);
    for other in [owner("UDP", "10.96.0.2"), owner("TCP", "fd00::2")] {
        ports.ports.set(desired_ports(other));
        until_check((LOOPBACK, port), (503, 0, true)).await;
        ports.ports.set(desired_ports(owner("TCP", "10.96.0.2")));
        ports.until_failures(&[("checked", "node port of Service default/owner")]).await;
        assert_eq!(read_check((LOOPBACK, port)).await, None, "the port is closed again");
    }
}

#[tokio::test]
async fn both_families_of_a_service_have_their_own_sockets_and_counts() {
    let (ports, port) = (Ports::start(), free_port().await);
    let all = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    ports.set(&all, &[("a", check(port, &[(Family::V4, 1), (Family::V6, 3)]))]);
    until_check((LOOPBACK, port), (200, 1, true)).await;
    until_check((LOOPBACK_V6, port), (200, 3, true)).await;
    ports.set(&all, &[("a", check(port, &[(Family::V6, 3)]))]);
    until((LOOPBACK, port).into(), "/", Result::is_err).await;
    until_check((LOOPBACK_V6, port), (200, 3, true)).await;
    ports.set(&[LOOPBACK], &[("a", check(port, &[(Family::V6, 3)]))]);
    ports.until_failures(&[("a", "no address")]).await;
}

#[tokio::test]
async fn of_two_services_with_one_port_the_first_keeps_it_until_it_is_removed() {
    let (ports, port) = (Ports::start(), free_port().await);
    let (one, two) = (check(port, &[(Family::V4, 1)]), check(port, &[(Family::V4, 2)]));
    ports.set(&[LOOPBACK], &[("b", two.clone())]);
    until_check((LOOPBACK, port), (200, 2, true)).await;
    ports.set(&[LOOPBACK], &[("a", one.clone()), ("b", two)]);
    ports.until_failures(&[("a", "default/b")]).await;
    assert_eq!(read_check((LOOPBACK, port)).await, Some((200, 2, true)));
    ports.set(&[LOOPBACK], &[("a", one)]);
    until_check((LOOPBACK, port), (200, 1, true)).await;
    ports.until_failures(&[]).await;
}

#[tokio::test]
async fn a_port_in_use_is_opened_once_it_is_free() {
    let ports = Ports::start();
    let other_program = TcpListener::bind((LOOPBACK, 0)).await.expect("a free port");
    let port = other_program.local_addr().expect("it is bound").port();
    ports.set(&[LOOPBACK], &[("a", check(port, &[(Family::V4, 1)]))]);
    ports.until_failures(&[("a", "another program listens")]).await;
    drop(other_program);
    until_check((LOOPBACK, port), (200, 1, true)).await;
    ports.until_failures(&[]).await;
}

#[tokio::test]
async fn ports_beyond_the_limit_of_listeners_are_reported_and_opened_once_there_is_room() {
    let ports =
        Ports::with_limits(ConnectionLimits { listeners: 2, ..ConnectionLimits::for_descriptors(64) });
    let numbers = [free_port().await, free_port().await, free_port().await];
    let one = [(Family::V4, 1)];
    let all =
        [("a", check(numbers[0], &one)), ("b", check(numbers[1], &one)), ("c", check(numbers[2], &one))];
    ports.set(&[LOOPBACK], &all);
    ports.until_failures(&[("c", "RLIMIT_NOFILE) allows 2; raise it")]).await;
    for number in &numbers[..2] {
        until_check((LOOPBACK, *number), (200, 1, true)).await;
    }
    ports.set(&[LOOPBACK], &all[1..]);
    until_check((LOOPBACK, numbers[2]), (200, 1, true)).await;
    ports.until_failures(&[]).await;
}
