//! `lab run`: build, probe every Service from everywhere, take down.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::error::Result;
use crate::expectation::{Judge, excused, expected, where_judged};
use crate::interrupt;
use crate::mode::Mode;
use crate::plan::service_defaults::{has_type, is_headless};
use crate::plan::{Front, FrontKind, Plan, Protocol};
use crate::probe::{TIMEOUT, Tally, Vantage};
use crate::report::{Report, Row};
use crate::running::{Lab, LabOptions};

/// How a run is done.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// How the lab is built.
    pub lab: LabOptions,
    /// How the daemons serve; they must be told by [`LabOptions::daemon`].
    pub mode: Mode,
    /// How many probes each row of the table gets.
    pub probes: usize,
    /// How long a probe waits.
    pub timeout: Duration,
    /// How long the daemons may take to serve the manifests.
    pub sync_timeout: Duration,
}

impl Default for RunOptions {
    fn default() -> Self {
        let sync_timeout = Duration::from_secs(30);
        let (lab, mode) = (LabOptions::default(), Mode::default());
        Self { lab, mode, probes: 24, timeout: TIMEOUT, sync_timeout }
    }
}

/// Builds a lab from a folder of manifests, probes it, and takes it down. SIGINT, SIGTERM and SIGHUP take it down too,
/// and then end the process with 128 and the signal's number. To be called from a thread that no other was started
/// before, or else a signal may reach one that does not wait for it.
///
/// # Errors
/// When the manifests make no cluster, the system refuses a namespace, or a daemon does not sync.
pub fn run(folder: impl AsRef<Path>, options: &RunOptions) -> Result<Report> {
    run_with(Cluster::read(folder)?, options, |lab| probe(lab, options))
}

/// Builds a lab, has this done in it once the daemons serve it, and takes it down; signals as for [`run`].
///
/// # Errors
/// As [`run`], and what `work` returns.
pub fn run_with<T>(
    cluster: Cluster,
    options: &RunOptions,
    work: impl FnOnce(&mut Lab) -> Result<T>,
) -> Result<T> {
    let signals = interrupt::block()?;
    let mut lab = Lab::up(cluster, options.lab.clone())?;
    let reaper = lab.reaper();
    signals.watch(move || {
        // What it complains of is in the log; the process ends anyhow.
        let _ = reaper.finish();
    })?;
    lab.wait_synced(options.sync_timeout)?;
    let done = work(&mut lab)?;
    lab.check_daemons()?;
    lab.down()?;
    Ok(done)
}

/// Probes every Service of a lab from a pod on each node, from each node and from outside.
///
/// # Errors
/// When the lab was built without client pods.
pub fn probe(lab: &Lab, options: &RunOptions) -> Result<Report> {
    probe_judged(lab, options, None)
}

/// The same where policies are enforced, which `judge` knows.
///
/// # Errors
/// As [`probe`].
pub fn probe_judged(lab: &Lab, options: &RunOptions, judge: Option<&Judge<'_>>) -> Result<Report> {
    let plan = lab.plan();
    let mut vantages = Vec::new();
    for node in &plan.nodes {
        vantages.push(Vantage::client_on(&node.name));
    }
    vantages.extend(plan.nodes.iter().map(|node| Vantage::node(&node.name)));
    vantages.push(Vantage::Outside);
    let mut report = Report::default();
    let mut planned = Vec::new();
    for service in &plan.services {
        let meta = &service.metadata;
        let name = [meta.namespace.as_deref(), meta.name.as_deref()].map(Option::unwrap_or_default).join("/");
        let fronts = plan.fronts(service);
        if fronts.is_empty() {
            let spec = service.spec.clone().unwrap_or_default();
            let why = match () {
                () if has_type(&spec, "ExternalName") => "an ExternalName is only a name: nothing to probe",
                () if is_headless(&spec) => "headless: clients meet its pods directly, nothing to probe",
                () => "has no ports: nothing to probe",
            };
            report.unprobed.push((name.clone(), why));
        }
        for front in fronts {
            // Cluster IPs are not routed outside of a cluster.
            let from =
                vantages.iter().filter(|v| front.kind != FrontKind::ClusterIp || **v != Vantage::Outside);
            planned.extend(from.map(|vantage| (service, name.clone(), front.clone(), vantage.clone())));
        }
    }
    let tallies = probe_all(lab, options, planned.iter().map(|(_, _, front, vantage)| (front, vantage)))?;
    for ((service, name, front, vantage), tally) in planned.into_iter().zip(tallies) {
        let (node, client) = whereabouts(plan, &vantage);
        let mut expected = expected(plan, options.mode, service, &front, &vantage, node.as_deref());
        if let Some(judge) = judge {
            let sources = seen_by_pods(plan, &front, &vantage, &client);
            expected = where_judged(expected, plan, service, &front, &sources, judge);
        }
        let judged = tally.as_ref().map(|tally| excused(options.mode, plan, tally));
        let complaint = judged.and_then(|judged| expected.complaint(&judged, &client));
        let seen_as = tally.iter().flat_map(|tally| &tally.sources).filter(|source| !client.contains(source));
        let seen_as = seen_as.map(|source| owner_of(plan, *source)).collect();
        report.rows.push(Row { service: name, front, vantage, client, tally, complaint, seen_as });
    }
    Ok(report)
}

/// Probes in parallel, a thread a vantage, since most of the time goes in waiting for what is dropped.
fn probe_all<'a>(
    lab: &Lab,
    options: &RunOptions,
    rows: impl Iterator<Item = (&'a Front, &'a Vantage)>,
) -> Result<Vec<Option<Tally>>> {
    let rows: Vec<_> = rows.collect();
    let mut probers = Vec::new();
    for (front, vantage) in &rows {
        let mut prober = lab.from((*vantage).clone())?.timeout(options.timeout);
        if options.mode == Mode::Ipvs {
            prober = prober.ports_apart();
        }
        let spoken = Protocol::named(&front.protocol).filter(|protocol| protocol.is_spoken());
        probers.push(spoken.map(|protocol| (prober, protocol, front.address)));
    }
    let probers = Arc::new(probers);
    let width = 8.min(rows.len()).max(1);
    let tallies = thread::scope(|scope| {
        let workers: Vec<_> = (0..width)
            .map(|worker| {
                let probers = Arc::clone(&probers);
                scope.spawn(move || {
                    let mine = probers.iter().enumerate().skip(worker).step_by(width);
                    let probe = |(prober, protocol, to): &(crate::Prober, Protocol, std::net::SocketAddr)| {
                        prober.probe_many(*protocol, *to, options.probes)
                    };
                    mine.map(|(index, row)| (index, row.as_ref().map(probe))).collect::<Vec<_>>()
                })
            })
            .collect();
        let mut tallies = vec![None; probers.len()];
        for worker in workers {
            let done = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            done.into_iter().for_each(|(index, tally)| tallies[index] = tally);
        }
        tallies
    });
    Ok(tallies)
}

/// The node of a vantage, and the addresses that are its own.
fn whereabouts(plan: &Plan, vantage: &Vantage) -> (Option<String>, Vec<IpAddr>) {
    match vantage {
        Vantage::Pod(name) => match plan.pod(name) {
            Some(pod) => (Some(pod.node.clone()), pod.addresses.clone()),
            None => (None, Vec::new()),
        },
        Vantage::Node(name) => {
            let own = plan.node(name).map(|node| node.addresses.clone());
            (Some(name.clone()), own.unwrap_or_default())
        }
        Vantage::Outside => (None, crate::wiring::outside_clients()),
    }
}

/// The addresses that pods may see the client as: its own, and where it may be masqueraded, those of all nodes.
fn seen_by_pods(plan: &Plan, front: &Front, vantage: &Vantage, client: &[IpAddr]) -> Vec<IpAddr> {
    let mut sources = client.to_vec();
    if front.kind != FrontKind::ClusterIp || !matches!(vantage, Vantage::Pod(_)) {
        sources.extend(plan.nodes.iter().flat_map(|node| [node.addresses.clone(), node.bridge()].concat()));
    }
    sources
}

/// Whose address it is.
fn owner_of(plan: &Plan, address: IpAddr) -> String {
    let node =
        plan.nodes.iter().find(|node| node.addresses.contains(&address) || node.bridge().contains(&address));
    let pod = plan.pods.iter().find(|pod| pod.addresses.contains(&address) && !pod.host_network);
    match (node, pod) {
        (Some(node), _) => format!("{} ({address})", node.name),
        (None, Some(pod)) => format!("{} ({address})", pod.name),
        (None, None) => address.to_string(),
    }
}
