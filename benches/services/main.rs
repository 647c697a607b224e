//! Figures: what a first sync, a change and memory cost, beside the bare way to write the same.
//!
//! `make bench` runs it, as root; `cargo bench --bench services -- --help` tells what can be chosen.
//!
//! Each figure stands beside one of a bare way to write the same, in the same run and in a namespace of its own,
//! taking turns with the daemon: what else the machine does hits both.

#[path = "../../tests/api_server/mod.rs"]
mod api_server;

mod changes;
mod cluster_state;
mod daemon;
mod figures;
mod iptables;
mod ipvs;
mod namespace;
mod nftables;
mod process;
mod table;

use std::path::PathBuf;

use clap::Parser;
use figures::Measured;
use iptables::Flavour;
use portcullis_lab::uml;

/// Measures syncs of the daemon beside the bare way to write the same. Needs root: everything happens in network
/// namespaces of its own, and that of IPVS in machines of user-mode Linux.
#[derive(Parser)]
struct Arguments {
    /// Modes of the daemon
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [
        ProxyMode::Iptables, ProxyMode::Ipvs, ProxyMode::Nftables
    ])]
    modes: Vec<ProxyMode>,

    /// Numbers of Services, each with 10 endpoints
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 5_000, 10_000])]
    sizes: Vec<usize>,

    /// Flavours of the tool, in iptables mode
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Flavour::Legacy, Flavour::Nft])]
    flavours: Vec<Flavour>,

    /// First syncs of each kind, of which the median counts
    #[arg(long, default_value_t = 3)]
    repeats: usize,

    /// Changes of each kind after each first sync, of which the median counts
    #[arg(long, default_value_t = 7)]
    changes: usize,

    /// Numbers of Services at which one endpoint's cost is measured in nftables mode, as SERVICES:ENDPOINTS
    #[arg(
        long, value_delimiter = ',',
        default_values_t = ["100:10", "1000:10", "10000:10", "30000:10", "44000:2"].map(str::to_owned)
    )]
    line: Vec<String>,

    /// Also write all figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// What `cargo bench` says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ProxyMode {
    Iptables,
    Ipvs,
    Nftables,
}

impl Arguments {
    fn print_line(&self) {
        println!("\nnftables mode, from the event in the index to the kernel's ACK, Services × endpoints:");
        for size in &self.line {
            let (services, endpoints) = size.split_once(':').unwrap_or((size, "10"));
            let number =
                |text: &str| text.parse().unwrap_or_else(|_| panic!("--line: {text:?} is no number"));
            println!("{}", nftables::measure_line(number(services), number(endpoints)));
        }
    }

    fn measure(&self) -> Vec<Measured> {
        let (repeats, changes) = (self.repeats.max(1), self.changes.max(1));
        let mut measured = Vec::new();
        for &services in &self.sizes {
            for &mode in &self.modes {
                match mode {
                    ProxyMode::Iptables => measured.extend(self.flavours.iter().map(|&flavour| {
                        eprintln!("{services} Services, {} tool…", flavour.name());
                        iptables::Scenario { services, flavour }.run(repeats, changes)
                    })),
                    ProxyMode::Nftables => {
                        eprintln!("{services} Services, nftables…");
                        measured.push(nftables::Scenario { services }.run(repeats, changes));
                    }
                    ProxyMode::Ipvs if uml::is_inside() => {
                        measured.push(ipvs::Scenario { services }.run(repeats, changes));
                    }
                    ProxyMode::Ipvs => {
                        eprintln!("{services} Services, IPVS in a machine of its own…");
                        measured.push(ipvs::measure(services, repeats, changes));
                    }
                }
            }
        }
        measured
    }
}

fn main() {
    let arguments = Arguments::parse();
    let measured = arguments.measure();
    print!("{}", table::Table(&measured));
    if arguments.modes.contains(&ProxyMode::Nftables) {
        arguments.print_line();
    }
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&measured).expect("figures are plain data");
        std::fs::write(path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }
}
