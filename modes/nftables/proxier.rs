//! The mode itself: both families' tables over one socket.

use std::time::Instant;

use portcullis_cluster::Family;
use portcullis_cluster::desired::{Desired, ServiceChange};
use portcullis_netlink::socket::Socket;

use super::settings::Settings;
use super::table_sync::TableSync;
use crate::mode::{Mode, SyncResult};
use crate::node_facts::NodeFacts;
use crate::options::Options;
use crate::sync_state::FULL_CHECK;

/// Serves Services by nf_tables.
pub struct NftablesProxier {
    options: Options,
    host: NodeFacts,
    families: Vec<TableSync>,
    socket: Socket,
    /// Somebody else changed the tables, or may have.
    suspected: bool,
    checked: Instant,
}

impl NftablesProxier {
    /// A proxier for these families. `socket` is a netfilter one of the network namespace to serve.
    pub fn new(options: Options, host: NodeFacts, families: &[Family], socket: Socket) -> Self {
        let families = families.iter().map(|family| TableSync::new(Settings::new(*family, &options, &host)));
        let families = families.collect();
        NftablesProxier { options, host, families, socket, suspected: false, checked: Instant::now() }
    }

    /// The socket that writes, by which events tell our own changes from those of others.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }
}

impl Mode for NftablesProxier {
    fn name(&self) -> &'static str {
        "nftables"
    }

    fn reconfigure(&mut self, options: Options, host: NodeFacts) {
        if host == self.host && options == self.options {
            return;
        }
        (self.options, self.host) = (options, host);
        for family in &mut self.families {
            let settings = Settings::new(family.family(), &self.options, &self.host);
            family.set(settings);
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
        self.suspected = true;
    }

    fn check_drift(&mut self) -> bool {
        let suspected = std::mem::take(&mut self.suspected);
        if suspected || self.checked.elapsed() >= FULL_CHECK {
            self.checked = Instant::now();
            self.families.iter_mut().for_each(TableSync::invalidate);
        }
        suspected
    }

    fn next_due(&self) -> Option<Instant> {
        let now = Instant::now();
        self.families.iter().filter_map(|family| family.next_due(now)).min()
    }
}
