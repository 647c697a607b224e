//! Figures of NetworkPolicy: what a first sync, a change, memory and a packet cost, beside the limit of each.
//!
//! `make bench` runs it, as root; `cargo bench --bench policies -- --help` tells what can be chosen.
//!
//! The limit of a sync is the same objects in one bare transaction, in the same run and in a namespace of its own,
//! taking turns; that of packets is a node that tracks connections, as Services need it, and has no policies.

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
mod in_process;
mod packets;
mod table;
mod through_daemon;

use std::time::Duration;

use clap::Parser;
use packets::Level;
use portcullis_lab::qemu;

/// Nothing takes longer in a machine of QEMU.
const LIMIT: Duration = Duration::from_secs(3600);

/// Measures NetworkPolicy. Needs root: everything happens in network namespaces of its own.
#[derive(Parser)]
struct Arguments {
    /// What to measure
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Part::Sync, Part::Growth, Part::Daemon, Part::Packets])]
    parts: Vec<Part>,

    /// Pods of the cluster
    #[arg(long, default_value_t = 10_000)]
    pods: usize,

    /// Pods of the clusters in which the start of one is compared
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 30_000])]
    growth: Vec<usize>,

    /// First syncs, repairs, and rounds of traffic, of which the median counts
    #[arg(long, default_value_t = 5)]
    repeats: usize,

    /// Changes of each kind, of which the median counts
    #[arg(long, default_value_t = 100)]
    changes: usize,

    /// Policies of the pod that is talked to
    #[arg(long, value_delimiter = ',', default_values_t = [0, 10, 100])]
    policies: Vec<usize>,

    /// Measure syncs in a machine of QEMU, on the oldest kernel that is claimed, some 15 times slower
    #[arg(long)]
    qemu: bool,

    /// What `cargo bench` says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// First sync and changes, in this process
    Sync,
    /// The start of a pod in clusters of several sizes
    Growth,
    /// The daemon in front of an API server
    Daemon,
    /// Packets between pods
    Packets,
}

/// Syncs, in a machine of its own.
fn in_qemu(pods: usize, repeats: usize, changes: usize) {
    let program = std::env::current_exe().expect("it runs");
    let numbers = [("--pods", pods), ("--repeats", repeats), ("--changes", changes)];
    let numbers = numbers.map(|(name, number)| format!("{name}={number}"));
    let arguments = ["--parts=sync"].into_iter().chain(numbers.iter().map(String::as_str));
    print!("{}", qemu::run(&program, arguments, LIMIT).unwrap_or_else(|complaint| panic!("{complaint}")));
}

fn main() {
    let Arguments { parts, pods, growth, repeats, changes, policies, qemu, .. } = Arguments::parse();
    let (repeats, changes) = (repeats.max(1), changes.max(1));
    if qemu {
        return in_qemu(pods, repeats, changes);
    }
    println!(
        "Times in milliseconds, medians; CPU is processor time. thought: until it is known what to write."
    );
    println!("bare: the same objects in one transaction, with no logic before it; ratios are to it.");
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
            Part::Daemon => {
                print!("{}", table::Daemon(&through_daemon::measure(pods, changes.min(50), repeats)));
            }
            Part::Packets => {
                let counts = policies.iter().map(|&count| Level::Policies(count));
                let levels: Vec<Level> = std::iter::once(Level::NoTable).chain(counts).collect();
                let rows = packets::measure(&levels, repeats);
                print!("{}", table::Packets { levels: &levels, rows: &rows });
            }
        }
    }
}
