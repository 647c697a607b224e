//! The pod network of the daemons, in place of the lab's own wiring: pods are connected by their CNI plugin, and nodes by their routes.
//!
//! The lab does what a container runtime does: it creates a network namespace for each pod, holds it by `portcullis pause`, and runs the
//! plugin that the daemon has installed, with the configuration that the daemon has written. It uses no code of the program.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::netns::NetNs;
use crate::network::NetNsNames;
use crate::plan::{NodePlan, PodPlan};

/// The file that the daemon writes when pods can be started.
const CONFIGURATION: &str = "10-portcullis.conflist";

/// The interface of a pod.
const INTERFACE: &str = "eth0";

/// How long a daemon may take until pods can be started.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// How pods of different nodes reach each other: the daemons' `--pod-network`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodNetworkMode {
    /// Routes by way of the nodes.
    HostGw,
    /// A VXLAN overlay.
    Vxlan,
    /// Routes on a link, otherwise an overlay. All nodes of a lab are on one link.
    CrossSubnet,
}

impl PodNetworkMode {
    /// All modes.
    pub const ALL: [PodNetworkMode; 3] = [Self::HostGw, Self::Vxlan, Self::CrossSubnet];

    /// Returns the value of `--pod-network`.
    pub fn name(self) -> &'static str {
        match self {
            Self::HostGw => "host-gw",
            Self::Vxlan => "vxlan",
            Self::CrossSubnet => "cross-subnet",
        }
    }

    /// Returns the settings of daemons, and of commands about them. The outside host has routes to pods, as it has without the pod network, so
    /// that they keep their addresses there.
    pub(crate) fn settings(self) -> [String; 2] {
        [format!("--pod-network={}", self.name()), "--pod-network-masquerade=false".to_owned()]
    }
}

/// The pods that plugins have connected.
#[derive(Debug)]
pub(crate) struct PluginWiring {
    mode: PodNetworkMode,
    /// The lab's folder.
    folder: PathBuf,
    /// The program, for `pause`.
    program: PathBuf,
    /// The processes that hold the pods' namespaces, by pod.
    holders: BTreeMap<String, Child>,
}

impl PluginWiring {
    pub(crate) fn new(mode: PodNetworkMode, folder: &Path, program: &Path) -> Self {
        PluginWiring {
            mode,
            folder: folder.to_owned(),
            program: program.to_owned(),
            holders: BTreeMap::new(),
        }
    }

    /// Returns the arguments of the daemon of a node.
    pub(crate) fn daemon_arguments(&self, node: &str) -> Vec<String> {
        let folder = |name: &str| self.node_folder(node, name).display().to_string();
        let folders = [
            format!("--pod-network-cni-bin-dir={}", folder("bin")),
            format!("--pod-network-cni-conf-dir={}", folder("net.d")),
            format!("--pod-network-state-dir={}", folder("state")),
        ];
        self.mode.settings().into_iter().chain(folders).collect()
    }

    fn node_folder(&self, node: &str, name: &str) -> PathBuf {
        self.folder.join("pod-network").join(node).join(name)
    }

    fn configuration(&self, node: &str) -> PathBuf {
        self.node_folder(node, "net.d").join(CONFIGURATION)
    }

    /// Waits until pods can be started on a node. `check` fails if its daemon does not run.
    pub(crate) fn wait_ready(&self, node: &str, mut check: impl FnMut() -> Result<()>) -> Result<()> {
        let until = Instant::now() + READY_TIMEOUT;
        let path = self.configuration(node);
        while !path.exists() {
            check()?;
            if Instant::now() > until {
                let message =
                    format!("its daemon has not written {} within {READY_TIMEOUT:?}", path.display());
                return Err(Error::plan(format!("Node {node}"), message));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Connects a pod, whose namespace exists, with the addresses of the plan.
    pub(crate) fn add(&mut self, pod: &PodPlan, node: &NodePlan, names: &NetNsNames) -> Result<()> {
        let netns = names.pod(pod);
        let mut pause = netns.command(&self.program);
        pause.arg("pause").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let holder = pause.spawn().map_err(|error| Error::Command {
            command: format!("{} pause", self.program.display()),
            message: error.to_string(),
        })?;
        self.holders.insert(pod.name.clone(), holder);
        pod.addresses.iter().try_for_each(|address| self.choose(pod, node, *address))?;
        let result = self.request("ADD", pod, &netns, &names.node(&pod.node))?;
        let ips = result["ips"].as_array().into_iter().flatten();
        let added: Vec<IpAddr> = ips
            .filter_map(|ip| ip["address"].as_str()?.parse::<IpNet>().ok())
            .map(|net| net.addr())
            .collect();
        match pod.addresses.iter().find(|address| !added.contains(address)) {
            None => Ok(()),
            Some(address) => {
                let message =
                    format!("the plugin gave it {added:?}; expected {address}, which another pod may have");
                Err(Error::plan(format!("Pod {}", pod.name), message))
            }
        }
    }

    /// Makes the plugin allocate an address of the plan next: it continues after the address in the file `last-allocated/RANGE`
    /// (docs/pod-addresses.md).
    fn choose(&self, pod: &PodPlan, node: &NodePlan, address: IpAddr) -> Result<()> {
        let Some(range) = node.pod_cidrs.iter().map(IpNet::trunc).find(|net| net.contains(&address)) else {
            let message = format!(
                "has the address {address}; with --pod-network expected one of the pod CIDRs of node {}",
                node.name
            );
            return Err(Error::plan(format!("Pod {}", pod.name), message));
        };
        let before = match address {
            IpAddr::V4(address) => IpAddr::from((u32::from(address) - 1).to_be_bytes()),
            IpAddr::V6(address) => IpAddr::from((u128::from(address) - 1).to_be_bytes()),
        };
        let folder = self.node_folder(&node.name, "state").join("last-allocated");
        fs::create_dir_all(&folder).map_err(Error::file("cannot create", &folder))?;
        let path = folder.join(range.to_string().replace('/', "-"));
        fs::write(&path, before.to_string()).map_err(Error::file("cannot write", &path))
    }

    /// Disconnects a pod, before its namespace is deleted.
    pub(crate) fn remove(&mut self, pod: &PodPlan, names: &NetNsNames) -> Result<()> {
        let Some(holder) = self.holders.remove(&pod.name) else { return Ok(()) };
        self.request("DEL", pod, &names.pod(pod), &names.node(&pod.node))?;
        end(holder);
        Ok(())
    }

    /// Waits for the processes that held the namespaces of pods; the reaper has killed them.
    pub(crate) fn reap(&mut self) {
        std::mem::take(&mut self.holders).into_values().for_each(end);
    }

    /// Runs the plugin of a node with a request about a pod, and returns its document.
    fn request(&self, verb: &str, pod: &PodPlan, netns: &NetNs, node: &NetNs) -> Result<Value> {
        let configuration = self.configuration(&pod.node);
        let text = fs::read(&configuration).map_err(Error::file("cannot read", &configuration))?;
        let failed =
            |message: String| Error::Command { command: format!("CNI {verb} for {}", pod.name), message };
        let list: Value = serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
        let mut plugin = list["plugins"][0].clone();
        (plugin["name"], plugin["cniVersion"]) = (list["name"].clone(), list["cniVersion"].clone());
        let mut command = node.command(self.node_folder(&pod.node, "bin").join("portcullis"));
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", container_id(&pod.name))
            .env("CNI_NETNS", netns.path())
            .env("CNI_IFNAME", INTERFACE)
            .env("CNI_PATH", self.node_folder(&pod.node, "bin"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let mut stdin = child.stdin.take().expect("standard input is piped");
        // If the plugin exits early, its document says why.
        let _ = stdin.write_all(plugin.to_string().as_bytes());
        drop(stdin);
        let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
        let document = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            return Err(failed(format!("{document}{}", String::from_utf8_lossy(&output.stderr))));
        }
        if document.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&document).map_err(|error| failed(format!("{error} in {document}")))
    }
}

/// Returns the container ID of a pod, which may contain letters, digits, `_`, `.` and `-`.
fn container_id(pod: &str) -> String {
    pod.replace('/', "_")
}

fn end(mut holder: Child) {
    // It fails if the process has ended.
    let _ = holder.kill();
    let _ = holder.wait();
}
