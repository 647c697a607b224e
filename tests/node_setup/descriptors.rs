//! Tests of the daemon with few file descriptors and many HTTP clients.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::api_server::ApiServer;
use crate::cluster::{server, slice};
use crate::daemon::{Daemon, HEALTH, METRICS, Node, program};
use crate::http::get;
use crate::namespace;

/// A health check node port on the address of the node.
const CHECK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 168, 10, 11)), 31_000);

/// Connections that a flood holds to each server.
const CONNECTIONS: usize = 300;

/// Starts a daemon with these soft and hard limits of descriptors.
fn start(node: &Node, server: &ApiServer, mode: &str, limits: &str) -> Daemon {
    let mut daemon = program();
    daemon.args(["--mode", mode, "--master", &server.url(), "--iptables-min-sync-period=0s"]);
    // In nftables mode, the default is the addresses of the Node object.
    daemon.arg("--nodeport-addresses=192.168.10.0/24");
    let mut command = Command::new("prlimit");
    command.arg(format!("--nofile={limits}")).arg(daemon.get_program()).args(daemon.get_args());
    node.spawn(command)
}

fn rules(mode: &str) -> String {
    match mode {
        "iptables" => crate::cluster::rules(),
        _ => namespace::run("nft list ruleset"),
    }
}

/// Holds connections with the half of a request, and opens those again that the daemon closes.
struct Flood {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Flood {
    fn start(servers: &'static [SocketAddr]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut held = std::collections::VecDeque::new();
            while !stopped.load(Ordering::Relaxed) {
                for server in servers {
                    let stream = TcpStream::connect_timeout(server, Duration::from_secs(1));
                    held.extend(
                        stream.ok().filter(|mut stream| stream.write_all(b"GET /healthz HT").is_ok()),
                    );
                }
                if held.len() > CONNECTIONS * servers.len() {
                    held.pop_front();
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        });
        Flood { stop, thread }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// Returns the value of a series; `None` while the metrics server does not answer.
fn metric(series: &str) -> Option<f64> {
    get(METRICS, "/metrics")?.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

fn rejected(server: &str) -> f64 {
    let series =
        format!("portcullis_http_connections_rejected_total{{reason=\"limit\",server=\"{server}\"}}");
    metric(&series).unwrap_or_default()
}

fn open_descriptors(daemon: &Daemon) -> usize {
    fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count()
}

fn is_healthy() -> bool {
    get(HEALTH, "/healthz").is_some_and(|answer| answer.contains(" 200 "))
}

#[test]
fn clients_that_hold_connections_stop_neither_health_nor_metrics_nor_syncs() {
    for mode in ["iptables", "nftables"] {
        namespace::inside(move || {
            let node = Node::new();
            for line in [
                "link add eth0 type veth peer name peer0",
                "addr add 192.168.10.11/24 dev eth0",
                "link set eth0 up",
            ] {
                namespace::run(&format!("ip {line}"));
            }
            let server = server("10.244.0.9");
            server.apply(json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "lb", "namespace": "shop"},
                "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.11", "clusterIPs": ["10.96.0.11"],
                    "externalTrafficPolicy": "Local", "healthCheckNodePort": CHECK.port(), "ports": [{"port": 80}]},
            }));
            let mut daemon = start(&node, &server, mode, "256:256");
            daemon.wait_healthy();
            daemon.wait_until("the health check node port is open", || get(CHECK, "/").is_some());

            let flood = Flood::start(&[HEALTH, METRICS, CHECK]);
            let all = ["healthz", "metrics", "health_check_node_port"];
            daemon.wait_until("all servers have their maximum", || {
                all.iter().all(|server| rejected(server) > 50.0)
            });
            for number in 10..20 {
                let endpoint = format!("10.244.0.{number}");
                server.apply(slice(&endpoint));
                daemon.wait_until("the change is programmed", || {
                    rules(mode).contains(&format!("{endpoint}:8080"))
                        || rules(mode).contains(&format!("{endpoint} . 8080"))
                });
                assert!(open_descriptors(&daemon) < 200, "{} are open", open_descriptors(&daemon));
            }
            daemon.wait_until("health answers during the flood", is_healthy);
            daemon.wait_until("the health check node port answers during the flood", || {
                get(CHECK, "/").is_some_and(|answer| answer.contains("localEndpoints"))
            });
            daemon.wait_until("metrics answer during the flood", || metric("process_max_fds") == Some(256.0));
            assert_eq!(metric("portcullis_sync_failures_total{ip_family=\"IPv4\"}").unwrap_or_default(), 0.0);
            flood.stop();
            let log = daemon.log();
            let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
            for name in ["health checks", "metrics", "health check node ports"] {
                let reports = lines(&format!("to the {name} server"));
                assert!((1..20).contains(&reports), "{name}: {reports} lines\n{log}");
            }
            assert_eq!(lines("Too many open files"), 0, "{log}");
        });
    }
}

/// Returns the processor time of the daemon so far, in seconds.
fn processor_time(daemon: &Daemon) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    // Fields 14 and 15 of proc(5), in hundredths of a second.
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

/// With fewer descriptors than the daemon needs by itself, connections and syncs fail, and are retried without haste.
#[test]
fn exhausted_descriptors_are_survived() {
    namespace::inside(|| {
        let node = Node::new();
        let server = server("10.244.0.9");
        let mut daemon = start(&node, &server, "iptables", "1024:1024");
        daemon.wait_until("the Service is served", || rules("iptables").contains("10.244.0.9:8080"));
        daemon.wait_healthy();
        let limit = |descriptors: usize| {
            namespace::run(&format!("prlimit --pid {} --nofile={descriptors}:1024", daemon.pid()));
        };
        limit(open_descriptors(&daemon) + 2);
        let flood = Flood::start(&[HEALTH, METRICS]);
        let (start, before) = (Instant::now(), processor_time(&daemon));
        server.apply(slice("10.244.0.10"));
        std::thread::sleep(Duration::from_secs(5));
        let used = processor_time(&daemon) - before;
        assert!(used < start.elapsed().as_secs_f64() / 2.0, "it used the processor for {used} s");
        let has_endpoint =
            rules("iptables").contains("10.244.0.9:8080") || rules("iptables").contains("10.244.0.10:8080");
        assert!(has_endpoint, "rules were removed\n{}", daemon.log());

        limit(1_024);
        flood.stop();
        daemon.wait_until("the change is programmed", || rules("iptables").contains("10.244.0.10:8080"));
        daemon.wait_healthy();
        let log = daemon.log();
        let failures = log.lines().filter(|line| line.contains("cannot accept a connection")).count();
        assert!((1..20).contains(&failures), "{failures} lines\n{log}");
        assert!(log.contains("Too many open files"), "{log}");
    });
}

#[test]
fn soft_limit_of_descriptors_is_raised_to_the_hard_limit() {
    namespace::inside(|| {
        let node = Node::new();
        let server = server("10.244.0.9");
        let mut daemon = start(&node, &server, "nftables", "64:4096");
        daemon.wait_healthy();
        daemon.wait_until("the limit is raised", || metric("process_max_fds") == Some(4_096.0));
    });
}
