//! Facts of this machine that the rules of Services depend on.

use std::net::IpAddr;

use portcullis_cluster::{Index, Name};
use portcullis_modes::iptables::{IptablesFeatures, Tools};
use portcullis_modes::{NodeFacts, Options, cleanup};

use crate::config::Config;
use crate::{host, node};

/// Facts of this machine, apart from its addresses.
pub(in crate::daemon) struct MachineFacts {
    /// The tools of iptables, if they are installed.
    pub(in crate::daemon) tools: Option<Tools>,
    has_nfacct: bool,
    /// See [`host::accepts_loopback`]. False while the guard of iptables mode is in place.
    accepts_loopback: bool,
    /// Rules of iptables mode drop packets from other hosts to loopback addresses, until this mode has synced.
    pub(super) has_iptables_guard: bool,
}

impl MachineFacts {
    /// Reads them.
    pub(in crate::daemon) fn read(
        config: &Config,
        options: &Options,
        tools: Option<Tools>,
        has_nfacct: bool,
    ) -> Self {
        let accepts_loopback = host::accepts_loopback(options);
        let has_iptables_guard =
            accepts_loopback && config.mode.uses_ipvs() && cleanup::has_iptables_loopback_guard();
        MachineFacts {
            tools,
            has_nfacct,
            accepts_loopback: accepts_loopback && !has_iptables_guard,
            has_iptables_guard,
        }
    }

    /// Returns the facts for a sync.
    pub(in crate::daemon) fn node_facts(
        &self,
        config: &Config,
        index: &Index,
        name: &Name,
        options: &Options,
        addresses: &[IpAddr],
    ) -> NodeFacts {
        NodeFacts {
            addresses: host::addresses_in_rules(config.mode, options, addresses),
            node_ips: node::primary_ips(config, index.node(name), host::default_route_source),
            iptables: IptablesFeatures {
                random_fully: self.tools.as_ref().is_none_or(Tools::random_fully),
                nfacct: self.has_nfacct,
            },
            service_cidrs: node::service_cidrs(config.mode, index),
            route_localnet: self.accepts_loopback,
        }
    }

    /// Reads `route_localnet` again. Returns true if it changed in a way that affects the rules.
    pub(super) fn update_route_localnet(&mut self, options: &Options) -> bool {
        if self.has_iptables_guard {
            return false;
        }
        let accepts = host::accepts_loopback(options);
        let has_changed = accepts != self.accepts_loopback;
        if has_changed {
            let change =
                if accepts { "set; packets from other hosts to 127.0.0.0/8 are dropped" } else { "0" };
            tracing::info!("the sysctl route_localnet is now {change}");
            self.accepts_loopback = accepts;
        }
        has_changed
    }
}
