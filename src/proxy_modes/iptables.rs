//! iptables mode as the program uses it.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;

use portcullis_cluster::{Family, NamespacedName};
use portcullis_modes::iptables::{IptablesProxier, RuleOwner, RuleSet, Tools, compare_rules};
use portcullis_modes::{Mode, NodeFacts, Options};

use super::{ModeDriver, ObjectRules};
use crate::cluster_view::NodeView;
use crate::commands::diff::{self, DiffError, DiffPrinter};
use crate::commands::render::RulesPrinter;
use crate::config::Config;
use crate::control::Wake;
use crate::daemon::DaemonError;
use crate::daemon::mode_setup::{DriftEvents, Prerequisites};
use crate::plural::plural;

pub(super) struct IptablesDriver;

impl ModeDriver for IptablesDriver {
    fn has_localhost_node_ports(&self, config: &Config) -> bool {
        config.iptables.localhost_node_ports
    }

    fn start(
        &self,
        _config: &Config,
        options: Options,
        facts: NodeFacts,
        prerequisites: Prerequisites,
        wake: &Wake,
    ) -> Result<(Box<dyn Mode>, DriftEvents), DaemonError> {
        let drift = DriftEvents::watch_tools(prerequisites.tools.as_ref(), wake);
        Ok((Box::new(IptablesProxier::new(options, facts, prerequisites.kernels)), drift))
    }

    fn render(
        &self,
        _config: &Config,
        view: &NodeView,
        families: &[Family],
        is_single: bool,
        printer: &mut RulesPrinter<'_>,
    ) -> io::Result<()> {
        for family in families {
            let heading = (!is_single).then_some(family as &dyn Display);
            let rules = RuleSet::render(&view.desired, *family, &view.options, &view.host);
            printer.part("iptables-save", Some(*family), heading, rules)?;
        }
        Ok(())
    }

    fn diff(
        &self,
        _config: &Config,
        view: &NodeView,
        families: &[Family],
        printer: &mut DiffPrinter<'_>,
    ) -> Result<bool, DiffError> {
        let tools = Tools::find()?;
        let mut differs = false;
        for family in families {
            let found = RuleSet::read(&*tools.kernel(*family))?;
            if is_empty(&found) && !diff::is_served(*family, &tools)? {
                continue;
            }
            let wanted = RuleSet::render(&view.desired, *family, &view.options, &view.host);
            differs |= printer.rules(*family, &wanted, &found)?;
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
        let rules = RuleSet::render(&view.desired, family, &view.options, &view.host);
        rules_of(&rules, service)
    }

    fn count_rules(&self, _config: &Config, view: &NodeView, families: &[Family]) -> Vec<String> {
        let count = |family: &Family| {
            let rules = RuleSet::render(&view.desired, *family, &view.options, &view.host);
            rules_in(&rules).map(|counts| format!("{family}: {counts}"))
        };
        families.iter().filter_map(count).collect()
    }
}

/// Returns the rules of a Service, by chain.
pub(super) fn rules_of(set: &RuleSet, service: &NamespacedName) -> Vec<ObjectRules> {
    let owner = RuleOwner::Service(service.to_string());
    let own = compare_rules(set, &RuleSet::default()).into_iter().filter(|rules| rules.owner == owner);
    let rules = own.flat_map(|rules| rules.chains).map(|chain| ObjectRules {
        object: format!("{} {}", chain.table, chain.chain),
        lines: chain.desired.into_iter().flatten().map(|line| line.text).collect(),
    });
    rules.collect()
}

/// Returns true if there are no rules.
fn is_empty(set: &RuleSet) -> bool {
    set.tables.values().all(|chains| chains.values().all(Vec::is_empty))
}

/// Returns the number of rules in each table; `None` if there are none.
pub(super) fn rules_in(set: &RuleSet) -> Option<String> {
    let count = |chains: &BTreeMap<String, Vec<String>>| chains.values().map(Vec::len).sum::<usize>();
    let counts = set.tables.iter().map(|(table, chains)| (table, count(chains))).filter(|(_, n)| *n > 0);
    let counts: Vec<String> =
        counts.map(|(table, rules)| format!("{} in {table}", plural(rules, "rule"))).collect();
    (!counts.is_empty()).then(|| counts.join(", "))
}
