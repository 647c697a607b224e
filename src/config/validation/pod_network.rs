//! Validation of the settings of the pod network, which kube-proxy does not have.

use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;

use portcullis_podnet::installation::Installation;
use portcullis_podnet::{PodNetworkMode, Vxlan, Wiring};

use super::Validator;
use crate::config::validated::PodNetwork;

/// The minimum MTU of a link with IPv6 (RFC 8200).
const MIN_MTU: i32 = 1280;
/// The maximum MTU of an Ethernet device (`ETH_MAX_MTU`).
const MAX_MTU: i32 = 65_535;
/// The maximum VXLAN network identifier, of 24 bits.
const MAX_VXLAN_ID: i32 = (1 << 24) - 1;

impl Validator<'_> {
    /// Checks all settings, also while the pod network is off, so that it can be turned on later. Returns the pod network, and the folders of
    /// the CNI plugin.
    pub(super) fn pod_network(&mut self) -> (Option<PodNetwork>, Installation) {
        let given = &self.settings.pod_network;
        let mode = match given.mode.as_str() {
            "" | "off" => None,
            name => PodNetworkMode::from_name(name).or_else(|| {
                self.reject("pod-network.mode", format!("{name:?}"), "off, host-gw, vxlan or cross-subnet");
                None
            }),
        };
        let wiring = match given.wiring.as_str() {
            "" => Wiring::default(),
            name => Wiring::from_name(name).unwrap_or_else(|| {
                self.reject("pod-network.wiring", format!("{name:?}"), "ptp or bridge");
                Wiring::default()
            }),
        };
        let network = PodNetwork {
            mode: mode.unwrap_or(PodNetworkMode::HostGw),
            wiring,
            mtu: self.mtu(),
            vxlan: self.vxlan(),
            masquerade: given.masquerade,
            masquerade_exclude_cidrs: self
                .cidrs("pod-network.masquerade-exclude-cidrs", &given.masquerade_exclude_cidrs),
            cni_bin_dir: self.folder("pod-network.cni-bin-dir", &given.cni_bin_dir),
            cni_conf_dir: self.folder("pod-network.cni-conf-dir", &given.cni_conf_dir),
            state_dir: self.folder("pod-network.state-dir", &given.state_dir),
        };
        let installation = Installation {
            bin_dir: network.cni_bin_dir.clone(),
            conf_dir: network.cni_conf_dir.clone(),
            state_dir: network.state_dir.clone(),
        };
        (mode.map(|_| network), installation)
    }

    fn mtu(&mut self) -> Option<NonZeroU32> {
        let mtu = self.settings.pod_network.mtu;
        if mtu != 0 && !(MIN_MTU..=MAX_MTU).contains(&mtu) {
            self.reject(
                "pod-network.mtu",
                mtu,
                format!("a number of bytes from {MIN_MTU} to {MAX_MTU}, or 0 for that of the uplink"),
            );
        }
        u32::try_from(mtu).ok().and_then(NonZeroU32::new)
    }

    fn vxlan(&mut self) -> Vxlan {
        let (id, port) = (self.settings.pod_network.vxlan_id, self.settings.pod_network.vxlan_port);
        if !(1..=MAX_VXLAN_ID).contains(&id) {
            self.reject("pod-network.vxlan-id", id, format!("a number from 1 to {MAX_VXLAN_ID}"));
        }
        let valid_port = u16::try_from(port).ok().and_then(NonZeroU16::new);
        if valid_port.is_none() {
            self.reject("pod-network.vxlan-port", port, "a UDP port from 1 to 65535");
        }
        Vxlan { id: id.unsigned_abs(), port: valid_port.map_or(Vxlan::default().port, NonZeroU16::get) }
    }

    fn folder(&mut self, id: &'static str, path: &str) -> PathBuf {
        if !path.starts_with('/') {
            self.reject(id, format!("{path:?}"), "an absolute path of a folder");
        }
        path.into()
    }
}
