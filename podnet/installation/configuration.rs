//! The CNI configuration of the node (pure): the list, with the values that the plugin reads.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cni::{Capabilities, NetworkConfiguration};
use crate::plan::PodNetworkPlan;

/// The name of the network.
pub const NETWORK: &str = "portcullis";

/// The file name. Runtimes use the first configuration by name.
pub(super) const FILE: &str = "10-portcullis.conflist";

/// The name of the plugin's binary, which is the plugin's type.
pub(super) const PLUGIN: &str = "portcullis";

/// The oldest version among those of the list: containerd before 2.0 does not know 1.1.0, and rejects results of it.
const VERSION: &str = "1.0.0";

/// The versions among which newer runtimes choose the latest that they know.
const VERSIONS: [&str; 2] = ["1.0.0", "1.1.0"];

/// Folders of the plugin `host-local` with the addresses that it has allocated: its default, which flannel uses, and that of kindnet.
pub const HOST_LOCAL_FOLDERS: [&str; 2] = ["/var/lib/cni/networks", "/run/cni-ipam-state"];

/// A network configuration list (CNI specification, section 1).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigurationList {
    cni_version: &'static str,
    cni_versions: [&'static str; 2],
    name: &'static str,
    plugins: [NetworkConfiguration; 1],
}

impl ConfigurationList {
    /// Returns the configuration of a node. `state_dir` is the folder of the plugin's records, as seen by the container runtime.
    pub fn new(plan: &PodNetworkPlan, state_dir: &Path) -> Self {
        let plugin = NetworkConfiguration {
            plugin: PLUGIN.to_owned(),
            wiring: plan.wiring,
            mtu: plan.mtu,
            pod_cidrs: plan.pod_cidrs.clone(),
            state_dir: state_dir.to_owned(),
            other_address_dirs: HOST_LOCAL_FOLDERS.map(PathBuf::from).into(),
            capabilities: Capabilities { port_mappings: true },
            ..NetworkConfiguration::default()
        };
        ConfigurationList { cni_version: VERSION, cni_versions: VERSIONS, name: NETWORK, plugins: [plugin] }
    }

    /// Returns the contents of the file.
    pub fn to_json(&self) -> String {
        let mut text =
            serde_json::to_string_pretty(self).expect("the configuration has only strings as keys");
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use portcullis_cluster::Name;
    use serde_json::json;

    use super::*;
    use crate::{PodNetworkMode, Wiring};

    #[test]
    fn the_configuration_of_a_node() {
        let plan = PodNetworkPlan {
            node: Name::new("node-1"),
            mode: PodNetworkMode::Vxlan,
            wiring: Wiring::Ptp,
            pod_cidrs: ["10.244.1.0/24", "fd00:10:244:1::/64"]
                .map(|cidr| cidr.parse().expect("a CIDR"))
                .to_vec(),
            cluster_pod_cidrs: Arc::new(BTreeSet::new()),
            mtu: 1450,
            uplinks: Vec::new(),
        };
        let text = ConfigurationList::new(&plan, Path::new("/run/portcullis/pod-network")).to_json();
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let expected = json!({
            "cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "name": "portcullis",
            "plugins": [{
                "type": "portcullis", "wiring": "ptp", "mtu": 1450,
                "podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"],
                "stateDir": "/run/portcullis/pod-network",
                "otherAddressDirs": ["/var/lib/cni/networks", "/run/cni-ipam-state"],
                "capabilities": {"portMappings": true},
            }],
        });
        assert_eq!(value, expected);
    }
}
