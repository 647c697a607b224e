//! The network configuration: what the runtime writes to the plugin's standard input.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Wiring;
use crate::addresses::AttachmentKey;
use crate::host_ports::PortMapping;

use super::error::{CniError, ErrorCode, Result};

/// The default bridge.
pub(crate) const BRIDGE: &str = "cni0";

/// The type of the plugin that sets up `lo`, whose name this program has too.
pub(crate) const LOOPBACK: &str = "loopback";

/// The largest MTU of a veth pair (`ETH_MAX_MTU`), and the smallest with which IPv6 works (RFC 8200, 5).
const MAX_MTU: u32 = 65_535;
const MIN_MTU: u32 = 1_280;

/// The configuration of this plugin in a network: its entry in `plugins` of a configuration list, with what the runtime adds to
/// it. Unknown keys are ignored, as the specification recommends: runtimes and later versions may add some, and no key restricts
/// access.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkConfiguration {
    /// The version of the specification. The runtime takes it from the list.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cni_version: String,
    /// The network's name. The runtime takes it from the list.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The name of the plugin's binary.
    #[serde(rename = "type")]
    pub plugin: String,
    /// How pods are connected to the node.
    pub wiring: Wiring,
    /// The bridge's name, for that wiring; `cni0` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// The MTU of the pods' interfaces; the kernel's default if 0.
    pub mtu: u32,
    /// The node's pod CIDRs, from which pods get addresses: one of each.
    #[serde(rename = "podCIDRs", deserialize_with = "null_is_default")]
    pub pod_cidrs: Vec<IpNet>,
    /// The folder of attachments and reservations.
    pub state_dir: PathBuf,
    /// Folders of host-local, of previous plugins, whose addresses are not allocated.
    #[serde(deserialize_with = "null_is_default")]
    pub other_address_dirs: Vec<PathBuf>,
    /// The capabilities for which the runtime adds values to `runtimeConfig`.
    pub capabilities: Capabilities,
    /// Values of capabilities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_config: Option<Value>,
    /// DNS settings, which are part of the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Value>,
    /// The result of the previous plugin in the chain, or of `ADD`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_result: Option<Value>,
    /// `GC`: the attachments that still exist.
    #[serde(rename = "cni.dev/valid-attachments", skip_serializing_if = "Option::is_none")]
    pub valid_attachments: Option<Vec<ValidAttachment>>,
}

/// Capabilities of the plugin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Capabilities {
    /// Host ports.
    pub port_mappings: bool,
}

/// What the runtime adds for capabilities of this plugin. It is parsed only when it is needed: a mistake in it must not keep a pod
/// from being removed.
#[derive(Deserialize)]
struct RuntimeConfiguration {
    #[serde(rename = "portMappings", default, deserialize_with = "null_is_default")]
    port_mappings: Vec<PortMapping>,
}

/// An attachment that still exists, as the runtime writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidAttachment {
    /// `CNI_CONTAINERID`.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

/// Treats `null` as the default: programs in Go write it for empty lists.
fn null_is_default<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl NetworkConfiguration {
    /// Parses standard input.
    ///
    /// # Errors
    /// [`ErrorCode::DecodingFailure`] with the position if it is not JSON; [`ErrorCode::InvalidConfiguration`] with the field if
    /// a value has another type or form.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = error.path().to_string();
            let error = error.into_inner();
            if error.is_data() {
                let field = if path == "." { String::new() } else { format!("{path}: ") };
                return invalid(format!("network configuration: {field}{error}"));
            }
            undecodable(&error)
        })?;
        json.end().map_err(|error| undecodable(&error))?;
        Ok(parsed)
    }

    /// Checks the values that all operations need.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidConfiguration`].
    pub(super) fn check_name(&self) -> Result<()> {
        let is_valid = self.name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && self.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        match (is_valid, self.name.as_str()) {
            (true, _) => Ok(()),
            (false, "") => Err(invalid("network configuration: name is missing")),
            (false, name) => Err(invalid(format!(
                "network configuration: name: invalid network name {name:?}: expected a letter or digit, then letters, digits, \
                 '_', '.' and '-'"
            ))),
        }
    }

    /// Checks the values that `ADD` needs.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidConfiguration`], [`ErrorCode::NotAvailable`] without a pod CIDR.
    pub(super) fn check_for_add(&self) -> Result<()> {
        if self.mtu != 0 && !(MIN_MTU..=MAX_MTU).contains(&self.mtu) {
            return Err(invalid(format!(
                "network configuration: mtu: {} is out of range; expected 0 or {MIN_MTU} to {MAX_MTU}",
                self.mtu
            )));
        }
        let bridge = self.bridge();
        let is_valid_name = (1..=15).contains(&bridge.len())
            && !matches!(bridge, "." | "..")
            && !bridge.contains(|c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace());
        if !is_valid_name {
            return Err(invalid(format!("network configuration: bridge: invalid interface name {bridge:?}")));
        }
        self.port_mappings()?;
        if self.pod_cidrs.is_empty() {
            return Err(no_pod_cidr());
        }
        Ok(())
    }

    /// Returns the host ports that the runtime requests.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidConfiguration`].
    pub fn port_mappings(&self) -> Result<Vec<PortMapping>> {
        let Some(runtime_config) = &self.runtime_config else { return Ok(Vec::new()) };
        serde_path_to_error::deserialize(runtime_config)
            .map(|RuntimeConfiguration { port_mappings }| port_mappings)
            .map_err(|error| {
                invalid(format!("network configuration: runtimeConfig.{}: {}", error.path(), error.inner()))
            })
    }

    /// Returns true if the request is for the plugin `loopback`.
    pub(super) fn is_loopback(&self) -> bool {
        self.plugin == LOOPBACK
    }

    /// Returns the bridge's name.
    pub fn bridge(&self) -> &str {
        self.bridge.as_deref().unwrap_or(BRIDGE)
    }

    /// Returns the folder of attachments and reservations.
    pub fn state_dir(&self) -> PathBuf {
        if self.state_dir.as_os_str().is_empty() { crate::STATE_DIR.into() } else { self.state_dir.clone() }
    }

    /// Returns the attachments that still exist, for `GC`.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidConfiguration`] if the runtime lists none, not even an empty list: then nothing may be removed.
    pub(super) fn valid_attachments(&self) -> Result<Vec<AttachmentKey>> {
        let listed = self.valid_attachments.as_ref().ok_or_else(|| {
            invalid(
                "network configuration: cni.dev/valid-attachments is missing; nothing is removed without it",
            )
        })?;
        // `ADD` rejects malformed names, so that attachments with such names are of another plugin.
        let key = |listed: &ValidAttachment| AttachmentKey::new(&listed.container_id, &listed.ifname).ok();
        Ok(listed.iter().filter_map(key).collect())
    }
}

/// Returns the error of `ADD` and `STATUS` while the node has no pod CIDR.
pub(super) fn no_pod_cidr() -> CniError {
    CniError::new(ErrorCode::NotAvailable, "the node has no pod CIDR")
        .with_details("podCIDRs of the network configuration is empty")
}

fn invalid(message: impl Into<String>) -> CniError {
    CniError::new(ErrorCode::InvalidConfiguration, message)
}

/// serde_json's errors end with the line and column.
fn undecodable(error: &serde_json::Error) -> CniError {
    CniError::new(ErrorCode::DecodingFailure, format!("network configuration is not JSON: {error}"))
}
