//! Stale flows: what connection tracking remembers of endpoints and Services that are gone.
//!
//! A UDP or SCTP client whose endpoint vanished keeps sending, every packet keeps the flow alive, and
//! connection tracking keeps leading it to nowhere: rules are consulted for the first packet of a flow only.
//! So after the rules, the flows must change. A TCP client meets a reset and connects again, except for one whose SYN
//! was sent before the Service had endpoints: each SYN that it repeats finds the flow of the first one, which was not
//! translated, and it hangs until it gives up.
//!
//! ```text
//! ServiceChange ─note─► suspect frontends ─┐
//! SyncResult (written? isolated?) ─────────────┼─delete─► one dump ─judge─► deletes
//! Desired (who serves there now) ──────────┘
//! ```
//!
//! # Which flows are stale
//! A flow is looked at if its original destination is a *frontend* (ClusterIP, external IP or load balancer's
//! address with a Service's port, or a node port on an address that serves node ports) whose Service changed
//! so that it may have left stale flows. It is judged by who is reached there now:
//!
//! | at its destination now | answers come from | |
//! | --- | --- | --- |
//! | a Service with serving endpoints | one of them | stays |
//! | | anything else, also the destination itself | deleted: the client belongs to an endpoint |
//! | a Service without any | another address | deleted: next packet is rejected, and the client knows |
//! | | the destination itself | stays: it was never led anywhere, and goes once there are endpoints |
//! | no Service | another address | deleted |
//! | | the destination itself | stays: none of ours |
//!
//! Of TCP, only flows are looked at of which no answer was seen, and only where a frontend is new or got its first
//! endpoints.
//!
//! A serving endpoint is one that answers, be it terminating or not chosen by traffic policies and hints:
//! as with TCP, those decide about new flows only.
//!
//! # When
//! After the rules are written, for a flow deleted earlier would come back by the old ones. Frontends whose
//! Service could not be written, and all of them when the deletion fails, are kept for the next time. The
//! first time after the start, and when somebody's damage to the rules was repaired, every Service is
//! suspect, and flows that fit the rules stay. Without a suspect nothing is listed.
//!
//! # Differences from kube-proxy v1.36
//! - SCTP as well as UDP, and TCP connections that nothing has answered.
//! - Flows of a Service that is deleted, loses a port or address, or has no endpoints left are deleted;
//!   kube-proxy leaves them to hang until the client gives up.
//! - Flows go also when the slice was there before its Service.
//! - A flow to a node port must have been sent to an address of this node that serves node ports; kube-proxy
//!   takes any destination with that port number, such as an outside server's.
//! - An endpoint is an address *and* port: a flow to a port which the Service no longer leads to is stale.
//! - Only flows of Services that changed are judged, and nothing is listed when none can be stale.
//!
//! A Service deleted while no proxy ran is beyond knowing: its flows stay until they expire.

mod flow_table;
mod frontend;
mod judge;

pub use flow_table::{FlowTable, KernelFlows};

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use portcullis_cluster::desired::{Desired, Frontend, ServiceChange};
use portcullis_cluster::{Family, NamespacedName};
use portcullis_netlink as netlink;

use crate::mode::SyncResult;
use frontend::{all_suspects, suspects};
use judge::{Judge, LocalAddresses};

/// Deletes the flows that changes of Services leave stale.
pub struct StaleFlows {
    table: Box<dyn FlowTable>,
    suspects: BTreeMap<NamespacedName, HashSet<Frontend>>,
    /// Every Service was suspect once, for what happened while no proxy ran.
    started: bool,
}

/// What one deletion did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// How many addresses and node ports were suspect; when 0, nothing was listed.
    pub suspects: usize,
    /// How many flows were listed.
    pub examined: usize,
    /// How many of them were stale and are deleted.
    pub deleted: usize,
    /// How long it took.
    pub took: Duration,
    /// How many flows were found stale in each family that was listed.
    found: [Option<usize>; 2],
}

impl Sweep {
    /// The families that were listed, and how many stale flows were found in each. That is what was deleted,
    /// but for flows that expired at the same moment.
    pub fn by_family(&self) -> impl Iterator<Item = (Family, usize)> + '_ {
        Family::BOTH.into_iter().zip(self.found).filter_map(|(family, found)| Some((family, found?)))
    }
}

/// Stale flows could not be deleted.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot delete the stale flows of {services} Services: {source}; their clients may be led to \
     endpoints that are gone, or to none, until the next sync tries again (needs CAP_NET_ADMIN and nf_conntrack_netlink)"
)]
pub struct StaleFlowsError {
    /// How many Services may have stale flows.
    pub services: usize,
    /// What the kernel said.
    pub source: netlink::Error,
}

impl StaleFlows {
    /// For the flows of this table.
    pub fn new(table: impl FlowTable + 'static) -> Self {
        StaleFlows { table: Box::new(table), suspects: BTreeMap::new(), started: false }
    }

    /// Remembers what changes may leave stale. To be called with all changes, whether or not their rules
    /// are written then.
    pub fn note(&mut self, changes: &[ServiceChange]) {
        for change in changes {
            let found = suspects(change);
            if !found.is_empty() {
                self.suspects.entry(change.name.clone()).or_default().extend(found);
            }
        }
    }

    /// Whether something waits to be looked at: for its rules, or after an error.
    pub fn is_waiting(&self) -> bool {
        !self.suspects.is_empty()
    }

    /// Deletes the stale flows of all Services whose rules are written, in one pass over the table.
    ///
    /// `reports` are those of the [`Mode::sync`](crate::Mode::sync) just done: one for each family that is
    /// served, every time. `node_port_addresses` are this node's addresses on which node ports are served;
    /// 127.0.0.1 stands for all of 127.0.0.0/8.
    ///
    /// # Errors
    /// The kernel could not list or delete flows. All that was suspect stays so.
    pub fn delete(
        &mut self,
        desired: &Desired,
        reports: &[SyncResult],
        node_port_addresses: &[IpAddr],
    ) -> Result<Sweep, StaleFlowsError> {
        let first = !std::mem::replace(&mut self.started, true);
        let repaired = |family| reports.iter().any(|r| r.family == family && r.restored > 0);
        for family in Family::BOTH.into_iter().filter(|family| first || repaired(*family)) {
            self.suspect_all_of(family, desired);
        }
        let (due, waiting) = self.divide(reports);
        let sweep = match due.is_empty() {
            true => Sweep::default(),
            false => self
                .sweep(due, desired, node_port_addresses)
                .map_err(|source| StaleFlowsError { services: self.suspects.len(), source })?,
        };
        self.suspects = waiting;
        Ok(sweep)
    }

    fn sweep(
        &mut self,
        due: HashSet<Frontend>,
        desired: &Desired,
        node_port_addresses: &[IpAddr],
    ) -> netlink::Result<Sweep> {
        let start = Instant::now();
        let suspects = due.len();
        let listed = Family::BOTH.map(|family| due.iter().any(|f| f.family() == family));
        let families: Vec<netlink::Family> = netlink::Family::ALL
            .into_iter()
            .zip(listed)
            .filter_map(|(f, listed)| listed.then_some(f))
            .collect();
        let mut protocols: Vec<u8> = due.iter().map(|f| f.protocol().number()).collect();
        protocols.sort_unstable();
        protocols.dedup();

        let judge = Judge::new(due, desired, LocalAddresses::new(node_port_addresses));
        let mut found = [0; 2];
        let done = self.table.delete_where(&families, &protocols, &mut |flow| {
            let stale = judge.is_stale(flow);
            found[usize::from(flow.family == netlink::Family::V6)] += usize::from(stale);
            stale
        })?;
        let found = [0, 1].map(|i| listed[i].then_some(found[i]));
        let sweep =
            Sweep { suspects, examined: done.examined, deleted: done.deleted, took: start.elapsed(), found };
        tracing::debug!(?sweep, "looked for stale flows");
        Ok(sweep)
    }

    fn suspect_all_of(&mut self, family: Family, desired: &Desired) {
        for (name, ports) in desired.services() {
            let mut frontends = all_suspects(ports, family).peekable();
            if frontends.peek().is_some() {
                self.suspects.entry(name.clone()).or_default().extend(frontends);
            }
        }
    }

    /// Tells those whose rules are written from those that must wait. Nothing ever leads flows through a
    /// family that is not served, so what is suspect there is neither.
    fn divide(
        &self,
        reports: &[SyncResult],
    ) -> (HashSet<Frontend>, BTreeMap<NamespacedName, HashSet<Frontend>>) {
        let isolated: HashSet<(Family, &NamespacedName)> =
            reports.iter().flat_map(|r| r.isolated.iter().map(|i| (r.family, &i.service))).collect();
        let mut due = HashSet::new();
        let mut waiting = BTreeMap::<NamespacedName, HashSet<Frontend>>::new();
        for (name, frontends) in &self.suspects {
            for frontend in frontends {
                let family = frontend.family();
                let Some(report) = reports.iter().find(|r| r.family == family) else { continue };
                if report.error.is_some() || isolated.contains(&(family, name)) {
                    waiting.entry(name.clone()).or_default().insert(*frontend);
                } else {
                    due.insert(*frontend);
                }
            }
        }
        (due, waiting)
    }
}
