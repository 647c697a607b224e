//! Flows described by text, and tables that hold them.
//!
//! ```text
//! - udp 10.96.5.4:7777 <- 10.244.2.10:7777     deleted: an endpoint replied
//! + udp 10.96.5.4:7777 <- itself               kept: it was never translated
//! - syn 10.96.5.4:7777 <- itself               deleted: a TCP connection attempt without a reply
//! ```

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis_cluster as cluster_crate;
use portcullis_modes::SyncResult;
use portcullis_modes::stale_flows::{FlowTable, KernelFlows, StaleFlows};
use portcullis_netlink::conntrack::{Conntrack, DeleteCounts, Flow, Tuple, status};
use portcullis_netlink::{Error, Family};

use crate::cluster::Reading;

/// Returns the flows of a text, and whether each is expected to be kept.
pub(crate) fn flows(text: &str, reading: Reading) -> Vec<(Flow, bool)> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.zip(1..).map(|(line, n)| flow(line, n, reading)).collect()
}

fn flow(text: &str, n: u16, reading: Reading) -> (Flow, bool) {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [fate, protocol, destination, "<-", replying] = words[..] else { panic!("{text}: five words") };
    let client = SocketAddr::new(reading.ip(&format!("10.9.0.{n}")), 40_000 + n);
    let destination = reading.socket(destination);
    let replying = if replying == "itself" { destination } else { reading.socket(replying) };
    let number = reading.protocol(if protocol == "syn" { "tcp" } else { protocol }).1;
    let mut flow = translated(number, client, destination, replying);
    if protocol == "tcp" {
        flow.status = status::SEEN_REPLY;
    }
    (
        flow,
        fate == "+" || {
            assert_eq!(fate, "-");
            false
        },
    )
}

/// Returns a flow to `destination` that is translated to `replying`.
pub(crate) fn translated(
    protocol: u8,
    client: SocketAddr,
    destination: SocketAddr,
    replying: SocketAddr,
) -> Flow {
    let tuple = |from: SocketAddr, to: SocketAddr| Tuple {
        source: from.ip(),
        destination: to.ip(),
        source_port: from.port(),
        destination_port: to.port(),
    };
    Flow {
        family: Family::from_address(destination.ip()),
        protocol,
        original: tuple(client, destination),
        reply: tuple(replying, client),
        id: None,
        status: 0,
        zone: 0,
        mark: 0,
        is_picked_up: false,
    }
}

/// Returns the text of a flow, for comparisons and messages.
pub(crate) fn words(flow: &Flow) -> String {
    let Tuple { source, source_port, destination, destination_port } = flow.original;
    let (from, to) = (SocketAddr::new(source, source_port), SocketAddr::new(destination, destination_port));
    let replying = SocketAddr::new(flow.reply.source, flow.reply.source_port);
    format!("{} {from} > {to} <- {replying}", flow.protocol)
}

/// A conntrack table of a test.
pub(crate) trait TestFlowTable {
    fn stale_flows(&self) -> StaleFlows;
    fn put(&self, flows: &[Flow]);
    fn take_all(&self) -> BTreeSet<String>;
}

/// A table in memory that can be read, and can fail on request.
#[derive(Clone, Default)]
pub(crate) struct MemoryTable(pub Arc<Mutex<Held>>);

#[derive(Default)]
pub(crate) struct Held {
    pub(crate) flows: Vec<Flow>,
    /// The families and protocols of each listing.
    pub(crate) requests: Vec<(Vec<Family>, Vec<u8>)>,
    pub(crate) failing: bool,
}

impl FlowTable for MemoryTable {
    fn delete_where(
        &mut self,
        families: &[Family],
        protocols: &[u8],
        stale: &mut dyn FnMut(&Flow) -> bool,
    ) -> Result<DeleteCounts, Error> {
        let mut held = self.0.lock().unwrap();
        held.requests.push((families.to_vec(), protocols.to_vec()));
        if held.failing {
            return Err(Error::NoResponse { action: "list tracked connections" });
        }
        let mut done = DeleteCounts::default();
        held.flows.retain(|flow| {
            let listed = families.contains(&flow.family) && protocols.contains(&flow.protocol);
            let goes = listed && stale(flow);
            done.examined += usize::from(listed);
            done.deleted += usize::from(goes);
            !goes
        });
        Ok(done)
    }
}

impl TestFlowTable for MemoryTable {
    fn stale_flows(&self) -> StaleFlows {
        StaleFlows::new(self.clone())
    }

    fn put(&self, flows: &[Flow]) {
        self.0.lock().unwrap().flows.extend(flows);
    }

    fn take_all(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.0.lock().unwrap().flows).iter().map(words).collect()
    }
}

/// The kernel's table of this network namespace.
pub(crate) struct KernelTable;

impl TestFlowTable for KernelTable {
    fn stale_flows(&self) -> StaleFlows {
        StaleFlows::new(KernelFlows::default())
    }

    fn put(&self, flows: &[Flow]) {
        Conntrack::open().unwrap().create(flows, Duration::from_secs(3000)).unwrap();
    }

    fn take_all(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut conntrack = Conntrack::open().unwrap();
        conntrack
            .dump(&Family::ALL, &[], |flow| {
                found.insert(words(flow));
                Ok(())
            })
            .unwrap();
        conntrack.delete_where(&Family::ALL, &[], |_| true).unwrap();
        found
    }
}

/// Returns the results of a successful sync.
pub(crate) fn written() -> Vec<SyncResult> {
    cluster_crate::Family::BOTH.map(successful_result).into()
}

/// Returns the result for one family.
pub(crate) fn successful_result(family: cluster_crate::Family) -> SyncResult {
    SyncResult {
        tables: Vec::new(),
        family,
        is_full: false,
        duration: Duration::from_millis(1),
        written: 1,
        restored: 0,
        deferred: Vec::new(),
        isolated: Vec::new(),
        error: None,
    }
}
