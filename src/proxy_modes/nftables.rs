//! nftables mode as the program uses it.

use std::io;

use portcullis_cluster::{Family, NamespacedName};
use portcullis_modes::nftables::{self, NftablesPrerequisiteError, NftablesProxier};
use portcullis_modes::{Mode, NodeFacts, Options, SyncError};
use portcullis_netlink::nf_tables::{self, TableFamily};

use super::{ModeDriver, ObjectRules};
use crate::cluster_view::NodeView;
use crate::commands::diff::{DiffError, DiffPrinter};
use crate::commands::render::RulesPrinter;
use crate::config::Config;
use crate::control::Wake;
use crate::daemon::DaemonError;
use crate::daemon::mode_setup::{DriftEvents, Prerequisites};
use crate::plural::plural;

pub(super) struct NftablesDriver;

impl ModeDriver for NftablesDriver {
    fn has_localhost_node_ports(&self, config: &Config) -> bool {
        config.node_port_addresses.has_localhost()
    }

    fn start(
        &self,
        _config: &Config,
        options: Options,
        facts: NodeFacts,
        prerequisites: Prerequisites,
        wake: &Wake,
    ) -> Result<(Box<dyn Mode>, DriftEvents), DaemonError> {
        let socket = nf_tables::open().map_err(NftablesPrerequisiteError::from)?;
        let mut socket = socket.ok_or(NftablesPrerequisiteError::NoTables)?;
        if options.service_counters
            && !nftables::supports_service_counters(&mut socket).map_err(NftablesPrerequisiteError::from)?
        {
            return Err(NftablesPrerequisiteError::NoElementCounters.into());
        }
        let proxier = NftablesProxier::new(options, facts, &prerequisites.families, socket);
        let drift = DriftEvents::watch_table(nftables::TABLE, proxier.socket(), wake);
        Ok((Box::new(proxier), drift))
    }

    fn needs_localhost_routes(&self, config: &Config) -> bool {
        self.has_localhost_node_ports(config)
    }

    fn render(
        &self,
        _config: &Config,
        view: &NodeView,
        families: &[Family],
        _is_single: bool,
        printer: &mut RulesPrinter<'_>,
    ) -> io::Result<()> {
        families.iter().try_for_each(|family| {
            let table = nftables::render(&view.desired, *family, &view.options, &view.host);
            printer.part("nft", Some(*family), None, table)
        })
    }

    fn diff(
        &self,
        _config: &Config,
        view: &NodeView,
        families: &[Family],
        printer: &mut DiffPrinter<'_>,
    ) -> Result<bool, DiffError> {
        let kernel_error = |error: portcullis_netlink::Error| {
            DiffError::Kernel(SyncError::from_netlink("nf_tables", &error))
        };
        let mut socket = nf_tables::open().map_err(kernel_error)?.ok_or(DiffError::NoTables)?;
        let mut differs = false;
        for family in families.iter().copied() {
            let table_family = if family == Family::V4 { TableFamily::Ip } else { TableFamily::Ip6 };
            let found = nf_tables::read(&mut socket, table_family, nftables::TABLE).map_err(kernel_error)?;
            let mut last = None;
            let (desired, options, facts) = (&view.desired, &view.options, &view.host);
            for difference in nftables::diff_table(desired, family, options, facts, found.as_ref()) {
                differs = true;
                if last.as_ref() != Some(&difference.owner) {
                    printer.header(format_args!("{family}/{}", difference.owner))?;
                }
                printer.section(&difference.found, &difference.wanted, &difference.object)?;
                last = Some(difference.owner);
            }
        }
        Ok(differs)
    }

    fn service_rules(
        &self,
        _config: &Config,
        view: &NodeView,
        family: Family,
        service: &NamespacedName,
    ) -> Vec<ObjectRules> {
        let rules = nftables::service_rules(&view.desired, family, &view.options, &view.host, service);
        rules.into_iter().map(|(object, lines)| ObjectRules { object, lines }).collect()
    }

    fn count_rules(&self, _config: &Config, view: &NodeView, families: &[Family]) -> Vec<String> {
        let count = |family: &Family| {
            let table = nftables::render(&view.desired, *family, &view.options, &view.host);
            let rules: usize = table.chains.values().map(|chain| chain.rules.len()).sum();
            let elements: usize = table.sets.values().map(|set| set.elements.len()).sum();
            let (chains, sets) = (plural(table.chains.len(), "chain"), table.sets.len());
            let (rules, elements) = (plural(rules, "rule"), plural(elements, "element"));
            format!("{family}: {rules} in {chains}, {elements} in {sets} sets and maps")
        };
        families.iter().map(count).collect()
    }
}
