//! A running lab.

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

use crate::cluster::Cluster;
use crate::daemon::{Daemon, DaemonSpec};
use crate::echo::EchoServers;
use crate::error::{Error, Result};
use crate::netns::NetNs;
use crate::plan::{NodePlan, Plan, PlanOptions, PodPlan};
use crate::probe::{Prober, Vantage};
use crate::reaper::Reaper;
use crate::state::{self, LabState};
use crate::wiring::{self, Names, Wires};

/// The name of the host outside, in the answers of its echo server and for `lab exec`.
pub(crate) const OUTSIDE: &str = "outside";

/// How a lab is built.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LabOptions {
    /// Nodes, families, client pods.
    pub plan: PlanOptions,
    /// The daemon of each node; without one there are only wires and pods.
    pub daemon: Option<DaemonSpec>,
}

/// A cluster that runs in network namespaces of this machine, until the value is dropped or its process dies.
#[derive(Debug)]
pub struct Lab {
    state: LabState,
    names: Names,
    options: LabOptions,
    cluster: Cluster,
    plan: Plan,
    wires: Wires,
    echo: Option<EchoServers>,
    daemons: BTreeMap<String, Daemon>,
    /// Routes that were set by hand, then those that the lab chose.
    routed_by_hand: BTreeMap<IpNet, String>,
    routed: BTreeMap<IpNet, String>,
    /// When Services or endpoints changed last, in seconds since 1970.
    changed: f64,
    /// How many source ports matrices have taken.
    places_of_ports: AtomicUsize,
    reaper: Arc<Reaper>,
}

impl Lab {
    /// Builds a lab. Takes root; needs iproute2.
    ///
    /// # Errors
    /// When the objects make no cluster, or the system refuses a namespace. What was built by then is taken down.
    pub fn up(cluster: Cluster, options: LabOptions) -> Result<Self> {
        Self::up_named(None, cluster, options)
    }

    /// Builds a lab with a name of the caller's choice; see [`state::check_name`].
    ///
    /// # Errors
    /// As [`Lab::up`], and when there is a lab of that name.
    pub fn up_named(name: Option<&str>, cluster: Cluster, options: LabOptions) -> Result<Self> {
        let plan = cluster.plan_after(&Plan::default(), &options.plan)?;
        let id = name.map_or_else(state::new_id, str::to_owned);
        let folder = state::root().join(&id);
        make_folders(&folder)?;
        let prefix = state::prefix(&id);
        let reaper = Arc::new(Reaper::start(&prefix, &folder)?);
        let owner = std::process::id();
        let mut lab = Self {
            names: Names { prefix: prefix.clone() },
            state: LabState { id, prefix, folder, owner, places: Vec::new() },
            options,
            cluster,
            plan,
            wires: Wires::default(),
            echo: Some(EchoServers::start()?),
            daemons: BTreeMap::new(),
            routed_by_hand: BTreeMap::new(),
            routed: BTreeMap::new(),
            changed: now(),
            places_of_ports: AtomicUsize::new(0),
            reaper,
        };
        lab.build()?;
        Ok(lab)
    }

    fn build(&mut self) -> Result<()> {
        first_namespace()?;
        wiring::build(&self.plan, &self.names, &mut self.wires)?;
        self.serve_hosts()?;
        for pod in self.plan.pods.iter().filter(|pod| pod.runs) {
            self.echo().serve(&pod.name, &self.names.pod(pod), &pod.addresses, pod.ports.clone())?;
        }
        self.route_fronts()?;
        self.write_manifests()?;
        self.write_state()?;
        self.start_daemons()
    }

    /// The echo servers of the nodes and of the host outside, which stay as they are.
    fn serve_hosts(&self) -> Result<()> {
        for node in &self.plan.nodes {
            let addresses = [node.addresses.clone(), node.bridge()].concat();
            self.echo().serve(&node.name, &self.names.node(&node.name), &addresses, node.ports.clone())?;
        }
        let (addresses, ports) = &self.plan.outside;
        self.echo().serve(OUTSIDE, &self.names.outside(), addresses, ports.clone())
    }

    fn echo(&self) -> &EchoServers {
        self.echo.as_ref().expect("the echo servers end with the lab")
    }

    /// The lab's name, as `lab exec --name` takes it.
    pub fn id(&self) -> &str {
        &self.state.id
    }

    /// What other processes know of the lab.
    pub fn state(&self) -> &LabState {
        &self.state
    }

    /// What the lab is made of.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The objects that the plan was made of.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The lab's own folder: `manifests/`, `logs/`.
    pub fn folder(&self) -> &Path {
        &self.state.folder
    }

    /// The folder that the daemons read.
    pub fn manifests(&self) -> PathBuf {
        self.state.folder.join("manifests")
    }

    /// The network namespace of a vantage.
    ///
    /// # Errors
    /// When there is no such pod or node.
    pub fn netns(&self, vantage: &Vantage) -> Result<NetNs> {
        match vantage {
            Vantage::Outside => Ok(self.names.outside()),
            Vantage::Node(name) => Ok(self.names.node(&self.node(name)?.name)),
            Vantage::Pod(name) => {
                let pod = self.pod(name)?;
                let still =
                    || Error::plan(format!("Pod {}", pod.name), "does not run: there is nothing to enter");
                pod.runs.then(|| self.names.pod(pod)).ok_or_else(still)
            }
        }
    }

    /// Probes from a pod, a node, or outside.
    ///
    /// # Errors
    /// When there is no such pod or node.
    pub fn from(&self, vantage: Vantage) -> Result<Prober> {
        Ok(Prober::new(self.netns(&vantage)?))
    }

    fn pod(&self, name: &str) -> Result<&PodPlan> {
        let known = || Error::unknown("pod", name, self.plan.pods.iter().map(|pod| &pod.name));
        self.plan.pod(name).ok_or_else(known)
    }

    fn node(&self, name: &str) -> Result<&NodePlan> {
        let known = || Error::unknown("node", name, self.plan.nodes.iter().map(|node| &node.name));
        self.plan.node(name).ok_or_else(known)
    }

    fn write_manifests(&self) -> Result<()> {
        let list: Value = self.plan.to_list();
        let text = serde_json::to_vec_pretty(&list).expect("a JSON value has only text for keys");
        state::replace_file(&self.manifests().join("cluster.json"), &text)
    }

    fn write_state(&mut self) -> Result<()> {
        let netns = |netns: NetNs| netns.name().to_owned();
        let running = self.plan.pods.iter().filter(|pod| pod.runs);
        let mut places: Vec<_> = running.map(|pod| (pod.name.clone(), netns(self.names.pod(pod)))).collect();
        places.extend(
            self.plan.nodes.iter().map(|node| (node.name.clone(), netns(self.names.node(&node.name)))),
        );
        places.push((OUTSIDE.into(), netns(self.names.outside())));
        self.state.places = places;
        self.state.write()
    }

    /// Takes the lab down. Dropping it does the same, and logs what this returns.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn down(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        self.echo = None;
        let ended = self.reaper.finish();
        self.daemons.values_mut().for_each(Daemon::reap);
        self.daemons.clear();
        ended
    }

    pub(crate) fn places_of_ports(&self) -> &AtomicUsize {
        &self.places_of_ports
    }

    pub(crate) fn reaper(&self) -> Arc<Reaper> {
        Arc::clone(&self.reaper)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, "the lab may have left something behind");
        }
    }
}

/// Makes sure that /run/netns is there: the first `ip netns add` of a machine mounts it, and two at a time clash.
fn first_namespace() -> Result<()> {
    let run = Path::new("/run");
    let file = File::open(run).map_err(Error::file("cannot open", run))?;
    // SAFETY: the descriptor is open for the whole call; the lock ends with it.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) } != 0 {
        return Err(Error::file("cannot lock", run)(std::io::Error::last_os_error()));
    }
    let probe = format!("pcl-first-{}", std::process::id());
    crate::netns::ip_batch(&[], &[format!("netns add {probe}"), format!("netns del {probe}")])
}

/// Makes the folders of a lab, which no other lab may have. The reaper of another one may remove the empty folder of all
/// labs just then.
fn make_folders(folder: &Path) -> Result<()> {
    let own = || {
        folder.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::create_dir(folder)
    };
    let again = |error: std::io::Error| if error.kind() == ErrorKind::NotFound { own() } else { Err(error) };
    let made = own().or_else(again).or_else(again);
    match made
        .and_then(|()| ["manifests", "logs"].iter().try_for_each(|name| fs::create_dir(folder.join(name))))
    {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(Error::NameTaken(folder.file_name().unwrap_or_default().to_string_lossy().into_owned()))
        }
        Err(error) => Err(Error::file("cannot make", folder)(error)),
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
