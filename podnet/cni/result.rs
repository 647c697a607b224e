//! Results of `ADD`, in all versions.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::CniVersion;
use super::error::{CniError, ErrorCode, Result};

/// The result of `ADD`: what the network of a container consists of. Read from `prevResult` of any version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CniResult {
    /// Interfaces on the host and in the container.
    pub interfaces: Vec<Interface>,
    /// Addresses.
    pub ips: Vec<Ip>,
    /// Routes in the container.
    pub routes: Vec<Route>,
    /// DNS settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Value>,
}

/// An interface of a result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Its MTU, since version 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The path of its network namespace; `None` on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// What other plugins said of it.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// An address of a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ip {
    /// The address with its prefix length.
    pub address: IpNet,
    /// The gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// The position of its interface in the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
}

/// A route of a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// The destination.
    pub dst: IpNet,
    /// The next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// What other plugins said of it: `mtu`, `priority`, `table`, ….
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl CniResult {
    /// Parses `prevResult`.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidConfiguration`].
    pub fn parse(document: &Value) -> Result<Self> {
        let parsed = serde_path_to_error::deserialize(document).map_err(|error| {
            let message = format!("network configuration: prevResult.{}: {}", error.path(), error.inner());
            CniError::new(ErrorCode::InvalidConfiguration, message)
        });
        let result: CniResult = parsed?;
        match result.ips.iter().filter_map(|ip| ip.interface).find(|index| *index >= result.interfaces.len())
        {
            None => Ok(result),
            Some(index) => Err(CniError::new(
                ErrorCode::InvalidConfiguration,
                format!("network configuration: prevResult.ips: no interface has position {index}"),
            )),
        }
    }

    /// Adds this plugin's result to that of the previous plugin in the chain.
    #[must_use]
    pub fn appended_to(self, mut previous: CniResult) -> CniResult {
        let offset = previous.interfaces.len();
        previous.interfaces.extend(self.interfaces);
        previous.ips.extend(self.ips.into_iter().map(|mut ip| {
            ip.interface = ip.interface.map(|position| position + offset);
            ip
        }));
        previous.routes.extend(self.routes);
        previous.dns = self.dns.or(previous.dns);
        previous
    }

    /// Returns the position of an interface in a network namespace.
    pub fn interface_in(&self, sandbox: &str, name: &str) -> Option<usize> {
        self.interfaces.iter().position(|interface| {
            interface.name == name && interface.sandbox.as_deref().is_some_and(|path| path == sandbox)
        })
    }

    /// Returns the document for the runtime in a version.
    ///
    /// # Panics
    /// Never: all keys are strings.
    pub fn document(&self, version: CniVersion) -> Value {
        let mut document = serde_json::to_value(self).expect("all keys are strings");
        document["cniVersion"] = json!(version.name());
        if version.has_address_version() {
            for (ip, value) in self.ips.iter().zip(document["ips"].as_array_mut().into_iter().flatten()) {
                value["version"] = json!(if ip.address.addr().is_ipv4() { "4" } else { "6" });
            }
        }
        if !version.has_interface_mtu() {
            for interface in document["interfaces"].as_array_mut().into_iter().flatten() {
                interface.as_object_mut().and_then(|interface| interface.remove("mtu"));
            }
        }
        document
    }
}
