//! The proxier of nftables mode: the tables of both families, written over one socket.

use std::time::Instant;

use portcullis_cluster::Family;
use portcullis_cluster::desired::{Desired, ServiceChange};
use portcullis_netlink::socket::Socket;

use super::service_counters::{self, CounterKey};
use super::settings::Settings;
use super::sync::TableSync;
use crate::error::SyncError;
use crate::mode::{Mode, SyncResult};
use crate::node_facts::NodeFacts;
use crate::options::Options;
use crate::proxy_mode::ProxyMode;
use crate::sync_state::FULL_CHECK;
use crate::traffic::{ServicePortTraffic, TrafficMeter};

/// Serves Services with nf_tables.
pub struct NftablesProxier {
    options: Options,
    host: NodeFacts,
    families: Vec<TableSync>,
    socket: Socket,
    /// Another process changed the tables, or may have.
    has_external_change: bool,
    /// The time of the last comparison with the kernel.
    compared: Instant,
    meter: TrafficMeter<CounterKey>,
}

impl NftablesProxier {
    /// Returns a proxier for these families. `socket` is a netfilter socket in the network namespace to serve.
    pub fn new(options: Options, host: NodeFacts, families: &[Family], socket: Socket) -> Self {
        let families = families.iter().map(|family| TableSync::new(Settings::new(*family, &options, &host)));
        let families = families.collect();
        NftablesProxier {
            options,
            host,
            families,
            socket,
            has_external_change: false,
            compared: Instant::now(),
            meter: TrafficMeter::default(),
        }
    }

    /// Returns the socket that writes, by whose port events of external changes are distinguished from our own.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }
}

impl Mode for NftablesProxier {
    fn proxy_mode(&self) -> ProxyMode {
        ProxyMode::Nftables
    }

    fn reconfigure(&mut self, options: Options, host: NodeFacts) {
        if host == self.host && options == self.options {
            return;
        }
        (self.options, self.host) = (options, host);
        for family in &mut self.families {
            let settings = Settings::new(family.family(), &self.options, &self.host);
            family.reconfigure(settings);
        }
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn node_facts(&self) -> &NodeFacts {
        &self.host
    }

    fn sync(&mut self, desired: &Desired, changes: &[ServiceChange]) -> Vec<SyncResult> {
        let now = Instant::now();
        let socket = &mut self.socket;
        self.families.iter_mut().map(|family| family.sync(socket, desired, changes, now)).collect()
    }

    fn note_external_change(&mut self) {
        self.has_external_change = true;
    }

    fn check_drift(&mut self) -> bool {
        let has_external_change = std::mem::take(&mut self.has_external_change);
        if has_external_change || self.compared.elapsed() >= FULL_CHECK {
            self.compared = Instant::now();
            self.families.iter_mut().for_each(TableSync::invalidate);
        }
        has_external_change
    }

    fn traffic(&mut self, desired: &Desired) -> Result<Option<Vec<ServicePortTraffic>>, SyncError> {
        if !self.options.service_counters {
            return Ok(None);
        }
        let mut counters = Vec::new();
        for family in &self.families {
            let read = service_counters::read(&mut self.socket, family.settings(), desired);
            counters.extend(
                read.map_err(|error| {
                    SyncError::from_netlink("cannot read the counters of Services", &error)
                })?,
            );
        }
        Ok(Some(self.meter.read(counters)))
    }

    fn next_due(&self) -> Option<Instant> {
        let now = Instant::now();
        self.families.iter().filter_map(|family| family.next_due(now)).min()
    }
}
