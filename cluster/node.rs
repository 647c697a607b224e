//! Nodes, with the fields that a proxy needs.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

use crate::address::{parse_cidr, parse_ip};
use crate::labels::{Labels, null_is_empty};
use crate::metadata::Metadata;
use crate::name::Name;
use crate::problem::Problem;

/// The label that names a node's zone.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// The taint with which the cluster autoscaler marks a node that it will delete.
pub const TO_BE_DELETED_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// The condition that a cloud sets on a new node until its pod network is ready.
pub const NETWORK_UNAVAILABLE: &str = "NetworkUnavailable";

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its name.
    pub name: Name,
    /// Its labels.
    pub labels: Labels,
    /// Its creation time, in seconds since 1970; `None` if unknown (manifests).
    pub created: Option<i64>,
    /// `spec.podCIDRs`, or `spec.podCIDR` where only that is set.
    pub pod_cidrs: Box<[IpNet]>,
    /// Addresses of type `InternalIP`.
    pub internal_ips: Box<[IpAddr]>,
    /// Addresses of type `ExternalIP`.
    pub external_ips: Box<[IpAddr]>,
    /// It has a deletion timestamp, or the taint of the cluster autoscaler.
    pub is_to_be_deleted: bool,
    /// Its condition `NetworkUnavailable` is true: a cloud sets it on a new node, and the network plugin has to clear it.
    pub network_unavailable: bool,
}

impl Node {
    /// Returns its zone.
    pub fn zone(&self) -> Option<&Name> {
        self.labels.value(&Name::new(ZONE_LABEL))
    }

    /// Returns its addresses, as kube-proxy uses them: the internal ones, then the external ones.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.internal_ips.iter().chain(&self.external_ips).copied()
    }
}

#[derive(Deserialize)]
pub(crate) struct RawNode {
    metadata: Metadata,
    #[serde(default, deserialize_with = "null_is_empty")]
    spec: Spec,
    #[serde(default, deserialize_with = "null_is_empty")]
    status: Status,
}

#[derive(Default, Deserialize)]
struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs", default, deserialize_with = "null_is_empty")]
    pod_cidrs: Vec<String>,
    #[serde(default, deserialize_with = "null_is_empty")]
    taints: Vec<Taint>,
}

#[derive(Deserialize)]
struct Taint {
    key: String,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default, deserialize_with = "null_is_empty")]
    addresses: Vec<Address>,
    #[serde(default, deserialize_with = "null_is_empty")]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

#[derive(Deserialize)]
struct Address {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

impl RawNode {
    pub(crate) fn convert(self, problems: &mut Vec<Problem>) -> Node {
        let mut cidrs = self.spec.pod_cidrs;
        if cidrs.is_empty() {
            cidrs.extend(self.spec.pod_cidr.filter(|cidr| !cidr.is_empty()));
        }
        let pod_cidrs = cidrs.iter().enumerate().filter_map(|(i, text)| {
            let cidr = parse_cidr(text);
            if cidr.is_none() {
                problems.push(Problem::new(
                    format!("spec.podCIDRs[{i}]"),
                    text,
                    "an address block such as 10.244.1.0/24",
                ));
            }
            cidr
        });
        let pod_cidrs = pod_cidrs.collect();
        let created = self.metadata.created(problems);
        let mut addresses_of_type = |wanted: &str| -> Box<[IpAddr]> {
            let matching = self.status.addresses.iter().enumerate().filter(|(_, a)| a.kind == wanted);
            matching
                .filter_map(|(i, a)| {
                    let ip = parse_ip(&a.address);
                    if ip.is_none() {
                        problems.push(Problem::new(
                            format!("status.addresses[{i}]"),
                            &a.address,
                            "an IP address",
                        ));
                    }
                    ip
                })
                .collect()
        };
        Node {
            created,
            name: Name::new(&self.metadata.name),
            pod_cidrs,
            internal_ips: addresses_of_type("InternalIP"),
            external_ips: addresses_of_type("ExternalIP"),
            is_to_be_deleted: self.metadata.deletion_timestamp.is_some()
                || self.spec.taints.iter().any(|t| t.key == TO_BE_DELETED_TAINT),
            network_unavailable: self
                .status
                .conditions
                .iter()
                .any(|condition| condition.kind == NETWORK_UNAVAILABLE && condition.status == "True"),
            labels: self.metadata.labels.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_network_is_unavailable_only_by_a_true_condition() {
        for (conditions, expected) in [
            (json!(null), false),
            (json!([]), false),
            (json!([{"type": "Ready", "status": "True"}]), false),
            (json!([{"type": "NetworkUnavailable", "status": "False"}]), false),
            (json!([{"type": "NetworkUnavailable", "status": "Unknown"}]), false),
            (
                json!([{"type": "Ready", "status": "True"}, {"type": "NetworkUnavailable", "status": "True"}]),
                true,
            ),
        ] {
            let object: Value = json!({"metadata": {"name": "node-1"}, "status": {"conditions": conditions}});
            let mut problems = Vec::new();
            let node = serde_json::from_value::<RawNode>(object).expect("a Node").convert(&mut problems);
            assert_eq!((node.network_unavailable, problems.len()), (expected, 0), "{conditions}");
        }
    }
}
