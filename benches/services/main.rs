//! Figures: what a first sync, a change and memory cost, beside the bare tool.
//!
//! `make bench` runs it, as root; `cargo bench --bench services -- --help` tells what can be chosen.
//!
//! The limit of iptables mode is the tool itself: `iptables-restore` takes most of the time, whoever writes
//! the text. So each figure stands beside the bare tool that restores the very same text in a namespace of its
//! own, in the same run, taking turns with the daemon: what else the machine does hits both. A first run of the
//! daemon, which is not measured, records the text.
//!
//! ```text
//! namespace A: API server (HTTP, this process) ─► the real daemon ─► iptables-restore ─► kernel
//! namespace B:                     recorded text ─────────────────► iptables-restore ─► kernel
//! ```

#[path = "../../tests/api_server/mod.rs"]
mod api_server;

mod bare;
mod cluster_state;
mod daemon;
mod figures;
mod flavour;
mod namespace;
mod process;
mod scenario;
mod table;

use std::path::PathBuf;

use clap::Parser;
use flavour::Flavour;

/// Measures syncs of the daemon beside the bare iptables-restore of the same text. Needs root: everything
/// happens in network namespaces of its own.
#[derive(Parser)]
struct Arguments {
    /// Numbers of Services, each with 10 endpoints
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 5_000, 10_000])]
    sizes: Vec<usize>,

    /// Flavours of the tool
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Flavour::Legacy, Flavour::Nft])]
    flavours: Vec<Flavour>,

    /// First syncs of each kind, of which the median counts
    #[arg(long, default_value_t = 3)]
    repeats: usize,

    /// Changes of each kind after each first sync, of which the median counts
    #[arg(long, default_value_t = 7)]
    changes: usize,

    /// Also write all figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// What `cargo bench` says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let arguments = Arguments::parse();
    let mut measured = Vec::new();
    for &services in &arguments.sizes {
        for &flavour in &arguments.flavours {
            eprintln!("{services} Services, {} tool…", flavour.name());
            let scenario = scenario::Scenario { services, flavour };
            measured.push(scenario.run(arguments.repeats.max(1), arguments.changes.max(1)));
        }
    }
    print!("{}", table::Table(&measured));
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&measured).expect("figures are plain data");
        std::fs::write(path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }
}
