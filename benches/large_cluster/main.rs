//! Benchmark of a node of a very large cluster: the daemon in nftables mode, with and without NetworkPolicy.
//!
//! `make bench` runs it, as root; `cargo bench --bench large_cluster -- --help` lists the options.
//!
//! The API server is on the same machine, without TLS. Its processor time is printed apart; the latencies include it.

#[allow(dead_code, reason = "other benchmarks use the rest of it")]
#[path = "../services/namespace.rs"]
mod namespace;
#[allow(dead_code, reason = "other benchmarks use the rest of it")]
#[path = "../services/process.rs"]
mod process;

mod api_server;
mod changes;
mod cluster;
mod daemon;
mod kernel;
mod report;
mod shapes;
mod template;

use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use api_server::{ApiServer, Lists};
use changes::{POLICIES, Rollout, SERVICES};
use clap::Parser;
use cluster::{Cluster, Size};
use daemon::Daemon;
use kernel::Kernel;
use namespace::Namespace;
use process::ProcessorTime;
use report::Measured;

/// The time until freed memory is returned and the pods without interfaces are no longer searched for.
const SETTLE: Duration = Duration::from_secs(10);

/// The time until the last changes are written.
const GRACE: Duration = Duration::from_secs(2);

/// Benchmark of a node of a very large cluster. Requires root; runs in its own network namespaces.
#[derive(Parser)]
struct Arguments {
    /// Number of nodes
    #[arg(long, default_value_t = 5_000)]
    nodes: usize,

    /// Number of Services, each with 10 endpoints
    #[arg(long, default_value_t = 10_000)]
    services: usize,

    /// Number of pods
    #[arg(long, default_value_t = 150_000)]
    pods: usize,

    /// Number of NetworkPolicies
    #[arg(long, default_value_t = 1_000)]
    policies: usize,

    /// Number of namespaces
    #[arg(long, default_value_t = 500)]
    namespaces: usize,

    /// Changes of pods per second
    #[arg(long, default_value_t = 200)]
    rate: u32,

    /// Duration of the changes, in seconds
    #[arg(long, default_value_t = 30)]
    seconds: u64,

    /// Whether policies are enforced
    #[arg(long, value_delimiter = ',', default_values_t = [true, false], action = clap::ArgAction::Set)]
    network_policy: Vec<bool>,

    /// How the server serves lists; changes are measured with the first only
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [
        Lists::Streaming, Lists::StreamingGzip, Lists::Pages, Lists::PagesGzip
    ])]
    lists: Vec<Lists>,

    /// Another program than the one that was built
    #[arg(long, default_value = env!("CARGO_BIN_EXE_portcullis"))]
    program: PathBuf,

    /// More arguments of the daemon
    #[arg(last = true)]
    more: Vec<String>,

    /// Passed by `cargo bench` to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    fn size(&self) -> Size {
        Size {
            nodes: self.nodes,
            services: self.services,
            pods: self.pods,
            policies: self.policies,
            namespaces: self.namespaces,
        }
    }

    fn measure(&self, with_policies: bool, lists: Lists, with_changes: bool) -> Measured {
        let namespace = Namespace::new();
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let cluster = Cluster::new(self.size());
        let server = namespace.run(|| ApiServer::start(cluster, lists));
        let own_before = own_processor_time();
        let (daemon, start) =
            Daemon::start(&self.program, &namespace, &server, with_policies, &self.more, folder.path());
        let mut measured = Measured {
            with_policies,
            lists,
            start,
            start_processor: daemon.processor_time(),
            server_processor: own_processor_time() - own_before,
            listed: server.take_sent(),
            ..Measured::default()
        };
        sleep(SETTLE);
        measured.memory_after_start = Some(daemon.memory());
        if with_changes {
            self.measure_changes(&namespace, &server, &daemon, &mut measured);
        }
        if std::env::var_os("BENCH_LOG").is_some() {
            eprintln!("{}", daemon.log());
        }
        measured
    }

    fn measure_changes(
        &self,
        namespace: &Namespace,
        server: &ApiServer,
        daemon: &Daemon<'_>,
        measured: &mut Measured,
    ) {
        let kernel = Kernel::follow(namespace, &[POLICIES, SERVICES]);
        let mut rollout = Rollout::new(server, &kernel, measured.with_policies);
        // Until the first pods are deleted, there are more creations.
        rollout.run(self.rate, Duration::from_secs(3));
        sleep(GRACE);
        kernel.take();
        server.take_sent();
        let (used, own) = (daemon.processor_time(), own_processor_time());
        let duration = Duration::from_secs(self.seconds);
        eprintln!("changes begin: process {}", daemon.id());
        measured.changes = rollout.run(self.rate, duration);
        measured.change_processor = (daemon.processor_time() - used).as_secs_f64() / duration.as_secs_f64();
        measured.change_server = (own_processor_time() - own).as_secs_f64() / duration.as_secs_f64();
        sleep(GRACE);
        measured.seconds = duration.as_secs_f64();
        measured.changed = server.take_sent();
        (measured.latencies, measured.unseen, measured.lost) = kernel.take();
        sleep(SETTLE);
        measured.memory_at_end = Some(daemon.memory());
    }
}

/// Returns the processor time of this process: of the API server, and little else.
fn own_processor_time() -> Duration {
    ProcessorTime::of(std::process::id()).own
}

fn main() {
    let arguments = Arguments::parse();
    let Size { nodes, services, pods, policies, namespaces } = arguments.size();
    println!(
        "A node of a cluster with {nodes} nodes, {services} Services, {pods} pods, {policies} policies, {namespaces} namespaces; \
         API server on the same machine, without TLS"
    );
    for &with_policies in &arguments.network_policy {
        for (n, &lists) in arguments.lists.iter().enumerate() {
            print!("{}", arguments.measure(with_policies, lists, n == 0));
        }
    }
}
