//! A running lab.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cluster::{Cluster, Object, ObjectRef};
use crate::daemon::{Daemon, DaemonSpec};
use crate::echo::EchoServers;
use crate::error::{Error, Result};
use crate::netns::NetNs;
use crate::plan::{FrontKind, NodePlan, Plan, PlanOptions, PodPlan};
use crate::probe::{Prober, Vantage};
use crate::reaper::Reaper;
use crate::state::{self, LabState};
use crate::synced::{self, SyncTimes};
use crate::wiring::{self, Names, Wires};

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
    changed: Change,
    reaper: Arc<Reaper>,
}

/// The last change that daemons have to follow.
#[derive(Debug)]
struct Change {
    at: f64,
    /// Whether daemons were running at the time.
    running: bool,
}

impl Lab {
    /// Builds a lab. Takes root; needs iproute2.
    ///
    /// # Errors
    /// When the objects make no cluster, or the system refuses a namespace. What was built by then is taken down.
    pub fn up(cluster: Cluster, options: LabOptions) -> Result<Self> {
        let plan = cluster.plan_after(&Plan::default(), &options.plan)?;
        let id = state::new_id();
        let root = state::root();
        let folder = root.join(&id);
        for folder in [folder.join("manifests"), folder.join("logs")] {
            fs::create_dir_all(&folder).map_err(Error::file("cannot make", &folder))?;
        }
        let prefix = format!("pcl-{id}-");
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
            changed: Change { at: now(), running: false },
            reaper,
        };
        lab.build(&root)?;
        Ok(lab)
    }

    fn build(&mut self, root: &Path) -> Result<()> {
        first_namespace(root)?;
        wiring::build(&self.plan, &self.names, &mut self.wires)?;
        for pod in &self.plan.pods {
            self.echo().serve(&pod.name, &self.names.pod(pod), &pod.addresses, pod.ports.clone())?;
        }
        self.route_fronts()?;
        self.write_manifests()?;
        self.write_state()?;
        self.start_daemons()
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
            Vantage::Pod(name) => Ok(self.names.pod(self.pod(name)?)),
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

    /// Adds or replaces objects, and follows: pods come and go, slices are made anew, daemons see the new manifests.
    ///
    /// # Errors
    /// When the objects make no cluster; then nothing has changed. When the system refuses; then the lab is best
    /// dropped.
    pub fn apply(&mut self, objects: impl IntoIterator<Item = Object>) -> Result<()> {
        self.update(|cluster| cluster.extend(objects))
    }

    /// [`apply`](Self::apply) for YAML or JSON text.
    ///
    /// # Errors
    /// As `apply`, and when the text is malformed.
    pub fn apply_text(&mut self, manifests: &str) -> Result<()> {
        self.apply(crate::manifests::parse(manifests, "manifest")?)
    }

    /// Deletes an object that was given to the lab. The pods of a Deployment go with it, or by its `replicas`.
    ///
    /// # Errors
    /// When there is no such object; otherwise as [`apply`](Self::apply).
    pub fn delete(&mut self, object: &ObjectRef) -> Result<()> {
        let names: Vec<String> = self.cluster.objects().map(|object| object.name().to_string()).collect();
        if self.cluster.get(object).is_none() {
            return Err(Error::unknown("object", &object.to_string(), &names));
        }
        self.update(|cluster| {
            cluster.delete(object);
        })
    }

    /// Changes the objects in any way, and follows once.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn update(&mut self, change: impl FnOnce(&mut Cluster)) -> Result<()> {
        let mut cluster = self.cluster.clone();
        change(&mut cluster);
        let plan = cluster.plan_after(&self.plan, &self.options.plan)?;
        let names = |plan: &Plan| plan.nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>();
        if let Some(new) = names(&plan).into_iter().find(|name| self.plan.node(name).is_none()) {
            let message = "cannot join a lab that runs; give it when the lab is built";
            return Err(Error::plan(format!("Node {new}"), message));
        }
        let before = std::mem::replace(&mut self.plan, plan);
        self.cluster = cluster;
        self.follow(&before)
    }

    /// Makes the namespaces and the manifests what the plan says now.
    fn follow(&mut self, before: &Plan) -> Result<()> {
        let stays = |pod: &PodPlan, plan: &Plan| {
            plan.pod(&pod.name).is_some_and(|twin| {
                (&twin.node, &twin.addresses, twin.host_network)
                    == (&pod.node, &pod.addresses, pod.host_network)
            })
        };
        let gone: Vec<&PodPlan> = before.pods.iter().filter(|pod| !stays(pod, &self.plan)).collect();
        let new: Vec<&PodPlan> = self.plan.pods.iter().filter(|pod| !stays(pod, before)).collect();
        let echo = self.echo.as_ref().expect("the echo servers end with the lab");
        gone.iter().for_each(|pod| echo.close(&pod.name));
        wiring::remove_pods(&wired(gone), &self.names, &mut self.wires)?;
        wiring::add_pods(&wired(new), &self.plan, &self.names, &mut self.wires)?;
        for pod in &self.plan.pods {
            let known = before.pod(&pod.name).filter(|twin| stays(twin, &self.plan));
            let served = known.map(|twin| twin.ports.clone()).unwrap_or_default();
            let wanted = pod.ports.clone();
            if served.difference(&wanted).next().is_some() {
                echo.close_ports(&pod.name, move |port| !wanted.contains(&port));
            }
            let fresh: Vec<_> = pod.ports.difference(&served).copied().collect();
            echo.serve(&pod.name, &self.names.pod(pod), &pod.addresses, fresh)?;
        }
        self.route_fronts()?;
        if self.plan.services != before.services || self.plan.slices != before.slices {
            self.changed = Change { at: now(), running: !self.daemons.is_empty() };
        }
        self.write_manifests()?;
        self.write_state()
    }

    /// Sets a pod's readiness, as its kubelet would.
    ///
    /// # Errors
    /// When there is no such pod; otherwise as [`apply`](Self::apply).
    pub fn set_ready(&mut self, pod: &str, ready: bool) -> Result<()> {
        self.change_pod(pod, |pod| {
            let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
            conditions.retain(|condition| condition.type_ != "Ready");
            let status = if ready { "True" } else { "False" };
            conditions.push(PodCondition {
                type_: "Ready".into(),
                status: status.into(),
                ..Default::default()
            });
        })
    }

    /// Marks a pod as terminating: it still answers, as pods do in their grace period.
    ///
    /// # Errors
    /// As [`set_ready`](Self::set_ready).
    pub fn terminate(&mut self, pod: &str) -> Result<()> {
        let now = Timestamp::from_second(now() as i64).unwrap_or(Timestamp::UNIX_EPOCH);
        self.change_pod(pod, |pod| pod.metadata.deletion_timestamp = Some(Time(now)))
    }

    fn change_pod(&mut self, name: &str, change: impl FnOnce(&mut Pod)) -> Result<()> {
        let mut pod = self.pod(name)?.object.clone();
        change(&mut pod);
        self.apply([pod.into()])
    }

    /// Sends what the host outside has for an address through this node, from now on.
    ///
    /// # Errors
    /// When there is no such node, or it has no address of that family.
    pub fn route_from_outside(&mut self, to: IpAddr, node: &str) -> Result<()> {
        let node = self.node(node)?.clone();
        wiring::route_from_outside(&self.names, to.into(), &node)?;
        self.routed_by_hand.insert(to.into(), node.name);
        Ok(())
    }

    /// Leads outside traffic for load balancers' and external addresses to a node, as a cloud or a router would.
    fn route_fronts(&mut self) -> Result<()> {
        let mut wanted = BTreeMap::new();
        for service in &self.plan.services {
            let fronts = self.plan.fronts(service);
            let routed =
                fronts.iter().filter(|f| matches!(f.kind, FrontKind::LoadBalancer | FrontKind::ExternalIp));
            for front in routed {
                let node = self.plan.entry_node(service);
                wanted.insert(IpNet::from(front.address.ip()), node.to_owned());
            }
        }
        wanted.extend(self.routed_by_hand.clone());
        for (net, node) in &wanted {
            if self.routed.get(net) != Some(node) {
                wiring::route_from_outside(&self.names, *net, self.node(node)?)?;
            }
        }
        self.routed = wanted;
        Ok(())
    }

    fn write_manifests(&self) -> Result<()> {
        let list: Value = self.plan.to_list();
        let text = serde_json::to_vec_pretty(&list).expect("a JSON value has only text for keys");
        state::replace_file(&self.manifests().join("cluster.json"), &text)
    }

    fn write_state(&mut self) -> Result<()> {
        let netns = |netns: NetNs| netns.name().to_owned();
        let mut places: Vec<_> =
            self.plan.pods.iter().map(|pod| (pod.name.clone(), netns(self.names.pod(pod)))).collect();
        places.extend(
            self.plan.nodes.iter().map(|node| (node.name.clone(), netns(self.names.node(&node.name)))),
        );
        places.push(("outside".into(), netns(self.names.outside())));
        self.state.places = places;
        self.state.write()
    }

    fn start_daemons(&mut self) -> Result<()> {
        let nodes: Vec<String> = self.plan.nodes.iter().map(|node| node.name.clone()).collect();
        nodes.iter().try_for_each(|node| self.start_daemon(node))
    }

    /// Starts a node's daemon, if the lab has daemons and this one does not run.
    ///
    /// # Errors
    /// When there is no such node or program.
    pub fn start_daemon(&mut self, node: &str) -> Result<()> {
        let netns = self.names.node(&self.node(node)?.name);
        if let (Some(spec), None) = (&self.options.daemon, self.daemons.get(node)) {
            self.changed = Change { at: now(), running: false };
            self.daemons.insert(node.to_owned(), Daemon::start(spec, node, &netns, &self.state.folder)?);
        }
        Ok(())
    }

    /// Ends a node's daemon by SIGTERM, and waits up to 10 s for it.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop_daemon(&mut self, node: &str) -> Result<()> {
        match self.daemons.remove(node) {
            Some(mut daemon) => daemon.stop(Duration::from_secs(10)),
            None => Ok(()),
        }
    }

    /// The process id of a node's daemon.
    pub fn daemon_pid(&self, node: &str) -> Option<u32> {
        self.daemons.get(node).map(Daemon::pid)
    }

    /// The file that holds the log of a node's daemon.
    pub fn daemon_log(&self, node: &str) -> Option<&Path> {
        self.daemons.get(node).map(Daemon::log)
    }

    /// Waits until every daemon has served the last change of Services or endpoints.
    ///
    /// # Errors
    /// When a daemon ends or takes longer; the error holds the end of its log.
    pub fn wait_synced(&mut self, timeout: Duration) -> Result<()> {
        let until = Instant::now() + timeout;
        let families = self.options.plan.families.list();
        for (node, daemon) in &mut self.daemons {
            let netns = self.names.node(node);
            let mut before = None;
            loop {
                daemon.check()?;
                let times = synced::metrics(&netns).map(|text| SyncTimes::parse(&text));
                let done = times
                    .as_ref()
                    .is_some_and(|times| times.is_since(self.changed.at, self.changed.running, families));
                // Twice the same: one change of ours may reach the daemon as several events.
                if done && before == times {
                    break;
                }
                if Instant::now() > until {
                    return Err(
                        daemon.error(format!("did not sync within {timeout:?}; it last said {times:?}"))
                    );
                }
                before = times;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// An error for each daemon that has ended.
    ///
    /// # Errors
    /// The first such.
    pub fn check_daemons(&mut self) -> Result<()> {
        self.daemons.values_mut().try_for_each(Daemon::check)
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
fn first_namespace(root: &Path) -> Result<()> {
    let lock = root.join(".lock");
    let file = File::create(&lock).map_err(Error::file("cannot make", &lock))?;
    // SAFETY: the descriptor is open for the whole call; the lock ends with it.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) } != 0 {
        return Err(Error::file("cannot lock", &lock)(std::io::Error::last_os_error()));
    }
    let probe = format!("pcl-first-{}", std::process::id());
    crate::netns::ip_batch(&[], &[format!("netns add {probe}"), format!("netns del {probe}")])
}

/// The pods that have a namespace and a wire of their own.
fn wired(pods: Vec<&PodPlan>) -> Vec<&PodPlan> {
    pods.into_iter().filter(|pod| !pod.host_network).collect()
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
