//! Validation of addresses, CIDRs and local traffic detection.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portcullis_modes::{DetectLocal, InterfaceName, NodePortAddresses, ProxyMode};

use super::Validator;
use crate::config::address::{parse_cidr, parse_ip, parse_socket_address};
use crate::config::detect_local_mode::DetectLocalMode;
use crate::config::node_port_addresses;

/// The longest path of a Unix socket: `sun_path` has 108 bytes, with a final zero (unix(7)); replacing a socket needs a
/// temporary name beside it, which is longer.
const MAX_SOCKET_PATH: usize = 100;

impl Validator<'_> {
    pub(super) fn bind_address(&mut self) -> std::net::IpAddr {
        parse_ip(&self.settings.bind_address).unwrap_or_else(|| {
            self.reject("bindAddress", format!("{:?}", self.settings.bind_address), "an IP address");
            std::net::Ipv4Addr::UNSPECIFIED.into()
        })
    }

    /// An empty address disables the server, also for metrics, as documented by upstream's help. (Upstream's
    /// code then uses the default.)
    pub(super) fn listener(&mut self, id: &'static str, address: &str, port: u16) -> Option<SocketAddr> {
        if address.is_empty() {
            return None;
        }
        let parsed = parse_socket_address(address, port);
        if parsed.is_none() {
            self.reject(
                id,
                format!("{address:?}"),
                "an IP address and a port from 1 to 65535, such as 127.0.0.1:80 or [::1]:80",
            );
        }
        parsed
    }

    /// Portcullis' own rule: the path of a socket is absolute, as commands run in other folders, and fits into an address.
    pub(super) fn socket(&mut self) -> Option<PathBuf> {
        let path = &self.settings.socket;
        if path.is_empty() {
            return None;
        }
        if !path.starts_with('/') || path.ends_with('/') || path.len() > MAX_SOCKET_PATH {
            let expected = format!("an absolute path of a file, of up to {MAX_SOCKET_PATH} bytes");
            self.reject("socket", format!("{path:?}"), expected);
            return None;
        }
        Some(path.into())
    }

    pub(super) fn node_port_addresses(&mut self, mode: ProxyMode) -> NodePortAddresses {
        node_port_addresses::parse(&self.settings.node_port_addresses, mode).unwrap_or_else(
            |(item, expected)| {
                self.reject("nodePortAddresses", format!("{item:?}"), expected);
                node_port_addresses::default_for(mode)
            },
        )
    }

    /// The default is kube-proxy's, unless this program provides the pod network and no cluster CIDR is set: then all pods of this node
    /// have addresses of its pod CIDRs, whatever connects them, including those that a previous plugin connected.
    pub(super) fn detect_local(&mut self) -> DetectLocalMode {
        let settings = self.settings;
        let provides_pod_network = !matches!(settings.pod_network.mode.as_str(), "" | "off");
        match settings.detect_local_mode.as_str() {
            "NodeCIDR" => DetectLocalMode::NodeCidr,
            "" if provides_pod_network && settings.cluster_cidrs.is_empty() => DetectLocalMode::NodeCidr,
            mode => DetectLocalMode::Fixed(self.fixed_detect_local(mode)),
        }
    }

    fn fixed_detect_local(&mut self, mode: &str) -> DetectLocal {
        let settings = self.settings;
        match mode {
            "" | "ClusterCIDR" => self.cluster_cidrs(),
            "BridgeInterface" => self
                .interface("detectLocal.bridgeInterface", &settings.bridge_interface)
                .map_or_else(DetectLocal::default, DetectLocal::BridgeInterface),
            "InterfaceNamePrefix" => self
                .interface("detectLocal.interfaceNamePrefix", &settings.interface_name_prefix)
                .map_or_else(DetectLocal::default, DetectLocal::InterfaceNamePrefix),
            other => {
                let expected = "ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix";
                self.reject("detectLocalMode", format!("{other:?}"), expected);
                DetectLocal::default()
            }
        }
    }

    /// Upstream accepts any non-empty name; Portcullis requires a valid interface name.
    pub(super) fn interface(&mut self, id: &'static str, name: &str) -> Option<InterfaceName> {
        let parsed = InterfaceName::new(name);
        if parsed.is_none() {
            let expected =
                format!("an interface name of 1 to 15 bytes in {} mode", self.settings.detect_local_mode);
            self.reject(id, format!("{name:?}"), expected);
        }
        parsed
    }

    /// At most one CIDR of each family. Without any, no traffic is local.
    pub(super) fn cluster_cidrs(&mut self) -> DetectLocal {
        let (mut v4, mut v6): (Option<Ipv4Net>, Option<Ipv6Net>) = (None, None);
        let mut has_duplicate_family = false;
        for text in &self.settings.cluster_cidrs {
            match parse_cidr(text) {
                Some(IpNet::V4(net)) => has_duplicate_family |= v4.replace(net).is_some(),
                Some(IpNet::V6(net)) => has_duplicate_family |= v6.replace(net).is_some(),
                None => self.reject(
                    "clusterCIDR",
                    format!("{text:?}"),
                    "a CIDR such as 10.100.0.0/16 or fde4:8dba:82e1::/48",
                ),
            }
        }
        if has_duplicate_family {
            let all = self.settings.cluster_cidrs.join(",");
            self.reject(
                "clusterCIDR",
                format!("{all:?}"),
                "one CIDR, or one of each family such as 10.100.0.0/16,fde4:8dba:82e1::/48",
            );
        }
        DetectLocal::Cidrs(v4.map(IpNet::V4).into_iter().chain(v6.map(IpNet::V6)).collect())
    }

    /// Portcullis' own setting.
    pub(super) fn external_address_cidrs(&mut self) -> Vec<IpNet> {
        self.cidrs("external-address-cidrs", &self.settings.external_address_cidrs)
    }

    pub(super) fn cidrs(&mut self, id: &'static str, texts: &[String]) -> Vec<IpNet> {
        let mut cidrs = Vec::new();
        for text in texts {
            match parse_cidr(text) {
                Some(net) => cidrs.push(net),
                None => self.reject(id, format!("{text:?}"), "a CIDR such as 10.0.0.0/8 or fd00::/8"),
            }
        }
        cidrs
    }
}
