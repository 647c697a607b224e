//! Benchmark of first syncs, changes and memory, beside a reference that writes the same objects.
//!
//! `make bench` runs it as root; `cargo bench --bench services -- --help` lists the options.
//!
//! Each figure is shown beside that of a reference in the same run and in a namespace of its own, alternating with the
//! daemon: other load on the machine affects both.

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
mod packets;
#[allow(dead_code, reason = "other benchmarks use the rest of it")]
mod process;
mod table;

use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;
use figures::Measured;
use iptables::Flavour;
use packets::Way;
use portcullis_machines::uml;

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
        default_values = ["100:10", "1000:10", "10000:10", "30000:10", "44000:2"]
    )]
    line: Vec<Size>,

    /// The same with session affinity
    #[arg(long, value_delimiter = ',', default_values = ["100:10", "1000:10", "10000:10"])]
    affinity: Vec<Size>,

    /// Numbers of Services at which connections are measured
    #[arg(long, value_delimiter = ',', default_values_t = [10, 1_000, 10_000])]
    packets: Vec<usize>,

    /// Numbers of endpoints that Services have, from 1 to this, for the cost of a first packet in nftables mode
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 64, 500])]
    endpoint_counts: Vec<usize>,

    /// What to measure
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [
        Part::Syncs, Part::ManyAddresses, Part::Line, Part::Packets, Part::FirstPackets
    ])]
    parts: Vec<Part>,

    /// Also write all figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// The argument that `cargo bench` passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ProxyMode {
    Iptables,
    Ipvs,
    Nftables,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// First syncs and changes, by the daemon in front of an API server
    Syncs,
    /// First sync and cleanup of Services with many addresses, in iptables mode
    ManyAddresses,
    /// One endpoint's cost in nftables mode, in this process, as the number of Services grows
    Line,
    /// Connections through a Service
    Packets,
    /// The first packet to a Service in nftables mode, as the numbers of endpoints become more
    FirstPackets,
}

/// A number of Services, and the number of endpoints of each.
#[derive(Clone, Copy)]
struct Size {
    services: usize,
    endpoints: usize,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once(':').and_then(|(services, endpoints)| {
            Some(Size { services: services.parse().ok()?, endpoints: endpoints.parse().ok()? })
        });
        numbers.ok_or_else(|| "expected SERVICES:ENDPOINTS, such as 1000:10".to_owned())
    }
}

impl Arguments {
    fn print_line(&self) {
        println!("\nnftables mode, from the event in the index to the kernel's ACK, Services × endpoints:");
        for size in &self.line {
            println!("{}", nftables::measure_line(size.services, size.endpoints, false));
        }
        println!("\nThe same, all Services with session affinity:");
        for size in &self.affinity {
            println!("{}", nftables::measure_line(size.services, size.endpoints, true));
        }
    }

    fn print_many_addresses(&self) {
        println!("\niptables mode, Services with many addresses (ratio to the bare tool):");
        for &flavour in &self.flavours {
            print!("{}", iptables::measure_many_addresses(flavour));
        }
    }

    fn print_first_packets(&self) {
        println!("\nnftables mode, to send the first datagram of a flow, Services of 1 to N endpoints:");
        for counts in &self.endpoint_counts {
            println!("{}", nftables::measure_first_packets((*counts).max(1)));
        }
    }

    fn print_packets(&self) {
        println!(
            "\nBetween two pods of a node: TCP connections, one after another; from SYN to its answer; to send a packet of an established UDP flow:"
        );
        println!("{}", packets::measure(Way::Direct, 0, self.repeats));
        for &services in &self.packets {
            for &mode in &self.modes {
                match mode {
                    ProxyMode::Iptables => self.flavours.iter().for_each(|&flavour| {
                        println!("{}", packets::measure(Way::Iptables(flavour), services, self.repeats));
                    }),
                    ProxyMode::Nftables => {
                        for way in [Way::Nftables, Way::NftablesCounting] {
                            println!("{}", packets::measure(way, services, self.repeats));
                        }
                    }
                    // IPVS runs in a virtual machine, whose packets are not comparable with these.
                    ProxyMode::Ipvs => {}
                }
            }
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
    let is_selected = |part| arguments.parts.contains(&part);
    let measured = if is_selected(Part::Syncs) { arguments.measure() } else { Vec::new() };
    if is_selected(Part::Syncs) {
        print!("{}", table::Table(&measured));
    }
    if is_selected(Part::ManyAddresses) && arguments.modes.contains(&ProxyMode::Iptables) && !uml::is_inside()
    {
        arguments.print_many_addresses();
    }
    if is_selected(Part::Line) && arguments.modes.contains(&ProxyMode::Nftables) {
        arguments.print_line();
    }
    if is_selected(Part::FirstPackets) && arguments.modes.contains(&ProxyMode::Nftables) {
        arguments.print_first_packets();
    }
    if is_selected(Part::Packets) && !uml::is_inside() {
        arguments.print_packets();
    }
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&measured).expect("figures are plain data");
        std::fs::write(path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }
}
