//! Fuzz targets: functions that pass arbitrary bytes to a parser and check the result.
//!
//! ```text
//! corpus, regressions ─► tests/corpora.rs ─┐
//!                                          ├─► Target::run ─► parser, and what uses its result
//! libFuzzer ──────────► libfuzzer/ ────────┘
//! ```
//!
//! A target panics if the parser panics, allocates more memory than its limit, or violates a property of the target. Time is
//! limited by the callers.

#![allow(clippy::unwrap_used, reason = "a target that cannot go on has found a fault")]

mod memory;
mod targets;

use memory::MemoryLimit;

/// A fuzz target.
#[derive(Debug)]
pub struct Target {
    /// The name of the target, of its folder in `corpus/`, and of its libFuzzer program.
    pub name: &'static str,
    function: fn(&[u8]),
    limit: MemoryLimit,
}

impl Target {
    /// Returns the target of this name.
    ///
    /// # Panics
    /// There is no such target.
    pub fn named(name: &str) -> &'static Target {
        let target = TARGETS.iter().find(|target| target.name == name);
        target.unwrap_or_else(|| panic!("no fuzz target is called {name}"))
    }

    /// Runs the target.
    ///
    /// # Panics
    /// The input has found a fault.
    pub fn run(&self, input: &[u8]) {
        self.limit.check(input.len(), || (self.function)(input));
    }
}

/// All targets.
pub const TARGETS: &[Target] = &[
    // Responses and notifications of the kernel.
    Target::new("nf_tables_dump", targets::nf_tables::dump, MemoryLimit::per_byte(400)),
    Target::new("nf_tables_events", targets::nf_tables::events, MemoryLimit::per_byte(50)),
    Target::new("nf_tables_tampered_table", targets::tampered_table::restore, MemoryLimit::per_byte(4_000)),
    Target::new("conntrack", targets::conntrack::dump, MemoryLimit::per_byte(50)),
    Target::new("conntrack_events", targets::conntrack::events, MemoryLimit::per_byte(50)),
    Target::new("packet_log", targets::packet_log::packets, MemoryLimit::per_byte(50)),
    Target::new("ip_vs", targets::ip_vs::dumps, MemoryLimit::per_byte(50)),
    Target::new("ipset", targets::ipset::lists, MemoryLimit::per_byte(50)),
    Target::new("route", targets::route::dumps, MemoryLimit::per_byte(50)),
    Target::new("route_events", targets::route::events, MemoryLimit::per_byte(50)),
    Target::new("netlink_responses", targets::responses::transactions, MemoryLimit::per_byte(100)),
    // Output of tools.
    Target::new("iptables_save", targets::iptables_save::restore, MemoryLimit::per_byte(500)),
    // Objects and manifests.
    Target::new("objects", targets::objects::cluster, MemoryLimit::per_byte(2_000)),
    Target::new("manifests", targets::manifests::documents, MemoryLimit::per_byte(500)),
    Target::new("watch_lines", targets::api_server::watch_lines, MemoryLimit::per_byte(500)),
    Target::new("list_pages", targets::api_server::list_pages, MemoryLimit::per_byte(500)),
    // Configuration.
    Target::new("kube_proxy_configuration", targets::config::kube_proxy_file, MemoryLimit::per_byte(2_000)),
    Target::new("toml_configuration", targets::config::toml_file, MemoryLimit::per_byte(2_000)),
    Target::new("flags", targets::config::flags, MemoryLimit::per_byte(2_000)),
    // Requests of container runtimes.
    Target::new("cni_requests", targets::cni_requests::parse, MemoryLimit::per_byte(2_000)),
    // Requests of clients.
    Target::new("http_requests", targets::http_requests::serve, MemoryLimit::per_byte(100)),
];

impl Target {
    const fn new(name: &'static str, function: fn(&[u8]), limit: MemoryLimit) -> Self {
        Target { name, function, limit }
    }
}
