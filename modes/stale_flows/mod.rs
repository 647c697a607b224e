//! Deletion of stale flows: conntrack entries of endpoints and Services that no longer exist.
//!
//! A UDP or SCTP client whose endpoint was removed keeps sending, and every packet keeps the flow alive: rules apply to
//! the first packet of a flow only. So once the rules are written, stale flows must be deleted. A TCP client gets a reset
//! and connects again, except for a connection attempt made before the Service had endpoints: each retransmitted SYN
//! matches the flow of the first one, which was not translated, until the client gives up.
//!
//! ```text
//! ServiceChange ─add_changes─► affected frontends ─┐
//! SyncResult (written? isolated?) ─────────────────┼─delete─► one dump ─► match ─► deletes
//! Desired (endpoints that serve now) ──────────────┘
//! ```
//!
//! # Which flows are stale
//! A flow is examined if its original destination is a *frontend* (ClusterIP, external IP or load balancer address with a
//! Service's port, or a node port on an address that serves node ports) whose Service changed so that it may have left
//! stale flows. The Service at the frontend now decides:
//!
//! | now at its destination | replies come from | |
//! | --- | --- | --- |
//! | a Service with serving endpoints | one of them | kept |
//! | | any other address, also the destination itself | deleted: the next packet reaches an endpoint |
//! | a Service without serving endpoints | another address | deleted: the next packet is rejected, so the client gets an error |
//! | | the destination itself | kept: it was never translated, and is deleted once there are endpoints |
//! | no Service | another address | deleted |
//! | | the destination itself | kept: it does not belong to a Service |
//!
//! TCP flows are examined only if they have no reply, and only at frontends that are new or got their first endpoints.
//!
//! A serving endpoint may be terminating, or not selected by traffic policies and hints: as for TCP, these apply to new
//! flows only.
//!
//! # When
//! After the rules are written: the old rules would create a flow again that is deleted earlier. Frontends of Services
//! that could not be written, and all frontends if the deletion fails, are kept for the next time. After the start, and
//! when rules were restored after an external change, all Services are affected; flows that match the rules are kept.
//! Without affected frontends the table is not read.
//!
//! # Differences from kube-proxy v1.36
//! - SCTP as well as UDP, and TCP connection attempts without a reply.
//! - Flows are also deleted if their Service is deleted, loses a port or address, or has no endpoints left; with
//!   kube-proxy the client hangs until it gives up.
//! - Flows are also deleted if the EndpointSlice existed before its Service.
//! - A flow to a node port must have been sent to an address of this node that serves node ports; kube-proxy matches any
//!   destination with that port number, such as a server outside the cluster.
//! - An endpoint is an address *and* port: a flow to a port that the Service no longer uses is stale.
//! - Only flows of changed Services are examined, and the table is not read if none can be stale.
//!
//! The flows of a Service deleted while no proxy ran cannot be recognised: they stay until they expire.

mod affected_frontends;
mod flow_table;
mod staleness;
mod waiting;

pub use flow_table::{FlowTable, KernelFlows};

use std::net::IpAddr;
use std::time::{Duration, Instant};

use portcullis_cluster::desired::{Desired, FrontendAddress, ServiceChange};
use portcullis_cluster::{Family, Protocol};
use portcullis_netlink as netlink;

use crate::mode::SyncResult;
use affected_frontends::{affected_frontends, may_have_flows, removed_frontends};
use staleness::{LocalAddresses, StaleFlowMatcher};
use waiting::{DueFrontends, WaitingFrontends};

/// Deletes the flows that changes of Services leave stale.
pub struct StaleFlows {
    table: Box<dyn FlowTable>,
    affected: WaitingFrontends,
    /// All Services were examined once, for changes while no proxy ran.
    examined_all: bool,
}

/// The result of one deletion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StaleFlowsResult {
    /// The number of affected addresses and node ports; if 0, the table was not read.
    pub frontends: usize,
    /// The number of flows read.
    pub examined: usize,
    /// The number of stale flows that were deleted.
    pub deleted: usize,
    /// The duration.
    pub duration: Duration,
    /// The number of stale flows found in each family that was read.
    found: [Option<usize>; 2],
}

impl StaleFlowsResult {
    /// Returns the families that were read, and the number of stale flows found in each. That is the number of deleted
    /// flows, except for flows that expired at the same moment.
    pub fn by_family(&self) -> impl Iterator<Item = (Family, usize)> + '_ {
        Family::BOTH.into_iter().zip(self.found).filter_map(|(family, found)| Some((family, found?)))
    }
}

/// The error if stale flows could not be deleted.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot delete the stale flows of {services} Services: {source}; until the next sync retries, their clients may be \
     sent to removed endpoints (CAP_NET_ADMIN and nf_conntrack_netlink are needed)"
)]
pub struct StaleFlowsError {
    /// The number of Services that may have stale flows.
    pub services: usize,
    /// The kernel's error.
    pub source: netlink::Error,
}

impl StaleFlows {
    /// Deletes the stale flows of this table.
    pub fn new(table: impl FlowTable + 'static) -> Self {
        StaleFlows { table: Box::new(table), affected: WaitingFrontends::default(), examined_all: false }
    }

    /// Keeps at most this number of affected frontends while rules are not written. If there are more, all flows are examined.
    #[must_use]
    pub fn with_max_waiting(mut self, max: usize) -> Self {
        self.affected.set_max(max);
        self
    }

    /// Adds the frontends that changes affect. Call it with all changes, even if their rules are not written yet.
    pub fn add_changes(&mut self, changes: &[ServiceChange]) {
        for change in changes {
            // The first deletion examines all frontends that are served, so they need not be kept.
            let affected =
                if self.examined_all { affected_frontends(change) } else { removed_frontends(change) };
            self.affected.add(&change.name, affected);
        }
    }

    /// Returns true if frontends wait for their rules, or for a retry after an error.
    pub fn has_pending(&self) -> bool {
        !self.affected.is_empty()
    }

    /// Deletes the stale flows of all Services whose rules are written, in one pass over the table.
    ///
    /// `results` are those of the [`Mode::sync`](crate::Mode::sync) just done, with one for each family that is served.
    /// `node_port_addresses` are this node's addresses on which node ports are served; 127.0.0.1 stands for all of
    /// 127.0.0.0/8.
    ///
    /// # Errors
    /// The kernel rejected the listing or a deletion. All affected frontends are kept for the next call.
    pub fn delete(
        &mut self,
        desired: &Desired,
        results: &[SyncResult],
        node_port_addresses: &[IpAddr],
    ) -> Result<StaleFlowsResult, StaleFlowsError> {
        let is_first = !std::mem::replace(&mut self.examined_all, true);
        let is_restored = |family| results.iter().any(|r| r.family == family && r.restored > 0);
        for family in Family::BOTH.into_iter().filter(|family| is_first || is_restored(*family)) {
            self.affected.add_all_served(family);
        }
        let (due, waiting) = self.affected.divide(results, desired);
        let result = self
            .sweep(due, desired, node_port_addresses)
            .map_err(|source| StaleFlowsError { services: self.affected.services(desired), source })?;
        self.affected = waiting;
        Ok(result)
    }

    fn sweep(
        &mut self,
        due: DueFrontends,
        desired: &Desired,
        node_port_addresses: &[IpAddr],
    ) -> netlink::Result<StaleFlowsResult> {
        let start = Instant::now();
        let (frontends, listed, protocols) = extent(&due, desired);
        if listed == [false; 2] {
            return Ok(StaleFlowsResult::default());
        }
        let families: Vec<netlink::Family> = netlink::Family::ALL
            .into_iter()
            .zip(listed)
            .filter_map(|(f, listed)| listed.then_some(f))
            .collect();

        let mut matcher = StaleFlowMatcher::new(due, desired, LocalAddresses::new(node_port_addresses));
        let mut found = [0; 2];
        let done = self.table.delete_where(&families, &protocols, &mut |flow| {
            let stale = matcher.is_stale(flow);
            found[usize::from(flow.family == netlink::Family::V6)] += usize::from(stale);
            stale
        })?;
        let found = [0, 1].map(|i| listed[i].then_some(found[i]));
        let result = StaleFlowsResult {
            frontends,
            examined: done.examined,
            deleted: done.deleted,
            duration: start.elapsed(),
            found,
        };
        tracing::debug!(?result, "deleted stale flows");
        Ok(result)
    }
}

/// Returns the number of frontends, and the families and protocols of their flows.
fn extent(due: &DueFrontends, desired: &Desired) -> (usize, [bool; 2], Vec<u8>) {
    let is_one_of_all = |frontend: &FrontendAddress, is_served| {
        !due.changed.contains(frontend) && due.contains(frontend, is_served)
    };
    let (mut count, mut listed, mut protocols) = (due.changed.len(), due.all, Vec::new());
    let mut add = |frontend: &FrontendAddress| {
        listed[frontend.family() as usize] = true;
        if !protocols.contains(&frontend.protocol().number()) {
            protocols.push(frontend.protocol().number());
        }
    };
    due.changed.iter().for_each(&mut add);
    if due.all_served != [false; 2] || due.all != [false; 2] {
        for frontend in desired.ports().flat_map(|port| port.frontends()) {
            if is_one_of_all(&frontend.address, may_have_flows(&frontend.address, frontend.port)) {
                count += 1;
                add(&frontend.address);
            }
        }
    }
    if due.all != [false; 2] {
        protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(Protocol::number).to_vec();
    }
    protocols.sort_unstable();
    (count, listed, protocols)
}
