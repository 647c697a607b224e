//! Flows of a few words, and tables to keep them in.
//!
//! ```text
//! - udp 10.96.5.4:7777 <- 10.244.2.10:7777     goes: it was answered by an endpoint
//! + udp 10.96.5.4:7777 <- itself               stays: it was never translated
//! - syn 10.96.5.4:7777 <- itself               goes: a TCP connection that nothing has answered
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

/// The flows of a text, and whether each is expected to stay.
pub(crate) fn flows(text: &str, reading: Reading) -> Vec<(Flow, bool)> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.zip(1..).map(|(line, n)| flow(line, n, reading)).collect()
}

fn flow(text: &str, n: u16, reading: Reading) -> (Flow, bool) {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [fate, protocol, destination, "<-", answering] = words[..] else { panic!("{text}: five words") };
    let client = SocketAddr::new(reading.ip(&format!("10.9.0.{n}")), 40_000 + n);
    let destination = reading.socket(destination);
    let answering = if answering == "itself" { destination } else { reading.socket(answering) };
    let number = reading.protocol(if protocol == "syn" { "tcp" } else { protocol }).1;
    let mut flow = translated(number, client, destination, answering);
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

/// A flow to `destination` that is led to `answering`.
pub(crate) fn translated(
    protocol: u8,
    client: SocketAddr,
    destination: SocketAddr,
    answering: SocketAddr,
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
        reply: tuple(answering, client),
        id: None,
        status: 0,
        zone: 0,
        mark: 0,
        is_picked_up: false,
    }
}

/// A flow in words, for comparing and for reading what differs.
pub(crate) fn words(flow: &Flow) -> String {
    let Tuple { source, source_port, destination, destination_port } = flow.original;
    let (from, to) = (SocketAddr::new(source, source_port), SocketAddr::new(destination, destination_port));
    let answering = SocketAddr::new(flow.reply.source, flow.reply.source_port);
    format!("{} {from} > {to} <- {answering}", flow.protocol)
}

/// Somewhere to put flows.
pub(crate) trait Place {
    fn stale_flows(&self) -> StaleFlows;
    fn put(&self, flows: &[Flow]);
    fn take_all(&self) -> BTreeSet<String>;
}

/// A table that can be looked into, and told to fail.
#[derive(Clone, Default)]
pub(crate) struct Memory(pub Arc<Mutex<Held>>);

#[derive(Default)]
pub(crate) struct Held {
    pub(crate) flows: Vec<Flow>,
    /// What was asked for, listing by listing.
    pub(crate) asked: Vec<(Vec<Family>, Vec<u8>)>,
    pub(crate) failing: bool,
}

impl FlowTable for Memory {
    fn delete_where(
        &mut self,
        families: &[Family],
        protocols: &[u8],
        stale: &mut dyn FnMut(&Flow) -> bool,
    ) -> Result<DeleteCounts, Error> {
        let mut held = self.0.lock().unwrap();
        held.asked.push((families.to_vec(), protocols.to_vec()));
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

impl Place for Memory {
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
pub(crate) struct Kernel;

impl Place for Kernel {
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

/// The report of a sync in which all went well.
pub(crate) fn written() -> Vec<SyncResult> {
    cluster_crate::Family::BOTH.map(report).into()
}

/// The same for one family.
pub(crate) fn report(family: cluster_crate::Family) -> SyncResult {
    SyncResult {
        tables: Vec::new(),
        family,
        is_full: false,
        duration: Duration::from_millis(1),
        written: 1,
        restored: 0,
        isolated: Vec::new(),
        error: None,
    }
}
