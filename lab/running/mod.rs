//! A running lab: construction, access and removal.

mod daemons;
mod follow;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::SystemTime;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cluster_objects::ClusterObjects;
use crate::daemon::{Daemon, DaemonSpec};
use crate::echo_server::EchoServers;
use crate::error::{Error, Result};
use crate::lab_record::{self, LabRecord};
use crate::netns::NetNs;
use crate::network::{self, NetNsNames, VethNames, Wiring};
use crate::plan::{ClusterPlan, NodePlan, PlanOptions, PodPlan};
use crate::pod_network::PluginWiring;
use crate::probe::{Prober, Vantage};
use crate::reaper::Reaper;

/// Name of the outside host, in the replies of its echo server and for `lab exec`.
pub(crate) const OUTSIDE: &str = "outside";

/// Options for building a lab.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LabOptions {
    /// Nodes, families, client pods.
    pub plan: PlanOptions,
    /// The daemon of each node; if `None`, there are only links and pods.
    pub daemon: Option<DaemonSpec>,
}

/// A cluster that runs in network namespaces of this machine, until the value is dropped or its process dies.
#[derive(Debug)]
pub struct Lab {
    record: LabRecord,
    names: NetNsNames,
    options: LabOptions,
    cluster: ClusterObjects,
    plan: ClusterPlan,
    wiring: Wiring,
    echo: Option<EchoServers>,
    daemons: BTreeMap<String, Daemon>,
    /// Routes set by [`Lab::route_from_outside`], then all routes of the outside host to Services' addresses.
    explicit_routes: BTreeMap<IpNet, String>,
    routes: BTreeMap<IpNet, String>,
    /// Time of the last change of Services or endpoints, in seconds since 1970.
    changed: f64,
    /// Number of source ports that matrices have used.
    source_ports_taken: AtomicUsize,
    reaper: Arc<Reaper>,
}

impl Lab {
    /// Builds a lab. Needs root and iproute2.
    ///
    /// # Errors
    /// No cluster can be made from the objects, or a system call or tool failed. A lab built in part is removed.
    pub fn up(cluster: ClusterObjects, options: LabOptions) -> Result<Self> {
        Self::up_named(None, cluster, options)
    }

    /// Builds a lab with a chosen name; see [`lab_record::check_name`].
    ///
    /// # Errors
    /// As [`Lab::up`], and when a lab of that name exists.
    pub fn up_named(name: Option<&str>, cluster: ClusterObjects, options: LabOptions) -> Result<Self> {
        let plan = cluster.plan_after(&ClusterPlan::default(), &options.plan)?;
        let id = name.map_or_else(lab_record::new_id, str::to_owned);
        let folder = lab_record::root().join(&id);
        make_folders(&folder)?;
        let prefix = lab_record::prefix(&id);
        let reaper = Arc::new(Reaper::start(&prefix, &folder)?);
        let owner = std::process::id();
        let wiring = wiring(&options, &folder);
        let mut lab = Self {
            names: NetNsNames { prefix: prefix.clone() },
            record: LabRecord {
                id,
                prefix,
                folder,
                owner,
                namespaces: Vec::new(),
                daemon: options.daemon.clone(),
            },
            options,
            cluster,
            plan,
            wiring,
            echo: Some(EchoServers::start()?),
            daemons: BTreeMap::new(),
            explicit_routes: BTreeMap::new(),
            routes: BTreeMap::new(),
            changed: now(),
            source_ports_taken: AtomicUsize::new(0),
            reaper,
        };
        lab.build()?;
        Ok(lab)
    }

    fn build(&mut self) -> Result<()> {
        ensure_netns_mount()?;
        let has_own_wiring = matches!(self.wiring, Wiring::Independent(_));
        network::build(&self.plan, &self.names, has_own_wiring)?;
        self.serve_hosts()?;
        if !has_own_wiring {
            // The daemons provide the network of pods.
            self.write_manifests()?;
            self.start_daemons()?;
            self.wait_pod_network()?;
        }
        let pods: Vec<&PodPlan> = self.plan.pods.iter().filter(|pod| pod.has_own_netns()).collect();
        network::add_pods(&pods, &self.plan, &self.names, &mut self.wiring)?;
        for pod in self.plan.pods.iter().filter(|pod| pod.is_running) {
            self.echo().serve(&pod.name, &self.names.pod(pod), &pod.addresses, pod.ports.clone())?;
        }
        self.route_external_addresses()?;
        self.write_manifests()?;
        self.write_record()?;
        self.start_daemons()
    }

    /// Starts the echo servers of the nodes and of the outside host, which do not change.
    fn serve_hosts(&self) -> Result<()> {
        for node in &self.plan.nodes {
            let bridge = match &self.wiring {
                Wiring::Independent(_) => node.bridge_addresses(),
                Wiring::Plugins(_) => Vec::new(),
            };
            let addresses = [node.addresses.clone(), bridge].concat();
            self.echo().serve(&node.name, &self.names.node(&node.name), &addresses, node.ports.clone())?;
        }
        let (addresses, ports) = &self.plan.outside;
        self.echo().serve(OUTSIDE, &self.names.outside(), addresses, ports.clone())
    }

    fn echo(&self) -> &EchoServers {
        self.echo.as_ref().expect("the echo servers run until the lab ends")
    }

    /// Returns the lab's name, as `lab exec --name` takes it.
    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// Returns the record that other processes read.
    pub fn record(&self) -> &LabRecord {
        &self.record
    }

    /// Returns the current plan.
    pub fn plan(&self) -> &ClusterPlan {
        &self.plan
    }

    /// Returns the objects from which the plan was made.
    pub fn cluster(&self) -> &ClusterObjects {
        &self.cluster
    }

    /// Returns the lab's folder, with `manifests/` and `logs/`.
    pub fn folder(&self) -> &Path {
        &self.record.folder
    }

    /// Returns the folder of manifests that the daemons read.
    pub fn manifests(&self) -> PathBuf {
        self.record.folder.join("manifests")
    }

    /// Returns the network namespace of a vantage point.
    ///
    /// # Errors
    /// No such pod or node, or the pod is not running.
    pub fn netns(&self, vantage: &Vantage) -> Result<NetNs> {
        match vantage {
            Vantage::Outside => Ok(self.names.outside()),
            Vantage::Node(name) => Ok(self.names.node(&self.node(name)?.name)),
            Vantage::Pod(name) => {
                let pod = self.pod(name)?;
                let not_running = || {
                    Error::plan(format!("Pod {}", pod.name), "is not running and has no network namespace")
                };
                pod.is_running.then(|| self.names.pod(pod)).ok_or_else(not_running)
            }
        }
    }

    /// Returns a prober in a pod, on a node, or outside.
    ///
    /// # Errors
    /// No such pod or node, or the pod is not running.
    pub fn prober(&self, vantage: Vantage) -> Result<Prober> {
        Ok(Prober::new(self.netns(&vantage)?))
    }

    fn pod(&self, name: &str) -> Result<&PodPlan> {
        let known = || Error::not_found("pod", name, self.plan.pods.iter().map(|pod| &pod.name));
        self.plan.pod(name).ok_or_else(known)
    }

    fn node(&self, name: &str) -> Result<&NodePlan> {
        let known = || Error::not_found("node", name, self.plan.nodes.iter().map(|node| &node.name));
        self.plan.node(name).ok_or_else(known)
    }

    fn write_manifests(&self) -> Result<()> {
        let list: Value = self.plan.to_list();
        let text = serde_json::to_vec_pretty(&list).expect("a JSON value has only strings for keys");
        lab_record::replace_file(&self.manifests().join("cluster.json"), &text)
    }

    fn write_record(&mut self) -> Result<()> {
        let netns = |netns: NetNs| netns.name().to_owned();
        let running = self.plan.pods.iter().filter(|pod| pod.is_running);
        let mut namespaces: Vec<_> =
            running.map(|pod| (pod.name.clone(), netns(self.names.pod(pod)))).collect();
        namespaces.extend(
            self.plan.nodes.iter().map(|node| (node.name.clone(), netns(self.names.node(&node.name)))),
        );
        namespaces.push((OUTSIDE.into(), netns(self.names.outside())));
        self.record.namespaces = namespaces;
        self.record.write()
    }

    /// Removes the lab. Dropping it does the same, and logs the error.
    ///
    /// # Errors
    /// Part of the lab could not be removed.
    pub fn down(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        self.echo = None;
        let ended = self.reaper.finish();
        self.daemons.values_mut().for_each(Daemon::reap);
        self.daemons.clear();
        if let Wiring::Plugins(plugins) = &mut self.wiring {
            plugins.reap();
        }
        ended
    }

    pub(crate) fn source_ports_taken(&self) -> &AtomicUsize {
        &self.source_ports_taken
    }

    pub(crate) fn reaper(&self) -> Arc<Reaper> {
        Arc::clone(&self.reaper)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, "lab was not removed completely");
        }
    }
}

/// Returns the wiring of a new lab.
fn wiring(options: &LabOptions, folder: &Path) -> Wiring {
    let plugins = options.daemon.as_ref().and_then(|daemon| {
        let mode = daemon.pod_network?;
        Some(PluginWiring::new(mode, folder, &daemon.binary))
    });
    plugins.map_or_else(|| Wiring::Independent(VethNames::default()), Wiring::Plugins)
}

/// Ensures that /run/netns is mounted. The first `ip netns add` on a machine mounts it, and two concurrent mounts conflict.
fn ensure_netns_mount() -> Result<()> {
    let run = Path::new("/run");
    let file = File::open(run).map_err(Error::file("cannot open", run))?;
    // SAFETY: the descriptor is open for the whole call; the lock ends with it.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) } != 0 {
        return Err(Error::file("cannot lock", run)(std::io::Error::last_os_error()));
    }
    let probe = format!("pcl-first-{}", std::process::id());
    crate::netns::ip_batch(&[], &[format!("netns add {probe}"), format!("netns del {probe}")])
}

/// Creates the folders of a lab; fails if another lab has the same name. Retries, because the reaper of another lab may
/// remove the empty parent folder at the same time.
fn make_folders(folder: &Path) -> Result<()> {
    let create = || {
        folder.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::create_dir(folder)
    };
    let retry =
        |error: std::io::Error| if error.kind() == ErrorKind::NotFound { create() } else { Err(error) };
    let created = create().or_else(retry).or_else(retry);
    match created
        .and_then(|()| ["manifests", "logs"].iter().try_for_each(|name| fs::create_dir(folder.join(name))))
    {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(Error::NameTaken(folder.file_name().unwrap_or_default().to_string_lossy().into_owned()))
        }
        Err(error) => Err(Error::file("cannot create", folder)(error)),
    }
}

/// Returns the current time in seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
