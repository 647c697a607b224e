//! This node's side of the pod network, beside links and routes:
//!
//! ```text
//! sysctls ─► egress rules ─► source check ─► FORWARD chains of firewalls ─► leaked attachments ─► host ports ─► plugin
//!   ─► CNI configuration, last
//! ```
//! Each step is repeated with every sync, and writes only what differs. All calls block, for a worker thread.

pub mod cleanup;
pub mod comparison;
mod host_ports;
mod leaked_attachments;
mod node_setup;
pub mod planning;
pub(crate) mod reserved;
mod result;

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use portcullis_modes::forward_accept::ForwardAccept;
use portcullis_netlink::nf_tables::ChangeCounts;
use portcullis_netlink::socket::Socket;
use portcullis_netlink::{Family, Result as KernelResult};
use portcullis_podnet::addresses::{self, AddressStore, AddressUsage, PodRange};
use portcullis_podnet::egress::{Egress, EgressError, EgressPolicy, enable_forwarding, loosen_rp_filter};
use portcullis_podnet::installation::{ConfigurationList, HOST_LOCAL_FOLDERS, Installation};
use portcullis_podnet::source_check::SourceCheck;
use portcullis_podnet::{PodNetworkPlan, Uplink, Wiring};

use crate::config;
pub use node_setup::{NodeSetupError, set_up_node};
pub use result::{NodeNetworkResult, Problem, Severity, Step};

/// The binary of this process, of which the plugin is a copy.
const OWN_BINARY: &str = "/proc/self/exe";

/// Keeps this node's side of the pod network.
#[derive(Debug)]
pub struct NodeNetwork {
    masquerade: bool,
    /// CIDRs to which traffic of pods is not masqueraded, beside the pod CIDRs of all nodes.
    not_masqueraded: Vec<IpNet>,
    installation: Installation,
    proc: PathBuf,
    egress: Option<Egress>,
    source_check: Option<SourceCheck>,
    /// The check of the source addresses of pods is programmed.
    checks_sources: bool,
    forward: ForwardAccept,
    /// The addresses that Services have on an interface of this node, or will have.
    service_addresses: Vec<IpAddr>,
    /// Inode, size and change time of the installed plugin when it was last compared.
    plugin: Option<(u64, u64, i64, i64)>,
}

impl NodeNetwork {
    /// Returns the node's side of a pod network. `cluster_cidrs` are those of `--cluster-cidr`, which contain the pods of nodes
    /// that are not known yet. Nothing is changed before [`NodeNetwork::apply`].
    pub fn new(config: &config::PodNetwork, cluster_cidrs: &[IpNet]) -> Self {
        NodeNetwork {
            masquerade: config.masquerade,
            not_masqueraded: [cluster_cidrs, &config.masquerade_exclude_cidrs].concat(),
            installation: installation(config),
            proc: PathBuf::from("/proc"),
            egress: None,
            source_check: None,
            checks_sources: false,
            forward: ForwardAccept::default(),
            service_addresses: Vec::new(),
            plugin: None,
        }
    }

    /// Programs the node for a plan whose routes are in place, and makes the node ready for pods. `is_full` compares the egress rules with
    /// the kernel. A failure of one step does not stop the others; but the configuration is written only if all that pods need succeeded.
    pub fn apply(&mut self, plan: &PodNetworkPlan, is_full: bool) -> NodeNetworkResult {
        let mut result = NodeNetworkResult::default();
        self.enable_forwarding(plan, &mut result);
        self.loosen_rp_filters(plan, &mut result);
        self.sync_egress(plan, is_full, &mut result);
        self.check_sources(plan, is_full, &mut result);
        self.accept_forwarded(plan, &mut result);
        self.remove_leaked_attachments(&mut result);
        self.check_addresses(plan, &mut result);
        self.restore_host_ports(&mut result);
        self.install_plugin(&mut result);
        self.make_ready(plan, &mut result);
        result
    }

    /// Tells container runtimes why no pods can be started. The configuration stays if there is one: pods that run keep their network.
    pub fn not_ready(&self, reason: &str) -> NodeNetworkResult {
        let mut result = NodeNetworkResult::default();
        if let Err(error) = self.installation.set_not_ready(Some(reason)) {
            result.fail(Step::Readiness, &error);
        }
        result
    }

    /// Returns the socket that writes the egress rules, by which own changes are distinguished from external ones.
    ///
    /// # Errors
    /// The kernel has no nf_tables, or the process lacks privilege.
    pub fn egress_socket(&mut self) -> Result<&Socket, EgressError> {
        Ok(self.egress()?.socket())
    }

    fn egress(&mut self) -> Result<&mut Egress, EgressError> {
        Ok(match &mut self.egress {
            Some(egress) => egress,
            none => none.insert(Egress::open()?),
        })
    }

    fn enable_forwarding(&self, plan: &PodNetworkPlan, result: &mut NodeNetworkResult) {
        match enable_forwarding(&self.proc, families(plan)) {
            Ok(changed) => node_setup::log_settings(&changed),
            Err(unset) => unset.iter().for_each(|setting| result.fail(Step::Forwarding, setting)),
        }
    }

    /// Lets the uplinks accept packets of pods of other nodes. With an overlay, a pod's packets to an address of another node do not pass the
    /// overlay. If they are not masqueraded, they arrive on an interface by which that node does not reach the pod.
    fn loosen_rp_filters(&self, plan: &PodNetworkPlan, result: &mut NodeNetworkResult) {
        for uplink in self.loose_uplinks(plan) {
            match loosen_rp_filter(&self.proc, &uplink.name) {
                Ok(changed) => node_setup::log_settings(changed.as_slice()),
                Err(unset) => {
                    let text = format_args!(
                        "connections of pods of other nodes to addresses of this node are dropped: {unset}"
                    );
                    result.warn(Step::Forwarding, &text);
                }
            }
        }
    }

    /// Returns the uplinks that must accept packets of pods of other nodes.
    fn loose_uplinks<'a>(&self, plan: &'a PodNetworkPlan) -> impl Iterator<Item = &'a Uplink> {
        let are_masqueraded = self.masquerade && self.not_masqueraded.is_empty();
        let is_needed = plan.mode.has_overlay() && !are_masqueraded;
        plan.uplinks.iter().filter(move |uplink| is_needed && uplink.address.is_ipv4())
    }

    /// Returns the traffic to masquerade; `None` for none.
    fn egress_policy(&self, plan: &PodNetworkPlan) -> Option<EgressPolicy> {
        self.masquerade.then(|| EgressPolicy::new(plan, &self.not_masqueraded))
    }

    fn sync_egress(&mut self, plan: &PodNetworkPlan, is_full: bool, result: &mut NodeNetworkResult) {
        let policy = self.egress_policy(plan);
        match self.write_egress(policy.as_ref(), is_full) {
            Ok(changes) => result.egress_changes = changes,
            Err(error) => result.fail(Step::Egress, &error),
        }
    }

    fn write_egress(
        &mut self,
        policy: Option<&EgressPolicy>,
        is_full: bool,
    ) -> Result<ChangeCounts, EgressError> {
        let egress = self.egress()?;
        egress.set_policy(policy);
        if is_full {
            egress.request_full_sync();
        }
        Ok(egress.sync()?.changes)
    }

    /// Drops packets of pods with sources that are not theirs. Without it, pods work.
    fn check_sources(&mut self, plan: &PodNetworkPlan, is_full: bool, result: &mut NodeNetworkResult) {
        if self.checks_sources && !is_full {
            return;
        }
        match self.write_source_check(plan) {
            Ok(changes) => (self.checks_sources, result.source_check_changes) = (true, changes),
            Err(error) => {
                self.checks_sources = false;
                let text = format_args!(
                    "packets of pods with source addresses that are not theirs are not dropped (with the wiring ptp: of IPv6), as the \
                     kernel rejects the rule (CONFIG_NFT_FIB_INET): {error}"
                );
                result.warn(Step::Sources, &text);
            }
        }
    }

    fn write_source_check(&mut self, plan: &PodNetworkPlan) -> KernelResult<ChangeCounts> {
        let check = match &mut self.source_check {
            Some(check) => check,
            // The egress rules report a kernel without nf_tables.
            none => match SourceCheck::open()? {
                Some(opened) => none.insert(opened),
                None => return Ok(ChangeCounts::default()),
            },
        };
        check.sync(source_check(plan))
    }

    fn accept_forwarded(&mut self, plan: &PodNetworkPlan, result: &mut NodeNetworkResult) {
        let synced = self.forward.sync(&forwarded_cidrs(plan));
        for location in &synced.changed {
            tracing::info!(chain = %location, "traffic of pods is accepted: the chain drops forwarded packets");
        }
        for location in &synced.removed {
            tracing::info!(chain = %location, "rules for traffic of pods removed: the chain drops no forwarded packets");
        }
        synced.problems.iter().for_each(|problem| result.warn(Step::Firewall, problem));
        for chain in &synced.other_dropping_chains {
            // `FAMILY TABLE CHAIN`.
            let way_out = match chain.split(' ').nth(1) {
                Some("firewalld") => {
                    ": add each pod CIDR to a zone (firewall-cmd --permanent --zone=trusted --add-source=CIDR, then --reload)"
                }
                _ => "",
            };
            let text = format_args!(
                "the nf_tables chain {chain} drops forwarded packets which none of its rules accepts; it must accept those from and to \
                 pods{way_out}"
            );
            result.note(Step::Firewall, &text);
        }
    }

    fn remove_leaked_attachments(&self, result: &mut NodeNetworkResult) {
        let (removals, unreadable) = match leaked_attachments::remove(&self.installation.state_dir) {
            Ok(removed) => removed,
            Err(error) => return result.warn(Step::Addresses, &error),
        };
        for removal in removals {
            let (key, addresses) = (&removal.key, &removal.addresses);
            match &removal.result {
                Ok(()) => {
                    tracing::info!(attachment = %key, ?addresses, "returned the addresses of a pod that ended without a CNI DEL");
                    result.leaked_attachments += 1;
                }
                Err(error) => {
                    let text = format_args!("cannot return the addresses of the ended pod {key}: {error}");
                    result.warn(Step::Addresses, &text);
                }
            }
        }
        for file in unreadable {
            let text = format_args!(
                "{}: {}; its addresses are not allocated while the file exists",
                file.path.display(),
                file.reason
            );
            result.warn(Step::Addresses, &text);
        }
    }

    /// Warns of a range with few free addresses. The text has no numbers, so that each pod does not make it a new problem.
    fn check_addresses(&self, plan: &PodNetworkPlan, result: &mut NodeNetworkResult) {
        match address_usage(&self.installation.state_dir, &plan.pod_cidrs) {
            Ok(usage) => {
                for AddressUsage { range, .. } in usage.iter().filter(|usage| usage.is_low()) {
                    let text = format_args!(
                        "fewer than a tenth of the {} pod addresses in {range} are free; without any, no pod can be started \
                         (metric portcullis_pod_network_addresses)",
                        range.size()
                    );
                    result.warn(Step::Addresses, &text);
                }
            }
            Err(error) => result.warn(Step::Addresses, &error),
        }
    }

    fn install_plugin(&mut self, result: &mut NodeNetworkResult) {
        let stamp = |path: &Path| {
            let metadata = path.symlink_metadata().ok()?;
            Some((metadata.ino(), metadata.len(), metadata.ctime(), metadata.ctime_nsec()))
        };
        let path = self.installation.plugin();
        // The binaries are compared only after another process has changed the installed one.
        if self.plugin.is_none() || stamp(&path) != self.plugin {
            match self.installation.install_plugin(Path::new(OWN_BINARY)) {
                Ok(is_new) => {
                    result.plugin_installed = is_new;
                    self.plugin = stamp(&path);
                }
                Err(error) => return result.fail(Step::Plugin, &error),
            }
        }
        if let Err(error) = self.installation.install_loopback() {
            let text = format_args!("{error}; containerd starts no pods without the CNI plugin loopback");
            result.warn(Step::Plugin, &text);
        }
    }

    fn make_ready(&self, plan: &PodNetworkPlan, result: &mut NodeNetworkResult) {
        let reason = result.failures();
        if !reason.is_empty() {
            let reason = reason.join("; ");
            if let Err(error) = self.installation.set_not_ready(Some(&reason)) {
                result.fail(Step::Readiness, &error);
            }
            return;
        }
        let list = ConfigurationList::new(plan, &self.installation.state_dir);
        let written =
            self.installation.set_not_ready(None).and_then(|_| self.installation.write_configuration(&list));
        match written {
            Ok(is_new) => {
                result.is_ready = true;
                result.configuration_written = is_new;
            }
            Err(error) => result.fail(Step::Readiness, &error),
        }
        if let Some(preceding) = self.installation.preceding_configuration() {
            result.warn(Step::Readiness, &preceding);
        }
    }
}

/// Returns the families of this node's pods.
fn families(plan: &PodNetworkPlan) -> impl Iterator<Item = Family> {
    let has =
        |family: &Family| plan.pod_cidrs.iter().any(|cidr| Family::from_address(cidr.addr()) == *family);
    Family::ALL.into_iter().filter(has)
}

/// Returns the wiring for which sources of pods are checked, unless the kernel checks them itself: IPv4 with `ptp`.
fn source_check(plan: &PodNetworkPlan) -> Option<Wiring> {
    let needs_check = plan.wiring == Wiring::Bridge || families(plan).any(|family| family == Family::V6);
    needs_check.then_some(plan.wiring)
}

/// Returns the CIDRs from and to which packets are forwarded.
fn forwarded_cidrs(plan: &PodNetworkPlan) -> Vec<IpNet> {
    plan.cluster_pod_cidrs.iter().chain(&plan.pod_cidrs).copied().collect()
}

fn installation(config: &config::PodNetwork) -> Installation {
    Installation {
        bin_dir: config.cni_bin_dir.clone(),
        conf_dir: config.cni_conf_dir.clone(),
        state_dir: config.state_dir.clone(),
    }
}

/// Counts the addresses of pod CIDRs by use.
///
/// # Errors
/// The records of the plugin cannot be read.
pub(crate) fn address_usage(state_dir: &Path, pod_cidrs: &[IpNet]) -> addresses::Result<Vec<AddressUsage>> {
    // A pod CIDR without addresses for pods has nothing to count; the plugin reports it.
    let ranges: Vec<PodRange> = pod_cidrs.iter().filter_map(|cidr| PodRange::new(*cidr).ok()).collect();
    let folders = HOST_LOCAL_FOLDERS.map(PathBuf::from);
    AddressStore::open(state_dir, &ranges, &folders)?.usage()
}
