//! IPVS mode as the program uses it.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use portcullis_cluster::{Family, NamespacedName};
use portcullis_modes::iptables::{IptablesKernel, Tools};
use portcullis_modes::ipvs::{
    self, DUMMY_INTERFACE, IpvsObjects, IpvsPrerequisiteError, IpvsProxier, NetlinkKernel, object_differences,
};
use portcullis_modes::{Mode, NodeFacts, Options, SyncError};
use portcullis_netlink::ip_vs::Timeouts;

use super::iptables::{rules_in, rules_of};
use super::{ModeDriver, ObjectRules};
use crate::cluster_view::NodeView;
use crate::commands::diff::{self, DiffError, DiffPrinter};
use crate::commands::render::RulesPrinter;
use crate::config::{self, Config};
use crate::control::Wake;
use crate::daemon::DaemonError;
use crate::daemon::mode_setup::{self, DriftEvents, Prerequisites};
use crate::node;
use crate::plural::{irregular, plural};

pub(super) struct IpvsDriver;

impl ModeDriver for IpvsDriver {
    /// They are not possible: forwarded packets would have a loopback address as their source.
    fn has_localhost_node_ports(&self, _config: &Config) -> bool {
        false
    }

    fn check_kernel(&self, config: &Config) -> Result<(), DaemonError> {
        Ok(ipvs::check_prerequisites(config.ipvs.scheduler)?)
    }

    fn start(
        &self,
        config: &Config,
        options: Options,
        facts: NodeFacts,
        prerequisites: Prerequisites,
        wake: &Wake,
    ) -> Result<(Box<dyn Mode>, DriftEvents), DaemonError> {
        let mut kernel = ipvs::open(config.ipvs.scheduler)?;
        // Its settings exist once its modules are loaded.
        mode_setup::ready_node(config);
        // Before the subscription to addresses, so that its own addresses, one for each Service, are ignored.
        kernel.ensure_link().map_err(IpvsPrerequisiteError::from)?;
        if let Some(timeouts) = timeouts(&config.ipvs) {
            kernel.set_timeouts(timeouts).map_err(IpvsPrerequisiteError::from)?;
        }
        let drift = DriftEvents::watch_tools(prerequisites.tools.as_ref(), wake);
        let ipvs = node::ipvs_options(config);
        Ok((Box::new(IpvsProxier::new(ipvs, options, facts, kernel, prerequisites.kernels)), drift))
    }

    fn render(
        &self,
        config: &Config,
        view: &NodeView,
        families: &[Family],
        _is_single: bool,
        printer: &mut RulesPrinter<'_>,
    ) -> io::Result<()> {
        let rendered = render(config, view, families);
        printer.part("ipvsadm", None, Some(&"ipvsadm"), rendered.ipvsadm())?;
        printer.part("ipset", None, Some(&"ipset"), rendered.ipset())?;
        printer.part("ip", None, Some(&DUMMY_INTERFACE), rendered.address_lines())?;
        rendered
            .rules
            .iter()
            .try_for_each(|(family, rules)| printer.part("iptables-save", Some(*family), Some(family), rules))
    }

    fn diff(
        &self,
        config: &Config,
        view: &NodeView,
        families: &[Family],
        printer: &mut DiffPrinter<'_>,
    ) -> Result<bool, DiffError> {
        let kernel_error = |error: portcullis_netlink::Error| {
            DiffError::Kernel(SyncError::from_netlink("cannot query IPVS", &error))
        };
        let tools = Tools::find()?;
        let mut kernel = NetlinkKernel::open().map_err(kernel_error)?.ok_or(DiffError::NoIpvs)?;
        let mut served = Vec::new();
        for family in families {
            if diff::is_served(*family, &tools)? {
                served.push(*family);
            }
        }
        let kernels: Vec<(Family, Box<dyn IptablesKernel>)> =
            served.iter().map(|family| (*family, tools.kernel(*family))).collect();
        let found = IpvsObjects::read(&mut kernel, &kernels, &node::ipvs_options(config))?;
        let wanted = render(config, view, &served);
        let mut differs = false;
        for family in served {
            differs |= printer.rules(family, &wanted.rules[&family], &found.rules[&family])?;
        }
        let mut last = None;
        for difference in object_differences(&wanted, &found) {
            differs = true;
            if last.as_ref() != Some(&difference.service) {
                printer.owner(&difference)?;
            }
            printer.section(&difference.found, &difference.wanted, &difference.place)?;
            last = Some(difference.service);
        }
        Ok(differs)
    }

    fn service_rules(
        &self,
        config: &Config,
        view: &NodeView,
        family: Family,
        service: &NamespacedName,
    ) -> Vec<ObjectRules> {
        let rendered = render(config, view, &[family]);
        let objects = object_differences(&rendered, &IpvsObjects::default()).into_iter();
        let own = objects.filter(|object| object.service.as_ref() == Some(service));
        let mut rules: Vec<ObjectRules> =
            own.map(|object| ObjectRules { object: object.place, lines: object.wanted }).collect();
        rules.extend(rendered.rules.values().flat_map(|set| rules_of(set, service)));
        rules
    }

    fn count_rules(&self, config: &Config, view: &NodeView, families: &[Family]) -> Vec<String> {
        let wanted = render(config, view, families);
        let real: usize = wanted.servers.values().map(|spec| spec.real_servers.len()).sum();
        let entries: usize = wanted.sets.values().map(BTreeSet::len).sum();
        let mut lines = vec![
            format!("{}, {}", plural(wanted.servers.len(), "virtual server"), plural(real, "real server")),
            format!(
                "{} of ipsets, {} of kube-ipvs0",
                irregular(entries, "entry", "entries"),
                irregular(wanted.addresses.len(), "address", "addresses")
            ),
        ];
        let rules = wanted.rules.iter();
        lines.extend(
            rules.filter_map(|(family, set)| rules_in(set).map(|counts| format!("{family}: {counts}"))),
        );
        lines
    }
}

fn render(config: &Config, view: &NodeView, families: &[Family]) -> IpvsObjects {
    IpvsObjects::render(&view.desired, families, &node::ipvs_options(config), &view.options, &view.host)
}

/// Returns the timeouts to set; `None` if none is configured. 0 keeps the kernel's.
fn timeouts(ipvs: &config::Ipvs) -> Option<Timeouts> {
    // The kernel counts in seconds; a fraction of a second must not become 0.
    let seconds = |timeout: Option<Duration>| {
        let seconds = timeout.map_or(0, |t| t.as_secs() + u64::from(t.subsec_nanos() > 0));
        u32::try_from(seconds).unwrap_or(u32::MAX)
    };
    let [tcp, tcp_fin, udp] = [ipvs.tcp_timeout, ipvs.tcp_fin_timeout, ipvs.udp_timeout].map(seconds);
    (tcp + tcp_fin + udp > 0).then_some(Timeouts { tcp, tcp_fin, udp })
}
