//! Benchmark of the local API: the times of `/v1/status`, `portcullis status` and `portcullis services -A`, and the memory of the daemon with and without
//! it, by the number of Services.
//!
//! `cargo bench --bench local_api` runs it as root; `-- --sizes 1000,10000` sets the numbers of Services.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::{Value, json};

#[path = "../netlink/tests/namespace/mod.rs"]
mod namespace;

/// Measures the local API. Needs root, for a network namespace of its own.
#[derive(Parser)]
struct Arguments {
    /// Numbers of Services, each with 10 endpoints
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000, 10_000])]
    sizes: Vec<usize>,

    /// Requests of each kind, of which the median counts
    #[arg(long, default_value_t = 50)]
    requests: usize,

    /// The argument that `cargo bench` passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_portcullis");

/// The time limit for the first sync.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() {
    let arguments = Arguments::parse();
    println!(
        "Services   /v1/status   portcullis status   portcullis services -A   resident memory: without, with, after {} requests",
        arguments.requests
    );
    for size in arguments.sizes {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        write_manifests(folder.path(), size);
        let mut without = Figures::default();
        namespace::inside(|| {
            let daemon = Daemon::start(folder.path(), "");
            without.resident_before = daemon.resident();
        });
        let mut with = Figures::default();
        namespace::inside(|| with = measure(folder.path(), arguments.requests));
        println!(
            "{size:>8}   {:>7.2} ms   {:>14.2} ms   {:>19.2} ms   {:.1} MB, {:.1} MB, {:.1} MB",
            milliseconds(with.request),
            milliseconds(with.command),
            milliseconds(with.services),
            megabytes(without.resident_before),
            megabytes(with.resident_before),
            megabytes(with.resident_after),
        );
    }
}

/// What was measured of one daemon.
#[derive(Clone, Copy, Default)]
struct Figures {
    request: Duration,
    command: Duration,
    services: Duration,
    /// In KiB.
    resident_before: u64,
    resident_after: u64,
}

fn measure(folder: &Path, requests: usize) -> Figures {
    let socket = folder.join("portcullis.sock");
    let daemon = Daemon::start(folder, socket.to_str().expect("a path in UTF-8"));
    let resident_before = daemon.resident();
    let request = median(requests, || request(&socket));
    let command = median(requests, || run(&["status"], &socket));
    let services = median(requests, || run(&["services", "-A"], &socket));
    Figures { request, command, services, resident_before, resident_after: daemon.resident() }
}

/// Runs a command. Its output goes to a pipe, as to another program.
fn run(arguments: &[&str], socket: &Path) {
    let mut command = Command::new(PROGRAM);
    let output = command.args(arguments).arg("--socket").arg(socket).output().expect("the program was built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Requests the status.
fn request(socket: &Path) {
    let mut stream = UnixStream::connect(socket).expect("the daemon listens");
    stream
        .write_all(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .expect("the daemon reads");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("the daemon responds");
    assert!(response.contains(r#""responded":true"#), "{response}");
}

/// Returns the median time of a number of runs.
fn median(runs: usize, mut run: impl FnMut()) -> Duration {
    let timed = (0..runs.max(1)).map(|_| {
        let start = Instant::now();
        run();
        start.elapsed()
    });
    let mut times: Vec<Duration> = timed.collect();
    times.sort();
    times[times.len() / 2]
}

struct Daemon(Child);

impl Daemon {
    /// Starts a daemon, and waits until its memory after the first sync is returned.
    fn start(folder: &Path, socket: &str) -> Self {
        namespace::run("ip link set lo up");
        let log = folder.join("log");
        let mut command = Command::new(PROGRAM);
        command.args(["--mode=nftables", "--hostname-override=node-1", "--socket", socket, "--manifests"]);
        command.arg(folder.join("manifests")).env_remove("RUST_LOG").stdin(Stdio::null());
        command.stderr(fs::File::create(&log).expect("the folder can be written"));
        let daemon = Daemon(command.spawn().expect("the program was built"));
        let until = Instant::now() + PATIENCE;
        let is_synced = || fs::read_to_string(&log).unwrap_or_default().contains("first sync is done");
        while !is_synced() {
            assert!(Instant::now() < until, "{}", fs::read_to_string(&log).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(Duration::from_secs(3));
        daemon
    }

    /// Returns the resident memory in KiB.
    fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux reports it");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn write_manifests(folder: &Path, services: usize) {
    let folder = folder.join("manifests");
    fs::create_dir(&folder).expect("the folder can be written");
    let numbers: Vec<usize> = (0..services).collect();
    for (part, numbers) in numbers.chunks(1000).enumerate() {
        let items: Vec<Value> = numbers.iter().flat_map(|number| objects(*number)).collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        fs::write(folder.join(format!("{part}.json")), list.to_string()).expect("the folder can be written");
    }
}

/// Returns a Service and its EndpointSlice with 10 endpoints.
fn objects(number: usize) -> [Value; 2] {
    let address = |first: usize, n: usize| format!("10.{}.{}.{}", first + n / 65_536, n / 256 % 256, n % 256);
    let (name, cluster_ip) = (format!("service-{number}"), address(96, number));
    let endpoints = (0..10).map(|endpoint| json!({"addresses": [address(128, number * 10 + endpoint)]}));
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": format!("ns-{}", number % 50)},
        "spec": {"clusterIP": cluster_ip, "clusterIPs": [cluster_ip], "ipFamilies": ["IPv4"], "ports": [{"port": 80}]},
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": format!("{name}-1"), "namespace": format!("ns-{}", number % 50),
            "labels": {"kubernetes.io/service-name": name},
        },
        "endpoints": endpoints.collect::<Vec<Value>>(), "ports": [{"port": 8080}],
    });
    [service, slice]
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn megabytes(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
