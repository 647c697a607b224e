//! Settings of the pod network. kube-proxy has none of them, so they have no `KubeProxyConfiguration` field, and their flags
//! override a configuration file.

use crate::config::field_ref::FieldRef;
use crate::config::setting::Setting;

pub(in crate::config) const POD_NETWORK: &[Setting] = &[
    Setting::new(|s| FieldRef::Text(&mut s.pod_network.mode))
        .toml("pod-network.mode")
        .override_flag(
            "pod-network",
            "Provide the pod network: off (the default, for use with another CNI plugin), host-gw (routes by way of the nodes' \
             addresses, which must be on the same link), vxlan (an overlay), or cross-subnet (host-gw to nodes on the same link, \
             vxlan to all others)",
        )
        .with_type_name("off|host-gw|vxlan|cross-subnet"),
    Setting::new(|s| FieldRef::Text(&mut s.pod_network.wiring))
        .toml("pod-network.wiring")
        .override_flag(
            "pod-network-wiring",
            "How pods are connected to the node: ptp (the default, a veth pair and a route for each pod) or bridge (a bridge with \
             all pods)",
        )
        .with_type_name("ptp|bridge"),
    Setting::new(|s| FieldRef::Integer(&mut s.pod_network.mtu)).toml("pod-network.mtu").override_flag(
        "pod-network-mtu",
        "MTU of pods' interfaces, at least 1280; 0 uses the MTU of the interface to the other nodes, minus the header of the \
         overlay",
    ),
    Setting::new(|s| FieldRef::Integer(&mut s.pod_network.vxlan_id)).toml("pod-network.vxlan-id").override_flag(
        "pod-network-vxlan-id",
        "VXLAN network identifier (VNI), 1 to 16777215; the same on all nodes",
    ),
    Setting::new(|s| FieldRef::Integer(&mut s.pod_network.vxlan_port))
        .toml("pod-network.vxlan-port")
        .override_flag(
            "pod-network-vxlan-port",
            "UDP port of VXLAN, 1 to 65535; the same on all nodes. Firewalls between nodes must allow it",
        ),
    Setting::new(|s| FieldRef::Bool(&mut s.pod_network.masquerade))
        .toml("pod-network.masquerade")
        .override_flag("pod-network-masquerade", "Masquerade traffic of pods to addresses outside of the pod network"),
    Setting::new(|s| FieldRef::List(&mut s.pod_network.masquerade_exclude_cidrs))
        .toml("pod-network.masquerade-exclude-cidrs")
        .override_flag(
            "pod-network-masquerade-exclude-cidrs",
            "Traffic of pods to these CIDRs is not masqueraded, because hosts there have routes to the pods",
        ),
    Setting::new(|s| FieldRef::Text(&mut s.pod_network.cni_bin_dir))
        .toml("pod-network.cni-bin-dir")
        .override_flag("pod-network-cni-bin-dir", "Folder in which the CNI plugin is installed")
        .with_type_name("path"),
    Setting::new(|s| FieldRef::Text(&mut s.pod_network.cni_conf_dir))
        .toml("pod-network.cni-conf-dir")
        .override_flag(
            "pod-network-cni-conf-dir",
            "Folder of the CNI configuration, which is written when the node's pod network is ready",
        )
        .with_type_name("path"),
    Setting::new(|s| FieldRef::Text(&mut s.pod_network.state_dir))
        .toml("pod-network.state-dir")
        .override_flag(
            "pod-network-state-dir",
            "Folder of the CNI plugin's records of pods, on a tmpfs; the container runtime must see it at the same path",
        )
        .with_type_name("path"),
];
