//! Benchmark of NetworkPolicy: first sync, changes, memory and packet rates, each compared with a baseline.
//!
//! `make bench` runs it, as root; `cargo bench --bench policies -- --help` lists the options.
//!
//! The baseline of a sync is one bare transaction with the same objects, measured alternately in the same run in a separate
//! namespace. The baseline of packet rates is a node with conntrack, which Services need, and without policies.

#[path = "../../tests/api_server/mod.rs"]
mod api_server;
#[allow(dead_code, reason = "the services benchmark uses the rest of it")]
#[path = "../services/daemon.rs"]
mod daemon;
#[path = "../services/namespace.rs"]
mod namespace;
#[allow(dead_code, reason = "the services benchmark uses the rest of it")]
#[path = "../services/process.rs"]
mod process;

mod bare;
mod cluster_state;
mod figures;
mod follower;
mod in_process;
mod large;
mod packets;
mod table;
mod through_daemon;

use std::time::Duration;

use clap::Parser;
use packets::Variant;
use portcullis_machines::qemu;

/// Time limit for a run in QEMU.
const LIMIT: Duration = Duration::from_secs(3600);

/// Benchmark of NetworkPolicy. Requires root; runs in its own network namespaces.
#[derive(Parser)]
struct Arguments {
    /// Parts to measure
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Part::Sync, Part::Growth, Part::Large, Part::Daemon, Part::Packets])]
    parts: Vec<Part>,

    /// Number of pods in the cluster
    #[arg(long, default_value_t = 10_000)]
    pods: usize,

    /// Numbers of pods in the clusters of part `growth`
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 30_000])]
    growth: Vec<usize>,

    /// Number of first syncs, repairs and traffic rounds; results are medians
    #[arg(long, default_value_t = 5)]
    repeats: usize,

    /// Number of changes of each kind; results are medians
    #[arg(long, default_value_t = 100)]
    changes: usize,

    /// Numbers of policies that select the server pod
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1, 10, 100, 1_000])]
    policies: Vec<usize>,

    /// Numbers of policies that are measured as linear chains of iptables, too
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100, 1_000])]
    linear: Vec<usize>,

    /// Measure syncs in QEMU, on the oldest supported kernel; about 15 times slower
    #[arg(long)]
    qemu: bool,

    /// Passed by `cargo bench` to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// First sync and changes, in this process
    Sync,
    /// Start of a pod in clusters of several sizes
    Growth,
    /// Policies with thousands of rules or address blocks, in this process
    Large,
    /// Daemon with an API server
    Daemon,
    /// Packet rates between pods
    Packets,
}

/// Runs part `sync` in QEMU.
fn in_qemu(pods: usize, repeats: usize, changes: usize) {
    let program = std::env::current_exe().expect("it runs");
    let numbers = [("--pods", pods), ("--repeats", repeats), ("--changes", changes)];
    let numbers = numbers.map(|(name, number)| format!("{name}={number}"));
    let arguments = ["--parts=sync"].into_iter().chain(numbers.iter().map(String::as_str));
    print!("{}", qemu::run(&program, arguments, LIMIT).unwrap_or_else(|error| panic!("{error}")));
}

fn main() {
    let Arguments { parts, pods, growth, repeats, changes, policies, linear, qemu, .. } = Arguments::parse();
    let (repeats, changes) = (repeats.max(1), changes.max(1));
    if qemu {
        return in_qemu(pods, repeats, changes);
    }
    println!(
        "Times in milliseconds, medians; CPU is processor time. compile: computing the change, before writing it."
    );
    println!(
        "bare: baseline, one transaction with the same objects and nothing computed; ratios are relative to it."
    );
    for part in parts {
        println!();
        match part {
            Part::Sync => {
                let (first, changes) = in_process::measure(pods, repeats, changes);
                print!("{}", table::InProcess { pods, first: &first, changes: &changes });
            }
            Part::Growth => {
                let starts: Vec<_> =
                    growth.iter().map(|&pods| (pods, in_process::pod_start(pods, changes))).collect();
                print!("{}", table::Growth(&starts));
            }
            Part::Large => {
                print!("{}", table::Large { pods, changes: &large::measure(pods, changes.min(20)) });
            }
            Part::Daemon => {
                print!("{}", table::Daemon(&through_daemon::measure(pods, changes.min(50), repeats)));
                print!("{}", table::DaemonBlocks(&through_daemon::measure_blocks(pods, repeats)));
            }
            Part::Packets => {
                let ours = policies.iter().map(|&count| Variant::Policies(count));
                let linear = linear.iter().map(|&count| Variant::LinearChains(count));
                let variants: Vec<Variant> = ours.chain([Variant::OneLookup]).chain(linear).collect();
                print!("{}", table::Packets(&packets::measure(&variants, repeats)));
            }
        }
    }
}
