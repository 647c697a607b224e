//! Cost of observed packets: processor time of the daemon and of `portcullis observe` at a rate of dropped packets, and losses.
//!
//! `cargo bench --bench observe`, as root. A pod sends UDP packets to another pod that a policy isolates, each from one of many ports,
//! so that no two packets within a tenth of a second are equal.

#[allow(dead_code, reason = "another benchmark uses the rest of it")]
#[path = "services/process.rs"]
mod process;

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use portcullis_lab::{ClusterObjects, DaemonSpec, Lab, LabOptions, Vantage};
use process::ProcessorTime;

/// Cost of observed packets. Requires root; runs in its own network namespaces.
#[derive(Parser)]
struct Arguments {
    /// Dropped packets a second
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 50_000])]
    rates: Vec<u32>,

    /// Duration at each rate, in seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,

    /// Ports from which packets are sent
    #[arg(long, default_value_t = 5_000)]
    ports: usize,

    #[arg(long, hide = true)]
    bench: bool,
}

const OBJECTS: &str = "
{apiVersion: v1, kind: Pod, metadata: {name: client, namespace: default}, spec: {nodeName: node-2, containers: [{name: c}]},
  status: {podIPs: [{ip: 10.244.2.21}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: server, namespace: default, labels: {app: server}},
  spec: {nodeName: node-1, containers: [{name: c}]}, status: {podIPs: [{ip: 10.244.1.21}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: lonely, namespace: default},
  spec: {podSelector: {matchLabels: {app: server}}, policyTypes: [Ingress]}}";

const SERVER: &str = "10.244.1.21:9";

fn main() {
    let arguments = Arguments::parse();
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("objects.yaml"), OBJECTS).expect("it can be written");
    let daemon = DaemonSpec {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_portcullis")),
        args: ["--mode=nftables", "--network-policy", "--conntrack-max-per-core=0"]
            .map(str::to_owned)
            .to_vec(),
        ..DaemonSpec::default()
    };
    let options = LabOptions { daemon: Some(daemon), ..LabOptions::default() };
    let objects = ClusterObjects::read(folder.path()).expect("the objects are valid");
    let mut lab = Lab::up(objects, options).expect("a lab needs root");
    lab.wait_synced(Duration::from_secs(60)).expect("the daemons sync");
    println!("rate     sent     events   lost     daemon   command  (share of one processor)");
    for rate in &arguments.rates {
        measure(&lab, *rate, &arguments);
    }
}

fn measure(lab: &Lab, rate: u32, arguments: &Arguments) {
    let socket = lab.folder().join("node-1.sock");
    let mut observer = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["observe", "--follow", "--socket"])
        .arg(&socket)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let output = BufReader::new(observer.stdout.take().expect("it is piped"));
    let counter = std::thread::spawn(move || {
        let (mut events, mut lost) = (0u64, 0u64);
        for line in output.lines().map_while(Result::ok) {
            match line.strip_prefix("-- ") {
                Some(text) => lost += text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0),
                None if line.contains("dropped") => events += packets(&line),
                None => {}
            }
        }
        (events, lost)
    });
    // The rules are written, and the counters read.
    std::thread::sleep(Duration::from_secs(4));
    let daemon = lab.daemon_pid("node-1").expect("it runs");
    let before = [daemon, observer.id()].map(ProcessorTime::of);
    let start = Instant::now();
    let client = lab.netns(&Vantage::pod("client")).expect("it exists");
    let sent = client.run(|| send(rate, arguments)).expect("it can be entered");
    std::thread::sleep(Duration::from_secs(1));
    let seconds = start.elapsed().as_secs_f64();
    let used = [daemon, observer.id()].map(ProcessorTime::of);
    let share = |at: usize| used[at].since(before[at]).own.as_secs_f64() / (seconds - 1.0);
    // Losses by the rate limit are found within seconds.
    std::thread::sleep(Duration::from_secs(4));
    let pid = libc::pid_t::try_from(observer.id()).expect("process ids are small");
    // SAFETY: the process is a child that was not waited for.
    unsafe { libc::kill(pid, libc::SIGINT) };
    observer.wait().expect("it ends");
    let (events, lost) = counter.join().expect("it counts");
    println!("{rate:<8} {sent:<8} {events:<8} {lost:<8} {:<8.3} {:.3}", share(0), share(1));
    // The rules are removed.
    std::thread::sleep(Duration::from_secs(3));
}

/// Returns the number of packets of a line.
fn packets(line: &str) -> u64 {
    let count = line.strip_suffix(" packets)").and_then(|line| line.rsplit('(').next());
    count.and_then(|count| count.parse().ok()).unwrap_or(1)
}

/// Sends packets at a rate. Returns their number.
fn send(rate: u32, arguments: &Arguments) -> u64 {
    let sockets: Vec<UdpSocket> = (0..arguments.ports)
        .map(|_| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a free port");
            socket.connect(SERVER).expect("a route");
            socket
        })
        .collect();
    let (start, mut sent) = (Instant::now(), 0u64);
    let total = u64::from(rate) * arguments.seconds;
    while sent < total {
        let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        while sent < due.min(total) {
            let _ = sockets[sent as usize % sockets.len()].send(b"x");
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    sent
}
