//! The proxy modes as the program uses them: their set-up, and their rules in the subcommands. One file for each mode; the
//! modes themselves are in `portcullis-modes`.

mod iptables;
mod ipvs;
mod nftables;

use std::io;

use portcullis_cluster::{Family, NamespacedName};
use portcullis_modes::{Mode, NodeFacts, Options};
use serde::Serialize;

use crate::cluster_view::NodeView;
use crate::commands::diff::{DiffError, DiffPrinter};
use crate::commands::render::RulesPrinter;
use crate::config::{Config, ProxyMode};
use crate::control::Wake;
use crate::daemon::DaemonError;
use crate::daemon::mode_setup::{DriftEvents, Prerequisites};

/// The parts of the program that differ between the proxy modes.
pub(crate) trait ModeDriver {
    /// Returns true if node ports on IPv4 loopback addresses are enabled.
    fn has_localhost_node_ports(&self, config: &Config) -> bool;

    /// Checks the prerequisites that a mode has besides those of
    /// [`check_prerequisites`](crate::daemon::mode_setup::check_prerequisites). Loads and changes nothing.
    ///
    /// # Errors
    /// A prerequisite is missing.
    fn check_kernel(&self, _config: &Config) -> Result<(), DaemonError> {
        Ok(())
    }

    /// Creates the mode, and subscribes to external changes of its rules if the kernel reports them.
    ///
    /// # Errors
    /// A prerequisite is missing.
    fn start(
        &self,
        config: &Config,
        options: Options,
        facts: NodeFacts,
        prerequisites: Prerequisites,
        wake: &Wake,
    ) -> Result<(Box<dyn Mode>, DriftEvents), DaemonError>;

    /// Returns true if replies to connections from ::1 need a local route for ::1 on every link.
    fn needs_localhost_routes(&self, _config: &Config) -> bool {
        false
    }

    /// Prints the rules of some families for `portcullis render`. `is_single`: the user selected one family.
    ///
    /// # Errors
    /// The output cannot be written.
    fn render(
        &self,
        config: &Config,
        view: &NodeView,
        families: &[Family],
        is_single: bool,
        printer: &mut RulesPrinter<'_>,
    ) -> io::Result<()>;

    /// Prints the differences between the kernel's rules and the desired ones. Returns true if there are any.
    ///
    /// # Errors
    /// The kernel's rules cannot be read, or the output cannot be written.
    fn diff(
        &self,
        config: &Config,
        view: &NodeView,
        families: &[Family],
        printer: &mut DiffPrinter<'_>,
    ) -> Result<bool, DiffError>;

    /// Returns the rules of a Service in a family, by object.
    fn service_rules(
        &self,
        config: &Config,
        view: &NodeView,
        family: Family,
        service: &NamespacedName,
    ) -> Vec<ObjectRules>;

    /// Returns counts of the rules of some families, one line per family or kind.
    fn count_rules(&self, config: &Config, view: &NodeView, families: &[Family]) -> Vec<String>;
}

/// The rules in an object of the kernel: a chain, a set, or the virtual servers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ObjectRules {
    /// The kind and name of the object.
    pub(crate) object: String,
    /// Its rules or elements, as the mode's tool prints them.
    pub(crate) lines: Vec<String>,
}

/// Returns the driver of a mode.
pub(crate) fn driver(mode: ProxyMode) -> &'static dyn ModeDriver {
    match mode {
        ProxyMode::Iptables => &iptables::IptablesDriver,
        ProxyMode::Ipvs => &ipvs::IpvsDriver,
        ProxyMode::Nftables => &nftables::NftablesDriver,
    }
}
