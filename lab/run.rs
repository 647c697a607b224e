//! `lab run`: builds a lab, probes every Service from every vantage point, and removes the lab.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::cluster_objects::ClusterObjects;
use crate::data_path::DataPath;
use crate::error::Result;
use crate::expectation::{
    Expectation, IpvsLosses, PolicyCheck, expectation, restricted_by_policies, tolerating_ipvs_losses,
};
use crate::plan::service_defaults::{has_type, is_headless};
use crate::plan::{ClusterPlan, Frontend, FrontendKind, NodePlan, Protocol};
use crate::probe::{ProbeTally, TIMEOUT, Vantage};
use crate::probe_report::{ProbeReport, ProbeRow, RowCheck};
use crate::running::{Lab, LabOptions};
use crate::signals;

/// Options for a run.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Options for building the lab.
    pub lab: LabOptions,
    /// The data path of the daemons' proxy mode; the mode itself is an argument in [`LabOptions::daemon`].
    pub data_path: DataPath,
    /// Number of probes per row of the table.
    pub probes: usize,
    /// Timeout of a probe.
    pub timeout: Duration,
    /// Timeout of the daemons' first sync.
    pub sync_timeout: Duration,
}

impl Default for RunOptions {
    fn default() -> Self {
        let sync_timeout = Duration::from_secs(30);
        let (lab, data_path) = (LabOptions::default(), DataPath::default());
        Self { lab, data_path, probes: 24, timeout: TIMEOUT, sync_timeout }
    }
}

/// Builds a lab from a folder of manifests, probes it, and removes it. SIGINT, SIGTERM and SIGHUP remove it too, and then
/// exit the process with 128 plus the signal's number. Must be called before any other thread is started, because a
/// signal may otherwise be delivered to a thread that does not block it.
///
/// # Errors
/// No cluster can be made from the manifests, a system call or tool failed, or a daemon does not sync.
pub fn run(folder: impl AsRef<Path>, options: &RunOptions) -> Result<ProbeReport> {
    run_with(ClusterObjects::read(folder)?, options, |lab| probe(lab, options))
}

/// Builds a lab, runs `work` once the daemons have synced, and removes the lab; signals as for [`run`].
///
/// # Errors
/// As [`run`], and the errors of `work`.
pub fn run_with<T>(
    cluster: ClusterObjects,
    options: &RunOptions,
    work: impl FnOnce(&mut Lab) -> Result<T>,
) -> Result<T> {
    let signals = signals::block()?;
    let mut lab = Lab::up(cluster, options.lab.clone())?;
    let reaper = lab.reaper();
    signals.watch(move || {
        // The process exits anyway.
        let _ = reaper.finish();
    })?;
    lab.wait_synced(options.sync_timeout)?;
    let result = work(&mut lab)?;
    lab.check_daemons()?;
    lab.down()?;
    Ok(result)
}

/// Probes every Service of a lab from a pod on each node, from each node and from outside.
///
/// # Errors
/// The lab was built without client pods.
pub fn probe(lab: &Lab, options: &RunOptions) -> Result<ProbeReport> {
    probe_with_policies(lab, options, None)
}

/// Probes every Service as [`probe`] does, where network policies are enforced.
///
/// # Errors
/// As [`probe`].
pub fn probe_with_policies(
    lab: &Lab,
    options: &RunOptions,
    policies: Option<&PolicyCheck<'_>>,
) -> Result<ProbeReport> {
    let plan = lab.plan();
    let mut vantages = Vec::new();
    for node in &plan.nodes {
        vantages.push(Vantage::client_on(&node.name));
    }
    vantages.extend(plan.nodes.iter().map(|node| Vantage::node(&node.name)));
    vantages.push(Vantage::Outside);
    let mut report = ProbeReport::default();
    let mut planned = Vec::new();
    for service in &plan.services {
        let meta = &service.metadata;
        let name = [meta.namespace.as_deref(), meta.name.as_deref()].map(Option::unwrap_or_default).join("/");
        let frontends = plan.frontends(service);
        if frontends.is_empty() {
            let spec = service.spec.clone().unwrap_or_default();
            let why = match () {
                () if has_type(&spec, "ExternalName") => "ExternalName: nothing to probe",
                () if is_headless(&spec) => {
                    "headless: clients connect to its pods directly, nothing to probe"
                }
                () => "no ports: nothing to probe",
            };
            report.skipped.push((name.clone(), why));
        }
        for frontend in frontends {
            // Cluster IPs are not routed outside of the cluster.
            let from = vantages
                .iter()
                .filter(|v| frontend.kind != FrontendKind::ClusterIp || **v != Vantage::Outside);
            planned.extend(from.map(|vantage| (service, name.clone(), frontend.clone(), vantage.clone())));
        }
    }
    let tallies =
        probe_all(lab, options, planned.iter().map(|(_, _, frontend, vantage)| (frontend, vantage)))?;
    let mut ipvs_losses = Vec::new();
    for ((service, name, frontend, vantage), tally) in planned.into_iter().zip(tallies) {
        let (node, client) = location(plan, &vantage);
        let mut expected =
            expectation(plan, options.data_path, service, &frontend, &vantage, node.as_deref());
        if let Some(policies) = policies {
            let sources = possible_sources(plan, &frontend, &vantage, &client);
            expected = restricted_by_policies(expected, plan, service, &frontend, &sources, policies);
        }
        let check = match (&tally, &expected) {
            (None, _) | (_, Expectation::Unspecified) => RowCheck::Unchecked,
            (Some(tally), expected) => {
                if matches!(expected, Expectation::AnswerFrom { .. }) {
                    ipvs_losses.push(IpvsLosses::new(options.data_path, plan, tally));
                }
                let checked = tolerating_ipvs_losses(options.data_path, plan, tally);
                expected.violation(&checked, &client).map_or(RowCheck::Met, RowCheck::Violated)
            }
        };
        let sources = tally.iter().flat_map(|tally| &tally.sources).filter(|source| !client.contains(source));
        let translated_to = sources.map(|source| owner_of_address(plan, *source)).collect();
        report.rows.push(ProbeRow { service: name, frontend, vantage, client, tally, check, translated_to });
    }
    report.ipvs_losses = ipvs_losses.into_iter().sum();
    Ok(report)
}

/// Probes all rows in parallel, because most of the time is spent waiting for timeouts.
fn probe_all<'a>(
    lab: &Lab,
    options: &RunOptions,
    rows: impl Iterator<Item = (&'a Frontend, &'a Vantage)>,
) -> Result<Vec<Option<ProbeTally>>> {
    let rows: Vec<_> = rows.collect();
    let mut probers = Vec::new();
    for (frontend, vantage) in &rows {
        let mut prober = lab.prober((*vantage).clone())?.timeout(options.timeout);
        if options.data_path == DataPath::Ipvs {
            prober = prober.unique_source_ports();
        }
        let supported = Protocol::parse(&frontend.protocol).filter(|protocol| protocol.is_supported());
        probers.push(supported.map(|protocol| (prober, protocol, frontend.address)));
    }
    let probers = Arc::new(probers);
    let width = 8.min(rows.len()).max(1);
    let tallies = thread::scope(|scope| {
        let workers: Vec<_> = (0..width)
            .map(|worker| {
                let probers = Arc::clone(&probers);
                scope.spawn(move || {
                    let own = probers.iter().enumerate().skip(worker).step_by(width);
                    let probe = |(prober, protocol, to): &(crate::Prober, Protocol, std::net::SocketAddr)| {
                        prober.probe_many(*protocol, *to, options.probes)
                    };
                    own.map(|(index, row)| (index, row.as_ref().map(probe))).collect::<Vec<_>>()
                })
            })
            .collect();
        let mut tallies = vec![None; probers.len()];
        for worker in workers {
            let probed = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            probed.into_iter().for_each(|(index, tally)| tallies[index] = tally);
        }
        tallies
    });
    Ok(tallies)
}

/// Returns the node of a vantage point, and its addresses.
fn location(plan: &ClusterPlan, vantage: &Vantage) -> (Option<String>, Vec<IpAddr>) {
    match vantage {
        Vantage::Pod(name) => match plan.pod(name) {
            Some(pod) => (Some(pod.node.clone()), pod.addresses.clone()),
            None => (None, Vec::new()),
        },
        Vantage::Node(name) => {
            let own = plan.node(name).map(|node| node.addresses.clone());
            (Some(name.clone()), own.unwrap_or_default())
        }
        Vantage::Outside => (None, crate::network::outside_clients()),
    }
}

/// Returns the source addresses that pods may see for a client: its own, and where it may be masqueraded, those of all
/// nodes.
fn possible_sources(
    plan: &ClusterPlan,
    frontend: &Frontend,
    vantage: &Vantage,
    client: &[IpAddr],
) -> Vec<IpAddr> {
    let mut sources = client.to_vec();
    if frontend.kind != FrontendKind::ClusterIp || !matches!(vantage, Vantage::Pod(_)) {
        sources.extend(plan.nodes.iter().flat_map(NodePlan::own_addresses));
    }
    sources
}

/// Returns the name of the node or pod with an address, and the address.
fn owner_of_address(plan: &ClusterPlan, address: IpAddr) -> String {
    let node = plan.nodes.iter().find(|node| node.own_addresses().contains(&address));
    let pod = plan.pods.iter().find(|pod| pod.addresses.contains(&address) && !pod.host_network);
    match (node, pod) {
        (Some(node), _) => format!("{} ({address})", node.name),
        (None, Some(pod)) => format!("{} ({address})", pod.name),
        (None, None) => address.to_string(),
    }
}
