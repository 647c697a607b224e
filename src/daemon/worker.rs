//! What runs beside the loop: the mode and everything that talks to the kernel, one sync at a time.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use portcullis_cluster::desired::{Desired, ServiceChange};
use portcullis_modes::iptables::{Host, Options, Proxier};
use portcullis_modes::stale_flows::{StaleFlows, StaleFlowsError, Sweep};
use portcullis_modes::{Mode, Report, SyncError};

use crate::sysctl;

/// The node as it is to be served. It goes to a thread for each sync and comes back.
pub(super) struct Worker {
    proxier: Proxier,
    /// What is to be served; the loop brings it up to date between syncs.
    pub(super) desired: Desired,
    stale_flows: StaleFlows,
}

/// What a sync is to do.
pub(super) struct Order {
    pub(super) changes: Vec<ServiceChange>,
    pub(super) options: Options,
    pub(super) host: Host,
    /// All addresses of this machine.
    pub(super) addresses: Vec<IpAddr>,
    /// Look whether somebody else changed the rules.
    pub(super) check_drift: bool,
}

/// What a sync did.
pub(super) struct Outcome {
    pub(super) reports: Vec<Report>,
    /// Somebody else had written rules.
    pub(super) drifted: bool,
    pub(super) flows: Result<Sweep, StaleFlowsError>,
    pub(super) took: Duration,
}

impl Outcome {
    /// Why it failed as a whole, if it did.
    pub(super) fn error(&self) -> Option<&SyncError> {
        self.reports.iter().find_map(|report| report.error.as_ref())
    }

    /// Whether every Service is served as desired.
    pub(super) fn complete(&self) -> bool {
        self.error().is_none() && self.reports.iter().all(|report| report.isolated.is_empty())
    }
}

impl Worker {
    pub(super) fn new(proxier: Proxier, desired: Desired, stale_flows: StaleFlows) -> Self {
        Worker { proxier, desired, stale_flows }
    }

    pub(super) fn sync(&mut self, order: Order) -> Outcome {
        let start = Instant::now();
        self.proxier.set_options(order.options);
        self.proxier.set_host(order.host);
        if self.proxier.options().serves_localhost_node_ports() {
            sysctl::allow_localhost_node_ports();
        }
        let drifted = order.check_drift && self.proxier.check_drift();
        self.stale_flows.note(&order.changes);
        let reports = self.proxier.sync(&self.desired, &order.changes);
        // Only now: before the new rules stood, a flow could have been led astray again.
        let addresses = self.node_port_addresses(&order.addresses);
        let flows = self.stale_flows.delete(&self.desired, &reports, &addresses);
        Outcome { reports, drifted, flows, took: start.elapsed() }
    }

    /// Those of this machine's addresses on which node ports are served.
    pub(super) fn node_port_addresses(&self, all: &[IpAddr]) -> Vec<IpAddr> {
        self.proxier.options().node_port_addresses_of(all, self.proxier.host())
    }

    /// The options of the last sync.
    pub(super) fn options(&self) -> &Options {
        self.proxier.options()
    }
}
